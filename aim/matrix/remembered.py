"""The accounts that `book` knows, in memory, and which of that the store does not know yet. Asks nobody.

In: accounts as they were read. Out: the same, whose address one is, whose attributes are due to be read
again, and what has to be stored. Of a deactivated account nothing is stored: whoever was erased stays erased
there. (What was stored before the store keeps for whoever is on the queue: it is forgotten with the person.)
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from aim.matrix.account_server import same_address
from aim.ports import AccountStore, StoredAccount, StoredAccounts
from aim.world.accounts import Account


class Remembered:
    """Everything known of accounts. Times are in UTC."""

    def __init__(self, verify_interval: timedelta) -> None:
        self._interval = verify_interval
        self.accounts: dict[str, Account] = {}
        """By localpart."""
        self.listed_at: datetime | None = None
        """When all of them were last listed; None: they have to be."""
        self.was_listed = False
        """Whether they ever were: who is found after that is new."""
        self.due: dict[str, datetime] = {}
        """Localpart → when what the list does not give is to be read again; at once for who is not in it."""
        self.unannounced: dict[str, None] = {}
        """Those of whom nobody was told yet, in the order in which they appeared."""
        self._read_at: dict[str, datetime] = {}
        self._owners: dict[str, str] = {}
        self._unstored: set[str] = set()
        self._gone: set[str] = set()
        self._turn = asyncio.Lock()

    def load(self, stored: StoredAccounts, *, fresh: bool) -> None:
        """What was remembered before. `fresh`: everything is to be read anew."""
        for name, known in stored.accounts.items():
            self.put(known.account, None if fresh else known.emails_read_at)
            if not known.announced:
                self.unannounced[name] = None
        self._unstored.clear()
        self.listed_at = None if fresh else stored.listed_at
        self.was_listed = stored.listed_at is not None

    def put(self, account: Account, read_at: datetime | None = None) -> None:
        """An account as it is now; `read_at` says when all that is wanted of it was read."""
        name, before = account.localpart, self.accounts.get(account.localpart)
        if account.deactivated:
            # It has none any more, and if it is ever activated again they are read anew.
            account, read_at = replace(account, emails=None), None
            self._forget_time(name)
            self.unannounced.pop(name, None)
        if read_at is not None:
            self._read_at[name] = read_at
            self.due[name] = read_at + self._interval * (0.5 + _share(name) / 2)
        if account == before and read_at is None:
            return
        self._unindex(before)
        self.accounts[name] = account
        for address in account.emails or ():
            self._owners[same_address(address)] = name
        self._note(name, before, account)

    def _note(self, name: str, before: Account | None, account: Account) -> None:
        if not account.deactivated:
            self._gone.discard(name)
            self._unstored.add(name)
        elif before is None or not before.deactivated:
            self._unstored.discard(name)
            self._gone.add(name)

    def drop(self, name: str) -> None:
        """There is no such account."""
        before = self.accounts.pop(name, None)
        if before is None:
            return
        self._unindex(before)
        self._forget_time(name)
        self.unannounced.pop(name, None)
        self._unstored.discard(name)
        self._gone.add(name)

    def put_off(self, name: str, until: datetime) -> None:
        """It can't be read now: not before that time."""
        self.due[name] = until

    def announce_later(self, name: str) -> None:
        """It appeared after the first listing."""
        self.unannounced[name] = None
        self._unstored.add(name)

    def announced(self, names: Collection[str]) -> None:
        """Those were told of."""
        for name in names:
            if name in self.unannounced:
                del self.unannounced[name]
                self._unstored.add(name)

    def owner(self, address: str) -> str | None:
        """The localpart of the account that is known to have this address (as `same_address` has it)."""
        return self._owners.get(address)

    async def store(self, store: AccountStore | None, listed_at: datetime | None = None) -> None:
        """Records what the store does not know; without a store it is as if it knew. Raises StoreError."""
        async with self._turn:
            names, self._unstored = self._unstored, set()
            gone, self._gone = self._gone, set()
            if store is None or not (names or gone or listed_at is not None):
                return
            try:
                await store.record([self._stored(name) for name in sorted(names)], sorted(gone), listed_at)
            except BaseException:
                self._unstored |= {name for name in names if name in self.accounts}
                self._gone |= gone - self._unstored
                raise

    def _stored(self, name: str) -> StoredAccount:
        return StoredAccount(self.accounts[name], self._read_at.get(name), name not in self.unannounced)

    def _unindex(self, account: Account | None) -> None:
        for address in (account.emails if account else None) or ():
            key = same_address(address)
            if account is not None and self._owners.get(key) == account.localpart:
                del self._owners[key]

    def _forget_time(self, name: str) -> None:
        self._read_at.pop(name, None)
        self.due.pop(name, None)


def _share(name: str) -> float:
    """In [0, 1), always the same for one name: spreads what was read at the same time."""
    return zlib.crc32(name.encode()) / 2**32
