"""A grammar of hostile SCIM requests: whole ones, as bytes on the wire.

Each part is drawn from what is right, nearly right, and what no client sends: a request gets as far as
its worst part lets it. `{user}` and `{group}` stand for ids of resources that are there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from hypothesis import strategies as st

from aim.bridges.scim.resources import ENTERPRISE, GROUP, USER
from aim.bridges.scim.server import ScimApplication
from tests.unit.scim_client import ERROR, PATCH_OP, TOKEN

BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
PATIENCE = 20
"""Seconds after which an answer counts as a hang, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, but for its token."""

    method: str
    path: bytes
    """Below the prefix of the service."""
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def __repr__(self) -> str:
        """Short enough to be shown when a test fails: some bodies are made of thousands of brackets."""
        shown = self.body if len(self.body) <= 2000 else self.body[:1000] + b" ... " + self.body[-1000:]
        return f"Sent({self.method!r}, {self.path!r}, {self.query!r}, {self.headers!r}, {shown!r})"


# -- text ----------------------------------------------------------------------------------------------------

INJECTIONS = [
    "'; drop table aim.scim_resources; --",
    '" or "1" eq "1',
    '") or (id pr',
    "%' or 1=1 --",
    "\\",
    "%_\\%",
    "$1",
    "{user}",
    "{group}",
]
ODD_TEXT = [
    "",
    " ",
    "\0",
    "\ud800",
    "a\r\nLocation: https://evil.example",
    "../../etc/passwd",
    "%00",
    "%",
    "\u202e\u0000",
    "İıſK",
    "Ä" * 2000,
    "😀" * 600,
    "9" * 400,
    "true",
    "null",
    "NaN",
    "2026-13-45T99:99:99Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
]
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12) | st.sampled_from(
    INJECTIONS
)
TEXT = st.integers(0, 7).flatmap(
    lambda number: NAMES if number else st.sampled_from(ODD_TEXT) | st.text(max_size=12)
)
"""Mostly such that can be stored: one piece that can't spoils a whole request."""

# -- paths of attributes, and filters ------------------------------------------------------------------------

ATTRIBUTES = st.sampled_from(
    "userName externalId displayName emails emails.value emails.type id active meta.lastModified "
    "meta.created meta.version meta members members.value members.type groups groups.value name "
    "name.givenName title password schemas addresses.country x509Certificates photos profileUrl nosuch "
    "no.such".split()
) | st.sampled_from([f"{USER}:userName", f"{ENTERPRISE}:manager", f"{ENTERPRISE}:employeeNumber", ENTERPRISE])
_VALUES = st.one_of(
    TEXT.map(json.dumps),
    TEXT.map(lambda text: f'"{text}"'),
    st.integers().map(str),
    st.sampled_from(["true", "false", "null", "1e999", "-0", '"{user}"', "2026-01-01T00:00:00Z", "", '"']),
)
_COMPARED = st.builds(
    lambda attribute, operator, value: f"{attribute} {operator} {value}",
    ATTRIBUTES,
    st.sampled_from("eq ne co sw ew gt ge lt le EQ pr xx".split()),
    _VALUES,
)
_PRESENT = ATTRIBUTES.map(lambda attribute: f"{attribute} pr")


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(
            lambda left, word, right: f"{left} {word} {right}",
            inner,
            st.sampled_from(["and", "or", ""]),
            inner,
        ),
        inner.map(lambda one: f"not ({one})"),
        inner.map(lambda one: f"({one}"),
        st.builds(
            lambda attribute, one: f"{attribute}[{one}]",
            st.sampled_from(["emails", "members", "name"]),
            inner,
        ),
        st.builds(lambda one, depth: "(" * depth + one + ")" * depth, inner, st.sampled_from([1, 40, 400])),
        st.builds(lambda one, times: " or ".join([one] * times), inner, st.sampled_from([2, 60, 300])),
    )


FILTERS = st.recursive(_COMPARED | _PRESENT, _combined, max_leaves=4) | TEXT
PATHS = st.one_of(
    ATTRIBUTES,
    st.builds(
        lambda one, tail: f"emails[{one}]{tail}", FILTERS, st.sampled_from(["", ".value", ".nosuch", "["])
    ),
    st.builds(lambda one: f"members[{one}]", FILTERS),
    TEXT,
)

