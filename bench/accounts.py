"""What it costs to keep the names and addresses of accounts in step, where nothing changed:
`python -m bench.accounts`.

organisation ─► accounts' server (Synapse's way, MAS's way) ─► transport, book, Postgres ─► one decision

The book is looked into as the daemon does it: for the first time, again at once, and after a restart, when it
knows from Postgres what it read before. Requests are counted where they arrive, in a process of its own.
Times of looks are on the clock; a decision is processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from typing import TypeVar

from aim.config.provisioner import UserProvisionerConfig
from aim.desired.desire import desire
from aim.desired.leaving import asked_about
from aim.matrix.account_server import PAGE, Attribute
from aim.matrix.book import Book, Keeping
from aim.matrix.client import open_reader
from aim.planner.diff import diff
from aim.planner.world import World
from aim.ports import AccountStore
from aim.store.recorder import open_recorder
from aim.world.accounts import KnownAccounts
from bench.account_servers import Servers, Way, running_servers
from bench.account_standin import Person
from bench.organisation import NOW, Inputs, make_inputs
from bench.report import Table, machine, markdown
from bench.shape import Size
from tests.servers.postgres import running_postgres

Result = TypeVar("Result")
Stored = Callable[[], AbstractAsyncContextManager[AccountStore]]
"""Opens what is stored, anew each time."""

SIZE, TOY = Size(50_252, 2_500, 500), Size(2_000, 100, 20)
"""One person in two hundred has no account yet: 50,000 have one."""
REPETITIONS, TOY_REPETITIONS = 15, 3
_KEEPING = Keeping(attributes=frozenset(Attribute), verify_interval=timedelta(hours=24), records=True)
"""As the configuration has it by default."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at everybody took."""

    requests: Mapping[str, int]
    """What for → how many, the most frequent first."""
    seconds: float
    """On the clock."""
    processor: float
    """Of these, processor time of our process."""

    @property
    def total(self) -> int:
        return sum(self.requests.values())


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything of one way."""

    way: Way
    first: Look
    second: Look
    poll: Look
    """For new accounts, as every `check_interval_seconds`."""
    restarted: Look


@dataclass(frozen=True, slots=True)
class Decided:
    """Seconds of processor time of one decision: desire and diff."""

    without: Sequence[float]
    accounts: Sequence[float]

    @property
    def times_without(self) -> float:
        return median(self.accounts) / median(self.without)


@dataclass(frozen=True, slots=True)
class Measured:
    size: Size
    accounts: int
    synced: Sequence[Synced]
    decided: Decided


# -- looks at accounts ---------------------------------------------------------------------------------------


def measure_accounts(*, small: bool) -> Measured:
    """Both ways, then the decision. Takes some five minutes."""
    size, repetitions = (TOY, TOY_REPETITIONS) if small else (SIZE, REPETITIONS)
    inputs = make_inputs(size, changed=False)
    people = people_of(inputs)
    found = asyncio.run(_look_at_all(inputs, people))
    decided = decide(inputs, found[-1][1], repetitions)
    return Measured(size, len(people), [synced for synced, _ in found], decided)


def people_of(inputs: Inputs) -> list[Person]:
    """Those who have an account, as the directory has them: there is nothing to set right."""
    roster, accounts = inputs.directory.roster, inputs.observed.accounts
    return [
        Person(user.localpart, user.display_name or "", user.emails[0])
        for user in inputs.directory.users
        if roster.number(user.localpart) in accounts
    ]


async def _look_at_all(inputs: Inputs, people: Sequence[Person]) -> list[tuple[Synced, KnownAccounts]]:
    wanted = asked_about(inputs.directory, inputs.recorded)
    found = []
    async with running_postgres() as server:
        for way in Way:
            async with server.database() as dsn, running_servers(way, people) as servers:
                found.append(await look(way, servers, partial(_stored, dsn), wanted))
    for _, known in found:
        _check(known, people)
    return found


async def look(
    way: Way, servers: Servers, stored: Stored, wanted: Mapping[str, Collection[str]]
) -> tuple[Synced, KnownAccounts]:
    """All looks of one way, where nothing is stored yet; and what was known after the restart."""
    async with _book(servers, stored) as book:
        first, _ = await _timed(servers, lambda: book.observe(wanted))
        second, _ = await _timed(servers, lambda: book.observe(wanted))
        poll, _ = await _timed(servers, book.poll)
    async with _book(servers, stored) as book:
        restarted, known = await _timed(servers, lambda: book.observe(wanted))
    return Synced(way, first, second, poll, restarted), known


@asynccontextmanager
async def _book(servers: Servers, stored: Stored) -> AsyncIterator[Book]:
    """As `aim run` opens it."""
    async with stored() as store, open_reader(servers.homeserver) as homeserver:
        assert homeserver.accounts is not None
        yield Book(homeserver.accounts, _KEEPING, now=lambda: datetime.now(UTC), store=store)


@asynccontextmanager
async def _stored(dsn: str) -> AsyncIterator[AccountStore]:
    async with open_recorder(dsn) as recorder:
        yield recorder.accounts


async def _timed(servers: Servers, work: Callable[[], Awaitable[Result]]) -> tuple[Look, Result]:
    started, processor = time.perf_counter(), time.process_time()
    result = await work()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return Look(await servers.asked(), seconds, processor), result


def _check(known: KnownAccounts, people: Sequence[Person]) -> None:
    """A figure for a wrong result would be worth nothing."""
    read = {(one.localpart, one.display_name, one.emails) for one in known.accounts.values()}
    if read != {(person.localpart, person.display_name, (person.email,)) for person in people}:
        raise RuntimeError(f"not all accounts were read as they are {known.refused}")


# -- one decision --------------------------------------------------------------------------------------------


def decide(inputs: Inputs, known: KnownAccounts, repetitions: int) -> Decided:
    """Decides with accounts and without, in turns. Raises RuntimeError if there is something to do."""
    config = inputs.config.model_copy(update={"user_provisioner": UserProvisionerConfig()})
    synced = replace(inputs, config=config, observed=replace(inputs.observed, known_accounts=known))
    gc.collect()
    pairs = [(_decide(inputs), _decide(synced)) for _ in range(repetitions)]
    without, accounts = zip(*pairs, strict=True)
    return Decided(without, accounts)


def _decide(inputs: Inputs) -> float:
    started = time.process_time()
    desired = desire(inputs.config, inputs.directory, inputs.observed, inputs.recorded)
    difference = diff(World(desired, inputs.observed, inputs.recorded, NOW, NOW))
    seconds = time.process_time() - started
    if difference.actions:
        raise RuntimeError("there is something to do: the figures would be worth nothing")
    return seconds


# -- what is shown -------------------------------------------------------------------------------------------


def account_tables(found: Measured) -> Iterator[Table]:
    """Everything that was found; a toy size reaches nothing."""
    yield _looks(found)
    yield _decisions(found)
    if found.size == SIZE:
        yield _aims(found)


def _looks(found: Measured) -> Table:
    rows = [
        (
            f"{synced.way}: {name}",
            f"{one.total:,}",
            _seconds(one.seconds),
            _seconds(one.processor),
            ", ".join(f"{count:,} {kind}" for kind, count in one.requests.items()),
        )
        for synced in found.synced
        for name, one in (
            ("first look", synced.first),
            ("second look", synced.second),
            ("look for new accounts", synced.poll),
            ("started again", synced.restarted),
        )
    ]
    columns = ("", "requests", "time", "processor time of aim", "which")
    return Table(f"Accounts, {found.accounts:,}, nothing changed", columns, rows)


def _decisions(found: Measured) -> Table:
    decided = found.decided
    rows = [
        (name, _seconds(min(runs)), _seconds(median(runs)), f"{times:.2f}")
        for name, runs, times in (
            ("without accounts", decided.without, 1.0),
            ("with accounts", decided.accounts, decided.times_without),
        )
    ]
    return Table(f"One decision, {found.size}", ("", "fastest", "median", "× without"), rows)


def _aims(found: Measured) -> Table:
    pages, nobody = -(-found.accounts // PAGE), 0
    synapse, mas = found.synced
    most = [
        (synapse, "first look, list", _of(synapse.first, "page of accounts"), pages),
        (synapse, "first look, e-mail addresses", _of(synapse.first, "account"), found.accounts),
        (mas, "first look, list", _of(mas.first, "page of accounts"), pages),
        (mas, "first look, e-mail addresses", _of(mas.first, "page of addresses"), pages),
        (mas, "first look, display names", _of(mas.first, "display name"), found.accounts),
        *((one, "second look", one.second.total, nobody) for one in found.synced),
        *((one, "look for new accounts", _but_for_tokens(one.poll), 1) for one in found.synced),
        *((one, "started again", _but_for_tokens(one.restarted), 1) for one in found.synced),
    ]
    rows = [
        (f"{one.way}: {name}: requests", f"{count:,}", f"{limit:,}", "yes" if count <= limit else "NO")
        for one, name, count, limit in most
    ]
    return Table("Accounts: reached", ("", "measured", "at most", "reached"), rows)


def _of(one: Look, kind: str) -> int:
    return one.requests.get(kind, 0)


def _but_for_tokens(one: Look) -> int:
    """A token of MAS lasts for some minutes, whatever is asked with it."""
    return one.total - _of(one, "token")


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and prints what docs/performance.md keeps."""
    parser = argparse.ArgumentParser(prog="python -m bench.accounts", description="Accounts in step.")
    parser.add_argument("--small", action="store_true", help="a toy size, to see that everything works")
    options = parser.parse_args(arguments)
    print(machine())
    for table in account_tables(measure_accounts(small=options.small)):
        print(f"\n{markdown(table)}")


if __name__ == "__main__":
    main()
