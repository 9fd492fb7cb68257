"""The Graph source: a tenant of Microsoft Entra ID becomes a Directory.

In come plain settings, the way to Graph, and what is stored of it; out goes a complete Directory or an error,
and a token that tells of changes. Everything is read once, and then what has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from aim.bridges.msgraph.directory import groups_of, key_of, people_of
from aim.bridges.msgraph.graph import Graph
from aim.bridges.msgraph.polling import Poller
from aim.bridges.msgraph.reading import Reading
from aim.bridges.msgraph.settings import GraphSettings
from aim.directory.listed import Container, Frame, Told, assemble, enrol, settle
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.ports.graph import GraphReader, GraphState, GraphStore


class GraphSource:
    """Implements `ports.Source` over Microsoft Graph."""

    def __init__(
        self,
        graph: Graph,
        settings: GraphSettings,
        stored: GraphReader | None = None,
        store: GraphStore | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`stored` is where to begin; `store`, for the one writer alone, where to record what was read.
        Without them all is read by the first look, and kept in memory. `now` gives the time in UTC."""
        self._settings = settings
        reading = Reading(graph, settings, now)
        self._poller = Poller(reading, settings.full_read_interval, stored, store, now)
        self._turn = asyncio.Lock()

    @property
    def type(self) -> str:
        return "ms-graph-ad"

    async def read(self, roster: Roster) -> Directory:
        """The tenant as it is now: two requests if it is known and nothing has changed.

        SourceUnavailable if Graph or the database is away; SourceInvalid if Graph refuses, or what it gives
        is not whole.
        """
        async with self._turn:
            state = await self._poller.poll()
            told, groups = await asyncio.to_thread(self._settled, state)
            enrolled = enrol(told, roster)
            frame = Frame(source=self.type, name=state.name or self._settings.tenant_id, key_of=key_of)
            return await asyncio.to_thread(
                assemble, told, enrolled, groups, roster, frame, transitive=self._settings.transitive
            )

    async def fingerprint(self) -> str:
        """Changes whenever a user, a group or who is in one has changed. Raises as `read`."""
        async with self._turn:
            return str((await self._poller.poll()).revision)

    def _settled(self, state: GraphState) -> tuple[Told, list[Container]]:
        groups = groups_of(state, self._settings)
        return settle(people_of(state, self._settings, groups)), groups
