"""One step after the other: what work on a room and work on an account have in common.

In: an action and the call that does it. Out: an outcome for it. Destructive steps are counted before they are
tried, nothing new is begun after a request to stop, and a failure of the homeserver is an outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aim.errors import HomeserverError
from aim.planner.actions import AccountAction, AnyAction
from aim.planner.guards import counted_as, is_counted, kind_of
from aim.ports import Outcome, OutcomeStatus
from aim.provisioner.tools import Job
from aim.world.recorded import Done


class SkippedError(Exception):
    """An action turned out to depend on something that failed, or not to be wanted any more."""


class Work:
    """Base of the work on one key: keeps the outcomes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.outcomes: list[Outcome] = []

    async def _attempt(self, actions: Sequence[AnyAction], call: Callable[[], Awaitable[None]]) -> bool:
        """Makes one call for these actions; true if it was done."""
        if self._job.stopping.is_set():
            self._skip(actions, "asked to stop")
            return False
        await self._count(actions)
        try:
            async with self._job.gate:
                await call()
        except SkippedError as skipped:
            self._skip(actions, str(skipped))
            return False
        except HomeserverError as error:
            self._settle(actions, OutcomeStatus.FAILED, error.message)
            return False
        self._settle(actions, OutcomeStatus.DONE)
        return True

    async def _count(self, actions: Sequence[AnyAction]) -> None:
        """Records what counts against a guard before it is tried, so that being killed can't hide it."""
        for action in actions:
            kind = kind_of(action)
            if kind is None or not is_counted(action):
                continue
            tools = self._job.tools
            counted, now = counted_as(action, tools.server_name), tools.now()
            for space in _spaces_of(action):
                await tools.recorder.record_done(Done(action.identity, kind, space, counted, now))

    def _settle(self, actions: Sequence[AnyAction], status: OutcomeStatus, message: str = "") -> None:
        for action in actions:
            outcome = Outcome(action, status, message)
            self.outcomes.append(outcome)
            self._job.settled.settle(action, status)
            self._job.progress(outcome)

    def _skip(self, actions: Sequence[AnyAction], message: str) -> None:
        self._settle(actions, OutcomeStatus.SKIPPED, message)


def _spaces_of(action: AnyAction) -> Sequence[str]:
    """Where it counts: an account in each space that its user is in."""
    if isinstance(action, AccountAction):
        return action.in_spaces or (action.space,)
    return (action.space,)
