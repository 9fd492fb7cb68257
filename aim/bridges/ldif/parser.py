"""LDIF content records (RFC 2849) from a binary stream, one entry at a time.

In come the bytes of an export; out go entries, values as bytes. Anything that is not wholly understood is
SourceInvalid with file and line, for half of an export must never pass for a small directory:

- A file must end with a newline, as every exporter writes one: without it the end is missing.
- A record needs an attribute, and every record but the last an empty line after it. The last one may do
  without, as files written by hand do, if it has an object class and its naming attributes, and if the file
  has no marks of slapcat or ldapsearch, which always write that line: the operational attributes `entryCSN`
  or `structuralObjectClass`.
- The result that ldapsearch writes after the entries must be there if its header is, must be success, and
  must leave no page unread. Search references are not followed.
- `changetype` and `control` (change records), `:<` (values from a URL) and `member;range=…` (a part of a
  group) are refused.

More lenient than RFC 2849: a UTF-8 byte order mark, UTF-8 in plain values, no `version` line. An attribute
with options (`cn;lang-de`) is another attribute than the one without. A file that was cut exactly between
two records can't be told from a whole one.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from aim.directory import dn
from aim.directory.entries import Entry
from aim.errors import SourceInvalid

_DESCRIPTION = re.compile(rb"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)(?:;[A-Za-z0-9=*-]+)*")
_EXPORTER_MARKS = frozenset({"entrycsn", "structuralobjectclass"})

_EXPORT = "Export the directory again, and put the file in place only when it is complete."
_MEND = "Mend the line, or export the directory again."

Line = tuple[int, bytes]
"""An unfolded line and the number of its first line in the file."""


def parse(stream: BinaryIO, name: str) -> Iterator[Entry]:
    """The entries of an LDIF stream; `name` is what errors call it.

    SourceInvalid, possibly after many entries, none of which may be used then.
    """
    return _Parser(name).entries(stream)


class _Parser:
    """What is known while one stream is read."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._names: dict[bytes, str] = {}
        """Every attribute description seen so far, as written → in lower case."""
        self._has_header = False
        self._has_result = False
        self._has_next_page = False

    def entries(self, stream: BinaryIO) -> Iterator[Entry]:
        record: list[Line] = []
        common: set[str] | None = None
        is_first = True
        last = 0
        for last, line in self._lines(stream):
            if line:
                record.append((last, line))
            elif record:
                for entry in self._record(record, is_first=is_first):
                    common = set(entry.attributes) if common is None else common & entry.attributes.keys()
                    yield entry
                record = []
                is_first = False
        if record:
            for entry in self._record(record, is_first=is_first):
                self._check_whole(entry, last, common or set())
                yield entry
        self._check_result(last)

    def _lines(self, stream: BinaryIO) -> Iterator[Line]:
        """Unfolded lines without comments; b"" for an empty line."""
        start, parts = 0, [b""]
        for number, raw in enumerate(stream, 1):
            if not raw.endswith(b"\n"):
                remedy = f"{_EXPORT} If it is complete, add a newline at its end."
                self._fail(number, "the file ends in the middle of a line", remedy)
            line = raw.rstrip(b"\r\n")
            if line.startswith(b" "):
                if not parts[0]:
                    self._fail(number, "a line begins with a space, but continues nothing")
                parts.append(line[1:])
                continue
            if start:
                yield from self._unfolded(start, parts)
            start, parts = number, [line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line]
        if start:
            yield from self._unfolded(start, parts)

    def _unfolded(self, number: int, parts: list[bytes]) -> Iterator[Line]:
        line = parts[0] if len(parts) == 1 else b"".join(parts)
        if not line.startswith(b"#"):
            yield number, line
        elif line == b"# extended LDIF":
            self._has_header = True
        elif line.startswith(b"# pagedresults:"):
            self._has_next_page = _has_cookie(line)

    def _record(self, lines: list[Line], *, is_first: bool) -> Iterator[Entry]:
        number, line = lines[0]
        name, value = self._split(number, line)
        if is_first and name == "version":
            if value.strip() != b"1":
                self._fail(number, f"unknown version of LDIF: {value.decode('utf-8', 'replace')}")
            lines = lines[1:]
            if not lines:
                return
            number, line = lines[0]
            name, value = self._split(number, line)
        if name in {"search", "result", "ref"}:
            self._result(lines)
        elif name == "dn":
            yield Entry(self._dn(number, value), self._attributes(lines))
        else:
            self._fail(number, f"a record begins with {name!r} instead of its dn")

    def _dn(self, number: int, value: bytes) -> str:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(number, "the dn is not UTF-8")

    def _attributes(self, lines: list[Line]) -> dict[str, list[bytes]]:
        attributes: dict[str, list[bytes]] = {}
        for number, line in lines[1:]:
            name, value = self._split(number, line)
            if name in attributes:
                attributes[name].append(value)
            elif name == "dn":
                self._fail(number, "a second dn in one record: the empty line before it is missing")
            elif name in {"changetype", "control"}:
                remedy = "Export the content of the directory, as slapcat and ldapsearch do."
                self._fail(number, f"{name!r}: this is a change, not an entry", remedy)
            else:
                attributes[name] = [value]
        if not attributes:
            remedy = "the exporting account may not read the entry: grant it that, or filter the entry out."
            self._fail(lines[0][0], "a record has no attribute after its dn", f"{_EXPORT} Or {remedy}")
        return attributes

    def _split(self, number: int, line: bytes) -> tuple[str, bytes]:
        """Name in lower case and decoded value of one line."""
        description, colon, value = line.partition(b":")
        name = self._names.get(description) or self._new_name(number, description, colon)
        if value.startswith(b":"):
            try:
                return name, binascii.a2b_base64(value[1:].strip(b" "), strict_mode=True)
            except binascii.Error:
                self._fail(number, f"the value of {name!r} is not valid base64", _EXPORT)
        if value.startswith(b"<"):
            self._fail(number, f"the value of {name!r} is at a URL, and those are never read", _MEND)
        return name, value.lstrip(b" ")

    def _new_name(self, number: int, description: bytes, colon: bytes) -> str:
        if not colon or not _DESCRIPTION.fullmatch(description):
            self._fail(number, "not a line of the form 'attribute: value'")
        name = description.decode("ascii").lower()
        if ";range=" in name:
            remedy = "Export with a tool that reads all values of large groups."
            self._fail(number, f"{name!r}: only a part of the values was exported", remedy)
        self._names[description] = name
        return name

    def _check_whole(self, entry: Entry, last: int, common: set[str]) -> None:
        """For a record that the end of the file ended: is it more than the beginning of one?

        `common` are the attributes that all records before it have, such as entryUUID.
        """
        remedy = f"{_EXPORT} If it is complete, end it with an empty line."
        if not _EXPORTER_MARKS.isdisjoint(self._names.values()):
            self._fail(last, "the last record is not finished by an empty line", remedy)
        present = {dn.short_name(name) for name in entry.attributes}
        missing = (_needed(entry.dn) | {dn.short_name(name) for name in common}) - present
        if missing:
            what = f"the file ends in the middle of a record, before {', '.join(sorted(missing))}"
            self._fail(last, what, remedy)

    def _result(self, lines: list[Line]) -> None:
        """The record that ldapsearch writes at the end of a search, or for a reference to another server."""
        for number, line in lines:
            name, value = self._split(number, line)
            if name == "result":
                self._has_result = True
                if value.split(b" ")[0] != b"0":
                    told = value.decode("utf-8", "replace")
                    self._fail(number, f"the export ended with an error: {told}", _EXPORT)
            elif name == "pagedresults":
                self._has_next_page = _has_cookie(value)

    def _check_result(self, last: int) -> None:
        if self._has_header and not self._has_result:
            self._fail(last, "the result that ldapsearch writes at the end is missing", _EXPORT)
        if self._has_next_page:
            remedy = "Export all pages into one file (ldapsearch -E pr=1000/noprompt)."
            self._fail(last, "the export ended before the last page", remedy)

    def _fail(self, number: int, cause: str, remedy: str = _MEND) -> NoReturn:
        raise SourceInvalid(f"{self._name}:{number}: {cause}", remedy)


def _needed(name: str) -> set[str]:
    """What every entry has: an object class, and the attributes it is named by (X.501, 8.3)."""
    try:
        rdns = dn.parse(name)
    except ValueError:
        return set()  # said better by who reads the entry
    return {"objectclass", *(kind for kind, _ in rdns[0])} if rdns else {"objectclass"}


def _has_cookie(page: bytes) -> bool:
    return page.partition(b"cookie=")[2].strip() != b""
