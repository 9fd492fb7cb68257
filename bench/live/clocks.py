"""The clocks on both sides of a homeserver: what is asked of it, and what it delivers.

    aim ─► Clock ─► homeserver ─► Delivery ─► aim

Both run in the process that measures, so that all times are of one clock (`time.perf_counter`, seconds).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.servers.proxy import Predicate, Proxy, Request

Event = Mapping[str, Any]
_POLL = "/_synapse/admin/v3/users"


@dataclass(frozen=True, slots=True)
class Timed:
    """One request that was answered."""

    request: Request
    status: int
    came: float
    answered: float
    answer: bytes = field(repr=False)

    @property
    def seconds(self) -> float:
        return self.answered - self.came


def is_poll(request: Request) -> bool:
    """The declared poll: a look at the newest accounts."""
    return request.path == _POLL and request.query.get("order_by") == "creation_ts"


class Clock(Proxy):
    """A proxy that keeps the time of each request."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.timed: list[Timed] = []
        """In the order of their answers."""
        self._news = asyncio.Event()

    async def _forward(self, incoming: web.Request, request: Request) -> web.Response:
        came = time.perf_counter()
        response = await super()._forward(incoming, request)
        answer = response.body if isinstance(response.body, bytes) else b""
        self.timed.append(Timed(request, response.status, came, time.perf_counter(), answer))
        self._news.set()
        return response

    def forget(self) -> None:
        super().forget()
        self.timed.clear()

    @property
    def polls(self) -> int:
        return sum(map(is_poll, self.requests))

    @property
    def asked(self) -> list[Request]:
        """All requests but the declared polls."""
        return [request for request in self.requests if not is_poll(request)]

    async def calm(self, seconds: float, patience: float) -> None:
        """Waits until nothing but polls was asked for so long. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            while True:
                last = max((one.answered for one in self.timed if not is_poll(one.request)), default=0.0)
                left = last + seconds - time.perf_counter()
                if left <= 0:
                    return
                await asyncio.sleep(left)

    async def accepted(self, when: Predicate, patience: float) -> Timed:
        """Waits until such a request was accepted. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            while True:
                for timed in self.timed:
                    if timed.status == 200 and when(timed.request):
                        return timed
                self._news.clear()
                await self._news.wait()


class Delivery:
    """Takes a homeserver's transactions at `port`, keeps when each event came, and passes them on to `target`
    (None: it answers them itself)."""

    def __init__(self, port: int, target: str | None = None) -> None:
        self.port = port
        self.target = target
        self.events: list[tuple[float, Event]] = []
        """When each was delivered; a repeated one more than once."""
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    def forget(self) -> None:
        self.events.clear()

    async def delivered(self, when: Callable[[Event], bool], patience: float) -> float:
        """When such an event was delivered first, as soon as one was. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            while True:
                for came, event in self.events:
                    if when(event):
                        return came
                self._news.clear()
                await self._news.wait()

    async def _take(self, incoming: web.Request) -> web.Response:
        body = await incoming.read()
        came = time.perf_counter()
        response = await self._pass_on(incoming, body)
        if incoming.method == "PUT":
            self.events.extend((came, event) for event in (await incoming.json())["events"])
            self._news.set()
        return response

    async def _pass_on(self, incoming: web.Request, body: bytes) -> web.Response:
        if self.target is None:
            return web.json_response({})
        assert self._session
        headers = {"Authorization": incoming.headers["Authorization"], "Content-Type": "application/json"}
        url = self.target + incoming.raw_path
        try:
            async with self._session.request(incoming.method, url, data=body, headers=headers) as answer:
                text = await answer.read()
                return web.Response(body=text, status=answer.status, content_type="application/json")
        except aiohttp.ClientError:
            return web.json_response({"errcode": "M_UNKNOWN", "error": "aim is not there"}, status=502)
