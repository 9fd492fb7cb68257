-- What `aim` remembers, all of it in the schema `aim`. Personal data (localparts, MXIDs) is only in the columns
-- seen.localpart, entitled.localpart, done.person, outcomes.target and outcomes.message, in the identities of
-- actions (done, held, approvals) and in the text of plans.

do $$
begin
    -- `create schema if not exists` asks for the right to create schemas even where there is nothing to create.
    if to_regnamespace('aim') is null then
        create schema aim;
    end if;
end
$$;

create table aim.schema_version (
    version integer primary key,
    name text not null,
    applied_at timestamptz not null default now()
);

-- Facts of which there is one each.
create table aim.state (
    single boolean primary key default true check (single),
    source text,
    recovery_since timestamptz,
    -- Counts approvals and rebinds: a daemon sees by it that a person has decided something.
    decisions bigint not null default 0
);
insert into aim.state default values;

-- Rooms and spaces that we made or took over.
create table aim.rooms (
    key text primary key,
    room_id text not null,
    properties jsonb,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

-- A `createRoom` was about to be sent, and its room is not recorded since.
create table aim.room_intents (
    key text primary key,
    intended_at timestamptz not null
);

-- Users who were in a complete directory at some time.
create table aim.seen (
    user_id text primary key,
    localpart text not null,
    weak_id boolean not null,
    first_seen timestamptz not null,
    gone_since timestamptz
);

-- Who was ever entitled to be in a room. The order of the key groups the rows by room, which is how they are read.
create table aim.entitled (
    room_key text not null,
    localpart text not null,
    since timestamptz not null,
    primary key (room_key, localpart)
);

-- The audit: one pass, with the exact JSON text of its plan.
create table aim.cycles (
    id bigint generated always as identity primary key,
    started_at timestamptz not null,
    ended_at timestamptz,
    digest text not null,
    plan text not null,
    status text not null check (status in ('running', 'done', 'failed', 'interrupted'))
);
create index cycles_digest on aim.cycles (digest, id);
create index cycles_running on aim.cycles (id) where status = 'running';

-- What became of each action of a cycle, in the order in which they were told.
create table aim.outcomes (
    cycle bigint not null references aim.cycles on delete cascade,
    position integer not null,
    type text not null,
    room text not null,
    target text,
    reason text not null,
    status text not null check (status in ('done', 'failed', 'skipped', 'held')),
    message text not null,
    at timestamptz not null,
    primary key (cycle, position)
);

-- Destructive actions that were begun: they count against the guards for an hour.
create table aim.done (
    id bigint generated always as identity primary key,
    identity text not null,
    kind text not null,
    space text not null,
    person text not null,
    at timestamptz not null
);
create index done_at on aim.done (at);

-- Identities of actions that a guard holds.
create table aim.held (
    identity text primary key,
    since timestamptz not null default now()
);

-- Who let which held action go; expired ones stay, for the audit.
create table aim.approvals (
    id bigint generated always as identity primary key,
    identity text not null,
    approved_by text not null,
    approved_at timestamptz not null,
    until timestamptz not null,
    digest text not null
);
create index approvals_until on aim.approvals (until);
