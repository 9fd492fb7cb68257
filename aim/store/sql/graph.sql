-- Queries of what Microsoft Graph told.


-- Reading -------------------------------------------------------------------------------------------------------------

-- name: graph_state
select version, revision, name, links, read_at from aim.graph_state where key = $1;

-- name: graph_users
select id, principal_name, username, display_name, mail, enabled, user_type from aim.graph_users;

-- name: graph_groups
select id, name, nickname from aim.graph_groups;

-- name: graph_memberships
-- One row for a group: an array is several times cheaper to transfer and decode than a row for each member.
select group_id, array_agg(member_id) as member_ids, array_agg(is_group) as are_groups
from aim.graph_memberships
group by group_id;


-- Writing -------------------------------------------------------------------------------------------------------------

-- name: graph_lock
-- Whatever is there, of whichever tenant.
select key, version from aim.graph_state for update;

-- name: graph_drop
with users as (delete from aim.graph_users), groups as (delete from aim.graph_groups), memberships as (
    delete from aim.graph_memberships
)
delete from aim.graph_state;

-- name: graph_begin
-- Nothing if somebody else has begun: where there was no row, none could be locked.
insert into aim.graph_state (key, version, revision, name, links, read_at) values ($1, $2, $3, $4, $5, $6)
on conflict do nothing
returning version;

-- name: graph_follow
-- Nothing if another version is there.
update aim.graph_state
set version = version + 1, revision = $3, links = $4
where key = $1 and version = $2
returning version;

-- name: graph_put_users
insert into aim.graph_users (id, principal_name, username, display_name, mail, enabled, user_type)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[])
on conflict (id) do update
set principal_name = excluded.principal_name,
    username = excluded.username,
    display_name = excluded.display_name,
    mail = excluded.mail,
    enabled = excluded.enabled,
    user_type = excluded.user_type;

-- name: graph_drop_users
delete from aim.graph_users where id = any ($1);

-- name: graph_put_groups
insert into aim.graph_groups (id, name, nickname)
select * from unnest($1::text[], $2::text[], $3::text[])
on conflict (id) do update set name = excluded.name, nickname = excluded.nickname;

-- name: graph_drop_groups
with memberships as (delete from aim.graph_memberships where group_id = any ($1))
delete from aim.graph_groups where id = any ($1);

-- name: graph_add_members
insert into aim.graph_memberships (group_id, member_id, is_group)
select $1, * from unnest($2::text[], $3::boolean[])
on conflict (group_id, member_id) do update set is_group = excluded.is_group;

-- name: graph_remove_members
delete from aim.graph_memberships where group_id = $1 and member_id = any ($2);

-- name: graph_erased
select id_hash from aim.graph_erased;

-- name: graph_back
delete from aim.graph_erased where id_hash = any ($1::bytea[]);


-- Forgetting ----------------------------------------------------------------------------------------------------------

-- name: graph_is_back
-- Who is enabled there has come back after they had left.
select exists (select from aim.graph_users where id = $1 and enabled is not false);

-- name: graph_forget
-- Whoever still has them in memory finds another version than the one they know.
with users as (delete from aim.graph_users where id = $1 returning id),
memberships as (delete from aim.graph_memberships where member_id = $1 returning member_id),
hashes as (insert into aim.graph_erased (id_hash) values ($2) on conflict do nothing)
update aim.graph_state
set version = version + 1
where exists (select from users) or exists (select from memberships);
