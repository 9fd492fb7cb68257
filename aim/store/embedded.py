"""The embedded Postgres: a server of our own under `data_dir`, for those who configure no database.

In comes the data directory; out goes a DSN, good inside the context. The server is shared: whoever comes
first starts it, whoever leaves last stops it. Two locks (flock) make that safe:

- on `data_dir`, exclusive and short, the gate: one process at a time starts or stops the server;
- on `data_dir/postgres`, shared by all who use the server: who gets it exclusively is the last.

The kernel drops them with their process, however it ends, so there is nothing to clean up after a SIGKILL.
The server itself outlives its users then, and the next to come takes it over. It listens on a Unix socket in
the data directory only, which nobody but its owner (and root) can enter.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from aim.errors import StoreError
from aim.store import binaries
from aim.store.binaries import Binaries
from aim.store.server import DATABASE, PATIENCE, PAUSE, Server

log = logging.getLogger(__name__)


@asynccontextmanager
async def embedded(data_dir: Path, *, create: bool) -> AsyncIterator[str | None]:
    """The DSN of the database under `data_dir`, with its server running for as long as the context lasts.

    Without `create`, None if there is no database yet; nothing is made on disk then. Raises StoreError.
    """
    with _translated(data_dir):
        data = _data(data_dir, create=create)
        server = None if data is None else await _enter(data, create=create)
    if server is None or data is None:
        yield None
        return
    try:
        yield server.dsn()
    finally:
        await _leave(server, data)


def _data(data_dir: Path, *, create: bool) -> Path | None:
    """The data directory of the server, which may be yet to be made; None if that is not asked for."""
    data_dir = data_dir.absolute()
    data = data_dir / "postgres"
    if create:
        # Root's can be passed through, by the user that Postgres runs as.
        data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    return data if create or data.exists() else None


async def _enter(data: Path, *, create: bool) -> Server | None:
    async with _gate(data.parent) as gate:
        programs = await binaries.find(data)
        binaries.make_reachable(data, programs.account)
        await _initialise(programs, data, gate)
        server = Server(programs, data)
        ready = False
        try:
            await server.start()
            ready = await server.has_database(create=create)
        finally:
            if not ready:
                await server.leave()
    return server if ready else None


async def _leave(server: Server, data: Path) -> None:
    # A server that goes on running is no reason to call what was done with it a failure.
    try:
        with _translated(data.parent):
            async with _gate(data.parent):
                await server.leave()
    except StoreError as error:
        log.warning("the embedded Postgres was not stopped: %s", error.message)


async def _initialise(programs: Binaries, data: Path, gate: int) -> None:
    """Makes the data directory, unless it exists: under another name until it is complete."""
    new = _half_made(programs, data)
    if new is None:
        return
    await programs.run(
        "initdb",
        "--pgdata=.",
        f"--username={DATABASE}",
        "--auth=trust",  # nobody but its owner and root comes as far as the socket
        "--encoding=UTF8",
        "--no-locale",
        cwd=new,
        # It keeps the gate closed until it ends, even if we are killed in the meantime.
        keep=gate,
    )
    new.rename(data)


def _half_made(programs: Binaries, data: Path) -> Path | None:
    if data.exists():
        return None
    new = data.with_name(f"{data.name}.new")
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    if programs.account is not None:
        os.chown(new, programs.account.uid, programs.account.gid)
    return new


@asynccontextmanager
async def _gate(data_dir: Path) -> AsyncIterator[int]:
    """The right to start and stop the server, as a file descriptor. Raises StoreError if it can't be had."""
    handle = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await _lock(handle, data_dir)
        yield handle
    finally:
        os.close(handle)


async def _lock(handle: int, data_dir: Path) -> None:
    deadline = asyncio.get_running_loop().time() + 2 * PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() > deadline:
                raise StoreError(
                    f"another process has been starting or stopping Postgres under {data_dir} for minutes",
                    f"see {data_dir / 'postgres' / 'log'}",
                ) from None
            await asyncio.sleep(PAUSE)
        else:
            return


@contextmanager
def _translated(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreError(
            f"the embedded database under {data_dir} is closed to this user: {error.filename or error}",
            "run aim as the user that owns data_dir, or as root",
        ) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreError(
            f"the embedded database under {data_dir} can't be used: {error}",
            f"see {data_dir / 'postgres' / 'log'}, or set database.url to use another Postgres",
        ) from error
