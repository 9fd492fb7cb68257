"""The daemon: looks at the source, listens to the homeserver, and runs a cycle when there is reason.

A cycle over everything follows a change of the source, new accounts, a person's decision (`aim approve`,
`aim rebind`), an earlier cycle that left something open, and in any case an hour after the last one. With a
mirror an event in a room puts that room into the queue, and a cycle over it follows at once. SIGTERM ends it
in the middle of a cycle: requests under way are finished, the rest is left for the next start.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from aim.daemon.awaiting import Awaiting
from aim.daemon.cycles import Cycles
from aim.daemon.keeping import Keeper
from aim.daemon.mirrored import LiveMirror
from aim.daemon.queue import Queue
from aim.daemon.telling import Teller
from aim.errors import AimError, SourceError, StoreError
from aim.ops.metrics import Metrics
from aim.planner.actions import AnyAction, LockAccount, RegisterAccount, account_key
from aim.ports import OutcomeStatus, Source
from aim.reconciler import Clock, Cycle, Reading, Reconciler

FULL_CYCLE = timedelta(hours=1)
VERIFY = timedelta(hours=24)
GRACE = 20.0
"""Seconds that requests under way have after SIGTERM."""
_AHEAD = timedelta(minutes=1)
"""So much earlier than the last reading it may be: time servers set clocks back."""

BURST = 0.3
"""Seconds between the first word of a source that has changed and the look at it."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the daemon does something without being asked."""

    look: float
    """Seconds between two looks at the source."""
    full: timedelta = FULL_CYCLE
    """The longest time between two cycles, and so between two complete reads."""
    verify: timedelta = VERIFY
    """Each room of the mirror is compared with the homeserver once in this time."""


