"""Decodes what an LDAP server sends (RFC 4511), straight from the bytes as they came. Pure.

In comes a buffer and the place of a message in it; out go plain values. It reads the subset of BER that LDAP
allows (RFC 4511, 5.1): definite lengths, primitive strings. Anything else is Malformed, and so is a length
that does not fit exactly into what surrounds it: nothing is ever read beyond the end of a message.

This is where a read spends its time, so `attributes` is written for speed: the two checks that each part ends
where its parent says make checks in between unnecessary.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from aim.directory.entries import Entry

MAX_MESSAGE = 64 * 1024 * 1024
"""A group of half a million members fits. Whoever sends more is broken or hostile."""

# Protocol operations, as the tags of a message's second element (RFC 4511, appendix B).
BIND_RESPONSE = 0x61
SEARCH_ENTRY = 0x64
SEARCH_DONE = 0x65
SEARCH_REFERENCE = 0x73
EXTENDED_RESPONSE = 0x78
INTERMEDIATE = 0x79

_BOOLEAN, _INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE, _SET = 0x01, 0x02, 0x04, 0x0A, 0x30, 0x31
_CONTROLS = 0xA0
_REFERRAL = 0xA3
_CONTEXT = 0x80
"""The bit of tags that mean something only where they are: what may follow a result (RFC 4511, 4)."""

_MAX_ID = 2**31 - 1

_DESCRIPTION = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]*(?:;[A-Za-z0-9._*=-]+)*")
_MAX_NAMES = 4096


class Malformed(ValueError):
    """These bytes are no LDAP message."""


class Message(NamedTuple):
    """Where the parts of one message are in its buffer."""

    id: int
    operation: int
    """The tag that says what it is."""
    start: int
    """The content of the operation: from here …"""
    end: int
    """… to here."""
    stop: int
    """The end of the message; controls are between `end` and here."""


class Result(NamedTuple):
    """How an operation ended (RFC 4511, 4.1.9)."""

    code: int
    matched_dn: str
    message: str
    referrals: tuple[str, ...]
    rest: int
    """Where what follows in the response begins."""


class Names(dict[bytes, str]):
    """Attribute descriptions as they came → in lower case. Remembers them, as there are few."""

    def __init__(self) -> None:
        super().__init__()
        self.ranged = 0
        """How often a description said that its values are only a part of all (`member;range=0-1499`)."""

    def __missing__(self, raw: bytes) -> str:
        if not _DESCRIPTION.fullmatch(raw):
            raise Malformed("the name of an attribute is none")
        name = raw.decode("ascii").lower()
        if ";range=" in name:
            self.ranged += 1
        elif len(self) < _MAX_NAMES:
            self[raw] = name
        return name


# -- messages ------------------------------------------------------------------------------------------------


def message(buffer: bytes, start: int) -> Message | None:
    """The message that begins at `start`; None if its end is not there yet. Raises Malformed."""
    there = len(buffer) - start
    if there < 2:
        return None
    length = buffer[start + 1]
    place = start + 2
    if length >= 0x80:
        if not 0x80 < length <= 0x84:
            _refuse("an indefinite length, or one of more than four octets")
        place += length & 0x7F
        length = int.from_bytes(buffer[start + 2 : place], "big")
    if buffer[start] != _SEQUENCE or length > MAX_MESSAGE:
        _refuse("no message begins where one should, or one that is too long")
    stop = place + length
    if stop > len(buffer):
        return None
    return _message(buffer, place, stop)


def _message(buffer: bytes, start: int, stop: int) -> Message:
    try:
        place, end = _element(buffer, start, stop, _INTEGER)
        number = _integer(buffer, place, end)
        if not 0 <= number <= _MAX_ID:
            _refuse("a message id that is none")
        operation = buffer[end]
        length = buffer[end + 1]
        place = end + 2
        if length >= 0x80:
            length, place = _long(buffer, end + 1)
        end = place + length
        if end != stop and (end > stop or buffer[end] != _CONTROLS):
            _refuse("something other than controls follows an operation")
    except IndexError:
        _cut()
    return Message(number, operation, place, end, stop)


def entries_at(buffer: bytes, start: int, beginning: bytes) -> tuple[list[tuple[int, int]], int]:
    """The contents of all entries that are there from `start` on, one message after the other, each with that
    `beginning`; and the place where something else is, or what is not all there. What is odd is something
    else: `message` says what.
    """
    found = []
    there = len(buffer)
    skip = len(beginning)
    try:
        while buffer[start] == _SEQUENCE:
            length = buffer[start + 1]
            place = start + 2
            if length >= 0x80:
                length, place = _long(buffer, start + 1)
            stop = place + length
            if stop > there or not buffer.startswith(beginning, place):
                break
            place += skip
            length = buffer[place]
            place += 1
            if length >= 0x80:
                length, place = _long(buffer, place - 1)
            if place + length != stop:
                break
            found.append((place, stop))
            start = stop
    except (IndexError, Malformed):
        pass
    return found, start


def beginning(number: int) -> bytes:
    """How an entry that answers request `number` begins, after the tag and length of the whole message."""
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes((_INTEGER, len(octets))) + octets + bytes((SEARCH_ENTRY,))


def missing(buffer: bytes, start: int) -> int:
    """How many bytes of the message that begins at `start`, and is not all there, are to come at least."""
    there = len(buffer) - start
    header = 2 + (buffer[start + 1] & 0x7F if there > 1 and buffer[start + 1] > 0x80 else 0)
    if there < header:
        return header - there
    length, place = _long(buffer, start + 1)
    return place + length - len(buffer)


def entry(buffer: bytes, start: int, end: int, names: Names) -> Entry:
    """A SearchResultEntry: its DN and its attributes, without those that have no value. Raises Malformed."""
    try:
        place, after = _element(buffer, start, end, _OCTETS)
        dn = buffer[place:after].decode("utf-8")
        return Entry(dn, attributes(buffer, _inside(buffer, after, end, _SEQUENCE), end, names))
    except IndexError:
        _cut()
    except UnicodeDecodeError as error:
        raise Malformed("the DN of an entry is not UTF-8") from error


def attributes(  # noqa: C901 - the inner loop of every read, where a call costs as much as what it does
    buffer: bytes, start: int, end: int, names: Names
) -> dict[str, tuple[bytes, ...]]:
    """A PartialAttributeList. Raises Malformed, or IndexError where the buffer ends too early."""
    found: dict[str, tuple[bytes, ...]] = {}
    while start < end:
        length = buffer[start + 1]
        place = start + 2
        if length >= 0x80:
            length, place = _long(buffer, start + 1)
        stop = place + length
        length = buffer[place + 1]
        after = place + 2
        if length >= 0x80:
            length, after = _long(buffer, place + 1)
        if buffer[start] != _SEQUENCE or buffer[place] != _OCTETS:
            _refuse("an attribute is none")
        place = after + length
        name = names[buffer[after:place]]
        length = buffer[place + 1]
        inside = place + 2
        if length >= 0x80:
            length, inside = _long(buffer, place + 1)
        if inside + length != stop or buffer[place] != _SET:
            _refuse("the values of an attribute don't fill it")
        if length and buffer[inside + 1] + 2 == length < 0x82 and buffer[inside] == _OCTETS:
            values: tuple[bytes, ...] = (buffer[inside + 2 : stop],)
        else:
            values = _values(buffer, inside, stop)
        if name in found:
            values = found[name] + values
        if values:
            found[name] = values
        start = stop
    if start != end:
        _refuse("an attribute is longer than its entry")
    return found


def _values(buffer: bytes, start: int, end: int) -> tuple[bytes, ...]:
    values = []
    while start < end:
        length = buffer[start + 1]
        place = start + 2
        if length >= 0x80:
            length, place = _long(buffer, start + 1)
        if buffer[start] != _OCTETS:
            _refuse("a value is no string of octets")
        start = place + length
        values.append(buffer[place:start])
    if start != end:
        _refuse("a value is longer than its attribute")
    return tuple(values)


def reference(buffer: bytes, start: int, end: int) -> tuple[str, ...]:
    """The URIs of a SearchResultReference: at least one. Raises Malformed."""
    try:
        uris = _values(buffer, start, end)
    except IndexError:
        _cut()
    if not uris:
        _refuse("a reference to nowhere")
    return tuple(_text(uri) for uri in uris)


def result(buffer: bytes, start: int, end: int) -> Result:
    """An LDAPResult, alone or at the beginning of another response. Raises Malformed."""
    try:
        place, after = _element(buffer, start, end, _ENUMERATED)
        code = _integer(buffer, place, after)
        place, after = _element(buffer, after, end, _OCTETS)
        matched = _text(buffer[place:after])
        place, after = _element(buffer, after, end, _OCTETS)
        said = _text(buffer[place:after])
        referrals: tuple[str, ...] = ()
        if after < end and buffer[after] == _REFERRAL:
            place, after = _element(buffer, after, end, _REFERRAL)
            referrals = tuple(_text(uri) for uri in _values(buffer, place, after))
        if after < end and not buffer[after] & _CONTEXT:
            _refuse("a result with something behind it")
        return Result(code, matched, said, referrals, after)
    except IndexError:
        _cut()


def named(buffer: bytes, start: int, end: int, first: int) -> tuple[str, bytes | None]:
    """Name and value of an ExtendedResponse or IntermediateResponse: two optional strings, tagged `first` and
    `first + 1`. Raises Malformed."""
    name, value = "", None
    try:
        if start < end and buffer[start] == first:
            place, start = _element(buffer, start, end, first)
            name = _text(buffer[place:start])
        if start < end:
            place, start = _element(buffer, start, end, first + 1)
            value = buffer[place:start]
    except IndexError:
        _cut()
    if start != end:
        _refuse("something follows the value of a response")
    return name, value


def controls(buffer: bytes, start: int, end: int) -> dict[str, bytes]:
    """Controls of a message: object identifier → value, empty for one without. Raises Malformed."""
    found: dict[str, bytes] = {}
    if start == end:
        return found
    try:
        start = _inside(buffer, start, end, _CONTROLS)
        while start < end:
            place, stop = _element(buffer, start, end, _SEQUENCE)
            oid, value = _control(buffer, place, stop)
            found[oid] = value
            start = stop
    except IndexError:
        _cut()
    return found


def _control(buffer: bytes, start: int, end: int) -> tuple[str, bytes]:
    place, after = _element(buffer, start, end, _OCTETS)
    oid = _text(buffer[place:after])
    if after < end and buffer[after] == _BOOLEAN:
        _, after = _element(buffer, after, end, _BOOLEAN)
    if after == end:
        return oid, b""
    place, after = _element(buffer, after, end, _OCTETS)
    if after != end:
        _refuse("something follows the value of a control")
    return oid, buffer[place:after]


# -- the values of controls ----------------------------------------------------------------------------------


def members(value: bytes, tag: int = _SEQUENCE) -> list[tuple[int, bytes]]:
    """The elements of a value that is one SEQUENCE (or has that other tag): tag and content. Raises
    Malformed."""
    found = []
    try:
        start = _inside(value, 0, len(value), tag)
        while start < len(value):
            kind = value[start]
            place, start = _element(value, start, len(value), kind)
            found.append((kind, value[place:start]))
    except IndexError:
        _cut()
    return found


def paged_cookie(value: bytes) -> bytes:
    """The cookie in the value of a paged results control (RFC 2696, 2); b"" after the last page. Raises
    Malformed."""
    parts = members(value)
    if [kind for kind, _ in parts] != [_INTEGER, _OCTETS]:
        _refuse("the control for pages holds something else")
    return parts[1][1]


def encode(tag: int, content: bytes) -> bytes:
    """One element: for the values of controls that ldap3 does not know."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


