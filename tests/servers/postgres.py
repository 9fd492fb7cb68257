"""A real Postgres for tests: one embedded server a session, a fresh database for whoever asks.

Also other processes, as the neighbours of the one under test: they hold something until they are told to let
go, or killed.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from aim.store import embedded


class Postgres:
    """A running server. `dsn` leads to a database of it that no test writes to."""

    def __init__(self, dsn: str, data_dir: Path) -> None:
        self.dsn = dsn
        self.data_dir = data_dir
        self._numbers = itertools.count(1)

    def dsn_of(self, database: str, user: str = "aim") -> str:
        """The DSN of another database, or for another user."""
        return self.dsn.replace("//aim@/aim?", f"//{user}@/{database}?")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """The DSN of a new, empty database, dropped at the end together with whatever is connected to it."""
        name = f"test_{next(self._numbers)}"
        admin = await asyncpg.connect(self.dsn)
        try:
            await admin.execute(f"create database {name}")
            yield self.dsn_of(name)
            await admin.execute(f"drop database {name} with (force)")
        finally:
            await admin.close()


@asynccontextmanager
async def running_postgres() -> AsyncIterator[Postgres]:
    """A server of its own, with its data under the system's temporary directory."""
    # Not under pytest's: that is closed anew to other users by every pytest that starts beside us, and when
    # root runs the tests, Postgres is another user.
    with tempfile.TemporaryDirectory(prefix="aim-test-") as directory:
        data_dir = Path(directory) / "data"
        async with embedded(data_dir, create=True) as dsn:
            assert dsn is not None
            yield Postgres(dsn, data_dir)


class Neighbour:
    """Another Python process. It says what it has to say line by line, and ends when its stdin does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def line(self) -> str:
        """What it says next; empty when it has ended."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def let_go(self) -> int:
        """Asks it to end, waits for that, and gives its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to clean up."""
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def neighbour(script: str, *arguments: str) -> AsyncIterator[Neighbour]:
    """Runs `script`, warnings as errors. It has been killed at the end, if nothing else ended it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        script,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Neighbour(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def copied(dsn: str) -> AsyncIterator[str]:
    """The DSN of a copy of a database that nobody is connected to."""
    parts = urlsplit(dsn)
    name = parts.path.lstrip("/")
    connection = await asyncpg.connect(urlunsplit(parts._replace(path="/aim")))
    try:
        await connection.execute(f'create database "{name}_copy" template "{name}"')
        try:
            yield urlunsplit(parts._replace(path=f"/{name}_copy"))
        finally:
            await connection.execute(f'drop database "{name}_copy" with (force)')
    finally:
        await connection.close()
