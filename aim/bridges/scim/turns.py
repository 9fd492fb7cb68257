"""Turns: requests that change the same resource come one after another, in the order in which they came.

Below `writing`. Who read a version and writes on it would else be overtaken by others of this process, and
have to begin anew, again and again. That no change is lost is the store's to keep, to which other processes
write as well: a turn only saves attempts, and whoever has waited too long for theirs goes without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

_PATIENCE = 10.0
"""Seconds: one whose database hangs must not add up its time to that of those behind it."""


class Turns:
    """Who changes what at the moment. Remembers nothing of resources that nobody changes."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        """`patience`: seconds that somebody waits for their turn at most."""
        self._patience = patience
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        """Resources that are being changed."""
        return len(self._locks)

    @asynccontextmanager
    async def of(self, id_: str) -> AsyncIterator[None]:
        """Nobody else who waited for their turn changes this resource while the body runs."""
        lock = self._locks.setdefault(id_, asyncio.Lock())
        try:
            async with asyncio.timeout(self._patience):
                await lock.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            lock.release()