# -- elements ------------------------------------------------------------------------------------------------


def _element(buffer: bytes, start: int, end: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at `start` begins and ends; it has that tag and ends by `end`."""
    if start >= end or buffer[start] != tag:
        _refuse("a part of a message is missing or has the wrong type")
    length, place = _long(buffer, start + 1)
    if place + length > end:
        _refuse("a part is longer than what it is in")
    return place, place + length


def _inside(buffer: bytes, start: int, end: int, tag: int) -> int:
    """Where the content of the element begins that fills the buffer from `start` to `end`."""
    if buffer[start] != tag:
        _refuse("a part of a message has the wrong type")
    length = buffer[start + 1]
    place = start + 2
    if length >= 0x80:
        length, place = _long(buffer, start + 1)
    if place + length != end:
        _refuse("a part does not end where what it is in ends")
    return place


def _long(buffer: bytes, start: int) -> tuple[int, int]:
    """The length that begins at `start`, and where the content begins."""
    first = buffer[start]
    start += 1
    if first < 0x80:
        return first, start
    octets = first & 0x7F
    if not 1 <= octets <= 4:
        _refuse("an indefinite length, or one of more than four octets")
    if start + octets > len(buffer):
        _cut()
    return int.from_bytes(buffer[start : start + octets], "big"), start + octets


def _integer(buffer: bytes, start: int, end: int) -> int:
    if not 1 <= end - start <= 8:
        _refuse("a number of no or of too many octets")
    return int.from_bytes(buffer[start:end], "big", signed=True)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _cut() -> NoReturn:
    raise Malformed("a message ends too early")


def _refuse(what: str) -> NoReturn:
    raise Malformed(what)
