"""LDAP's messages (RFC 4511, section 4): what a client sent, taken apart strictly; what a server answers, put
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.servers import ber
from tests.servers.ber import ENUMERATED, OCTETS, SEQUENCE, SET, Malformed, Node

PAGED_RESULTS = "1.2.840.113556.1.4.319"  # RFC 2696
START_TLS = "1.3.6.1.4.1.1466.20037"  # RFC 4511, section 4.14
NOTICE_OF_DISCONNECTION = "1.3.6.1.4.1.1466.20036"  # RFC 4511, section 4.4.1

BASE, ONE, SUBTREE = 0, 1, 2
SUCCESS, OPERATIONS_ERROR, PROTOCOL_ERROR, TIME_LIMIT_EXCEEDED, SIZE_LIMIT_EXCEEDED = range(5)
AUTH_METHOD_NOT_SUPPORTED, STRONGER_AUTH_REQUIRED = 7, 8
REFERRAL, ADMIN_LIMIT_EXCEEDED, UNAVAILABLE_CRITICAL_EXTENSION = 10, 11, 12
CONFIDENTIALITY_REQUIRED, NO_SUCH_OBJECT, INVALID_CREDENTIALS = 13, 32, 49
BUSY, UNAVAILABLE, UNWILLING_TO_PERFORM, OTHER = 51, 52, 53, 80

SEARCH_ENTRY, SEARCH_DONE, SEARCH_REFERENCE = 0x64, 0x65, 0x73
_BIND_RESPONSE, _EXTENDED_RESPONSE = 0x61, 0x78
_CONTROLS = 0xA0
_WRITES = {0x66: "modify", 0x68: "add", 0x4A: "delete", 0x6C: "modify DN", 0x6E: "compare"}
_WRITTEN = {"modify": 0x67, "add": 0x69, "delete": 0x6B, "modify DN": 0x6D, "compare": 0x6F}


@dataclass(frozen=True, slots=True)
class Control:
    critical: bool
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every request has."""

    id: int
    controls: Mapping[str, Control] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind(Request):
    name: str
    mechanism: str | None
    """Of SASL; None for a simple bind."""
    credentials: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbind(Request):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Request):
    base: str
    scope: int
    dereference: int
    """0 never, 1 below the base, 2 the base, 3 always."""
    size_limit: int
    time_limit: int
    types_only: bool
    filter: Node
    attributes: tuple[str, ...]

    @property
    def page_size(self) -> int | None:
        """None without the control. Raises Malformed, as `cookie` does."""
        return None if PAGED_RESULTS not in self.controls else self._paging[0].number()

    @property
    def cookie(self) -> bytes:
        return b"" if PAGED_RESULTS not in self.controls else self._paging[1].expect(OCTETS).content

    @property
    def _paging(self) -> Sequence[Node]:
        return ber.read(self.controls[PAGED_RESULTS].value or b"").several(SEQUENCE, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon(Request):
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended(Request):
    name: str
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Request):
    """Anything that changes a directory (and a compare): nothing that a reader sends."""

    kind: str


def parse(message: bytes) -> Request:
    """A client's message. Raises Malformed."""
    parts = ber.read(message).several(SEQUENCE, 2)
    if len(parts) > 3:
        raise Malformed("a message of more than three parts")
    identity = parts[0].number()
    if identity <= 0:
        raise Malformed(f"message id {identity}")
    controls = _parse_controls(parts[2]) if len(parts) == 3 else {}
    return _parse_operation(parts[1], identity, controls)


def _parse_controls(node: Node) -> dict[str, Control]:
    controls = {}
    for child in node.several(_CONTROLS, 0):
        name, *rest = child.several(SEQUENCE, 1)
        critical = rest.pop(0).truth() if rest and rest[0].tag == ber.BOOLEAN else False
        content = rest.pop(0).expect(OCTETS).content if rest else None
        if rest:
            raise Malformed("a control of more than three parts")
        controls[name.text()] = Control(critical, content)
    return controls


