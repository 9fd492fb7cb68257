-- The mirror: the observed state of managed rooms, as the homeserver's transactions tell it. Personal data
-- (localparts, MXIDs) is in mirror_members.user_id, mirror_accounts.localpart, mirror_state.sender,
-- mirror_state.state_key, mirror_doubts.state_key and in the content of mirror_state (power levels, creators).
-- All of it is the homeserver's, and can be read from there again.
--
-- Ids are compared byte by byte: quicker than by the rules of a language, and what Matrix means.

-- Facts of which there is one each.
create table aim.mirror (
    single boolean primary key default true check (single),
    -- Our own room, in which an event of ours comes back through the stream, and the number that it carries:
    -- the last one sent, the last one that came back.
    control_room text,
    counter_sent bigint not null default 0,
    counter_seen bigint not null default 0,
    -- True once every room that the bot is in was looked at, and none of it was in question since.
    complete boolean not null default false,
    -- True while events arrive: others may believe the mirror as long as its writer holds the lock.
    is_current boolean not null default false,
    -- When the whole list of accounts was read.
    accounts_read_at timestamptz,
    default_room_version text
);
insert into aim.mirror default values;

-- Rooms that are mirrored; `stale`: to be read as a whole before anything of it is believed.
create table aim.mirror_rooms (
    room_id text collate "C" primary key,
    stale boolean not null,
    verified_at timestamptz
);

-- State of the few types that matter, but memberships. The content is JSON text, all ASCII: what strangers write
-- may hold characters that Postgres takes in no other form.
create table aim.mirror_state (
    room_id text collate "C" not null,
    type text collate "C" not null,
    state_key text collate "C" not null,
    sender text collate "C" not null,
    origin_server_ts bigint not null,
    event_id text collate "C" not null,
    content text not null,
    primary key (room_id, type, state_key)
);

-- Every membership, those of other servers' users and of the bot too. `own`: who sent it is whom it is about.
create table aim.mirror_members (
    room_id text collate "C" not null,
    user_id text collate "C" not null,
    membership text collate "C" not null,
    own boolean not null,
    origin_server_ts bigint not null,
    event_id text collate "C" not null,
    primary key (room_id, user_id)
);
-- To find out whether a redaction is of a membership: most are of messages.
create index mirror_members_event on aim.mirror_members using hash (event_id);

-- Keys of which an event told something that can't be believed: to be read from the homeserver.
create table aim.mirror_doubts (
    room_id text collate "C" not null,
    type text collate "C" not null,
    state_key text collate "C" not null,
    primary key (room_id, type, state_key)
);

-- Local users who have an account.
create table aim.mirror_accounts (
    localpart text collate "C" primary key
);

-- Transactions that changed something here, so that a repeated one changes nothing. The digest is over the ids
-- of its events: a homeserver that was set up anew counts from 1 again.
create table aim.transactions (
    txn_id text collate "C" primary key,
    digest text not null,
    at timestamptz not null
);
create index transactions_at on aim.transactions (at);
