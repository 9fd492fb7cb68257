"""Those who wait for the outcome of what they have just written to the source: with
`source.synchronous_provisioning` the answer to each write.

    outcome ─► a read that begins after it ─► a cycle over everything, on that reading ─► the answer

All who ask at about the same time share the read and the cycle. The daemon says what becomes of both; how
often somebody has asked stands for the time, as clocks may be set back. Holds no lock and knows no source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aim.errors import AimError
from aim.planner.actions import AccountAction, AnyAction, PersonAction, RegisterAccount
from aim.ports import Outcome, OutcomeStatus
from aim.reconciler import Cycle

PATIENCE = 60.0
"""Seconds that somebody waits at most."""
_NAMED = 3
"""So many failures are named; further ones are counted."""
_DEFECT = "the cycle failed; see the log of aim"
_STOPPING = "stored; aim is being stopped, and goes on with it when it is started again"


@dataclass(slots=True, eq=False)
class _Waiter:
    number: int
    """How often somebody had asked, this time included."""
    person: str | None
    """MXID of whom it concerns; None: everybody."""
    answer: asyncio.Future[str | None]
    is_taken: bool = False
    """A cycle is at it."""
    left: Collection[str] = field(default_factory=frozenset)
    """Keys of what the last cycle had to leave of it: to others, who were at them, or to the next cycle."""

    def give(self, text: str | None) -> None:
        if not self.answer.done():
            self.answer.set_result(text)


class Taken:
    """Those whom one cycle answers."""

    def __init__(self, waiters: Sequence[_Waiter]) -> None:
        self._waiters = waiters

    def done(self, cycle: Cycle, left: Sequence[AnyAction]) -> None:
        """The cycle is over. Where it had to leave something of theirs to others, who were at it (`left`), or
        to the next cycle, they go on waiting, unless something has failed already."""
        for waiter in self._waiters:
            more = _left_of(waiter.person, cycle, left)
            # What was skipped may depend on what is left.
            failed = [one for one in cycle.failed if not more or one.status is OutcomeStatus.FAILED]
            text = _failures(failed, waiter.person)
            if text is None and more:
                waiter.left, waiter.is_taken = more, False
            else:
                waiter.give(text)

    def failed(self, cause: str) -> None:
        """The cycle failed as a whole."""
        for waiter in self._waiters:
            waiter.give(_undone(cause))

    def close(self) -> None:
        """Nobody is at it any more: whoever has no answer yet, and was not given back, gets none but this."""
        for waiter in self._waiters:
            if waiter.is_taken:
                waiter.give(_undone(_DEFECT))


class Awaiting:
    """Answers whoever asks for an outcome, when it is known."""

    def __init__(self, patience: float = PATIENCE) -> None:
        """`patience`: seconds that somebody waits at most."""
        self.prompt: Callable[[], None] = lambda: None
        """Called when somebody asks; the daemon looks soon then."""
        self._patience = patience
        self._asked = 0
        self._waiters: dict[int, _Waiter] = {}
        self._ended: str | None = None

    async def outcome(self, person: str | None) -> str | None:
        """Waits until all that was in the source by now is done on the homeserver, as far as it can be: what
        a guard holds, or who has no account yet, is no failure.

        None, or what could not be done, for a person to read: of actions on `person` (MXID) alone, or (None)
        on anybody and anything.
        """
        if self._ended is not None:
            return self._ended
        self._asked += 1
        waiter = _Waiter(self._asked, person, asyncio.get_running_loop().create_future())
        self._waiters[waiter.number] = waiter
        self.prompt()
        try:
            async with asyncio.timeout(self._patience):
                return await waiter.answer
        except TimeoutError:
            return f"stored; the homeserver did not finish within {self._patience:g} s, aim goes on with it"
        finally:
            del self._waiters[waiter.number]

    @property
    def asked(self) -> int:
        """How often somebody has asked. A read that begins now is recent enough for all of them."""
        return self._asked

    def wants_read(self, covered: int) -> bool:
        """Whether somebody waits for whom a read that began after so many had asked is too old."""
        return any(waiter.number > covered for waiter in self._waiters.values())

    def not_read(self, error: AimError, covered: int, asked: int) -> None:
        """A read that began after `asked` failed; those up to `covered` have an earlier one."""
        for waiter in list(self._waiters.values()):
            if covered < waiter.number <= asked:
                waiter.give(_undone(error.message))

    @contextmanager
    def taken(self, covered: int) -> Iterator[Taken]:
        """For a cycle on a read that began after so many had asked: those whom no other cycle is at."""
        mine = [one for one in self._waiters.values() if one.number <= covered and not one.is_taken]
        for waiter in mine:
            waiter.is_taken, waiter.left = True, frozenset()
        found = Taken(mine)
        try:
            yield found
        finally:
            found.close()

    def wants_cycle(self, busy: Collection[str]) -> bool:
        """Whether another cycle is wanted, as what the last one had to leave is `busy` no more."""
        at = frozenset(busy)
        return any(waiter.left and at.isdisjoint(waiter.left) for waiter in self._waiters.values())

    def end(self, cause: str | None = None) -> None:
        """Everybody gets an answer at once, and whoever asks from now on: the daemon ends, as it was told to
        (None) or for this cause."""
        self._ended = _STOPPING if cause is None else _undone(cause)
        for waiter in list(self._waiters.values()):
            waiter.give(self._ended)


def _left_of(person: str | None, cycle: Cycle, left: Sequence[AnyAction]) -> frozenset[str]:
    """Keys of what is not over for that person; None: for anybody."""
    if person is None:
        return frozenset(action.room for action in left)
    # Whoever has an account now gets their name and addresses by the next cycle.
    made = (
        outcome.action
        for outcome in cycle.outcomes
        if isinstance(outcome.action, RegisterAccount) and outcome.status is OutcomeStatus.DONE
    )
    return frozenset(action.room for action in (*left, *made) if _person_of(action) == person)


def _failures(failed: Sequence[Outcome], person: str | None) -> str | None:
    """Those that concern that person, the first few named; None if there are none."""
    concerned = [one for one in failed if person is None or _person_of(one.action) == person]
    if not concerned:
        return None
    more = f"; and {len(concerned) - _NAMED} more" if len(concerned) > _NAMED else ""
    return _undone("; ".join(map(_told, concerned[:_NAMED])) + more)


def _person_of(action: AnyAction) -> str | None:
    return action.person if isinstance(action, PersonAction) else None


def _told(outcome: Outcome) -> str:
    action = outcome.action
    target = f" of {action.target}" if action.target else ""
    where = "" if isinstance(action, AccountAction) else f" in {action.room}"
    return f"{action.type}{target}{where} {outcome.status}: {outcome.message}"


def _undone(cause: str) -> str:
    return f"stored, but not done on the homeserver: {cause}"
