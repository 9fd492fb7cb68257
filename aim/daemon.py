"""The daemon: `aim run`. Looks at the source now and then, and runs a cycle when there is reason to.

A cycle follows a change of the source, a person's decision (`aim approve`, `aim rebind`), an earlier cycle
that left something open (an error, a failed action, people without an account), and in any case an hour after
the last one. SIGTERM ends it in the middle of a cycle: requests under way are finished, the rest is left for
the next start.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from aim.directory.model import Problem, Severity
from aim.errors import AimError, SourceError, StoreError
from aim.ops.metrics import Metrics
from aim.planner.document import digest
from aim.planner.guards import Trip
from aim.ports import Outcome, OutcomeStatus, Source
from aim.reconciler import Clock, Cycle, Reconciler

FULL_CYCLE = timedelta(hours=1)
GRACE = 20.0
"""Seconds that requests under way have after SIGTERM."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the daemon does something without being asked."""

    look: float
    """Seconds between two looks at the source."""
    full: timedelta = FULL_CYCLE
    """The longest time between two cycles, and so between two complete reads."""


class Daemon:
    """Runs cycles until it is told to stop."""

    def __init__(
        self, source: Source, reconciler: Reconciler, pace: Pace, now: Clock, metrics: Metrics
    ) -> None:
        self._source = source
        self._reconciler = reconciler
        self._pace = pace
        self._now = now
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._fatal: AimError | None = None
        self._looking: asyncio.Task[None] | None = None
        self._fingerprint: tuple[str, int] | None = None
        self._last_cycle: datetime | None = None
        self._open = True
        """The last cycle left something to do, or there was none yet."""
        self._told: set[Problem | Trip] = set()
        self._all_well = False
        """The last look ended well, and that was said."""

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises StoreError if the database, and so the right to write, is lost."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        # It warns whenever a cycle takes longer than the interval.
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
        _log.info("started", interval=self._pace.look)
        try:
            await self._stopping.wait()
        finally:
            scheduler.pause()
            await self._finish()
            # Only now: it cancels what it has started.
            scheduler.shutdown(wait=False)
        if self._fatal is not None:
            raise self._fatal
        _log.info("stopped")

    def stop(self) -> None:
        """Ends the daemon as soon as requests under way are finished."""
        self._stopping.set()

    async def _finish(self) -> None:
        if self._looking is None or self._looking.done():
            return
        _log.info("stopping: finishing requests under way")
        _, pending = await asyncio.wait({self._looking}, timeout=GRACE)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _tick(self) -> None:
        """One look, in a task of its own, that can be waited for and cancelled without the scheduler's."""
        self._looking = asyncio.create_task(self._look())
        await asyncio.wait({self._looking})
        if not self._looking.cancelled():
            # Raises only for a defect, which the scheduler logs.
            self._looking.result()

    async def _look(self) -> None:
        """One look at the source, and a cycle if there is reason to."""
        try:
            # What the source looks like, and what people have decided.
            fingerprint = (await self._source.fingerprint(), await self._reconciler.decisions())
            if not self._is_due(fingerprint):
                _log.debug("unchanged", source=self._source.type)
                return
            if self._stopping.is_set():
                return
            cycle = await self._reconciler.cycle(self._stopping, progress=self._tell)
        except SourceError as error:
            self._open, self._all_well = True, False
            _log.error(
                "the directory could not be read; the last good one stays in force",
                last_read=None
                if self._last_cycle is None
                else self._last_cycle.isoformat(timespec="seconds"),
                cause=error.message,
                remedy=error.remedy,
            )
        except StoreError as error:
            self._metrics.cycle_failed()
            self._fatal = error
            self.stop()
        except AimError as error:
            self._open, self._all_well = True, False
            self._metrics.cycle_failed()
            _log.error("cycle failed", cause=error.message, remedy=error.remedy)
        else:
            self._fingerprint, self._last_cycle = fingerprint, self._now()
            self._open = bool(cycle.failed or cycle.plan.pending)
            self._summarise(cycle)

    def _summarise(self, cycle: Cycle) -> None:
        """Logs what came of a cycle; problems and trips only when they are not those of the last one."""
        plan = cycle.plan
        self._metrics.cycle(failed=bool(cycle.failed), held=len(plan.held), pending=plan.pending)
        for problem in (problem for problem in plan.problems if problem not in self._told):
            level = _log.info if problem.severity is Severity.INFO else _log.warning
            level("problem", severity=str(problem.severity), subject=problem.subject, message=problem.message)
        for trip in (trip for trip in plan.trips if trip not in self._told):
            remedy = f"if that is right: aim approve {digest(plan)}"
            _log.warning("held by a guard", guard=trip.message, remedy=remedy)
        self._told = {*plan.problems, *plan.trips}
        done = sum(outcome.status is OutcomeStatus.DONE for outcome in cycle.outcomes)
        # That all is well is said once, at the start and after trouble, and not whenever nothing happened.
        level = _log.info if cycle.outcomes or not self._all_well else _log.debug
        self._all_well = not cycle.failed
        level("cycle done", done=done, failed=len(cycle.failed), held=len(plan.held), pending=plan.pending)

    def _tell(self, outcome: Outcome) -> None:
        """Counts and logs one outcome."""
        self._metrics.outcome(outcome)
        action = outcome.action
        facts = {"room": action.room, "target": action.target, "reason": action.reason}
        if outcome.status is OutcomeStatus.DONE:
            _log.info(str(action.type), **facts)
        else:
            _log.warning(str(action.type), outcome=str(outcome.status), cause=outcome.message, **facts)

    def _is_due(self, fingerprint: tuple[str, int]) -> bool:
        return (
            self._open
            or fingerprint != self._fingerprint
            or self._last_cycle is None
            or self._now() - self._last_cycle >= self._pace.full
        )
