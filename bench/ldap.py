"""How fast the LDAP bridge reads, beside `ldapsearch` on the same server: `python -m bench.ldap`.

generated organisation ─► slapd ─► ldapsearch (= 1), our raw entries, our Directory, our poll

Everything is measured in a process of its own, and in turns, so that whatever else the machine does meets all
of them. ldapsearch reads the same attributes in pages of the same size and writes them to /dev/null.
Wall-clock time; memory is the most that the process ever had (VmHWM), the interpreter and all libraries
included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from aim.bridges.ldap.bridge import LdapSource
from aim.bridges.ldap.connect import connected
from aim.bridges.ldap.search import Tree
from aim.bridges.ldap.settings import LdapSettings
from aim.directory.roster import Roster
from bench.process import Beat, megabytes

if TYPE_CHECKING:  # the processes that are measured don't import what they don't need
    from bench.report import Table
    from tests.servers.slapd import Slapd

SIZES, TOYS = (10_000, 100_000), (1_000,)
REPETITIONS, TOY_REPETITIONS = 5, 1
POLLS = 25
PAGE = 1000

SUFFIX, READER, PASSWORD = "dc=example,dc=com", "cn=reader,dc=accounts", "password"
"""Of the test servers."""

RAW, WHOLE = "raw", "whole"

MOST_TIMES_RAW, MOST_TIMES_WHOLE, MOST_TIMES_POLL = 2.0, 4.0, 0.02
MOST_MEGABYTES, MOST_STALL = 250, 0.050


@dataclass(frozen=True, slots=True)
class Read:
    """What a process of ours found about one read."""

    seconds: float
    megabytes: float
    counts: dict[str, int]
    stall: float = 0.0
    """The longest time that the event loop was late, while it was read and for a moment after."""
    poll: float = 0.0
    """Seconds of a poll when nothing changed, of many the one in the middle."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One size, all turns."""

    users: int
    search: Sequence[float]
    raw: Sequence[Read]
    whole: Sequence[Read]

    def times(self, seconds: float) -> float:
        """How many times ldapsearch that is."""
        return seconds / median(self.search)

    @property
    def times_raw(self) -> float:
        return self.times(median(read.seconds for read in self.raw))

    @property
    def times_whole(self) -> float:
        return self.times(median(read.seconds for read in self.whole))

    @property
    def times_poll(self) -> float:
        return self.times(median(read.poll for read in self.whole))

    @property
    def stall(self) -> float:
        return max(read.stall for read in self.whole)

    @property
    def megabytes(self) -> float:
        return max(read.megabytes for read in self.whole)


# -- the processes that are measured -------------------------------------------------------------------------


def settings_for(uri: str) -> LdapSettings:
    return LdapSettings(uris=(uri,), base=SUFFIX, bind_dn=READER, bind_password=PASSWORD, page_size=PAGE)


def read_raw(uri: str) -> Read:
    """All entries as they are decoded; each is let go at once."""
    settings = settings_for(uri)
    started = time.perf_counter()
    with connected(settings) as link:
        entries = sum(1 for _ in Tree(link.channel, settings, settings.rules.attributes).entries())
    return Read(time.perf_counter() - started, megabytes(), {"entries": entries})


async def read_whole(uri: str) -> Read:
    """A finished Directory, and the polls after it."""
    source = LdapSource(settings_for(uri))
    beat = Beat()
    async with asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(beat.run())
        await asyncio.sleep(0.05)
        beat.latest = 0.0
        started = time.perf_counter()
        directory = await source.read(Roster())
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.2)
        beating.cancel()
    peak = megabytes()
    token = await source.fingerprint()
    polls = []
    for _ in range(POLLS):
        started = time.perf_counter()
        if await source.fingerprint() != token:
            raise RuntimeError("nothing changed, and the poll says it did")
        polls.append(time.perf_counter() - started)
    memberships = sum(len(group.members) for group in directory.groups)
    counts = {"users": len(directory.users), "containers": len(directory.groups), "in them": memberships}
    return Read(seconds, peak, counts, beat.latest, median(polls))


# -- who measures --------------------------------------------------------------------------------------------


def measure_ldap(users: int, repetitions: int) -> Measured:
    """Makes a server with so many people and reads it in turns. Takes a minute for 100,000."""
    with _server(users) as slapd:
        search, raw, whole = [], [], []
        _search(slapd.uri)  # the disk cache
        for _ in range(repetitions):
            search.append(_search(slapd.uri))
            raw.append(_ours(RAW, slapd.uri))
            whole.append(_ours(WHOLE, slapd.uri))
        return Measured(users, search, raw, whole)