# -- JSON ----------------------------------------------------------------------------------------------------

KEYS = (
    ATTRIBUTES | TEXT | st.sampled_from("schemas value type primary $ref display path op Operations".split())
)
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON: st.SearchStrategy[Any] = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
MEMBERS = st.lists(
    st.fixed_dictionaries(
        {"value": st.sampled_from(["{user}", "{group}", "nobody"]) | TEXT},
        optional={"$ref": _PLAIN, "type": TEXT},
    ),
    max_size=3,
)
RESOURCES = st.builds(
    lambda right, odd: {**right, **odd},
    st.fixed_dictionaries(
        {
            "schemas": st.sampled_from([[USER, GROUP]] * 6 + [[USER, ENTERPRISE], [GROUP], [], ["urn:no"]]),
            "userName": NAMES,
            "displayName": NAMES,
        },
        optional={
            "externalId": TEXT,
            "id": TEXT,
            "active": st.sampled_from([True, False, "True", "false", "maybe", 1, None]),
            "members": MEMBERS | JSON,
            "emails": st.lists(st.fixed_dictionaries({"value": TEXT}, optional={"type": TEXT}), max_size=3)
            | JSON,
            "meta": JSON,
            ENTERPRISE: st.fixed_dictionaries({}, optional={"manager": JSON, "department": TEXT}) | JSON,
        },
    ),
    st.just({}) | st.dictionaries(KEYS, JSON, max_size=2),
)
KNOWN = st.sampled_from(
    "members userName active name name.givenName emails emails.value displayName externalId title roles "
    "addresses x509Certificates photos profileUrl password".split()
) | st.sampled_from(
    [
        'emails[type eq "work"].value',
        'emails[type eq "home"]',
        'roles[primary eq "True"].value',
        'members[value eq "{user}"]',
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
    MEMBERS,
    st.dictionaries(
        st.sampled_from(["value", "type", "givenName", "department", "manager", "primary"]),
        st.text(max_size=5),
    ),
)
_RIGHT = st.builds(
    lambda op, path, value: {"op": op, "path": path, "value": value},
    st.sampled_from(["add", "Replace"]),
    st.sampled_from(
        [
            "displayName",
            "externalId",
            'emails[type eq "work"].value',
            "name.givenName",
            f"{ENTERPRISE}:manager",
        ]
    ),
    NAMES,
) | st.builds(
    lambda op, ids: {"op": op, "path": "members", "value": [{"value": id_} for id_ in ids]},
    st.sampled_from(["Add", "replace", "Remove"]),
    st.lists(st.just("{user}") | NAMES, max_size=3),
)
OPERATIONS = _RIGHT | st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "Replace", "remove", "Add", "replace", "Remove", "move"])},
    optional={
        "path": KNOWN | PATHS,
        "value": LIKELY | st.dictionaries(KNOWN, LIKELY, max_size=3) | RESOURCES | JSON,
    },
)
PATCHES = st.builds(
    lambda several: {"schemas": [PATCH_OP], "Operations": several},
    st.lists(OPERATIONS, min_size=1, max_size=3),
)
SEARCHES = st.fixed_dictionaries(
    {"schemas": st.just([SEARCH])},
    optional={
        "filter": FILTERS | JSON,
        "attributes": st.lists(ATTRIBUTES | TEXT, max_size=3) | JSON,
        "excludedAttributes": st.lists(ATTRIBUTES | TEXT, max_size=3) | JSON,
        "sortBy": ATTRIBUTES | JSON,
        "sortOrder": st.sampled_from(["ascending", "descending", "sideways"]) | JSON,
        "startIndex": st.integers() | JSON,
        "count": st.integers() | JSON,
        "cursor": TEXT | JSON,
    },
)
BULKS = st.fixed_dictionaries(
    {
        "schemas": st.just([BULK]),
        "Operations": st.lists(
            st.fixed_dictionaries(
                {
                    "method": st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "GET", "x"]),
                    "path": st.sampled_from(
                        ["/Users", "/Groups", "/Users/{user}", "/Users/bulkId:a", "/Bulk", "//"]
                    )
                    | TEXT,
                },
                optional={
                    "bulkId": st.sampled_from(["a", "b"]) | TEXT,
                    "data": RESOURCES | PATCHES | JSON,
                    "version": TEXT,
                },
            ),
            max_size=3,
        )
        | JSON,
    },
    optional={"failOnErrors": st.integers() | JSON},
)


