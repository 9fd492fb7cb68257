"""One suite for whatever keeps accounts: a real Synapse, and the stand-in of the Matrix Authentication
Service beside a real Synapse that has the profiles."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix.account_server import AccountServer, Attribute
from aim.matrix.client import open_reader, open_writer
from aim.matrix.mas_transport import Credentials
from aim.ports import AccountWriter, Registrar
from aim.world.accounts import Account
from tests.contract.test_matrix_homeserver import IMPATIENT, settings
from tests.servers.mas import Mas, NewMas
from tests.servers.proxy import NewProxy, Proxy, Request, every_write
from tests.servers.synapse import Homeserver

BOTH = frozenset(Attribute)


@dataclass(slots=True, kw_only=True)
class Kept:
    """Accounts, whoever keeps them: what the tests do by themselves, and our reader and writer."""

    homeserver: Homeserver
    proxy: Proxy
    """Before whoever keeps them."""
    mas: Mas | None
    n: str
    """In all names and addresses of one test: the homeserver is shared."""
    server: AccountServer
    writer: AccountWriter
    registrar: Registrar

    @property
    def ann(self) -> str:
        return f"ann{self.n}"

    @property
    def ben(self) -> str:
        return f"ben{self.n}"

    @property
    def eve(self) -> str:
        return f"eve{self.n}"

    @property
    def joe(self) -> str:
        return f"joe{self.n}"

    async def add(self, localpart: str, *emails: str, display_name: str | None = None) -> None:
        """Somebody with an account."""
        await self.homeserver.register(localpart)
        if self.mas is not None:
            self.mas.add(localpart, *emails)
        else:
            threepids = [{"medium": "email", "address": address} for address in emails]
            await self.set(localpart, threepids=threepids)
        if display_name is not None:
            await self.set(localpart, displayname=display_name)

    async def set(self, localpart: str, **body: object) -> None:
        """By Synapse's admin, past everything of ours."""
        await self.homeserver.as_admin("PUT", self._path(localpart), body)

    async def deactivate(self, localpart: str) -> None:
        """As somebody else does who does not want it erased."""
        if self.mas is not None:
            self.mas.user(localpart).deactivated = True
        else:
            await self.set(localpart, deactivated=True)

    async def is_erased(self, localpart: str) -> bool:
        if self.mas is not None:
            return self.mas.user(localpart).erased
        user = await self.homeserver.as_admin("GET", self._path(localpart))
        return bool(user["erased"])

    async def emails(self, localpart: str) -> list[str]:
        if self.mas is not None:
            return self.mas.emails(localpart)
        user = await self.homeserver.as_admin("GET", self._path(localpart))
        return sorted(item["address"] for item in user["threepids"] if item["medium"] == "email")

    async def displayed(self, localpart: str) -> str | None:
        user = await self.homeserver.as_admin("GET", self._path(localpart))
        name: str | None = user["displayname"]
        return name

    async def has_account(self, localpart: str) -> bool:
        if self.mas is not None and localpart in self.mas.usernames():
            return True
        try:
            await self.homeserver.as_admin("GET", self._path(localpart))
        except HomeserverRefused:
            return False
        return True

    def _path(self, localpart: str) -> str:
        return f"/_synapse/admin/v2/users/{quote(self.homeserver.mxid(localpart), safe='')}"

    async def account(self, localpart: str) -> Account:
        found = await self.server.account(localpart, BOTH)
        assert found is not None
        return found

    def forget(self) -> None:
        self.proxy.forget()

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.proxy.writes if not request.path.endswith("/oauth2/token")]


