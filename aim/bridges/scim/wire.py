"""The wire: what strangers send as path, query, headers and JSON, read without trusting any of it.

Bytes come in; text and JSON that can be stored go out, or a ScimError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from pydantic_core import PydanticSerializationError, to_json

from aim.bridges.scim.errors import ScimError, invalid_syntax, invalid_value, not_found

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_DEPTH = 64
"""How deep JSON may be nested."""
_LONGEST_PATH = 1024
_MOST_PARAMETERS = 32
_DRAINED = 16
"""A body that is too large is read on up to so many times the limit, so that the client gets our answer."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\Z")
_PREFIX = re.compile(r"(?:/[\w.~-]+)+\Z", re.ASCII)
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Disconnected(Exception):
    """The client has gone; nobody reads an answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """By lower-case name; those that came several times are joined (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def path_of(scope: Scope, prefix: str) -> str:
    """The path below `prefix`, decoded. ScimError for one that no client of ours sends."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    raw = raw.partition(b"?")[0]
    start = prefix.encode()
    if not raw.startswith(start) or raw[len(start) :][:1] not in (b"", b"/"):
        raise not_found("there is no such endpoint")
    if len(raw) > _LONGEST_PATH:
        raise not_found("there is no path as long as this")
    return "/".join(_segment(part) for part in raw[len(start) :].split(b"/"))


def _segment(raw: bytes) -> str:
    decoded = _decoded(raw)
    if "/" in decoded:
        raise not_found("there is no such resource")
    return decoded


def _decoded(raw: bytes) -> str:
    try:
        decoded = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ScimError(400, "the address is not UTF-8") from error
    if _BAD_PERCENT.search(raw) or _CONTROL.search(decoded):
        raise ScimError(400, "the address has characters that no address has")
    return decoded


def query_of(scope: Scope) -> dict[str, str]:
    """The parameters; of one that came several times the last. ScimError if they are no text."""
    try:
        pairs = parse_qsl(
            scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as error:
        raise invalid_value("the parameters in the address can't be read") from error
    if any("\0" in text for pair in pairs for text in pair):
        raise invalid_value("a parameter has a NUL in it")
    return dict(pairs)


def base_of(scope: Scope, headers: Mapping[str, str], prefix: str) -> str:
    """The address of the service as the client sees it, by what a proxy before us says of it.

    Whoever lies in these headers is given the wrong addresses, and nobody else.
    """
    scheme = _first(headers, "x-forwarded-proto").lower()
    if scheme not in ("http", "https"):
        scheme = "https" if scope.get("scheme") == "https" else "http"
    host = _first(headers, "x-forwarded-host")
    if not _HOST.match(host):
        host = headers.get("host", "")
    if not _HOST.match(host):
        server = scope.get("server") or ("localhost", None)
        host = server[0] if server[1] is None else f"{server[0]}:{server[1]}"
    above = _first(headers, "x-forwarded-prefix").rstrip("/")
    return f"{scheme}://{host}{above if _PREFIX.match(above) else ''}{prefix}"


def _first(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").partition(",")[0].strip()


# -- bodies --------------------------------------------------------------------------------------------------


async def body_of(receive: Receive, limit: int) -> bytes:
    """The whole body. ScimError 413 if it has more than `limit` bytes; Disconnected."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
        if not message.get("more_body", False) or size > limit * _DRAINED:
            break
    if size > limit:
        raise ScimError(413, f"a body has at most {limit} bytes")
    return b"".join(pieces)


def require_json(content_type: str | None) -> None:
    """ScimError 415 for a media type that is not JSON (RFC 7644, 8.1). None given means JSON."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type and not re.fullmatch(r"application/(?:json|[\w.-]+\+json)", media_type, re.ASCII):
        raise ScimError(415, "the body must be application/scim+json")


def decode(body: bytes) -> object:
    """The JSON in a body. ScimError if it is none, too deep, or has text that can't be stored."""
    try:
        found: object = json.loads(body.decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise invalid_syntax("the body is no JSON that can be read") from error
    if b"\\u" in body or body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _check(found)
    return found


def _no_number(name: str) -> object:
    raise ValueError(name)


def _check(value: object) -> None:
    """Refuses what is too deep, and text with NUL or halves of characters, which no database stores."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                below += item
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
        if not below:
            return
        level = below
    raise invalid_syntax(f"the body is nested more than {MAX_DEPTH} deep")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise invalid_value("the body has half of a character in it") from error
    if "\0" in text:
        raise invalid_value("the body has a NUL in it")


def encode(body: Mapping[str, object]) -> bytes:
    """JSON for a client; `?` for half of a character."""
    try:
        # Of a group with ten thousand members it makes JSON in a fifth of the time that `json` takes.
        return to_json(body)
    except PydanticSerializationError:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
