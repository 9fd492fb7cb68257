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
-- The clock as it is now, not as it was when the transaction began.
select
    source,
    recovery_since,
    clock,
    clock_timestamp() as database_clock,
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

-- name: load_changed
-- Of those who were ever entitled, the few who are not any more or are again.
select room_key, localpart, lapsed_at, regained_at
from aim.entitled
where lapsed_at is not null or regained_at is not null
order by room_key, localpart;

-- name: load_caused
select room_id, array_agg(localpart) as localparts from aim.caused group by room_id order by room_id;

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
-- Done by a writer that has just come.
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

-- name: forget_room
delete from aim.rooms where key = $1;

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

-- name: record_lapsed
update aim.entitled set lapsed_at = $3, regained_at = null where room_key = $1 and localpart = any ($2::text[]);

-- name: record_regained
update aim.entitled set lapsed_at = null, regained_at = $3 where room_key = $1 and localpart = any ($2::text[]);

-- name: record_caused
insert into aim.caused (room_id, localpart) values ($1, $2) on conflict (room_id, localpart) do update set at = now();

-- name: forget_caused
delete from aim.caused where room_id = $1 and localpart = any ($2::text[]);


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

-- name: database_clock
select clock_timestamp();

-- name: approve
insert into aim.approvals (identity, approved_by, approved_at, until, digest)
select identity, approved_by, $4, until, $5
from unnest($1::text[], $2::text[], $3::timestamptz[]) as approval (identity, approved_by, until);


-- The mirror: reading -------------------------------------------------------------------------------------------------

-- name: mirror_facts
select control_room, counter_sent, counter_seen, complete, is_current, accounts_read_at, default_room_version
from aim.mirror;

-- name: mirror_rooms
select room_id, stale, verified_at from aim.mirror_rooms;

-- name: mirror_state
select room_id, type, state_key, sender, origin_server_ts, event_id, content from aim.mirror_state;

-- name: mirror_doubts
select room_id, type, state_key from aim.mirror_doubts;

-- name: mirror_accounts
select localpart from aim.mirror_accounts;

-- name: mirror_members
-- One row for each room and kind of member, as arrays: see load_entitled. The local ones by localpart ($1: our server
-- name, the part behind the first colon; $2: the bot's MXID). Of those who left, only who did so by themselves.
with member as (
    select
        room_id,
        membership,
        case
            when user_id = $2 then 'bot'
            when substr(user_id, strpos(user_id, ':') + 1) = $1 then 'local'
            else 'foreign'
        end as kind,
        user_id,
        case when membership = 'leave' then origin_server_ts end as sent
    from aim.mirror_members
    where membership <> 'leave' or own or user_id = $2
)
select
    room_id,
    membership,
    kind,
    array_agg(case when kind = 'local' then substr(user_id, 2, strpos(user_id, ':') - 2) else user_id end) as names,
    case when membership = 'leave' then array_agg(sent) end as sent
from member
group by room_id, membership, kind;

-- name: mirror_members_of
select user_id, membership, own, origin_server_ts, event_id from aim.mirror_members where room_id = $1;

-- name: mirror_stamps
select room_id, user_id, event_id, origin_server_ts
from aim.mirror_members
join unnest($1::text[], $2::text[]) as wanted (room_id, user_id) using (room_id, user_id);

-- name: mirror_by_event
select room_id, user_id from aim.mirror_members where event_id = any ($1::text[]);

-- name: transaction_digest
select digest from aim.transactions where txn_id = $1;


-- The mirror: writing -------------------------------------------------------------------------------------------------

-- name: mirror_drop_state
delete from aim.mirror_state where room_id = any ($1::text[]);

-- name: mirror_drop_members
delete from aim.mirror_members where room_id = any ($1::text[]);

-- name: mirror_drop_doubts
delete from aim.mirror_doubts where room_id = any ($1::text[]);

-- name: mirror_drop_rooms
delete from aim.mirror_rooms where room_id = any ($1::text[]);

-- name: mirror_put_rooms
insert into aim.mirror_rooms (room_id, stale, verified_at)
select * from unnest($1::text[], $2::boolean[], $3::timestamptz[])
on conflict (room_id) do update set stale = excluded.stale, verified_at = excluded.verified_at;

-- name: mirror_remove_state
delete from aim.mirror_state
using unnest($1::text[], $2::text[], $3::text[]) as gone (room_id, type, state_key)
where mirror_state.room_id = gone.room_id and mirror_state.type = gone.type and mirror_state.state_key = gone.state_key;

-- name: mirror_remove_members
delete from aim.mirror_members
using unnest($1::text[], $2::text[]) as gone (room_id, user_id)
where mirror_members.room_id = gone.room_id and mirror_members.user_id = gone.user_id;

-- name: mirror_put_state
insert into aim.mirror_state (room_id, type, state_key, sender, origin_server_ts, event_id, content)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[])
on conflict (room_id, type, state_key) do update
set sender = excluded.sender,
    origin_server_ts = excluded.origin_server_ts,
    event_id = excluded.event_id,
    content = excluded.content;

