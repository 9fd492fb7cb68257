-- What Microsoft Graph told of the tenant: users, groups, who is directly a member of what, and the links by which it
-- tells what has changed since. One tenant, read in one way. Personal data is in graph_users (principal_name, username,
-- display_name, mail); graph_users.id, graph_memberships.member_id are what seen.user_id holds.
-- Who is deleted there is deleted here by the next look. Who is erased has neither row nor memberships, as long as they
-- are disabled there: graph_erased tells them apart from others.

create table aim.graph_state (
    one boolean primary key default true check (one),
    -- Hash of the tenant and of how it is read: all below is of no use to whoever reads it otherwise.
    key text collate "C" not null,
    version bigint not null,
    revision bigint not null,
    -- Of the organisation.
    name text,
    -- JSON: {"users": link, "groups": [{"link", "ids"}]}.
    links text not null,
    read_at timestamptz not null
);

create table aim.graph_users (
    id text collate "C" primary key,
    principal_name text,
    username text,
    display_name text,
    mail text,
    enabled boolean,
    user_type text
);

create table aim.graph_groups (
    id text collate "C" primary key,
    name text,
    nickname text
);

-- No references: Graph tells of a member before the user, and keeps the groups of whoever may be restored.
create table aim.graph_memberships (
    group_id text collate "C" not null,
    member_id text collate "C" not null,
    is_group boolean not null,
    primary key (group_id, member_id)
);
create index graph_member on aim.graph_memberships (member_id);

-- Keyed hashes (key: aim.state) of the ids of those who were erased: nothing of them is stored again, whatever Graph
-- tells, unless they are enabled there.
create table aim.graph_erased (
    id_hash bytea primary key
);
