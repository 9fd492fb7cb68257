"""A reverse proxy in front of a homeserver that counts what passes, and misbehaves when told to.

proxy = await new_proxy(homeserver.base_url)
proxy.lose_answers(lambda request: request.path.endswith("/createRoom"))
…
assert proxy.writes == []
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Protocol, Self

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
# RFC 9110, section 7.6.1: they belong to one connection. The others describe the body as it was on the wire.
_NOT_FORWARDED = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length", "content-encoding"}
)


@dataclass(slots=True)
class Request:
    """One request that came in."""

    method: str
    path: str
    """Percent-decoded, without the query."""
    query: Mapping[str, str]
    body: bytes = field(repr=False)
    status: int | None = None
    """What the client was answered; None if it got no answer (yet)."""
    forwarded: bool = False
    """True if the homeserver got it."""

    @property
    def user_id(self) -> str | None:
        """Whom it acts as, if not as the token's own user."""
        return self.query.get("user_id")

    @property
    def is_write(self) -> bool:
        return self.method not in _READS

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.user_id or ''} → {self.status}"


Predicate = Callable[[Request], bool]


def everything(request: Request) -> bool:
    return True


def every_write(request: Request) -> bool:
    return request.is_write


class _Kind(Enum):
    LOSE_ANSWER = auto()
    LOSE_REQUEST = auto()
    ANSWER = auto()
    DELAY = auto()
    HOLD = auto()


@dataclass(slots=True)
class Fault:
    """A misbehaviour that was asked for; `left` tells how often it will still strike (None: always)."""

    kind: _Kind
    when: Predicate
    left: int | None
    status: int = 0
    content: Mapping[str, object] = field(default_factory=dict)
    seconds: float = 0.0
    struck: int = 0
    """How often it has struck."""
    reached: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set when it has struck for the first time."""
    release: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """For `hold`: set it to let the held requests go."""

    def take(self, request: Request) -> bool:
        if self.left == 0 or not self.when(request):
            return False
        if self.left is not None:
            self.left -= 1
        self.struck += 1
        self.reached.set()
        return True


class Proxy:
    """Stands at `url` before `target`. `requests` are all that came in, oldest first."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    @property
    def writes(self) -> list[Request]:
        """All requests but GET, HEAD and OPTIONS."""
        return [request for request in self.requests if request.is_write]

    def matching(self, when: Predicate) -> list[Request]:
        return [request for request in self.requests if when(request)]

    def forget(self) -> None:
        """Starts counting anew; faults stay."""
        self.requests.clear()

    def behave(self) -> None:
        """Takes all faults back, and lets held requests go."""
        for fault in self._faults:
            fault.left = 0
            fault.release.set()
        self._faults.clear()

    def lose_answers(self, when: Predicate = every_write, times: int | None = 1) -> Fault:
        """Forwards the request, then closes the connection without an answer."""
        return self._add(Fault(_Kind.LOSE_ANSWER, when, times))

    def lose_requests(self, when: Predicate = everything, times: int | None = 1) -> Fault:
        """Closes the connection without forwarding anything."""
        return self._add(Fault(_Kind.LOSE_REQUEST, when, times))

    def limit(self, when: Predicate = everything, times: int | None = 1, retry_after_ms: int = 50) -> Fault:
        """Answers 429 `M_LIMIT_EXCEEDED` without forwarding."""
        content = {
            "errcode": "M_LIMIT_EXCEEDED",
            "error": "Too many requests",
            "retry_after_ms": retry_after_ms,
        }
        return self._add(Fault(_Kind.ANSWER, when, times, status=429, content=content))

    def fail(
        self,
        when: Predicate = everything,
        times: int | None = 1,
        status: int = 500,
        errcode: str = "M_UNKNOWN",
        error: str = "Internal server error",
    ) -> Fault:
        """Answers this error without forwarding."""
        content = {"errcode": errcode, "error": error}
        return self._add(Fault(_Kind.ANSWER, when, times, status=status, content=content))

    def delay(self, seconds: float, when: Predicate = everything, times: int | None = 1) -> Fault:
        """Forwards the request after a while."""
        return self._add(Fault(_Kind.DELAY, when, times, seconds=seconds))

    def hold(self, when: Predicate = every_write, times: int | None = 1) -> Fault:
        """Forwards the request when the fault's `release` is set: a moment to kill the client in."""
        return self._add(Fault(_Kind.HOLD, when, times))

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=True)
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.behave()
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        request = Request(incoming.method, incoming.path, dict(incoming.query), await incoming.read())
        self.requests.append(request)
        fault = next((fault for fault in self._faults if fault.take(request)), None)
        match fault:
            case Fault(kind=_Kind.ANSWER):
                return _answered(request, web.json_response(fault.content, status=fault.status))
            case Fault(kind=_Kind.LOSE_REQUEST):
                return _hang_up(incoming)
            case Fault(kind=_Kind.DELAY):
                # Not a plain sleep: whoever ends the proxy need not wait.
                with suppress(TimeoutError):
                    await asyncio.wait_for(fault.release.wait(), fault.seconds)
            case Fault(kind=_Kind.HOLD):
                await fault.release.wait()
            case _:
                pass
        response = await self._forward(incoming, request)
        if fault and fault.kind is _Kind.LOSE_ANSWER:
            return _hang_up(incoming)
        return _answered(request, response)

    async def _forward(self, incoming: web.Request, request: Request) -> web.Response:
        assert self._session
        request.forwarded = True
        url = self.target + incoming.raw_path
        try:
            async with self._session.request(
                request.method,
                # As it came, percent-encoding included.
                URL(url, encoded=True),
                data=request.body or None,
                headers=_passed_on(incoming.headers),
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
                return web.Response(status=answer.status, body=body, headers=_passed_on(answer.headers))
        except aiohttp.ClientError as error:
            return web.json_response({"errcode": "M_UNKNOWN", "error": f"bad gateway: {error}"}, status=502)


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_FORWARDED}


def _answered(request: Request, response: web.Response) -> web.Response:
    request.status = response.status
    return response


def _hang_up(incoming: web.Request) -> web.Response:
    if incoming.transport:
        incoming.transport.abort()
    # Goes nowhere: there is no connection any more.
    return web.Response()


class NewProxy(Protocol):
    """What the fixture `new_proxy` gives: a running proxy before the server at a base URL."""

    def __call__(self, target: str) -> Awaitable[Proxy]: ...


@pytest.fixture
async def new_proxy() -> AsyncIterator[NewProxy]:
    """A function that starts proxies; they are stopped when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(target: str) -> Proxy:
            return await stack.enter_async_context(Proxy(target))

        yield start
