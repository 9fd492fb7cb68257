"""Runs cycles for the daemon: over everything, or over the rooms that events touched.

Several cycles act at once, each on rooms of its own: the queue knows which are taken. A room is given free
when all that was to be done about it has an outcome, whatever the rest of its cycle still does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from aim.daemon.mirrored import LiveMirror
from aim.daemon.queue import Queue
from aim.daemon.telling import Teller
from aim.errors import AimError
from aim.planner.actions import (
    Accept,
    AccountAction,
    AnyAction,
    Invite,
    LockAccount,
    RegisterAccount,
    TakeControl,
)
from aim.planner.fights import postponed, remembered
from aim.planner.plan import Plan
from aim.ports import Outcome, OutcomeStatus
from aim.reconciler import Clock, Cycle, Hooks, Reading, Reconciler

GATHER = 5.0
"""Seconds that a room waits for others of its cycle, to be given free together."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Work:
    """What one cycle has taken for itself."""

    left: Counter[str] = field(default_factory=Counter)
    """Room → how many of its due actions have no outcome yet."""
    failed: set[str] = field(default_factory=set)
    """Rooms of which something failed, or could not be tried."""
    again: set[str] = field(default_factory=set)
    """What is to be looked at once more, although it is done: rooms that were taken over, or come into, as
    nobody told us what happened there until the bot was in; accounts that were locked, as their users may be
    back since that was decided, or somebody wants them erased as soon as they are locked; and accounts that
    were made, which have no name and no addresses yet."""
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    accounts: set[str] = field(default_factory=set)
    """Those of the keys that are accounts: what was done to them comes back through no room."""
    finished: list[str] = field(default_factory=list)
    """Rooms that wait to be given free."""
    releasing: asyncio.Task[None] | None = None
    """Gives them free, all at once."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is left to do."""


