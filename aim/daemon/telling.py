"""What the daemon says of its cycles: log lines and metrics. Decides nothing."""

from __future__ import annotations

import traceback
from datetime import datetime, timedelta
from pathlib import PurePath

import structlog

from aim.directory.model import Problem, Severity
from aim.errors import AimError, SourceError
from aim.ops.metrics import Metrics
from aim.planner.actions import Accept, AccountAction, AnyAction, InviteAgent, PersonAction
from aim.planner.document import digest
from aim.planner.fights import MOST, WINDOW, correction
from aim.planner.guards import Trip, kind_of
from aim.planner.plan import Plan
from aim.planner.render import held_by
from aim.ports import Outcome, OutcomeStatus
from aim.reconciler import Cycle

_NAMED = 5
"""How many people a line of the log names."""
_FRAMES = 4
"""How many places a defect is told with."""

_log = structlog.get_logger()

_REMIND = timedelta(hours=1)
"""A source that still can't be read, for the same reason, is told again after this time."""

_MOST_AWAY = 1000
"""Of so many actions it is remembered that they failed for want of another server."""


class Teller:
    """Says each thing once, until it changes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: set[Problem | Trip] = set()
        self._away: set[str] = set()
        """What takes another server and failed, which was said: it may be away for long."""
        self._fights: dict[str, datetime] = {}
        self._source_told: tuple[str, datetime] | None = None
        """Why the source could not be read, and when that was last said; None: it could."""
        self._all_well = False
        """The last cycle over everything ended well, and that was said."""

    def source_failed(self, error: SourceError, last_read: datetime | None, now: datetime) -> None:
        """The source gave nothing; what that means. The same cause is told again after an hour."""
        self._all_well = False
        told = self._source_told
        if told is not None and told[0] == error.message and timedelta() <= now - told[1] < _REMIND:
            _log.debug("the directory still could not be read", cause=error.message, remedy=error.remedy)
            return
        self._source_told = error.message, now
        facts = {"cause": error.message, "remedy": error.remedy}
        if last_read is None:
            _log.error("the directory could not be read; nothing is done until it can be", **facts)
            return
        _log.error(
            "the directory could not be read; the last good one stays in force",
            last_read=last_read.isoformat(timespec="seconds"),
            **facts,
        )

    def source_answered(self) -> None:
        """It gave what was wanted of it."""
        if self._source_told is not None:
            self._source_told = None
            _log.info("the directory can be read again")

    def cycle_failed(self, error: AimError) -> None:
        """A cycle ended with an error before it could do all it had to."""
        self._all_well = False
        self._metrics.cycle_failed()
        _log.error("cycle failed", cause=error.message, remedy=error.remedy)

    def defect(self, error: Exception) -> None:
        """Something of ours is broken. What it is and where, never the values: they may be secret."""
        self._all_well = False
        self._metrics.cycle_failed()
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        where = ", ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in frames)
        _log.error("a defect of aim; it goes on", type=type(error).__name__, at=where, remedy="report it")

    def outcome(self, outcome: Outcome) -> None:
        """Counts and logs one outcome."""
        self._metrics.outcome(outcome)
        action = outcome.action
        where = {} if isinstance(action, AccountAction) else {"room": action.room}
        facts = {**where, "target": action.target, "reason": action.reason}
        if outcome.status is OutcomeStatus.DONE:
            _log.info(str(action.type), **facts)
            self._away.discard(action.identity)
        elif isinstance(action, InviteAgent | Accept) and action.identity in self._away:
            _log.debug(str(action.type), outcome=str(outcome.status), cause=outcome.message, **facts)
        else:
            if isinstance(action, InviteAgent | Accept) and len(self._away) < _MOST_AWAY:
                self._away.add(action.identity)
            _log.warning(str(action.type), outcome=str(outcome.status), cause=outcome.message, **facts)

    def cycle(self, cycle: Cycle, *, whole: bool) -> None:
        """What came of a cycle over everything, or over a few rooms."""
        plan = cycle.plan
        done = sum(outcome.status is OutcomeStatus.DONE for outcome in cycle.outcomes)
        facts = {"done": done, "failed": len(cycle.failed), "held": len(plan.held)}
        if not whole:
            self._metrics.room_cycle(failed=bool(cycle.failed))
            if cycle.outcomes:
                _log.info("rooms looked at", **facts)
            return
        self._metrics.cycle(failed=bool(cycle.failed), held=len(plan.held), pending=plan.pending)
        self._findings(plan)
        # That all is well is said once, at the start and after trouble, and not whenever nothing happened.
        level = _log.info if cycle.outcomes or not self._all_well else _log.debug
        self._all_well = not cycle.failed
        level("cycle done", pending=plan.pending, **facts)

    def has_news(self, plan: Plan) -> bool:
        """Whether the plan holds something, or has a problem, that was not told yet."""
        return not self._told.issuperset({*plan.problems, *plan.trips})

    def _findings(self, plan: Plan) -> None:
        """Problems and trips, when they are not those of the last cycle."""
        for problem in (problem for problem in plan.problems if problem not in self._told):
            level = _log.info if problem.severity is Severity.INFO else _log.warning
            level("problem", severity=str(problem.severity), subject=problem.subject, message=problem.message)
        for trip in (trip for trip in plan.trips if trip not in self._told):
            remedy = f"if that is right: aim approve {digest(plan)}"
            people = _people_of(plan, trip)
            _log.warning("held by a guard", guard=held_by(plan, trip), people=people, remedy=remedy)
        self._told = {*plan.problems, *plan.trips}

    def fight(self, action: AnyAction, until: datetime, now: datetime) -> None:
        """A correction waits, because it was made again and again."""
        name = correction(action)
        self._fights = {key: at for key, at in self._fights.items() if now - at < WINDOW}
        if name not in self._fights:
            _log.error(
                "the same correction is made again and again",
                type=str(action.type),
                room=action.room,
                target=action.target,
                times=f"more than {MOST} in {WINDOW // timedelta(minutes=1)} minutes",
                next=until.isoformat(timespec="seconds"),
                remedy="find out who, or what other program, changes it back",
            )
        self._fights[name] = now
        self._metrics.fights(len(self._fights))


def _spaces_of(action: PersonAction) -> tuple[str, ...]:
    return action.in_spaces if isinstance(action, AccountAction) else (action.space,)


def _people_of(plan: Plan, trip: Trip) -> str:
    """The first of those whom a trip holds something about, and how many more there are."""
    spaces = {trip.scope} & plan.parents.keys()
    people = sorted(
        {
            action.person
            for action in plan.held
            if isinstance(action, PersonAction)
            and kind_of(action) == trip.kind
            and (not spaces or not spaces.isdisjoint(_spaces_of(action)))
        }
    )
    more = f" and {len(people) - _NAMED} more" if len(people) > _NAMED else ""
    return ", ".join(people[:_NAMED]) + more
