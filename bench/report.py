"""From what was measured to tables, and from tables to a terminal or to Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.cases import Case, Measured
from bench.shape import Size
from bench.startup import Startup

GB = 1_000_000_000
Results = Mapping[Size, Mapping[Case, Measured]]
"""Sizes from small to large."""

TITLES: Mapping[Case, str] = {
    Case.REFERENCE: "reference: unions of plain sets",
    Case.CORE: "desired + diff, unchanged",
    Case.CORE_CHANGED: "desired + diff, 0.1 % changed",
    Case.INTERN: "the same from plain sets, unchanged",
    Case.INTERN_CHANGED: "the same from plain sets, 0.1 % changed",
}

MOST_TIMES_REFERENCE = 2.0
MOST_TIMES_GROWTH = 11.0
MOST_MEMORY = 1.5 * GB
MOST_TIMES_TYPER = 3.0


@dataclass(frozen=True, slots=True)
class Table:
    """Texts in rows; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Results, startup: Startup) -> Iterator[Table]:
    """Everything there is to show."""
    for size, measured in results.items():
        yield _times(size, measured)
    yield _parts(results)
    yield _shapes(results)
    yield _starts(startup)
    yield _aims(results, startup)


def _times(size: Size, measured: Mapping[Case, Measured]) -> Table:
    reference = measured[Case.REFERENCE]
    columns = ("", "fastest", "median", "× reference", "inputs", "peak memory", "× reference")
    rows = [
        (
            TITLES[case],
            _seconds(found.least),
            _seconds(found.median),
            _times_of(found.median, reference.median),
            _memory(found.inputs),
            _memory(found.peak),
            _times_of(found.peak, reference.peak),
        )
        for case, found in measured.items()
    ]
    return Table(str(size), columns, rows)


def _parts(results: Results) -> Table:
    names = {
        "identity": "identity: who is the person seen before",
        "mapping": "mapping: groups to spaces, levels",
        "diff": "diff",
        "collection": "for comparison: one full garbage collection",
    }
    rows = [
        (title, *(_seconds(measured[Case.CORE].parts[name]) for measured in results.values()))
        for name, title in names.items()
    ]
    return Table("Where the time goes, unchanged", ("", *(f"{size.users:,} users" for size in results)), rows)


def _shapes(results: Results) -> Table:
    columns = ("", *(f"{size.users:,} users" for size in results))
    rows: list[tuple[str, ...]] = [
        (name, *(f"{measured[Case.REFERENCE].counts[name]:,}" for measured in results.values()))
        for name in ("memberships of groups", "memberships of spaces")
    ]
    kinds = sorted({kind for measured in results.values() for kind in measured[Case.CORE_CHANGED].counts})
    for kind in kinds:
        found = (measured[Case.CORE_CHANGED].counts.get(kind, 0) for measured in results.values())
        rows.append((f"0.1 % changed: {kind}", *(f"{count:,}" for count in found)))
    return Table("Size of the inputs and of the plan", columns, rows)


def _starts(startup: Startup) -> Table:
    rows = [
        (name, _seconds(min(runs)), _seconds(median(runs)))
        for name, runs in (("aim --help", startup.aim), ("python -c 'import typer'", startup.typer))
    ]
    return Table("Start", ("", "fastest", "median"), rows)


def _aims(results: Results, startup: Startup) -> Table:
    rows = []
    for size, measured in results.items():
        ratio = measured[Case.CORE].median / measured[Case.REFERENCE].median
        title = f"unchanged, {size.users:,} users: time beside the reference"
        rows.append(_aim(title, ratio, MOST_TIMES_REFERENCE, "×"))
    found = list(results.values())
    small, large = found[0], found[-1]
    for case, whose in ((Case.CORE, ""), (Case.REFERENCE, " (the reference itself)")):
        growth = large[case].median / small[case].median
        rows.append(_aim(f"ten times the organisation{whose}: time", growth, MOST_TIMES_GROWTH, "×"))
    memory = max(large[Case.CORE].peak, large[Case.CORE_CHANGED].peak)
    rows.append(_aim("largest organisation: peak memory", memory / GB, MOST_MEMORY / GB, " GB"))
    rows.append(_aim("aim --help beside importing typer", startup.ratio, MOST_TIMES_TYPER, "×"))
    return Table("Aims", ("", "measured", "at most", "reached"), rows)


def _aim(title: str, measured: float, most: float, unit: str) -> tuple[str, ...]:
    return (title, f"{measured:.2f}{unit}", f"{most:g}{unit}", "yes" if measured <= most else "no")


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _memory(value: int) -> str:
    return f"{value / 1_000_000:,.0f} MB"


def _times_of(value: float, reference: float) -> str:
    return f"{value / reference:.2f}"


def machine() -> str:
    """What the figures were measured on; nothing that tells whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory / 2**30:.0f} GiB, "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def show(console: Console, found: Table) -> None:
    """Draws the table for a terminal."""
    drawn = RichTable(title=found.title, title_justify="left", box=box.SIMPLE_HEAD)
    for position, column in enumerate(found.columns):
        drawn.add_column(column, justify="right" if position else "left")
    for row in found.rows:
        drawn.add_row(*row)
    console.print(drawn)


def markdown(found: Table) -> str:
    """The table as docs/performance.md keeps it."""
    aligned = ["---", *("---:" for _ in found.columns[1:])]
    lines = [_line(found.columns), _line(aligned), *(_line(row) for row in found.rows)]
    return "\n".join([f"### {found.title}", "", *lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
