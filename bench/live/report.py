"""From what was measured to tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from bench.live.correction import MOST_TIMES_NEEDED, Corrections
from bench.live.current import MOST_IDLE, MOST_RESTARTED, Asked
from bench.live.measure import FULL, Large, Real
from bench.live.provisioning import LEAST_THROUGHPUT, MOST_TIMES_LEAST, Provisioning
from bench.report import Table

_KINDS_SHOWN = 6


def live_tables(real: Real, large: Large) -> Iterator[Table]:
    """Everything that was found; a toy size reaches nothing."""
    yield _provisioning(real.provisioning)
    yield _current(real, large)
    yield _corrections(real.corrections)
    yield _large(large)
    if real.provisioning.organisation == FULL.real:
        yield _aims(real, large)


def _provisioning(found: Provisioning) -> Table:
    rows = [
        ("the fewest that can do it", str(found.least), "", "", _named(found.organisation.least_requests()))
    ]
    for number, (made, bare) in enumerate(zip(found.rounds, found.bare, strict=True), 1):
        rows.append(
            (
                f"aim, round {number}",
                str(made.total),
                f"{made.seconds:.1f} s",
                f"{made.work / made.seconds:.1f}/s",
                _named(made.requests),
            )
        )
        rows.append(
            (f"bare loop, round {number}", str(made.work), f"{bare:.1f} s", f"{made.work / bare:.1f}/s", "")
        )
    columns = ("", "requests", "time", "of rooms", "which")
    return Table(f"First provisioning, Synapse, {found.organisation}", columns, rows)


def _named(kinds: Mapping[str, int]) -> str:
    """The most frequent kinds, and how many more."""
    shown = [f"{count} {kind}" for kind, count in list(kinds.items())[:_KINDS_SHOWN]]
    rest = sum(list(kinds.values())[_KINDS_SHOWN:])
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _current(real: Real, large: Large) -> Table:
    rows = []
    for where, organisation, idle, restarted in (
        ("Synapse", real.provisioning.organisation, real.idle, real.restarted),
        ("stand-in", large.organisation, large.idle, large.restarted),
    ):
        rows.append((f"{where}, {organisation}: {idle.cycles} cycles", *_counts(idle)))
        rows.append((f"{where}, {organisation}: started again", *_counts(restarted)))
    return Table("Nothing to do", ("", "requests", "polls", "which"), rows)


def _counts(asked: Asked) -> tuple[str, str, str]:
    return str(asked.total), str(asked.polls), _named(asked.requests)


def _corrections(found: Sequence[Corrections]) -> Table:
    rows = [
        (
            one.name,
            *(_ms(median(values)) for values in _parts(one)),
            _ms(one.median_needed),
            f"{one.times_needed:.2f}",
        )
        for one in found
    ]
    columns = ("", "delivered", "first request", "corrected", "needed", "× needed")
    return Table("From a change to its correction, Synapse", columns, rows)


def _parts(found: Corrections) -> tuple[list[float], list[float], list[float]]:
    turns = found.corrected
    return (
        [one.delivered for one in turns],
        [one.first_request for one in turns],
        [one.accepted for one in turns],
    )


def _large(found: Large) -> Table:
    rows = [
        ("from the event to the correction", _ms(median(one.seconds for one in found.reactions))),
        ("processor time of aim for it, in all", _ms(median(one.processor for one in found.reactions))),
        *((f"one decision: {name}", _ms(seconds)) for name, seconds in found.decision.parts.items()),
    ]
    title = f"A correction, stand-in, {found.organisation}, {found.memberships:,} memberships"
    return Table(title, ("", "median"), rows)


def _aims(real: Real, large: Large) -> Table:
    made = real.provisioning
    rows = [
        _at_most(f"cycles with nothing to do, {large.organisation}: requests", large.idle.total, MOST_IDLE),
        _at_most("cycles with nothing to do, Synapse: requests", real.idle.total, MOST_IDLE),
        _at_most(f"started again, {large.organisation}: requests", large.restarted.total, MOST_RESTARTED),
        _at_most("started again, Synapse: requests", real.restarted.total, MOST_RESTARTED),
        _at_most("first provisioning: requests, × the fewest", made.times_least, MOST_TIMES_LEAST),
        (
            "first provisioning: throughput, × a bare loop",
            f"{made.throughput:.2f}",
            f"at least {LEAST_THROUGHPUT:g}",
            "yes" if made.throughput >= LEAST_THROUGHPUT else "NO",
        ),
        *(_at_most(f"{one.name}: × needed", one.times_needed, MOST_TIMES_NEEDED) for one in real.corrections),
    ]
    return Table("The live daemon: reached", ("", "measured", "at most", "reached"), rows)


def _at_most(name: str, found: float, most: float) -> tuple[str, str, str, str]:
    shown = f"{found:.2f}" if isinstance(found, float) else str(found)
    return name, shown, f"{most:g}", "yes" if found <= most else "NO"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
