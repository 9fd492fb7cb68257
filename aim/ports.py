"""Ports: what the inner layers ask of the outside, in the words of the domain. Tiny on purpose.

The readers can't write: planning is handed these and nothing else. Implemented by `bridges`, `matrix` and
`store`; wired in `app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from aim.desired.rooms import Desired
from aim.directory.entries import Entry
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.planner.actions import AnyAction
from aim.planner.plan import Plan
from aim.world.accounts import Account, KnownAccounts
from aim.world.audit import Audit, Repeated
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen
from aim.world.rooms import Observed


class Source(Protocol):
    """The external system, through our bridge."""

    @property
    def type(self) -> str: ...

    async def read(self, roster: Roster) -> Directory:
        """A complete directory. Raises SourceUnavailable or SourceInvalid; never gives a part."""
        ...

    async def fingerprint(self) -> str:
        """A cheap token that changes when the source may have changed. Raises SourceUnavailable."""
        ...


@runtime_checkable
class HasEntries(Protocol):
    """A source that is a tree of entries (LDAP, LDIF)."""

    async def entries(self) -> list[Entry]:
        """All of them as they were read. Raises SourceUnavailable or SourceInvalid."""
        ...


class HomeserverReader(Protocol):
    """Reads rooms and accounts. Has no way to change anything."""

    async def observe(
        self,
        roster: Roster,
        wanted: Collection[str],
        known: Mapping[str, str],
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> Observed:
        """Reads every managed room, which of the `wanted` localparts have an account, and what people put
        into our spaces.

        `known` is key → room id as recorded: it decides between two rooms with one key. `rooms` are aliases
        and ids of existing rooms to look at → localparts of people who may be in them.
        Raises HomeserverError.
        """
        ...


class AccountReader(Protocol):
    """Reads accounts: only where the configuration asks for something of them. Changes nothing there."""

    async def observe(self, wanted: Mapping[str, Collection[str]]) -> KnownAccounts:
        """The accounts of these people: localpart → the e-mail addresses that the directory gives them.

        Asks no more than it has to: what was read before is remembered. Raises HomeserverError.
        """
        ...

    def appeared(self, localparts: Collection[str]) -> None:
        """These have an account, as was seen elsewhere; the next look asks for those not known."""
        ...

    def suspect(self, localpart: str) -> None:
        """Something may have changed about this account: the next look reads it again."""
        ...

    def take_unannounced(self) -> Sequence[str]:
        """Localparts of accounts that appeared after the first listing, whose users were not told yet."""
        ...

    async def mark_announced(self, localparts: Collection[str]) -> None:
        """They were told, or are not to be. Raises StoreError."""
        ...


class AccountWriter(Protocol):
    """Changes accounts that exist; never makes one. Each method does nothing if it is so already.

    All raise HomeserverRefused (404 if there is no such account) or HomeserverUnavailable.
    """

    async def set_display_name(self, localpart: str, display_name: str) -> None: ...

    async def set_emails(self, localpart: str, emails: Sequence[str]) -> None:
        """These and no other addresses; other third-party ids stay. HomeserverRefused, naming both, if one of
        them belongs to another account."""
        ...

    async def lock(self, localpart: str) -> None: ...

    async def unlock(self, localpart: str) -> None: ...

    async def erase(self, localpart: str) -> None:
        """Deactivates the account for good, with all that its user wrote marked as erased."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoom:
    """Everything one `createRoom` carries. Room ids are real by now."""

    key: str
    is_space: bool
    name: str
    room_version: str | None
    state: Sequence[Mapping[str, object]]
    """`initial_state`: events with type, state_key, content."""
    power_levels: Mapping[str, object]
    """Complete content, `users` included."""
    invite: Sequence[str]
    """MXIDs, at most 50, local users with accounts."""
    predecessor: str | None = None
    """Id of the room that it replaces."""


