"""Keeps the event loop running while a worker thread reads a large directory.

A thread was chosen over a child process by measurement: decoding and flattening give way to other threads
often enough, and a child would hold everything a second time while it hands it over. Three things would stall
the loop all the same, and are kept from it here: collecting garbage among millions of new objects, of which
none is garbage; numbering everybody in one go; and giving back in one go what was needed on the way.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from aim.directory.flatten import Enrolled
from aim.directory.gather import Gathered
from aim.directory.roster import Roster

_SLICE = 5_000
"""How many people get their numbers before others have their turn: some 3 ms."""

_SWITCH = 0.001
"""Seconds after which a busy thread gives way. Python's 5 ms add up for a loop that waits for many small
things."""


class _Pause:
    """How many readers there are, and how things were before the first."""

    readers = 0
    collecting = False
    switch = 0.0


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection, and quick changes between threads, until it ends. For the event loop's
    thread."""
    if _Pause.readers == 0:
        _Pause.collecting, _Pause.switch = gc.isenabled(), sys.getswitchinterval()
        gc.disable()
        sys.setswitchinterval(_SWITCH)
    _Pause.readers += 1
    try:
        yield
    finally:
        _Pause.readers -= 1
        if _Pause.readers == 0:
            _resume()


def _resume() -> None:
    sys.setswitchinterval(_Pause.switch)
    if not _Pause.collecting:
        return
    if gc.get_freeze_count() == 0:
        # Declares everything old without looking at it, which the next collection of what is young would do.
        gc.freeze()
        gc.unfreeze()
    gc.enable()


async def enrol(gathered: Gathered, roster: Roster) -> Enrolled:
    """Gives everybody a number, as `flatten.enrol` does, with turns for others in between."""
    people: list[int] = []
    settled = gathered.settled
    for start in range(0, len(settled.people), _SLICE):
        people += [roster.number(person.user.localpart) for person in settled.people[start : start + _SLICE]]
        await asyncio.sleep(0)
    return Enrolled(people, roster.people(settled.contested))


def release(gathered: Gathered) -> None:
    """Forgets, piece by piece, what an assembled Directory no longer needs. For the worker thread."""
    for forgotten in (gathered.settled.people, gathered.containers):
        while forgotten:
            del forgotten[-_SLICE:]
    gathered.read.clear()
