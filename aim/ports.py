"""Ports: what the inner layers ask of the outside, in the words of the domain. Tiny on purpose.

The readers can't write: planning is handed these and nothing else. Implemented by `bridges`, `matrix` and
`store`; wired in `app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from aim.desired.rooms import Desired
from aim.directory.entries import Entry
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.planner.actions import AnyAction
from aim.planner.plan import Plan
from aim.world.recorded import Approval, Done, Recorded, RecordedRoom, Seen
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

    async def observe(self, roster: Roster, wanted: Collection[str], known: Mapping[str, str]) -> Observed:
        """Reads every managed room, and which of the `wanted` localparts have an account.

        `known` is key → room id as recorded: it decides between two rooms with one key.
        Raises HomeserverError.
        """
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

    async def invite(self, room_id: str, mxid: str, reason: str | None = None) -> None:
        """Done too if they are already in or invited."""
        ...

    async def kick(self, room_id: str, mxid: str, reason: str) -> None:
        """Done too if they are already out."""
        ...

    async def join(self, room_id: str, mxid: str) -> None:
        """Acting as this user. Done too if they are already in."""
        ...

    async def leave(self, room_id: str, mxid: str | None = None) -> None:
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
        self, room_id: str, event_type: str, state_key: str, content: Mapping[str, object]
    ) -> None: ...

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
    ) -> list[Outcome]:
        """One outcome for each action, in plan order. Raises StoreError if something can't be recorded."""
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
        """A number that grows with each approval and each rebinding."""
        ...

    async def record_room(self, room: RecordedRoom, now: datetime) -> None:
        """Remembers a room, new or changed; closes its intent."""
        ...

    async def record_done(self, done: Done) -> None:
        """A destructive action is about to be tried: counted from now on, even if we are killed."""
        ...

    async def record_caused(self, room_id: str, localpart: str) -> None:
        """Acting as them we are about to make this person leave: not their own wish."""
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


__all__ = [
    "Executor",
    "HasEntries",
    "HomeserverReader",
    "HomeserverWriter",
    "NewRoom",
    "Outcome",
    "OutcomeStatus",
    "RecordedReader",
    "Recorder",
    "Source",
]