class HomeserverWriter(Protocol):
    """Changes rooms, acting as the bot, or as a local user where a method says so. Each method is as few
    requests as it can be, retried while that is safe.

    All raise HomeserverRefused or HomeserverUnavailable.
    """

    async def create_room(self, room: NewRoom) -> str:
        """The id of a new room. HomeserverUnavailable with `maybe_done` if the answer was lost."""
        ...

    async def find_by_marker(self, key: str, ignoring: Collection[str]) -> str | None:
        """The id of a room of ours with that key which is not among `ignoring`, or None."""
        ...

    async def invite(
        self, room_id: str, mxid: str, reason: str | None = None, acting_as: str | None = None
    ) -> None:
        """As the bot, or acting as this member. Done too if they are already in or invited."""
        ...

    async def kick(self, room_id: str, mxid: str, reason: str) -> None:
        """Done too if they are already out."""
        ...

    async def join(self, room_id: str, mxid: str) -> None:
        """Acting as this user. Done too if they are already in."""
        ...

    async def leave(self, room_id: str, mxid: str | None = None, reason: str | None = None) -> None:
        """Acting as this user, or as the bot. Done too if they are already out."""
        ...

    async def lower_own_level(self, room_id: str, mxid: str, level: int) -> None:
        """Acting as this user: reads the power levels, changes only theirs, writes if that made a
        difference."""
        ...

    async def take_control(self, room_id: str, acting_as: str | None, *, invites: bool) -> None:
        """Acting as this user lets the bot in (with `invites`) and gives it level 100; each step only if it
        is not so already. With None the bot joins by itself."""
        ...

    async def put_state(
        self,
        room_id: str,
        event_type: str,
        state_key: str,
        content: Mapping[str, object],
        acting_as: str | None = None,
    ) -> None:
        """As the bot, or acting as this member."""
        ...

    async def change_power_levels(
        self, room_id: str, base: Mapping[str, object] | None, levels: Mapping[str, int]
    ) -> None:
        """Reads the power levels, changes only these people's (the default level removes the entry) and, if
        given, the keys of `base`, and writes them if that made a difference."""
        ...


class RecordedReader(Protocol):
    """Reads what we remember. Changes nothing, migrates nothing."""

    async def load(self, roster: Roster, now: datetime) -> Recorded:
        """Everything, as one snapshot; `Recorded()` if there is no database yet. Raises StoreError."""
        ...

    async def plan_by_digest(self, digest: str) -> str | None:
        """The JSON text of the newest recorded cycle's plan with that digest, or None."""
        ...


class AuditReader(Protocol):
    """Reads what was recorded of a few people and rooms. Changes nothing."""

    async def about(self, rooms: Collection[str], people: Collection[str]) -> Audit:
        """Of each of these people (MXIDs) in each of these rooms (keys); of a single room also what was last
        done about the room itself. `Audit()` if there is no database yet. Raises StoreError."""
        ...

    async def repeated(self, since: datetime, more_than: int) -> Sequence[Repeated]:
        """Corrections that were made more than so often since then."""
        ...


