"""The reader of LDAP messages: the same as ldap3's and pyasn1's for what is well-formed, else an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ldap3.operation.search import search_result_entry_response_to_dict_fast
from ldap3.protocol.rfc2696 import paged_search_control
from ldap3.protocol.rfc4511 import (
    LDAPDN,
    URI,
    AttributeDescription,
    Controls,
    LDAPMessage,
    LDAPString,
    MessageID,
    PartialAttribute,
    PartialAttributeList,
    ProtocolOp,
    Referral,
    ResultCode,
    SearchResultDone,
    SearchResultEntry,
    SearchResultReference,
    Vals,
)
from ldap3.utils.asn1 import decode_message_fast
from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import PyAsn1Error

from aim.bridges.ldap import ber
from tests.servers.malformed import MALFORMED, UNUSUAL

Attributes = list[tuple[str, list[bytes]]]

names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}(;lang-[a-z]{2})?", fullmatch=True)
values = st.one_of(
    st.binary(max_size=12),
    st.binary(min_size=120, max_size=140),
    st.integers(250, 300).map(lambda size: b"x" * size),
)
attribute_lists = st.lists(
    st.tuples(names, st.lists(values, max_size=4)), max_size=5, unique_by=lambda pair: pair[0].lower()
)
dns = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
ids = st.integers(0, 2**31 - 1)


def message(identity: int, kind: str, operation: Any, controls: list[Any] | None = None) -> bytes:
    made = LDAPMessage()
    made["messageID"] = MessageID(identity)
    made["protocolOp"] = ProtocolOp().setComponentByName(kind, operation)
    if controls:
        listed = Controls()
        for position, control in enumerate(controls):
            listed.setComponentByPosition(position, control)
        made["controls"] = listed
    return bytes(encoder.encode(made))


def entry_message(identity: int, dn: str, attributes: Attributes) -> bytes:
    listed = PartialAttributeList()
    for position, (name, contents) in enumerate(attributes):
        attribute = PartialAttribute()
        attribute["type"] = AttributeDescription(name)
        several = Vals()
        for place, content in enumerate(contents):
            several.setComponentByPosition(place, content)
        attribute["vals"] = several
        listed.setComponentByPosition(position, attribute)
    operation = SearchResultEntry()
    operation["object"] = LDAPDN(dn)
    operation["attributes"] = listed
    return message(identity, "searchResEntry", operation)


def done_message(
    identity: int, code: int, matched: str, text: str, referrals: list[str], cookie: bytes | None
) -> bytes:
    operation = SearchResultDone()
    operation["resultCode"] = ResultCode(code)
    operation["matchedDN"] = LDAPDN(matched)
    operation["diagnosticMessage"] = LDAPString(text)
    if referrals:
        several = Referral()
        for position, uri in enumerate(referrals):
            several.setComponentByPosition(position, URI(uri))
        operation["referral"] = several
    controls = [] if cookie is None else [paged_search_control(False, 0, cookie)]
    return message(identity, "searchResDone", operation, controls)


def reference_message(identity: int, uris: list[str]) -> bytes:
    operation = SearchResultReference()
    for position, uri in enumerate(uris):
        operation.setComponentByPosition(position, URI(uri))
    return message(identity, "searchResRef", operation)


def whole(data: bytes) -> ber.Message:
    """The one message that `data` is."""
    found = ber.message(data, 0)
    if found is None or found.stop != len(data):
        raise ber.Malformed("not one message")
    return found


def ours(data: bytes) -> tuple[int, str, dict[str, list[bytes]]]:
    """An entry as our reader sees it. Raises Malformed."""
    found = whole(data)
    if found.operation != ber.SEARCH_ENTRY:
        raise ber.Malformed("no entry")
    entry = ber.entry(data, found.start, found.end, ber.Names())
    return found.id, entry.dn, {name: sorted(map(bytes, several)) for name, several in _bytes(entry).items()}


def _bytes(entry: Any) -> dict[str, tuple[bytes, ...]]:
    return dict(entry.attributes)


def theirs(data: bytes) -> tuple[int, str, dict[str, list[bytes]]]:
    """The same by pyasn1 and ldap3's specification. Raises PyAsn1Error."""
    found, rest = decoder.decode(data, asn1Spec=LDAPMessage())
    if rest or found["protocolOp"].getName() != "searchResEntry":
        raise PyAsn1Error("no entry")
    entry = found["protocolOp"].getComponent()
    attributes: dict[str, list[bytes]] = {}
    for attribute in entry["attributes"]:
        name = bytes(attribute["type"]).decode("ascii").lower()
        attributes.setdefault(name, []).extend(bytes(value) for value in attribute["vals"])
    kept = {name: sorted(several) for name, several in attributes.items() if several}
    return int(found["messageID"]), bytes(entry["object"]).decode(), kept