def _broken(document: object, how: str) -> bytes:
    """The document as bytes: right, or in a way that is not."""
    text = json.dumps(document)
    match how:
        case "cut":
            return text[:-1].encode()
        case "twice":
            return (text * 2).encode()
        case "raw":
            return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
        case "utf-16":
            return text.encode("utf-16")
        case "deep":
            return b'{"a":' * 3000 + text.encode() + b"}" * 3000
        case "wide":
            return b"[" + b"0," * 20_000 + text.encode() + b"]"
        case "constants":
            return text.replace("null", "NaN").replace("1", "Infinity").encode()
        case "number":
            return text.replace("1", "1" + "0" * 5000).encode()
    return text.encode()


BODIES = st.one_of(
    st.builds(
        _broken,
        st.one_of(RESOURCES, PATCHES, SEARCHES, BULKS, JSON),
        st.sampled_from(
            ["", "", "", "", "cut", "twice", "raw", "utf-16", "deep", "wide", "constants", "number"]
        ),
    ),
    st.binary(max_size=30),
)

# -- the wire ------------------------------------------------------------------------------------------------

METHODS = st.sampled_from("GET POST PUT PATCH DELETE".split() * 3 + "HEAD OPTIONS TRACE patch X".split())
_SEGMENTS = st.one_of(
    TEXT.map(lambda text: quote(text, safe="", errors="surrogatepass").encode()),
    st.sampled_from(
        [
            b"%0d%0aSet-Cookie:%20a",
            b"%00",
            b"%ff",
            b"%c0%af",
            b"%ed%a0%80",
            b"%",
            b"%2",
            b"%zz",
            b"%2e%2e",
            b"%2f",
            b"%252f",
            b"..",
            b";a=b",
            b"a" * 3000,
        ]
    ),
    st.binary(max_size=8),
)
ADDRESSES = st.one_of(
    st.sampled_from(
        b"/Users /Groups /Users/{user} /Groups/{group} /Bulk /.search /Users/.search /Groups/.search /Me / "
        b"/Schemas /ResourceTypes/User /ServiceProviderConfig /users /Users/ //Users /Users/{group} "
        b"/Cars".split()
    ),
    st.builds(
        lambda head, tail: head + b"/" + tail,
        st.sampled_from([b"/Users", b"/Groups", b"/Schemas", b"/Users/{user}", b""]),
        _SEGMENTS,
    ),
)
_NUMBERS = st.integers().map(str) | st.sampled_from(["-1", "0", "1", "1e3", "9" * 40, " 2", "+3", "٣", ""])
_PARAMETERS = st.one_of(
    st.tuples(st.sampled_from(["filter", "FILTER"]), FILTERS),
    st.tuples(st.sampled_from(["startIndex", "count", "Count"]), _NUMBERS),
    st.tuples(st.sampled_from(["sortBy", "attributes", "excludedAttributes"]), PATHS),
    st.tuples(st.just("sortOrder"), st.sampled_from(["ascending", "descending", "up"])),
    st.tuples(st.just("cursor"), TEXT),
    st.tuples(TEXT, TEXT),
)


def _query(parameters: list[tuple[str, str]]) -> bytes:
    said = (
        f"{quote(key, safe='', errors='surrogatepass')}={quote(value, safe='{}', errors='surrogatepass')}"
        for key, value in parameters
    )
    return "&".join(said).encode()


