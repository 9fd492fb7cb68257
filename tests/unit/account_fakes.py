"""Accounts and mail for the tests of executor, herald and reconciler, on the `Line` of the other fakes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aim.errors import HomeserverRefused
from aim.ports import Announcement, MailEvent
from aim.world.accounts import Account, KnownAccounts
from tests.unit.fakes import Line

ACCOUNT_WRITES = ("set_display_name", "set_emails", "lock", "unlock", "erase")


@dataclass
class FakeAccounts:
    """AccountWriter and AccountReader over the same accounts. What it believes may be old until it is told to
    suspect somebody."""

    line: Line
    accounts: dict[str, Account] = field(default_factory=dict)
    """As they are."""
    believed: dict[str, Account] = field(default_factory=dict)
    """As they were last read."""
    suspected: set[str] = field(default_factory=set)
    unannounced: list[str] = field(default_factory=list)
    refused: str = ""
    """Why we may not see accounts; "": we may."""

    @classmethod
    def of(cls, line: Line, *accounts: Account | str) -> FakeAccounts:
        given = [account if isinstance(account, Account) else Account(account) for account in accounts]
        found = {account.localpart: account for account in given}
        return cls(line, dict(found), dict(found))

    # -- the reader -----------------------------------------------------------------------------------------

    async def observe(self, wanted: Mapping[str, Collection[str]]) -> KnownAccounts:
        await self.line.take("observe_accounts", tuple(sorted(wanted)))
        if self.refused:
            return KnownAccounts(refused=self.refused)
        for name in sorted(self.suspected & self.accounts.keys()):
            if name not in self.believed:
                self.unannounced.append(name)
            self.believed[name] = self.accounts[name]
        self.suspected.clear()
        return KnownAccounts({name: self.believed[name] for name in wanted if name in self.believed})

    async def current(self, localpart: str) -> Account | None:
        await self.line.take("current_account", localpart)
        found = self.accounts.get(localpart)
        if found is not None:
            self.believed[localpart] = found
        else:
            self.believed.pop(localpart, None)
        return found

    def appeared(self, localparts: Collection[str]) -> None:
        self.suspected.update(name for name in localparts if name not in self.believed)

    def suspect(self, localpart: str) -> None:
        self.suspected.add(localpart)

    def take_unannounced(self) -> Sequence[str]:
        return list(self.unannounced)

    async def mark_announced(self, localparts: Collection[str]) -> None:
        call = await self.line.take("mark_announced", tuple(localparts))
        self.unannounced = [name for name in self.unannounced if name not in localparts]
        await self.line.give(call)

    # -- the writer -----------------------------------------------------------------------------------------

    async def set_display_name(self, localpart: str, display_name: str) -> None:
        await self._change("set_display_name", localpart, display_name, display_name=display_name)

    async def set_emails(self, localpart: str, emails: Sequence[str]) -> None:
        await self._change("set_emails", localpart, tuple(emails), emails=tuple(emails))

    async def lock(self, localpart: str) -> None:
        await self._change("lock", localpart, locked=True)

    async def unlock(self, localpart: str) -> None:
        await self._change("unlock", localpart, locked=False)

    async def erase(self, localpart: str) -> None:
        await self._change("erase", localpart, deactivated=True, display_name=None, emails=None)

    async def _change(self, name: str, localpart: str, *arguments: object, **changes: object) -> None:
        call = await self.line.take(name, localpart, *arguments)
        if localpart not in self.accounts:
            raise HomeserverRefused("no such account", status=404, errcode="M_NOT_FOUND")
        changed = replace(self.accounts[localpart], **changes)  # type: ignore[arg-type] # fields of Account
        self.accounts[localpart] = self.believed[localpart] = changed
        await self.line.give(call)


@dataclass
class FakeAnnouncer:
    """Keeps what people are told, and each key once, as the mail queue does."""

    line: Line
    told: list[Announcement] = field(default_factory=list)
    asked: int = 0
    """How often it was to tell something, the same again included."""

    async def announce(self, announcement: Announcement) -> None:
        call = await self.line.take("announce", announcement.event, announcement.localpart)
        self.asked += 1
        if all(announcement.key != known.key for known in self.told):
            self.told.append(announcement)
        await self.line.give(call)

    @property
    def events(self) -> list[tuple[MailEvent, str | None]]:
        return [(one.event, one.localpart) for one in self.told]


@dataclass
class FakeRegistrar:
    """Registrar over a set of names in use: `accounts` are those that can be seen."""

    line: Line
    accounts: dict[str, Account] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    async def register(self, localpart: str) -> bool:
        call = await self.line.take("register", localpart)
        if localpart in self.accounts or localpart in self.hidden:
            return False
        self.accounts[localpart] = Account(localpart)
        await self.line.give(call)
        return True

    async def find(self, localpart: str) -> Account | None:
        await self.line.take("find_account", localpart)
        return self.accounts.get(localpart)