@pytest.fixture(params=["synapse", "mas"])
async def kept(
    request: pytest.FixtureRequest, homeserver: Homeserver, new_proxy: NewProxy, new_mas: NewMas
) -> AsyncIterator[Kept]:
    """Accounts that no other test knows of."""
    async with AsyncExitStack() as stack:
        mas: Mas | None = None
        if request.param == "mas":
            mas = await new_mas()
            mas.add("root", admin=True)
            proxy = await new_proxy(mas.url)
            credentials = Credentials(proxy.url + "/", mas.client_id, mas.client_secret)
            ours = settings(homeserver, auth="mas", mas=credentials)
        else:
            proxy = await new_proxy(homeserver.base_url)
            ours = settings(homeserver, url=proxy.url, admin_user="root")
        reading = await stack.enter_async_context(open_reader(ours, IMPATIENT))
        writing = await stack.enter_async_context(open_writer(ours, IMPATIENT))
        assert reading.accounts is not None
        assert writing.account_writer is not None
        assert writing.registrar is not None
        yield Kept(
            homeserver=homeserver,
            proxy=proxy,
            mas=mas,
            n=secrets.token_hex(3),
            server=reading.accounts,
            writer=writing.account_writer,
            registrar=writing.registrar,
        )


async def listed(kept: Kept) -> dict[str, Account]:
    """Those of this test, and the admin."""
    found = {account.localpart: account async for page in kept.server.accounts() for account in page}
    return {name: account for name, account in found.items() if name == "root" or kept.n in name}


# Reading


async def test_all_accounts_are_listed(kept: Kept) -> None:
    for name in (kept.ann, kept.ben, kept.eve, kept.joe):
        await kept.add(name)
    await kept.writer.lock(kept.ben)
    await kept.writer.erase(kept.eve)
    found = await listed(kept)
    assert found.keys() == {"root", kept.ann, kept.ben, kept.eve, kept.joe}
    assert {name for name, account in found.items() if account.locked} == {kept.ben}
    assert {name for name, account in found.items() if account.deactivated} == {kept.eve}
    assert {name for name, account in found.items() if account.admin} == {"root"}
    assert all(account.emails is None for account in found.values())
    gone = [account.localpart async for page in kept.server.deactivated() for account in page]
    assert {name for name in gone if kept.n in name} == {kept.eve}


async def test_the_list_gives_what_it_says_that_it_gives(kept: Kept) -> None:
    await kept.add(kept.ann, display_name="Ann Lee")
    gives = Attribute.DISPLAY_NAME in kept.server.listed
    assert (await listed(kept))[kept.ann].display_name == ("Ann Lee" if gives else None)
    assert gives is (kept.mas is None)


async def test_the_newest_accounts(kept: Kept) -> None:
    await kept.add(kept.ann)
    known = {account.localpart async for page in kept.server.accounts() for account in page}
    for name in (kept.ben, kept.eve):
        await kept.add(name)
    assert {account.localpart for account in await kept.server.newest(known)} == {kept.ben, kept.eve}
    kept.forget()
    assert await kept.server.newest({*known, kept.ben, kept.eve}) == []
    assert len([asked for asked in kept.proxy.requests if not asked.is_write]) == 1
    await kept.writer.lock(kept.ben)
    await kept.writer.erase(kept.eve)
    assert [account.localpart for account in await kept.server.newest(known)] == [kept.ben]


async def test_one_account(kept: Kept) -> None:
    await kept.add(kept.ann, f"b@{kept.n}.test", f"a@{kept.n}.test", display_name="Ann Lee")
    assert await kept.server.account(kept.ann, BOTH) == Account(
        kept.ann, display_name="Ann Lee", emails=(f"a@{kept.n}.test", f"b@{kept.n}.test")
    )
    assert await kept.server.account("nobody", BOTH) is None
    assert (await kept.account("root")).admin
    again = await kept.server.details(Account(kept.ann, locked=False), BOTH)
    assert again == await kept.account(kept.ann)


async def test_an_odd_name(kept: Kept) -> None:
    name = f"ann+b=c/d.e_f-{kept.n}"
    await kept.add(name, f"ann@{kept.n}.test")
    assert (await kept.account(name)).emails == (f"ann@{kept.n}.test",)
    await kept.writer.set_display_name(name, "Änn “Lee” 🦊")
    await kept.writer.lock(name)
    found = await kept.account(name)
    assert (found.display_name, found.locked) == ("Änn “Lee” 🦊", True)
    assert name in await listed(kept)


async def test_whose_an_address_is(kept: Kept) -> None:
    await kept.add(kept.ann, f"ann@{kept.n}.test")
    assert await kept.server.owner(f"ann@{kept.n}.test") == kept.ann
    assert await kept.server.owner(f"Ann@{kept.n}.TEST") == kept.ann
    assert await kept.server.owner(f"nobody+x/y@{kept.n}.test") is None