QUERIES = st.lists(_PARAMETERS, max_size=3).map(_query) | st.binary(max_size=12)
_HEADER_VALUES = st.binary(max_size=10) | st.sampled_from(
    [
        b"*",
        b'W/"1"',
        b'"1"',
        b'W/"1", W/"2"',
        b'W/"',
        b"evil.example",
        b"a\r\nb: c",
        b"/prefix",
        b"https, http",
    ]
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"if-match",
                b"if-none-match",
                b"host",
                b"x-forwarded-host",
                b"x-forwarded-proto",
                b"x-forwarded-prefix",
            ]
        ),
        _HEADER_VALUES,
    )
    | st.tuples(
        st.just(b"content-type"),
        st.sampled_from(
            [
                b"application/scim+json",
                b"application/json; charset=utf-8",
                b"application/merge-patch+json",
                b"text/plain",
                b"multipart/form-data; boundary=x",
                b"application/x-www-form-urlencoded",
                b"\xff",
                b"application/json+",
            ]
        ),
    ),
    max_size=3,
).map(tuple)


def _plausible(method: str, address: bytes, body: object = None, query: bytes = b"") -> Sent:
    return Sent(method, address, query, (), b"" if body is None else _broken(body, ""))


PLAUSIBLE = st.one_of(
    st.builds(_plausible, st.just("POST"), st.sampled_from([b"/Users", b"/Groups"]), RESOURCES),
    st.builds(_plausible, st.just("PUT"), st.sampled_from([b"/Users/{user}", b"/Groups/{group}"]), RESOURCES),
    st.builds(_plausible, st.just("PATCH"), st.sampled_from([b"/Users/{user}", b"/Groups/{group}"]), PATCHES),
    st.builds(_plausible, st.just("POST"), st.sampled_from([b"/.search", b"/Groups/.search"]), SEARCHES),
    st.builds(_plausible, st.just("POST"), st.just(b"/Bulk"), BULKS),
    st.builds(_plausible, st.just("GET"), st.sampled_from([b"/Users", b"/Groups", b"/"]), query=QUERIES),
)
"""Requests of which nothing but what they say is odd."""
REQUESTS = PLAUSIBLE | st.builds(Sent, METHODS, ADDRESSES, QUERIES, HEADERS, BODIES)


# -- sending -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def send(
    app: ScimApplication, sent: Sent, ids: Mapping[str, str], prefix: str = "/scim/v2"
) -> Answered:
    """Hands a request to the application as a server does: bytes that no client library would send."""

    def filled(given: bytes) -> bytes:
        for name, id_ in ids.items():
            given = given.replace(b"{%s}" % name.encode(), id_.encode())
        return given

    body = filled(sent.body)
    pieces = [body[: len(body) // 2], body[len(body) // 2 :]]
    raw_path = prefix.encode() + filled(sent.path)
    answers: list[Any] = []

    async def receive() -> Any:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def take(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": sent.method,
        "scheme": "http",
        "raw_path": raw_path,
        "path": unquote(raw_path.decode("latin-1"), errors="replace"),
        "query_string": filled(sent.query),
        "headers": [(b"authorization", f"Bearer {TOKEN}".encode()), *sent.headers],
    }
    async with asyncio.timeout(PATIENCE):
        await app(scope, receive, take)
    start, end = answers
    return Answered(start["status"], dict(start["headers"]), end["body"])


def assert_harmless(answered: Answered) -> None:
    """Not our fault, SCIM from head to foot, and not a word of how we are built."""
    assert answered.status < 500 or answered.status == 501, answered
    for name, value in answered.headers.items():
        assert b"\r" not in value, name
        assert b"\n" not in value, name
    assert b"Traceback" not in answered.body
    if answered.body:
        assert answered.headers[b"content-type"] == b"application/scim+json"
        assert isinstance(answered.json, dict)
    if answered.status >= 400:
        assert answered.json["schemas"] == [ERROR]
        assert answered.json["status"] == str(answered.status)


async def assert_usable(app: ScimApplication, ids: Mapping[str, str]) -> None:
    """Whatever came in, what is there can be read, and is who it was."""
    for path in (b"/Users", b"/Groups", b"/"):
        listed = await send(app, Sent("GET", path, b"", (), b""), ids)
        assert (listed.status, listed.json["schemas"]) == (200, [LIST])
    for name, path in (("user", b"/Users/{user}"), ("group", b"/Groups/{group}")):
        found = await send(app, Sent("GET", path, b"", (), b""), ids)
        assert found.status in {200, 404}
        assert found.status == 404 or found.json["id"] == ids[name]
