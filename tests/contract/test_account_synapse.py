"""What Synapse's admin API does with accounts, as far as `aim/matrix/synapse.py` relies on it, and as
`docs/homeserver.md` says."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from aim.errors import HomeserverRefused
from aim.matrix.account_server import Attribute
from aim.matrix.book import Book, BookedWriter, Keeping
from aim.matrix.client import open_reader, open_writer
from tests.contract.test_matrix_homeserver import IMPATIENT, settings
from tests.e2e.kit import until
from tests.servers.proxy import NewProxy, Proxy
from tests.servers.synapse import Homeserver, Json

USERS = "/_synapse/admin/v3/users"


@pytest.fixture
async def proxy(homeserver: Homeserver, new_proxy: NewProxy) -> Proxy:
    return await new_proxy(homeserver.base_url)


def unique(name: str) -> str:
    return f"{name}{secrets.token_hex(3)}"


def path(homeserver: Homeserver, localpart: str, prefix: str = "/_synapse/admin/v2/users/") -> str:
    return prefix + quote(homeserver.mxid(localpart), safe="")


async def user(homeserver: Homeserver, localpart: str) -> Json:
    return await homeserver.as_admin("GET", path(homeserver, localpart))


async def put(homeserver: Homeserver, localpart: str, body: Mapping[str, object]) -> Json:
    return await homeserver.as_admin("PUT", path(homeserver, localpart), body)


async def names(homeserver: Homeserver, query: str, among: set[str]) -> set[str]:
    answer = await homeserver.as_admin("GET", f"{USERS}?limit=1000{query}")
    return {each["name"][1:].partition(":")[0] for each in answer["users"]} & among


def email(address: str) -> dict[str, str]:
    return {"medium": "email", "address": address}


async def test_what_the_list_holds(homeserver: Homeserver) -> None:
    """v3: `deactivated` chooses one kind, left out it is both; locked ones have to be asked for."""
    ann, ben, eve = unique("ann"), unique("ben"), unique("eve")
    everybody = {ann, ben, eve}
    await homeserver.register(*everybody)
    await put(homeserver, ann, {"displayname": "Ann Lee", "threepids": [email(f"{ann}@example.test")]})
    await put(homeserver, ben, {"locked": True})
    await homeserver.as_admin(
        "POST", path(homeserver, eve, "/_synapse/admin/v1/deactivate/"), {"erase": True}
    )
    assert await names(homeserver, "", everybody) == {ann, eve}
    assert await names(homeserver, "&locked=true", everybody) == everybody
    assert await names(homeserver, "&locked=true&deactivated=true", everybody) == {eve}
    assert await names(homeserver, "&locked=true&deactivated=false", everybody) == {ann, ben}
    answer = await homeserver.as_admin("GET", f"{USERS}?limit=1000&locked=true")
    rows = {each["name"]: each for each in answer["users"]}
    row = rows[homeserver.mxid(ann)]
    assert (row["displayname"], row["locked"], row["deactivated"], row["erased"], row["admin"]) == (
        "Ann Lee",
        False,
        False,
        False,
        False,
    )
    assert rows[homeserver.mxid(ben)]["locked"] is True
    row = rows[homeserver.mxid(eve)]
    assert (row["deactivated"], row["erased"], row["displayname"]) == (True, True, None)
    assert rows[homeserver.admin]["admin"] is True
    assert not any("threepids" in each for each in answer["users"])


async def test_an_address_is_taken_from_whoever_has_it(homeserver: Homeserver) -> None:
    """Without a word: so the writer asks first."""
    ann, ben = unique("ann"), unique("ben")
    await homeserver.register(ann, ben)
    address = f"{ann}@example.test"
    await put(homeserver, ann, {"threepids": [email(address)]})
    await put(homeserver, ben, {"threepids": [email(address.upper())]})
    assert (await user(homeserver, ann))["threepids"] == []
    [kept] = (await user(homeserver, ben))["threepids"]
    assert kept["address"] == address, "addresses are kept in lower case"
    owner = "/_synapse/admin/v1/threepid/email/users/"
    assert (await homeserver.as_admin("GET", owner + address))["user_id"] == homeserver.mxid(ben)
    with pytest.raises(HomeserverRefused) as caught:
        await homeserver.as_admin("GET", owner + address.upper())
    assert (caught.value.status, caught.value.errcode) == (404, "M_NOT_FOUND")


async def test_other_third_party_ids_stay(homeserver: Homeserver) -> None:
    ann = unique("ann")
    await homeserver.register(ann)
    phone = {"medium": "msisdn", "address": "4915112345678"}
    await put(homeserver, ann, {"threepids": [phone, email(f"{ann}@example.test")]})
    async with open_writer(settings(homeserver, admin_user="root")) as opened:
        assert opened.account_writer is not None
        await opened.account_writer.set_emails(ann, [f"new-{ann}@example.test"])
    found = {(each["medium"], each["address"]) for each in (await user(homeserver, ann))["threepids"]}
    assert found == {("msisdn", phone["address"]), ("email", f"new-{ann}@example.test")}


async def test_an_erased_account_leaves_its_rooms_although_it_is_locked(homeserver: Homeserver) -> None:
    ann, ben = unique("ann"), unique("ben")
    await homeserver.register(ann, ben)
    room_id = await homeserver.client(ben).create_room(preset="public_chat")
    await homeserver.client(ann).join(room_id)
    async with open_writer(settings(homeserver, admin_user="root")) as opened:
        assert opened.account_writer is not None
        await opened.account_writer.lock(ann)
        assert homeserver.mxid(ann) in await homeserver.members(room_id, "join")
        await opened.account_writer.erase(ann)
    found = await user(homeserver, ann)
    assert (found["deactivated"], found["erased"], found["locked"]) == (True, True, True)

    async def left() -> bool:
        return homeserver.mxid(ann) not in await homeserver.members(room_id, "join")

    await until(left, "the erased account leaves")


async def test_one_deactivated_without_erasing_is_erased(homeserver: Homeserver) -> None:
    """The PUT deactivates and never erases."""
    ann = unique("ann")
    await homeserver.register(ann)
    await put(homeserver, ann, {"deactivated": True})
    assert (await user(homeserver, ann))["erased"] is False
    async with open_writer(settings(homeserver, admin_user="root")) as opened:
        assert opened.account_writer is not None
        await opened.account_writer.erase(ann)
    assert (await user(homeserver, ann))["erased"] is True


async def test_without_admin_rights_the_book_says_what_to_do(homeserver: Homeserver) -> None:
    keeping = Keeping(attributes=frozenset(Attribute), verify_interval=timedelta(days=1))
    async with open_reader(settings(homeserver)) as opened:
        assert opened.accounts is not None
        found = await Book(opened.accounts, keeping, now=lambda: datetime.now(UTC)).observe({"ann": ()})
    assert "403" in found.refused
    assert "homeserver.admin_user" in found.refused
    assert found.accounts == {}


async def test_an_older_list(homeserver: Homeserver, proxy: Proxy) -> None:
    """Without v3 the list of v2 gives the same."""
    ann, eve = unique("ann"), unique("eve")
    await homeserver.register(ann, eve)
    async with open_writer(settings(homeserver, url=proxy.url, admin_user="root"), IMPATIENT) as opened:
        assert opened.account_writer is not None
        assert opened.accounts is not None
        await opened.account_writer.lock(ann)
        await opened.account_writer.erase(eve)
        proxy.fail(lambda request: request.path == USERS, times=None, status=404, errcode="M_UNRECOGNIZED")
        found = {each.localpart: each async for page in opened.accounts.accounts() for each in page}
        gone = {each.localpart async for page in opened.accounts.deactivated() for each in page}
    assert (found[ann].locked, found[ann].deactivated) == (True, False)
    assert found[eve].deactivated
    assert eve in gone
    assert ann not in gone


async def test_a_hidden_admin_api(homeserver: Homeserver, proxy: Proxy) -> None:
    proxy.fail(
        lambda request: request.path.startswith("/_synapse/"),
        times=None,
        status=404,
        errcode="M_UNRECOGNIZED",
    )
    keeping = Keeping(attributes=frozenset(Attribute), verify_interval=timedelta(days=1))
    async with open_writer(settings(homeserver, url=proxy.url, admin_user="root"), IMPATIENT) as opened:
        assert opened.accounts is not None
        assert opened.account_writer is not None
        book = Book(opened.accounts, keeping, now=lambda: datetime.now(UTC))
        assert "/_synapse/admin" in (await book.observe({"ann": ()})).refused
        with pytest.raises(HomeserverRefused):
            await opened.account_writer.lock("ann")
    assert proxy.writes == []


async def test_the_book_on_a_real_homeserver(homeserver: Homeserver, proxy: Proxy) -> None:
    """Once read nothing is asked for, not even after our own changes."""
    ann, ben = unique("ann"), unique("ben")
    await homeserver.register(ann, ben)
    keeping = Keeping(attributes=frozenset(Attribute), verify_interval=timedelta(days=1))
    wanted = {ann: [f"{ann}@example.test"], ben: [f"{ann}@example.test"]}
    async with open_writer(settings(homeserver, url=proxy.url, admin_user="root"), IMPATIENT) as opened:
        assert opened.accounts is not None
        assert opened.account_writer is not None
        book = Book(opened.accounts, keeping, now=lambda: datetime.now(UTC))
        writer = BookedWriter(opened.account_writer, book)
        assert (await book.observe(wanted)).owners == {}
        await writer.set_emails(ann, [f"{ann}@example.test"])
        await writer.set_display_name(ann, "Ann Lee")
        with pytest.raises(HomeserverRefused):
            await writer.set_emails(ben, [f"{ann}@example.test"])
        proxy.forget()
        found = await book.observe(wanted)
        assert found.accounts[ann].display_name == "Ann Lee"
        assert found.owners == {f"{ann}@example.test": ann}
        assert [asked.path for asked in proxy.requests] == [_path_of(homeserver, ben)], "whose change failed"
        proxy.forget()
        await book.observe(wanted)
        assert proxy.requests == []
        fresh = await Book(opened.accounts, keeping, now=lambda: datetime.now(UTC)).observe(wanted)
        assert fresh == found, "what is remembered is what is there"
        joe = unique("joe")
        await homeserver.register(joe)
        assert joe in await book.poll()
        assert joe in book.take_unannounced()


def _path_of(homeserver: Homeserver, localpart: str) -> str:
    return f"/_synapse/admin/v2/users/{homeserver.mxid(localpart)}"


async def test_readers_send_nothing_but_get(homeserver: Homeserver, proxy: Proxy) -> None:
    ann = unique("ann")
    await homeserver.register(ann)
    keeping = Keeping(attributes=frozenset(Attribute), verify_interval=timedelta(days=1))
    async with open_reader(settings(homeserver, url=proxy.url, admin_user="root")) as opened:
        assert opened.accounts is not None
        book = Book(opened.accounts, keeping, now=lambda: datetime.now(UTC))
        await book.observe({ann: [f"{ann}@example.test"]})
        await book.poll()
        assert not hasattr(opened, "account_writer")
    assert len(proxy.requests) >= 3
    assert proxy.matching(lambda request: request.is_write) == []
