"""The mirror as it is stored. Implemented by `store`, asked by `matrix.mirror`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol


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
