"""What we remember, and what becomes of a plan. Implemented by `store` and `provisioner`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from aim.desired.rooms import Desired
from aim.directory.roster import Roster
from aim.planner.actions import AnyAction
from aim.planner.plan import Plan
from aim.world.accounts import Account
from aim.world.audit import Audit, Repeated
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen


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
        """Inserts or replaces these entries of the queue; what a person decided or took back about them since
        counts, and not what these entries say of it."""
        ...

    async def change_queued(self, user_id: str, change: Callable[[Queued | None], Queued]) -> Queued:
        """Puts what `change` makes of their entry as it is at this moment; nobody decides anything about it
        meanwhile. Gives it back. Raises what `change` raises: then all is as it was.
        """
        ...

    async def dequeue(self, user_ids: Collection[str]) -> None:
        """Takes these off the queue."""
        ...

    async def queued(self, user_id: str) -> Queued | None:
        """Their entry as it is in the database at this moment, or None."""
        ...

    async def waits(self, localpart: str) -> bool:
        """Whether somebody of that localpart is on the deprovisioning queue at this moment."""
        ...

    async def postpone_queue(self, until: datetime) -> None:
        """Nobody on the queue is due before that: what it says is not of today."""
        ...

    async def record_clock(self, now: datetime) -> None:
        """What time it is: later cycles tell by it whether the clock jumped."""
        ...

    async def forget_person(self, user_id: str, mxid: str, emails: Collection[str] = ()) -> None:
        """They are erased: everything that names them is removed, in the audit replaced by a keyed hash.

        `emails` are addresses of theirs, besides those that are recorded.
        """
        ...