async def test_the_addresses_of_everybody(kept: Kept) -> None:
    await kept.add(kept.ann, f"a1@{kept.n}.test", f"a2@{kept.n}.test")
    for number in range(5):
        await kept.add(f"p{number}{kept.n}", f"p{number}@{kept.n}.test")
    if Attribute.EMAILS not in kept.server.in_pages:
        with pytest.raises(NotImplementedError):
            kept.server.emails()
        return
    found: dict[str, list[str]] = {}
    async for page in kept.server.emails():
        for name, addresses in page.items():
            found.setdefault(name, []).extend(addresses)
    assert found == {
        kept.ann: [f"a1@{kept.n}.test", f"a2@{kept.n}.test"],
        **{f"p{number}{kept.n}": [f"p{number}@{kept.n}.test"] for number in range(5)},
    }


# Writing


async def test_a_display_name(kept: Kept) -> None:
    await kept.add(kept.ann, f"ann@{kept.n}.test", display_name="Ann")
    kept.forget()
    await kept.writer.set_display_name(kept.ann, "Ann")
    assert kept.writes == []
    await kept.writer.set_display_name(kept.ann, "Ann Lee")
    assert await kept.displayed(kept.ann) == "Ann Lee"
    assert (await kept.account(kept.ann)).emails == (f"ann@{kept.n}.test",)


async def test_addresses(kept: Kept) -> None:
    await kept.add(kept.ann, f"old@{kept.n}.test", f"stays@{kept.n}.test")
    kept.forget()
    await kept.writer.set_emails(kept.ann, [f"STAYS@{kept.n}.test", f"old@{kept.n}.test"])
    assert kept.writes == []
    await kept.writer.set_emails(kept.ann, [f"New@{kept.n}.test", f"stays@{kept.n}.test"])
    assert [address.casefold() for address in await kept.emails(kept.ann)] == [
        f"new@{kept.n}.test",
        f"stays@{kept.n}.test",
    ]
    await kept.writer.set_emails(kept.ann, [])
    assert await kept.emails(kept.ann) == []
    await kept.writer.set_emails(kept.ann, [f"old@{kept.n}.test"])
    assert (await kept.account(kept.ann)).emails == (f"old@{kept.n}.test",)


async def test_an_address_of_another_account(kept: Kept) -> None:
    await kept.add(kept.ann, f"ann@{kept.n}.test")
    await kept.add(kept.ben, f"shared@{kept.n}.test")
    kept.forget()
    with pytest.raises(HomeserverRefused) as caught:
        await kept.writer.set_emails(kept.ann, [f"Shared@{kept.n}.test", f"new@{kept.n}.test"])
    for said in (
        kept.homeserver.mxid(kept.ann),
        kept.homeserver.mxid(kept.ben),
        f"Shared@{kept.n}.test".casefold(),
    ):
        assert said in caught.value.message.casefold()
    assert caught.value.remedy
    assert kept.writes == []
    assert await kept.emails(kept.ann) == [f"ann@{kept.n}.test"]
    assert await kept.emails(kept.ben) == [f"shared@{kept.n}.test"]


async def test_locking(kept: Kept) -> None:
    await kept.add(kept.ann, f"ann@{kept.n}.test", display_name="Ann")
    await kept.writer.lock(kept.ann)
    kept.forget()
    await kept.writer.lock(kept.ann)
    assert kept.writes == []
    locked = await kept.account(kept.ann)
    assert locked == Account(kept.ann, display_name="Ann", emails=(f"ann@{kept.n}.test",), locked=True)
    # The name of somebody who is locked can be set right too.
    await kept.writer.set_display_name(kept.ann, "Ann Lee")
    await kept.writer.unlock(kept.ann)
    kept.forget()
    await kept.writer.unlock(kept.ann)
    assert kept.writes == []
    assert await kept.account(kept.ann) == Account(
        kept.ann, display_name="Ann Lee", emails=(f"ann@{kept.n}.test",)
    )


