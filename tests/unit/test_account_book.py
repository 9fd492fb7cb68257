"""The book of accounts: what it asks for, what it remembers, and what it makes of a bad day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from aim.errors import HomeserverError, HomeserverRefused, HomeserverUnavailable, StoreError
from aim.matrix.account_server import PAGE, Attribute, Attributes, same_address
from aim.matrix.book import Book, BookedWriter, Keeping
from aim.ports import AccountReader, AccountWriter, StoredAccount, StoredAccounts
from aim.world.accounts import Account, KnownAccounts

DAY = timedelta(days=1)
BOTH = frozenset(Attribute)
REFUSED = HomeserverRefused("the homeserver refused GET /users: 403", "make the bot an admin", status=403)


@dataclass(slots=True)
class Server:
    """Keeps accounts, and counts what it is asked. Like Synapse; with `mas`, like MAS."""

    people: dict[str, Account] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failing: dict[str, HomeserverError] = field(default_factory=dict)
    """Question → how it fails."""
    mas: bool = False
    paused: asyncio.Event | None = None
    """Answers about one account wait for this."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when one waits."""
    whole_pages: int | None = None
    """After how many pages the list breaks off."""

    def add(self, name: str, *emails: str, display_name: str | None = None) -> None:
        self.people[name] = Account(name, display_name or name.title(), emails)

    def change(self, name: str, **changes: object) -> None:
        self.people[name] = replace(self.people[name], **changes)  # type: ignore[arg-type]

    @property
    def listed(self) -> frozenset[Attribute]:
        return frozenset() if self.mas else frozenset({Attribute.DISPLAY_NAME})

    @property
    def in_pages(self) -> frozenset[Attribute]:
        return frozenset({Attribute.EMAILS}) if self.mas else frozenset()

    async def accounts(self) -> AsyncIterator[Sequence[Account]]:
        for number, page in enumerate(pages(list(self.people.values()))):
            self._ask("list")
            if number == self.whole_pages:
                raise HomeserverUnavailable("no answer")
            yield [self._bare(account) for account in page]

    async def deactivated(self) -> AsyncIterator[Sequence[Account]]:
        self._ask("deactivated")
        yield [self._bare(account) for account in self.people.values() if account.deactivated]

    async def newest(self, known: Container[str]) -> list[Account]:
        self._ask("newest")
        found = [account for name, account in self.people.items() if name not in known]
        return [self._bare(account) for account in found if not account.deactivated]

    async def account(self, localpart: str, attributes: Attributes) -> Account | None:
        self._ask(f"account {localpart}")
        found = self.people.get(localpart)
        if self.paused is not None:
            self.reached.set()
            await self.paused.wait()
        return found

    async def details(self, account: Account, attributes: Attributes) -> Account | None:
        return await self.account(account.localpart, attributes)

    async def emails(self) -> AsyncIterator[Mapping[str, Sequence[str]]]:
        for page in pages(list(self.people.values())):
            self._ask("emails")
            yield {account.localpart: account.emails or () for account in page}

    async def owner(self, address: str) -> str | None:
        self._ask(f"owner {address}")
        for name, account in self.people.items():
            if address in map(same_address, account.emails or ()):
                return name
        return None

    async def permitted(self) -> None:
        self._ask("permitted")

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        for known in (question, question.split(maxsplit=1)[0]):
            if known in self.failing:
                raise self.failing[known]

    def _bare(self, account: Account) -> Account:
        return replace(account, emails=None, display_name=None if self.mas else account.display_name)

    def answered(self) -> list[str]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return sorted(asked)


def pages(accounts: list[Account]) -> list[list[Account]]:
    return [accounts[start : start + PAGE] for start in range(0, len(accounts), PAGE)] or [[]]


@dataclass(slots=True)
class Store:
    """Remembers accounts."""

    accounts: dict[str, StoredAccount] = field(default_factory=dict)
    listed_at: datetime | None = None
    records: int = 0
    failing: bool = False

    async def load(self) -> StoredAccounts:
        return StoredAccounts(dict(self.accounts), self.listed_at)

    async def record(
        self,
        changed: Sequence[StoredAccount],
        gone: Collection[str] = (),
        listed_at: datetime | None = None,
    ) -> None:
        if self.failing:
            raise StoreError("the database is away")
        self.records += 1
        for stored in changed:
            self.accounts[stored.account.localpart] = stored
        for name in gone:
            self.accounts.pop(name, None)
        self.listed_at = listed_at or self.listed_at