class Daemon:
    """Runs cycles until it is told to stop."""

    def __init__(
        self,
        source: Source,
        reconciler: Reconciler,
        pace: Pace,
        now: Clock,
        metrics: Metrics,
        mirror: LiveMirror | None = None,
        stopping: asyncio.Event | None = None,
        awaiting: Awaiting | None = None,
    ) -> None:
        """`stopping` is set when it is told to stop, by SIGTERM as well; `awaiting` is where others wait for
        outcomes."""
        self._source = source
        self._reconciler = reconciler
        self._pace = pace
        self._now = now
        self._mirror = mirror
        self._told_to_stop = stopping or asyncio.Event()
        self._awaiting = awaiting or Awaiting()
        self._awaiting.prompt = self.prompt
        self._stopping = asyncio.Event()
        """Nothing new is begun: we were told to stop, or the database is lost."""
        self._queue = Queue()
        self._teller = Teller(metrics)
        self._cycles = Cycles(reconciler, self._queue, self._teller, now, self._stopping, mirror)
        self._keeper = (
            Keeper(mirror, pace.verify, self._stopping, self._teller.defect, self._hears_again)
            if mirror is not None
            else None
        )
        self._woken = self._cycles.freed
        self._fatal: AimError | None = None
        self._looking: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """One look at a time."""
        self._prompted = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._reading: Reading | None = None
        """The directory in force, and from when it is."""
        self._covered = 0
        """How often somebody had asked for an outcome before reading it began."""
        self._looks_like: tuple[str, int] | None = None
        """The source and people's decisions, as the directory in force and the wanted cycle know them."""
        self._whole_wanted = False
        self._last_whole: datetime | None = None
        self._wakes_at: datetime | None = None
        """When more is to be done although nothing has changed."""
        self._open = True
        """The last cycle over everything left something to do, or there was none yet."""

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises StoreError if the database, and so the right to write, is lost."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if self._told_to_stop.is_set():
            self._end()
        # It warns whenever a look takes longer than the interval.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        scheduler = AsyncIOScheduler(timezone="UTC")
        scheduler.add_job(
            self._tick,
            "interval",
            seconds=self._pace.look,
            next_run_time=self._now(),
            max_instances=1,
            coalesce=True,
        )
        scheduler.start()
        following = asyncio.create_task(self._follow_prompts())
        _log.info("started", interval=self._pace.look, mirror=self._mirror is not None)
        try:
            await self._work()
        finally:
            scheduler.pause()
            following.cancel()
            await self._finish()
            # Only now: it cancels what it has started.
            scheduler.shutdown(wait=False)
        if self._fatal is not None:
            raise self._fatal
        _log.info("stopped")

    def stop(self) -> None:
        """Ends the daemon as soon as requests under way are finished."""
        self._told_to_stop.set()
        self._end()

    def _end(self) -> None:
        self._stopping.set()
        self._awaiting.end(self._fatal.message if self._fatal else None)
        self._woken.set()

    def _fail(self, error: AimError) -> None:
        self._fatal = self._fatal or error
        self._end()

    async def _finish(self) -> None:
        tasks = {task for task in self._running if not task.done()}
        if tasks:
            _log.info("stopping: finishing requests under way")
        if self._looking is not None and not self._looking.done():
            # It may wait for a source that is away, and changes nothing in Matrix.
            self._looking.cancel()
            tasks.add(self._looking)
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=GRACE)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        await self._cycles.finish()

    # -- reasons for a cycle -----------------------------------------------------------------------------

    def changed(self, room_ids: Collection[str]) -> None:
        """Events touched these rooms."""
        assert self._mirror is not None, "nobody else calls this"
        keys = [key for room_id in room_ids if (key := self._mirror.key_of(room_id)) is not None]
        self._queue.add(keys, self._now())
        self._woken.set()

    def accounts_changed(self, mxids: Collection[str]) -> None:
        """Something of these people's accounts is not as we believed."""
        self._queue.add(map(account_key, mxids), self._now())
        self._woken.set()

    def _hears_again(self) -> None:
        """Events arrive: what happened while they did not is looked at as a whole."""
        self._whole_wanted = True
        self._woken.set()

    def prompt(self) -> None:
        """The source says that it has changed: a look follows within a second, and one for a whole burst."""
        self._prompted.set()

    async def _follow_prompts(self) -> None:
        while True:
            await self._prompted.wait()
            # What follows within a moment belongs to it.
            await asyncio.sleep(BURST)
            self._prompted.clear()
            try:
                await self._tick()
            except Exception as error:  # noqa: BLE001 - a defect must not end listening without a word
                self._teller.defect(error)

    async def _tick(self) -> None:
        """One look, in a task of its own, that can be waited for and cancelled without the scheduler's."""
        async with self._turn:
            if self._stopping.is_set():
                return
            self._looking = asyncio.create_task(self._look())
            await asyncio.wait({self._looking})
            if not self._looking.cancelled():
                # Raises only for a defect, which the scheduler logs.
                self._looking.result()

    async def _look(self) -> None:
        """One look at the source, at what people decided and at new accounts: is there reason for a cycle?"""
        asked = self._awaiting.asked
        try:
            if self._keeper is not None:
                await self._keeper.tried.wait()
            looks_like = (await self._source.fingerprint(), await self._reconciler.decisions())
            if self._stopping.is_set():
                return
            read_anyway = await self._somebody_is_due() or self._awaiting.wants_read(self._covered)
            if not (await self._has_new_accounts() or read_anyway or self._is_due(looks_like)):
                _log.debug("unchanged", source=self._source.type)
                return
            if read_anyway or self._must_read(looks_like):
                self._reading = await self._reconciler.read(await self._reconciler.recorded())
                self._covered = asked
        except StoreError as error:
            self._fail(error)
        except AimError as error:
            self._not_looked(error, asked)
        else:
            self._teller.source_answered()
            self._looks_like, self._whole_wanted = looks_like, True
            self._woken.set()

    def _not_looked(self, error: AimError, asked: int) -> None:
        self._open = True
        if isinstance(error, SourceError):
            self._teller.source_failed(error, self._reading.at if self._reading else None, self._now())
        else:
            self._teller.cycle_failed(error)
        self._awaiting.not_read(error, self._covered, asked)

    async def _has_new_accounts(self) -> bool:
        if self._mirror is None or self._reading is None or not self._mirror.current:
            return False
        return await self._mirror.poll_accounts(self._reconciler.localparts(self._reading.directory))

    async def _somebody_is_due(self) -> bool:
        """Whether somebody's time ended since the directory was read: it has to say that they are away."""
        return self._reading is not None and await self._reconciler.fell_due(self._reading.at)

    def _is_due(self, looks_like: tuple[str, int]) -> bool:
        return (
            self._open
            or (self._mirror is not None and self._mirror.has_to_look_around)
            or looks_like != self._looks_like
            or self._last_whole is None
            or self._now() - self._last_whole >= self._pace.full
            or (self._wakes_at is not None and self._now() >= self._wakes_at)
        )

    def _must_read(self, looks_like: tuple[str, int]) -> bool:
        return (
            self._reading is None
            or self._looks_like is None
            or looks_like[0] != self._looks_like[0]
            # Or by a clock that was ahead: nobody knows when.
            or not -_AHEAD <= self._now() - self._reading.at < self._pace.full
        )

    # -- cycles ------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Begins cycles, one decision after the other, until told to stop."""
        keeping = self._begin(self._keeper.keep(), self._fail) if self._keeper is not None else None
        while not self._stopping.is_set():
            await self._wait()
            self._woken.clear()
            reading = self._reading
            if self._stopping.is_set() or reading is None:
                continue
            if self._whole_wanted or self._awaiting.wants_cycle(self._queue.busy):
                self._whole_wanted = False
                await self._decide(partial(self._whole, reading, self._covered))
            elif self._takes_rooms and (keys := self._queue.take(self._now())):
                await self._decide(partial(self._rooms, keys, reading))
        if keeping is not None:
            keeping.cancel()

    @property
    def _takes_rooms(self) -> bool:
        """Whether rooms are looked at one by one: not while each look would read the whole homeserver."""
        return self._mirror is not None and self._mirror.current and self._reading is not None

    async def _wait(self) -> None:
        """Until something is due."""
        due = self._queue.next_due() if self._takes_rooms else None
        seconds = None if due is None else max(0.0, (due - self._now()).total_seconds())
        if self._whole_wanted and self._reading is not None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def _decide(self, start: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
        """Begins a cycle, and waits until it has decided: what arrives meanwhile is one more reason for the
        next one, and not a cycle of its own."""
        decided = asyncio.Event()
        self._begin(start(decided), self._fail)
        await decided.wait()

    def _begin(
        self, work: Coroutine[None, None, None], failed: Callable[[AimError], None]
    ) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except AimError as error:
                failed(error)
            except Exception as error:  # noqa: BLE001 - a defect must not end enforcement without a word
                self._open = True
                self._teller.defect(error)

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _whole(self, reading: Reading, covered: int, decided: asyncio.Event) -> None:
        self._last_whole, self._open = self._now(), False
        left: list[AnyAction] = []
        with self._awaiting.taken(covered) as waiting:
            cycle = await self._attempt(self._cycles.whole(reading, decided, left.extend), decided)
            if isinstance(cycle, AimError):
                self._open = True
                waiting.failed(cycle.message)
                return
            waiting.done(cycle, left)
        self._wakes_at = cycle.plan.wakes_at
        # Others may have finished meanwhile with what was left to them.
        self._woken.set()
        # With a current mirror, what failed, was locked or made is in the queue, and new accounts are polled
        # for.
        is_live = self._mirror is not None and self._mirror.current
        self._open = not is_live and bool(
            left or cycle.failed or cycle.plan.pending or _has_more_to_do(cycle)
        )
        self._teller.cycle(cycle, whole=True)

    async def _rooms(self, keys: frozenset[str], reading: Reading, decided: asyncio.Event) -> None:
        cycle = await self._attempt(self._cycles.rooms(keys, reading, decided), decided)
        if isinstance(cycle, Cycle):
            self._wakes_at = cycle.plan.wakes_at
            self._teller.cycle(cycle, whole=False)
            if self._teller.has_news(cycle.plan):
                # Problems and what is held are told of the whole, and recorded with it.
                self._whole_wanted = True
                self._woken.set()

    async def _attempt(self, work: Awaitable[Cycle], decided: asyncio.Event) -> Cycle | AimError:
        """The cycle, or why it failed as a whole, which was told. Raises StoreError."""
        try:
            return await work
        except StoreError:
            raise
        except AimError as error:
            self._teller.cycle_failed(error)
            return error
        finally:
            decided.set()


def _has_more_to_do(cycle: Cycle) -> bool:
    """Whether accounts were locked or made: what comes after that is seen by another look only."""
    return any(
        isinstance(outcome.action, LockAccount | RegisterAccount) and outcome.status is OutcomeStatus.DONE
        for outcome in cycle.outcomes
    )
