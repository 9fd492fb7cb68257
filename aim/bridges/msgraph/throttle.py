"""When a request to Graph is sent: not too many at once, not while Graph wants quiet, and again after a
failure that may pass.

Used by `transport`, which says of each failed attempt whether it may be made again. Graph counts all requests
of an app together, so when it asks one of them to wait, all wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
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
    within: float = math.inf
    """So long after its first attempt a request is not tried again."""

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1). `chance`: in [0, 1), spreads those
        that failed together."""
        # The exponent is bounded: a float can't hold 2 to the power of any number of tries.
        return min(self.cap, self.first * 2.0 ** min(attempt - 1, 30)) * (0.5 + chance / 2)


AWAITED = Retries(tries=6, cap=4.0, longest=30.0, within=10.0)
"""While a person waits for the outcome, who can try it again as well."""


@dataclass(slots=True)
class Streak:
    """Failures of one thing, one after the other."""

    since: datetime
    """When the first attempt began, in UTC."""
    failures: int = 0


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
        self._told: str | None = None
        """Why something is tried again, as it was last said; None: all went well since."""

    async def run(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """What the first attempt gives that raises no AttemptError; every other error ends it. Raises the
        `error` of the last one."""
        streak = self.streak()
        while True:
            try:
                done = await self._through(attempt)
            except AttemptError as failure:
                await self.failed(streak, failure)
            else:
                self._told = None
                return done

    def streak(self) -> Streak:
        """Begins one."""
        return Streak(self._clock.now())

    async def failed(self, streak: Streak, failure: AttemptError) -> None:
        """Counts the failure, and waits before the next attempt. Raises its `error` if that was the last."""
        streak.failures += 1
        seconds = (self._clock.now() - streak.since).total_seconds()
        if streak.failures >= self._retries.tries or seconds >= self._retries.within:
            raise self._last(streak.failures, seconds, failure.error) from failure.__cause__
        if failure.asked is None:
            delay = self._retries.delay(streak.failures, self._chance())
            # Graph may be away all night.
            is_news, self._told = failure.error.message != self._told, failure.error.message
            level = logging.INFO if is_news else logging.DEBUG
            log.log(level, "%s; trying again in %.1f s", failure.error.message, delay)
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

    def _last(self, failures: int, seconds: float, error: SourceError) -> SourceError:
        """The error; who waits for it is told what was tried. In a log it would differ from time to time."""
        if math.isinf(self._retries.within) or not isinstance(error, SourceUnavailable):
            return error
        tries = "one try" if failures == 1 else f"{failures} tries"
        return SourceUnavailable(f"{error.message}; given up after {tries} in {seconds:.0f} s", error.remedy)

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
