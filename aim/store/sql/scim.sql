-- Queries of the directory that SCIM clients push. `$1` is the client, where there is one. In the blocks that hold
-- braces `aim.store.scim` and `scim_pages` put conditions and other blocks; values are arguments all the same.


-- Reading -------------------------------------------------------------------------------------------------------------

-- name: scim_with_groups
-- Joined to resources `p`: the groups that each of them is in, as scim_groups_of tells them, for one wait less.
left join lateral (
    select
        array_agg(g.id order by g.name collate "C", g.id) as ids,
        array_agg(g.kind order by g.name collate "C", g.id) as kinds,
        array_agg(g.name order by g.name collate "C", g.id) as names
    from aim.scim_memberships m
    join aim.scim_resources g on g.id = m.group_id
    where m.member_id = p.id and g.client = $1
) groups on true

-- name: scim_get
select
    p.id, p.kind, p.name, p.external_id, p.active, p.localpart, p.emails, p.document, p.version, p.created, p.modified,
    groups.*
from aim.scim_resources p
{with_groups}
where p.client = $1 and p.kind = $2 and p.id = $3;

-- name: scim_search
-- Total and page of one moment, in one answer; a row without an id if the page is empty.
select c.total, {elsewhere} as elsewhere, p.*, groups.*
from (select count(*) as total from aim.scim_resources r where {where}) c
left join lateral (
    select
        r.id, r.kind, r.name, r.external_id, r.active, r.localpart, r.emails, r.document, r.version, r.created,
        r.modified, {sort} as sort_value
    from aim.scim_resources r
    where {where} and {beyond}
    order by {sort} {direction}, r.id {direction}
    limit {limit} offset {offset}
) p on true
{with_groups}
order by p.sort_value {direction}, p.id {direction};

-- name: scim_elsewhere
exists (select from aim.scim_resources r where {where} and {beyond})

-- name: scim_scan
select id, kind, name, external_id, active, localpart, emails, document, version, created, modified
from aim.scim_resources
where client = $1 and kind = any ($2)
order by created, id
limit $3;

-- name: scim_members
-- Of each group no more than $3 are looked at, enough to tell that it is large; null: all. Each is a query of its own,
-- so that Postgres plans for that many and not for all members of all groups.
select g.id as owner, found.*
from unnest($2::text[]) as g (id)
cross join lateral (
    select
        array_agg(r.id order by r.name collate "C", r.id) as ids,
        array_agg(r.kind order by r.name collate "C", r.id) as kinds,
        array_agg(r.name order by r.name collate "C", r.id) as names
    from (select member_id from aim.scim_memberships where group_id = g.id limit $3::bigint) m
    join aim.scim_resources r on r.id = m.member_id
    where r.client = $1
) found
where found.ids is not null;

-- name: scim_sizes
select r.id, m.size
from aim.scim_resources r
cross join lateral (
    select count(*) as size
    from (select from aim.scim_memberships where group_id = r.id limit $3::bigint) counted
) m
where r.client = $1 and r.id = any ($2);

-- name: scim_groups_of
select
    m.member_id as owner,
    array_agg(r.id order by r.name collate "C", r.id) as ids,
    array_agg(r.kind order by r.name collate "C", r.id) as kinds,
    array_agg(r.name order by r.name collate "C", r.id) as names
from aim.scim_memberships m
join aim.scim_resources r on r.id = m.group_id
where r.client = $1 and m.member_id = any ($2)
group by m.member_id;

-- name: scim_snapshot
select id, kind, name, external_id, active, localpart, emails, display_name, version, created, modified
from aim.scim_resources
where client = $1;

-- name: scim_snapshot_members
-- One row for a group: an array is several times cheaper to transfer and decode than a row for each member.
select m.group_id, array_agg(m.member_id order by m.member_id) as member_ids
from aim.scim_memberships m
join aim.scim_resources r on r.id = m.group_id
where r.client = $1
group by m.group_id;

-- name: scim_growth
select
    count(*) filter (where r.kind = 'User') as users,
    count(*) filter (where r.kind = 'User' and r.active) as active,
    count(*) filter (where r.kind = 'Group') as groups,
    (
        select count(*)
        from aim.scim_memberships m
        join aim.scim_resources g on g.id = m.group_id
        where g.client = $1
    ) as memberships,
    (select max(last_write) from aim.scim_revisions where client = $1) as last_write,
    (select since from aim.scim_ready where client = $1) as ready_since
from aim.scim_resources r
where r.client = $1;

-- name: scim_revision
select coalesce(sum(changes), 0)::bigint from aim.scim_revisions where client = $1;

-- name: scim_ready_since
select since from aim.scim_ready where client = $1;

-- name: scim_mapping
select username from aim.scim_mappings where client = $1;


-- Writing -------------------------------------------------------------------------------------------------------------

-- name: scim_lock
-- As it is, and stays until we have written. Being named as a member by others is no reason to wait.
select id, kind, name, external_id, active, localpart, emails, document, version, created, modified
from aim.scim_resources
where client = $1 and kind = $2 and id = $3
for no key update;

-- name: scim_lock_groups_of
-- Always before the member itself, as whoever adds it to one of them does it.
select r.id
from aim.scim_resources r
join aim.scim_memberships m on m.group_id = r.id
where r.client = $1 and m.member_id = $2
order by r.id
for no key update of r;

-- name: scim_create
insert into aim.scim_resources (
    client, kind, id, name, name_key, external_id, external_key, active, localpart, emails, email_keys,
    display_name, display_key, document, created, modified
)
values (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, statement_timestamp(), statement_timestamp()
)
returning id, kind, name, external_id, active, localpart, emails, document, version, created, modified;