-- name: mirror_put_members
insert into aim.mirror_members (room_id, user_id, membership, own, origin_server_ts, event_id)
select * from unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::bigint[], $6::text[])
on conflict (room_id, user_id) do update
set membership = excluded.membership,
    own = excluded.own,
    origin_server_ts = excluded.origin_server_ts,
    event_id = excluded.event_id;

-- name: mirror_settle
delete from aim.mirror_doubts
using unnest($1::text[], $2::text[], $3::text[]) as settled (room_id, type, state_key)
where mirror_doubts.room_id = settled.room_id
  and mirror_doubts.type = settled.type
  and mirror_doubts.state_key = settled.state_key;

-- name: mirror_doubt
insert into aim.mirror_doubts (room_id, type, state_key)
select * from unnest($1::text[], $2::text[], $3::text[])
on conflict do nothing;

-- name: mirror_forget_accounts
-- Joined, so that it takes no longer for a million of them.
delete from aim.mirror_accounts
where not exists (select from unnest($1::text[]) as kept (localpart) where kept.localpart = mirror_accounts.localpart);

-- name: mirror_add_accounts
insert into aim.mirror_accounts (localpart) select unnest($1::text[]) on conflict do nothing;

-- name: mirror_put_facts
-- What is null stays as it is; the counters only grow.
update aim.mirror
set control_room = coalesce($1, control_room),
    counter_sent = greatest(counter_sent, $2),
    counter_seen = greatest(counter_seen, $3),
    complete = coalesce($4, complete),
    is_current = coalesce($5, is_current),
    accounts_read_at = coalesce($6, accounts_read_at),
    default_room_version = coalesce($7, default_room_version);

-- name: record_transaction
insert into aim.transactions (txn_id, digest, at) values ($1, $2, $3)
on conflict (txn_id) do update set digest = excluded.digest, at = excluded.at;

-- name: prune_transactions
delete from aim.transactions where at < $1;


-- The audit: what `aim explain` asks ----------------------------------------------------------------------------------

-- name: audit_entitlements
select room_key, localpart, since, lapsed_at, regained_at
from aim.entitled
where room_key = any ($1::text[]) and localpart = any ($2::text[]);

-- name: audit_people
-- Of each person in each of these rooms, the last one.
select distinct on (o.room, o.target)
    o.room, o.target, o.type, o.status, o.reason, o.message, o.at, o.cycle, c.digest
from aim.outcomes o
join aim.cycles c on c.id = o.cycle
where o.room = any ($1::text[]) and o.target = any ($2::text[])
order by o.room, o.target, o.at desc, o.cycle desc, o.position desc;

-- name: audit_repeated
select type, room, target, count(*) as times
from aim.outcomes
where at > $1 and status = 'done' and target is not null
group by type, room, target
having count(*) > $2
order by type, room, target;

-- name: audit_room
-- The last one about the room itself: whatever is about a person has a user id as its target.
select o.room, null as target, o.type, o.status, o.reason, o.message, o.at, o.cycle, c.digest
from aim.outcomes o
join aim.cycles c on c.id = o.cycle
where o.room = $1 and (o.target is null or left(o.target, 1) <> '@')
order by o.at desc, o.cycle desc, o.position desc
limit 1;


-- The deprovisioning queue ------------------------------------------------------------------------------------------

-- name: load_queue
select
    user_id, localpart, queued_at, due_at, reason, ours, held_by, erase_by, restored_by, found_due_at
from aim.queue
order by user_id;

-- name: load_queued
select
    user_id, localpart, queued_at, due_at, reason, ours, held_by, erase_by, restored_by, found_due_at
from aim.queue
where user_id = $1;

-- name: is_name_queued
select exists (select from aim.queue where localpart = $1);

-- name: lock_queue
-- As load_queue, and nobody else changes any of it before we have.
select
    user_id, localpart, queued_at, due_at, reason, ours, held_by, erase_by, restored_by, found_due_at
from aim.queue
order by user_id
for update;

-- name: lock_queued
-- As load_queued, and nobody else changes it before we have.
select
    user_id, localpart, queued_at, due_at, reason, ours, held_by, erase_by, restored_by, found_due_at
