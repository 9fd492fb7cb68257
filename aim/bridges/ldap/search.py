"""Reads a whole tree in pages (RFC 2696) and gives its entries: all of them, or an error.

In comes a channel; out go entries as they arrive. Every page's result is checked, and the last one must say
that it is the last. While a page is decoded, the server already works on the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ldap3 import SUBTREE
from ldap3.protocol.rfc2696 import paged_search_control

from aim.bridges.ldap import ber, faults
from aim.bridges.ldap.channel import Channel, Piece, Run, search_request
from aim.bridges.ldap.settings import LdapSettings
from aim.directory.entries import Entry
from aim.errors import SourceInvalid, SourceUnavailable

PAGED = "1.2.840.113556.1.4.319"
NO_ATTRIBUTES = ("1.1",)

CLASSES = (
    *("person", "group", "groupofnames", "groupofuniquenames", "groupofmembers", "posixgroup"),
    *("organizationalunit", "domain", "dcobject", "domaindns", "organization"),
    *("organizationalperson", "inetorgperson", "residentialperson", "pilotperson", "newpilotperson"),
    *("user", "inetuser", "posixaccount", "account"),
)
"""Object classes of people and containers: nothing else is asked for. The most frequent first, as a server
may try them in this order."""

_LOOKAHEAD = 4 * 1024 * 1024
"""How many bytes of a page wait to be decoded at most."""

_EMPTY_PAGES = 10_000
"""A server may send a page without entries, but it must get somewhere."""

_RANGED = re.compile(r"(?P<name>[^;]+);range=(?P<first>\d{1,9})-(?P<last>\d{1,9}|\*)")

_FILTERED = re.compile(r"\(\s*([A-Za-z][A-Za-z0-9.-]*)[^=()]*=")


def combined(configured: str | None, classes: Sequence[str] = CLASSES) -> str:
    """The filter for what is asked for: one of these object classes and what is configured."""
    ours = "(|" + "".join(f"(objectClass={name})" for name in classes) + ")"
    if configured is None or not configured.strip():
        return ours
    theirs = configured.strip()
    return f"(&{ours}{theirs if theirs.startswith('(') else f'({theirs})'})"


def filtered_by(configured: str | None) -> tuple[str, ...]:
    """The attributes that a filter looks at, in lower case; sorted."""
    return tuple(sorted({name.lower() for name in _FILTERED.findall(configured or "")}))


class Tree:
    """Reads everything below the base."""

    def __init__(self, channel: Channel, settings: LdapSettings, attributes: Sequence[str]) -> None:
        self._channel = channel
        self._settings = settings
        self._attributes = attributes
        self._request = search_request(settings.base, SUBTREE, combined(settings.filter), attributes)
        self._names = ber.Names()
        self._partial: list[str] = []
        """DNs of entries of which only a part came (`member;range=0-1499`)."""

    def entries(self) -> Iterator[Entry]:
        """All entries. Raises SourceUnavailable or SourceInvalid if anything is missing; then none may be
        used."""
        cookie = b""
        number = self._ask(cookie)
        pages_without = 0
        while True:
            waiting: list[Run] = []
            size = seen = 0
            for part in self._channel.quick_answer(number):
                if isinstance(part, Run):
                    waiting.append(part)
                    seen += len(part.places)
                    size += part.places[-1][1] - part.places[0][0]
                    if size > _LOOKAHEAD:
                        yield from self._decoded(waiting)
                        waiting, size = [], 0
                elif part.message.operation == ber.SEARCH_DONE:
                    cookie = self._check(part)
                else:
                    self._ignore(part)
            if cookie:
                pages_without = 0 if seen else pages_without + 1
                self._check_progress(pages_without)
                number = self._ask(cookie)
            yield from self._decoded(waiting)
            if not cookie:
                break
        for dn in self._partial:
            yield self._whole(dn)

    def _ask(self, cookie: bytes) -> int:
        page = paged_search_control(True, self._settings.page_size, cookie)
        return self._channel.send("searchRequest", self._request, [page])

    def _decoded(self, runs: list[Run]) -> Iterator[Entry]:
        names = self._names
        with faults.decoding(self._channel.uri):
            for buffer, places in runs:
                for start, end in places:
                    ranged = names.ranged
                    entry = ber.entry(buffer, start, end, names)
                    if names.ranged == ranged:
                        yield entry
                    else:
                        self._partial.append(entry.dn)

    def _ignore(self, piece: Piece) -> None:
        """Messages that say nothing to us. Raises SourceInvalid if it is not one of those."""
        buffer, message = piece
        if message.operation == ber.INTERMEDIATE:
            return
        if message.operation != ber.SEARCH_REFERENCE:
            raise faults.malformed(self._channel.uri, "an answer that does not belong to a search")
        with faults.decoding(self._channel.uri):
            ber.reference(buffer, message.start, message.end)  # what is on other servers is not ours

    def _check(self, piece: Piece) -> bytes:
        """The cookie for the next page, b"" after the last. Raises if this page was not complete."""
        result = self._channel.result(piece)
        if result.code != faults.SUCCESS:
            raise faults.of_result(
                result, self._channel.uri, f"reading {self._settings.base}", self._settings.base
            )
        value = self._channel.controls(piece).get(PAGED)
        if value is None:
            raise SourceInvalid(
                f"{self._channel.uri}: the server gives no pages, so what it gave may be cut off",
                faults.PAGES,
            )
        with faults.decoding(self._channel.uri):
            return ber.paged_cookie(value)

    def _check_progress(self, pages_without: int) -> None:
        if pages_without > _EMPTY_PAGES:
            raise faults.malformed(self._channel.uri, "page after page without an entry")

    # -- large groups of Active Directory (MS-ADTS, 3.1.1.3.1.3.3) ---------------------------------------

    def _whole(self, dn: str) -> Entry:
        """An entry read by itself, all ranges of its values included."""
        attributes: dict[str, tuple[bytes, ...]] = {}
        wanted: Sequence[str] = self._attributes
        while wanted:
            following = []
            for name, values in self._part(dn, wanted).items():
                match = _RANGED.fullmatch(name)
                if match is None:
                    attributes.setdefault(name, tuple(values))
                    continue
                got = attributes.get(match["name"], ())
                if int(match["first"]) != len(got):
                    raise self._changed(dn)
                attributes[match["name"]] = (*got, *values)
                if match["last"] != "*":
                    following.append(f"{match['name']};range={len(got) + len(values)}-*")
            wanted = following
        return Entry(dn, attributes)

    def _part(self, dn: str, wanted: Sequence[str]) -> dict[str, Any]:
        answer = self._channel.ask(dn, wanted)
        if answer.result.code not in {faults.SUCCESS, faults.NO_SUCH_OBJECT}:
            raise faults.of_result(answer.result, self._channel.uri, f"reading {dn}", dn)
        if not answer.entries:
            raise self._changed(dn)
        found = dict(answer.entries[0].attributes)
        if wanted is not self._attributes and not any(_RANGED.fullmatch(name) for name in found):
            raise self._changed(dn)
        return found

    def _changed(self, dn: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self._channel.uri}: {faults.told(dn)} changed while it was read",
            "It is read again. Nothing that was read so far is used.",
        )


def everything(channel: Channel, settings: LdapSettings) -> Iterator[Entry]:
    """All entries below the base, as flattening needs them. Raises as Tree does, and if there are none."""
    is_empty = True
    for entry in Tree(channel, settings, settings.rules.attributes).entries():
        is_empty = False
        yield entry
    if is_empty:
        _refuse_empty(channel, settings)


def _refuse_empty(channel: Channel, settings: LdapSettings) -> NoReturn:
    """For a read that gave nothing: raises SourceInvalid with the probable reason."""
    answer = channel.ask(settings.base, NO_ATTRIBUTES)
    if answer.result.code != faults.SUCCESS:
        raise faults.of_result(answer.result, channel.uri, f"reading {settings.base}", settings.base)
    who = settings.bind_dn or ("our certificate" if settings.certificate else "somebody who is not logged in")
    if not answer.entries:
        raise SourceInvalid(
            f"{channel.uri}: {settings.base} exists, but {who} may see nothing in it",
            faults.RIGHTS,
        )
    filtered = " that source.filter lets through" if settings.filter else ""
    raise SourceInvalid(
        f"{channel.uri}: {who} sees no user and no group below {settings.base}{filtered}",
        "Check source.base and source.filter, and that the account may read objectClass and all entries.",
    )
