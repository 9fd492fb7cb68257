"""Tells that something was pushed by SCIM, and hears of it, whoever wrote it.

Below `scim`. What goes from one process to the others is a prompt to look, never what has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aim.errors import StoreError
from aim.store.connection import Session, connected
from aim.store.pool import Pool
from aim.store.queries import QUERIES

_CHANNEL = "aim_scim"
"""What every change notifies; see `scim_changed`."""
_STILL_THERE = 30
"""Seconds of silence after which the connection is tried."""
_PAUSE = 1
"""Seconds until a lost connection is opened again."""
_TOGETHER = 0.02
"""Seconds in which changes are told of together."""


class Teller:
    """Tells those who listen of what is committed, once for what comes together.

    Changes could tell by themselves, as rare ones do; but Postgres then lets none be committed before the one
    ahead of it is on the disk, and eight clients would write no faster than one. If we are killed in between,
    others find it when they look the next time, as they do now and then, and we when we are back.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._is_due = False
        self._telling: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Something was committed."""
        self._is_due = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Waits until all is told, if the database is there."""
        if self._telling is not None:
            await asyncio.wait([self._telling], timeout=_PAUSE)
            self._telling.cancel()

    async def _tell(self) -> None:
        while self._is_due:
            await asyncio.sleep(_TOGETHER)
            self._is_due = False
            try:
                async with self._pool.use() as connection:
                    await connection.execute(QUERIES["scim_tell"])
            except StoreError:
                # Whoever lost the database too looks by themselves when it is back.
                self._is_due = True
                await asyncio.sleep(_PAUSE)


async def listen(dsn: str, heard: Callable[[], None]) -> None:
    """Calls `heard` at once, after each change, and when the database is back after it was away; for ever."""
    while True:
        try:
            async with connected(dsn, name="aim scim listener", read_only=True) as session:
                await _hear(session, heard)
        except StoreError:
            # Requests and cycles tell of it; this only has to be there again.
            pass
        await asyncio.sleep(_PAUSE)


async def _hear(session: Session, heard: Callable[[], None]) -> None:
    lost = asyncio.Event()
    async with session.use() as connection:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(_CHANNEL, lambda *_: heard())
    # What came before is not told by anything else.
    heard()
    while not lost.is_set():
        try:
            async with asyncio.timeout(_STILL_THERE):
                await lost.wait()
        except TimeoutError:
            async with session.use() as connection:
                await connection.fetchval(QUERIES["schema_exists"])
