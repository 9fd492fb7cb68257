"""Says in the log that wrong tokens come, and from where: a provider whose token is old pushes nothing, and
as a rule that is seen nowhere but there.

Beside `rights`, which tells of each one. In come addresses, out goes a warning: the first at once, further
ones together, a minute apart. Of the tokens nothing is known here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

_APART = 60.0
"""Seconds between two warnings."""
_NAMED = 3
"""Addresses that a warning names, those with most wrong tokens first."""
_MOST = 4096
"""Addresses that are told apart within a minute."""
_REMEDY = "is it the provider's? Then put the token in anew on both sides, and start `aim run` again"

_log = structlog.get_logger()


def _later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


class Knocking:
    """Counts wrong tokens. Needs a running loop."""

    def __init__(self, later: Callable[[float, Callable[[], None]], None] = _later) -> None:
        """`later` has something called after so many seconds."""
        self._later = later
        self._counts: Counter[str] = Counter()
        self._is_quiet = False
        """A warning was given less than a minute ago."""

    def came(self, address: str) -> None:
        """A wrong token came from there."""
        known = address in self._counts or len(self._counts) < _MOST
        self._counts[(address or "an unknown address") if known else "others"] += 1
        if not self._is_quiet:
            self._tell()

    def _tell(self) -> None:
        self._is_quiet = bool(self._counts)
        if not self._counts:
            return
        total, addresses = self._counts.total(), len(self._counts)
        named = [f"{address} ({count})" for address, count in self._counts.most_common(_NAMED)]
        if addresses > _NAMED:
            named.append(f"{addresses - _NAMED} more")
        self._counts.clear()
        requests = "a SCIM request" if total == 1 else f"{total} SCIM requests"
        _log.warning(f"{requests} with a wrong token", addresses=", ".join(named), remedy=_REMEDY)
        self._later(_APART, self._tell)
