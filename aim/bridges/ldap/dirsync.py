"""Watches an Active Directory whose account may ask for changes (DirSync, MS-ADTS 3.1.1.3.4.1.3).

In comes a link; out goes whether an attribute that is read changed anywhere in the domain, deletions
included. Logins and the like, which change other attributes all the time, don't count.
"""

from __future__ import annotations

from typing import Self

from ldap3 import SUBTREE
from ldap3.protocol.microsoft import dir_sync_control

from aim.bridges.ldap import ber, faults
from aim.bridges.ldap.channel import EVERYTHING, Answer
from aim.bridges.ldap.connect import Link
from aim.bridges.ldap.search import filtered_by
from aim.bridges.ldap.settings import LdapSettings

CONTROL = "1.2.840.113556.1.4.841"
_ALSO = ("name", "isDeleted")
"""What changes when an entry is renamed, moved or deleted."""

_NOTHING = "(!(objectClass=*))"
_MAX_BYTES = 1024 * 1024
_MAX_ROUNDS = 100


class DirSync:
    """Remembers a cookie, which belongs to one domain controller."""

    method = "DirSync"

    def __init__(self, settings: LdapSettings, usn: int | None) -> None:
        self._attributes = (*settings.rules.attributes, *filtered_by(settings.filter), *_ALSO)
        self._cookie = b""
        self._usn = usn
        self.token = ""

    @classmethod
    def start(cls, link: Link, settings: LdapSettings) -> Self | None:
        """From now on. None if the server does not do it for this account."""
        root = link.root
        if not root.is_active_directory or CONTROL not in root.controls or not root.default_naming_context:
            return None
        watch = cls(settings, root.usn)
        # Asking for nothing gives a cookie and no entries.
        if watch._catch_up(link, _NOTHING) is not False or not watch._cookie:
            return None
        watch.token = watch._cookie.hex()
        return watch

    def changed(self, link: Link) -> bool:
        """Whether something may have changed since the cookie; takes the new cookie."""
        if link.root.usn == self._usn:  # nothing at all was written
            return False
        if self._catch_up(link, EVERYTHING) is not False:
            return True
        self._usn = link.root.usn
        return False

    def _catch_up(self, link: Link, search_filter: str) -> bool | None:
        """False: nothing changed. None: the server does not tell."""
        for _ in range(_MAX_ROUNDS):
            answer = self._ask(link, search_filter)
            if answer.result.code != faults.SUCCESS:
                return None
            if answer.entries:
                return True
            value = answer.controls.get(CONTROL)
            if value is None:
                return None
            with faults.decoding(link.uri):
                parts = ber.members(value)
            if [tag for tag, _ in parts] != [0x02, 0x02, 0x04]:
                raise faults.malformed(link.uri, "the control for changes holds something else")
            self._cookie = parts[2][1]
            if not any(parts[0][1]):  # no more results
                return False
        return None

    def _ask(self, link: Link, search_filter: str) -> Answer:
        control = dir_sync_control(True, False, False, False, False, _MAX_BYTES, self._cookie)
        return link.channel.ask(
            link.root.default_naming_context,
            self._attributes,
            search_filter=search_filter,
            scope=SUBTREE,
            controls=[control],
        )
