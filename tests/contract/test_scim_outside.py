"""The SCIM service called by its public URL: what can stand in between, and what is said of it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from aim.bridges.scim import outside
from aim.bridges.scim.outside import try_outside
from aim.check.scim import reading_token
from aim.config.sources import ScimSource
from aim.demo.homeserver import free_port
from aim.errors import AimError, SourceInvalid, SourceUnavailable
from tests.contract.test_scim_server import serving
from tests.servers.certificates import Certificates
from tests.unit.scim_client import TOKEN
from tests.unit.scim_store import MemoryScim

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONFIG = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"]}
LIST = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": 1}


@asynccontextmanager
async def answering(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that stands where aim should be; gives its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _trouble(url: str, token: str | None = TOKEN) -> AimError:
    with pytest.raises((SourceInvalid, SourceUnavailable)) as caught:
        await try_outside(url, token)
    error = caught.value
    assert error.remedy
    assert TOKEN not in error.message + error.remedy
    return error


async def test_a_service_that_is_there() -> None:
    async with serving(MemoryScim()) as url:
        assert "a token is accepted" in await try_outside(url, TOKEN)
        assert "no token was tried" in await try_outside(url, None)


async def test_a_wrong_prefix_and_a_token_that_is_not_known() -> None:
    async with serving(MemoryScim()) as url:
        for wrong, message in ((f"{url}/v2", "aim answers, but"), (url.removesuffix("/scim"), "(404)")):
            error = await _trouble(wrong)
            assert (message in error.message, "source.base_url" in error.remedy) == (True, True)
        error = await _trouble(url, "another")
        assert ("401" in error.message, "Authorization" in error.remedy) == (True, True)


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (401, "asks for a login", "as they are"),
        (403, "asks for a login", "as they are"),
        (404, "is not there", "source.base_url"),
        (418, "answers 418", "pass on"),
        (500, "answers 500", "pass on"),
        (502, "does not reach aim", "source.port"),
        (503, "does not reach aim", "source.port"),
    ],
)
async def test_what_stands_in_front(status: int, message: str, remedy: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<h1>no</h1>", content_type="text/html")

    async with answering(answer) as url:
        error = await _trouble(url)
    assert (message in error.message, remedy in error.remedy) == (True, True), error.message


async def test_a_web_page_and_another_service() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<h1>Welcome</h1>", content_type="text/html")

    async def other(_: web.Request) -> web.Response:
        return web.json_response({"versions": ["v1.11"]})

    async def list_(_: web.Request) -> web.Response:
        return web.json_response([])

    async with answering(page) as url:
        assert "text/html" in (await _trouble(url)).message
    for one in (other, list_):
        async with answering(one) as url:
            assert "another one" in (await _trouble(url)).message


async def test_no_redirect_is_followed() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path.startswith("/elsewhere"):
            return web.json_response(CONFIG)
        raise web.HTTPFound(f"/elsewhere{request.path}")

    async with answering(answer) as url:
        error = await _trouble(url)
    assert ("redirects to /elsewhere" in error.message, asked) == (True, ["/ServiceProviderConfig"])


async def test_a_filter_that_gets_lost() -> None:
    asked: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization"))
        return web.json_response(CONFIG if request.path.endswith("Config") else LIST)

    async with answering(answer) as url:
        assert "the filter does not arrive" in (await _trouble(url)).message
    assert asked == [None, f"Bearer {TOKEN}"]


async def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    error = await _trouble(url)
    assert isinstance(error, SourceUnavailable)
    assert error.message.startswith(f"no answer from {url}")


async def test_a_certificate_that_nobody_trusts(certificates: Certificates) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(CONFIG)

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.server("127.0.0.1").both)
    async with answering(answer, tls) as url:
        error = await _trouble(url)
    assert error.message.startswith("no TLS connection to 127.0.0.1: ")
    assert "authority" in error.remedy


async def test_a_name_that_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await _trouble("https://aim.example.com/scim")
    assert error.message == "the name aim.example.com is not known here"


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await released.wait()
        return web.json_response(CONFIG)

    monkeypatch.setattr(outside, "_PATIENCE", 0.2)
    async with answering(answer) as url:
        error = await _trouble(url)
        released.set()
    assert "does not answer within 0.2 s" in error.message


def test_the_token_that_is_tried_may_read_users() -> None:
    def source(**client: object) -> ScimSource:
        return ScimSource.model_validate({"type": "scim", "client": {"id": "idp", **client}})

    assert reading_token(source(token="all")) == "all"
    grants = [
        {"synapse_user": "admin", "roles": ["*:*"]},
        {"token": "groups", "roles": ["*:groups", "write:users"]},
        {"token": "reader", "roles": ["read:users"]},
    ]
    assert reading_token(source(rbac=grants)) == "reader"
    assert reading_token(source(rbac=grants[:2])) is None
