-- Accounts: who waits for their erasure, accounts as they were last read, mail that waits to be sent. Personal data
-- (localparts, display names, e-mail addresses) is in queue.localpart, in accounts.localpart, accounts.display_name
-- and accounts.emails, and, as long as a mail is under way, in letters.key, letters.localpart, letters.recipients,
-- letters.subject, letters.text, letters.html, letters.message_id and letters.error. The ids of users (queue.user_id,
-- as seen.user_id) lead to a person for whoever can read the directory.
-- Of who is erased all of it is removed; where the audit has named them stands `erased:` and a hash, keyed by
-- state.audit_key, so that it still tells people apart.

alter table aim.state
    -- The time when a cycle last looked: tells a clock that jumped.
    add column clock timestamptz,
    -- When all accounts were last listed.
    add column accounts_listed_at timestamptz,
    -- 32 random bytes, made when they are first needed. Without them the hashes in the audit lead nowhere.
    add column audit_key bytea;

-- The deprovisioning queue: who left the directory and is locked until their account is erased.
create table aim.queue (
    user_id text collate "C" primary key,
    localpart text not null,
    queued_at timestamptz not null,
    due_at timestamptz not null,
    reason text not null,
    ours boolean not null,
    -- Who said so, by `aim queue`.
    held_by text,
    erase_by text,
    restored_by text,
    found_due_at timestamptz
);

-- Accounts of the homeserver, as they were last read. Only kept where accounts follow the directory.
create table aim.accounts (
    localpart text collate "C" primary key,
    display_name text,
    -- Null: not read.
    emails text[],
    locked boolean not null,
    deactivated boolean not null,
    admin boolean not null,
    emails_read_at timestamptz,
    announced boolean not null
);

-- Who was erased, as a hash keyed by state.audit_key: what their account left behind in a room, a power level say, is
-- taken away later, and is not to be recorded under their name.
create table aim.erased (
    localpart_hash bytea primary key,
    at timestamptz not null default now()
);

-- The mail queue. `key_hash`, keyed by state.audit_key, stays for ever: nobody is told the same twice. All that is
-- personal goes when the mail is sent or given up.
create table aim.letters (
    id bigint generated always as identity primary key,
    key_hash bytea not null unique,
    key text,
    event text not null,
    localpart text,
    recipients text[] not null,
    subject text not null,
    text text not null,
    html text not null,
    message_id text not null,
    status text not null check (status in ('waiting', 'sending', 'sent', 'given_up')),
    attempts integer not null default 0,
    error text not null default '',
    posted_at timestamptz not null,
    due_at timestamptz not null,
    ended_at timestamptz
);
create index letters_under_way on aim.letters (due_at) where status in ('waiting', 'sending');
