-- All queries of the store. Each block begins with `-- name: …`, by which `aim.store.queries` finds it.


-- Schema ------------------------------------------------------------------------------------------------------------

-- name: schema_exists
select to_regclass('aim.schema_version') is not null;

-- name: schema_version
select coalesce(max(version), 0) from aim.schema_version;

-- name: record_migration
insert into aim.schema_version (version, name) values ($1, $2);


-- The writer's lock: 'aim' in ASCII, and 1 for the writer -------------------------------------------------------------

-- name: try_lock
select pg_try_advisory_lock(6384749, 1);

-- name: wait_for_lock
select pg_advisory_lock(6384749, 1);

-- name: unlock
select pg_advisory_unlock(6384749, 1);

-- name: lock_holder
-- Locks of this database only: the same numbers in another one are another lock. `objsubid` 2 says two numbers.
select a.application_name, host(a.client_addr) as client, a.backend_start
from pg_locks l
join pg_stat_activity a using (pid)
where l.locktype = 'advisory'
  and l.granted
  and l.classid = 6384749
  and l.objid = 1
  and l.objsubid = 2
  and l.database = (select oid from pg_database where datname = current_database());


-- Reading -----------------------------------------------------------------------------------------------------------

-- name: load_state
select
    source,
    recovery_since,
    not exists (select from aim.cycles) and not exists (select from aim.rooms) and not exists (select from aim.seen)
        as fresh
from aim.state;

-- name: load_rooms
select key, room_id, properties from aim.rooms order by key;

-- name: load_seen
select user_id, localpart, weak_id, first_seen, gone_since from aim.seen order by user_id;

-- name: load_entitled
-- One row for a room: an array is several times cheaper to transfer and decode than a row for each person.
select room_key, array_agg(localpart) as localparts from aim.entitled group by room_key order by room_key;

-- name: load_done
select identity, kind, space, person, at from aim.done where at >= $1 order by id;

-- name: load_held
select identity from aim.held;

-- name: load_approvals
-- Of several for one action, the one that lasts longest.
select distinct on (identity) identity, approved_by, until
from aim.approvals
where until > $1
order by identity, until desc, id desc;

-- name: plan_by_digest
select plan from aim.cycles where digest = $1 order by id desc limit 1;

-- name: open_intents
select key, intended_at from aim.room_intents order by key;


-- Cycles ------------------------------------------------------------------------------------------------------------

-- name: interrupt_cycles
-- There is one writer: whatever still seems to run was killed.
update aim.cycles set status = 'interrupted' where status = 'running';

-- name: prune_done
delete from aim.done where at < $1;

-- name: begin_cycle
insert into aim.cycles (started_at, digest, plan, status) values ($1, $2, $3, 'running') returning id;

-- name: insert_outcomes
insert into aim.outcomes (cycle, position, type, room, target, reason, status, message, at)
select $1, position, type, room, target, reason, status, message, $9
from unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
    as outcome (position, type, room, target, reason, status, message)
on conflict (cycle, position) do nothing;

-- name: end_cycle
update aim.cycles set ended_at = $2, status = $3 where id = $1 and status = 'running' returning id;


-- Rooms -------------------------------------------------------------------------------------------------------------

-- name: intend_room
insert into aim.room_intents (key, intended_at) values ($1, $2)
on conflict (key) do update set intended_at = excluded.intended_at;

-- name: record_room
insert into aim.rooms (key, room_id, properties, created_at, updated_at) values ($1, $2, $3, $4, $4)
on conflict (key) do update
set room_id = excluded.room_id, properties = excluded.properties, updated_at = excluded.updated_at;

-- name: close_intents
delete from aim.room_intents where key = any($1::text[]);


-- People ------------------------------------------------------------------------------------------------------------

-- name: forget_seen
delete from aim.seen where user_id = any ($1::text[]);

-- name: record_seen
insert into aim.seen (user_id, localpart, weak_id, first_seen, gone_since)
select * from unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::timestamptz[])
on conflict (user_id) do update
set localpart = excluded.localpart,
    weak_id = excluded.weak_id,
    first_seen = excluded.first_seen,
    gone_since = excluded.gone_since;

-- name: record_source
update aim.state set source = $1 where source is distinct from $1;

-- name: record_entitled
insert into aim.entitled (room_key, localpart, since) select $1, unnest($2::text[]), $3
on conflict do nothing;


-- Guards ------------------------------------------------------------------------------------------------------------

-- name: record_done
insert into aim.done (identity, kind, space, person, at) values ($1, $2, $3, $4, $5);

-- name: release_held
delete from aim.held where identity <> all ($1::text[]);

-- name: record_held
insert into aim.held (identity) select unnest($1::text[]) on conflict do nothing;

-- name: record_recovery
update aim.state set recovery_since = $1;

-- name: count_decision
update aim.state set decisions = decisions + 1;

-- name: decisions
select decisions from aim.state;

-- name: approve
insert into aim.approvals (identity, approved_by, approved_at, until, digest)
select identity, approved_by, $4, until, $5
from unnest($1::text[], $2::text[], $3::timestamptz[]) as approval (identity, approved_by, until);
