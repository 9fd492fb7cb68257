"""Asks cheaply whether a directory may have changed, in the way that fits the server.

In come the settings; out goes a token that is another one after every change. It only answers *whether*: an
organisational unit renamed with thousands of people in it is one changed entry, so after a change everything
is read. What a server remembers for us belongs to that server alone: after a failover the token changes as
well.
"""

from __future__ import annotations

from typing import Protocol

from aim.bridges.ldap.channel import Line
from aim.bridges.ldap.connect import Link, connected
from aim.bridges.ldap.dirsync import DirSync
from aim.bridges.ldap.settings import LdapSettings
from aim.bridges.ldap.sweep import Sweep
from aim.bridges.ldap.syncrepl import Syncrepl
from aim.bridges.ldap.usn import Usn


class Watch(Protocol):
    """What is known of one server at one time."""

    @property
    def method(self) -> str: ...

    @property
    def token(self) -> str: ...

    def changed(self, link: Link) -> bool:
        """True if anything may have changed since; then this watch has seen its day."""
        ...


def find(link: Link, settings: LdapSettings) -> Watch:
    """The cheapest way that this server and our rights allow, from now on."""
    return (
        Syncrepl.start(link, settings)
        or DirSync.start(link, settings)
        or Usn.start(link, settings)
        or Sweep.start(link, settings)
    )


class Watcher:
    """Watches one directory, whichever of its servers answers. For one thread at a time."""

    def __init__(self, settings: LdapSettings) -> None:
        self._settings = settings
        self._watch: Watch | None = None
        self._server = ""
        self._changes = 0

    def poll(self, line: Line) -> str:
        """The token. Raises SourceUnavailable or SourceInvalid."""
        watch = self._watch
        if watch is None or self._changed(watch, line):
            # On a connection of its own: the rest of the last answer may still be coming.
            with connected(self._settings, line) as link:
                watch = find(link, self._settings)
                self._watch, self._server = watch, link.server
                self._changes += 1
        return f"{watch.method} {self._server} {self._changes} {watch.token}"

    def _changed(self, watch: Watch, line: Line) -> bool:
        with connected(self._settings, line) as link:
            return link.server != self._server or watch.changed(link)
