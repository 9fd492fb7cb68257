"""How long Entra ID is left alone after it did not accept us: who keeps asking is counted as an attack."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from aim.bridges import patience
from aim.bridges.msgraph.faults import TokenRefused

FIRST = timedelta(minutes=1)
LONGEST = timedelta(minutes=15)
"""With these, and twice as long each time in between, a consent that was given late is found soon."""


class Patience(patience.Patience[TokenRefused]):
    """What is known of refusals."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """`now` gives the time in UTC."""
        super().__init__(now, TokenRefused, first=FIRST, longest=LONGEST, words="The next try is at")
