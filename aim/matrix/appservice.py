"""The appservice's side of the Application Service API v1: what the homeserver asks of us.

In: the homeserver's requests and its `hs_token`. Out: the events of each transaction, decoded and otherwise
untouched, handed to `take`; what they mean is its business. Refusals are HTTPExceptions whose `detail` is the
Matrix error; the application that the router is mounted in turns them into answers.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

LARGEST = 16 * 2**20
"""Bytes of a transaction. Synapse sends 100 events at most, of up to 64 KiB each."""
LARGE = 2**20
"""Bytes from which on a body is decoded in a thread."""
DEEPEST = 64
"""Levels of JSON that are kept of a body which Python can't decode whole. A state event has five."""
LONGEST_NUMBER = 300
"""Digits of an integer that are kept then; Matrix knows 16."""

Take = Callable[[str, list[object]], Awaitable[None]]
"""Gets a transaction's id, decoded, and its events. It returns when they are stored, and one at a time is its
own care. It raises AimError if they could not be stored now."""

_V1 = "/_matrix/app/v1"
_LEGACY = ""
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
"""Strings too, so that brackets in them are passed over."""

_log = structlog.get_logger()


def router(hs_token: str, take: Take, refused: Callable[[], None] = lambda: None) -> APIRouter:
    """All endpoints, legacy paths included. Whoever comes without `hs_token` is refused, their body unread.

    `refused` is told when that happens: it may be the homeserver, with another token than ours.

    401 M_MISSING_TOKEN, 403 M_FORBIDDEN for a wrong one; 413 M_TOO_LARGE, 400 M_NOT_JSON, 400 M_BAD_JSON for
    a transaction that can't be read. What `take` raises comes out as it is: answer 503 to an AimError, and
    the homeserver sends the transaction again.
    """
    secret = hs_token.encode()

    async def authorised(request: Request) -> None:
        tokens = list(_tokens(request))
        if not tokens:
            refused()
            raise _error(401, "M_MISSING_TOKEN", "the hs_token is missing")
        # Some homeservers give both, and then both have to be right.
        if not all(hmac.compare_digest(token.encode(), secret) for token in tokens):
            refused()
            raise _error(403, "M_FORBIDDEN", "this is not the hs_token")

    async def transaction(request: Request, txn_id: str) -> Response:
        if not txn_id:
            raise _error(404, "M_UNRECOGNIZED", "a transaction needs an id")
        await take(txn_id, await _events(request))
        return JSONResponse({})

    async def unknown(name: str) -> Response:
        # We make neither accounts nor aliases because somebody asks for them.
        raise _error(404, "M_NOT_FOUND", f"{name} is none of ours")

    async def ping() -> Response:
        return JSONResponse({})

    made = APIRouter(dependencies=[Depends(authorised)])
    for prefix in (_V1, _LEGACY):
        # `path`: an id may hold a slash, which arrives percent-encoded and is decoded before it is matched.
        made.add_api_route(f"{prefix}/transactions/{{txn_id:path}}", transaction, methods=["PUT"])
        made.add_api_route(f"{prefix}/users/{{name:path}}", unknown, methods=["GET"])
        made.add_api_route(f"{prefix}/rooms/{{name:path}}", unknown, methods=["GET"])
    made.add_api_route(f"{_V1}/ping", ping, methods=["POST"])
    return made


def _tokens(request: Request) -> Iterator[str]:
    """All tokens that came along: in the header, and in the query, as before Matrix 1.4."""
    for header in request.headers.getlist("authorization"):
        scheme, _, token = header.partition(" ")
        # A homeserver that gives the token in the query may send a header without one.
        if scheme.lower() == "bearer" and token.strip():
            yield token.strip()
    yield from filter(None, request.query_params.getlist("access_token"))


async def _events(request: Request) -> list[object]:
    """The events in the body. Raises HTTPException."""
    body = await _body(request)
    try:
        content = await _decoded(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(400, "M_NOT_JSON", "the transaction is no JSON") from error
    events = content.get("events") if isinstance(content, dict) else None
    if not isinstance(events, list):
        raise _unreadable(400, "M_BAD_JSON", "the transaction has no list of events")
    return events


async def _body(request: Request) -> bytes:
    """The whole body. Raises HTTPException when it is known to be too large, and reads no more of it."""
    too_large = f"the transaction has more than {LARGEST} bytes"
    if int(request.headers.get("content-length", "0")) > LARGEST:
        raise _unreadable(413, "M_TOO_LARGE", too_large)
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST:
                raise _unreadable(413, "M_TOO_LARGE", too_large)
    except ClientDisconnect as error:
        # Nobody reads the answer; the homeserver sends it again, and there is nothing to tell about that.
        raise _error(400, "M_NOT_JSON", "the transaction was cut off") from error
    return bytes(body)


# -- JSON that strangers write -------------------------------------------------------------------------------


async def _decoded(body: bytes) -> object:
    """The JSON. Raises ValueError, and RecursionError if it is malformed and deep."""
    if len(body) <= LARGE:
        return decode(body)
    # The decoder is one call in C, which keeps all other threads waiting; a hook in Python lets them in.
    return await asyncio.to_thread(decode, body, _as_it_is)


def _as_it_is(content: dict[str, object]) -> dict[str, object]:
    return content


def decode(body: bytes, hook: Callable[[dict[str, object]], object] | None = None) -> object:
    """The JSON, whole if Python can do it; else what is too deep is None, and so are endless numbers.

    Anybody may send an event that is as deep as the homeserver takes. If it made us refuse the transaction,
    the homeserver would send the same one for ever, and nothing after it.
    """
    try:
        return json.loads(body, object_hook=hook)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except (RecursionError, ValueError):
        return json.loads(_shallow(body), object_hook=hook, parse_int=_integer)


def _shallow(body: bytes) -> bytes:
    """The same JSON, with null for what is deeper than DEEPEST."""
    kept: list[bytes] = []
    depth = rest = 0
    for found in _BRACKETS.finditer(body):
        match found[0]:
            case b"[" | b"{":
                depth += 1
                if depth == DEEPEST + 1:
                    kept.append(body[rest : found.start()])
            case b"]" | b"}":
                if depth == DEEPEST + 1:
                    kept.append(b"null")
                    rest = found.end()
                depth -= 1
    return b"".join([*kept, body[rest:]])


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= LONGEST_NUMBER else None


# -- refusals ------------------------------------------------------------------------------------------------


def _error(status: int, errcode: str, error: str) -> HTTPException:
    detail: Mapping[str, str] = {"errcode": errcode, "error": error}
    return HTTPException(status, detail)


def _unreadable(status: int, errcode: str, error: str) -> HTTPException:
    """For what no homeserver sends; told, because it will send nothing else until this one is taken."""
    remedy = "see whether something between the homeserver and us changes or cuts what it sends"
    _log.error("a transaction can't be read, and none comes before it was", cause=error, remedy=remedy)
    return _error(status, errcode, error)
