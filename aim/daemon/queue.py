"""The queue of rooms to look at, as a controller keeps it.

Equal keys collapse, a key is worked on by one task at a time, a failing key waits longer and longer, alone.
Knows no clock: every method is told the time. Stands between events (which only add keys) and the daemon's
worker (which takes them).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)


@dataclass(slots=True)
class _Failures:
    count: int = 0

    @property
    def pause(self) -> timedelta:
        """The wait after so many failures in a row."""
        # The exponent is bounded: a number of failures is not.
        return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(self.count - 1, 20)))


@dataclass(slots=True)
class Queue:
    """Keys of rooms, and when each is due. Times in UTC."""

    _due: dict[str, datetime] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)
    _failures: dict[str, _Failures] = field(default_factory=dict)

    @property
    def busy(self) -> frozenset[str]:
        """Keys that are being worked on."""
        return frozenset(self._busy)

    @property
    def waiting(self) -> int:
        """Keys that are due, or will be."""
        return len(self._due)

    def add(self, keys: Iterable[str], at: datetime) -> None:
        """These rooms are to be looked at, not before `at`; the earlier of two times counts."""
        for key in keys:
            known = self._due.get(key)
            if known is None or at < known:
                self._due[key] = at

    def discover(self, keys: Iterable[str], now: datetime) -> None:
        """Something is to be done about these rooms, as was seen in passing; whoever waits for a pause to be
        over, or is being worked on, stays as it is."""
        self.add((key for key in keys if key not in self._due and key not in self._busy), now)

    def next_due(self) -> datetime | None:
        """When there is something to take; None while there is nothing that is not busy."""
        return min((at for key, at in self._due.items() if key not in self._busy), default=None)

    def take(self, now: datetime) -> frozenset[str]:
        """What is due and not busy; busy from now on, until `done` or `failed`."""
        keys = frozenset(key for key, at in self._due.items() if at <= now and key not in self._busy)
        self._begin(keys)
        return keys

    def occupy(self, keys: Collection[str]) -> frozenset[str]:
        """Those of the keys that are not busy, due or not; busy from now on."""
        free = frozenset(keys) - self._busy
        self._begin(free)
        return free

    def _begin(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._due.pop(key, None)
            self._busy.add(key)

    def done(self, key: str) -> None:
        """All that was to do about the room is done; whatever was added meanwhile is due as it was."""
        self._busy.discard(key)
        self._failures.pop(key, None)

    def failed(self, key: str, now: datetime) -> timedelta:
        """Something about the room failed: it is due again after a pause that grows; gives the pause."""
        self._busy.discard(key)
        failures = self._failures.setdefault(key, _Failures())
        failures.count += 1
        self.add([key], now + failures.pause)
        return failures.pause