class OutcomeStatus(StrEnum):
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action."""

    action: AnyAction
    status: OutcomeStatus
    message: str = ""
    """Empty for done; else the cause, in one line."""


class Executor(Protocol):
    """Carries a plan out."""

    async def settle(self, intents: Mapping[str, datetime], known: Collection[str]) -> None:
        """Waits until each room that was about to be made is found, or can't be under way any more.

        `intents` is key → when; `known` are room ids of rooms already recorded. Raises HomeserverError.
        """
        ...

    async def execute(
        self,
        plan: Plan,
        desired: Desired,
        room_ids: Mapping[str, str],
        stopping: asyncio.Event,
        progress: Callable[[Outcome], None],
        accounts: Mapping[str, Account] | None = None,
    ) -> list[Outcome]:
        """One outcome for each action, in plan order; `accounts` are those known, by localpart.

        Raises StoreError if something can't be recorded.
        """
        ...


class Recorder(RecordedReader, Protocol):
    """Writes what we remember. Only the holder of the writer's lock has one. All raise StoreError."""

    async def begin_cycle(self, plan_json: str, digest: str, now: datetime) -> int:
        """Records a cycle with its plan before anything of it is done; gives the cycle's id."""
        ...

    async def record_outcomes(self, cycle: int, outcomes: Mapping[int, Outcome], now: datetime) -> None:
        """Position in the plan → what became of that action, while the cycle goes on."""
        ...

    async def end_cycle(self, cycle: int, outcomes: Sequence[Outcome], now: datetime) -> None:
        """The cycle is over; `outcomes` are all of them, those recorded before included."""
        ...

    async def intend_room(self, key: str, now: datetime) -> None:
        """A `createRoom` for `key` is about to be sent."""
        ...

    async def open_intents(self) -> Mapping[str, datetime]:
        """Key → when, for rooms that were about to be created and were not recorded since."""
        ...

    async def close_intents(self, keys: Collection[str]) -> None:
        """These rooms are found, or can't be under way any more."""
        ...

    async def decisions(self) -> int:
        """A number that grows with each approval, each rebinding and each change of the queue by a person."""
        ...

    async def database_clock(self) -> datetime:
        """What time it is for the database, in UTC."""
        ...

    async def record_room(self, room: RecordedRoom, now: datetime) -> None:
        """Remembers a room, new or changed; closes its intent."""
        ...

    async def forget_room(self, key: str) -> None:
        """We are about to leave a space for good: one of that key is made anew if it is asked for again."""
        ...

    async def record_done(self, done: Done) -> None:
        """A destructive action is about to be tried: counted from now on, even if we are killed."""
        ...

    async def record_caused(self, room_id: str, localpart: str) -> None:
        """Acting as them we are about to make this person leave: not their own wish."""
        ...

    async def forget_caused(self, returned: Mapping[str, Collection[str]]) -> None:
        """Room id → localparts who are in again: their next leave is their own."""
        ...

    async def record_lapsed(
        self, lapsed: Mapping[str, Collection[str]], regained: Mapping[str, Collection[str]], now: datetime
    ) -> None:
        """Room key → localparts who are not entitled any more; who are again."""
        ...

    async def record_seen(self, seen: Sequence[Seen], forget: Collection[str], source: str) -> None:
        """Inserts or updates these users, drops those ids."""
        ...

    async def record_entitled(self, new: Mapping[str, Collection[str]], now: datetime) -> None:
        """Room key → localparts who are entitled to be in it for the first time."""
        ...

    async def record_held(self, identities: Collection[str]) -> None:
        """Replaces the set of held identities."""
        ...

    async def record_recovery(self, since: datetime | None) -> None: ...

    async def approve(self, approvals: Sequence[Approval], digest: str, now: datetime) -> None: ...

    async def enqueue(self, queued: Sequence[Queued]) -> None:
        """Inserts or replaces these entries of the queue; what a person decided about them since stays."""
        ...

    async def dequeue(self, user_ids: Collection[str]) -> None:
        """Takes these off the queue."""
        ...

    async def queued(self, user_id: str) -> Queued | None:
        """Their entry as it is in the database at this moment, or None."""
        ...

    async def postpone_queue(self, until: datetime) -> None:
        """Nobody on the queue is due before that: what it says is not of today."""
        ...

    async def record_clock(self, now: datetime) -> None:
        """What time it is: later cycles tell by it whether the clock jumped."""
        ...

    async def forget_person(self, user_id: str, mxid: str) -> None:
        """They are erased: everything that names them is removed, in the audit replaced by a keyed hash."""
        ...


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account as it is remembered."""

    account: Account
    emails_read_at: datetime | None = None
    """None: its e-mail addresses were never read."""
    announced: bool = True
    """False for one that appeared after the first listing, until its user was told (a welcome by mail)."""


@dataclass(frozen=True, slots=True)
class StoredAccounts:
    """All accounts that are remembered."""

    accounts: Mapping[str, StoredAccount] = field(default_factory=dict)
    """By localpart."""
    listed_at: datetime | None = None
    """When all of them were last listed. UTC."""


class AccountStore(Protocol):
    """Remembers accounts as last read. All raise StoreError."""

    async def load(self) -> StoredAccounts: ...

    async def record(
        self,
        changed: Sequence[StoredAccount],
        gone: Collection[str] = (),
        listed_at: datetime | None = None,
    ) -> None:
        """Inserts or replaces `changed`, drops the localparts in `gone`; with `listed_at` that is the time of
        a complete listing."""
        ...


class MailEvent(StrEnum):
    """What people are told of by mail; each has a folder of templates."""

    REGISTERED = "registered"
    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Something that somebody is to be told."""

    event: MailEvent
    key: str
    """The same is never told twice."""
    localpart: str | None = None
    """Whom it is about; None for what admins are told."""
    display_name: str | None = None
    emails: Sequence[str] = ()
    """Where they can be reached; for what admins are told the mailer's own list is used."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What the template may say besides: `due_at` (datetime), `held` (sequence of sentences), `digest`."""


