"""The book of accounts: what is known of them, kept with as few requests as can be. Implements
ports.AccountReader, and, with a writer beneath it, ports.AccountWriter.

In: an AccountServer, and what was remembered before. Out: KnownAccounts for the planner. Everybody is listed
once in `verify_interval`; what the list does not give (e-mail addresses, with MAS display names) is read once
for those who are wanted, and again within that interval, spread out. In between it is told what may have
changed: by `poll` and `appeared` of new accounts, by `suspect` of a doubt, by BookedWriter of our own doings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aim.errors import HomeserverError, HomeserverRefused
from aim.matrix.account_server import NOT_PERMITTED, PAGE, AccountServer, Attribute, Attributes, same_address
from aim.matrix.parallel import Progress, each
from aim.matrix.remembered import Remembered
from aim.matrix.transport import PARALLELISM
from aim.ports import AccountStore, AccountWriter
from aim.world.accounts import Account, KnownAccounts

log = logging.getLogger("aim.matrix")

_BATCH = 1000
"""Accounts that are read before they are stored: so many are read again after being killed."""
_FEW = 20
"""Up to so many accounts are always asked for one by one."""
_MOST_OWNERS = 100
"""If more addresses are lacking than that, nobody is asked whose they are: the writer asks before it adds
one."""
_OWNER_KEPT = timedelta(minutes=30)
_ABSENT_KEPT = timedelta(minutes=10)
"""How long an account that was asked for and is not there is not asked for again because of a rumour."""
_LATER = timedelta(hours=1)
"""When an account whose reading was refused is tried again."""
_SLACK = timedelta(minutes=1)
"""A time that is further in the future than that was written by a clock that went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How the book is kept."""

    attributes: Attributes
    """What is wanted of each account, besides whether it is locked, deactivated or an admin's."""
    verify_interval: timedelta
    records: bool = False
    """Whether what was read is stored: not by commands that read."""
    fresh: bool = False
    """Whether everything is read anew, whatever is stored."""
    lists_anew: bool = False
    """Whether each look lists everybody: where nothing tells what happened since the last one."""
    parallelism: int = PARALLELISM