async def test_erasing(kept: Kept) -> None:
    await kept.add(kept.ann, f"ann@{kept.n}.test", display_name="Ann")
    await kept.writer.lock(kept.ann)
    await kept.writer.erase(kept.ann)
    found = await kept.account(kept.ann)
    assert (found.deactivated, found.emails) == (True, ())
    if kept.mas is not None:
        assert kept.mas.user(kept.ann).erased
    else:
        assert found.display_name is None
    kept.forget()
    await kept.writer.erase(kept.ann)
    # MAS does not tell who was erased, so it is asked once more.
    assert len(kept.writes) == (0 if kept.mas is None else 1)


async def test_one_deactivated_by_hand_is_erased_too(kept: Kept) -> None:
    await kept.add(kept.ann, f"ann@{kept.n}.test", display_name="Ann")
    await kept.deactivate(kept.ann)
    assert not await kept.is_erased(kept.ann)
    await kept.writer.erase(kept.ann)
    assert await kept.is_erased(kept.ann)


@pytest.mark.parametrize("change", ["set_display_name", "set_emails", "lock", "unlock", "erase"])
async def test_a_missing_account_is_never_made(kept: Kept, change: str) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "set_display_name": ("No Body",),
        "set_emails": (["nobody@example.test"],),
    }
    write: Callable[..., Awaitable[None]] = getattr(kept.writer, change)
    with pytest.raises(HomeserverRefused) as caught:
        await write("nobody", *arguments.get(change, ()))
    assert caught.value.status == 404
    assert kept.homeserver.mxid("nobody") in caught.value.message
    assert not await kept.has_account("nobody")
    assert kept.writes == []


# Bad days


async def test_lost_answers(kept: Kept) -> None:
    """Each write whose answer is lost is sent again, and comes out the same."""
    await kept.add(kept.ann, f"old@{kept.n}.test")
    kept.proxy.lose_answers(lambda asked: asked.is_write and not asked.path.endswith("/oauth2/token"), 1)
    await kept.writer.set_emails(kept.ann, [f"new@{kept.n}.test"])
    assert await kept.emails(kept.ann) == [f"new@{kept.n}.test"]
    kept.proxy.lose_answers(lambda asked: asked.method == "DELETE" or "threepids" in str(asked.body), 1)
    await kept.writer.set_emails(kept.ann, [])
    assert await kept.emails(kept.ann) == []
    for write in (kept.writer.lock, kept.writer.unlock, kept.writer.erase):
        kept.proxy.lose_answers(times=1)
        await write(kept.ann)
    assert (await kept.account(kept.ann)).deactivated


async def test_limits_and_failures_pass(kept: Kept) -> None:
    await kept.add(kept.ann)
    kept.proxy.limit(times=1)
    kept.proxy.fail(times=1, status=502)
    await kept.writer.lock(kept.ann)
    assert (await kept.account(kept.ann)).locked


async def test_a_server_that_stays_away(kept: Kept) -> None:
    await kept.add(kept.ann)
    await kept.account(kept.ann)
    kept.proxy.fail(times=None, status=503)
    with pytest.raises(HomeserverUnavailable) as caught:
        await listed(kept)
    assert "503" in caught.value.message
    assert caught.value.remedy
    kept.proxy.behave()
    kept.proxy.lose_requests(every_write, times=None)
    with pytest.raises(HomeserverUnavailable) as caught:
        await kept.writer.lock(kept.ann)
    assert caught.value.maybe_done


async def test_refused_for_one_only(kept: Kept) -> None:
    await kept.add(kept.ann)
    await kept.add(kept.ben)
    if kept.mas is not None:
        kept.mas.refuses = {kept.ann}
    else:
        kept.proxy.fail(
            lambda asked: asked.is_write and f"@{kept.ann}:" in asked.path,
            times=None,
            status=403,
            errcode="M_FORBIDDEN",
        )
    with pytest.raises(HomeserverRefused) as caught:
        await kept.writer.lock(kept.ann)
    assert caught.value.status == 403
    assert caught.value.remedy
    await kept.writer.lock(kept.ben)
    assert not (await kept.account(kept.ann)).locked
    assert (await kept.account(kept.ben)).locked


