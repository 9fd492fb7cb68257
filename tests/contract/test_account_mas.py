"""Tokens, failures and pages of the Matrix Authentication Service's admin API, on the stand-in."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from aim.demo.homeserver import free_port
from aim.directory.roster import Roster
from aim.errors import ConfigError, HomeserverRefused, HomeserverUnavailable
from aim.matrix.account_server import Attribute
from aim.matrix.book import Book, BookedWriter, Keeping
from aim.matrix.client import open_reader, open_writer
from aim.matrix.mas_transport import Credentials, MasTransport, open_mas
from aim.matrix.retrying import Retries
from tests.contract.test_matrix_homeserver import IMPATIENT, settings
from tests.servers.mas import Mas, NewMas
from tests.servers.proxy import NewProxy
from tests.servers.synapse import Homeserver

USERS = "api/admin/v1/users"
ONE = {"page[first]": "1", "count": "false"}
KEEPING = Keeping(attributes=frozenset(Attribute), verify_interval=timedelta(days=1))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def mas(new_mas: NewMas) -> Mas:
    return await new_mas()


@asynccontextmanager
async def opened(
    credentials: Credentials, clock: Clock | None = None, tries: int = 3
) -> AsyncIterator[MasTransport]:
    async with open_mas(
        credentials, retries=Retries(tries=tries, first=0.01), clock=clock or Clock()
    ) as transport:
        yield transport


# Tokens


async def test_one_token_serves_until_shortly_before_its_end(mas: Mas) -> None:
    clock = Clock()
    async with opened(mas.credentials, clock) as transport:
        for _ in range(3):
            await transport.get(USERS, ONE)
        assert mas.grants == 1
        clock.seconds += 260
        await transport.get(USERS, ONE)
        assert mas.grants == 1
        clock.seconds += 20
        await transport.get(USERS, ONE)
        assert mas.grants == 2, "30 s before the end"
    assert all(asked.status == 200 for asked in mas.asked)


async def test_a_token_that_ended_in_the_middle(mas: Mas) -> None:
    mas.add("ann")
    async with opened(mas.credentials) as transport:
        await transport.get(USERS, ONE)
        mas.expire_tokens()
        await transport.post(f"{USERS}/{mas.user('ann').id}/lock")
    assert mas.user("ann").locked
    assert [asked.status for asked in mas.asked] == [200, 200, 401, 200, 200]


async def test_a_token_that_is_never_good_is_not_renewed_for_ever(mas: Mas, new_proxy: NewProxy) -> None:
    proxy = await new_proxy(mas.url)
    proxy.fail(lambda asked: not asked.is_write, times=None, status=401)
    async with opened(replace(mas.credentials, url=proxy.url)) as transport:
        with pytest.raises(HomeserverRefused):
            await transport.get(USERS, ONE)
    assert mas.grants == 2


async def test_a_client_whose_secret_goes_into_the_form(mas: Mas) -> None:
    mas.in_form = True
    async with opened(mas.credentials) as transport:
        await transport.get(USERS, ONE)
        assert mas.grants == 2
        mas.expire_tokens()
        await transport.get(USERS, ONE)
        assert mas.grants == 3, "remembered"


async def test_wrong_credentials(mas: Mas) -> None:
    async with opened(replace(mas.credentials, client_secret="not-the-secret")) as transport:
        with pytest.raises(HomeserverRefused) as caught:
            await transport.get(USERS, ONE)
    assert caught.value.status == 401
    assert "invalid_client" in caught.value.message
    assert "homeserver.mas.client_secret" in caught.value.remedy
    assert "not-the-secret" not in caught.value.message + caught.value.remedy


async def test_a_client_that_is_no_admin(mas: Mas) -> None:
    mas.is_admin_client = False
    async with opened(mas.credentials) as transport:
        with pytest.raises(HomeserverRefused) as caught:
            await transport.get(USERS, ONE)
    assert "policy.data.admin_clients" in caught.value.remedy


# Failures


async def test_nobody_there() -> None:
    async with opened(Credentials(f"http://127.0.0.1:{free_port()}", "id", "secret")) as transport:
        with pytest.raises(HomeserverUnavailable) as caught:
            await transport.get(USERS, ONE)
    assert "no connection" in caught.value.message
    assert "homeserver.mas.url" in caught.value.remedy
    assert not caught.value.maybe_done


async def test_something_else_there(homeserver: Homeserver, mas: Mas) -> None:
    async with opened(replace(mas.credentials, url=homeserver.base_url)) as transport:
        with pytest.raises(HomeserverRefused) as caught:
            await transport.get(USERS, ONE)
    assert "homeserver.mas.url" in caught.value.remedy


@pytest.mark.parametrize("url", ["ftp://example.test", "example.test", "http://a:b@example.test", "http://"])
async def test_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"homeserver\.mas\.url"):
        async with opened(Credentials(url, "id", "secret")):
            pass


async def test_secrets_are_never_said(
    mas: Mas, new_proxy: NewProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mas.add("ann", "private@example.test")
    proxy = await new_proxy(mas.url)
    said = [repr(mas.credentials)]
    proxy.fail(times=1, status=502, error=f"what you sent was {mas.client_secret}")
    async with opened(replace(mas.credentials, url=proxy.url)) as transport:
        await transport.get("api/admin/v1/user-emails", {"filter[email]": "private@example.test"})
        proxy.fail(times=None, status=500)
        with pytest.raises(HomeserverUnavailable) as caught:
            await transport.get("api/admin/v1/user-emails", {"filter[email]": "private@example.test"})
    said += [caught.value.message, caught.value.remedy]
    said += [record.getMessage() for record in caplog.records if record.name != "asyncio"]
    assert [line for line in said if "trying again" in line]
    for secret in (mas.client_secret, "private@example.test", "mat_"):
        assert not [line for line in said if secret in line]


async def test_the_stand_in_takes_nothing_on_trust(new_mas: NewMas) -> None:
    mas = await new_mas()
    ann = mas.add("ann")
    async with opened(mas.credentials) as transport:
        await transport.get(USERS, ONE)
    token = next(iter(mas._tokens))
    base, headers = f"{mas.url}/api/admin/v1", {"Authorization": f"Bearer {token}"}
    wrong = [
        ("GET", f"{base}/user-sessions", None),
        ("PUT", f"{base}/users/{ann.id}", None),
        ("GET", f"{base}/users?page[first]=none", None),
        ("GET", f"{base}/users?page[first]=0", None),
        ("GET", f"{base}/users?limit=5", None),
        ("GET", f"{base}/users?count=maybe", None),
        ("GET", f"{base}/users?count=true&count=true", None),
        ("GET", f"{base}/users/ann", None),
        ("POST", f"{base}/users/{ann.id}/lock", {"really": True}),
        ("POST", f"{base}/users/{ann.id}/deactivate", {"erase": True}),
        ("POST", f"{base}/user-emails", None),
        ("POST", f"{base}/user-emails", {"user_id": "ann", "email": "a@example.test"}),
        ("POST", f"{base}/user-emails", {"user_id": ann.id}),
    ]
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        for method, url, body in wrong:
            assert (await client.request(method, url, json=body)).status_code == 400, (method, url, body)
    assert len(mas.deviations) == len(wrong)
    mas.deviations.clear()
    assert not mas.user("ann").locked


# Accounts


async def test_no_admin_api_of_synapse_is_ever_asked(
    homeserver: Homeserver, mas: Mas, new_proxy: NewProxy
) -> None:
    await homeserver.register("mas-ann", "mas-ben")
    mas.add("mas-ann", "mas-ann@example.test")
    mas.add("mas-ben")
    mas.add("mas-guest", guest=True)
    proxy = await new_proxy(homeserver.base_url)
    wanted = {"mas-ann": ["mas-ann@example.test"], "mas-ben": ["mas-ben@example.test"], "mas-guest": []}
    ours = settings(homeserver, url=proxy.url, auth="mas", mas=mas.credentials)
    async with open_writer(ours, IMPATIENT) as aim:
        assert aim.accounts is not None
        assert aim.account_writer is not None
        book = Book(aim.accounts, KEEPING, now=lambda: datetime.now(UTC))
        writer = BookedWriter(aim.account_writer, book)
        assert (await book.observe(wanted)).accounts.keys() == {"mas-ann", "mas-ben"}
        await writer.set_display_name("mas-ben", "Ben")
        await writer.set_emails("mas-ben", ["mas-ben@example.test"])
        await writer.lock("mas-ben")
        proxy.forget()
        mas.forget()
        found = await book.observe(wanted)
        assert (proxy.requests, mas.asked) == ([], [])
        ben = found.accounts["mas-ben"]
        assert (ben.display_name, ben.emails, ben.locked) == ("Ben", ("mas-ben@example.test",), True)
        assert await Book(aim.accounts, KEEPING, now=lambda: datetime.now(UTC)).observe(wanted) == found
        await writer.erase("mas-ben")
    assert proxy.requests
    assert not proxy.matching(lambda request: request.path.startswith("/_synapse/"))


async def test_a_book_that_starts_on_what_was_stored_reads_addresses_by_pages(
    homeserver: Homeserver, mas: Mas
) -> None:
    """Their users are named by ids, which are asked for by pages then, not one by one."""
    mas.page_size = 1000
    names = [f"mas-many{number}" for number in range(60)]
    for name in names:
        mas.add(name, f"{name}@example.test")
    async with open_reader(settings(homeserver, auth="mas", mas=mas.credentials), IMPATIENT) as aim:
        assert aim.accounts is not None
        found: dict[str, Sequence[str]] = {}
        async for page in aim.accounts.emails():
            found.update(page)
    assert found.keys() == set(names)
    assert len(mas.asked) == 3, "a token, users, addresses"


async def test_an_account_that_the_homeserver_does_not_know_yet(homeserver: Homeserver, mas: Mas) -> None:
    mas.add("mas-not-yet", "not-yet@example.test")
    async with open_writer(settings(homeserver, auth="mas", mas=mas.credentials), IMPATIENT) as aim:
        assert aim.accounts is not None
        assert aim.account_writer is not None
        found = await aim.accounts.account("mas-not-yet", frozenset(Attribute))
        assert found is not None
        assert (found.display_name, found.emails) == (None, ("not-yet@example.test",))
        with pytest.raises(HomeserverRefused):
            await aim.account_writer.set_display_name("mas-not-yet", "Not Yet")


async def test_without_its_settings_there_are_no_accounts(homeserver: Homeserver) -> None:
    async with open_writer(settings(homeserver, auth="mas")) as aim:
        assert (aim.accounts, aim.account_writer) == (None, None)


# Who has an account


async def test_accounts_are_found_by_its_list_and_nobody_is_asked_for(
    mas: Mas, homeserver: Homeserver, new_proxy: NewProxy
) -> None:
    """With `auth: mas` new accounts take one small request, not one for each person."""
    proxy = await new_proxy(homeserver.base_url)
    mas.add("ann")
    mas.add("ben")
    here = settings(homeserver, url=proxy.url, auth="mas", mas=mas.credentials)
    async with open_reader(here, IMPATIENT) as opened:
        observed = await opened.reader.observe(roster := Roster(), ["ann", "ben", "cleo"], {})
        assert roster.localparts(observed.accounts) == ["ann", "ben"]
    assert not [request for request in proxy.requests if "user_id" in request.query]
    assert [one for one in mas.asked if one.path.endswith("/users")]
