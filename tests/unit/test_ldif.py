"""LDIF records (RFC 2849): what is read, and what is refused with file and line."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.bridges.ldif.parser import parse
from aim.directory.entries import Entry
from aim.errors import SourceInvalid

ALICE = {"cn": [b"Alice"]}


def read(text: str | bytes) -> list[Entry]:
    return list(parse(io.BytesIO(text.encode() if isinstance(text, str) else text), "people.ldif"))


def refused(text: str | bytes) -> SourceInvalid:
    with pytest.raises(SourceInvalid) as caught:
        read(text)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("dn: cn=a\ncn: Alice\n", ALICE),
        ("dn: cn=a\ncn: Alice\n\n", ALICE),
        ("\n\n\ndn: cn=a\ncn: Alice\n\n\n\n", ALICE),
        ("version: 1\ndn: cn=a\ncn: Alice\n", ALICE),
        ("version: 1\n\ndn: cn=a\ncn: Alice\n", ALICE),
        ("# about\n# this file\nversion: 1\n\n# alice\ndn: cn=a\n# within\ncn: Alice\n# after\n", ALICE),
        ("# folded\n  comment: with\n cn: no attribute\ndn: cn=a\ncn: Alice\n", ALICE),
        ("dn: cn=a\r\ncn: Alice\r\n\r\n", ALICE),
        (b"\xef\xbb\xbfdn: cn=a\ncn: Alice\n", ALICE),
        (b"\xef\xbb\xbf# about\ndn: cn=a\ncn: Alice\n", ALICE),
        ("dn:cn=a\ncn:Alice\n", ALICE),
        ("DN: cn=a\nCN:   Alice\n", ALICE),
        ("dn:: Y249YQ==\ncn:: QWxpY2U=\n", ALICE),
        ("dn: cn=a\ncn::   QWxpY2U=  \n", ALICE),
        ("dn: c\n n=a\ncn: Al\n i\n ce\n", ALICE),
        ("dn: cn=a\ncn:: QWx\n pY2U=\n", ALICE),
        ("dn: cn=a\nc\n n: Alice\n", ALICE),
        ("dn: cn=a\ncn: Alice\ncn: Alicia\nCN: Al\n", {"cn": [b"Alice", b"Alicia", b"Al"]}),
        ("dn: cn=a\ncn: Alice\ncn;lang-de: Alicja\n", {"cn": [b"Alice"], "cn;lang-de": [b"Alicja"]}),
        ("dn: cn=a\n2.5.4.3: Alice\n", {"2.5.4.3": [b"Alice"]}),
        ("dn: cn=a\ncn:\nsn: \ndescription::\n", {"cn": [b""], "sn": [b""], "description": [b""]}),
        ("dn: cn=a\ncn: Alice  \n", {"cn": [b"Alice  "]}),
        ("dn: cn=a\ncn: a: b:: c :< d\n", {"cn": [b"a: b:: c :< d"]}),
        ("dn: cn=a\ncn: Zoë\n", {"cn": ["Zoë".encode()]}),
        ("dn: cn=a\ncn: Z\xc3".encode("latin-1") + b"\n \xab\n", {"cn": [b"Z\xc3\xab"]}),
        ("dn: cn=a\nobjectGUID:: AAECAwQFBgcICQoLDA0ODw==\n", {"objectguid": [bytes(range(16))]}),
        ("dn: cn=a\nsearch: warrant\nresult: 4\n", {"search": [b"warrant"], "result": [b"4"]}),
    ],
)
def test_one_record(text: str | bytes, attributes: dict[str, list[bytes]]) -> None:
    closed = text.encode() + b"\n" if isinstance(text, str) else text + b"\n"
    assert read(closed) == [Entry("cn=a", attributes)]


def test_records() -> None:
    assert read("dn: cn=a\ncn: Alice\n\n# next\n\ndn:\ncn: root\n\n\ndn:: Y249w6Q=\ncn: c\n\n") == [
        Entry("cn=a", ALICE),
        Entry("", {"cn": [b"root"]}),
        Entry("cn=ä", {"cn": [b"c"]}),
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "version: 1\n", "version: 1\n\n"])
def test_no_record(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("dn: cn=a\ncn: Alice\n\ndn: cn=b\ncn: Bo", 5, "ends in the middle of a line"),
        ("dn: cn=a\ncn: Alice\n\ndn: cn=b\n", 4, "no attribute after its dn"),
        ("dn: cn=a\n\ndn: cn=b\ncn: b\n", 1, "no attribute after its dn"),
        ("dn: cn=a\ncn:: QWxpY2\n", 2, "not valid base64"),
        ("dn: cn=a\ncn:: QWx\n pY2\n", 2, "not valid base64"),
        ("dn: cn=a\ncn:: QW*xpY2U=\n", 2, "not valid base64"),
        ("dn:: ///\ncn: a\n", 1, "not valid base64"),
        ("dn:: /w==\ncn: a\n", 1, "not UTF-8"),
        ("dn: cn=a\ncn:< file:///etc/passwd\n", 2, "at a URL"),
        ("dn: cn=a\nchangetype: delete\n", 2, "a change, not an entry"),
        ("dn: cn=a\ncontrol: 1.2.3 true\nchangetype: delete\n", 2, "a change, not an entry"),
        ("dn: cn=a\nchangetype: modify\nadd: cn\ncn: b\n-\n", 2, "a change, not an entry"),
        ("dn: cn=a\ncn: b\n-\n", 3, "not a line of the form"),
        ("dn: cn=a\nAlice\n", 2, "not a line of the form"),
        ("dn: cn=a\n: Alice\n", 2, "not a line of the form"),
        ("dn: cn=a\nc n: Alice\n", 2, "not a line of the form"),
        ("dn: cn=a\n\tcn: Alice\n", 2, "not a line of the form"),
        ("dn: cn=a\ncn: a\ndn: cn=b\ncn: b\n", 3, "a second dn"),
        ("cn: a\ndn: cn=a\n", 1, "begins with 'cn' instead of its dn"),
        ("dn: cn=a\ncn: a\n\ncn: b\n", 4, "begins with 'cn' instead of its dn"),
        ("dn: cn=a\ncn: a\n\nversion: 1\n", 4, "begins with 'version' instead of its dn"),
        ("version: 2\ndn: cn=a\ncn: a\n", 1, "unknown version of LDIF: 2"),
        (" dn: cn=a\n", 1, "continues nothing"),
        ("dn: cn=a\ncn: a\n\n cn: b\n", 4, "continues nothing"),
        ("dn: cn=a\nmember;range=0-1499: cn=b\n", 2, "only a part of the values"),
        ("dn: cn=a\nmember;Range=1500-*: cn=b\n", 2, "only a part of the values"),
    ],
)
def test_refused(text: str, line: int, message: str) -> None:
    error = refused(text)
    assert error.message.startswith(f"people.ldif:{line}: ")
    assert message in error.message
    assert "Traceback" not in error.message


@pytest.mark.parametrize(
    "record",
    [
        "dn: cn=a,dc=x\nobjectClass: person\ncn: a\n",
        "dn: CN=a+2.5.4.10=b\nobjectclass: person\ncommonName: a\no: b\n",
        "dn:\nobjectClass: top\n",
    ],
)
def test_a_file_written_by_hand_need_not_end_with_an_empty_line(record: str) -> None:
    assert len(read(record)) == len(read(f"{record}\n")) == 1


@pytest.mark.parametrize(
    ("record", "missing"),
    [
        ("dn: cn=a,dc=x\nobjectClass: person\n", "cn"),
        ("dn: cn=a,dc=x\ncn: a\n", "objectclass"),
        ("dn: cn=a+uid=b,dc=x\nobjectClass: person\ncn: a\n", "uid"),
        ("dn: cn=a,dc=x\ndescription: x\n", "cn, objectclass"),
    ],
)
def test_the_beginning_of_a_record_is_not_one(record: str, missing: str) -> None:
    assert len(read(f"{record}\n")) == 1
    error = refused(record)
    assert error.message.endswith(f"the file ends in the middle of a record, before {missing}")
    assert "end it with an empty line" in error.remedy


def test_a_last_record_without_what_all_others_have_is_cut_off() -> None:
    """As it is when a hand-made export is cut between two lines: the stable id is still to come."""
    first = "dn: cn=a\nobjectClass: person\ncn: a\nentryUUID: 1\n\n"
    last = "dn: cn=b\nobjectClass: person\ncn: b\n"
    assert len(read(f"{first}{last}entryUUID: 2\n")) == 2
    assert len(read(f"{first}{last}\n")) == 2
    error = refused(f"{first}{last}")
    assert error.message.endswith("the file ends in the middle of a record, before entryuuid")


@pytest.mark.parametrize("mark", ["entryCSN: 2024#0", "structuralObjectClass: person"])
def test_an_export_ends_each_record_with_an_empty_line(mark: str) -> None:
    record = f"dn: cn=a\ncn: a\n{mark}\n\n"
    assert len(read(record)) == 1
    error = refused(f"{record}dn: cn=b\nobjectClass: person\ncn: b\n")
    assert error.message.startswith("people.ldif:7: the last record is not finished")


# --- what ldapsearch writes around the entries

HEADER = (
    "# extended LDIF\n#\n# LDAPv3\n# base <dc=x> with scope subtree\n#\n\n# a, x\ndn: cn=a,dc=x\ncn: a\n\n"
)
SUCCESS = "# search result\nsearch: 2\nresult: 0 Success\n"
COUNT = "\n# numResponses: 2\n# numEntries: 1\n"
REFERENCE = "# search reference\nref: ldap://other.example.com/dc=y\n\n"
PAGE = "control: 1.2.840.113556.1.4.319 false MAUCAQAEAA==\npagedresults: cookie="


@pytest.mark.parametrize(
    "text",
    [
        HEADER + SUCCESS + COUNT,
        HEADER + REFERENCE + SUCCESS + COUNT,
        HEADER + SUCCESS + PAGE + "\n" + COUNT,
        HEADER + SUCCESS + PAGE + "QUE=\n" + COUNT + "\n" + SUCCESS + PAGE + "\n" + COUNT,
        "dn: cn=a,dc=x\ncn: a\n\n# pagedresults: cookie=QUE=\n\n# pagedresults: cookie=\n",
    ],
)
def test_a_complete_search(text: str) -> None:
    assert read(text) == [Entry("cn=a,dc=x", {"cn": [b"a"]})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "the result that ldapsearch writes at the end is missing"),
        (HEADER + "# search result\nsearch: 2\n", "the result that ldapsearch writes at the end is missing"),
        (
            HEADER + "search: 2\nresult: 4 Size limit exceeded\n" + COUNT,
            "with an error: 4 Size limit exceeded",
        ),
        (
            HEADER + "search: 2\nresult: 3 Time limit exceeded\n" + COUNT,
            "with an error: 3 Time limit exceeded",
        ),
        (HEADER + "search: 2\nresult: 01\n", "with an error: 01"),
        (HEADER + SUCCESS + PAGE + "QUE=\n" + COUNT, "before the last page"),
        ("dn: cn=a,dc=x\ncn: a\n\n# pagedresults: cookie=QUE=\n", "before the last page"),
    ],
)
def test_an_incomplete_search(text: str, message: str) -> None:
    assert message in refused(text).message


# --- properties

names = st.sampled_from(["cn", "objectClass", "userCertificate;binary", "2.5.4.3"])
records = st.lists(
    st.tuples(
        st.text(max_size=8), st.lists(st.tuples(names, st.binary(max_size=30)), min_size=1, max_size=5)
    ),
    max_size=5,
)


def write(entries: list[tuple[str, list[tuple[str, bytes]]]], width: int, newline: bytes) -> bytes:
    """An LDIF with everything in base64 and folded at `width`."""
    out = bytearray()
    for dn, attributes in entries:
        for name, value in [("dn", dn.encode()), *attributes]:
            line = name.encode() + b":: " + base64.b64encode(value)
            out += line[:width]
            for at in range(width, len(line), width - 1):
                out += newline + b" " + line[at : at + width - 1]
            out += newline
        out += newline
    return bytes(out)


@given(records, st.integers(2, 90), st.sampled_from([b"\n", b"\r\n"]))
def test_round_trip(entries: list[tuple[str, list[tuple[str, bytes]]]], width: int, newline: bytes) -> None:
    found = read(write(entries, width, newline))
    assert [entry.dn for entry in found] == [dn for dn, _ in entries]
    for entry, (_, attributes) in zip(found, entries, strict=True):
        for name in {name for name, _ in attributes}:
            assert entry.attributes[name.lower()] == [value for other, value in attributes if other == name]


@given(records.filter(bool), st.data())
def test_a_cut_within_a_line_is_always_noticed(
    entries: list[tuple[str, list[tuple[str, bytes]]]], data: st.DataObject
) -> None:
    whole = write(entries, 20, b"\n")
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    if not cut.endswith(b"\n"):
        assert "in the middle of a line" in refused(cut).message


@given(st.binary(max_size=80) | st.text(alphabet="dn: cnx=\n\r#<;", max_size=60).map(str.encode))
def test_any_bytes_are_entries_or_one_error(content: bytes) -> None:
    try:
        read(content)
    except SourceInvalid as error:
        message = error.message
    else:
        message = "people.ldif: fine"
    assert message.startswith("people.ldif:")
