"""Waits longer and longer after a login that the server rejected: else we would lock the account out.

In come the logins' ends and the time; out goes the last rejection again, as long as the server is not to be
asked. Servers count wrong passwords (commonly five in half an hour lock an account), and a password that was
wrong a minute ago is wrong now. Kept by one source, so that a start with another configuration begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from aim.bridges.ldap.faults import LoginRefused

FIRST = timedelta(minutes=3)
LONGEST = timedelta(minutes=15)
"""With these, and twice as long each time in between, no half hour sees more than four attempts."""


class Patience:
    """What is known of rejected logins."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """`now` gives the time in UTC."""
        self._now = now
        self._rejection: LoginRefused | None = None
        self._since = now()
        self._wait = FIRST

    @contextmanager
    def kept(self, *, again: bool = False) -> Iterator[None]:
        """For whatever logs in inside. Raises the last LoginRefused, without going inside, for as long as the
        server is left alone. `again`: who asks will do so again by itself, and so is told from when on.
        """
        if self._rejection is not None and timedelta(0) <= self._now() - self._since < self._wait:
            raise self._told(self._rejection)
        try:
            yield
        except LoginRefused as error:
            self._wait = FIRST if self._rejection is None else min(2 * self._wait, LONGEST)
            self._rejection, self._since = error, self._now()
            if again:
                raise self._told(error) from error
            raise
        self._rejection = None

    def _told(self, error: LoginRefused) -> LoginRefused:
        until = self._since + self._wait
        return LoginRefused(
            error.message,
            f"{error.remedy} So that the account is not locked, the next try is at {until:%H:%M:%S} UTC, or"
            " when aim is started again.",
        )