# -- the same as others --------------------------------------------------------------------------------------


@given(ids, dns, attribute_lists)
def test_entries_are_read_as_pyasn1_reads_them(identity: int, dn: str, attributes: Attributes) -> None:
    data = entry_message(identity, dn, attributes)
    assert ours(data) == theirs(data)


@given(ids, dns, attribute_lists)
def test_entries_are_read_as_ldap3_reads_them(identity: int, dn: str, attributes: Attributes) -> None:
    data = entry_message(identity, dn, attributes)
    decoded = decode_message_fast(data)
    entry = search_result_entry_response_to_dict_fast(decoded["payload"], None, None, False)
    raw = {name.lower(): sorted(several) for name, several in entry["raw_attributes"].items() if several}
    assert ours(data) == (decoded["messageID"], entry["raw_dn"].decode(), raw)


@given(
    ids,
    st.sampled_from([0, 3, 4, 10, 11, 32, 49, 4096]),
    dns,
    dns,
    st.lists(st.text("abc:/", min_size=1), max_size=3),
    st.none() | st.binary(max_size=200),
)
def test_results_are_read_as_they_were_written(
    identity: int, code: int, matched: str, text: str, referrals: list[str], cookie: bytes | None
) -> None:
    data = done_message(identity, code, matched, text, referrals, cookie)
    found = whole(data)
    assert (found.id, found.operation) == (identity, ber.SEARCH_DONE)
    result = ber.result(data, found.start, found.end)
    assert result == (code, matched, text, tuple(referrals), found.end)
    controls = ber.controls(data, found.end, found.stop)
    if cookie is None:
        assert controls == {}
    else:
        assert ber.paged_cookie(controls["1.2.840.113556.1.4.319"]) == cookie


@given(ids, st.lists(st.text("abc:/", max_size=200), min_size=1, max_size=3))
def test_references_are_read_as_they_were_written(identity: int, uris: list[str]) -> None:
    data = reference_message(identity, uris)
    found = whole(data)
    assert found.operation == ber.SEARCH_REFERENCE
    assert ber.reference(data, found.start, found.end) == tuple(uris)


@given(st.integers(0, 255), st.binary(max_size=70_000))
def test_what_is_encoded_is_decoded(tag: int, content: bytes) -> None:
    inner = ber.encode(tag, content)
    assert ber.members(ber.encode(0x30, inner + ber.encode(0x02, b"\1"))) == [(tag, content), (0x02, b"\1")]


def slowly(data: bytes, identity: int) -> tuple[list[tuple[int, int]], int]:
    """What `entries_at` finds, message by message."""
    found, start = [], 0
    while (one := ber.message(data, start)) is not None:
        if (one.id, one.operation, one.end) != (identity, ber.SEARCH_ENTRY, one.stop):
            break
        found.append((one.start, one.end))
        start = one.stop
    return found, start


@given(ids, st.lists(st.tuples(dns, attribute_lists), max_size=4), st.booleans(), st.integers(0, 40))
def test_many_entries_are_found_at_once_as_one_by_one(
    identity: int, entries: list[tuple[str, Attributes]], is_ours: bool, less: int
) -> None:
    written = [entry_message(identity, *entry) for entry in entries]
    last = entry_message(identity if is_ours else identity ^ 1, "dc=x", [])
    data = b"".join([*written, last])[: -less or None]
    assert ber.entries_at(data, 0, ber.beginning(identity)) == slowly(data, identity)


@given(st.data(), st.integers(0, 300), dns, attribute_lists)
def test_damaged_entries_are_not_found_where_there_is_none(
    data: st.DataObject, identity: int, dn: str, attributes: Attributes
) -> None:
    damaged = bytearray(entry_message(identity, dn, attributes))
    damaged[data.draw(st.integers(0, min(12, len(damaged) - 1)))] = data.draw(st.integers(0, 255))
    for start, end in ber.entries_at(bytes(damaged), 0, ber.beginning(identity))[0]:
        found = ber.message(bytes(damaged), 0)
        assert found is not None
        assert (found.id, found.start, found.end) == (identity, start, end)


# -- anything else is an error -------------------------------------------------------------------------------


def agree(data: bytes) -> None:
    """What our reader takes, pyasn1 takes too, and as the same."""
    try:
        read = ours(data)
    except ber.Malformed:
        return
    assert read == theirs(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_the_same_or_malformed(data: bytes) -> None:
    agree(data)


@settings(max_examples=500)
@given(st.data(), ids, dns, attribute_lists)
def test_damaged_entries_are_the_same_or_malformed(
    data: st.DataObject, identity: int, dn: str, attributes: Attributes
) -> None:
    damaged = bytearray(entry_message(identity, dn, attributes))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(damaged))


