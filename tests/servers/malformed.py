"""Bytes that a server may send where the entries of a search are due; each is made for the search's message
id.

MALFORMED  none of them is LDAP as RFC 4511 has it: a client refuses it, whatever comes behind
UNUSUAL    all of them are: a client reads on
"""

from __future__ import annotations

from collections.abc import Callable

from tests.servers import ldap_messages as ldap
from tests.servers.ber import (
    BOOLEAN,
    ENUMERATED,
    INTEGER,
    OCTETS,
    SEQUENCE,
    SET,
    length_of,
    number,
    octets,
    value,
)

Sample = Callable[[int], bytes]

_DN = "CN=odd,OU=people,DC=example,DC=com"
_NAMES = {"objectClass": [b"user"], "cn": [b"odd"]}


def _message(operation: bytes) -> Sample:
    return lambda identity: value(SEQUENCE, number(identity), operation)


def _attributes(*attributes: bytes) -> Sample:
    return _message(value(ldap.SEARCH_ENTRY, octets(_DN), value(SEQUENCE, *attributes)))


def _attribute(*parts: bytes) -> Sample:
    return _attributes(value(SEQUENCE, *parts))


def _done(*parts: bytes) -> Sample:
    return _message(value(ldap.SEARCH_DONE, *parts))


def _controls(controls: bytes) -> Sample:
    done = ldap.result(ldap.SEARCH_DONE, ldap.SUCCESS)
    return lambda identity: value(SEQUENCE, number(identity), done, controls)


def _paging(content: bytes) -> Sample:
    return _controls(value(0xA0, value(SEQUENCE, octets(ldap.PAGED_RESULTS), octets(content))))


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x30" + length_of(len(data)) + data
    return data


_ENTRY = ldap.search_entry(_DN, _NAMES)
_CN = value(SEQUENCE, octets("cn"), value(SET, octets("odd")))

