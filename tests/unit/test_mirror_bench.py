"""The benchmark of the mirror: it makes as much as it says, and tells what is reached."""

from __future__ import annotations

import pytest

from bench.mirror import MOST_MEGABYTES, SIZES, TOYS, Measured, Run, make, mirror_tables


@pytest.mark.parametrize("memberships", [*TOYS, 200_000])
def test_there_are_as_many_memberships_as_it_says(memberships: int) -> None:
    keys = [member.key for changes in make(memberships) for member in changes.members]
    assert len(keys) == len(set(keys)) == memberships


@pytest.mark.parametrize(("seconds", "megabytes", "said"), [(9.0, 100.0, "yes"), (11.0, 500.0, "NO")])
def test_the_tables_say_what_is_reached(seconds: float, megabytes: float, said: str) -> None:
    measured = Measured(SIZES[-1], [Run(1.0, 30.0, 1)], [Run(seconds, megabytes, 1)])
    times, aims = mirror_tables([measured])
    assert times.rows[1] == (
        "all Rooms in memory",
        f"{seconds:.3f} s",
        f"{seconds:.2f}",
        f"{megabytes:.0f} MB",
    )
    assert [row[-1] for row in aims.rows] == [said, said]
    assert aims.rows[1][2] == str(MOST_MEGABYTES)


def test_a_toy_reaches_nothing() -> None:
    assert len(list(mirror_tables([Measured(TOYS[0], [Run(1, 1, 1)], [Run(1, 1, 1)])]))) == 1
