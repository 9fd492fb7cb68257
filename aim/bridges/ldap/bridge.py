"""The LDAP source: a tree on a server becomes a Directory.

In come plain settings; out goes a complete Directory (rules: `directory.flatten`) or an error, a token that
tells of changes, and for `aim check` what was found on the way. Reading and flattening run in a worker
thread; only the numbering of people runs on the event loop, where everybody else uses the roster too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from aim.bridges.ldap import pace
from aim.bridges.ldap.changes import Watcher
from aim.bridges.ldap.channel import Line
from aim.bridges.ldap.connect import connected
from aim.bridges.ldap.describe import Description, describe
from aim.bridges.ldap.patience import Patience
from aim.bridges.ldap.search import everything
from aim.bridges.ldap.settings import LdapSettings
from aim.directory.entries import Entry
from aim.directory.flatten import Enrolled, assemble
from aim.directory.gather import Gathered, gather
from aim.directory.model import Directory
from aim.directory.roster import Roster

_T = TypeVar("_T")


class LdapSource:
    """Implements `ports.Source` over LDAP servers that hold one directory."""

    def __init__(
        self, settings: LdapSettings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`now` gives the time in UTC; it tells when a rejected login is tried again."""
        self._settings = settings
        self._patience = Patience(now)
        self._watcher = Watcher(settings)
        self._polling = asyncio.Lock()

    @property
    def type(self) -> str:
        return "ldap"

    async def read(self, roster: Roster) -> Directory:
        """Everything below the base.

        SourceUnavailable if no server can be reached, or the connection is lost; SourceInvalid if the server
        refuses, gives only a part, or shows nothing. Cancelling it ends the connection.
        After a rejected login the server is left alone for a while, and the same is raised at once.
        """
        with pace.undisturbed():
            with self._patience.kept():
                gathered = await self._worker(self._gather)
            enrolled = await pace.enrol(gathered, roster)
            return await asyncio.to_thread(self._assemble, gathered, enrolled, roster)

    async def entries(self) -> list[Entry]:
        """Everything below the base as the server gives it, before any rule. Raises as `read` does."""
        with self._patience.kept():
            return await self._worker(self._entries)

    async def fingerprint(self) -> str:
        """Changes whenever the directory may have changed, or another server answers. Raises as `read`."""
        async with self._polling:
            with self._patience.kept(again=True):
                return await self._worker(self._watcher.poll)

    async def describe(self) -> Description:
        """What is found on the way, as far as it goes. Raises nothing of its own."""
        return await self._worker(lambda line: describe(self._settings, line))

    def _entries(self, line: Line) -> list[Entry]:
        with connected(self._settings, line) as link:
            return list(everything(link.channel, self._settings))

    def _gather(self, line: Line) -> Gathered:
        with connected(self._settings, line) as link:
            return gather(everything(link.channel, self._settings), self._settings.rules)

    def _assemble(self, gathered: Gathered, enrolled: Enrolled, roster: Roster) -> Directory:
        directory = assemble(gathered, enrolled, roster, source=self.type, name=self._settings.name)
        pace.release(gathered)
        return directory

    async def _worker(self, work: Callable[[Line], _T]) -> _T:
        line = Line()
        try:
            return await asyncio.to_thread(work, line)
        except asyncio.CancelledError:
            line.cut()
            raise
