"""Waits longer and longer after a login that was rejected: what was wrong a minute ago mostly still is, and
whoever keeps asking is locked out, or counted as an attacker.

Below the `patience` of each bridge, which has the times and the words. In come the logins' ends and the time;
out goes the last rejection again, as long as the other side is to be left alone. Kept by one source, so that
a start with another configuration begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from aim.errors import SourceInvalid

_Rejection = TypeVar("_Rejection", bound=SourceInvalid)


class Patience(Generic[_Rejection]):
    """What is known of rejected logins."""

    def __init__(
        self,
        now: Callable[[], datetime],
        rejection: type[_Rejection],
        *,
        first: timedelta,
        longest: timedelta,
        words: str,
    ) -> None:
        """`now` gives the time in UTC. `rejection` is what a rejected login raises. The first wait is as long
        as `first`, each further one twice as long, up to `longest`. `words` come before the time of the next
        try."""
        self._now = now
        self._kind = rejection
        self._first = first
        self._longest = longest
        self._words = words
        self._rejection: _Rejection | None = None
        self._since = now()
        self._wait = first

    @contextmanager
    def kept(self, *, again: bool = False) -> Iterator[None]:
        """For whatever logs in inside. Raises the last rejection, without going inside, for as long as the
        other side is left alone. `again`: who asks will do so again by itself, and so is told from when on.
        """
        if self._rejection is not None and timedelta(0) <= self._now() - self._since < self._wait:
            raise self._told(self._rejection)
        try:
            yield
        except self._kind as error:
            self._wait = self._first if self._rejection is None else min(2 * self._wait, self._longest)
            self._rejection, self._since = error, self._now()
            if again:
                raise self._told(error) from error
            raise
        self._rejection = None

    def _told(self, error: _Rejection) -> _Rejection:
        until = self._since + self._wait
        return self._kind(
            error.message,
            f"{error.remedy} {self._words} {until:%H:%M:%S} UTC, or when aim is started again.",
        )
