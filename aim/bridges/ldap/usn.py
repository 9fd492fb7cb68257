"""Watches an Active Directory with an ordinary account, by update sequence numbers (MS-ADTS, 3.1.1.1.9).

In comes a link; out goes whether anything below the base may have changed. Every write to a person or
container counts, logins among them now and then: with the right to use DirSync there are fewer full reads.

A deleted entry leaves a tombstone, but ordinary accounts can't rely on seeing it. So the entries are counted,
when anything at all was written: what was added or changed is found by its number, what went shows in the
count.
"""

from __future__ import annotations

from typing import Self

from ldap3 import SUBTREE

from aim.bridges.ldap import faults
from aim.bridges.ldap.connect import Link
from aim.bridges.ldap.search import NO_ATTRIBUTES, Tree, combined
from aim.bridges.ldap.settings import LdapSettings


class Usn:
    """Remembers a number, which belongs to one domain controller, and a count."""

    method = "uSNChanged"

    def __init__(self, settings: LdapSettings, usn: int, count: int) -> None:
        self._settings = settings
        self._usn = usn
        self._count = count
        self.token = f"{usn} {count}"

    @classmethod
    def start(cls, link: Link, settings: LdapSettings) -> Self | None:
        """From now on. None if the server is no Active Directory."""
        usn = link.root.usn
        return None if usn is None else cls(settings, usn, _count(link, settings))

    def changed(self, link: Link) -> bool:
        """Whether something may have changed since the number; takes the new one."""
        usn = link.root.usn
        if usn == self._usn:  # nothing at all was written
            return False
        if usn is None or usn < self._usn or self._written(link):
            return True
        self._usn = usn
        return _count(link, self._settings) != self._count

    def _written(self, link: Link) -> bool:
        # Not narrowed by the configured filter: an entry that no longer matches it is a change too.
        query = f"(&{combined(None)}(uSNChanged>={self._usn + 1})(!(objectClass=computer)))"
        answer = link.channel.ask(
            self._settings.base, NO_ATTRIBUTES, search_filter=query, scope=SUBTREE, limit=1
        )
        return bool(answer.entries) or answer.result.code != faults.SUCCESS


def _count(link: Link, settings: LdapSettings) -> int:
    return sum(1 for _ in Tree(link.channel, settings, NO_ATTRIBUTES).entries())