@contextmanager
def _server(users: int) -> Iterator[Slapd]:
    from tests.servers.certificates import Certificates
    from tests.servers.slapd import Settings, Slapd

    with tempfile.TemporaryDirectory(prefix="aim-bench-") as name:
        directory = Path(name)
        ldif = directory / "organisation.ldif"
        with ldif.open("w") as file:
            command = [sys.executable, "-m", "bench.directory_ldif", str(users)]
            subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL, check=True)
        (directory / "slapd").mkdir()
        certificates = Certificates(directory / "certificates")
        with Slapd(directory / "slapd", certificates, Settings(ldif=ldif, megabytes=4096)) as slapd:
            yield slapd


def _search(uri: str) -> float:
    settings = settings_for(uri)
    command = ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", uri, "-b", SUFFIX, "-D", READER]
    command += ["-w", PASSWORD, "-E", f"pr={PAGE}/noprompt", "(objectClass=*)", *settings.rules.attributes]
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _ours(what: str, uri: str) -> Read:
    command = [sys.executable, "-m", "bench.ldap", "--measure", what, uri]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Read(**json.loads(done.stdout))


# -- what is shown -------------------------------------------------------------------------------------------


def ldap_tables(results: Sequence[Measured]) -> Iterator[Table]:
    """One for each size, and how the largest is beside what is to be reached; a toy size reaches nothing."""
    for found in results:
        yield _times(found)
    if results[-1].users >= max(SIZES):
        yield _aims(results[-1])


def _times(found: Measured) -> Table:
    search, raw = median(found.search), median(read.seconds for read in found.raw)
    whole = median(read.seconds for read in found.whole)
    poll = median(read.poll for read in found.whole)
    rows = [
        ("ldapsearch", f"{search:.3f} s", "1", "", ""),
        ("raw entries", f"{raw:.3f} s", f"{found.times_raw:.2f}", _most(found.raw), ""),
        ("Directory", f"{whole:.3f} s", f"{found.times_whole:.2f}", _most(found.whole), _ms(found.stall)),
        ("poll, nothing changed", _ms(poll), f"{found.times_poll:.4f}", "", ""),
    ]
    from bench.report import Table

    counts = {**found.raw[0].counts, **found.whole[0].counts}
    about = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    columns = ("", "median", "× ldapsearch", "peak memory", "longest stall")
    return Table(f"LDAP, {found.users:,} users ({about})", columns, rows)


def _most(reads: Sequence[Read]) -> str:
    return f"{max(read.megabytes for read in reads):.0f} MB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _aims(found: Measured) -> Table:
    from bench.report import Table

    aims = [
        ("raw entries, × ldapsearch", found.times_raw, MOST_TIMES_RAW, "{:.2f}"),
        ("Directory, × ldapsearch", found.times_whole, MOST_TIMES_WHOLE, "{:.2f}"),
        ("poll, × ldapsearch", found.times_poll, MOST_TIMES_POLL, "{:.4f}"),
        ("peak memory, MB", found.megabytes, MOST_MEGABYTES, "{:.0f}"),
        ("longest stall of the event loop, ms", found.stall * 1000, MOST_STALL * 1000, "{:.0f}"),
    ]
    rows = [
        (name, form.format(reached), f"{most:g}", "yes" if reached <= most else "NO")
        for name, reached, most, form in aims
    ]
    return Table(f"LDAP: reached, {found.users:,} users", ("", "measured", "at most", "reached"), rows)


def main() -> None:
    """Measures, or is one of the processes that are measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.ldap", description="How fast LDAP is read.")
    parser.add_argument("--small", action="store_true", help="a toy size, to see that everything works")
    parser.add_argument("--markdown", action="store_true", help="print what docs/performance.md keeps")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "URI"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, uri = options.measure
        found = read_raw(uri) if what == RAW else asyncio.run(read_whole(uri))
        print(json.dumps(asdict(found)))
        return
    from bench.report import machine, markdown

    sizes, repetitions = (TOYS, TOY_REPETITIONS) if options.small else (SIZES, REPETITIONS)
    results = [measure_ldap(users, repetitions) for users in sizes]
    print(machine())
    for table in ldap_tables(results):
        print(markdown(table) if options.markdown else _plain(table))


def _plain(table: Table) -> str:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.columns))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(("", table.title, *lines))


if __name__ == "__main__":
    main()
