"""The writer's lock: one writer at a time, whichever command it is.

A session-level advisory lock of Postgres. The recorder writes through the very session that holds it, so a
writer that lost the lock can't write: its connection is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from aim.errors import StoreBusy, StoreError
from aim.store.connection import Session
from aim.store.queries import QUERIES

_REMEDY = "wait until it has finished or stop it; `aim plan` and other reading commands work beside it"


def holder_name(name: str) -> str:
    """How this process is shown to whoever finds the lock taken: `aim run, pid 4711 on db.example.com`.

    At most 63 ASCII characters: what Postgres keeps of an application's name.
    """
    return f"{name}, pid {os.getpid()} on {socket.gethostname()}".encode("ascii", "replace").decode()[:63]


@asynccontextmanager
async def writers_lock(session: Session, *, wait: bool) -> AsyncIterator[None]:
    """Holds the lock in `session`. Raises StoreBusy, naming the holder, unless told to wait for it."""
    if wait:
        await session.wait_for_lock()
    else:
        async with session.use() as connection:
            if not await connection.fetchval(QUERIES["try_lock"]):
                raise StoreBusy(f"another aim process is the writer: {await _holder(connection)}", _REMEDY)
    try:
        yield
    finally:
        await _release(session)


async def _holder(connection: asyncpg.Connection) -> str:
    row = await connection.fetchrow(QUERIES["lock_holder"])
    if row is None:
        return "it let go a moment ago"
    client = f" from {row['client']}" if row["client"] else ""
    since = row["backend_start"]
    return f"{row['application_name']}{client}" + (f", since {since:%Y-%m-%d %H:%M:%S} UTC" if since else "")


async def _release(session: Session) -> None:
    # Closing the connection would do, but some milliseconds later than the next command may ask for the lock.
    try:
        async with session.use() as connection:
            await connection.fetchval(QUERIES["unlock"])
    except StoreError:
        # The session is lost, and the lock went with it.
        return
