"""The proxy that the journeys count and disturb requests with, before a small server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.servers.proxy import NewProxy, Proxy, Request, everything


class Target:
    """Remembers what arrived, and echoes it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.raw_path}")
        body = await request.text()
        return web.json_response(
            {"body": body, "authorization": request.headers.get("Authorization")}, status=201
        )


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    target = Target()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", target.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    target.url = f"http://{host}:{port}"
    yield target
    await runner.cleanup()


@pytest.fixture
async def proxy(target: Target, new_proxy: NewProxy) -> Proxy:
    return await new_proxy(target.url)


async def test_passes_everything_on_and_counts(
    proxy: Proxy, target: Target, http_session: aiohttp.ClientSession
) -> None:
    path = "/rooms/%21a%3Aexample.test/invite?user_id=%40ann%3Aexample.test"
    url = URL(proxy.url + path, encoded=True)
    async with http_session.post(url, data="hello", headers={"Authorization": "Bearer t"}) as response:
        assert response.status == 201
        assert await response.json() == {"body": "hello", "authorization": "Bearer t"}
    async with http_session.get(f"{proxy.url}/versions") as response:
        assert response.status == 201

    assert target.seen == [f"POST {path}", "GET /versions"]
    assert [str(request) for request in proxy.requests] == [
        "POST /rooms/!a:example.test/invite @ann:example.test → 201",
        "GET /versions  → 201",
    ]
    assert proxy.writes == proxy.requests[:1]
    proxy.forget()
    assert proxy.requests == []


async def test_loses_an_answer_after_the_request_was_carried_out(
    proxy: Proxy, target: Target, http_session: aiohttp.ClientSession
) -> None:
    fault = proxy.lose_answers(_creates)
    with pytest.raises(aiohttp.ClientError):
        await http_session.post(f"{proxy.url}/createRoom")
    assert target.seen == ["POST /createRoom"]
    assert (proxy.writes[0].forwarded, proxy.writes[0].status) == (True, None)
    assert fault.struck == 1

    async with http_session.post(f"{proxy.url}/createRoom") as response:
        assert response.status == 201


async def test_loses_a_request_before_it_arrives(
    proxy: Proxy, target: Target, http_session: aiohttp.ClientSession
) -> None:
    proxy.lose_requests(_creates)
    with pytest.raises(aiohttp.ClientError):
        await http_session.post(f"{proxy.url}/createRoom")
    assert target.seen == []
    assert not proxy.writes[0].forwarded


async def test_answers_errors_as_often_as_asked(
    proxy: Proxy, target: Target, http_session: aiohttp.ClientSession
) -> None:
    proxy.limit(times=1, retry_after_ms=7)
    proxy.fail(times=2, status=502)
    answers = []
    for _ in range(4):
        async with http_session.get(f"{proxy.url}/versions") as response:
            answers.append((response.status, (await response.json()).get("retry_after_ms")))
    assert answers == [(429, 7), (502, None), (502, None), (201, None)]
    assert target.seen == ["GET /versions"]
    assert [request.status for request in proxy.matching(everything)] == [429, 502, 502, 201]


async def test_holds_a_request_until_it_is_released(
    proxy: Proxy, target: Target, http_session: aiohttp.ClientSession
) -> None:
    fault = proxy.hold(times=None)
    pending = asyncio.ensure_future(http_session.put(f"{proxy.url}/state"))
    await fault.reached.wait()
    assert (target.seen, pending.done()) == ([], False)
    fault.release.set()
    async with await pending as response:
        assert response.status == 201
    proxy.behave()
    async with http_session.put(f"{proxy.url}/state") as response:
        assert response.status == 201


async def test_delays(proxy: Proxy, http_session: aiohttp.ClientSession) -> None:
    proxy.delay(5.0)
    with pytest.raises(TimeoutError):
        await http_session.get(f"{proxy.url}/slow", timeout=aiohttp.ClientTimeout(total=0.1))
    async with http_session.get(f"{proxy.url}/quick") as response:
        assert response.status == 201


async def test_an_absent_server_is_a_bad_gateway(
    target: Target, new_proxy: NewProxy, http_session: aiohttp.ClientSession
) -> None:
    proxy = await new_proxy("http://127.0.0.1:9")
    async with http_session.get(f"{proxy.url}/versions") as response:
        assert response.status == 502


def _creates(request: Request) -> bool:
    return request.path.endswith("/createRoom")