from aim.queue
where user_id = $1
for update;

-- name: enqueue
-- What a person said (`aim queue`) while the writer was at work is not lost: see desired.queueing.merged, which says
-- the same.
insert into aim.queue (user_id, localpart, queued_at, due_at, reason, ours, found_due_at, held_by, erase_by, restored_by)
select *
from unnest(
    $1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::boolean[], $7::timestamptz[],
    $8::text[], $9::text[], $10::text[]
)
on conflict (user_id) do update
set localpart = excluded.localpart,
    queued_at = excluded.queued_at,
    due_at = case when queue.queued_at = excluded.queued_at then queue.due_at else excluded.due_at end,
    reason = excluded.reason,
    ours = excluded.ours,
    found_due_at = excluded.found_due_at,
    held_by = queue.held_by,
    erase_by = case when queue.queued_at = excluded.queued_at then queue.erase_by else excluded.erase_by end,
    restored_by = queue.restored_by;

-- name: decide_queue
update aim.queue
set due_at = said.due_at,
    found_due_at = said.found_due_at,
    held_by = said.held_by,
    erase_by = said.erase_by,
    restored_by = said.restored_by
from unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::text[])
    as said (user_id, due_at, found_due_at, held_by, erase_by, restored_by)
where queue.user_id = said.user_id;

-- name: dequeue
delete from aim.queue where user_id = any ($1::text[]);

-- name: postpone_queue
update aim.queue set due_at = greatest(due_at, $1);

-- name: rebind_queue
-- Who was known by another id waits under the one that they have now.
update aim.queue
set user_id = known.user_id
from unnest($1::text[], $2::text[]) as known (user_id, localpart)
where queue.localpart = known.localpart
  and queue.user_id = any ($3::text[])
  and not exists (select from aim.queue other where other.user_id = known.user_id);

-- name: revoke_approvals
-- Taken back, or used up. They stay, for the audit, as expired.
update aim.approvals set until = $2 where identity = any ($1::text[]) and until > $2;

-- name: record_clock
update aim.state set clock = $1;


-- Accounts ----------------------------------------------------------------------------------------------------------

-- name: load_accounts
select localpart, display_name, emails, locked, deactivated, admin, emails_read_at, announced from aim.accounts;

-- name: accounts_listed_at
select accounts_listed_at from aim.state;

-- name: record_accounts
-- $3: the addresses of each account as a JSON array, as Postgres has no arrays of arrays of several lengths.
insert into aim.accounts
    (localpart, display_name, emails, locked, deactivated, admin, emails_read_at, announced)
select
    localpart,
    display_name,
    case when emails is not null then array(select jsonb_array_elements_text(emails::jsonb)) end,
    locked,
    deactivated,
    admin,
    emails_read_at,
    announced
from unnest(
    $1::text[], $2::text[], $3::text[], $4::boolean[], $5::boolean[], $6::boolean[], $7::timestamptz[], $8::boolean[]
)
    as read (localpart, display_name, emails, locked, deactivated, admin, emails_read_at, announced)
on conflict (localpart) do update
set display_name = excluded.display_name,
    emails = excluded.emails,
    locked = excluded.locked,
    deactivated = excluded.deactivated,
    admin = excluded.admin,
    emails_read_at = excluded.emails_read_at,
    announced = excluded.announced;

-- name: drop_accounts
-- But for those on the queue: what is recorded of them is forgotten with the person (forget_stored_account), and until
-- then their addresses say what there is to forget. If they leave the queue instead, it goes after the next start.
delete from aim.accounts
where localpart = any ($1::text[])
  and not exists (select from aim.queue where queue.localpart = accounts.localpart);

-- name: record_listing
update aim.state set accounts_listed_at = $1;


-- Mail --------------------------------------------------------------------------------------------------------------

-- name: post_letter
insert into aim.letters
    (key_hash, key, event, localpart, recipients, subject, text, html, message_id, status, posted_at, due_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'waiting', $10, $10)
on conflict (key_hash) do nothing;

-- name: drop_superseded_held
-- Those that wait while this one does, which came later. Without a trace: what they tell may be held once more.
delete from aim.letters
where event = 'held'
  and status = 'waiting'
  and id < (select new.id from aim.letters new where new.key_hash = $1 and new.status = 'waiting');

-- name: take_letter
update aim.letters
set status = 'sending', attempts = attempts + 1
where id = (select id from aim.letters where status = 'waiting' and due_at <= $1 order by id limit 1)
returning id, key, event, localpart, recipients, subject, text, html, message_id, attempts - 1 as attempts;

