-- Whose leaving counts as their own wish. Personal data (localparts) is in caused.localpart too.

-- When somebody of aim.entitled was last seen to be entitled no more, or again; both null as long as nothing changed.
alter table aim.entitled add column lapsed_at timestamptz, add column regained_at timestamptz;
-- Few have either, and only they are read beside the names.
create index entitled_changed on aim.entitled (room_key)
where lapsed_at is not null or regained_at is not null;

-- Leaves that we are the cause of, acting as the person: recorded before it is done.
create table aim.caused (
    room_id text not null,
    localpart text not null,
    at timestamptz not null default now(),
    primary key (room_id, localpart)
);