def _parse_operation(node: Node, identity: int, controls: Mapping[str, Control]) -> Request:
    match node.tag:
        case 0x60:
            return _parse_bind(node, identity, controls)
        case 0x42 if not node.content:
            return Unbind(id=identity, controls=controls)
        case 0x63:
            return _parse_search(node, identity, controls)
        case 0x50:
            return Abandon(id=identity, controls=controls, target=node.number(0x50))
        case 0x77:
            name, *rest = node.several(0x77, 1)
            value = rest[0].expect(0x81).content if rest else None
            return Extended(id=identity, controls=controls, name=name.text(0x80), value=value)
        case tag if tag in _WRITES:
            return Write(id=identity, controls=controls, kind=_WRITES[tag])
        case tag:
            raise Malformed(f"an operation with the tag {tag:#04x}")


def _parse_bind(node: Node, identity: int, controls: Mapping[str, Control]) -> Bind:
    version, name, authentication = _exactly(3, node)
    if version.number() != 3:
        raise Malformed(f"LDAP version {version.number()}")
    mechanism = None
    if authentication.tag == 0x80:
        credentials = authentication.content
    else:
        first, *rest = authentication.several(0xA3, 1)
        mechanism = first.text()
        credentials = rest[0].expect(OCTETS).content if rest else b""
    return Bind(
        id=identity, controls=controls, name=name.text(), mechanism=mechanism, credentials=credentials
    )


def _parse_search(node: Node, identity: int, controls: Mapping[str, Control]) -> Search:
    base, scope, dereference, size_limit, time_limit, types_only, query, attributes = _exactly(8, node)
    if scope.number(ENUMERATED) not in (BASE, ONE, SUBTREE) or not 0 <= dereference.number(ENUMERATED) <= 3:
        raise Malformed("a scope or a way to dereference that there is not")
    matches(query, {})
    return Search(
        id=identity,
        controls=controls,
        base=base.text(),
        scope=scope.number(ENUMERATED),
        dereference=dereference.number(ENUMERATED),
        size_limit=size_limit.number(),
        time_limit=time_limit.number(),
        types_only=types_only.truth(),
        filter=query,
        attributes=tuple(name.text() for name in attributes.several(SEQUENCE, 0)),
    )


def _exactly(count: int, node: Node) -> Sequence[Node]:
    if len(node.children) != count:
        raise Malformed(f"{len(node.children)} parts where {count} are due")
    return node.children


def matches(query: Node, attributes: Mapping[str, Sequence[bytes]]) -> bool:
    """Whether a filter (RFC 4511, section 4.5.1.7) takes an entry; names of attributes are in lower case.

    Values are compared without regard to case; of extended matches, "all bits set" is known, others take
    nothing. Raises Malformed.
    """
    match query.tag:
        case 0xA0:
            return all(_each(query, attributes))
        case 0xA1:
            return any(_each(query, attributes))
        case 0xA2:
            return not matches(_exactly(1, query)[0], attributes)
        case 0x87:
            return bool(attributes.get(query.text(0x87).lower()))
        case 0xA3 | 0xA5 | 0xA6 | 0xA8:
            return _compares(query, attributes)
        case 0xA4:
            return _contains(query, attributes)
        case 0xA9:
            return _all_bits(query, attributes)
        case tag:
            raise Malformed(f"a filter with the tag {tag:#04x}")


def _each(query: Node, attributes: Mapping[str, Sequence[bytes]]) -> list[bool]:
    # Of all, whatever the first ones say: each has to be well-formed.
    return [matches(child, attributes) for child in query.several(query.tag, 1)]


def _compares(query: Node, attributes: Mapping[str, Sequence[bytes]]) -> bool:
    name, node = _exactly(2, query)
    wanted = node.expect(OCTETS).content.lower()
    values = [value.lower() for value in attributes.get(name.text().lower(), ())]
    if query.tag == 0xA5:
        return any(_in_order(wanted, value) for value in values)
    if query.tag == 0xA6:
        return any(_in_order(value, wanted) for value in values)
    return wanted in values


