"""Watches a server that can tell what changed since a cookie (RFC 4533): OpenLDAP with syncprov, 389ds with
the content synchronisation plugin.

In comes a link; out goes whether anything below the base may have changed. What changed is never used.
"""

from __future__ import annotations

from typing import Any, Self

from ldap3 import SUBTREE
from ldap3.protocol.controls import build_control

from aim.bridges.ldap import ber, faults
from aim.bridges.ldap.channel import EVERYTHING, Piece, search_request
from aim.bridges.ldap.connect import Link
from aim.bridges.ldap.search import NO_ATTRIBUTES
from aim.bridges.ldap.settings import LdapSettings

REQUEST = "1.3.6.1.4.1.4203.1.9.1.1"
_DONE = "1.3.6.1.4.1.4203.1.9.1.3"
_INFO = "1.3.6.1.4.1.4203.1.9.1.4"

_NOTHING = "(objectClass=1.1)"

_REFRESH_PRESENT, _ID_SET = 0xA2, 0xA3


class Syncrepl:
    """Remembers a cookie."""

    method = "syncrepl"

    def __init__(self, settings: LdapSettings, cookie: bytes) -> None:
        self._settings = settings
        self._cookie = cookie
        self.token = cookie.decode("utf-8", "backslashreplace")

    @classmethod
    def start(cls, link: Link, settings: LdapSettings) -> Self | None:
        """From now on. None if the server does not do it for us."""
        if REQUEST not in link.root.controls:
            return None
        # Asking for nothing gives a cookie and no entries.
        end = _Refresh(link, settings, _NOTHING, None).end()
        if end is None or not end.cookie:
            return None
        watch = cls(settings, end.cookie)
        # Some servers take only cookies of the same search: then this way is none.
        return watch if not watch.changed(link) else None

    def changed(self, link: Link) -> bool:
        """Whether something may have changed since the cookie; takes the new cookie."""
        # Not the configured filter: an entry that changes so that it no longer matches would leave without a
        # word.
        end = _Refresh(link, self._settings, EVERYTHING, self._cookie).end()
        if end is None:
            return True
        self._cookie = end.cookie or self._cookie
        return False


class _End:
    """A refresh that brought nothing."""

    def __init__(self, cookie: bytes) -> None:
        self.cookie = cookie


class _Refresh:
    """One refreshOnly search."""

    def __init__(self, link: Link, settings: LdapSettings, search_filter: str, cookie: bytes | None) -> None:
        self._channel = link.channel
        self._cookie = b""
        self._number = self._channel.send(
            "searchRequest",
            search_request(settings.base, SUBTREE, search_filter, NO_ATTRIBUTES),
            [_control(cookie)],
        )

    def end(self) -> _End | None:
        """None as soon as there is a change, or a refusal: the rest of the answer is then still to come."""
        for piece in self._channel.answer(self._number):
            operation = piece.message.operation
            if operation == ber.SEARCH_ENTRY or (operation == ber.INTERMEDIATE and self._tells(piece)):
                return None
        if self._channel.result(piece).code != faults.SUCCESS:
            return None
        value = self._channel.controls(piece).get(_DONE)
        if value:
            self._take_cookie(value)
        return _End(self._cookie)

    def _tells(self, piece: Piece) -> bool:
        """Whether an intermediate message means that something changed."""
        with faults.decoding(self._channel.uri):
            name, value = ber.named(piece.buffer, piece.message.start, piece.message.end, 0x80)
            if name != _INFO or not value:
                return False
            if value[0] in {_REFRESH_PRESENT, _ID_SET}:
                return True
            for tag, content in ber.members(value, value[0]) if value[0] == 0xA1 else ():
                if tag == 0x04:
                    self._cookie = content
        return False

    def _take_cookie(self, value: bytes) -> None:
        with faults.decoding(self._channel.uri):
            for tag, content in ber.members(value):
                if tag == 0x04:
                    self._cookie = content


def _control(cookie: bytes | None) -> Any:
    """syncRequestValue (RFC 4533, 2.2): refreshOnly, and the cookie if there is one."""
    content = b"\x0a\x01\x01" + (ber.encode(0x04, cookie) if cookie is not None else b"")
    return build_control(REQUEST, True, ber.encode(0x30, content), encode_control_value=False)
