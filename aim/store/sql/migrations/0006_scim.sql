-- What SCIM clients push: users, groups, who is a member of what. Personal data is in scim_resources.name,
-- scim_resources.external_id, scim_resources.localpart, scim_resources.emails, scim_resources.display_name, their
-- keys (name_key, display_key, external_key, email_keys) and scim_resources.document; a document may name others, as
-- `manager` does, by their id. scim_resources.id is what seen.user_id holds.
-- Of who is erased, the row and what other documents say of their id are removed.
--
-- `client` is `client.id` of the configuration: another one is another directory. Keys are what is compared, in Unicode
-- normalisation form C and, where RFC 7643 ignores case, in lower case. Python makes them, as what a database takes for
-- lower case depends on where and how it was made. They are compared byte by byte, which is by code point.

create table aim.scim_resources (
    id text collate "C" primary key,
    client text collate "C" not null,
    kind text collate "C" not null check (kind in ('User', 'Group')),
    -- `userName` of a user, `displayName` of a group.
    name text not null,
    name_key text collate "C" not null,
    external_id text,
    external_key text collate "C",
    active boolean not null,
    localpart text,
    emails text[] not null,
    email_keys text[] collate "C" not null,
    -- `displayName` of a user, which is in the document too: a snapshot need not read that.
    display_name text,
    -- Of users and groups.
    display_key text collate "C",
    -- JSON, all ASCII: it may hold characters that Postgres takes in no other form.
    document text not null,
    version bigint not null default 1,
    created timestamptz not null,
    modified timestamptz not null
);

-- Two requests at once that want the same `userName`: one gets it.
create unique index scim_user_name on aim.scim_resources (client, name_key) where kind = 'User';
create index scim_group_name on aim.scim_resources (client, name_key, id) where kind = 'Group';
create index scim_display on aim.scim_resources (client, display_key, id) where display_key is not null;
create index scim_external on aim.scim_resources (client, external_key, id) where external_key is not null;
-- No list of what is yet to be indexed: searches would have to go through it.
create index scim_email on aim.scim_resources using gin (email_keys)
    with (fastupdate = off) where email_keys <> '{}';
create index scim_inactive on aim.scim_resources (client, kind, id) where not active;
create index scim_created on aim.scim_resources (client, kind, created, id);
create index scim_modified on aim.scim_resources (client, kind, modified, id);

-- Direct members of groups: users, and groups.
create table aim.scim_memberships (
    group_id text collate "C" not null references aim.scim_resources on delete cascade,
    member_id text collate "C" not null references aim.scim_resources on delete cascade,
    primary key (group_id, member_id),
    check (group_id <> member_id)
);
create index scim_member on aim.scim_memberships (member_id, group_id);

-- How often a client's directory changed: the sum over its rows. One row would have to be waited for by every change,
-- and a sequence counts before the change can be seen: whoever reads 7 would have to know that 6 is still to come. Each
-- connection counts in one of 16 rows, in the transaction that makes the change.
create table aim.scim_revisions (
    client text collate "C" not null,
    part integer not null,
    changes bigint not null,
    last_write timestamptz,
    primary key (client, part)
) with (fillfactor = 50);

-- Clients whose directory was said to be complete; without a row it is filling.
create table aim.scim_ready (
    client text collate "C" primary key,
    since timestamptz not null
);
