"""Connections: opened with errors that a user understands, used by one task at a time.

Between asyncpg and the rest of the store. In comes a DSN; out goes a Session. Everything that asyncpg or the
network raises leaves here as StoreError, and no message ever holds a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from aim.errors import StoreError
from aim.store.queries import QUERIES

BATCH = 50_000
"""Rows in one statement: bounds the memory that a statement's arguments take."""

START_AGAIN = "start aim again once Postgres answers; everything acknowledged is kept"
"""The remedy where a connection can't be opened anew."""

_CONNECT_TIMEOUT = 15
_USE_TIMEOUT = 300
"""Seconds for one port method: long enough for the largest organisation, short of waiting for ever for a host
that went away without a word."""

_UNNAMED = "the database that database.url names"
_KEEPALIVES = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""Asked of the server, so that it gives the writer's lock back soon after our host silently went away."""


def describe(dsn: str) -> str:
    """`database "NAME" at HOST:PORT`, for messages. Says less rather than risk showing a part of a password:
    an unescaped `@`, `/`, `?` or `#` in it makes the parts of a DSN ambiguous."""
    try:
        parts = urlsplit(dsn)
        userinfo, _, address = parts.netloc.rpartition("@")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return _UNNAMED
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    if parts.scheme not in ("postgres", "postgresql") or "@" in rest or "@" in userinfo or parts.fragment:
        return _UNNAMED
    if not address:
        host = parse_qs(parts.query).get("host", [""])[0]
    place = f" at {host}:{port}" if port else f" at {host}" if host else ""
    return f'database "{unquote(parts.path.lstrip("/"))}"{place}'


class Session:
    """One connection, handed to one task at a time."""

    def __init__(self, connection: asyncpg.Connection, where: str) -> None:
        self.connection = connection
        self.where = where
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[asyncpg.Connection]:
        """The connection, for the length of one port method. Raises StoreError for whatever goes wrong."""
        async with self._turn:
            if self.connection.is_closed():
                raise _lost(self.where)
            with translated(self.where):
                async with asyncio.timeout(_USE_TIMEOUT):
                    yield self.connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        """The connection in a transaction that sees one moment and can't write. Raises StoreError."""
        async with (
            self.use() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """The connection in a transaction: all of it is done, or nothing. Raises StoreError."""
        async with self.use() as connection, connection.transaction():
            yield connection

    async def wait_for_lock(self) -> None:
        """Waits until the writer's lock is ours, however long that takes. Raises StoreError."""
        with translated(self.where):
            await self.connection.execute(QUERIES["wait_for_lock"])


@asynccontextmanager
async def connected(dsn: str, *, name: str = "aim", read_only: bool) -> AsyncIterator[Session]:
    """A session with the database, closed at the end. `name` is what the server shows as its application.

    With `read_only` the server refuses every write of this session. Raises StoreError.
    """
    where = describe(dsn)
    connection = await connect(dsn, where, settings_of(name, read_only=read_only))
    try:
        yield Session(connection, where)
    finally:
        await _close(connection)


def settings_of(name: str, *, read_only: bool) -> dict[str, str]:
    """What is asked of the server for a connection. `name` is what it shows as its application."""
    settings = {"application_name": name, "search_path": "pg_catalog", **_KEEPALIVES}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    return settings


async def connect(dsn: str, where: str, settings: dict[str, str]) -> asyncpg.Connection:
    """A new connection; `where` names the database in messages. Raises StoreError."""
    try:
        return await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT, server_settings=settings)
    except (asyncpg.InterfaceError, ValueError):
        # Its text, and that of its cause, may quote any part of the DSN.
        raise StoreError(
            f"{where}: database.url is malformed",
            "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with special characters in the password "
            "percent-encoded",
        ) from None
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise StoreError(
            f"{where} refused the login: {error}", "correct user and password in database.url"
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise StoreError(
            f"{where} does not exist", "create it with createdb, or correct database.url"
        ) from error
    except asyncpg.PostgresError as error:
        raise StoreError(f"{where} does not take connections: {error}", "see the log of Postgres") from error
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        raise StoreError(
            f"{where} can't be reached: {reason}", "check that Postgres runs there, and database.url"
        ) from error


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        # Nothing depends on a farewell: all that was acknowledged is committed.
        connection.terminate()


@contextmanager
def translated(where: str, remedy: str = START_AGAIN) -> Iterator[None]:
    """Whatever asyncpg or the network raises inside becomes StoreError. `remedy` is for a lost connection."""
    try:
        yield
    except (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError) as error:
        raise _lost(where, remedy) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreError(
            f"{where} refused: {error}", "give the user of database.url all rights on the schema aim"
        ) from error
    except asyncpg.PostgresError as error:
        raise StoreError(f"{where} refused: {error}", "see the log of Postgres") from error
    except asyncpg.DataError as error:
        raise StoreError(f"{where} can't hold a value: {error}", "please report this") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise _lost(where, remedy) from error


def _lost(where: str, remedy: str = START_AGAIN) -> StoreError:
    return StoreError(f"the connection to {where} was lost", remedy)
