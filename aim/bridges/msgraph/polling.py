"""Follows a tenant: what is stored, what has changed since, and now and then all of it anew.

Between `source` and `reading`. In comes the time to look; out goes the state as Graph has it now, recorded
with the links that belong to it in one transaction: whenever we are killed, both fit together, and what was
not recorded is told again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from aim.bridges.msgraph.graph import ResyncNeeded
from aim.bridges.msgraph.memory import apply, differing
from aim.bridges.msgraph.reading import Reading
from aim.errors import SourceError, SourceUnavailable, StoreError
from aim.ports.graph import GraphBack, GraphLinks, GraphMoved, GraphReader, GraphState, GraphStore

_LINKS_AGE = timedelta(hours=1)
"""Links alone are recorded no more often: an older one tells a little more, and is good for days."""

_LAG = timedelta(minutes=15)
"""Changes are told with a delay of seconds, and now and then of minutes: not before that is one missed."""

_log = structlog.get_logger()


class Poller:
    """Knows one tenant, for one task at a time."""

    def __init__(
        self,
        reading: Reading,
        interval: timedelta,
        stored: GraphReader | None,
        store: GraphStore | None,
        now: Callable[[], datetime],
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """All is read anew after the `interval`. `stored` is where to begin, `store` where to record: None
        for who only looks. `now` gives the time in UTC."""
        self._reading = reading
        self._interval = interval
        self._stored = stored
        self._store = store
        self._now = now
        self._warn = warn
        self._state: GraphState | None = None
        self._is_loaded = False
        self._revision = 0
        """The highest that anybody was told."""
        self._links_at: datetime | None = None
        self._doubts: _Doubts | None = None

    async def poll(self) -> GraphState:
        """The state as it is now. Raises SourceUnavailable and SourceInvalid, and leaves all as it was."""
        try:
            try:
                return await self._poll()
            except GraphMoved:
                self._forget()
                return await self._poll()
        except StoreError as error:
            # Nobody knows what of it was recorded.
            self._forget()
            raise SourceUnavailable(error.message, error.remedy) from error
        except GraphMoved as error:
            self._forget()
            raise SourceUnavailable(
                "another aim records what Microsoft Graph tells", "let only one of them run"
            ) from error

    def _forget(self) -> None:
        self._state, self._is_loaded = None, False

    async def _poll(self) -> GraphState:
        if not self._is_loaded and self._stored is not None:
            self._state = await self._stored.load()
        self._is_loaded = True
        state = self._state
        if state is None or not self._is_within(self._interval, state.read_at):
            state = await self._read_all(state)
        else:
            try:
                await self._follow(state)
            except ResyncNeeded as error:
                _log.info("Microsoft Graph can't tell what changed; all is read anew", cause=error.message)
                state = await self._read_all(state, compares=False)
            except GraphBack:
                state = await self._read_all(state, compares=False)
        await self._look_again()
        self._revision = max(self._revision, state.revision)
        return state

    async def _follow(self, state: GraphState) -> None:
        """What changed since."""
        draft, links = await self._reading.changes(state)
        changes = draft.changes()
        revision = self._following(state) if changes else state.revision
        if self._store is not None and (changes or self._are_links_old()):
            state.version = await self._store.record(changes, links, revision, state.version)
            self._links_at = self._now()
        apply(state, changes, links)
        state.revision = revision

    async def _read_all(self, before: GraphState | None, *, compares: bool = True) -> GraphState:
        """Everything, instead of what was known."""
        state = await self._reading.everything()
        if before is not None:
            if compares:
                await self._compare(before, state)
            state.name = state.name or before.name
        is_same = before is not None and await asyncio.to_thread(_alike, before, state)
        state.revision = before.revision if before is not None and is_same else self._following(before)
        if self._store is not None:
            known = before.version if before is not None else None
            state.version = await self._store.replace(state, known)
            self._links_at = self._now()
        self._state = state
        return state

    async def _compare(self, before: GraphState, after: GraphState) -> None:
        """Keeps in mind what the changes had not told of. What happened while all was read can't be told
        apart from that, and is left out."""
        try:
            touched = await self._reading.touched(before.links)
        except SourceError:
            return
        found = await asyncio.to_thread(differing, before, after, touched)
        self._doubts = _Doubts(before.links, found, self._now()) if found else None

    async def _look_again(self) -> None:
        """Says what the changes have not told of meanwhile either."""
        doubts = self._doubts
        if doubts is None or self._is_within(_LAG, doubts.since):
            return
        self._doubts = None
        try:
            left = doubts.ids - await self._reading.touched(doubts.links)
        except SourceError:
            return
        if left:
            self._warn(
                f"a complete read of Microsoft Graph found {len(left)} users or groups to be other than its "
                "changes had told, which have not told of them since either; the complete read counts"
            )

    def _following(self, state: GraphState | None) -> int:
        return max(self._revision, state.revision if state else 0) + 1

    def _are_links_old(self) -> bool:
        return self._links_at is None or not self._is_within(_LINKS_AGE, self._links_at)

    def _is_within(self, span: timedelta, since: datetime) -> bool:
        """Whether less than that has passed. A clock that was put back counts as more."""
        return timedelta() <= self._now() - since < span


class _Doubts(NamedTuple):
    """What a complete read found that the changes had not told of."""

    links: GraphLinks
    """Where they begin that have told nothing of it."""
    ids: set[str]
    since: datetime


def _alike(one: GraphState, other: GraphState) -> bool:
    return (one.name, one.users, one.groups, one.members) == (
        other.name,
        other.users,
        other.groups,
        other.members,
    )
