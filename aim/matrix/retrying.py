"""Trying again: one request made several times, as long as that may help and does no harm.

Used by `transport` and `mas_transport`, which say of each failed attempt whether it may be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

from aim.errors import HomeserverError, HomeserverUnavailable

log = logging.getLogger("aim.matrix")

Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried at most, and how long to wait in between (seconds)."""

    tries: int = 6
    first: float = 0.5
    cap: float = 60.0
    """Longest single wait, whatever the server asks for."""

    def delay(self, attempt: int, asked: float | None, chance: float) -> float:
        """The wait after failed attempt number `attempt` (from 1).

        `asked`: for how long the server asks; `chance`: in [0, 1), the jitter that spreads the tries of
        requests that failed together.
        """
        if asked is not None:
            return min(self.cap, asked * (1 + chance / 10))
        # The exponent is bounded: a float can't hold 2 to the power of any number of tries.
        backoff = min(self.cap, self.first * 2.0 ** min(attempt - 1, 30))
        return backoff * (0.5 + chance / 2)


class AttemptError(Exception):
    """One attempt failed with `error`: whether trying again is safe, and the wait the server asks for."""

    def __init__(self, error: HomeserverError, *, retry: bool, asked: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry = retry
        self.asked = asked


@dataclass(frozen=True, slots=True)
class Retrying:
    """Makes attempts until one succeeds, or no further one is safe or allowed."""

    retries: Retries
    sleep: Sleep
    chance: Callable[[], float]

    async def run(self, attempt: Callable[[], Awaitable[object]]) -> object:
        """What the first attempt gives that raises no AttemptError. Raises the `error` of the last one, which
        is `maybe_done` if any of them may have been carried out."""
        maybe_done = False
        for number in count(1):
            try:
                return await attempt()
            except AttemptError as failure:
                if isinstance(failure.error, HomeserverUnavailable):
                    maybe_done = failure.error.maybe_done = failure.error.maybe_done or maybe_done
                if not failure.retry or number >= self.retries.tries:
                    raise failure.error from failure.__cause__
                delay = self.retries.delay(number, failure.asked, self.chance())
                log.info("%s; trying again in %.1f s", failure.error.message, delay)
            await self.sleep(delay)
        raise AssertionError  # unreachable: count() never ends
