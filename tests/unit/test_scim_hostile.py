"""Whatever is sent, the answer is SCIM: never a 5xx, never a word of how we are built."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim.bridges.scim.resources import ENTERPRISE, GROUP, USER
from tests.unit.scim_client import BASE, PATCH_OP, Service, a_user, assert_error, ops, service

THOROUGH = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "\0",
            "\ud800",
            "a\r\nLocation: x",
            "'; drop table aim.scim_resources; --",
            "%00",
            "%",
            "../../etc/passwd",
            "Ä" * 3000,
            "\u202e",
            "True",
            "members[value eq",
            USER,
            GROUP,
            ENTERPRISE,
            PATCH_OP,
        ]
    ),
)
KEYS = st.one_of(
    TEXT,
    st.sampled_from(
        "schemas id meta userName displayName externalId active emails name members groups password value "
        "type primary $ref path op Operations filter sortBy count startIndex cursor attributes method bulkId "
        "data".split()
    ),
    st.just(ENTERPRISE),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
PATHS = st.one_of(
    TEXT,
    st.sampled_from(
        "members members.value userName active name name.givenName emails emails.value id meta groups title "
        "schemas password roles addresses x509Certificates photos".split()
    ),
    st.sampled_from(['emails[type eq "work"].value', 'members[value eq "x"]', "emails[not (type pr)]"]),
    st.just(f"{ENTERPRISE}:manager"),
    st.just(ENTERPRISE),
)
KNOWN = st.sampled_from(
    "members userName active name name.givenName emails emails.value displayName externalId title roles "
    "addresses x509Certificates photos profileUrl password".split()
) | st.sampled_from(
    [
        'emails[type eq "work"].value',
        'emails[type eq "home"]',
        'roles[primary eq "True"].value',
        'members[value eq "x"]',
        f"{ENTERPRISE}:manager",
        f"{ENTERPRISE}:department",
        ENTERPRISE,
    ]
)
LIKELY = st.one_of(
    st.text(max_size=10),
    st.booleans(),
    st.none(),
    st.just("True"),
    st.lists(
        st.fixed_dictionaries({"value": st.text(max_size=5)}, optional={"type": TEXT, "$ref": st.none()}),
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(["value", "type", "givenName", "department", "manager", "primary"]),
        st.text(max_size=5),
    ),
)
OPERATION = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "Replace", "remove"])},
    optional={"path": KNOWN | PATHS, "value": LIKELY | st.dictionaries(KNOWN, LIKELY, max_size=3) | JSON},
)
BODIES = st.one_of(
    JSON,
    st.builds(
        lambda more, urn: {**more, "schemas": [urn]},
        st.dictionaries(KEYS, JSON, max_size=5),
        st.sampled_from([USER, GROUP]),
    ),
    st.builds(lambda several: ops(*several), st.lists(OPERATION, max_size=3)),
    st.builds(
        lambda several: {"Operations": several}, st.lists(st.dictionaries(KEYS, JSON, max_size=5), max_size=3)
    ),
)
ENDPOINTS = st.one_of(
    st.sampled_from(
        [
            ("POST", "/Users"),
            ("POST", "/Groups"),
            ("PUT", "/Users/{user}"),
            ("PUT", "/Groups/{group}"),
            ("POST", "/Bulk"),
            ("POST", "/.search"),
            ("POST", "/Users/.search"),
        ]
    ),
    st.tuples(
        st.sampled_from(["GET", "DELETE", "HEAD", "OPTIONS", "TRACE", "patch", "X"]),
        st.sampled_from(["/Users", "/Groups/{group}", "/Me", "/", "/Schemas", "/Cars", "/Bulk"]),
    ),
)


async def _service() -> tuple[Service, dict[str, str]]:
    scim = service()
    user = await scim.user("ann", emails=[{"value": "a@example.com", "type": "work"}])
    group = await scim.group("staff", [user["id"]])
    return scim, {"user": user["id"], "group": group["id"]}


def _is_fine(response: httpx.Response) -> None:
    assert response.status_code < 500 or response.status_code == 501, response.text
    if response.status_code >= 400 and response.request.method != "HEAD":
        assert_error(response)
    for name, value in response.headers.items():
        assert "\r" not in value, name
        assert "\n" not in value, name
    if response.content:
        json.loads(response.content)


@THOROUGH
@given(ENDPOINTS, BODIES)
async def test_any_json_anywhere(where: tuple[str, str], body: object) -> None:
    scim, ids = await _service()
    method, endpoint = where
    content = json.dumps(body).encode()
    _is_fine(await scim.client.request(method, BASE + endpoint.format(**ids), content=content))
    # And nothing that came in makes what is there unreadable.
    _is_fine(await scim.client.get(f"{BASE}/?attributes=members"))
    assert (await scim.client.get(f"{BASE}/Users")).status_code == 200


@THOROUGH
@given(
    ENDPOINTS,
    st.binary(max_size=60),
    st.sampled_from([None, "application/json", "text/xml", "\xff;="]),
)
async def test_any_bytes_anywhere(where: tuple[str, str], body: bytes, media_type: str | None) -> None:
    scim, ids = await _service()
    method, endpoint = where
    headers = {} if media_type is None else {b"content-type": media_type.encode("latin-1")}
    _is_fine(await scim.client.request(method, BASE + endpoint.format(**ids), content=body, headers=headers))


@THOROUGH
@given(
    st.sampled_from(["/Users", "/Groups", "/", "/Users/{user}", "/Groups/{group}", "/Schemas"]),
    st.dictionaries(
        st.sampled_from(
            "filter sortBy sortOrder startIndex count cursor attributes excludedAttributes COUNT x".split()
        ),
        st.one_of(
            TEXT.filter(lambda text: "\ud800" not in text),
            st.integers().map(str),
            st.sampled_from(
                ["descending", "emails", "members", "password", "meta", "x509Certificates", "userName"]
            ),
            PATHS.filter(lambda text: "\ud800" not in text).map(lambda path: f'{path} eq "x"'),
        ),
        max_size=4,
    ),
)
async def test_any_parameters(endpoint: str, parameters: dict[str, str]) -> None:
    scim, ids = await _service()
    _is_fine(await scim.client.get(BASE + endpoint.format(**ids), params=parameters))


async def _raw(scim: Service, **more: object) -> tuple[int, dict[bytes, bytes], bytes]:
    """A request as a server hands it over: bytes that no client library would send."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    token = scim.client.headers["authorization"].encode()
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "raw_path": b"/scim/v2/Users",
        "path": "/scim/v2/Users",
        "query_string": b"",
        "headers": [(b"authorization", token)],
        **more,
    }
    await scim.app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@THOROUGH
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=20))
async def test_any_bytes_in_path_query_and_headers(path: bytes, query: bytes, value: bytes) -> None:
    scim = service()
    token = scim.client.headers["authorization"].encode()
    headers = [
        (b"authorization", token),
        (b"host", value),
        (b"if-match", value),
        (b"x-forwarded-host", value),
    ]
    status, answered, body = await _raw(
        scim, raw_path=b"/scim/v2/Users/" + path, query_string=query, headers=headers
    )
    assert status < 500
    assert not any(b"\r" in found or b"\n" in found for found in answered.values())
    json.loads(body)


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