class Cycles:
    """Asks the reconciler for cycles, and keeps the queue's account of who works on what."""

    def __init__(
        self,
        reconciler: Reconciler,
        queue: Queue,
        teller: Teller,
        now: Clock,
        stopping: asyncio.Event,
        mirror: LiveMirror | None = None,
    ) -> None:
        self._reconciler = reconciler
        self._queue = queue
        self._teller = teller
        self._now = now
        self._stopping = stopping
        self._mirror = mirror
        self._history: dict[str, tuple[datetime, ...]] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self.freed = asyncio.Event()
        """Set whenever a room is given free."""

    async def whole(
        self,
        reading: Reading,
        decided: asyncio.Event,
        left: Callable[[Sequence[AnyAction]], None] = lambda _: None,
    ) -> Cycle:
        """A cycle over everything that nobody works on. `decided` is set when it begins to act; `left` is
        told what is to be done where others are at work.

        Raises AimError.
        """
        await self._reconciler.settle(self._queue.busy)
        busy = self._queue.busy

        def mine(rooms: frozenset[str]) -> frozenset[str]:
            taken = self._queue.occupy(rooms - busy)
            # What others were at when we looked is looked at again when they are done.
            self._queue.add(rooms - taken, self._now())
            return taken

        return await self._run(reading, _Work(decided=decided), mine, left, whole=True)

    async def rooms(self, keys: frozenset[str], reading: Reading, decided: asyncio.Event) -> Cycle:
        """A cycle over rooms that the queue gave us. Raises AimError."""

        def mine(rooms: frozenset[str]) -> frozenset[str]:
            for key in keys - rooms:
                self._queue.done(key)
            # What an event leads to can lie in another room: one that somebody put into a space, say.
            self._queue.discover(rooms - keys, self._now())
            return rooms & keys

        work = _Work(decided=decided, left=Counter(dict.fromkeys(keys, 1)))
        return await self._run(reading, work, mine, lambda _: None, whole=False)

    async def finish(self) -> None:
        """Waits until every room whose work is done is given free."""
        await asyncio.gather(*self._releasing, return_exceptions=True)

    async def _run(
        self,
        reading: Reading,
        work: _Work,
        mine: Callable[[frozenset[str]], frozenset[str]],
        left: Callable[[Sequence[AnyAction]], None],
        *,
        whole: bool,
    ) -> Cycle:
        def claim(plan: Plan) -> Plan:
            waiting = self._postponed(plan)
            due = [action for action in plan.due if action.identity not in waiting]
            rooms = mine(frozenset(action.room for action in due))
            chosen = _possible(plan, {action.identity for action in due if action.room in rooms})
            left([action for action in due if action.identity not in chosen])
            # Afterwards: who takes a room takes it out of the queue.
            for action in plan.due:
                if action.identity in waiting:
                    self._queue.add([action.room], waiting[action.identity])
            work.left = Counter(action.room for action in due if action.identity in chosen)
            for room in rooms - work.left.keys():
                self._queue.done(room)
            work.decided.set()
            return _restricted(plan, lambda action: (whole and action.held) or action.identity in chosen)

        def progress(outcome: Outcome) -> None:
            self._teller.outcome(outcome)
            self._count(work, outcome)

        try:
            cycle = await self._reconciler.cycle(
                self._stopping, Hooks(progress=progress, claim=claim), reading
            )
        finally:
            # What has no outcome now never gets one.
            for room in +work.left:
                self._queue.failed(room, self._now())
            work.over.set()
            self.freed.set()
            work.decided.set()
        done = [outcome.action for outcome in cycle.outcomes if outcome.status is OutcomeStatus.DONE]
        self._history = remembered(self._history, done, self._now())
        return cycle

    def _postponed(self, plan: Plan) -> Mapping[str, datetime]:
        """What of it has to wait because it was done too often → until when."""
        now = self._now()
        waiting = postponed(plan.due, self._history, now)
        for action in plan.due:
            if action.identity in waiting:
                self._teller.fight(action, waiting[action.identity], now)
        return waiting

    def _count(self, work: _Work, outcome: Outcome) -> None:
        room = outcome.action.room
        if room not in work.left:
            return
        if isinstance(outcome.action, AccountAction):
            work.accounts.add(room)
        if outcome.status is not OutcomeStatus.DONE:
            work.failed.add(room)
            room_id = outcome.action.room_id if outcome.status is OutcomeStatus.FAILED else None
            if self._mirror is not None and room_id is not None:
                # A refusal says that the room is not as we believed.
                self._mirror.mark_stale(room_id)
        elif isinstance(outcome.action, TakeControl | Accept | LockAccount | RegisterAccount):
            work.again.add(room)
        elif isinstance(outcome.action, Invite) and outcome.action.acting_as is not None:
            self._look_again(outcome.action)
        work.left[room] -= 1
        if not work.left[room]:
            del work.left[room]
            work.finished.append(room)
            if not work.left:
                work.over.set()
            if work.releasing is None:
                work.releasing = asyncio.create_task(self._release(work))
                self._releasing.add(work.releasing)
                work.releasing.add_done_callback(self._releasing.discard)

    def _look_again(self, action: Invite) -> None:
        """The bot is not in that room: no event tells what we did there."""
        if self._mirror is not None and action.room_id is not None:
            self._mirror.mark_stale(action.room_id)

    async def _release(self, work: _Work) -> None:
        """Gives rooms free, once the mirror has seen what was done to them. While the cycle is at others, it
        waits a little for more: each time takes a request."""
        with suppress(TimeoutError):
            await asyncio.wait_for(work.over.wait(), GATHER)
        rooms, work.finished, work.releasing = work.finished, [], None
        if not work.accounts.issuperset(rooms):
            await self._catch_up()
        for room in rooms:
            self._give_free(room, failed=room in work.failed, again=room in work.again)
        self.freed.set()

    async def _catch_up(self) -> None:
        if self._mirror is not None and self._mirror.current:
            try:
                await self._mirror.barrier()
            except AimError as error:
                # The mirror is not current then, and is read again before anything else is decided.
                _log.warning("the mirror fell behind", cause=error.message, remedy=error.remedy)

    def _give_free(self, room: str, *, failed: bool, again: bool) -> None:
        """With `again` it is looked at once more."""
        if failed and self._mirror is not None:
            pause = self._queue.failed(room, self._now())
            _log.info("a room is tried again", room=room, seconds=round(pause.total_seconds()))
        else:
            self._queue.done(room)
            if again:
                self._queue.add([room], self._now())


def _possible(plan: Plan, chosen: set[str]) -> set[str]:
    """Those of the chosen identities that wait for no account which this cycle does not make: when it is
    made, it is looked at once more, and so is seen what is to be done in rooms."""
    elsewhere = {
        action.identity
        for action in plan.due
        if isinstance(action, RegisterAccount) and action.identity not in chosen
    }
    if not elsewhere:
        return chosen
    return {
        action.identity
        for action in plan.due
        if action.identity in chosen and elsewhere.isdisjoint(action.after)
    }


def _restricted(plan: Plan, keep: Callable[[AnyAction], bool]) -> Plan:
    """The plan with these actions only; itself if that is all of them."""
    kept = tuple(action for action in plan.actions if keep(action))
    return plan if len(kept) == len(plan.actions) else replace(plan, actions=kept)
