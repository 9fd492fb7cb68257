"""Retries, translation of errors, and what must never be seen, against a scripted server on loopback."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from mautrix.api import Path

from aim.demo.homeserver import free_port
from aim.errors import AimError, ConfigError, HomeserverRefused, HomeserverUnavailable
from aim.matrix.retrying import Retries
from aim.matrix.transport import ReadTransport, Transport, open_transport

AS_TOKEN = "listener-5f0c2d"
ACTOR_TOKEN = "actor-77ab31"

Reply = Callable[[web.Request], web.Response]


def ok(request: web.Request) -> web.Response:
    return web.json_response({"fine": True})


def status(code: int, errcode: str = "M_UNKNOWN", error: str = "no", **more: object) -> Reply:
    return lambda request: web.json_response({"errcode": errcode, "error": error, **more}, status=code)


def hang_up(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()


def html(code: int = 200) -> Reply:
    return lambda request: web.Response(status=code, text="<html>", content_type="text/html")


class Server:
    """Answers one reply after the other, the last one for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.replies: list[Reply] = [ok]
        self.seen: list[web.Request] = []
        self.bodies: list[str] = []
        self.waits: list[float] = []
        self.never = asyncio.Event()
        self.two = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        if len(self.seen) == 2:
            self.two.set()
        self.bodies.append(await request.text())
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply is silence:
            await self.never.wait()
        return reply(request)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def open(
        self, actor_token: str | None = ACTOR_TOKEN, read_timeout: float = 30, retries: Retries | None = None
    ) -> AbstractAsyncContextManager[Transport]:
        return open_transport(
            self.url,
            AS_TOKEN,
            actor_token,
            read_timeout=read_timeout,
            retries=retries,
            sleep=self.sleep,
            chance=lambda: 0.0,
        )