async def test_many_at_once(kept: Kept) -> None:
    for number in range(10):
        await kept.add(f"p{number}{kept.n}")
    await asyncio.gather(*(kept.writer.lock(f"p{number}{kept.n}") for number in range(10)))
    assert sum(account.locked for account in (await listed(kept)).values()) == 10


async def test_whether_we_may(kept: Kept) -> None:
    await kept.server.permitted()
    if kept.mas is not None:
        kept.mas.is_admin_client = False
        kept.mas.expire_tokens()
        remedy = "admin_clients"
    else:
        kept.proxy.fail(times=None, status=403, errcode="M_FORBIDDEN")
        remedy = "homeserver.admin_user"
    with pytest.raises(HomeserverRefused) as caught:
        await kept.server.permitted()
    assert caught.value.status == 403
    assert remedy in caught.value.remedy


# Making accounts


async def test_an_account_is_made_once(kept: Kept) -> None:
    assert await kept.registrar.find(kept.ann) is None
    assert await kept.registrar.register(kept.ann) is True
    assert await kept.has_account(kept.ann)
    found = await kept.registrar.find(kept.ann)
    assert found is not None
    assert (found.localpart, found.locked, found.deactivated, found.admin) == (kept.ann, False, False, False)
    kept.forget()
    assert await kept.registrar.register(kept.ann) is False
    assert await kept.registrar.find(kept.ann) == found
    assert len(kept.writes) == 1


async def test_a_name_is_not_given_again_after_a_deactivation(kept: Kept) -> None:
    await kept.add(kept.ann)
    await kept.deactivate(kept.ann)
    assert await kept.registrar.register(kept.ann) is False
    found = await kept.registrar.find(kept.ann)
    assert found is not None
    assert found.deactivated


async def test_a_server_that_is_away_makes_no_account_and_says_nothing_of_names(kept: Kept) -> None:
    kept.proxy.fail(times=None, status=503)
    with pytest.raises(HomeserverUnavailable):
        await kept.registrar.register(kept.ann)
    with pytest.raises(HomeserverUnavailable):
        await kept.registrar.find(kept.ann)
    assert not await kept.has_account(kept.ann)


async def test_a_registration_whose_answer_was_lost_is_found_done(kept: Kept) -> None:
    """It is sent again, and the second time the name is in use: by the account that we made."""
    kept.proxy.lose_answers(is_registration)
    assert await kept.registrar.register(kept.ann) is False
    found = await kept.registrar.find(kept.ann)
    assert found is not None
    assert not found.deactivated


def is_registration(request: Request) -> bool:
    return request.is_write and request.path.endswith(("/register", "/users"))


async def test_an_account_that_mas_does_not_know_can_not_be_seen(
    homeserver: Homeserver, new_mas: NewMas
) -> None:
    mas = await new_mas()
    mas.reserved.add("ghost")
    ours = settings(homeserver, auth="mas", mas=mas.credentials)
    async with open_writer(ours, IMPATIENT) as opened:
        assert opened.registrar is not None
        assert await opened.registrar.register("ghost") is False
        assert await opened.registrar.find("ghost") is None
        with pytest.raises(HomeserverRefused) as caught:
            await opened.registrar.register("No Name")
    assert caught.value.status == 400


async def test_where_we_see_no_accounts_people_are_asked_for(homeserver: Homeserver) -> None:
    name = f"dan{secrets.token_hex(3)}"
    async with open_writer(settings(homeserver), IMPATIENT) as opened:
        assert opened.registrar is not None
        assert await opened.registrar.find(name) is None
        assert await opened.registrar.register(name) is True
        assert await opened.registrar.find(name) == Account(name)


async def test_making_accounts_takes_the_actor(homeserver: Homeserver) -> None:
    """The listener's namespaces hold nobody but the bot."""
    name = f"dan{secrets.token_hex(3)}"
    async with open_writer(settings(homeserver, actor_token=None), IMPATIENT) as opened:
        assert opened.registrar is not None
        with pytest.raises(HomeserverRefused) as caught:
            await opened.registrar.register(name)
    assert caught.value.errcode == "M_EXCLUSIVE"
    assert "actor" in caught.value.remedy
