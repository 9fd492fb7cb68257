"""The ledger: writes outcomes to the audit while their cycle goes on. Used by the reconciler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from aim.planner.plan import Plan
from aim.ports import Outcome, Recorder


class Ledger:
    """Records outcomes while the cycle goes on, so that being killed loses no more than the last moment's."""

    EVERY = 1.0
    """Seconds."""

    def __init__(
        self,
        recorder: Recorder,
        cycle: int,
        plan: Plan,
        now: Callable[[], datetime],
        progress: Callable[[Outcome], None],
    ) -> None:
        self._recorder = recorder
        self._cycle = cycle
        self._now = now
        self._progress = progress
        self._positions = {action.identity: position for position, action in enumerate(plan.actions)}
        self._fresh: dict[int, Outcome] = {}

    def note(self, outcome: Outcome) -> None:
        """One more outcome."""
        self._fresh[self._positions[outcome.action.identity]] = outcome
        self._progress(outcome)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keeps it written while the body runs."""
        ended = asyncio.Event()
        keeper = asyncio.create_task(self._keep(ended))
        try:
            yield
        finally:
            # Not cancelled: a write that is broken off takes the connection with it, and the writer's lock.
            ended.set()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), self.EVERY)
                return
            fresh, self._fresh = self._fresh, {}
            if fresh:
                await self._recorder.record_outcomes(self._cycle, fresh, self._now())
