"""How fast the mirror is loaded, beside a bare `COPY … TO` of the same rows: `python -m bench.mirror`.

generated memberships ─► Postgres ─► COPY to a function that drops it (= 1), our Mirror

Each is measured in a process of its own, and in turns, so that whatever else the machine does meets both.
Wall-clock time; memory is the most that the process ever had (VmHWM), the interpreter and all libraries
included. Loaded means that every Room was told once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the processes that are measured don't import what they don't need
    from aim.ports import MirrorChanges
    from bench.report import Table

SIZES, TOYS = (1_000_000,), (10_000,)
REPETITIONS, TOY_REPETITIONS = 5, 1
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER, BOT = "example.com", "@aim:example.com"

COPY, LOAD = "copy", "load"
MOST_TIMES_COPY, MOST_MEGABYTES = 10.0, 400


@dataclass(frozen=True, slots=True)
class Run:
    """What one process found."""

    seconds: float
    megabytes: float
    memberships: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One size, all turns."""

    memberships: int
    copies: Sequence[Run]
    loads: Sequence[Run]

    @property
    def times_copy(self) -> float:
        """How many times COPY loading takes."""
        return median(run.seconds for run in self.loads) / median(run.seconds for run in self.copies)

    @property
    def megabytes(self) -> float:
        return max(run.megabytes for run in self.loads)


# -- the processes that are measured -------------------------------------------------------------------------


async def copy(dsn: str) -> Run:
    """The rows as Postgres gives them, and nothing done with them."""
    import asyncpg

    async def drop(data: bytes) -> None:
        """Nobody wants it."""

    connection = await asyncpg.connect(dsn)
    try:
        started = time.perf_counter()
        done = await connection.copy_from_query("select * from aim.mirror_members", output=drop)
        await connection.copy_from_query("select * from aim.mirror_state", output=drop)
        seconds = time.perf_counter() - started
    finally:
        await connection.close()
    return Run(seconds, _megabytes(), int(done.split()[-1]))


async def load(dsn: str) -> Run:
    """All Rooms, from a database to memory."""
    from aim.directory.roster import Roster
    from aim.matrix.mirror.memory import Memory
    from aim.matrix.parse import Home
    from aim.store.recorder import open_recorder

    async with open_recorder(dsn) as recorder:
        started = time.perf_counter()
        memory = Memory(Home(SERVER, BOT, "aim"), Roster())
        await memory.load(recorder.mirror)
        rooms = memory.rooms()
        seconds = time.perf_counter() - started
    found = (len(room.joined) + len(room.invited) + len(room.left) + (room.bot is not None) for room in rooms)
    return Run(seconds, _megabytes(), sum(found))


def _megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1_000_000
    raise RuntimeError("no VmHWM in /proc/self/status")


# -- who measures --------------------------------------------------------------------------------------------


def measure_mirror(memberships: int, repetitions: int) -> Measured:
    """Fills a database and reads it in turns. Takes some two minutes for a million."""
    return asyncio.run(_measure(memberships, repetitions))


async def _measure(memberships: int, repetitions: int) -> Measured:
    from aim.store.recorder import open_recorder
    from tests.servers.postgres import running_postgres

    async with running_postgres() as server, server.database() as dsn:
        async with open_recorder(dsn) as recorder:
            for changes in make(memberships):
                await recorder.mirror.record(changes, NOW)
        await _settle(dsn)
        copies, loads = [], []
        await asyncio.to_thread(_run, COPY, dsn)  # the disk cache
        for _ in range(repetitions):
            copies.append(await asyncio.to_thread(_run, COPY, dsn))
            loads.append(await asyncio.to_thread(_run, LOAD, dsn))
    if {run.memberships for run in (*copies, *loads)} != {memberships}:
        raise RuntimeError("not all memberships were read: the figures would be worth nothing")
    return Measured(memberships, copies, loads)