@dataclass(slots=True)
class Writer:
    """Changes the accounts of a Server."""

    server: Server
    error: HomeserverError | None = None

    async def _change(self, name: str, **changes: object) -> None:
        if self.error is not None:
            raise self.error
        self.server.change(name, **changes)

    async def set_display_name(self, localpart: str, display_name: str) -> None:
        await self._change(localpart, display_name=display_name)

    async def set_emails(self, localpart: str, emails: Sequence[str]) -> None:
        await self._change(localpart, emails=tuple(sorted(emails)))

    async def lock(self, localpart: str) -> None:
        await self._change(localpart, locked=True)

    async def unlock(self, localpart: str) -> None:
        await self._change(localpart, locked=False)

    async def erase(self, localpart: str) -> None:
        await self._change(localpart, deactivated=True, emails=(), display_name=None)


@dataclass(slots=True)
class Setting:
    """A server, a store and the time; books come and go."""

    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def book(
        self,
        attributes: Attributes = BOTH,
        *,
        records: bool = True,
        fresh: bool = False,
        lists_anew: bool = False,
    ) -> Book:
        keeping = Keeping(
            attributes=attributes,
            verify_interval=DAY,
            records=records,
            fresh=fresh,
            lists_anew=lists_anew,
            parallelism=4,
        )
        return Book(self.server, keeping, now=lambda: self.now, store=self.store)


@pytest.fixture
def set_up() -> Setting:
    """Ann and Ben."""
    found = Setting()
    found.server.add("ann", "ann@example.com")
    found.server.add("ben")
    return found


def wanted(*names: str) -> dict[str, Collection[str]]:
    return {name: (f"{name}@example.com",) for name in names}


async def test_the_ports_are_implemented(set_up: Setting) -> None:
    book = set_up.book()
    reader: AccountReader = book
    writer: AccountWriter = BookedWriter(Writer(set_up.server), book)
    assert (reader, bool(writer)) == (book, True)


# How much it asks


async def test_everybody_is_listed_once_and_the_wanted_are_read_once(set_up: Setting) -> None:
    book = set_up.book()
    found = await book.observe(wanted("ann", "ben", "nobody"))
    assert found == KnownAccounts(
        {"ann": Account("ann", "Ann", ("ann@example.com",)), "ben": Account("ben", "Ben", ())}
    )
    assert set_up.server.answered() == ["account ann", "account ben", "list", "owner ben@example.com"]
    assert await book.observe(wanted("ann", "ben", "nobody")) == found
    assert set_up.server.answered() == []


async def test_a_restart_asks_for_the_deactivated_only(set_up: Setting) -> None:
    set_up.server.add("eve", "eve@example.com")
    set_up.server.change("eve", deactivated=True)
    found = await set_up.book().observe(wanted("ann", "eve"))
    set_up.server.answered()
    assert await set_up.book().observe(wanted("ann", "eve")) == found
    assert found.accounts["eve"].deactivated
    assert set_up.server.answered() == ["deactivated"]