def silence(request: web.Request) -> web.Response:
    """No answer before the test ends."""
    return ok(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield server
    server.never.set()
    await runner.cleanup()


async def test_get_gives_the_decoded_answer(server: Server) -> None:
    async with server.open() as transport:
        assert await transport.get(Path.v3.joined_rooms, {"a": "b"}) == {"fine": True}
    request = server.seen[0]
    assert (request.method, request.path, dict(request.query)) == (
        "GET",
        "/_matrix/client/v3/joined_rooms",
        {"a": "b"},
    )


async def test_a_base_path_is_kept_and_ids_are_quoted(server: Server) -> None:
    server.url += "/behind/a/proxy"
    async with server.open() as transport:
        await transport.put(Path.v3.rooms["!a/b:x"].state["m.room.member"]["@ü+=:x"], {"k": "ß"})
    assert server.seen[0].raw_path == (
        "/behind/a/proxy/_matrix/client/v3/rooms/%21a%2Fb%3Ax/state/m.room.member/%40%C3%BC%2B%3D%3Ax"
    )


@pytest.mark.parametrize(
    ("actor_token", "user_id", "token"),
    [
        (ACTOR_TOKEN, None, AS_TOKEN),
        (ACTOR_TOKEN, "@a+b=c:localhost:8448", ACTOR_TOKEN),
        (None, "@ann:example.com", AS_TOKEN),
    ],
)
async def test_the_actor_token_is_for_acting_as_others(
    server: Server, actor_token: str | None, user_id: str | None, token: str
) -> None:
    async with server.open(actor_token) as transport:
        await transport.get(Path.v3.account.whoami, user_id=user_id)
    assert server.seen[0].headers["Authorization"] == f"Bearer {token}"
    assert server.seen[0].query.get("user_id") == user_id


@pytest.mark.parametrize("failure", [status(500), status(502), status(503), html(502)])
async def test_get_is_tried_again_with_growing_waits(server: Server, failure: Reply) -> None:
    server.replies = [failure, failure, failure, ok]
    async with server.open() as transport:
        assert await transport.get(Path.versions) == {"fine": True}
    assert server.waits == [0.25, 0.5, 1.0]


async def test_a_lost_connection_is_tried_again(server: Server) -> None:
    # The HTTP library tries once more by itself before it tells us.
    server.replies = [hang_up, hang_up, ok]
    async with server.open() as transport:
        assert await transport.get(Path.versions) == {"fine": True}
    assert server.waits == [0.25]


async def test_a_time_out_is_tried_again(server: Server) -> None:
    server.replies = [silence, ok]
    async with server.open(read_timeout=0.05) as transport:
        assert await transport.get(Path.versions) == {"fine": True}
    assert len(server.waits) == 1


async def test_tries_have_an_end(server: Server) -> None:
    server.replies = [status(503, error="Overloaded")]
    async with server.open(retries=Retries(tries=3)) as transport:
        with pytest.raises(HomeserverUnavailable, match="503 M_UNKNOWN: Overloaded") as caught:
            await transport.get(Path.versions)
    assert len(server.seen) == 3
    assert not caught.value.maybe_done


async def test_the_homeserver_says_how_long_to_wait(server: Server) -> None:
    server.replies = [
        status(429, "M_LIMIT_EXCEEDED", retry_after_ms=1500),
        lambda request: web.Response(status=429, headers={"Retry-After": "7"}),
        status(429, "M_LIMIT_EXCEEDED", retry_after_ms=10**9),
        status(429, "M_LIMIT_EXCEEDED", retry_after_ms="soon"),
        ok,
    ]
    async with server.open() as transport:
        await transport.put(Path.x, {})
    assert server.waits == [1.5, 7.0, 60.0, 2.0]


async def test_a_limit_that_stays_is_unavailable_with_the_remedy(server: Server) -> None:
    server.replies = [status(429, "M_LIMIT_EXCEEDED", retry_after_ms=1)]
    async with server.open() as transport:
        with pytest.raises(HomeserverUnavailable) as caught:
            await transport.post(Path.x, {}, once=True)
    assert "rate_limited: false" in caught.value.remedy
    assert not caught.value.maybe_done


@pytest.mark.parametrize("failure", [status(500), status(502), html(504), hang_up, html(200), silence])
async def test_once_is_not_tried_again_when_it_may_have_been_done(server: Server, failure: Reply) -> None:
    server.replies = [failure]
    async with server.open(read_timeout=0.2) as transport:
        with pytest.raises(HomeserverUnavailable) as caught:
            await transport.post(Path.v3.createRoom, {}, once=True)
    assert caught.value.maybe_done
    assert len(server.seen) == 1
    assert server.waits == []


async def test_once_is_tried_again_when_it_surely_was_not_done(server: Server) -> None:
    server.replies = [status(429, "M_LIMIT_EXCEEDED", retry_after_ms=1), ok]
    async with server.open() as transport:
        await transport.post(Path.v3.createRoom, {}, once=True)
    assert len(server.seen) == 2


async def test_a_post_that_may_be_repeated_is(server: Server) -> None:
    server.replies = [hang_up, status(500), ok]
    async with server.open() as transport:
        await transport.post(Path.v3.rooms["!a"].invite, {"user_id": "@ann:x"})
    assert server.bodies == ['{"user_id": "@ann:x"}'] * 3


async def test_an_early_lost_answer_is_not_forgotten(server: Server) -> None:
    server.replies = [silence, status(429)]
    async with server.open(read_timeout=0.2) as transport:
        with pytest.raises(HomeserverUnavailable) as caught:
            await transport.put(Path.x, {})
    assert caught.value.maybe_done


@pytest.mark.parametrize("once", [True, False])
async def test_nobody_listens(server: Server, once: bool) -> None:
    server.url = f"http://127.0.0.1:{free_port()}"
    async with server.open() as transport:
        with pytest.raises(HomeserverUnavailable, match=server.url) as caught:
            await transport.post(Path.v3.createRoom, {}, once=once)
    assert not caught.value.maybe_done
    assert len(server.waits) == 5
    assert "homeserver is up" in caught.value.remedy


async def test_no_tls_there(server: Server) -> None:
    server.url = server.url.replace("http:", "https:")
    async with server.open() as transport:
        with pytest.raises(HomeserverUnavailable, match="no TLS connection") as caught:
            await transport.get(Path.versions)
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert server.waits == []


async def test_a_web_page_is_no_homeserver(server: Server) -> None:
    server.replies = [html()]
    async with server.open() as transport:
        with pytest.raises(HomeserverUnavailable, match="not JSON but text/html") as caught:
            await transport.get(Path.versions)
    assert "homeserver.url" in caught.value.remedy
    assert len(server.seen) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, "\xff", "", '{"a": '])
async def test_json_that_is_none(server: Server, text: str) -> None:
    server.replies = [lambda request: web.Response(text=text, content_type="application/json")]
    async with server.open() as transport:
        with pytest.raises(HomeserverUnavailable, match="not JSON"):
            await transport.get(Path.versions)


async def test_a_redirect_is_not_followed(server: Server) -> None:
    server.replies = [
        lambda request: web.Response(status=301, headers={"Location": "https://matrix.example.com/"})
    ]
    async with server.open() as transport:
        with pytest.raises(HomeserverRefused, match=r"redirected to https://matrix\.example\.com/") as caught:
            await transport.put(Path.x, {})
    assert caught.value.status == 301
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("reply", "errcode", "remedy"),
    [
        (status(401, "M_UNKNOWN_TOKEN"), "M_UNKNOWN_TOKEN", "registration"),
        (status(401, "M_MISSING_TOKEN"), "M_MISSING_TOKEN", "Authorization"),
        (status(400, "M_EXCLUSIVE"), "M_EXCLUSIVE", "actor_token"),
        (
            status(403, "M_FORBIDDEN", "Application service cannot masquerade as this user (@ann:x)."),
            "M_EXCLUSIVE",
            "actor_token",
        ),
        (status(403, "M_FORBIDDEN", "Application service has not registered this user"), "M_FORBIDDEN", ""),
        (status(404, "M_UNRECOGNIZED"), "M_UNRECOGNIZED", "too old"),
        (status(413, "M_TOO_LARGE"), "M_TOO_LARGE", "64 KiB"),
        (html(413), None, "64 KiB"),
        (html(404), None, "not a Matrix homeserver"),
    ],
)
async def test_refusals_say_what_to_do(
    server: Server, reply: Reply, errcode: str | None, remedy: str
) -> None:
    server.replies = [reply]
    async with server.open() as transport:
        with pytest.raises(HomeserverRefused, match=r"GET /_matrix/client/v3/a[ :].*as @ann:x") as caught:
            await transport.get(Path.v3.a, user_id="@ann:x")
    assert caught.value.errcode == errcode
    assert remedy in caught.value.remedy
    assert bool(caught.value.remedy) == bool(remedy)
    assert len(server.seen) == 1