async def _settle(dsn: str) -> None:
    """What the server does by itself some time after so many writes."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    await connection.execute("vacuum analyze")
    await connection.close()


def make(memberships: int) -> Iterator[MirrorChanges]:
    """Rooms with so many memberships in all: a tenth of them in one room with everybody, the others in a
    thousand (at toy sizes: ten) rooms of one size, the bot in each."""
    people = memberships // 10
    count = 1000 if memberships >= 100_000 else 10
    share = (memberships - people) // count
    yield _room(0, range(people - 1))
    for number in range(1, count + 1):
        start = number * 7919 % people
        yield _room(number, [(start + person) % people for person in range(share - 1)])


def _room(number: int, people: Sequence[int]) -> MirrorChanges:
    from aim.ports import MirrorChanges, MirroredRoom, Stamp, StateKey, StoredEvent, StoredMember
    from aim.world.rooms import MARKER_TYPE

    room_id = f"!{number:06}AbCdEfGhIjKlMnOpQrStUvWxYz:{SERVER}"

    def member(user_id: str, membership: str) -> StoredMember:
        stamp = Stamp(f"${number:06}{user_id[1:8]}AbCdEfGhIjKlMnOpQrStUvWxYz012", 1_700_000_000_000)
        return StoredMember(
            StateKey(room_id, "m.room.member", user_id), stamp, membership, membership == "leave"
        )

    def event(kind: str, content: object) -> StoredEvent:
        stamp = Stamp(f"${number:06}{kind:<30}0123456", 1_700_000_000_000)
        return StoredEvent(StateKey(room_id, kind, ""), stamp, BOT, json.dumps(content))

    marker = {"version": 1, "instance": "aim", "key": f"space-{number}"}
    kinds = ["join"] * 97 + ["invite", "leave", "leave"]
    return MirrorChanges(
        rooms={room_id: MirroredRoom(verified_at=NOW)},
        events=[
            event("m.room.create", {"room_version": "12", "type": "m.space", MARKER_TYPE: marker}),
            event("m.room.name", {"name": f"Space {number}"}),
            event("m.room.join_rules", {"join_rule": "invite"}),
            event("m.room.power_levels", {"users_default": 0, "users": {f"@p{people[0]:06}:{SERVER}": 50}}),
        ],
        members=[
            member(BOT, "join"),
            *(member(f"@p{person:06}:{SERVER}", kinds[person % 100]) for person in people),
        ],
    )


def _run(what: str, dsn: str) -> Run:
    command = [sys.executable, "-m", "bench.mirror", "--measure", what, dsn]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parent.parent)
    return Run(**json.loads(done.stdout))


# -- what is shown -------------------------------------------------------------------------------------------


def mirror_tables(results: Sequence[Measured]) -> Iterator[Table]:
    """One for each size, and how the largest is beside what is to be reached; a toy size reaches nothing."""
    for found in results:
        yield _times(found)
    if results[-1].memberships >= max(SIZES):
        yield _aims(results[-1])


def _times(found: Measured) -> Table:
    from bench.report import Table

    rows = [
        (name, f"{median(run.seconds for run in runs):.3f} s", f"{times:.2f}", _most(runs))
        for name, runs, times in (
            ("COPY … TO", found.copies, 1.0),
            ("all Rooms in memory", found.loads, found.times_copy),
        )
    ]
    columns = ("", "median", "× COPY", "peak memory")
    return Table(f"Mirror, {found.memberships:,} memberships", columns, rows)


def _most(runs: Sequence[Run]) -> str:
    return f"{max(run.megabytes for run in runs):.0f} MB"


def _aims(found: Measured) -> Table:
    from bench.report import Table

    aims = [
        ("load, × COPY", found.times_copy, MOST_TIMES_COPY, "{:.2f}"),
        ("peak memory, MB", found.megabytes, MOST_MEGABYTES, "{:.0f}"),
    ]
    rows = [
        (name, form.format(reached), f"{most:g}", "yes" if reached <= most else "NO")
        for name, reached, most, form in aims
    ]
    return Table(
        f"Mirror: reached, {found.memberships:,} memberships", ("", "measured", "at most", "reached"), rows
    )


def main() -> None:
    """Measures, or is one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.mirror", description="How fast the mirror is loaded."
    )
    parser.add_argument("--small", action="store_true", help="a toy size, to see that everything works")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "DSN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, dsn = options.measure
        print(json.dumps(asdict(asyncio.run(copy(dsn) if what == COPY else load(dsn)))))
        return
    from bench.report import machine, markdown

    sizes, repetitions = (TOYS, TOY_REPETITIONS) if options.small else (SIZES, REPETITIONS)
    results = [measure_mirror(memberships, repetitions) for memberships in sizes]
    print(machine())
    for table in mirror_tables(results):
        print(f"\n{markdown(table)}")


if __name__ == "__main__":
    main()
