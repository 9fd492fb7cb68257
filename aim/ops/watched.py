"""A source whose complete and failed reads are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        with self._failures_counted():
            directory = await self._source.read(roster)
        self._metrics.read(self._now())
        return directory

    async def fingerprint(self) -> str:
        """See ports.Source."""
        with self._failures_counted():
            return await self._source.fingerprint()

    @contextmanager
    def _failures_counted(self) -> Iterator[None]:
        try:
            yield
        except SourceError:
            self._metrics.read_failed()
            raise
