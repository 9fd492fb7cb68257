"""One user's hold on the embedded Postgres server: started, reached and stopped through it.

Between `embedded`, which decides who may start and stop, and `binaries`. In comes a data directory; out goes
a server that takes connections, whatever a crash left behind.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from enum import Enum, auto
from pathlib import Path
from urllib.parse import quote

import asyncpg

from aim.errors import StoreError
from aim.store.binaries import Binaries

DATABASE = "aim"
"""Name of our database in the server, and of the server's superuser."""
PATIENCE = 60
"""Seconds to wait for another process to start or stop the server, or for it to recover from a crash."""
PAUSE = 0.02
"""Seconds between two looks at something that can't be awaited."""

_RETRY_PAUSES = (0.1, 0.4, 1.5)
"""Seconds before a start that failed is tried again."""
_ENDED = ("Z", "X")
"""States of a process that its parent has not taken note of yet (proc(5))."""
_PORT = 5432
"""Only a part of the socket's name: there is no network."""
_SOCKET_PATH_LIMIT = 107
"""Bytes in `sun_path` on Linux, less its final zero (unix(7))."""
_ARGUMENTS = ("--pgdata=.", "--wait", f"--timeout={PATIENCE}", "--silent")
"""Paths are relative to the working directory: pg_ctl passes them through a shell."""
_START_ARGUMENTS = (
    "--log=log",
    # No network. Terse: without the DETAIL lines, which quote rows.
    f"--options=-h '' -k . -p {_PORT} -c log_error_verbosity=terse",
)

log = logging.getLogger(__name__)


class _State(Enum):
    DOWN = auto()
    BUSY = auto()
    """Starting, recovering or shutting down."""
    UP = auto()


class _Postmaster(Enum):
    """The process that `postmaster.pid` names."""

    NONE = auto()
    ALIVE = auto()
    NUMBER_ONLY = auto()
    """The server is gone, its number is not free: its parent took no note yet, or another process has it."""


class Server:
    """A shared lock on the data directory, and the server in it. Made, started and left within the gate."""

    def __init__(self, programs: Binaries, data: Path) -> None:
        self._programs = programs
        self._data = data
        self._hold = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._hold, fcntl.LOCK_SH)

    def dsn(self, database: str = DATABASE) -> str:
        """Leads to the socket by its path. If that is too long for a socket or looks like a list of hosts, it
        leads through our open handle on the data directory, for as long as we keep it."""
        directory = str(self._data)
        if len(os.fsencode(f"{directory}/.s.PGSQL.{_PORT}")) > _SOCKET_PATH_LIMIT or "," in directory:
            directory = f"/proc/{os.getpid()}/fd/{self._hold}"
        return f"postgresql://{DATABASE}@/{database}?host={quote(directory)}&port={_PORT}"

    async def start(self) -> None:
        """Makes sure that the server takes connections. Raises StoreError."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while (state := await self._state()) is not _State.UP:
            if state is _State.DOWN and self._postmaster() is not _Postmaster.ALIVE:
                await self._launch()
            elif asyncio.get_running_loop().time() > deadline:
                raise StoreError(
                    f"the embedded Postgres under {self._data} neither starts nor stops",
                    f"see {self._data / 'log'}, and stop its process (first line of postmaster.pid)",
                )
            else:
                await asyncio.sleep(PAUSE)

    async def has_database(self, *, create: bool) -> bool:
        """True if our database exists, made now if it did not and `create` says so."""
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            if await connection.fetchval("select true from pg_database where datname = $1", DATABASE):
                return True
            if create:
                await connection.execute(f"create database {DATABASE}")
            return create
        finally:
            await connection.close()

    async def leave(self) -> None:
        """Lets go; stops the server if nobody else holds it. Raises StoreError if it can't be stopped."""
        try:
            fcntl.flock(self._hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._postmaster() is _Postmaster.ALIVE:
                await self._programs.run("pg_ctl", "stop", *_ARGUMENTS, "--mode=fast", cwd=self._data)
        except BlockingIOError:
            log.debug("the embedded Postgres is in use by others, and goes on")
        finally:
            os.close(self._hold)

    async def _state(self) -> _State:
        try:
            connection = await asyncpg.connect(self.dsn("postgres"), timeout=10)
        except asyncpg.CannotConnectNowError:
            return _State.BUSY
        except (OSError, asyncpg.PostgresConnectionError):
            return _State.DOWN
        await connection.close()
        return _State.UP

    async def _launch(self) -> None:
        if self._postmaster() is _Postmaster.NUMBER_ONLY:
            self._disown_number()
        for pause in _RETRY_PAUSES:
            try:
                return await self._start_once()
            except StoreError:
                # Those processes notice within moments that their server was killed, and end.
                await asyncio.sleep(pause)
        return await self._start_once()

    def _disown_number(self) -> None:
        """Postgres would take the process with that number for a running server, and refuse to start.

        It takes no notice of the number of its parent's parent, us. The rest of the file must stay: by it
        Postgres finds out whether processes of the killed server are still at work on the data.
        """
        file = self._data / "postmaster.pid"
        _, *rest = file.read_text("utf-8").splitlines(keepends=True)
        file.write_text("".join((f"{os.getpid()}\n", *rest)), "utf-8")
        (self._data / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)

    async def _start_once(self) -> None:
        await self._programs.run("pg_ctl", "start", *_ARGUMENTS, *_START_ARGUMENTS, cwd=self._data)

    def _postmaster(self) -> _Postmaster:
        # A number alone proves nothing: after a restart, of a container above all, another process has it.
        try:
            process = Path("/proc", (self._data / "postmaster.pid").read_text("utf-8").split()[0])
            name, _, rest = (process / "stat").read_text("utf-8").partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return _Postmaster.NONE
        if name != "postgres" or rest.split()[0] in _ENDED:
            return _Postmaster.NUMBER_ONLY
        try:
            # A server makes its data directory its working directory.
            ours = (process / "cwd").samefile(self._data)
        except PermissionError:
            # Root in a container may not look; better to believe that it is ours.
            return _Postmaster.ALIVE
        except OSError:
            return _Postmaster.NONE
        return _Postmaster.ALIVE if ours else _Postmaster.NUMBER_ONLY
