"""Hears that something was pushed by SCIM, whoever wrote it.

Below `scim`. In comes a DSN, out go calls: a prompt to look, never what has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aim.errors import StoreError
from aim.store.connection import Session, connected
from aim.store.queries import QUERIES

_CHANNEL = "aim_scim"
"""What every change notifies; see `scim_changed`."""
_STILL_THERE = 30
"""Seconds of silence after which the connection is tried."""
_PAUSE = 1
"""Seconds until a lost connection is opened again."""


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
