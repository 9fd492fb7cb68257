"""The benchmarks: each works, and measures what it says. How fast anything is, is no matter here."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from aim.desired.desire import desire
from bench.__main__ import _parser, main
from bench.cases import Case, Measured, run_case
from bench.organisation import Inputs, held, intern, make_inputs, make_rows
from bench.reference import make_reference, unite
from bench.report import Table, markdown, show, tables
from bench.shape import Size, change, make_shape
from bench.startup import Startup, measure_startup

TINY = Size(users=400, groups=60, spaces=10)


def memberships(inputs: Inputs) -> dict[str, set[str]]:
    """Space → localparts that should be in it."""
    desired = desire(inputs.config, inputs.directory, inputs.observed, inputs.recorded)
    named = inputs.directory.roster.localparts
    return {key: set(named(room.members)) for key, room in desired.rooms.items()}


@pytest.mark.parametrize("case", Case)
def test_each_case_measures_in_a_process_of_its_own(case: Case) -> None:
    measured = run_case(case, TINY, 2)

    assert len(measured.seconds) == 2
    assert 0 < measured.least <= measured.median
    assert 10_000_000 < measured.inputs <= measured.peak
    if case is Case.CORE:
        assert measured.counts == {}
        assert set(measured.parts) == {"identity", "mapping", "diff", "collection"}
    if case is Case.CORE_CHANGED:
        assert {"invite", "kick", "set_power_level"} <= set(measured.counts)


def test_the_reference_and_the_core_come_to_the_same_members() -> None:
    found = memberships(make_inputs(TINY, changed=False))

    assert found == unite(make_reference(TINY))
    assert len(found) == TINY.spaces
    assert all(found.values())


def test_plain_rows_become_the_same_inputs() -> None:
    rows = held(make_rows(TINY, changed=True, gather=frozenset))

    assert all(isinstance(row.members, frozenset) for row in rows.groups)
    assert memberships(intern(rows)) == memberships(make_inputs(TINY, changed=True))


def test_an_organisation_is_as_large_as_it_says() -> None:
    inputs = make_inputs(TINY, changed=False)

    assert len(inputs.directory.users) == TINY.users == len(inputs.recorded.seen)
    assert len(inputs.directory.groups) == TINY.groups
    assert len(inputs.observed.rooms) == TINY.spaces
    assert [user.id for user in inputs.directory.users] == sorted(inputs.recorded.seen)


def test_the_same_seed_gives_the_same_organisation() -> None:
    assert make_shape(TINY) == make_shape(TINY)
    assert change(make_shape(TINY)) == change(make_shape(TINY))
    assert make_shape(TINY, seed=1).team_of != make_shape(TINY, seed=2).team_of


def test_ten_times_the_organisation_has_ten_times_the_memberships() -> None:
    small, large = (
        sum(map(len, make_shape(size).members().values()))
        for size in (Size(3_000, 500, 100), Size(30_000, 5_000, 1_000))
    )

    assert large / small == pytest.approx(10, rel=0.1)


def test_a_changed_organisation_has_people_who_came_left_moved_and_rose() -> None:
    before = make_shape(Size(8_000, 400, 80))
    after = change(before)

    assert len(after.team_of) == len(before.team_of) + 2
    assert len(after.left) == 2
    assert sum(map(len, after.leads)) <= sum(map(len, before.leads)) + 1
    moved = [
        person
        for person, team in enumerate(before.team_of)
        if person not in after.left and after.team_of[person] != team
    ]
    assert 1 <= len(moved) <= 4


def result(seconds: float, peak: int) -> Measured:
    counts = {"memberships of groups": 7, "memberships of spaces": 9, "kick": 1}
    parts = dict.fromkeys(("identity", "mapping", "diff", "collection"), seconds)
    return Measured((seconds, 2 * seconds), peak, peak, parts, counts)


def reports(growth: float) -> list[Table]:
    sizes = (TINY, Size(4_000, 600, 100))
    results = {
        size: {case: result(factor, int(factor * 1e9)) for case in Case}
        for size, factor in zip(sizes, (1.0, growth), strict=True)
    }
    return list(tables(results, Startup(aim=(0.4, 0.6, 0.5), typer=(0.1, 0.1, 0.1))))


@pytest.mark.parametrize(("growth", "said"), [(1.4, "yes"), (12.0, "no")])
def test_the_report_says_which_aims_are_reached(growth: float, said: str) -> None:
    aims = {row[0]: row[1:] for row in reports(growth)[-1].rows}

    assert aims["ten times the organisation: time"] == (f"{growth:.2f}×", "11×", said)
    assert aims["largest organisation: peak memory"] == (f"{growth:.2f} GB", "1.5 GB", said)
    assert aims["unchanged, 400 users: time beside the reference"] == ("1.00×", "2×", "yes")
    assert aims["aim --help beside importing typer"] == ("5.00×", "3×", "no")


def test_tables_are_shown_in_the_terminal_and_as_markdown() -> None:
    table = Table("Aims", ("", "measured"), [("time", "1.00×")])
    terminal = io.StringIO()
    show(Console(file=terminal, width=80), table)

    assert "time" in terminal.getvalue()
    assert markdown(table) == "### Aims\n\n|  | measured |\n| --- | ---: |\n| time | 1.00× |\n"


def test_the_start_of_the_command_line_is_measured() -> None:
    startup = measure_startup(1)

    assert len(startup.aim) == len(startup.typer) == 1
    assert startup.ratio > 0


def test_one_case_prints_json(capfd: pytest.CaptureFixture[str]) -> None:
    options = _parser().parse_args(["--size", "400,60,10", "--small"])
    assert (Size(*options.size), options.small, options.markdown) == (TINY, True, False)

    main(["--case", "reference", "--size", "400,60,10", "--repetitions", "1"])
    assert capfd.readouterr().out.startswith('{"seconds": [')
