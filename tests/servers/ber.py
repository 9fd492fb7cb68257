"""The Basic Encoding Rules as far as LDAP has them (X.690; RFC 4511, section 5.1): short tags, definite
lengths.

The reading half refuses whatever RFC 4511 does not allow, since it judges a client. The writing half writes
what it is told, since it plays bad servers too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

BOOLEAN, INTEGER, OCTETS, ENUMERATED, SEQUENCE, SET = 0x01, 0x02, 0x04, 0x0A, 0x30, 0x31
_CONSTRUCTED = 0x20
_LARGEST = 10_000_000
"""Of a request's bytes. None of ours gets near."""


class Malformed(Exception):
    """These bytes are not what they should be."""


class Node(NamedTuple):
    """One value with its tag: `content` if it is primitive, `children` if it is constructed."""

    tag: int
    content: bytes
    children: tuple[Node, ...]

    def expect(self, tag: int) -> Node:
        """Itself. Raises Malformed if its tag is another one."""
        if self.tag != tag:
            raise Malformed(f"tag {self.tag:#04x} where {tag:#04x} is due")
        return self

    def several(self, tag: int, at_least: int) -> Sequence[Node]:
        """The children. Raises Malformed for another tag, or if there are fewer."""
        if len(self.expect(tag).children) < at_least:
            raise Malformed(f"{len(self.children)} parts where {at_least} are due")
        return self.children

    def text(self, tag: int = OCTETS) -> str:
        try:
            return self.expect(tag).content.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"not UTF-8: {self.content!r}") from error

    def number(self, tag: int = INTEGER) -> int:
        content = self.expect(tag).content
        if not content or len(content) > 8:
            raise Malformed(f"a number of {len(content)} bytes")
        return int.from_bytes(content, "big", signed=True)

    def truth(self) -> bool:
        content = self.expect(BOOLEAN).content
        if content not in (b"\x00", b"\xff"):
            raise Malformed(f"{content!r} is neither true nor false")
        return content == b"\xff"


def read(data: bytes) -> Node:
    """The one value that `data` is. Raises Malformed."""
    nodes = _read_all(data)
    if len(nodes) != 1:
        raise Malformed(f"{len(nodes)} values where one is due")
    return nodes[0]


def _read_all(data: bytes) -> tuple[Node, ...]:
    nodes = []
    at = 0
    while at < len(data):
        tag, start, end = _header(data, at)
        if end > len(data):
            raise Malformed(f"a length of {end - start} where {len(data) - start} bytes are left")
        content = data[start:end]
        constructed = bool(tag & _CONSTRUCTED)
        nodes.append(Node(tag, b"" if constructed else content, _read_all(content) if constructed else ()))
        at = end
    return tuple(nodes)


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """A value's tag, and where its content starts and ends."""
    if len(data) < at + 2:
        raise Malformed("ends within a header")
    tag, length = data[at], data[at + 1]
    if tag & 0x1F == 0x1F:
        raise Malformed("a tag of several bytes")
    start = at + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            raise Malformed("an indefinite length" if count == 0 else f"a length of {count} bytes")
        if len(data) < start + count:
            raise Malformed("ends within a length")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    return tag, start, start + length


async def receive(reader: asyncio.StreamReader) -> bytes | None:
    """The next whole message of a connection; None at its end.

    Raises Malformed, also if it ends within one.
    """
    data = await reader.read(1)
    if not data:
        return None
    try:
        if data[0] != SEQUENCE:
            raise Malformed(f"a message that starts with {data[0]:#04x}")
        data += await reader.readexactly(1)
        if data[1] & 0x80:
            data += await reader.readexactly(data[1] & 0x7F)
        _, _, end = _header(data, 0)
        if end > _LARGEST:
            raise Malformed(f"a message of {end} bytes")
        return data + await reader.readexactly(end - len(data))
    except asyncio.IncompleteReadError as error:
        raise Malformed("the connection ended within a message") from error


def value(tag: int, *contents: bytes) -> bytes:
    """One value of all these contents."""
    content = b"".join(contents)
    return bytes([tag]) + length_of(len(content)) + content


def length_of(length: int) -> bytes:
    """A length as short as can be."""
    if length < 0x80:
        return bytes([length])
    count = (length.bit_length() + 7) // 8
    return bytes([0x80 | count]) + length.to_bytes(count, "big")


def number(of: int, tag: int = INTEGER) -> bytes:
    return value(tag, of.to_bytes(of.bit_length() // 8 + 1, "big", signed=True))


def octets(of: str | bytes, tag: int = OCTETS) -> bytes:
    return value(tag, of.encode() if isinstance(of, str) else of)
