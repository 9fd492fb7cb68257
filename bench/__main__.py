"""`python -m bench`: measures the core on generated organisations, the start of the command line, LDAP,
transactions, the mirror, accounts, SCIM, Microsoft Graph and the daemon as a whole.

Each case and size runs in a process of its own, one after the other; three quarters of an hour in all.
`--small` runs the same at toy sizes in three minutes, to see that everything works; `--markdown` prints what
docs/performance.md keeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from bench import accounts, graph, ldap, mirror, scim, transactions
from bench.cases import Case, as_json, measure, run_case
from bench.live.__main__ import measure_live
from bench.live.report import live_tables
from bench.report import Results, Table, machine, markdown, show, tables
from bench.shape import SEED, Size
from bench.startup import measure_startup

SIZES = (Size(100_000, 5_000, 1_000), Size(1_000_000, 50_000, 10_000))
TOYS = (Size(1_000, 50, 10), Size(10_000, 500, 100))
REPETITIONS, TOY_REPETITIONS = 7, 3
SLOW = {Case.INTERN, Case.INTERN_CHANGED}
"""Run as often as at toy sizes."""
STARTS, TOY_STARTS = 15, 3
WIDTH = 120
"""Of the tables where no terminal says how wide it is."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs everything, or the one case that a parent process asks for."""
    options = _parser().parse_args(arguments)
    if options.case is not None:
        print(as_json(measure(Case(options.case), Size(*options.size), options.repetitions)))
        return
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    progress = Console(stderr=True)
    results = _run_cases(TOYS if options.small else SIZES, options.repetitions, progress, small=options.small)
    with progress.status("start of the command line"):
        startup = measure_startup(TOY_STARTS if options.small else STARTS)
    with progress.status("reading LDAP"):
        directories = [
            ldap.measure_ldap(users, ldap.TOY_REPETITIONS if options.small else ldap.REPETITIONS)
            for users in (ldap.TOYS if options.small else ldap.SIZES)
        ]
    with progress.status("transactions"):
        taken = transactions.measure_transactions(
            transactions.TOY_REPETITIONS if options.small else transactions.REPETITIONS
        )
    with progress.status("loading the mirror"):
        mirrors = [
            mirror.measure_mirror(
                memberships, mirror.TOY_REPETITIONS if options.small else mirror.REPETITIONS
            )
            for memberships in (mirror.TOYS if options.small else mirror.SIZES)
        ]
    with progress.status("accounts"):
        synced = accounts.measure_accounts(small=options.small)
    with progress.status("SCIM"):
        pushed = scim.measure_scim(small=options.small)
    with progress.status("Microsoft Graph"):
        followed = graph.measure_graph(small=options.small)
    with progress.status("the daemon on a homeserver"):
        live = measure_live(small=options.small)
    found = [
        *tables(results, startup),
        *ldap.ldap_tables(directories),
        *transactions.transaction_tables(taken),
        *mirror.mirror_tables(mirrors),
        *accounts.account_tables(synced),
        *scim.scim_tables(pushed),
        *graph.graph_tables(followed),
        *live_tables(*live),
    ]
    _print(console, found, as_markdown=options.markdown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast it is.")
    parser.add_argument("--small", action="store_true", help="toy sizes, to see that everything works")
    parser.add_argument("--markdown", action="store_true", help="print what docs/performance.md keeps")
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each measurement")
    parser.add_argument("--case", choices=[case.value for case in Case], help=argparse.SUPPRESS)
    parser.add_argument("--size", type=_size, help=argparse.SUPPRESS)
    return parser


def _size(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _run_cases(sizes: Sequence[Size], repetitions: int | None, progress: Console, *, small: bool) -> Results:
    times = repetitions or (TOY_REPETITIONS if small else REPETITIONS)
    results = {}
    for size in sizes:
        measured = {}
        for case in Case:
            with progress.status(f"{size}: {case}"):
                measured[case] = run_case(case, size, min(times, TOY_REPETITIONS) if case in SLOW else times)
        results[size] = measured
    return results


def _print(console: Console, found: Sequence[Table], *, as_markdown: bool) -> None:
    about = f"{machine()}; seed {SEED}"
    if as_markdown:
        print(f"{about}\n")
        for table in found:
            print(markdown(table))
        return
    console.print(about, highlight=False, soft_wrap=True)
    for table in found:
        show(console, table)


if __name__ == "__main__":
    main()
