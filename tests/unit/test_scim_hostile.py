"""Whatever is sent, the answer is SCIM: never a 5xx, never a hang, never a word of how we are built."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.scim_client import BASE, Service, a_user, assert_error, ops, service
from tests.unit.scim_grammar import PLAUSIBLE, REQUESTS, Sent, assert_harmless, assert_usable, send

THOROUGH = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])


async def _service() -> tuple[Service, dict[str, str]]:
    scim = service()
    user = await scim.user("ann", emails=[{"value": "a@example.com", "type": "work"}])
    group = await scim.group("staff", [user["id"]])
    return scim, {"user": user["id"], "group": group["id"]}


async def _endured(requests: Sequence[Sent]) -> None:
    """The service answers these, and works on."""
    scim, ids = await _service()
    for sent in requests:
        assert_harmless(await send(scim.app, sent, ids))
    await assert_usable(scim.app, ids)


@THOROUGH
@given(st.lists(REQUESTS, min_size=1, max_size=3))
async def test_any_requests(requests: list[Sent]) -> None:
    await _endured(requests)


@THOROUGH
@given(st.lists(PLAUSIBLE, min_size=1, max_size=3))
async def test_any_plausible_requests(requests: list[Sent]) -> None:
    await _endured(requests)


@THOROUGH
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=20))
async def test_any_bytes_in_path_query_and_headers(path: bytes, query: bytes, value: bytes) -> None:
    headers = ((b"host", value), (b"if-match", value), (b"x-forwarded-host", value))
    await _endured([Sent("GET", b"/Users/" + path, query, headers, b"")])


# -- one by one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"schemas": [}',
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b'{"a": 1} {}',
        b"\x00",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_body_that_is_no_object(method: str, body: bytes) -> None:
    scim, ids = await _service()
    path = b"/Users" if method == "POST" else b"/Users/{user}"
    answered = await send(scim.app, Sent(method, path, b"", (), body), ids)
    assert_harmless(answered)
    assert (answered.status, answered.json["scimType"]) == (400, "invalidSyntax")


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "text/xml", "application/x-www-form-urlencoded", "multipart/form-data", "json"],
)
async def test_a_media_type_that_is_not_json(media_type: str) -> None:
    scim = service()
    answer = await scim.call("POST", "/Users", a_user("ann"), headers={"Content-Type": media_type})
    assert answer.status_code == 415
    assert (await scim.found("/Users"))["totalResults"] == 0


@pytest.mark.parametrize(
    "value",
    [
        "' or '1'='1",
        "'; drop table aim.scim_resources; --",
        '" or id pr or userName eq "',
        '") or (id pr',
        "%",
        "_nn",
        "a%",
        "\\",
        "$1",
        "ann' --",
    ],
)
@pytest.mark.parametrize("operator", ["eq", "co", "sw", "ew"])
async def test_a_value_in_a_filter_is_a_value(operator: str, value: str) -> None:
    scim, _ = await _service()
    assert await scim.names(f"userName {operator} {json.dumps(value)}") == []
    assert await scim.names('userName eq "ann"') == ["ann"]


@pytest.mark.parametrize("value", ['ann" or id pr or userName eq "x', 'ann") or (id pr', 'ann" )'])
async def test_a_filter_that_ends_too_early_is_none(value: str) -> None:
    scim, _ = await _service()
    await scim.user("bob")
    answer = await scim.call("GET", "/Users", params={"filter": f'(userName eq "{value}"'})
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidFilter")


@pytest.mark.parametrize(
    ("start", "count", "shown"),
    [("-5", "-1", 0), ("0", "0", 0), ("-1", "1", 1), ("9" * 30, "5", 0), ("1", "-9", 0)],
)
async def test_pages_that_are_none(start: str, count: str, shown: int) -> None:
    """RFC 7644, 3.4.2.4: less than 1 is 1, less than 0 is 0."""
    scim, _ = await _service()
    page = await scim.found("/Users", startIndex=start, count=count)
    assert (page["totalResults"], len(page["Resources"])) == (1, shown)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("%0d%0aLocation:%20x", 400),
        ("%00", 400),
        ("%ff", 400),
        ("%c0%af", 400),
        ("%ed%a0%80", 400),
        ("%2", 400),
        ("%zz", 400),
        ("..%2f..%2fGroups", 404),
        ("%2e%2e", 404),
        ("%252e", 404),
        (quote("İıſK😀"), 404),
        ("a" * 2000, 404),
    ],
)
async def test_an_address_with_escapes(path: str, status: int) -> None:
    scim, ids = await _service()
    answered = await send(scim.app, Sent("GET", b"/Users/" + path.encode(), b"", (), b""), ids)
    assert_harmless(answered)
    assert answered.status == status


@pytest.mark.parametrize("text", ["İıſK", "ﬁ", "ß", "Σς", "😀", "\u202e", "e\u0301", "\ufeff"])
async def test_a_name_in_any_script(text: str) -> None:
    scim = service()
    made = await scim.user(text, displayName=text)
    assert (made["userName"], made["displayName"]) == (text, text)
    assert await scim.names(f"userName eq {json.dumps(text)}") == [text]
    again = await scim.call("POST", "/Users", a_user(text))
    assert (again.status_code, again.json()["scimType"]) == (409, "uniqueness")


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\udfff\ud800"])
@pytest.mark.parametrize("attribute", ["userName", "title", "externalId", "nosuch"])
async def test_text_that_no_database_stores(attribute: str, text: str) -> None:
    scim = service()
    body = json.dumps({**a_user("ann"), attribute: text}).encode()
    answered = await send(scim.app, Sent("POST", b"/Users", b"", (), body), {})
    assert_harmless(answered)
    assert (answered.status, answered.json["scimType"]) == (400, "invalidValue")


async def test_other_protocols_are_sent_away() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "lifespan.startup"} if not sent else {"type": "lifespan.shutdown"}

    await service().app({"type": "lifespan"}, receive, send)
    await service().app({"type": "websocket"}, receive, send)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]


async def test_a_body_that_is_too_large() -> None:
    scim = service()
    for size in (2 * 1024 * 1024 + 1, 10 * 1024 * 1024):
        body = b'{"a": "' + b"a" * size + b'"}'
        answer = await scim.client.post(f"{BASE}/Users", content=body)
        assert answer.status_code == 413
        assert_error(answer)
    fits = a_user("ann", title="a" * 1024 * 1024)
    assert (await scim.call("POST", "/Users", fits)).status_code == 201


@pytest.mark.parametrize("depth", [70, 500, 5000])
async def test_a_body_that_is_too_deep(depth: int) -> None:
    scim = service()
    body = json.dumps(a_user("ann"))[:-1] + ', "name": ' + '{"a":' * depth + "1" + "}" * depth + "}"
    answer = await scim.client.post(f"{BASE}/Users", content=body.encode())
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidSyntax")


async def test_an_id_can_not_be_changed_by_anything() -> None:
    scim, ids = await _service()
    where = f"/Users/{ids['user']}"
    for method, body in (
        ("PUT", a_user("ann", id="other", ID="third")),
        ("PATCH", ops({"op": "replace", "value": {"id": "other", "title": "x"}})),
        ("PATCH", ops({"op": "replace", "path": "id", "value": "other"})),
        ("PATCH", ops({"op": "remove", "path": "id"})),
        ("PATCH", ops({"op": "replace", "path": "schemas", "value": []})),
    ):
        assert (await scim.call(method, where, body)).status_code in (200, 400)
        assert (await scim.call("GET", where)).json()["id"] == ids["user"]