def _in_order(low: bytes, high: bytes) -> bool:
    return int(low) <= int(high) if low.isdigit() and high.isdigit() else low <= high


def _contains(query: Node, attributes: Mapping[str, Sequence[bytes]]) -> bool:
    name, parts = _exactly(2, query)
    pieces = [(part.tag, part.content.lower()) for part in parts.several(SEQUENCE, 1)]
    if any(tag not in (0x80, 0x81, 0x82) for tag, _ in pieces):
        raise Malformed("a part of a substring that there is not")
    return any(_has(value.lower(), pieces) for value in attributes.get(name.text().lower(), ()))


def _has(value: bytes, pieces: Iterable[tuple[int, bytes]]) -> bool:
    at = 0
    for tag, piece in pieces:
        found = value.find(piece, at)
        if found < 0 or (tag == 0x80 and found):
            return False
        if tag == 0x82:
            return value.endswith(piece) and len(value) - len(piece) >= at
        at = found + len(piece)
    return True


def _all_bits(query: Node, attributes: Mapping[str, Sequence[bytes]]) -> bool:
    parts = {node.tag: node.content for node in query.several(0xA9, 1)}
    if 0x83 not in parts or not parts.keys() <= {0x81, 0x82, 0x83, 0x84}:
        raise Malformed("an extended match without a value, or with a part that there is not")
    # MS-ADTS, section 3.1.1.3.4.4.1
    if parts.get(0x81) != b"1.2.840.113556.1.4.803":
        return False
    bits = int(parts[0x83])
    values = attributes.get(parts.get(0x82, b"").decode().lower(), ())
    return any(int(value) & bits == bits for value in values)


Controls = Sequence[tuple[str, bytes]]


def message(identity: int, operation: bytes, controls: Controls = ()) -> bytes:
    """A message of a server's."""
    parts = [ber.number(identity), operation]
    if controls:
        encoded = (ber.value(SEQUENCE, ber.octets(name), ber.octets(value)) for name, value in controls)
        parts.append(ber.value(_CONTROLS, *encoded))
    return ber.value(SEQUENCE, *parts)


def result(
    tag: int,
    code: int,
    text: str = "",
    *,
    matched: str = "",
    referrals: Sequence[str] = (),
    more: bytes = b"",
) -> bytes:
    """An operation's result (RFC 4511, section 4.1.9)."""
    parts = [ber.number(code, ENUMERATED), ber.octets(matched), ber.octets(text)]
    if referrals:
        parts.append(ber.value(0xA3, *map(ber.octets, referrals)))
    return ber.value(tag, *parts, more)


def bind_response(code: int, text: str = "") -> bytes:
    return result(_BIND_RESPONSE, code, text)


def extended_response(code: int, text: str = "", name: str | None = None) -> bytes:
    return result(_EXTENDED_RESPONSE, code, text, more=ber.octets(name, 0x8A) if name else b"")


def write_response(kind: str, code: int, text: str = "") -> bytes:
    """The answer to a Write."""
    return result(_WRITTEN[kind], code, text)


def search_entry(dn: str, attributes: Mapping[str, Sequence[bytes]]) -> bytes:
    encoded = (
        ber.value(SEQUENCE, ber.octets(name), ber.value(SET, *map(ber.octets, values)))
        for name, values in attributes.items()
    )
    return ber.value(SEARCH_ENTRY, ber.octets(dn), ber.value(SEQUENCE, *encoded))


def search_reference(uris: Iterable[str]) -> bytes:
    return ber.value(SEARCH_REFERENCE, *map(ber.octets, uris))


def paging(cookie: bytes) -> tuple[str, bytes]:
    """The control of a page's result."""
    return PAGED_RESULTS, ber.value(SEQUENCE, ber.number(0), ber.octets(cookie))
