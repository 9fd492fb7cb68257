"""A few connections for many requests at once.

Beside `connection`, whose Session is used by one task at a time. In comes a DSN, out goes a Pool; its
connections are opened when they are needed, and again after the database was away. Errors as in `connection`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from aim.errors import StoreError
from aim.store.connection import connect, describe, settings_of, translated

T = TypeVar("T")

_SIZE = 8
"""Connections at most: a request holds one for a millisecond or two, and Postgres has a hundred for all."""
_USE_TIMEOUT = 30
"""Seconds for one use, the wait for a connection included: whoever sent the request waits no longer."""
_ATTEMPTS = 5
_FAREWELL = 10
_REMEDY = (
    "check that Postgres runs; aim goes on by itself once it answers, and everything acknowledged is kept"
)


class Pool:
    """Connections for short uses. All methods raise StoreError."""

    def __init__(self, pool: asyncpg.Pool, where: str) -> None:
        self._pool = pool
        self.where = where

    @asynccontextmanager
    async def use(self, timeout: float = _USE_TIMEOUT) -> AsyncIterator[asyncpg.Connection]:  # noqa: ASYNC109 - of the use as a whole
        """A connection; each statement is a transaction of its own, and sees one moment."""
        with translated(self.where, _REMEDY):
            async with asyncio.timeout(timeout), self._pool.acquire() as connection:
                yield connection

    @asynccontextmanager
    async def snapshot(self, timeout: float) -> AsyncIterator[asyncpg.Connection]:  # noqa: ASYNC109 - as above
        """A connection in a transaction that sees one moment and can't write."""
        async with (
            self.use(timeout) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def write(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Does `work` in a transaction: all of it, or nothing. If it has to give way to another one it is
        done again from the start, so it must not do anything else than write there."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._write_once(work)
            except _GivenWay:
                continue
        try:
            return await self._write_once(work)
        except _GivenWay as error:
            raise StoreError(f"{self.where} is too busy: {error.__cause__}", "try again") from error

    async def _write_once(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        async with self.use() as connection:
            try:
                async with connection.transaction():
                    return await work(connection)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                raise _GivenWay from error


class _GivenWay(Exception):
    """Two transactions waited for each other, and this one was ended."""


@asynccontextmanager
async def pooled(dsn: str, *, name: str, read_only: bool) -> AsyncIterator[Pool]:
    """A pool, closed at the end. `name` is what the server shows as its application. Raises StoreError."""
    where = describe(dsn)
    # Compiling a statement costs more than any search of ours takes.
    settings = {**settings_of(name, read_only=read_only), "jit": "off"}

    async def open_one(*_: Any, **__: Any) -> asyncpg.Connection:
        return await connect(dsn, where, settings)

    with translated(where):
        pool = await asyncpg.create_pool(min_size=1, max_size=_SIZE, connect=open_one, reset=_leave_as_it_is)
    try:
        yield Pool(pool, where)
    finally:
        await _close(pool)


async def _leave_as_it_is(_: asyncpg.Connection) -> None:
    """Between two uses nothing has to be set back, and asking the server to would take as long as a use."""


async def _close(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(_FAREWELL):
            await pool.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        pool.terminate()