class Announcer(Protocol):
    """Tells people. What it has taken is not lost."""

    async def announce(self, announcement: Announcement) -> None:
        """Does nothing if nobody can be reached, or no mailer is configured. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail, rendered."""

    key: str
    """The same key is queued once, ever."""
    event: MailEvent
    localpart: str | None
    recipients: Sequence[str]
    subject: str
    text: str
    html: str
    message_id: str


@dataclass(frozen=True, slots=True)
class QueuedLetter:
    """A mail that waits to be sent."""

    id: int
    letter: Letter
    attempts: int
    """How often it was tried."""


class LetterStore(Protocol):
    """The mail queue. All raise StoreError."""

    async def post(self, letters: Sequence[Letter], now: datetime) -> None:
        """Queues these, but for those whose key was queued before."""
        ...

    async def take(self, now: datetime) -> QueuedLetter | None:
        """One that is due, the oldest first, marked as under way; None if none is."""
        ...

    async def sent(self, id_: int, now: datetime) -> None:
        """It was accepted: its text and recipients are dropped, its key stays."""
        ...

    async def again(self, id_: int, error: str, at: datetime) -> None:
        """It was surely not sent; due again at that time."""
        ...

    async def give_up(self, id_: int, error: str, now: datetime) -> None:
        """It will never be accepted, or nobody knows whether it was: not tried again."""
        ...

    async def interrupted(self) -> Sequence[QueuedLetter]:
        """Those that were under way when somebody was killed."""
        ...

    async def next_due(self) -> datetime | None:
        """When the next one is due; None if none waits."""
        ...


class StateKey(NamedTuple):
    """Names one piece of the state of one room."""

    room_id: str
    type: str
    state_key: str


class Stamp(NamedTuple):
    """Which event a piece of mirrored state comes from."""

    event_id: str
    """"" if the homeserver gave the content alone."""
    sent: int
    """`origin_server_ts`, milliseconds."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A state event as the mirror keeps it; memberships are StoredMember."""

    key: StateKey
    stamp: Stamp
    sender: str
    content: str
    """JSON, ASCII."""


@dataclass(frozen=True, slots=True)
class StoredMember:
    """A membership as the mirror keeps it."""

    key: StateKey
    """`state_key` is the MXID of whom it is about."""
    stamp: Stamp
    membership: str
    """"" if the event gave none."""
    own: bool
    """True if they sent it themselves."""


