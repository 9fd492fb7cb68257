"""What to remember of the deprovisioning queue and the clock, before a cycle does anything. Pure.

In: a world. Out: entries that change, leave the queue, or are to be forgotten. Part of `planner.memory`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from aim.desired.leaving import usable
from aim.planner.due import clock_reading, noticed, stay
from aim.planner.leavers import Leavers
from aim.planner.world import World
from aim.world.recorded import Queued


@dataclass(frozen=True, slots=True)
class QueueMemory:
    """What to remember of the queue and the clock."""

    enqueue: tuple[Queued, ...] = ()
    dequeue: tuple[str, ...] = ()
    """User ids."""
    forget: tuple[Queued, ...] = ()
    """Entries whose account is gone, and who are to be forgotten altogether."""
    clock: datetime | None = None


def queue_memory(world: World) -> QueueMemory:
    """What to record before anything is done."""
    rules, known = world.desired.accounts, usable(world.observed.known_accounts)
    entries = [queued for _, queued in sorted(world.recorded.queue.items())]
    if rules is None or known is None or not entries:
        # Even so nobody's old time may count who is back now and leaves again later.
        return QueueMemory(tuple(_new_stays(world, entries)), clock=clock_reading(world))
    queue = Leavers(world, rules, known)
    off, vanished = queue.done_with(), tuple(queue.vanished())
    gone = off | {queued.user_id for queued in vanished}
    kept = [queued for queued in entries if queued.user_id not in gone]
    new = {queued.user_id: queued for queued in _new_stays(world, kept)}
    same = [queued for queued in kept if queued.user_id not in new]
    changed = (*new.values(), *noticed(world, same, queue.unsure()))
    return QueueMemory(changed, tuple(sorted(off)), vanished, clock_reading(world))


def _new_stays(world: World, entries: Iterable[Queued]) -> Iterator[Queued]:
    """Entries of those who may be back, as far as these change: see `due.stay`."""
    for queued in entries:
        if _may_be_back(world, queued):
            new = stay(queued, world.now, world.desired.leaving.period)
            if new is not queued:
                yield new


def _may_be_back(world: World, queued: Queued) -> bool:
    """Whether they are in the directory, or whoever has their name now may be they, which nobody said yet."""
    directory = world.desired.directory
    if queued.user_id in world.desired.leaving.back or queued.user_id in directory.unresolved:
        return True
    person = world.roster.find(queued.localpart)
    return person is not None and (person in directory.everyone or person in directory.contested)
