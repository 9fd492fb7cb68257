"""Whose access token it is, and whether they are an admin: asked at a real Synapse, and at MAS's stand-in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from aim.demo.homeserver import free_port
from aim.errors import HomeserverUnavailable
from aim.matrix.admins import ADMIN_SCOPE, open_admins
from tests.servers.mas import Mas, NewMas
from tests.servers.proxy import NewProxy
from tests.servers.synapse import Homeserver

WHOAMI = "/_matrix/client/v3/account/whoami"


@pytest.fixture
async def mas(new_mas: NewMas) -> Mas:
    return await new_mas()


@asynccontextmanager
async def redirecting(target: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that sends everybody to another one; gives its URL, and what it was asked."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(target + request.path)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_only_the_admins_token_is_one(homeserver: Homeserver) -> None:
    ordinary = await homeserver.server.register("admins.ann", "a-password")
    async with open_admins(homeserver.base_url, homeserver.server_name) as is_admin:
        assert await is_admin(homeserver.admin_token)
        assert not await is_admin(ordinary)
        assert not await is_admin("syt_of_nobody")
        assert not await is_admin(homeserver.as_token), "the bot is no admin"
    async with open_admins(homeserver.base_url, "elsewhere.example.com") as is_admin:
        assert not await is_admin(homeserver.admin_token), "an admin of another server"


async def test_what_can_be_no_token_is_sent_nowhere(homeserver: Homeserver, new_proxy: NewProxy) -> None:
    proxy = await new_proxy(homeserver.base_url)
    async with open_admins(proxy.url, homeserver.server_name) as is_admin:
        for token in ("", "two words", "line\r\nX-Header: 1", "\xfcmlaut"):
            assert not await is_admin(token)
    assert proxy.requests == []


@pytest.mark.parametrize("path", [WHOAMI, "/_synapse/admin/v1/users/"])
async def test_no_usable_answer_is_neither_yes_nor_no(
    homeserver: Homeserver, new_proxy: NewProxy, path: str
) -> None:
    proxy = await new_proxy(homeserver.base_url)
    for status in (302, 404, 500):
        proxy.fail(lambda request: request.path.startswith(path), times=None, status=status)
        async with open_admins(proxy.url, homeserver.server_name) as is_admin:
            with pytest.raises(HomeserverUnavailable) as caught:
                await is_admin(homeserver.admin_token)
        assert homeserver.admin_token not in str(caught.value)
        proxy.behave()


async def test_a_homeserver_that_is_away(homeserver: Homeserver) -> None:
    async with open_admins(f"http://127.0.0.1:{free_port()}", homeserver.server_name) as is_admin:
        with pytest.raises(HomeserverUnavailable):
            await is_admin(homeserver.admin_token)


@pytest.mark.parametrize("by_mas", [False, True])
async def test_a_redirect_takes_no_token_along(
    homeserver: Homeserver, new_proxy: NewProxy, mas: Mas, by_mas: bool
) -> None:
    other = await new_proxy(mas.url if by_mas else homeserver.base_url)
    async with redirecting(other.url) as (url, asked):
        credentials = replace(mas.credentials, url=url) if by_mas else None
        async with open_admins(url, homeserver.server_name, credentials) as is_admin:
            with pytest.raises(HomeserverUnavailable):
                await is_admin(homeserver.admin_token)
    assert (len(asked), other.requests) == (1, [])


@pytest.mark.parametrize("in_form", [False, True])
async def test_mas_tells_what_a_token_may_do(mas: Mas, in_form: bool) -> None:
    mas.in_form = in_form
    mas.scopes = {
        "mat_admin": f"urn:matrix:org.matrix.msc2967.client:api:* {ADMIN_SCOPE}",
        "mat_user": "urn:matrix:org.matrix.msc2967.client:api:*",
        "mat_like": f"x{ADMIN_SCOPE}x",
    }
    async with open_admins("http://unused", "example.com", mas.credentials) as is_admin:
        found = {token: await is_admin(token) for token in (*mas.scopes, "mat_ended", "b\xe4d")}
    assert found == {
        "mat_admin": True,
        "mat_user": False,
        "mat_like": False,
        "mat_ended": False,
        "b\xe4d": False,
    }
    assert {asked.path for asked in mas.asked} == {"/oauth2/introspect"}, "no admin API, no token of ours"


async def test_many_at_once_find_out_how_mas_knows_our_client(mas: Mas) -> None:
    """Each asks in the wrong way first; the one that was right meanwhile is left alone."""
    mas.in_form = True
    mas.scopes = {"mat_admin": ADMIN_SCOPE}
    async with open_admins("http://unused", "example.com", mas.credentials) as is_admin:
        assert await asyncio.gather(*(is_admin("mat_admin") for _ in range(8))) == [True] * 8


@pytest.mark.parametrize("status", [401, 403])
async def test_a_client_that_may_not_ask_is_said_once(
    mas: Mas, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    mas.scopes["mat_admin"] = ADMIN_SCOPE
    credentials = mas.credentials
    if status == 401:
        credentials = replace(credentials, client_secret="another")
    else:
        mas.may_introspect = False
    with caplog.at_level(logging.DEBUG):
        async with open_admins("http://unused", "example.com", credentials) as is_admin:
            assert [await is_admin("mat_admin") for _ in range(3)] == [False] * 3
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert (str(status) in line, "introspect" in line) == (True, True)
    assert "mat_admin" not in caplog.text
    assert credentials.client_secret not in caplog.text


async def test_mas_that_is_away_or_is_something_else(mas: Mas, homeserver: Homeserver) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", homeserver.base_url):
        async with open_admins("http://unused", "example.com", replace(mas.credentials, url=url)) as is_admin:
            with pytest.raises(HomeserverUnavailable) as caught:
                await is_admin("mat_admin")
        assert "mat_admin" not in str(caught.value)
