"""Changes the mirror: first what is stored, then what is in memory, then whoever wants to know is told.

The one place where the mirror is written; `mirror`, `stream`, `reading` and `people` go through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from aim.matrix.mirror.memory import Memory
from aim.ports import MirrorChanges, MirrorFacts, MirrorStore

OnChange = Callable[[frozenset[str]], None]
"""Told the ids of the rooms of which something changed, or came into doubt."""


class Keeper:
    """Memory and store together."""

    def __init__(
        self, memory: Memory, store: MirrorStore, now: Callable[[], datetime], on_change: OnChange
    ) -> None:
        self.memory = memory
        self.store = store
        self.now = now
        self._on_change = on_change
        self.turn = asyncio.Lock()
        """Held from looking at rooms to recording what changes in them."""

    async def load(self) -> None:
        """Raises StoreError."""
        await self.memory.load(self.store)

    async def record(self, changes: MirrorChanges) -> None:
        """All of it or, with StoreError, nothing. A transaction that changes nothing is not recorded."""
        if not changes:
            return
        await self.store.record(changes, self.now())
        touched = self.memory.apply(changes)
        if touched:
            self._on_change(frozenset(touched))

    async def note(self, facts: MirrorFacts) -> None:
        """Records facts that have nothing to do with rooms. Raises StoreError."""
        await self.record(MirrorChanges(facts=facts))
