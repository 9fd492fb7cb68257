"""How fast SCIM requests are answered, beside the server that the library comes with: `python -m bench.scim`.

    eight clients ─► our service ─► Postgres
                 ─► scim2-server's application, all in memory (= 1)

Both are filled with the same people over HTTP, and asked the same, operation by operation in turns: in each
second round the other one goes first. Each is a process of its own, and so is the client, which is this one;
Postgres has its own. Time on the clock, as the clients see it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.report import Table, machine, markdown
from bench.scim_client import Limits, Run, connected, drive, percentile
from bench.scim_operations import Asked, Directory, Operation, Sizes, request
from bench.scim_servers import Server, Which, postgres_memory, resident, running
from tests.servers.postgres import running_postgres

SIZES, TOY = Sizes(users=13_000, members=10_000), Sizes(users=60, members=40)
CLIENTS = 8
ROUNDS, TOY_ROUNDS = 3, 1
LIMITS, TOY_LIMITS = Limits(seconds=2.0, at_least=CLIENTS, at_most=1_000), Limits(0.0, CLIENTS, CLIENTS)
"""Of one operation in one round, on one server."""
WARM_UP, TOY_WARM_UP = Limits(0.3, 1, 200), Limits(0.0, 1, 1)
"""Before the first round; not counted."""

AT_LEAST: Mapping[Operation, float] = {
    Operation.CREATE: 1.5,
    Operation.GET: 1.5,
    Operation.FILTER: 1.5,
    Operation.PATCH_ACTIVE: 1.5,
    Operation.ADD_MEMBER: 300,
    Operation.GET_WITHOUT: 300,
    Operation.GET_WITH: 20,
}
"""Times the requests a second of the other one."""

_COLUMNS = ("p99", "processor", "asked")
Turns = Mapping[Which, Sequence[Asked]]


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was found."""

    sizes: Sizes
    asked: Mapping[Operation, Turns]
    nothing: Run
    """Of the server that does nothing: as many requests a second as this client and HTTP allow."""
    memory: Mapping[str, tuple[float, float]]
    """Megabytes of each process when it had started, and at the end."""

    def times(self, operation: Operation) -> float:
        """How many times as many requests a second we answer."""
        turns = self.asked[operation]
        return _rate(turns[Which.OURS]) / _rate(turns[Which.REFERENCE])


def _rate(asked: Sequence[Asked]) -> float:
    return median(one.run.rate for one in asked)


def _processor(asked: Sequence[Asked]) -> float:
    """Seconds of the server for one request."""
    return median(one.processor / len(one.run.seconds) for one in asked)


# -- who measures --------------------------------------------------------------------------------------------


def measure_scim(*, small: bool) -> Measured:
    """Starts everything, fills it, and asks. Takes some ten minutes, most of them the other's."""
    return asyncio.run(_measure(small=small))


async def _measure(*, small: bool) -> Measured:
    sizes, limits = (TOY, TOY_LIMITS) if small else (SIZES, LIMITS)
    async with _stage() as stage:
        before = stage.memory()
        directories = {which: await stage.filled(which, sizes) for which in (Which.OURS, Which.REFERENCE)}
        await _settle(stage.dsn)
        for directory, operation in itertools.product(directories.values(), Operation):
            await directory.measure(operation, TOY_WARM_UP if small else WARM_UP)
        asked: dict[Operation, dict[Which, list[Asked]]] = {
            operation: {which: [] for which in directories} for operation in Operation
        }
        for number in range(TOY_ROUNDS if small else ROUNDS):
            order = list(directories)[:: -1 if number % 2 else 1]
            for operation, which in itertools.product(Operation, order):
                asked[operation][which].append(await directories[which].measure(operation, limits))
        nothing = await stage.nothing(limits)
        after = stage.memory()
    return Measured(sizes, asked, nothing, {name: (before[name], after[name]) for name in before})


