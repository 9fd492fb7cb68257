"""Changes the mirror: first what is stored, then what is in memory, then whoever wants to know is told.

The one place where the mirror is written; `mirror`, `stream`, `reading` and `people` go through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from aim.matrix.mirror.apply import RoomCopy
from aim.matrix.mirror.memory import Memory
from aim.matrix.parallel import to_the_end
from aim.ports import (
    MirrorChanges,
    MirrorFacts,
    MirrorRecord,
    MirrorStore,
    StateKey,
    StoredEvent,
    StoredMember,
)

OnChange = Callable[[frozenset[str]], None]
"""Told the ids of the rooms of which something changed, or came into doubt."""


class Keeper:
    """Memory and store together. What is asked of the store goes on to its end, whoever is cancelled: the
    connection to the database might be lost with it."""

    def __init__(
        self, memory: Memory, store: MirrorStore, now: Callable[[], datetime], on_change: OnChange
    ) -> None:
        self.memory = memory
        self._store = store
        self.now = now
        self._on_change = on_change
        self.turn = asyncio.Lock()
        """Held from looking at rooms to recording what changes in them."""

    async def load(self) -> None:
        """Raises StoreError."""
        await self.memory.load(self._store)

    async def compare(
        self, txn_id: str, members: Collection[StateKey], redacted: Collection[str]
    ) -> MirrorRecord:
        """See ports.MirrorStore. Raises StoreError."""
        return await to_the_end(self._store.compare(txn_id, members, redacted))

    async def members_of(self, room_id: str) -> Mapping[StateKey, StoredMember]:
        """See ports.MirrorStore. Raises StoreError."""
        return await to_the_end(self._store.members_of(room_id))

    async def record(self, changes: MirrorChanges) -> None:
        """All of it or, with StoreError, nothing: what is stored is in memory, too, even if who asked for it
        is cancelled. A transaction that changes nothing is not recorded."""
        if not changes:
            return
        if self.memory.erased:
            changes = self._without_traces(changes)
        await to_the_end(self._record(changes))

    async def _record(self, changes: MirrorChanges) -> None:
        await self._store.record(changes, self.now())
        touched = self.memory.apply(changes)
        if touched:
            self._on_change(frozenset(touched))

    def correct(self, copy: RoomCopy, rows: Iterable[StoredEvent | StoredMember]) -> bool:
        """`rows` are all of the room, and stored. True if memory told something else of its members."""
        members = (row for row in rows if isinstance(row, StoredMember))
        corrected = copy.correct(row for row in members if not self.memory.is_trace(row, erased=True))
        if corrected:
            self._on_change(frozenset({copy.room_id}))
        return corrected

    def _without_traces(self, changes: MirrorChanges) -> MirrorChanges:
        """Keeps no leave of those who were erased: the homeserver parts them from all rooms, sooner or later,
        and nothing of them is to come back by that."""
        traces = {member.key for member in changes.members if self.memory.is_trace(member, erased=True)}
        if not traces:
            return changes
        return replace(
            changes,
            members=[member for member in changes.members if member.key not in traces],
            gone=[*changes.gone, *traces],
        )

    async def forget(self, localpart: str) -> None:
        """Their account is erased; the store knows it already."""
        async with self.turn:
            self.memory.forget_account(localpart)

    async def note(self, facts: MirrorFacts) -> None:
        """Records facts that have nothing to do with rooms. Raises StoreError."""
        await self.record(MirrorChanges(facts=facts))
