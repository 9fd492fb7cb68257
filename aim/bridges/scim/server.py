"""The SCIM service as an ASGI application: HTTP in, HTTP out.

    scope, body ─► wire ─► rights ─► endpoints ─► JSON

Stands on its own port, or is mounted beside others. Whatever happens, the answer is a SCIM body without a
word of how we are built; a database or homeserver that is away is 503.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import PurePath
from typing import Any

import structlog

from aim.bridges.scim.core import Core, Route
from aim.bridges.scim.endpoints import DISCOVERY, Answer, Endpoints, Request
from aim.bridges.scim.errors import ScimError, away
from aim.bridges.scim.resources import Username
from aim.bridges.scim.rights import Rights
from aim.bridges.scim.storage import Storage
from aim.bridges.scim.wire import (
    Disconnected,
    Receive,
    Scope,
    base_of,
    body_of,
    decode,
    encode,
    headers_of,
    path_of,
    query_of,
    require_json,
)
from aim.bridges.scim.writing import Conditions, Hooks, Writing
from aim.errors import AimError, HomeserverUnavailable, StoreError
from aim.ports.scim import ScimStore

LARGEST = 2 * 1024 * 1024
"""Bytes of a body."""
BODY_WITHIN = 30.0
"""Seconds for the whole of a body, however slowly it comes."""
_MEDIA_TYPE = "application/scim+json"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_FRAMES = 4

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = structlog.get_logger()


class ScimApplication:
    """An ASGI application. Holds no state of its own but what `rights` remembers."""

    def __init__(
        self,
        store: ScimStore,
        rights: Rights,
        username: Username,
        hooks: Hooks | None = None,
        *,
        base_url: str = "",
        public_url: str | None = None,
        secret: bytes | None = None,
    ) -> None:
        """`base_url` is the prefix of all paths, with a slash before and none after it. `public_url` is the
        address of the service for clients, that prefix included; None: the headers of each request tell.
        `secret` makes cursors that outlive the process."""
        self._core = Core(LARGEST, secret)
        storage = Storage(store, self._core)
        writing = Writing(store, self._core, username, hooks or Hooks())
        self._endpoints = Endpoints(self._core, storage, writing)
        self._rights = rights
        self._prefix = base_url.rstrip("/")
        self._public = public_url and public_url.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        try:
            answer = await self._safely(scope, receive)
        except Disconnected:
            return
        await _send(answer, send)

    async def _safely(self, scope: Scope, receive: Receive) -> Answer:
        try:
            return await self._answer(scope, receive)
        except ScimError as error:
            return _refusal(error)
        except (StoreError, HomeserverUnavailable) as error:
            _log.error("a SCIM request could not be carried out", cause=error.message, remedy=error.remedy)
            return _refusal(away())
        except AimError as error:
            return _refusal(ScimError(500, error.message))
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001  # the last resort: nothing of it may reach a stranger
            cause = f"{type(error).__name__} at {_where(error)}"
            _log.error("a SCIM request failed", cause=cause, remedy="report this as a defect of aim")
            return _refusal(ScimError(500, "this failed; see the log of aim"))

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = headers_of(scope)
        method = str(scope["method"]).upper()
        path = path_of(scope, self._prefix)
        base = self._public or base_of(scope, headers, self._prefix)
        route = self._route(method, path)
        if isinstance(route, Route) and route.operation in DISCOVERY:
            return self._endpoints.discover(route, Request(method, base, path, query_of(scope)))
        access = await self._rights.access(headers.get("authorization"), _address(scope))
        if isinstance(route, ScimError):
            raise route
        query = query_of(scope)
        body = None
        if method in _WITH_BODY:
            raw = await _body(receive)
            require_json(headers.get("content-type"))
            body = decode(raw)
        request = Request(method, base, path, query, _conditions(headers), body)
        return await self._endpoints.answer(route, request, access)

    def _route(self, method: str, path: str) -> Route | ScimError:
        """The route, or what is told to those who may know that there is none."""
        try:
            return self._core.route(method, path)
        except ScimError as error:
            return error


async def _body(receive: Receive) -> bytes:
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await body_of(receive, LARGEST)
    except TimeoutError as error:
        # What may still come belongs to this request: no other can follow on the connection.
        late = f"the body did not come within {BODY_WITHIN:g} s"
        raise ScimError(408, late, headers={"Connection": "close"}) from error


def _conditions(headers: dict[str, str]) -> Conditions:
    return Conditions(headers.get("if-match"), headers.get("if-none-match"))


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _refusal(error: ScimError) -> Answer:
    return Answer(error.status, error.body(), error.headers)


async def _send(answer: Answer, send: Send) -> None:
    body = b"" if answer.body is None else encode(answer.body)
    headers = {"Cache-Control": "no-cache", **answer.headers}
    if body:
        headers["Content-Type"] = _MEDIA_TYPE
    if answer.status not in (204, 304):
        headers["Content-Length"] = str(len(body))
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


def _where(error: Exception) -> str:
    """The last lines that the error came through, without their values."""
    frames = list(traceback.walk_tb(error.__traceback__))[-_FRAMES:]
    return ", ".join(f"{PurePath(frame.f_code.co_filename).name}:{line}" for frame, line in frames)