-- name: scim_replace
update aim.scim_resources
set name = $4,
    name_key = $5,
    external_id = $6,
    external_key = $7,
    active = $8,
    localpart = $9,
    emails = $10,
    email_keys = $11,
    display_name = $12,
    display_key = $13,
    document = $14,
    version = version + 1,
    modified = greatest(statement_timestamp(), modified + interval '1 microsecond')
where client = $1 and kind = $2 and id = $3 {provided}
returning id, kind, name, external_id, active, localpart, emails, document, version, created, modified;

-- name: scim_if_it_differs
-- For scim_replace: only if this is the version, and there is anything to change. Else there is no row.
and version = $15
and (name, external_id, active, localpart, emails, document) is distinct from ($4, $6, $8, $9, $10, $14)

-- name: scim_touch
update aim.scim_resources
set version = version + 1, modified = greatest(statement_timestamp(), modified + interval '1 microsecond')
where client = $1 and id = $2
returning id, kind, name, external_id, active, localpart, emails, document, version, created, modified;

-- name: scim_touch_groups_of
update aim.scim_resources r
set version = r.version + 1, modified = greatest(statement_timestamp(), r.modified + interval '1 microsecond')
from aim.scim_memberships m
where r.client = $1 and m.group_id = r.id and m.member_id = $2;

-- name: scim_delete
delete from aim.scim_resources where client = $1 and id = $2;

-- name: scim_add_members
-- Who is not stored, or is another client's, is left out. The lock keeps them from being deleted meanwhile.
with found as (
    select r.id
    from aim.scim_resources r
    where r.client = $1
      and r.id = any ($3)
      and r.id <> $2
      and not exists (select from aim.scim_memberships m where m.group_id = $2 and m.member_id = r.id)
    order by r.id
    for key share
), added as (
    insert into aim.scim_memberships (group_id, member_id)
    select $2, id from found
    on conflict do nothing
    returning 1
)
select count(*) from added;

-- name: scim_remove_members
with removed as (
    delete from aim.scim_memberships where group_id = $1 and member_id = any ($2) returning 1
)
select count(*) from removed;

-- name: scim_keep_members
-- All others go.
with removed as (
    delete from aim.scim_memberships m
    where m.group_id = $1
      and not exists (select from unnest($2::text[]) as kept (id) where kept.id = m.member_id)
    returning 1
)
select count(*) from removed;

-- name: scim_changed
-- The last statement of a transaction that changed something: nobody waits long for one of these rows.
insert into aim.scim_revisions as r (client, part, changes, last_write)
values ($1, pg_backend_pid() % 16, 1, clock_timestamp())
on conflict (client, part) do update set changes = r.changes + 1, last_write = excluded.last_write
returning pg_notify('aim_scim', '');

-- name: scim_and_changed
-- A statement on one resource and scim_changed as one, for one wait less. It stays the last thing that is done, and is
-- done if the statement did anything.
with done as (
{statement}
), changed as (
    insert into aim.scim_revisions as r (client, part, changes, last_write)
    select $1, pg_backend_pid() % 16, 1, clock_timestamp() from done
    on conflict (client, part) do update set changes = r.changes + 1, last_write = excluded.last_write
    {and_tell}
)
select p.*, groups.*
from done p
{with_groups}

-- name: scim_and_tell
returning pg_notify('aim_scim', '')

-- name: scim_tell
-- On its own: a transaction that notifies waits for all others that do, until they are on the disk.
select pg_notify('aim_scim', '');

-- name: scim_said_ready
-- As scim_changed; but nobody pushed anything.
insert into aim.scim_revisions as r (client, part, changes)
values ($1, pg_backend_pid() % 16, 1)
on conflict (client, part) do update set changes = r.changes + 1
returning pg_notify('aim_scim', '');

-- name: scim_set_ready
insert into aim.scim_ready (client, since) values ($1, $2)
on conflict (client) do update set since = excluded.since;

-- name: scim_set_filling
delete from aim.scim_ready where client = $1;

-- name: scim_set_mapping
insert into aim.scim_mappings (client, username) values ($1, $2)
on conflict (client) do update set username = excluded.username;

-- name: scim_lock_users
-- The next $3 of them after the id $2. Locked in the order of their ids, as all who take several do it.
select id, localpart, document
from aim.scim_resources
where client = $1 and kind = 'User' and id > $2
order by id
limit $3
for no key update;

-- name: scim_set_localparts
-- Neither `version` nor `modified`: clients see nothing of it.
update aim.scim_resources r
set localpart = made.localpart
from unnest($2::text[], $3::text[]) as made (id, localpart)
where r.client = $1 and r.id = made.id;


-- Forgetting ----------------------------------------------------------------------------------------------------------

-- name: scim_lock_groups_of_inactive
-- As scim_lock_groups_of.
select r.id
from aim.scim_resources u
join aim.scim_memberships m on m.member_id = u.id
join aim.scim_resources r on r.id = m.group_id
where u.id = $1 and u.kind = 'User' and not u.active
order by r.id
for no key update of r;

-- name: scim_lock_inactive
select client from aim.scim_resources where id = $1 and kind = 'User' and not active for update;

-- name: scim_naming
select client, kind, id, document
from aim.scim_resources
where position($1 in document) > 0
order by id
for no key update;

-- name: scim_rewrite
update aim.scim_resources
set document = $2,
    version = version + 1,
    modified = greatest(statement_timestamp(), modified + interval '1 microsecond')
where id = $1;
