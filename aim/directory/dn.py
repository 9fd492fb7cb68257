"""Distinguished names: parsing (RFC 4514), and one spelling of each so that they compare as strings.

Stands at the bottom of the flattening rules. In comes a DN as a server, an export or an administrator spells
it; out goes its canonical form, itself a valid DN:

- attribute types in lower case; long names and OIDs of the RFC 4514 table as their short name;
- values as `caseIgnoreMatch` compares them (RFC 4517, 4.2.11; RFC 4518): NFKC, case-folded, control and
  invisible characters dropped, spaces trimmed and collapsed, escaped ones too. Every attribute is compared
  this way, as all naming attributes in use are case-insensitive;
- the parts of a multi-valued RDN sorted, no spaces around `,` `+` `=`;
- special characters as hex pairs (`\\2c`), so that every comma of a canonical DN separates two RDNs.

Accepted beyond RFC 4514: `;` as separator, quoted values and the `OID.` prefix of RFC 1779 and RFC 2253,
spaces around separators, unescaped `<` and `>`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

RDN = tuple[tuple[str, str], ...]
"""One relative distinguished name: (attribute type, value) pairs, more than one if it is multi-valued."""

_SHORT_NAMES = {
    "commonname": "cn",
    "2.5.4.3": "cn",
    "localityname": "l",
    "2.5.4.7": "l",
    "stateorprovincename": "st",
    "2.5.4.8": "st",
    "organizationname": "o",
    "2.5.4.10": "o",
    "organizationalunitname": "ou",
    "2.5.4.11": "ou",
    "countryname": "c",
    "2.5.4.6": "c",
    "streetaddress": "street",
    "2.5.4.9": "street",
    "domaincomponent": "dc",
    "0.9.2342.19200300.100.1.25": "dc",
    "userid": "uid",
    "0.9.2342.19200300.100.1.1": "uid",
}

# Most DNs of real directories look like this: then lower case is all that is to do. Types with another
# spelling (commonName, OIDs) must not match. Possessive quantifiers are on single characters only: Python
# 3.11.2 gets those on groups wrong.
_TYPE = r"(?:[cC][nN]|[oO][uU]|[dD][cC]|[uU][iI][dD]|[oOcClL]|[sS][tT])"
_VALUE = r"[A-Za-z0-9_.@'()/:&!$*?~|-]++(?: [A-Za-z0-9_.@'()/:&!$*?~|-]++)*"
_PLAIN = re.compile(rf"{_TYPE}={_VALUE}(?:,{_TYPE}={_VALUE})*")
# Next most: only the leaf has an escape or a letter outside ASCII, and what it lies in is plain.
_LEAF = re.compile(rf"""((?:[^\\,;+"]|\\.)+),({_PLAIN.pattern})""", re.DOTALL)

_PART = re.compile(
    r"""
    [ ]*+ (?:oid\.)? ([a-z][a-z0-9-]*+ | [0-9]++ (?:\.[0-9]++)*) [ ]*+ = [ ]*+
    (?:
        "( (?: [^"\\] | \\. )* )" [ ]*+         # RFC 1779: quoted
      | \# ( [0-9a-f]++ ) [ ]*+                  # BER in hex
      | ( (?!["\#]) (?: [^\\,;+"] | \\. )* )   # RFC 4514
    )
    ( [,;+] | \Z )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE | re.ASCII,
)
_ESCAPE = re.compile(rb"\\(?:([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPABLE = frozenset(b' "#+,;<=>\\')
_MUST_ESCAPE = re.compile('[\\\\",+;<>\udc80-\udcff]|^#')

# Tags of the BER string types (X.680) that a `#hexstring` is likely to hold, and how they are encoded.
_BER_STRINGS = {
    0x04: "utf-8",  # OCTET STRING
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as it is used in practice
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}

# What RFC 4518, 2.2 drops beside the control (Cc) and format (Cf) characters, and what it makes a space.
_INVISIBLE = re.compile("[\u034f\u1806\u180b-\u180d\ufe00-\ufe0f\ufffc]")
_SPACES = frozenset("\t\n\v\f\r\x85")


def canonical(dn: str) -> str:
    """The one spelling of all DNs equal to `dn`; of itself, too. ValueError if `dn` is malformed."""
    if _PLAIN.fullmatch(dn) is not None:
        return dn.lower()
    return _canonical(dn)


def parse(dn: str) -> tuple[RDN, ...]:
    """The RDNs of `dn`, the leaf first; () for the empty DN. ValueError if it is malformed.

    Types are short and in lower case, values unescaped and without outer spaces, else as spelled.
    """
    return _parse(dn) if dn.strip() else ()


def _parse(dn: str) -> tuple[RDN, ...]:
    rdns: list[RDN] = []
    parts: list[tuple[str, str]] = []
    position, separator = 0, ","
    while separator:
        part = _PART.match(dn, position)
        if part is None:
            raise ValueError(f"malformed DN: no RDN at character {position + 1} of {dn}")
        kind, quoted, ber, plain, separator = part.groups()
        value = _from_ber(ber) if ber else _unescape(plain if quoted is None else quoted)
        parts.append((short_name(kind), value.strip()))
        if separator != "+":
            rdns.append(tuple(parts))
            parts = []
        position = part.end()
    return tuple(rdns)


def short_name(attribute_type: str) -> str:
    """An attribute type in lower case; long names and OIDs of the RFC 4514 table as their short name."""
    lower = attribute_type.lower()
    return _SHORT_NAMES.get(lower, lower)


def parent(canonical_dn: str) -> str:
    """The DN one level up from a canonical one; "" above the topmost."""
    return canonical_dn.partition(",")[2]


def ancestors(canonical_dn: str) -> list[str]:
    """All DNs above a canonical one, the nearest first, without the empty one."""
    found = []
    while canonical_dn := parent(canonical_dn):
        found.append(canonical_dn)
    return found


def depth(canonical_dn: str) -> int:
    """How many RDNs a canonical DN has."""
    return canonical_dn.count(",") + 1 if canonical_dn else 0


def prepare(value: str) -> str:
    """A value as `caseIgnoreMatch` compares it (RFC 4518): two values match if these are equal."""
    if value.isascii() and value.isprintable():
        return " ".join(value.lower().split())
    while True:  # one step can make work for another: repeat until nothing changes, so that it is idempotent
        prepared = _prepare_once(value)
        if prepared == value:
            return prepared
        value = prepared


def _prepare_once(value: str) -> str:
    # Bytes that were not UTF-8 travel as lone surrogates; they may become UTF-8 once something between went.
    value = value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    value = _INVISIBLE.sub("", unicodedata.normalize("NFKC", value).casefold())
    if not value.isprintable():
        value = "".join([" " if c in _SPACES else c for c in value if c in _SPACES or not _is_dropped(c)])
    return " ".join(unicodedata.normalize("NFKC", value).split())


def _is_dropped(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf"}


@lru_cache(maxsize=16_384)
def _canonical(dn: str) -> str:
    split = _LEAF.fullmatch(dn)
    if split is not None:
        leaf, rest = split.groups()
        return f"{_join(_parse(leaf))},{rest.lower()}"
    return _join(parse(dn))


def _join(rdns: tuple[RDN, ...]) -> str:
    return ",".join(
        ["+".join(sorted([f"{kind}={_escape(prepare(value))}" for kind, value in rdn])) for rdn in rdns]
    )


def _escape(value: str) -> str:
    return _MUST_ESCAPE.sub(_hex_pair, value)


def _hex_pair(match: re.Match[str]) -> str:
    return f"\\{match.group().encode('utf-8', 'surrogateescape').hex()}"


def _unescape(value: str) -> str:
    raw = value.encode("utf-8", "surrogateescape")
    if b"\\" in raw:
        raw = _ESCAPE.sub(_unescaped, raw)
    return raw.decode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[bytes]) -> bytes:
    pair, character = match.groups()
    if pair:
        return bytes.fromhex(pair.decode("ascii"))
    if character[0] not in _ESCAPABLE:
        raise ValueError(f"malformed DN: unknown escape {match.group().decode('utf-8', 'replace')}")
    return bytes(character)


def _from_ber(digits: str) -> str:
    """The text of a BER string in hex; what is no string keeps its `#hexstring` spelling."""
    if len(digits) % 2:
        raise ValueError(f"malformed DN: odd number of hex digits in #{digits}")
    raw = bytes.fromhex(digits)
    encoding = _BER_STRINGS.get(raw[0])
    content = _ber_content(raw)
    if encoding is not None and content is not None:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            pass
    return f"#{digits.lower()}"


def _ber_content(raw: bytes) -> bytes | None:
    """The content octets of one definite-length BER value that fills `raw`, else None."""
    if len(raw) < 2:
        return None
    length, start = raw[1], 2
    if length >= 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(raw[2:start], "big") if start > 2 else -1
    return raw[start:] if length == len(raw) - start else None
