"""DNs compare by RFC 4514 and RFC 4517: tables of equal, unequal and malformed ones, and properties."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.directory.dn import ancestors, canonical, depth, parent, parse, prepare

EQUAL = [
    ("plain", "cn=alice,ou=people,dc=example", "CN=Alice,OU=People,DC=Example"),
    ("space around separators", "cn=alice,ou=people", " cn = alice , ou = people "),
    ("long names", "cn=a,l=b,st=c,o=d,ou=e,c=f,street=g,dc=h,uid=i",
     "commonName=a,localityName=b,stateOrProvinceName=c,organizationName=d,organizationalUnitName=e,"
     "countryName=f,streetAddress=g,domainComponent=h,userId=i"),
    ("OIDs", "cn=a,l=b,st=c,o=d,ou=e,c=f,street=g,dc=h,uid=i",
     "2.5.4.3=a,2.5.4.7=b,2.5.4.8=c,2.5.4.10=d,2.5.4.11=e,2.5.4.6=f,2.5.4.9=g,"
     "0.9.2342.19200300.100.1.25=h,0.9.2342.19200300.100.1.1=i"),
    ("OID prefix of RFC 2253", "cn=a", "OID.2.5.4.3=a"),
    ("escaped comma", r"cn=doe\, jane,dc=x", r"cn=Doe\2C Jane,dc=x"),
    ("quoted", r"cn=doe\, jane,dc=x", 'CN="Doe, Jane",DC=x'),
    ("escape within quotes", r"cn=a\"b\\c", r'cn="a\"b\\c"'),
    ("hex pair of a space", "cn=jane doe", r"cn=jane\20doe"),
    ("escaped outer spaces", "cn=jane,dc=x", r"cn=\ jane\ ,dc=x"),
    ("inner spaces", "cn=jane doe", "cn=jane   doe"),
    ("UTF-8 in hex pairs", "cn=müller", r"cn=M\C3\BCller"),
    ("umlaut composed or not", "cn=m\u00fcller", "cn=mu\u0308ller"),
    ("upper-case umlaut", "cn=müller,dc=x", "cn=MÜLLER,dc=x"),
    ("sharp s", "cn=strasse", "cn=straße"),
    ("full width", "cn=abc", "cn=\uff21\uff22\uff23"),
    ("no-break space", "cn=a b", "cn=a\u00a0b"),
    ("soft hyphen", "cn=ab", "cn=a\u00adb"),
    ("tab", "cn=a b", "cn=a\tb"),
    ("control character", "cn=ab", r"cn=a\07b"),
    ("BER UTF8String", "cn=Müller", "cn=#0C074DC3BC6C6C6572"),
    ("BER PrintableString", "cn=Jane", "cn=#13044A616E65"),
    ("BER OCTET STRING", "cn=Jane", "cn=#04044a616e65"),
    ("BER BMPString", "cn=Jane", "cn=#1e08004a0061006e0065"),
    ("BER TeletexString", "cn=ä", "cn=#1401e4"),
    ("BER long length", "cn=Jane", "cn=#0c81044a616e65"),
    ("hex digits in either case", "cn=#30030101FF", "cn=#30030101ff"),
    ("multi-valued", "cn=alice+uid=a1,dc=x", "UID=A1 + CN=Alice,dc=x"),
    ("multi-valued, escaped plus", r"cn=a\+b+uid=c", r"uid=c+cn=a\2bb"),
    ("semicolons", "cn=a,ou=b,dc=c", "cn=a;ou=b ; dc=c"),
    ("equals sign in a value", "cn=a=b", r"cn=a\=b"),
    ("number sign in a value", r"cn=\#a", r"cn=\23a"),
    ("angle brackets", "cn=<a>", r"cn=\<a\>"),
    ("empty value", "cn=,dc=x", "CN= , DC=x"),
    ("empty DN", "", "  "),
    ("unknown type", "employeenumber=7,dc=x", "employeeNumber=7,DC=x"),
    ("bytes that are no UTF-8", "cn=\\e4b", "cn=\\E4B"),
]  # fmt: skip

UNEQUAL = [
    ("order of RDNs", "cn=a,ou=b", "ou=b,cn=a"),
    ("comma in a value", r"cn=a\,ou=b", "cn=a,ou=b"),
    ("plus in a value", r"cn=a\+uid=b", "cn=a+uid=b"),
    ("space or none", "cn=ab", "cn=a b"),
    ("type", "cn=a", "uid=a"),
    ("umlaut or none", "cn=muller", "cn=müller"),
    ("parts moved between RDNs", "cn=a+uid=b,dc=x", "cn=a,uid=b+dc=x"),
]

MALFORMED = [
    "alice",
    "=alice",
    "cn=a,",
    ",cn=a",
    " ,o=q",
    "cn=a,,dc=x",
    "cn=a+",
    "cn=a\\",
    r"cn=a\zb",
    r"cn=a\4",
    "cn=#",
    "cn=#abc",
    "cn=#0g",
    'cn="a',
    'cn="a"b',
    'cn=a"b',
    "c n=a",
    "1.=a",
    "-a=b",
    "<GUID=1>;cn=a",
    "ou=a,alice,dc=x",
]


@pytest.mark.parametrize(("left", "right"), [pytest.param(a, b, id=name) for name, a, b in EQUAL])
def test_equal(left: str, right: str) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(("left", "right"), [pytest.param(a, b, id=name) for name, a, b in UNEQUAL])
def test_unequal(left: str, right: str) -> None:
    assert canonical(left) != canonical(right)


@pytest.mark.parametrize("dn", MALFORMED)
def test_malformed(dn: str) -> None:
    with pytest.raises(ValueError, match="malformed DN"):
        canonical(dn)
    with pytest.raises(ValueError, match="malformed DN"):
        parse(dn)


def test_parse_keeps_the_spelling_of_values() -> None:
    assert parse(r"CN=Doe\, Jane+UID= J1 ,O=\C3\9C") == ((("cn", "Doe, Jane"), ("uid", "J1")), (("o", "Ü"),))
    assert parse("") == ()


def test_tree() -> None:
    dn = canonical(r"cn=a\,b+uid=c,ou=D,dc=e")
    assert dn == r"cn=a\2cb+uid=c,ou=d,dc=e"
    assert ancestors(dn) == ["ou=d,dc=e", "dc=e"]
    assert parent("dc=e") == ""
    assert [depth(name) for name in (dn, "dc=e", "")] == [3, 1, 0]


def test_a_long_near_miss_takes_no_long_time() -> None:
    started = time.perf_counter()
    for dn in ("cn=" + "a " * 50_000 + '"', "cn=a" + ",ou=b" * 20_000 + ",x", "cn=" + " " * 100_000 + '"'):
        with pytest.raises(ValueError, match="malformed DN"):
            canonical(dn)
    assert time.perf_counter() - started < 5


# Values of everything that makes trouble: escapes, spaces, signs, combining and invisible characters, bytes.
characters = st.sampled_from(
    list("aZ0 \\,+=#\"<>;'\t\0ßİſ\u0345\u00ad\u200d\ufe0f\u00a8\u0308µÅ\u3000")
) | st.characters(codec="utf-8")
values = st.text(characters, max_size=12) | st.binary(max_size=6).map(
    lambda b: b.decode("utf-8", "surrogateescape")
)
types = st.sampled_from(["cn", "OU", "userId", "2.5.4.10", "x-own"])
rdns = st.lists(st.tuples(types, values), min_size=1, max_size=3)


def spell(rdn: list[tuple[str, str]], hex_all: bool) -> str:
    return "+".join(f"{kind}={escape(value, hex_all)}" for kind, value in rdn)


def escape(value: str, hex_all: bool) -> str:
    raw = value.encode("utf-8", "surrogateescape")
    if hex_all:
        return "".join(f"\\{byte:02X}" for byte in raw)
    return re.sub(r'(^#|^ | $|[\\,+"<>;])', r"\\\1", value)


@given(st.lists(rdns, min_size=1, max_size=4))
def test_canonical_is_a_valid_dn_and_its_own_canonical_form(name: list[list[tuple[str, str]]]) -> None:
    once = canonical(",".join(spell(rdn, hex_all=False) for rdn in name))
    assert canonical(once) == once
    assert [len(rdn) for rdn in parse(once)] == [len(rdn) for rdn in name]
    assert depth(once) == len(name)
    assert canonical(parent(once)) == parent(once)


@given(st.lists(rdns, min_size=1, max_size=4))
def test_spelling_does_not_matter(name: list[list[tuple[str, str]]]) -> None:
    plain = ",".join(spell(rdn, hex_all=False) for rdn in name)
    other = " , ".join(spell(rdn[::-1], hex_all=True) for rdn in name)
    assert canonical(plain) == canonical(other)


@given(values)
def test_prepare_is_idempotent(value: str) -> None:
    assert prepare(prepare(value)) == prepare(value)


@given(st.text())
def test_any_text_is_canonical_or_a_value_error(text: str) -> None:
    try:
        once = canonical(text)
    except ValueError:
        return
    assert canonical(once) == once
