"""Watches a server that has nothing better to offer: looks at every entry's time stamp.

In comes a link; out goes whether anything changed. All entries below the base are asked for with nothing but
the stamp that the server gives each at every write (entryCSN, else modifyTimestamp), and a digest of names
and stamps is compared: so deletions, moves and renamings show as well. modifyTimestamp counts whole seconds,
within which an entry can change twice: the newest are compared with all that is read of them. Where there are
no stamps, everything is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Self

from aim.bridges.ldap.connect import Link
from aim.bridges.ldap.search import Tree
from aim.bridges.ldap.settings import LdapSettings
from aim.directory.entries import Entry, texts

_STAMPS = ("entrycsn", "modifytimestamp")
_SIZE = 16


class Sweep:
    """Remembers a digest."""

    method = "time stamps"

    def __init__(self, settings: LdapSettings, token: str) -> None:
        self._settings = settings
        self.token = token

    @classmethod
    def start(cls, link: Link, settings: LdapSettings) -> Self:
        """From now on. Works with any server."""
        return cls(settings, _look(link, settings))

    def changed(self, link: Link) -> bool:
        """Whether something changed."""
        return _look(link, self._settings) != self.token


def _look(link: Link, settings: LdapSettings) -> str:
    stamps = _Stamps()
    digest = _digest(stamps.of(entry) for entry in Tree(link.channel, settings, _STAMPS).entries())
    if stamps.missing:
        return _digest_everything(link, settings)
    if not stamps.newest_second:
        return digest
    newest = f"(modifyTimestamp>={stamps.newest_second})"
    narrowed = f"(&{settings.filter}{newest})" if settings.filter else newest
    return digest + _digest_everything(link, replace(settings, filter=narrowed))


class _Stamps:
    """Reads stamps, and remembers what kind they are of."""

    def __init__(self) -> None:
        self.missing = False
        self.newest_second = ""
        """Of those that count whole seconds only."""

    def of(self, entry: Entry) -> Sequence[bytes]:
        name, attributes = entry
        exact = texts(attributes, "entrycsn")
        coarse = texts(attributes, "modifytimestamp")
        if not exact and coarse:
            self.newest_second = max(self.newest_second, coarse[-1])
        self.missing = self.missing or not (exact or coarse)
        return (name.encode(), *(stamp.encode() for stamp in exact or coarse))


def _digest_everything(link: Link, settings: LdapSettings) -> str:
    tree = Tree(link.channel, settings, settings.rules.attributes)
    return _digest(_all_values(entry) for entry in tree.entries())


def _all_values(entry: Entry) -> Sequence[bytes]:
    parts = [entry.dn.encode()]
    for name, values in sorted(entry.attributes.items()):
        raw = sorted(value if isinstance(value, bytes) else value.encode() for value in values)
        parts += [name.encode(), len(raw).to_bytes(4, "big"), *raw]
    return parts


def _digest(entries: Iterable[Sequence[bytes]]) -> str:
    """The same for the same entries in any order, which servers don't keep."""
    total = 0
    for parts in entries:
        hashed = hashlib.blake2b(digest_size=_SIZE)
        for part in parts:
            hashed.update(len(part).to_bytes(4, "big") + part)
        total += int.from_bytes(hashed.digest(), "big")
    return (total % (1 << 8 * _SIZE)).to_bytes(_SIZE, "big").hex()
