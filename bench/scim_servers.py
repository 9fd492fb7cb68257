"""The servers that are measured, each in a process of its own: `scim` starts them, and ends their standard
input when they are no longer needed.

- **ours**: the SCIM service wired as `aim run` wires it, over Postgres, with the connection that listens for
  changes. No cycle follows.
- **reference**: the ASGI application of scim2-server over its storage in memory, as its package describes it.
- **nothing**: reads the request and answers a few bytes: the most that HTTP and the client allow.

All three are served by the same uvicorn with the same settings.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # no server imports what only another one needs
    from aim.ops.listening import Application

HOST, TOKEN = "127.0.0.1", "h7Jk2mPq9RtVw4XyZb6Cd8Fg1Hn3Ls5T"
CLIENT = "benchmark"


class Which(StrEnum):
    """Who answers."""

    OURS = "ours"
    REFERENCE = "reference"
    NOTHING = "nothing"


PREFIX = {Which.OURS: "/scim/v2", Which.REFERENCE: "/v2", Which.NOTHING: ""}
"""What comes before /Users."""


# -- the processes that answer -------------------------------------------------------------------------------


@asynccontextmanager
async def _ours(dsn: str) -> AsyncIterator[Application]:
    from aim.config.root import Config
    from aim.scim import serving

    config = Config.model_validate(
        {
            "homeserver": {"url": "http://127.0.0.1:8008", "server_name": "example.com"},
            "appservice": {"as_token": "as", "hs_token": "hs"},
            "database": {"url": dsn},
            "source": {
                "type": "scim",
                "port": 8040,
                "base_url": PREFIX[Which.OURS],
                "client": {"id": CLIENT, "token": TOKEN},
            },
        }
    )
    async with serving(config, lambda _: None, _nothing_to_await) as served:
        watching = asyncio.create_task(served.store.watch(lambda: None))
        try:
            yield served.application
        finally:
            watching.cancel()


async def _nothing_to_await(_: str | None) -> str | None:
    return None


@asynccontextmanager
async def _reference(_: str) -> AsyncIterator[Application]:
    from scim2_server.applications.asgi import ASGIApplication
    from scim2_server.memory import AsyncInMemoryStorage
    from scim2_server.service import ScimService
    from scim2_server.utils import load_default_provider

    provider = load_default_provider()
    yield ASGIApplication(AsyncInMemoryStorage(), provider, ScimService(provider, secret="0" * 32))


@asynccontextmanager
async def _nothing(_: str) -> AsyncIterator[Application]:
    async def answer(_: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/scim+json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    yield answer


_APPLICATIONS: dict[Which, Callable[[str], AbstractAsyncContextManager[Application]]] = {
    Which.OURS: _ours,
    Which.REFERENCE: _reference,
    Which.NOTHING: _nothing,
}


async def serve(which: Which, dsn: str) -> None:
    """Says its port on standard output, and answers until its standard input ends."""
    from aim.ops.listening import listening

    async with _APPLICATIONS[which](dsn) as application, listening(application, HOST, 0) as port:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


# -- the side that starts them -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running process."""

    which: Which
    port: int
    pid: int


@asynccontextmanager
async def running(which: Which, dsn: str = "") -> AsyncIterator[Server]:
    """The process, which ends with the context. `dsn` leads to a database that has our schema."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.scim_servers",
        which,
        dsn,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.wait)
        stack.callback(process.stdin.close)
        said = await process.stdout.readline()
        if not said:
            raise RuntimeError(f"{which} did not start: what it says is above")
        yield Server(which, int(said), process.pid)


# -- what a process takes ------------------------------------------------------------------------------------


def processor(pid: int) -> float:
    """Seconds that the process has computed so far."""
    # The name, in brackets, may have spaces in it (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Megabytes that the process has in memory now."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS") * 1024 / 1_000_000


def postgres_memory(data_dir: Path) -> float:
    """Megabytes of the embedded server under `data_dir` with all its processes, each shared page once."""
    postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    found = (_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid in (postmaster, *children))
    return sum(found) * 1024 / 1_000_000


def _kilobytes(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} in {file}")


def main() -> None:
    """Is one of the servers."""
    parser = argparse.ArgumentParser(prog="python -m bench.scim_servers", description="A SCIM server.")
    parser.add_argument("which", type=Which, choices=Which)
    parser.add_argument("dsn", nargs="?", default="")
    options = parser.parse_args()
    asyncio.run(serve(options.which, options.dsn))


if __name__ == "__main__":
    main()