async def _settle(dsn: str) -> None:
    """What Postgres does by itself some time after so many writes."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    await connection.execute("vacuum analyze")
    await connection.close()


class _Stage:
    """The running servers."""

    def __init__(self, dsn: str, stack: AsyncExitStack, servers: Sequence[Server], data_dir: Path) -> None:
        self.dsn = dsn
        self._stack = stack
        self._servers = {server.which: server for server in servers}
        self._data_dir = data_dir

    async def filled(self, which: Which, sizes: Sizes) -> Directory:
        """That server's directory, with everybody in it."""
        connections = await self._stack.enter_async_context(connected(self._servers[which].port, CLIENTS))
        directory = Directory(self._servers[which], connections, sizes)
        await directory.fill()
        return directory

    async def nothing(self, limits: Limits) -> Run:
        """The server that does nothing, asked as the others are."""
        async with connected(self._servers[Which.NOTHING].port, CLIENTS) as connections:
            asked = itertools.repeat(request(Which.NOTHING, "GET", "/Users/7"))
            return await drive(connections, asked, Limits(limits.seconds, limits.at_least, 1_000_000))

    def memory(self) -> Mapping[str, float]:
        """Megabytes of each process."""
        found = {which.value: resident(self._servers[which].pid) for which in (Which.OURS, Which.REFERENCE)}
        return {**found, "Postgres": postgres_memory(self._data_dir)}


@asynccontextmanager
async def _stage() -> AsyncIterator[_Stage]:
    from aim.store.recorder import open_recorder

    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(running_postgres())
        dsn = await stack.enter_async_context(postgres.database())
        async with open_recorder(dsn):
            pass  # it makes the schema
        servers = [await stack.enter_async_context(running(which, dsn)) for which in Which]
        yield _Stage(dsn, stack, servers, postgres.data_dir)


# -- what is shown -------------------------------------------------------------------------------------------


def scim_tables(found: Measured) -> Iterator[Table]:
    """The rates, the memory, and whether they are as wanted; a toy size reaches nothing."""
    yield _rates(found)
    rows = [(name, f"{start:.0f} MB", f"{end:.0f} MB") for name, (start, end) in found.memory.items()]
    yield Table("SCIM: memory", ("", "at the start", "after the run"), rows)
    if found.sizes.users >= SIZES.users:
        yield _aims(found)


def _rates(found: Measured) -> Table:
    rows = []
    for operation, turns in found.asked.items():
        row = [operation.value]
        for which in (Which.OURS, Which.REFERENCE):
            seconds = [one for asked in turns[which] for one in asked.run.seconds]
            row += [
                f"{_rate(turns[which]):,.1f}",
                _milliseconds(percentile(seconds, 0.99)),
                _milliseconds(_processor(turns[which])),
                f"{len(seconds):,}",
            ]
        rows.append((*row, f"{found.times(operation):,.2f}"))
    rate, p99 = f"{found.nothing.rate:,.1f}", _milliseconds(percentile(found.nothing.seconds, 0.99))
    rows.append(("nothing", rate, p99, "", f"{len(found.nothing.seconds):,}", *[""] * 5))
    columns = ("", *(text for who in ("ours", "reference") for text in (f"{who}: a second", *_COLUMNS)), "×")
    title = f"SCIM, {found.sizes.users:,} users, a group of {found.sizes.members:,}, {CLIENTS} clients"
    return Table(title, columns, rows)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _aims(found: Measured) -> Table:
    rows = []
    for operation, least in AT_LEAST.items():
        times = found.times(operation)
        rows.append((operation.value, f"{times:,.2f} ×", f"{least:g} ×", "yes" if times >= least else "NO"))
    return Table("SCIM: reached", ("", "measured", "at least", "reached"), rows)


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(prog="python -m bench.scim", description="How fast SCIM is answered.")
    parser.add_argument("--small", action="store_true", help="a toy size, to see that everything works")
    options = parser.parse_args()
    print(machine())
    for table in scim_tables(measure_scim(small=options.small)):
        print(f"\n{markdown(table)}")


if __name__ == "__main__":
    main()