class Book:
    """Keeps the accounts. All that asks raises HomeserverError and StoreError."""

    def __init__(
        self,
        server: AccountServer,
        keeping: Keeping,
        *,
        now: Callable[[], datetime],
        store: AccountStore | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Without a `store` it remembers in memory only. `progress` is told (accounts read, in all)."""
        self._server = server
        self._keeping = keeping
        self._attributes = frozenset(keeping.attributes)
        self._now = now
        self._store = store
        self._progress = progress
        self._known = Remembered(keeping.verify_interval)
        self._loaded = False
        self._knows_deactivated = False
        """They are not stored, so after a start they are asked for."""
        self._appeared: dict[str, None] = {}
        self._absent: dict[str, datetime] = {}
        """Localpart of an account that was asked for and is not there → until when that counts."""
        self._suspects: dict[str, None] = {}
        self._owners: dict[str, tuple[str | None, datetime]] = {}
        """Address → whose it is by the server's word, and until when that counts."""
        self._written: dict[str, int] = {}
        """Localpart → the turn of our last change: what was read before it is older than what we know."""
        self._changes = 0
        self._turn = asyncio.Lock()

    # What is known

    async def observe(self, wanted: Mapping[str, Collection[str]]) -> KnownAccounts:
        """The accounts of these people: localpart → the e-mail addresses that the directory gives them.

        A server that does not let us see accounts is no error: then `refused` says what to do.
        """
        async with self._turn:
            try:
                now = self._now()
                await self._bring_up(wanted, now)
                owners = await self._lacking(wanted, now)
            except _Refused as refusal:
                return KnownAccounts(refused=str(refusal))
            known = self._known.accounts
            return KnownAccounts({name: known[name] for name in wanted if name in known}, owners)

    async def current(self, localpart: str) -> Account | None:
        """That account as it is at this moment, by one request; None if there is none. Nobody else is listed
        for it, and it waits for no other look.

        Raises also for a server that does not let us see accounts.
        """
        if not self._loaded:
            async with self._turn:
                await self._load()
        started = self._changes
        account = await self._server.account(localpart, ())
        if self._written.get(localpart, 0) <= started:
            # What others are reading of it at this moment is older.
            self.changing(localpart)
            if account is None:
                self._known.drop(localpart)
            else:
                self._take(account, self._changes)
            await self._record()
        return account

    async def poll(self) -> list[str]:
        """Looks for new accounts with one small request; gives the localparts of those found, who count as
        appeared. Does nothing before the first listing, or where we may not see accounts."""
        async with self._turn:
            await self._load()
            if self._known.listed_at is None:
                return []
            try:
                await self._read_deactivated()
                with _about_all():
                    found = await self._server.newest(self._known.accounts)
            except _Refused:
                return []
            for account in found:
                self._add(account)
            await self._record()
            return [account.localpart for account in found]

    def appeared(self, localparts: Iterable[str]) -> None:
        """Somebody saw that these have an account. Who was asked for and has none is not asked for again for
        a while: a name may stay in rooms whose account is gone, or was never there."""
        now, known = self._now(), self._known.accounts
        absent = self._absent = {name: until for name, until in self._absent.items() if until > now}
        self._appeared.update((name, None) for name in localparts if name not in known and name not in absent)

    def suspect(self, localpart: str) -> None:
        """Something may have changed about this account: it is read again, once."""
        self._suspects[localpart] = None

    def agrees(self, localpart: str, display_name: str | None) -> bool:
        """Whether that is the name we know; true for an account that we know nothing of."""
        account = self._known.accounts.get(localpart)
        return account is None or account.display_name == display_name

    # Who is new

    def take_unannounced(self) -> list[str]:
        """The localparts of accounts that appeared after the first listing and of whom nobody was told."""
        return list(self._known.unannounced)

    async def mark_announced(self, localparts: Collection[str]) -> None:
        """These were told of. Raises StoreError."""
        self._known.announced(localparts)
        await self._record()

    # What we change ourselves

    def changing(self, localpart: str) -> None:
        """We are about to change this account: what is being read of it at this moment is not believed."""
        self._changes += 1
        self._written[localpart] = self._changes

    async def changed(self, localpart: str, change: Callable[[Account], Account]) -> None:
        """We changed this account, as `change` says. Raises StoreError."""
        self.changing(localpart)
        account = self._known.accounts.get(localpart)
        if account is not None:
            self._known.put(change(account))
        self._owners.clear()
        await self._record()

    # How it is kept

    async def _bring_up(self, wanted: Collection[str], now: datetime) -> None:
        await self._load()
        if self._is_list_due(now):
            await self._list(now)
        else:
            await self._read_deactivated()
        await self._look_again(now)
        await self._read_due(wanted, now)

    async def _load(self) -> None:
        if self._loaded:
            return
        if self._store is not None:
            self._known.load(await self._store.load(), fresh=self._keeping.fresh)
        self._loaded = True

    def _is_list_due(self, now: datetime) -> bool:
        listed_at = self._known.listed_at
        if self._keeping.lists_anew:
            return True
        if listed_at is None or not -_SLACK <= now - listed_at < self._keeping.verify_interval:
            return True
        return len(self._appeared) > self._one_by_one()

    def _one_by_one(self) -> int:
        """Up to how many requests cost less than pages of everybody."""
        return max(_FEW, len(self._known.accounts) // PAGE)

    async def _list(self, now: datetime) -> None:
        started, listed = self._changes, dict[str, Account]()
        with _about_all():
            # All of it first: of half a list nobody could tell who is new.
            async for page in self._server.accounts():
                listed.update((account.localpart, account) for account in page)
        for account in listed.values():
            self._take(account, started)
        for name in [name for name in self._known.accounts if name not in listed]:
            if self._written.get(name, 0) <= started:
                self._known.drop(name)
        self._known.listed_at = now
        self._known.was_listed = True
        self._knows_deactivated = True
        self._appeared.clear()
        self._absent.clear()
        await self._record(listed_at=now)

    async def _read_deactivated(self) -> None:
        if self._knows_deactivated:
            return
        with _about_all():
            async for page in self._server.deactivated():
                for account in page:
                    self._known.put(account)
        self._knows_deactivated = True
        await self._record()

    async def _look_again(self, now: datetime) -> None:
        names = {**self._suspects, **self._appeared}
        self._suspects.clear()
        self._appeared.clear()
        try:
            await self._read([*names], self._whole, now)
        except BaseException:
            self._suspects.update(names)
            raise

    async def _whole(self, name: str) -> Account | None:
        return await self._server.account(name, self._attributes)

    async def _read_due(self, wanted: Collection[str], now: datetime) -> None:
        lacking = self._attributes - self._server.listed
        due = self._due(wanted, now) if lacking else []
        if not due:
            return
        if lacking & self._server.in_pages and len(due) > self._one_by_one():
            await self._read_emails(now if lacking == self._server.in_pages else None)
            lacking -= self._server.in_pages
            if not lacking:
                return

        async def more(name: str) -> Account | None:
            return await self._server.details(self._known.accounts[name], lacking)

        await self._read(due, more, now, self._progress)

    def _due(self, wanted: Collection[str], now: datetime) -> list[str]:
        known, due, found = self._known.accounts, self._known.due, []
        latest = now + self._keeping.verify_interval + _SLACK
        for name in wanted:
            account = known.get(name)
            if account is None or account.deactivated:
                continue
            at = due.get(name)
            if at is None or at <= now or at > latest:
                found.append(name)
        return found

    async def _read_emails(self, read_at: datetime | None) -> None:
        """Everybody's addresses by pages; with `read_at` nothing else is lacking."""
        started, found = self._changes, dict[str, list[str]]()
        with _about_all():
            async for page in self._server.emails():
                for name, addresses in page.items():
                    found.setdefault(name, []).extend(addresses)
        for name, account in list(self._known.accounts.items()):
            if not account.deactivated and self._written.get(name, 0) <= started:
                emails = tuple(sorted(found.get(name, ())))
                self._known.put(replace(account, emails=emails), read_at)
        await self._record()

    async def _read(
        self,
        names: Sequence[str],
        ask: Callable[[str], Awaitable[Account | None]],
        now: datetime,
        progress: Progress | None = None,
    ) -> None:
        """Reads these accounts one by one; those of a batch are stored together."""

        async def one(name: str) -> Account | HomeserverError | None:
            try:
                return await ask(name)
            except HomeserverError as error:
                # Everybody's, or just this one's?
                await self._require_permission()
                return error

        for start in range(0, len(names), _BATCH):
            batch, started = names[start : start + _BATCH], self._changes
            told = None if progress is None else _shifted(progress, start, len(names))
            answers = await each(one, batch, self._keeping.parallelism, told)
            failed = [answer for answer in answers if isinstance(answer, HomeserverError)]
            if failed:
                log.warning("%d accounts could not be read: %s", len(failed), failed[0].message)
            for name, answer in zip(batch, answers, strict=True):
                self._answered(name, answer, started, now)
            await self._record()

    async def _require_permission(self) -> None:
        """Something was refused to us: raises if everything is."""
        with _about_all():
            await self._server.permitted()

    def _answered(
        self, name: str, answer: Account | HomeserverError | None, started: int, now: datetime
    ) -> None:
        if isinstance(answer, HomeserverError):
            self._known.put_off(name, now + _LATER)
        elif self._written.get(name, 0) > started:
            self._suspects[name] = None
        elif answer is None:
            self._known.drop(name)
            self._absent[name] = now + _ABSENT_KEPT
        else:
            if Attribute.EMAILS not in self._attributes:
                # Synapse gives them along with the rest; what nobody needs is not kept.
                answer = replace(answer, emails=None)
            self._add(answer, now)

    def _take(self, account: Account, started: int) -> None:
        """An account of the list, which lacks something."""
        before = self._known.accounts.get(account.localpart)
        if before is None:
            self._add(account)
        elif self._written.get(account.localpart, 0) <= started:
            listed = Attribute.DISPLAY_NAME in self._server.listed
            display_name = account.display_name if listed else before.display_name
            self._known.put(replace(account, display_name=display_name, emails=before.emails))

    def _add(self, account: Account, read_at: datetime | None = None) -> None:
        """An account as it was read. One that was not there at the first listing is to be announced."""
        name = account.localpart
        is_new = name not in self._known.accounts and self._known.was_listed
        self._known.put(account, read_at)
        if is_new and not account.deactivated:
            self._known.announce_later(name)

    async def _record(self, listed_at: datetime | None = None) -> None:
        await self._known.store(self._store if self._keeping.records else None, listed_at)

    # Whose addresses are

    async def _lacking(self, wanted: Mapping[str, Collection[str]], now: datetime) -> dict[str, str]:
        """Address → who has it, of those that an account should have and another one has."""
        owners: dict[str, str] = {}
        unknown: dict[str, str] = {}
        for address, name in self._lacked(wanted):
            owner = self._known.owner(address)
            if owner is None:
                unknown[address] = name
            elif owner != name:
                owners[address] = owner
        if len(unknown) > _MOST_OWNERS:
            return owners
        for address, name in sorted(unknown.items()):
            owner = await self._owner(address, now)
            if owner == name:
                # So it does not lack it: what we know is old.
                self._suspects[name] = None
            elif owner is not None:
                owners[address] = owner
        return owners

    def _lacked(self, wanted: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
        known = self._known.accounts
        for name, addresses in wanted.items():
            account = known.get(name)
            if account is None or account.emails is None:
                continue
            for address in addresses:
                # The plain comparison first: it is all that most need.
                if address in account.emails:
                    continue
                key = same_address(address)
                if all(key != same_address(email) for email in account.emails):
                    yield key, name

    async def _owner(self, address: str, now: datetime) -> str | None:
        known = self._owners.get(address)
        if known is not None and known[1] > now:
            return known[0]
        try:
            owner = await self._server.owner(address)
        except HomeserverRefused as error:
            await self._require_permission()
            log.warning("nobody could be asked whose an e-mail address is: %s", error.message)
            owner = None
        self._owners[address] = owner, now + _OWNER_KEPT
        return owner


class BookedWriter:
    """Changes accounts, and writes into the book what it did. Implements ports.AccountWriter."""

    def __init__(self, writer: AccountWriter, book: Book) -> None:
        self._writer = writer
        self._book = book

    async def set_display_name(self, localpart: str, display_name: str) -> None:
        await self._do(
            localpart,
            self._writer.set_display_name(localpart, display_name),
            lambda account: replace(account, display_name=display_name),
        )

    async def set_emails(self, localpart: str, emails: Sequence[str]) -> None:
        await self._do(
            localpart,
            self._writer.set_emails(localpart, emails),
            lambda account: replace(account, emails=tuple(sorted(emails))),
        )

    async def lock(self, localpart: str) -> None:
        await self._do(localpart, self._writer.lock(localpart), lambda account: replace(account, locked=True))

    async def unlock(self, localpart: str) -> None:
        await self._do(
            localpart, self._writer.unlock(localpart), lambda account: replace(account, locked=False)
        )

    async def erase(self, localpart: str) -> None:
        await self._do(
            localpart,
            self._writer.erase(localpart),
            lambda account: replace(account, deactivated=True, display_name=None, emails=None),
        )

    async def _do(self, localpart: str, write: Awaitable[None], change: Callable[[Account], Account]) -> None:
        self._book.changing(localpart)
        try:
            await write
        except BaseException:
            # Done or not, it is to be read again.
            self._book.suspect(localpart)
            raise
        await self._book.changed(localpart, change)


class _Refused(Exception):
    """We may not see accounts at all: says why, and what to do."""


@contextmanager
def _about_all() -> Iterator[None]:
    """A refusal in here is about all accounts: raises _Refused for it."""
    try:
        yield
    except HomeserverRefused as error:
        if error.status in NOT_PERMITTED:
            raise _Refused("; ".join(filter(None, (error.message, error.remedy)))) from error
        raise


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Tells `progress` of a batch that comes after so many others."""

    def told(done: int, _: int) -> None:
        progress(before + done, total)

    return told
