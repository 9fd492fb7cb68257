"""A source whose reads and looks are counted, each by what came of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import SourceError
from aim.ops.metrics import Metrics
from aim.ports import Source


class WatchedSource:
    """Implements ports.Source by another one."""

    def __init__(self, source: Source, metrics: Metrics, now: Callable[[], datetime]) -> None:
        """`now` gives the time in UTC."""
        self._source = source
        self._metrics = metrics
        self._now = now

    @property
    def type(self) -> str:
        return self._source.type

    async def read(self, roster: Roster) -> Directory:
        """See ports.Source."""
        try:
            directory = await self._source.read(roster)
        except SourceError:
            self._metrics.read_failed()
            raise
        self._metrics.read(self._now())
        return directory

    async def fingerprint(self) -> str:
        """See ports.Source."""
        try:
            fingerprint = await self._source.fingerprint()
        except SourceError:
            self._metrics.look(failed=True)
            raise
        self._metrics.look(failed=False)
        return fingerprint
