"""How long an LDAP server is left alone after it rejected a login: else we would lock the account out.

Servers count wrong passwords: commonly five in half an hour lock an account.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from aim.bridges import patience
from aim.bridges.ldap.faults import LoginRefused

FIRST = timedelta(minutes=3)
LONGEST = timedelta(minutes=15)
"""With these, and twice as long each time in between, no half hour sees more than four attempts."""


class Patience(patience.Patience[LoginRefused]):
    """What is known of rejected logins."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """`now` gives the time in UTC."""
        super().__init__(
            now,
            LoginRefused,
            first=FIRST,
            longest=LONGEST,
            words="So that the account is not locked, the next try is at",
        )