-- name: letters_under_way
select id, key, event, localpart, recipients, subject, text, html, message_id, attempts
from aim.letters
where status = 'sending'
order by id;

-- name: end_letter
update aim.letters
set status = $2,
    error = $3,
    ended_at = $4,
    key = null,
    localpart = null,
    recipients = '{}',
    subject = '',
    text = '',
    html = '',
    message_id = ''
where id = $1;

-- name: retry_letter
update aim.letters set status = 'waiting', error = $2, due_at = $3 where id = $1 and status = 'sending';

-- name: next_letter_due
select min(due_at) from aim.letters where status = 'waiting';


-- Forgetting somebody -----------------------------------------------------------------------------------------------
-- Texts are searched by position(), never by patterns: a localpart may hold `_` and `%`.

-- name: load_erased
select localpart_hash from aim.erased;

-- name: record_erased
insert into aim.erased (localpart_hash) values ($1) on conflict do nothing;

-- name: forget_erased
delete from aim.erased where localpart_hash = any ($1::bytea[]);

-- name: audit_key
select audit_key from aim.state;

-- name: make_audit_key
update aim.state set audit_key = $1 where audit_key is null;

-- name: forget_addresses
-- Every e-mail address that is known to be theirs.
select distinct address
from (
    select unnest(emails) from aim.accounts where localpart = $1
    union all
    select unnest(recipients) from aim.letters where localpart = $1
)
    as theirs (address);

-- name: forget_stored_account
delete from aim.accounts where localpart = $1;

-- name: forget_entitled
delete from aim.entitled where localpart = $1;

-- name: forget_their_leaves
delete from aim.caused where localpart = $1;

-- name: forget_member
delete from aim.mirror_members where user_id = $1;

-- name: forget_account
delete from aim.mirror_accounts where localpart = $1;

-- name: forget_doubts
delete from aim.mirror_doubts where state_key = $1;

-- name: forget_state
delete from aim.mirror_state where state_key = $1;

-- name: forget_sender
update aim.mirror_state set sender = '' where sender = $1;

-- name: find_state
select room_id, type, state_key, content from aim.mirror_state where position($1 in content) > 0;

-- name: rewrite_state
update aim.mirror_state set content = $4 where room_id = $1 and type = $2 and state_key = $3;

-- name: find_done
select id, identity, person from aim.done where person = $1 or position($2 in identity) > 0;

-- name: rewrite_done
update aim.done set identity = $2, person = $3 where id = $1;

-- name: find_held
select identity from aim.held where position($1 in identity) > 0;

-- name: drop_held
delete from aim.held where identity = $1;

-- name: find_approvals
select id, identity from aim.approvals where position($1 in identity) > 0;

-- name: rewrite_approval
update aim.approvals set identity = $2 where id = $1;

-- name: find_outcomes
-- $1: whatever names them, in any case.
select cycle, position, room, target, reason, message
from aim.outcomes
where exists (
    select
    from unnest($1::text[]) as needle
    where position(lower(needle) in lower(concat_ws(' ', room, target, reason, message))) > 0
);

-- name: rewrite_outcome
update aim.outcomes set room = $3, target = $4, reason = $5, message = $6 where cycle = $1 and position = $2;

-- name: find_plans
select id
from aim.cycles
where exists (select from unnest($1::text[]) as needle where position(lower(needle) in lower(plan)) > 0);

-- name: plan_of
select plan from aim.cycles where id = $1;

-- name: rewrite_plan
update aim.cycles set plan = $2 where id = $1;

-- name: find_letters
select id, key, localpart, recipients, subject, text, html, error
from aim.letters
where localpart = $1
   or exists (
       select
       from unnest($2::text[]) as needle
       where position(lower(needle) in lower(concat_ws(
           ' ', key, array_to_string(recipients, ' '), subject, text, html, message_id, error
       ))) > 0
   );

-- name: rewrite_letter
update aim.letters
set key = $2, recipients = $3, subject = $4, text = $5, html = $6, error = $7
where id = $1;

-- name: letter_recipients
select recipients from aim.letters where id = $1;

-- name: forget_seen_person
-- Those known under the same localpart before were the owners of the same account.
delete from aim.seen where user_id = $1 or (localpart = $2 and gone_since is not null);

-- name: forget_queued
delete from aim.queue where user_id = $1 or localpart = $2;

-- name: blank_letter
-- One that is under way is told by its sender what became of it.
update aim.letters
set status = case when status = 'waiting' then 'given_up' else status end,
    key = null,
    localpart = null,
    recipients = '{}',
    subject = '',
    text = '',
    html = '',
    message_id = '',
    error = $2
where id = $1;
