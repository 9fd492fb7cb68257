"""When an erasure is due, and whether what says so is to be believed. Pure.

In: the world's time, the time that was last recorded, how far the database's clock is off, and when the
directory was read. Out: whether an entry of the queue may be erased now, and the readings to record. A clock
that jumped is noticed by the gap to the last reading; then a second reading, an hour later, has to say the
same. A directory that was read before the time was over can't tell that they are still away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto

from aim.planner.world import World
from aim.world.recorded import Queued, after

LONGEST_GAP = timedelta(hours=2)
"""Longer without a reading, and nobody can tell the time that passed from a clock that jumped."""
BACKWARDS = timedelta(minutes=1)
"""So much a clock may be set back: time servers do that."""
APART = timedelta(minutes=5)
"""So far the database's clock may be from ours."""
SECOND_READING = timedelta(hours=1)
READ_AGAIN = timedelta(minutes=15)
_A_DAY = timedelta(days=1)


class Due(Enum):
    NO = auto()
    UNSURE = auto()
    """By the clock it is due; a second reading has to say so too."""
    UNREAD = auto()
    """It is due; the directory has to be read again, and say that they are still away."""
    YES = auto()


def due(world: World, queued: Queued) -> Due:
    """Whether the entry may be erased now, as far as time has a say."""
    if queued.erase_by is not None:
        return Due.YES
    if world.now < queued.due_at:
        return Due.NO
    if not _is_believed(world, queued):
        return Due.UNSURE
    # What was read "later than now" was read by a clock that has been put right since.
    was_read = queued.due_at <= world.directory_at <= world.now + BACKWARDS
    return Due.YES if was_read else Due.UNREAD


def _is_believed(world: World, queued: Queued) -> bool:
    found = queued.found_due_at
    if found is None:
        return is_trusted(world)
    # Once the clock was in doubt, that it has been steady since is not enough: that it went on is.
    return _agrees(world) and world.now - found >= SECOND_READING


def is_trusted(world: World) -> bool:
    """Whether the clock went on from the last reading as clocks do, and the database's says the same."""
    last = world.recorded.clock
    return last is not None and -BACKWARDS <= world.now - last <= LONGEST_GAP and _agrees(world)


def _agrees(world: World) -> bool:
    return abs(world.recorded.database_ahead) <= APART


def clock_reading(world: World) -> datetime | None:
    """The reading to record now; None if the last one is good for a while yet."""
    last = world.recorded.clock
    if world.desired.accounts is None:
        return None
    return world.now if last is None or not -BACKWARDS <= world.now - last <= READ_AGAIN else None


def noticed(world: World, queue: Iterable[Queued], unsure: frozenset[str]) -> Iterator[Queued]:
    """Entries that change, with the time when they were found due; `unsure` are user ids."""
    for queued in queue:
        found = at = queued.found_due_at
        if queued.user_id in unsure:
            at = world.now if found is None or found > world.now else found
        elif world.now < queued.due_at:
            # What a clock once said that was put right since counts for nothing.
            at = None
        if at != found:
            yield replace(queued, found_due_at=at)


def stay(queued: Queued, now: datetime, period: timedelta) -> Queued:
    """The entry, if they may have been back at `now`: who leaves again has the whole `period` before them.

    It changes once a day at most, and so gives them a day more.
    """
    if queued.erase_by is None and after(now, period) <= queued.due_at:
        return queued
    due_at = after(now, period + _A_DAY)
    return replace(queued, queued_at=now, due_at=due_at, erase_by=None, found_due_at=None)
