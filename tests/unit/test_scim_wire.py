"""What strangers send: read without trusting it."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.wire import (
    Disconnected,
    base_of,
    body_of,
    decode,
    encode,
    headers_of,
    path_of,
    query_of,
    require_json,
)


@pytest.mark.parametrize(
    ("raw", "prefix", "path"),
    [
        (b"/scim/Users", "/scim", "/Users"),
        (b"/scim", "/scim", ""),
        (b"/Users/a%20b", "", "/Users/a b"),
        (b"/Users/%C3%A4?filter=x", "", "/Users/ä"),
        (b"/Users/a+b", "", "/Users/a+b"),
    ],
)
def test_paths(raw: bytes, prefix: str, path: str) -> None:
    assert path_of({"raw_path": raw}, prefix) == path


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"/scimmy/Users", 404),
        (b"/Users", 404),
        (b"/scim/Users/%00", 400),
        (b"/scim/Users/%0d%0aLocation:%20x", 400),
        (b"/scim/Users/%7f", 400),
        (b"/scim/Users/%ff", 400),
        (b"/scim/Users/\xff", 400),
        (b"/scim/Users/%zz", 400),
        (b"/scim/Users/%", 400),
        (b"/scim/Users/%ed%a0%80", 400),
        (b"/scim/Users/a%2fb", 404),
        (b"/scim/Users/" + b"a" * 2000, 404),
    ],
)
def test_paths_that_no_client_of_ours_sends(raw: bytes, status: int) -> None:
    with pytest.raises(ScimError) as told:
        path_of({"raw_path": raw}, "/scim")
    assert told.value.status == status


def test_parameters() -> None:
    assert query_of({"query_string": b"a=1&b=%C3%A4+x&a=2&c="}) == {"a": "2", "b": "ä x", "c": ""}
    for raw in (b"a=%ff", b"a=%00", b"\xff=1", b"&".join([b"a=1"] * 40), b"a=%ed%a0%80"):
        with pytest.raises(ScimError):
            query_of({"query_string": raw})


def test_headers_of_any_bytes() -> None:
    headers = [(b"If-Match", b'"a"'), (b"if-match", b'"b"'), (b"X-\xff", b"\xff\x80")]
    assert headers_of({"headers": headers}) == {"if-match": '"a", "b"', "x-\xff": "\xff\x80"}


def test_an_address_without_a_usable_header_is_that_of_the_socket() -> None:
    scope: MutableMapping[str, Any] = {"scheme": "http", "server": ("127.0.0.1", 8040)}
    assert base_of(scope, {"host": "a b"}, "/x") == "http://127.0.0.1:8040/x"
    assert base_of(scope, {"host": "[::1]:80"}, "") == "http://[::1]:80"
    assert base_of({}, {}, "") == "http://localhost"


def _receiver(*pieces: bytes | None) -> Any:
    """Sends these pieces; None: the client goes."""
    left = list(pieces)

    async def receive() -> MutableMapping[str, Any]:
        piece = left.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    receive.left = left  # type: ignore[attr-defined]
    return receive


async def test_bodies() -> None:
    assert await body_of(_receiver(b"ab", b"", b"c"), 3) == b"abc"
    with pytest.raises(Disconnected):
        await body_of(_receiver(b"ab", None), 3)
    # Who sends a little too much is heard to the end, or they would not read the answer; others are not.
    little = _receiver(*[b"ab"] * 10)
    with pytest.raises(ScimError) as told:
        await body_of(little, 3)
    assert told.value.status == 413
    assert little.left == []
    endless = _receiver(*[b"ab"] * 100)
    with pytest.raises(ScimError):
        await body_of(endless, 3)
    assert len(endless.left) == 75


@pytest.mark.parametrize(
    "given", [None, "", "application/json", "application/scim+json; charset=utf-8", "Application/JSON"]
)
def test_media_types(given: str | None) -> None:
    require_json(given)


@pytest.mark.parametrize("given", ["text/plain", "application/xml", "json", "application/+json", "\xff"])
def test_media_types_that_are_not_json(given: str) -> None:
    with pytest.raises(ScimError) as told:
        require_json(given)
    assert told.value.status == 415


def test_json() -> None:
    assert decode(b'\xef\xbb\xbf{"a": "\xc3\xa4"}') == {"a": "ä"}
    assert decode(rb'{"a": "\\u0000 \ud83d\ude00"}') == {"a": "\\u0000 \U0001f600"}
    assert decode(json.dumps([["x"]] * 200).encode()) == [["x"]] * 200


@pytest.mark.parametrize(
    ("body", "scim_type"),
    [
        (b"", "invalidSyntax"),
        (b"{", "invalidSyntax"),
        (b"\xff", "invalidSyntax"),
        ('{"a": 1}'.encode("utf-16"), "invalidSyntax"),
        (b'{"a": NaN}', "invalidSyntax"),
        (b'{"a": -Infinity}', "invalidSyntax"),
        (b"9" * 5000, "invalidSyntax"),
        (b"[" * 100 + b"]" * 100, "invalidSyntax"),
        (b"[" * 100_000, "invalidSyntax"),
        (b'{"a":' * 100_000, "invalidSyntax"),
        (rb'{"a": "\u0000"}', "invalidValue"),
        (rb'{"a": "\ud800"}', "invalidValue"),
        (rb'{"\udc00": 1}', "invalidValue"),
        (rb'[["\u0000"]]', "invalidValue"),
    ],
)
def test_json_that_is_none_or_can_not_be_stored(body: bytes, scim_type: str) -> None:
    with pytest.raises(ScimError) as told:
        decode(body)
    assert told.value.scim_type == scim_type


def test_what_is_sent_is_json_in_utf_8_whatever_is_in_it() -> None:
    sent: dict[str, object] = {"a": ["ä\U0001f600", '"\\\n\x01\x7f', True, None, 10**30, 1.5], "b": {"": {}}}
    assert json.loads(encode(sent)) == sent
    assert "ä".encode() in encode(sent)
    assert encode({"a": "x\ud800y"}) == b'{"a":"x?y"}'
