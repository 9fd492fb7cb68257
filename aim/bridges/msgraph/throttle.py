"""When a request to Graph is sent: not too many at once, not while Graph wants quiet, and again after a
failure that may pass.

Used by `transport`, which says of each failed attempt whether it may be made again. Graph counts all requests
of an app together, so when it asks one of them to wait, all wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TypeVar

from aim.errors import SourceError, SourceUnavailable

log = logging.getLogger("aim.msgraph")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and how it is waited for: both of one clock."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """In UTC."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    """For so many seconds of `now`."""


class AttemptError(Exception):
    """One attempt failed with `error`, which may pass; `asked` is how many seconds the server wants us to
    wait, if it says so."""

    def __init__(self, error: SourceError, asked: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.asked = asked


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried at most, and how long to wait in between (seconds)."""

    tries: int = 8
    first: float = 0.5
    cap: float = 30.0
    """Longest wait that we choose ourselves."""
    longest: float = 300.0
    """Longest wait that a server may ask for: for more the read is given up, to be made anew by then."""

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1). `chance`: in [0, 1), spreads those
        that failed together."""
        # The exponent is bounded: a float can't hold 2 to the power of any number of tries.
        return min(self.cap, self.first * 2.0 ** min(attempt - 1, 30)) * (0.5 + chance / 2)


class Throttle:
    """Lets `parallelism` requests through at once, and none for as long as the server wants."""

    def __init__(
        self,
        parallelism: int,
        retries: Retries,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        """`chance` gives a number in [0, 1)."""
        self._places = asyncio.Semaphore(parallelism)
        self._retries = retries
        self._clock = clock
        self._chance = chance
        self._quiet_until = clock.now()

    async def run(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """What the first attempt gives that raises no AttemptError; every other error ends it. Raises the
        `error` of the last one."""
        for number in count(1):
            try:
                return await self._through(attempt)
            except AttemptError as failure:
                await self.failed(number, failure)
        raise AssertionError  # unreachable: count() never ends

    async def failed(self, number: int, failure: AttemptError) -> None:
        """Waits after failed attempt `number` (from 1). Raises its `error` if that was the last."""
        if number >= self._retries.tries:
            raise failure.error from failure.__cause__
        if failure.asked is None:
            delay = self._retries.delay(number, self._chance())
            log.info("%s; trying again in %.1f s", failure.error.message, delay)
            await self._clock.sleep(delay)
            return
        if failure.asked > self._retries.longest:
            raise SourceUnavailable(
                f"{failure.error.message}, for the next {failure.asked:.0f} seconds", failure.error.remedy
            ) from failure
        log.info("%s; trying again in %.0f s, as it asks", failure.error.message, failure.asked)
        self._quiet_until = max(self._quiet_until, self._clock.now() + timedelta(seconds=failure.asked))
        # A little later still, by chance, so that those who were refused together don't come together.
        await self._clock.sleep(failure.asked + self._chance() * self._retries.first)

    async def _through(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        while True:
            async with self._places:
                # Looked at in our place only: somebody may have been told to wait while we waited for it.
                wait = (self._quiet_until - self._clock.now()).total_seconds()
                if wait <= 0:
                    return await attempt()
            await self._clock.sleep(wait)


def asked_for(retry_after: str | None, date: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` asks for, which may be a date (RFC 9110, section 10.2.3); None if it asks
    for nothing that can be understood. `date`: the answer's own `Date`, by which a date is counted, so that
    clocks that differ don't matter; `now` in UTC stands in for it.
    """
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    at = _time(text)
    if at is None:
        return None
    return max(0.0, (at - (_time(date or "") or now)).total_seconds())


def _time(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