async def test_what_the_homeserver_says_stays_on_one_line(server: Server) -> None:
    server.replies = [status(400, "M_BAD_JSON", "bad\x1b[31m\nworse " + "x" * 1000)]
    async with server.open() as transport:
        with pytest.raises(HomeserverRefused) as caught:
            await transport.get(Path.v3.a)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def everything_said(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield f"{error} {error!r} {error.args!r} {vars(error)!r}"
        error = error.__cause__


def echo(request: web.Request) -> web.Response:
    return web.json_response({"error": f"what is {request.headers['Authorization']}?"}, status=400)


def garbage(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.write(b"not HTTP at all\r\n\r\n")
    return hang_up(request)


@pytest.mark.parametrize("reply", [ok, echo, garbage, hang_up, silence, html(), status(401), status(502)])
@pytest.mark.parametrize("user_id", [None, "@ann:example.com"])
async def test_tokens_and_bodies_are_never_seen(
    server: Server, reply: Reply, user_id: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.replies = [reply]
    said: list[str] = []
    async with server.open(read_timeout=0.2, retries=Retries(tries=2)) as transport:
        try:
            await transport.post(Path.v3.register, {"password": "hunter2"}, user_id)
            assert reply is ok
        except AimError as error:
            said += everything_said(error)
        server.replies = [ok]
        await transport.get(Path.versions, user_id=user_id)
        said += [repr(transport), repr(transport.reading())]
    assert server.seen[0].headers["Authorization"].split()[1] in {AS_TOKEN, ACTOR_TOKEN}
    assert caplog.records
    said += [record.getMessage() + repr(vars(record)) for record in caplog.records]
    for secret in (AS_TOKEN, ACTOR_TOKEN, "hunter2"):
        assert not [line for line in said if secret in line]


async def test_readers_cannot_write(server: Server) -> None:
    async with server.open() as transport:
        reading = transport.reading()
        assert [name for name in dir(reading) if not name.startswith("_")] == ["get"]
        assert [name for name in dir(ReadTransport) if not name.startswith("_")] == ["get"]
        await reading.get(Path.v3.a)
    assert [request.method for request in server.seen] == ["GET"]


async def test_at_most_so_many_connections(server: Server) -> None:
    server.replies = [silence]
    async with open_transport(server.url, AS_TOKEN, parallelism=2, retries=Retries(tries=1)) as transport:
        tasks = [asyncio.create_task(transport.get(Path.v3.a)) for _ in range(5)]
        await server.two.wait()
        # Three more would have come with the two, had they been let out.
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(server.seen) == 2
        server.never.set()
        await asyncio.gather(*tasks)
    assert len(server.seen) == 5


@pytest.mark.parametrize(
    "url", ["", "matrix.example.com", "ftp://x", "http://", "https://u:p@x", "http://[1"]
)
async def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"homeserver\.url") as caught:
        async with open_transport(url, AS_TOKEN):
            pass
    assert not url or url not in caught.value.message


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "smørrebrød"])
@pytest.mark.parametrize("which", ["as_token", "actor_token"])
async def test_what_is_no_token(token: str, which: str) -> None:
    if which == "actor_token" and not token:
        token = " "
    tokens = {"as_token": AS_TOKEN, "actor_token": ACTOR_TOKEN, which: token}
    with pytest.raises(ConfigError, match=which) as caught:
        async with open_transport("http://127.0.0.1", tokens["as_token"], tokens["actor_token"]):
            pass
    assert not token.strip() or token not in caught.value.message


@given(
    attempt=st.integers(1, 10_000),
    asked=st.none() | st.floats(0, 1e12),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_waits_are_bounded_and_grow(attempt: int, asked: float | None, chance: float) -> None:
    retries = Retries()
    delay = retries.delay(attempt, asked, chance)
    assert 0 <= delay <= retries.cap
    if asked is not None:
        assert delay >= min(asked, retries.cap)
    else:
        assert delay <= retries.delay(attempt + 1, None, chance)
