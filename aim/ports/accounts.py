"""Accounts on the homeserver, and what is remembered of them. Implemented by `matrix` and `store`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from aim.world.accounts import Account, KnownAccounts


class AccountReader(Protocol):
    """Reads accounts: only where the configuration asks for something of them. Changes nothing there."""

    async def observe(self, wanted: Mapping[str, Collection[str]]) -> KnownAccounts:
        """The accounts of these people: localpart → the e-mail addresses that the directory gives them.

        Asks no more than it has to: what was read before is remembered. Raises HomeserverError.
        """
        ...

    async def current(self, localpart: str) -> Account | None:
        """That account as it is at this moment, asked for alone and remembered; None if there is none.

        What was not asked for along with it is as `observe` gives it. Raises HomeserverError.
        """
        ...

    def appeared(self, localparts: Collection[str]) -> None:
        """These have an account, as was seen elsewhere; the next look asks for those not known, unless it has
        asked a short while ago and there was none."""
        ...

    def suspect(self, localpart: str) -> None:
        """Something may have changed about this account: the next look reads it again."""
        ...

    def take_unannounced(self) -> Sequence[str]:
        """Localparts of accounts that appeared after the first listing, whose users were not told yet."""
        ...

    async def mark_announced(self, localparts: Collection[str]) -> None:
        """They were told, or are not to be. Raises StoreError."""
        ...


class AccountWriter(Protocol):
    """Changes accounts that exist; never makes one. Each method does nothing if it is so already.

    All raise HomeserverRefused (404 if there is no such account) or HomeserverUnavailable.
    """

    async def set_display_name(self, localpart: str, display_name: str) -> None: ...

    async def set_emails(self, localpart: str, emails: Sequence[str]) -> None:
        """These and no other addresses; other third-party ids stay. HomeserverRefused, naming both, if one of
        them belongs to another account."""
        ...

    async def lock(self, localpart: str) -> None: ...

    async def unlock(self, localpart: str) -> None: ...

    async def erase(self, localpart: str) -> None:
        """Deactivates the account for good, with all that its user wrote marked as erased; one that was
        deactivated by others without that, too. Asks again where nothing tells whether it was erased."""
        ...


class Registrar(Protocol):
    """Makes accounts, and never changes one. All raise HomeserverRefused or HomeserverUnavailable."""

    async def register(self, localpart: str) -> bool:
        """Makes an account without a password or a session. True: it was made now; False: the name is in use,
        whoever has it, or had it. Safe to repeat."""
        ...

    async def find(self, localpart: str) -> Account | None:
        """The account of that name at this moment, deactivated ones included as far as we may see those; None
        if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account as it is remembered."""

    account: Account
    emails_read_at: datetime | None = None
    """None: its e-mail addresses were never read."""
    announced: bool = True
    """False for one that appeared after the first listing, until its user was told (a welcome by mail)."""


@dataclass(frozen=True, slots=True)
class StoredAccounts:
    """All accounts that are remembered."""

    accounts: Mapping[str, StoredAccount] = field(default_factory=dict)
    """By localpart."""
    listed_at: datetime | None = None
    """When all of them were last listed. UTC."""


class AccountStore(Protocol):
    """Remembers accounts as last read. All raise StoreError."""

    async def load(self) -> StoredAccounts: ...

    async def record(
        self,
        changed: Sequence[StoredAccount],
        gone: Collection[str] = (),
        listed_at: datetime | None = None,
    ) -> None:
        """Inserts or replaces `changed`, drops the localparts in `gone`; with `listed_at` that is the time of
        a complete listing. Those on the deprovisioning queue are not dropped before they are forgotten."""
        ...