async def test_who_is_wanted_later_is_read_then(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann"))
    set_up.server.answered()
    await book.observe({"ann": (), "ben": ()})
    assert set_up.server.answered() == ["account ben"]


async def test_without_addresses_the_list_is_enough(set_up: Setting) -> None:
    book = set_up.book({Attribute.DISPLAY_NAME})
    found = await book.observe(wanted("ann", "ben"))
    assert found.accounts["ann"] == Account("ann", "Ann")
    assert set_up.server.answered() == ["list"]
    book.suspect("ann")
    assert (await book.observe(wanted("ann"))).accounts["ann"].emails is None
    assert set_up.store.accounts["ann"].account.emails is None


async def test_all_is_read_again_within_the_interval_but_not_at_once() -> None:
    set_up = Setting()
    names = [f"p{number}" for number in range(400)]
    for name in names:
        set_up.server.add(name)
    book = set_up.book()
    people: dict[str, Collection[str]] = dict.fromkeys(names, ())
    await book.observe(people)
    start = set_up.now
    set_up.server.answered()
    read: dict[float, int] = {}
    for step in range(1, 10):
        set_up.now = start + DAY * step / 10
        await book.observe(people)
        read[step / 10] = len(set_up.server.answered())
    assert all(read[share] == 0 for share in (0.1, 0.2, 0.3, 0.4))
    assert all(40 < read[share] < 120 for share in (0.6, 0.7, 0.8, 0.9))
    set_up.now = start + DAY
    await book.observe(people)
    assert "list" in set_up.server.answered()


async def test_fifty_thousand_unchanged() -> None:
    set_up = Setting()
    names = [f"person{number}" for number in range(50_000)]
    for name in names:
        set_up.server.add(name, f"{name}@example.com")
    people = wanted(*names)
    book = set_up.book()
    assert len((await book.observe(people)).accounts) == 50_000
    asked = set_up.server.answered()
    assert (asked.count("list"), len(asked)) == (50, 50_050)
    await book.observe(people)
    assert set_up.server.answered() == []


async def test_addresses_by_pages() -> None:
    """As MAS gives them: one by one only where that is less."""
    set_up = Setting(Server(mas=True))
    names = [f"person{number}" for number in range(5_000)]
    for name in names:
        set_up.server.add(name, f"{name}@example.com")
    people = wanted(*names)
    book = set_up.book({Attribute.EMAILS})
    found = await book.observe(people)
    assert found.accounts["person7"].emails == ("person7@example.com",)
    assert set_up.server.answered() == ["emails"] * 5 + ["list"] * 5
    await book.observe(people)
    assert set_up.server.answered() == []
    book.suspect("person7")
    await book.observe(people)
    assert set_up.server.answered() == ["account person7"]


async def test_display_names_that_no_list_gives() -> None:
    set_up = Setting(Server(mas=True))
    names = [f"p{number}" for number in range(30)]
    for name in names:
        set_up.server.add(name, f"{name}@example.com")
    book = set_up.book()
    found = await book.observe(wanted(*names))
    assert found.accounts["p7"] == Account("p7", "P7", ("p7@example.com",))
    asked = set_up.server.answered()
    assert (asked.count("list"), asked.count("emails"), len(asked)) == (1, 1, 32)
    set_up.now += DAY
    assert (await book.observe(wanted("p7"))).accounts["p7"].display_name == "P7", "kept while listing"


async def test_a_clock_that_went_back(set_up: Setting) -> None:
    await set_up.book().observe(wanted("ann"))
    set_up.now -= timedelta(days=400)
    set_up.server.answered()
    book = set_up.book()
    await book.observe(wanted("ann"))
    assert set_up.server.answered() == ["account ann", "list"]
    await book.observe(wanted("ann"))
    assert set_up.server.answered() == []


# What it remembers


async def test_a_reading_command_loads_and_never_records(set_up: Setting) -> None:
    await set_up.book().observe(wanted("ann", "ben"))
    set_up.server.add("eve")
    before = set_up.store.records
    book = set_up.book(records=False)
    book.appeared(["eve"])
    assert "eve" in (await book.observe(wanted("ann", "eve"))).accounts
    assert set_up.store.records == before
    assert "eve" not in set_up.store.accounts


async def test_fresh_reads_everything_anew(set_up: Setting) -> None:
    await set_up.book().observe(wanted("ann", "ben"))
    set_up.server.change("ann", emails=("new@example.com",))
    set_up.server.answered()
    found = await set_up.book(records=False, fresh=True).observe(wanted("ann", "ben"))
    assert found.accounts["ann"].emails == ("new@example.com",)
    assert "list" in set_up.server.answered()


async def test_where_nobody_tells_of_changes_everybody_is_listed_each_time(set_up: Setting) -> None:
    book = set_up.book(lists_anew=True)
    await book.observe(wanted("ann"))
    set_up.server.answered()
    set_up.server.change("ann", locked=True)
    assert (await book.observe(wanted("ann"))).accounts["ann"].locked
    assert set_up.server.answered() == ["list"]


async def test_whether_a_display_name_is_what_we_know(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann"))
    assert book.agrees("ann", "Ann")
    assert not book.agrees("ann", "Somebody else")


async def test_nothing_is_stored_of_who_is_deactivated(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann", "ben"))
    await BookedWriter(Writer(set_up.server), book).erase("ann")
    assert set_up.store.accounts.keys() == {"ben"}
    set_up.now += DAY
    again = set_up.book()
    found = await again.observe(wanted("ann", "ben"))
    assert found.accounts["ann"].deactivated
    assert set_up.store.accounts.keys() == {"ben"}
    assert again.take_unannounced() == []


async def test_an_account_that_is_gone_is_dropped(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann", "ben"))
    del set_up.server.people["ben"]
    set_up.now += DAY
    assert (await book.observe(wanted("ann", "ben"))).accounts.keys() == {"ann"}
    assert set_up.store.accounts.keys() == {"ann"}


async def test_a_store_that_fails_is_told_again(set_up: Setting) -> None:
    book = set_up.book()
    set_up.store.failing = True
    with pytest.raises(StoreError):
        await book.observe(wanted("ann"))
    set_up.store.failing = False
    await book.observe(wanted("ann"))
    assert set_up.store.accounts.keys() == {"ann", "ben"}


# New accounts


async def test_accounts_that_appear_are_read_once_and_announced(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann", "ben", "eve", "joe"))
    assert book.take_unannounced() == []
    set_up.server.add("eve", "eve@example.com")
    set_up.server.answered()
    book.appeared(["eve", "joe", "ann"])
    found = await book.observe(wanted("ann", "ben", "eve", "joe"))
    assert found.accounts["eve"].emails == ("eve@example.com",)
    assert "joe" not in found.accounts
    assert set_up.server.answered() == ["account eve", "account joe"]
    await book.observe(wanted("ann", "ben", "eve", "joe"))
    assert set_up.server.answered() == [], "who has no account is not asked for again"
    assert book.take_unannounced() == ["eve"]
    assert set_up.book().take_unannounced() == []
    later = set_up.book()
    await later.observe({})
    assert later.take_unannounced() == ["eve"]
    await later.mark_announced(["eve", "nobody"])
    assert later.take_unannounced() == []
    assert set_up.store.accounts["eve"].announced


async def test_who_has_no_account_is_asked_for_once_in_a_while(set_up: Setting) -> None:
    """Their name may stay in rooms for ever, and whoever sees it there says so each time."""
    book = set_up.book()
    await book.observe(wanted("ann", "joe"))
    set_up.server.answered()
    for _ in range(3):
        book.appeared(["joe"])
        assert "joe" not in (await book.observe(wanted("ann", "joe"))).accounts
    assert set_up.server.answered() == ["account joe"]
    set_up.server.add("joe", "joe@example.com")
    set_up.now += timedelta(minutes=10)
    book.appeared(["joe"])
    assert "joe" in (await book.observe(wanted("ann", "joe"))).accounts
    assert set_up.server.answered() == ["account joe"]


async def test_who_had_no_account_is_found_by_the_next_listing_or_poll(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann", "joe", "eve"))
    book.appeared(["joe", "eve"])
    await book.observe(wanted("ann", "joe", "eve"))
    set_up.server.add("eve", "eve@example.com")
    assert await book.poll() == ["eve"]
    set_up.server.add("joe", "joe@example.com")
    set_up.now += DAY
    assert (await book.observe(wanted("ann", "joe", "eve"))).accounts.keys() == {"ann", "joe", "eve"}
    assert book.take_unannounced() == ["eve", "joe"]


# One account at this moment


@pytest.mark.parametrize("mas", [False, True])
async def test_one_account_as_it_is_now_is_one_request(set_up: Setting, mas: bool) -> None:
    set_up.server.mas = mas
    book = set_up.book()
    before = await book.observe(wanted("ann", "ben"))
    set_up.server.answered()
    set_up.server.change("ann", locked=True, admin=True)
    found = await book.current("ann")
    assert found is not None
    assert (found.locked, found.admin) == (True, True)
    assert set_up.server.answered() == ["account ann"]
    known = await book.observe(wanted("ann", "ben"))
    assert known.accounts["ann"] == replace(before.accounts["ann"], locked=True, admin=True)
    assert set_up.server.answered() == []
    assert set_up.store.accounts["ann"].account.locked


async def test_one_account_that_is_not_there_now(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann", "ben"))
    del set_up.server.people["ben"]
    assert await book.current("ben") is None
    assert await book.current("nobody") is None
    assert (await book.observe(wanted("ann", "ben"))).accounts.keys() == {"ann"}


async def test_one_account_lists_nobody_although_a_listing_is_due(set_up: Setting) -> None:
    await set_up.book().observe(wanted("ann"))
    set_up.now += 2 * DAY
    set_up.server.answered()
    assert await set_up.book().current("ann") is not None
    assert set_up.server.answered() == ["account ann"]


async def test_one_account_waits_for_no_other_look_and_is_believed_over_it(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann", "ben"))
    set_up.server.paused = paused = asyncio.Event()
    book.suspect("ben")
    looking = asyncio.create_task(book.observe(wanted("ann", "ben")))
    await set_up.server.reached.wait()
    set_up.server.paused = None
    set_up.server.change("ben", locked=True)
    found = await asyncio.wait_for(book.current("ben"), 5)
    assert found is not None
    assert found.locked
    # The other answer is from before, and comes now.
    paused.set()
    await looking
    assert (await book.observe(wanted("ann", "ben"))).accounts["ben"].locked


async def test_one_account_may_not_be_seen(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann"))
    set_up.server.failing["account"] = REFUSED
    with pytest.raises(HomeserverRefused):
        await book.current("ann")


async def test_a_small_poll_finds_new_ones(set_up: Setting) -> None:
    book = set_up.book()
    assert await book.poll() == []
    assert set_up.server.answered() == [], "before the first listing everybody would be new"
    await book.observe(wanted("ann"))
    set_up.server.answered()
    set_up.server.add("eve", "eve@example.com")
    assert await book.poll() == ["eve"]
    assert await book.poll() == []
    assert set_up.server.answered() == ["newest", "newest"]
    assert (await book.observe(wanted("eve"))).accounts["eve"].emails == ("eve@example.com",)
    assert set_up.server.answered() == ["account eve"]
    assert book.take_unannounced() == ["eve"]
    set_up.server.failing["newest"] = REFUSED
    assert await book.poll() == []


async def test_who_is_found_by_a_later_listing_is_new_too(set_up: Setting) -> None:
    await set_up.book().observe(wanted("ann"))
    set_up.server.add("eve")
    set_up.now += DAY
    book = set_up.book()
    await book.observe(wanted("ann"))
    assert book.take_unannounced() == ["eve"]


async def test_a_first_listing_that_broke_off_makes_nobody_new() -> None:
    set_up = Setting()
    for number in range(PAGE + 1):
        set_up.server.add(f"p{number}")
    book = set_up.book()
    set_up.server.whole_pages = 1
    with pytest.raises(HomeserverUnavailable):
        await book.observe(wanted("p0"))
    set_up.server.whole_pages = None
    assert (await book.observe(wanted("p0"))).accounts.keys() == {"p0"}
    assert book.take_unannounced() == []


async def test_very_many_new_ones_are_listed(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann"))
    names = [f"p{number}" for number in range(50)]
    for name in names:
        set_up.server.add(name)
    set_up.server.answered()
    book.appeared(names)
    await book.observe(wanted("ann"))
    assert set_up.server.answered() == ["list"]
    assert book.take_unannounced() == names


# Whose addresses are


async def test_owners(set_up: Setting) -> None:
    set_up.server.add("eve", "Ben@Example.com")
    set_up.server.add("joe", "joe@example.com")
    book = set_up.book()
    people = {"ben": ("ben@example.com", "new@example.com"), "joe": ("JOE@example.com",)}
    found = await book.observe(people)
    assert found.owners == {"ben@example.com": "eve"}
    assert [asked for asked in set_up.server.answered() if asked.startswith("owner")] == [
        "owner ben@example.com",
        "owner new@example.com",
    ]
    assert (await book.observe(people)).owners == {"ben@example.com": "eve"}
    assert set_up.server.answered() == [], "remembered for a while"
    # Once eve is wanted, what is known is enough.
    found = await book.observe({**people, "eve": ()})
    assert found.owners == {"ben@example.com": "eve"}
    set_up.now += timedelta(hours=1)
    await book.observe({**people, "eve": ()})
    assert set_up.server.answered() == ["account eve", "owner new@example.com"]


async def test_nobody_is_asked_about_very_many_addresses() -> None:
    set_up = Setting()
    names = [f"p{number}" for number in range(200)]
    for name in names:
        set_up.server.add(name)
    await set_up.book().observe(wanted(*names))
    assert not [asked for asked in set_up.server.answered() if asked.startswith("owner")]


async def test_an_address_that_is_their_own_after_all(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ben"))
    set_up.server.change("ben", emails=("ben@example.com",))
    set_up.now += timedelta(hours=1)
    assert (await book.observe(wanted("ben"))).owners == {}
    found = await book.observe(wanted("ben"))
    assert found.accounts["ben"].emails == ("ben@example.com",)


# What we change


async def test_what_we_change_is_known_without_asking(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann", "ben"))
    set_up.server.answered()
    writer = BookedWriter(Writer(set_up.server), book)
    await writer.set_display_name("ann", "Ann Lee")
    await writer.set_emails("ann", ["b@example.com", "a@example.com"])
    await writer.lock("ann")
    await writer.lock("ben")
    await writer.unlock("ben")
    ann = Account("ann", "Ann Lee", ("a@example.com", "b@example.com"), locked=True)
    found = await book.observe({"ann": (), "ben": ("ann@example.com",)})
    assert found.accounts == {"ann": ann, "ben": Account("ben", "Ben", ())}
    assert found.owners == {}, "ann has it no more"
    assert set_up.server.answered() == ["owner ann@example.com"]
    assert set_up.store.accounts["ann"].account == ann
    assert set_up.server.people["ann"] == ann


@pytest.mark.parametrize(
    "error", [REFUSED, HomeserverUnavailable("no answer", maybe_done=True)], ids=["refused", "lost"]
)
async def test_a_change_that_failed_is_read_again(set_up: Setting, error: HomeserverError) -> None:
    book = set_up.book()
    await book.observe(wanted("ann"))
    set_up.server.answered()
    with pytest.raises(type(error)):
        await BookedWriter(Writer(set_up.server, error), book).lock("ann")
    set_up.server.change("ann", locked=True)
    assert (await book.observe(wanted("ann"))).accounts["ann"].locked
    assert set_up.server.answered() == ["account ann"]
    await book.observe(wanted("ann"))
    assert set_up.server.answered() == []


async def test_what_was_read_before_our_change_is_not_believed(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann"))
    set_up.server.paused = asyncio.Event()
    book.suspect("ann")
    set_up.server.answered()
    observing = asyncio.create_task(book.observe(wanted("ann")))
    await set_up.server.reached.wait()
    await BookedWriter(Writer(set_up.server), book).lock("ann")
    set_up.server.paused.set()
    assert (await observing).accounts["ann"].locked
    assert (await book.observe(wanted("ann"))).accounts["ann"].locked


# Bad days


@pytest.mark.parametrize("question", ["list", "deactivated"])
async def test_a_server_that_does_not_let_us_see_accounts(set_up: Setting, question: str) -> None:
    if question == "deactivated":
        await set_up.book().observe(wanted("ann"))
    set_up.server.failing[question] = REFUSED
    book = set_up.book()
    found = await book.observe(wanted("ann"))
    assert found == KnownAccounts(refused="the homeserver refused GET /users: 403; make the bot an admin")
    set_up.server.failing.clear()
    assert (await book.observe(wanted("ann"))).accounts.keys() == {"ann"}


async def test_one_account_that_is_refused_to_us(set_up: Setting) -> None:
    set_up.server.failing["account ann"] = REFUSED
    book = set_up.book()
    found = await book.observe({"ann": (), "ben": ()})
    assert found.accounts["ann"] == Account("ann", "Ann", None), "nobody knows its addresses"
    assert found.accounts["ben"].emails == ()
    assert set_up.server.answered() == ["account ann", "account ben", "list", "permitted"]
    await book.observe({"ann": (), "ben": ()})
    assert set_up.server.answered() == []
    set_up.server.failing.clear()
    set_up.now += timedelta(hours=2)
    assert (await book.observe(wanted("ann"))).accounts["ann"].emails == ("ann@example.com",)


async def test_rights_that_were_taken_away_meanwhile(set_up: Setting) -> None:
    book = set_up.book()
    await book.observe(wanted("ann"))
    set_up.server.failing = {"account": REFUSED, "permitted": REFUSED}
    book.suspect("ann")
    assert (await book.observe(wanted("ann"))).refused
    set_up.server.failing.clear()
    set_up.server.answered()
    assert not (await book.observe(wanted("ann"))).refused
    assert set_up.server.answered() == ["account ann"], "still in doubt"


async def test_a_server_that_is_away(set_up: Setting) -> None:
    away = HomeserverUnavailable("no answer")
    set_up.server.failing = {"account ann": away, "permitted": away}
    with pytest.raises(HomeserverUnavailable):
        await set_up.book().observe(wanted("ann"))


async def test_progress_is_told() -> None:
    set_up = Setting()
    names = [f"p{number}" for number in range(1_200)]
    for name in names:
        set_up.server.add(name)
    told: list[tuple[int, int]] = []
    keeping = Keeping(attributes=BOTH, verify_interval=DAY)
    book = Book(
        set_up.server, keeping, now=lambda: set_up.now, progress=lambda *step: told.append((step[0], step[1]))
    )
    await book.observe(dict.fromkeys(names, ()))
    assert told == [(number, 1_200) for number in range(1, 1_201)]
