"""What it costs to follow a tenant of Microsoft Entra ID through Graph: `python -m bench.graph`.

stand-in for Graph ─► transport, reading, Postgres ─► Directory

The tenant is looked at as the daemon does it: for the first time, again when nothing and when ten things
have changed, after a restart, and when everything is read anew. Requests are counted where they arrive, in a
process of its own; what is measured is another one. Memory is the most that it ever had (VmHWM), the
interpreter and all libraries included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aim.bridges.msgraph.reading import key_of
from aim.bridges.msgraph.source import GraphSource
from aim.bridges.msgraph.transport import open_transport
from aim.directory.roster import Roster
from aim.store.graph import open_graph_store
from bench.graph_server import Server, Tenant, running_server
from bench.process import Beat, megabytes
from tests.servers.graph_tenant import Clock

if TYPE_CHECKING:  # the process that is measured doesn't import what it doesn't need
    from bench.report import Table

Result = TypeVar("Result")

SIZE = Tenant(users=100_000, groups=5_000, members=100, nested=1_000)
TOY = Tenant(users=1_500, groups=50, members=100, nested=10)

MOST_TIMES_LEAST, MOST_UNCHANGED, MOST_TEN = 1.05, 2, 4

FIRST, DIRECTORY, UNCHANGED, TEN, RESTARTED, ANEW = (
    "everything, for the first time",
    "nothing changed, and a Directory",
    "nothing changed",
    "ten changes",
    "started again",
    "everything anew",
)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look took."""

    requests: Mapping[str, int]
    """What for → how many, the most frequent first."""
    seconds: float
    """On the clock."""
    processor: float
    """Of these, processor time of our process."""
    stall: float
    """The longest time that the event loop was late."""
    megabytes: float
    """The most that the process had until then."""

    @property
    def total(self) -> int:
        return sum(self.requests.values())

    @property
    def of_graph(self) -> int:
        """Those that are not for a token."""
        return sum(count for kind, count in self.requests.items() if kind not in {"metadata", "token"})


@dataclass(frozen=True, slots=True)
class Measured:
    tenant: Tenant
    least: int
    """Requests of a complete read, without those for a token."""
    looks: Mapping[str, Look]


# -- the process that is measured ----------------------------------------------------------------------------


async def follow(dsn: str, tenant: Tenant) -> Measured:
    """All looks, one after the other, where nothing is stored yet. Raises RuntimeError for a wrong result."""
    async with running_server(tenant) as server:
        clock = Clock()
        looks: dict[str, Look] = {}
        async with _source(dsn, server, clock) as source:
            looks[FIRST], first = await _timed(server, source.fingerprint)
            looks[DIRECTORY], directory = await _timed(server, lambda: source.read(Roster()))
            looks[UNCHANGED], second = await _timed(server, source.fingerprint)
            await server.change()
            looks[TEN], third = await _timed(server, source.fingerprint)
        in_groups = sum(len(group.members) for group in directory.groups)
        del directory
        async with _source(dsn, server, clock) as source:
            looks[RESTARTED], fourth = await _timed(server, source.fingerprint)
            clock.advance(timedelta(hours=25))
            looks[ANEW], fifth = await _timed(server, source.fingerprint)
        if not (first == second != third == fourth == fifth) or in_groups < tenant.groups * tenant.members:
            raise RuntimeError("not everything was read as it is: the figures would be worth nothing")
        return Measured(tenant, server.least, looks)


@asynccontextmanager
async def _source(dsn: str, server: Server, clock: Clock) -> AsyncIterator[GraphSource]:
    """As `aim run` opens it."""
    settings = server.settings
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_graph_store(dsn, key_of(settings), read_only=False))
        graph = await stack.enter_async_context(open_transport(settings))
        yield GraphSource(graph, settings, store, store, clock.now)


async def _timed(server: Server, work: Callable[[], Awaitable[Result]]) -> tuple[Look, Result]:
    await server.asked()
    beat = Beat()
    beating = asyncio.create_task(beat.run())
    await asyncio.sleep(0)
    started, processor = time.perf_counter(), time.process_time()
    result = await work()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    beating.cancel()
    return Look(await server.asked(), seconds, processor, beat.latest, megabytes()), result


# -- who measures --------------------------------------------------------------------------------------------


def measure_graph(*, small: bool) -> Measured:
    """Starts everything. Takes some two minutes."""
    return asyncio.run(_measure(TOY if small else SIZE))


async def _measure(tenant: Tenant) -> Measured:
    from aim.store.recorder import open_recorder
    from tests.servers.postgres import running_postgres

    async with running_postgres() as server, server.database() as dsn:
        async with open_recorder(dsn):
            pass  # it makes the schema
        return await asyncio.to_thread(_run, dsn, tenant)


def _run(dsn: str, tenant: Tenant) -> Measured:
    command = [sys.executable, "-m", "bench.graph", "--follow", dsn, json.dumps(asdict(tenant))]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    found = json.loads(done.stdout)
    looks = {name: Look(**look) for name, look in found["looks"].items()}
    return Measured(tenant, found["least"], looks)


# -- what is shown -------------------------------------------------------------------------------------------


def graph_tables(found: Measured) -> Iterator[Table]:
    """Everything that was found."""
    yield _looks(found)
    yield _aims(found)


def _looks(found: Measured) -> Table:
    from bench.report import Table

    rows = [
        (
            name,
            f"{look.total:,}",
            _seconds(look.seconds),
            _seconds(look.processor),
            _seconds(look.processor / found.tenant.objects * 1000),
            _seconds(look.stall),
            f"{look.megabytes:.0f} MB",
            ", ".join(f"{count:,} {kind}" for kind, count in look.requests.items()),
        )
        for name, look in found.looks.items()
    ]
    columns = (
        "",
        "requests",
        "time",
        "processor time of aim",
        "of it per 1,000 objects",
        "longest stall",
        "peak memory",
        "which",
    )
    return Table(f"Microsoft Graph, {found.tenant}", columns, rows)


def _aims(found: Measured) -> Table:
    from bench.report import Table

    totals = {name: look.of_graph for name, look in found.looks.items()}
    limits = [
        *((f"{name}: requests", totals[name], found.least * MOST_TIMES_LEAST) for name in (FIRST, ANEW)),
        (f"{UNCHANGED}: requests", totals[UNCHANGED], MOST_UNCHANGED),
        (f"{TEN}: requests", totals[TEN], MOST_TEN),
    ]
    rows = [
        (name, f"{count:,}", f"{limit:,.0f}", "yes" if count <= limit else "NO")
        for name, count, limit in limits
    ]
    columns = ("", "measured", "at most", "reached")
    return Table(f"Microsoft Graph: reached, with {found.least:,} the least for everything", columns, rows)


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and prints what docs/performance.md keeps; or is the process that is measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.graph", description="A tenant, followed.")
    parser.add_argument("--small", action="store_true", help="a toy size, to see that everything works")
    parser.add_argument("--follow", nargs=2, metavar=("DSN", "TENANT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.follow is not None:
        dsn, tenant = options.follow
        found = asyncio.run(follow(dsn, Tenant(**json.loads(tenant))))
        print(json.dumps(asdict(found)))
        return
    from bench.report import machine, markdown

    print(machine())
    for table in graph_tables(measure_graph(small=options.small)):
        print(f"\n{markdown(table)}")


if __name__ == "__main__":
    main()