@dataclass(frozen=True, slots=True)
class MirroredRoom:
    """What is known of the copy of one room."""

    stale: bool = False
    """To be read as a whole before anything of it is believed."""
    verified_at: datetime | None = None
    """When it was last read as a whole, or was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorFacts:
    """Facts of which there is one each. In a change, what is None or 0 stays as it is."""

    control_room: str | None = None
    counter_sent: int = 0
    counter_seen: int = 0
    """The counters only grow."""
    complete: bool | None = None
    """True once every room that the bot is in was looked at."""
    is_current: bool | None = None
    """True while events arrive; as good as its writer is alive."""
    accounts_read_at: datetime | None = None
    default_room_version: str | None = None

    def changed_by(self, change: MirrorFacts) -> MirrorFacts:
        """These facts after `change` was recorded."""
        return MirrorFacts(
            control_room=change.control_room or self.control_room,
            counter_sent=max(change.counter_sent, self.counter_sent),
            counter_seen=max(change.counter_seen, self.counter_seen),
            complete=self.complete if change.complete is None else change.complete,
            is_current=self.is_current if change.is_current is None else change.is_current,
            accounts_read_at=change.accounts_read_at or self.accounts_read_at,
            default_room_version=change.default_room_version or self.default_room_version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorChanges:
    """What is to change in the mirror, all at once. Carried out in the order of the fields."""

    transaction: tuple[str, str] | None = None
    """Id and digest of the homeserver's transaction that tells it."""
    dropped: Collection[str] = ()
    """Rooms that are mirrored no longer."""
    rooms: Mapping[str, MirroredRoom] = field(default_factory=dict)
    """New ones, or in another condition."""
    gone: Collection[StateKey] = ()
    events: Sequence[StoredEvent] = ()
    members: Sequence[StoredMember] = ()
    """Each key at most once in `events` and `members`."""
    settled: Collection[StateKey] = ()
    doubts: Collection[StateKey] = ()
    """To be read from the homeserver."""
    accounts: Collection[str] = ()
    """Localparts of accounts that are there."""
    only_these_accounts: bool = False
    """True if `accounts` are all of them."""
    facts: MirrorFacts = field(default_factory=MirrorFacts)

    def __bool__(self) -> bool:
        """False if nothing changes, the transaction itself aside."""
        kept = (self.dropped, self.rooms, self.gone, self.events, self.members, self.settled, self.doubts)
        others = (self.accounts, self.only_these_accounts, self.facts != MirrorFacts())
        return any(map(bool, (*kept, *others)))


@dataclass(frozen=True, slots=True)
class MirrorContents:
    """The stored mirror but for its members, who are too many to be held as they are stored."""

    facts: MirrorFacts
    rooms: Mapping[str, MirroredRoom]
    events: Sequence[StoredEvent]
    doubts: Collection[StateKey]
    accounts: Collection[str]


class MemberKind(StrEnum):
    BOT = "bot"
    LOCAL = "local"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class StoredMembers:
    """All members of one kind with one membership in one room; of the local and foreign ones who left only
    those who did so by themselves."""

    room_id: str
    membership: str
    kind: MemberKind
    names: Sequence[str]
    """Localparts of the local ones, else MXIDs."""
    sent: Sequence[int]
    """Where the membership is `leave`: when, in the order of the names, milliseconds. Else empty."""


@dataclass(frozen=True, slots=True)
class MirrorRecord:
    """What a transaction is compared with."""

    digest: str | None
    """Of the transaction that was last recorded under that id."""
    stamps: Mapping[StateKey, Stamp]
    """Of the memberships asked for, as far as there are any."""
    redacted: Collection[StateKey]
    """Memberships that one of the redacted events gave."""


class MirrorStore(Protocol):
    """Keeps the observed state. Only the holder of the writer's lock has one. All raise StoreError."""

    async def load(self) -> MirrorContents: ...

    def members(self, server_name: str, bot: str) -> AsyncIterator[StoredMembers]:
        """All memberships, in groups, one room after the other or not."""
        ...

    async def members_of(self, room_id: str) -> Mapping[StateKey, StoredMember]: ...

    async def compare(
        self, txn_id: str, members: Collection[StateKey], redacted: Collection[str]
    ) -> MirrorRecord:
        """What is stored of these memberships, of this transaction, and of the events with these ids."""
        ...

    async def record(self, changes: MirrorChanges, now: datetime) -> None:
        """All of it, in one transaction."""
        ...


__all__ = [
    "AccountReader",
    "AccountStore",
    "AccountWriter",
    "Announcement",
    "Announcer",
    "AuditReader",
    "Executor",
    "HasEntries",
    "HomeserverReader",
    "HomeserverWriter",
    "Letter",
    "LetterStore",
    "MailEvent",
    "MemberKind",
    "MirrorChanges",
    "MirrorContents",
    "MirrorFacts",
    "MirrorRecord",
    "MirrorStore",
    "MirroredRoom",
    "NewRoom",
    "Outcome",
    "OutcomeStatus",
    "QueuedLetter",
    "RecordedReader",
    "Recorder",
    "Source",
    "Stamp",
    "StateKey",
    "StoredAccount",
    "StoredAccounts",
    "StoredEvent",
    "StoredMember",
    "StoredMembers",
]