MALFORMED: dict[str, Sample] = {
    # Frames
    "another protocol": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": lambda _: bytes(64),
    "an empty message": lambda _: b"\x30\x00",
    "an indefinite length": lambda identity: b"\x30\x80" + number(identity) + _ENTRY + b"\x00\x00",
    "a reserved length": lambda _: b"\x30\xff" + bytes(127),
    "a length of nine bytes": lambda _: b"\x30\x89" + bytes(8) + b"\x05" + number(1) + b"\x42\x00",
    "a length of four gigabytes": lambda _: b"\x30\x84\xff\xff\xff\xff" + number(1),
    "a length of sixteen exabytes": lambda _: b"\x30\x88" + b"\xff" * 8,
    "less than its length": lambda identity: ldap.message(identity, _ENTRY)[:-1],
    "more than its length": lambda identity: ldap.message(identity, _ENTRY) + b"\x00",
    "a message that is a set": lambda identity: value(SET, number(identity), _ENTRY),
    "a tag of several bytes": lambda identity: value(SEQUENCE, number(identity), b"\x7f\x84\x01\x00"),
    # Message ids
    "no message id": lambda _: value(SEQUENCE, _ENTRY),
    "a message id without bytes": lambda _: value(SEQUENCE, value(INTEGER), _ENTRY),
    "a message id of nine bytes": lambda identity: value(
        SEQUENCE, value(INTEGER, bytes([*[0] * 8, identity])), _ENTRY
    ),
    "a negative message id": lambda identity: value(SEQUENCE, number(-identity), _ENTRY),
    "a message id that is an enumerated": lambda identity: value(
        SEQUENCE, number(identity, ENUMERATED), _ENTRY
    ),
    "a message id of nobody": lambda identity: ldap.message(identity + 1000, _ENTRY),
    # Operations
    "no operation": lambda identity: value(SEQUENCE, number(identity)),
    "an unknown operation": _message(value(0x7E, octets(_DN))),
    "an operation of clients": _message(octets(_DN, 0x4A)),
    "a response to a bind": _message(ldap.bind_response(ldap.SUCCESS)),
    "an operation without its class": _message(value(SEQUENCE, octets(_DN), value(SEQUENCE, _CN))),
    "a primitive entry": _message(octets(_DN, 0x44)),
    # Entries
    "an entry without attributes": _message(value(ldap.SEARCH_ENTRY, octets(_DN))),
    "an entry with something behind": _message(
        value(ldap.SEARCH_ENTRY, octets(_DN), value(SEQUENCE, _CN), octets("x"))
    ),
    "a DN that is no string": _message(value(ldap.SEARCH_ENTRY, number(1), value(SEQUENCE, _CN))),
    "a DN that is not UTF-8": _message(
        value(ldap.SEARCH_ENTRY, octets(b"CN=\xff\xfe"), value(SEQUENCE, _CN))
    ),
    "attributes that are a set": _message(value(ldap.SEARCH_ENTRY, octets(_DN), value(SET, _CN))),
    "an attribute that is a set": _attributes(value(SET, octets("cn"), value(SET, octets("odd")))),
    "an attribute without values": _attribute(octets("cn")),
    "an attribute with something behind": _attribute(octets("cn"), value(SET, octets("odd")), octets("x")),
    "an attribute's name that is a number": _attribute(number(1), value(SET, octets("odd"))),
    "an attribute's name that is not UTF-8": _attribute(octets(b"\xff"), value(SET, octets("odd"))),
    "values that are a sequence": _attribute(octets("cn"), value(SEQUENCE, octets("odd"))),
    "a value that is a number": _attribute(octets("cn"), value(SET, number(1))),
    "a value that is constructed": _attribute(octets("cn"), value(SET, value(0x24, octets("odd")))),
    "a value longer than its set": _attribute(octets("cn"), b"\x31\x05\x04\x7fodd"),
    "a set longer than its attribute": _attribute(octets("cn"), b"\x31\x7f\x04\x03odd"),
    "a set that ends within a value": _attributes(b"\x30\x0b\x04\x02cn\x31\x03\x04\x03odd"),
    "garbage within garbage": _attribute(octets("cn"), value(SET, _nested(10_000))),
    # References
    "a reference to nowhere": _message(value(ldap.SEARCH_REFERENCE)),
    "a reference that is a number": _message(value(ldap.SEARCH_REFERENCE, number(1))),
    # Results
    "an empty result": _done(),
    "a result without a text": _done(number(0, ENUMERATED), octets("")),
    "a result without bytes": _done(value(ENUMERATED), octets(""), octets("")),
    "a result that is a number": _done(number(0), octets(""), octets("")),
    "a result that is true": _done(value(BOOLEAN, b"\xff"), octets(""), octets("")),
    "a result with the wrong end": _done(number(0, ENUMERATED), octets(""), octets(""), octets("x")),
    # Controls
    "controls that are a sequence": _controls(value(SEQUENCE)),
    "a control that is a string": _controls(value(0xA0, octets(ldap.PAGED_RESULTS))),
    "a control without a name": _controls(value(0xA0, value(SEQUENCE))),
    "a page's control without a value": _controls(value(0xA0, value(SEQUENCE, octets(ldap.PAGED_RESULTS)))),
    "a page's control that is empty": _paging(b""),
    "a page's control that is no sequence": _paging(octets("cookie")),
    "a page's control without a cookie": _paging(value(SEQUENCE, number(0))),
    "a page's control whose cookie is a number": _paging(value(SEQUENCE, number(0), number(0))),
    "a page's control with something behind": _paging(value(SEQUENCE, number(0), octets("")) + b"\x00"),
}


def _long(tag: int, content: bytes) -> bytes:
    """A value with its length in four bytes, as Active Directory writes all of them."""
    return bytes([tag, 0x84]) + len(content).to_bytes(4, "big") + content


def _long_lengths(identity: int) -> bytes:
    attribute = _long(SEQUENCE, _long(OCTETS, b"cn") + _long(SET, _long(OCTETS, b"odd")))
    entry = _long(ldap.SEARCH_ENTRY, _long(OCTETS, _DN.encode()) + _long(SEQUENCE, attribute))
    return _long(SEQUENCE, _long(INTEGER, bytes([identity])) + entry)


def _with_control(identity: int) -> bytes:
    return ldap.message(identity, _ENTRY, [("1.3.6.1.4.1.4203.666.1", b"nobody knows it")])


UNUSUAL: dict[str, Sample] = {
    "lengths longer than they need": _long_lengths,
    "an unknown control with an entry": _with_control,
    "an intermediate response": _message(value(0x79, octets("1.3.6.1.4.1.4203.1.9.1.4", 0x80))),
    "an unsolicited notification": lambda _: ldap.message(
        0, ldap.extended_response(ldap.SUCCESS, "", "1.2.3.4")
    ),
    "an entry with no attributes": _message(ldap.search_entry(_DN, {})),
    "an attribute with no values": _message(ldap.search_entry(_DN, {"cn": []})),
    "values of many kinds": _message(
        ldap.search_entry(_DN, {"cn": [b"", b"\x00", b"\xff\xfe", b"x" * 70_000]})
    ),
}
