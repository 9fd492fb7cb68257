"""Waits longer and longer after Entra ID did not accept us: what was wrong a minute ago mostly still is, and
who keeps asking is counted as an attack.

In come the acquisitions' ends and the time; out goes the last refusal again, as long as Entra ID is to be
left alone. Kept by one source, so that a start with another configuration begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from aim.bridges.msgraph.faults import TokenRefused

FIRST = timedelta(minutes=1)
LONGEST = timedelta(minutes=15)
"""With these, and twice as long each time in between, a consent that was given late is found soon."""


class Patience:
    """What is known of refusals."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """`now` gives the time in UTC."""
        self._now = now
        self._refusal: TokenRefused | None = None
        self._since = now()
        self._wait = FIRST

    @contextmanager
    def kept(self) -> Iterator[None]:
        """For the acquisition inside. Raises the last TokenRefused, without going inside, for as long as
        Entra ID is left alone."""
        if self._refusal is not None and timedelta(0) <= self._now() - self._since < self._wait:
            raise self._told(self._refusal)
        try:
            yield
        except TokenRefused as error:
            self._wait = FIRST if self._refusal is None else min(2 * self._wait, LONGEST)
            self._refusal, self._since = error, self._now()
            raise
        self._refusal = None

    def _told(self, error: TokenRefused) -> TokenRefused:
        until = self._since + self._wait
        return TokenRefused(
            error.message,
            f"{error.remedy} The next try is at {until:%H:%M:%S} UTC, or when aim is started again.",
        )