@given(st.data(), dns, attribute_lists)
def test_a_byte_more_or_less_anywhere_is_the_same_or_malformed(
    data: st.DataObject, dn: str, attributes: Attributes
) -> None:
    whole_message = entry_message(7, dn, attributes)
    place = data.draw(st.integers(0, len(whole_message) - 1))
    agree(whole_message[:place] + whole_message[place + 1 :])
    agree(whole_message[:place] + bytes([data.draw(st.integers(0, 255))]) + whole_message[place:])


@given(dns, attribute_lists, st.binary(min_size=1, max_size=300))
def test_what_follows_a_message_is_never_read(dn: str, attributes: Attributes, following: bytes) -> None:
    data = entry_message(7, dn, attributes)
    found = ber.message(data + following, 0)
    assert found is not None
    assert found.stop == len(data)
    entry = ber.entry(data + following, found.start, found.end, ber.Names())
    assert (entry.dn, _bytes(entry)) == (dn, _bytes(ber.entry(data, found.start, found.end, ber.Names())))


@given(st.data(), dns, attribute_lists)
def test_a_message_that_is_not_all_there_is_waited_for(
    data: st.DataObject, dn: str, attributes: Attributes
) -> None:
    complete = entry_message(7, dn, attributes)
    there = data.draw(st.integers(0, len(complete) - 1))
    assert ber.message(complete[:there], 0) is None
    assert 1 <= ber.missing(complete[:there], 0) <= len(complete) - there


# What only whoever asked can tell, or what the end of the connection tells.
OUT_OF_SIGHT = {
    "less than its length",
    "a message id of nobody",
    "an unknown operation",
    "an operation of clients",
    "a response to a bind",
    "an operation without its class",
    "a primitive entry",
    "more than its length",
    "zeros",
}


@pytest.mark.parametrize("name", sorted(set(MALFORMED) - OUT_OF_SIGHT))
def test_malformed_messages_are_refused(name: str) -> None:
    data = MALFORMED[name](5)
    with pytest.raises(ber.Malformed, match=r"\A[^\n]+\Z"):
        read_all(data)


def read_all(data: bytes) -> None:
    """Everything that is in the message. Raises Malformed."""
    found = whole(data)
    if found.operation == ber.SEARCH_ENTRY:
        ber.entry(data, found.start, found.end, ber.Names())
    elif found.operation == ber.SEARCH_REFERENCE:
        ber.reference(data, found.start, found.end)
    else:
        ber.result(data, found.start, found.end)
        for value in ber.controls(data, found.end, found.stop).values():
            ber.paged_cookie(value)


def test_lengths_longer_than_they_need_be_are_read() -> None:
    data = UNUSUAL["lengths longer than they need"](5)
    found = whole(data)
    assert _bytes(ber.entry(data, found.start, found.end, ber.Names())) == {"cn": (b"odd",)}


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\x30\x80", id="indefinite"),
        pytest.param(b"\x30\x85\x00\x00\x00\x00\x01", id="five octets"),
        pytest.param(b"\x30\x84\x7f\xff\xff\xff", id="two gigabytes"),
        pytest.param(b"\x30\x84\x04\x00\x00\x01", id="one byte more than allowed"),
        pytest.param(b"\x16\x03", id="TLS"),
        pytest.param(b"HTTP", id="HTTP"),
    ],
)
def test_what_can_be_no_message_is_not_waited_for(header: bytes) -> None:
    with pytest.raises(ber.Malformed):
        ber.message(header, 0)


# -- names ---------------------------------------------------------------------------------------------------


def test_names_are_in_lower_case_and_keep_their_options() -> None:
    data = entry_message(1, "", [("displayName;lang-DE", [b"x"]), ("CN", [b"y"])])
    assert ours(data)[2] == {"displayname;lang-de": [b"x"], "cn": [b"y"]}


def test_values_of_an_attribute_given_twice_are_together() -> None:
    data = entry_message(1, "", [("cn", [b"a"]), ("CN", [b"b", b"c"])])
    assert ours(data)[2] == {"cn": [b"a", b"b", b"c"]}


def test_ranges_are_noticed_every_time() -> None:
    known = ber.Names()
    for times in (1, 2):
        assert known[b"member;range=0-1499"] == "member;range=0-1499"
        assert known.ranged == times
    assert known[b"member"] == "member"
    assert known.ranged == 2


def test_a_server_that_makes_up_names_does_not_fill_the_memory() -> None:
    known = ber.Names()
    for number in range(10_000):
        assert known[b"x%d" % number] == f"x{number}"
    assert len(known) < 5_000


@pytest.mark.parametrize("raw", [b"", b"\xff", b"a b", b"-a", b"a;", b"a\n", b";x"])
def test_what_can_be_no_name_is_refused(raw: bytes) -> None:
    with pytest.raises(ber.Malformed):
        ber.Names()[raw]
