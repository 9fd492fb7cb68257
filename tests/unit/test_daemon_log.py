"""What the daemon says of a source that can't be read, and of what a guard holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, cast

from structlog.testing import capture_logs

from aim.daemon import Daemon, Pace
from aim.daemon.telling import Teller
from aim.errors import SourceUnavailable
from aim.ops.metrics import Metrics
from aim.reconciler import Cycle, Reading, Reconciler
from tests.unit.fakes import FakeSource
from tests.unit.worlds import Scene, a_config, a_directory, a_space, provisioned

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PEOPLE = ["ann", "bob", "cid", "dan", "eve", "fay", "gil", "hal"]


class Silent(FakeSource):
    async def fingerprint(self) -> NoReturn:
        raise SourceUnavailable("no answer", "Wait.")


def a_daemon() -> Daemon:
    # Neither of these tests gets as far as the reconciler.
    reconciler = cast(Reconciler, None)
    source = Silent(lambda roster: a_directory(PEOPLE, roster=roster))
    return Daemon(source, reconciler, Pace(60), lambda: NOW, Metrics())


def said_at(teller: Teller, minute: int, cause: str = "no answer") -> list[str]:
    """The levels of what is said of a failure at that minute."""
    with capture_logs() as logs:
        teller.source_failed(SourceUnavailable(cause, "Wait."), None, NOW + timedelta(minutes=minute))
    return [line["log_level"] for line in logs]


async def said_of_source(daemon: Daemon) -> Any:
    with capture_logs() as logs:
        await daemon._look()
    (line,) = logs
    return line


async def test_before_the_first_read_there_is_no_last_one() -> None:
    line = await said_of_source(a_daemon())
    assert line == {
        "event": "the directory could not be read; nothing is done until it can be",
        "log_level": "error",
        "cause": "no answer",
        "remedy": "Wait.",
    }


async def test_later_the_last_one_stays_in_force() -> None:
    daemon = a_daemon()
    daemon._reading = Reading(a_directory(PEOPLE), NOW)
    line = await said_of_source(daemon)
    assert line["event"] == "the directory could not be read; the last good one stays in force"
    assert line["last_read"] == "2030-01-01T00:00:00+00:00"


def test_what_stays_is_told_once_an_hour_and_what_is_new_at_once() -> None:
    teller = Teller(Metrics())
    levels = [said_at(teller, minute) for minute in (0, 1, 59, 60, 61)]
    assert levels == [["error"], ["debug"], ["debug"], ["error"], ["debug"]]
    assert said_at(teller, 62, "no such app") == ["error"]
    assert said_at(teller, 63) == ["error"]
    # The clock was set back: nobody knows for how long nothing was said.
    assert said_at(teller, -5) == ["error"]


def test_that_it_can_be_read_again_is_told_and_the_next_failure_too() -> None:
    teller = Teller(Metrics())
    with capture_logs() as logs:
        teller.source_answered()
    assert logs == []
    assert said_at(teller, 0) == ["error"]
    with capture_logs() as logs:
        teller.source_answered()
        teller.source_answered()
    assert [line["event"] for line in logs] == ["the directory can be read again"]
    assert said_at(teller, 1) == ["error"]


def leaving(*, stays: list[str]) -> Scene:
    """All others have left both spaces, and those with a level have lost it."""
    config = a_config(a_space("all", ""), a_space("lab", "lab"))
    scene = provisioned(config, a_directory(PEOPLE, {"lab": PEOPLE[:7]}))
    return replace(scene, directory=a_directory(stays, {"lab": stays}, roster=scene.roster))


def held(scene: Scene) -> dict[str, str]:
    """What is said of each trip → whom it names."""
    with capture_logs() as logs:
        a_daemon()._teller.cycle(Cycle(scene.plan(), ()), whole=True)
    lines = [line for line in logs if line["event"] == "held by a guard"]
    assert all(line["remedy"].startswith("if that is right: aim approve sha256:") for line in lines)
    return {line["guard"].partition(":")[0]: line["people"] for line in lines}


def test_some_of_the_held_people_are_named() -> None:
    everybody = [f"@{name}:example.com" for name in PEOPLE]
    assert held(leaving(stays=["ann"])) == {
        "kicks in space all": ", ".join(everybody[1:6]) + " and 2 more",
        "kicks in space lab": ", ".join(everybody[1:6]) + " and 1 more",
        "kicks in the organisation": ", ".join(everybody[1:6]) + " and 2 more",
    }
    # With three to stay five go from one space, and four from the other.
    few = held(leaving(stays=["ann", "bob", "cid"]))
    assert few["kicks in space all"] == ", ".join(everybody[3:])
    assert few["kicks in space lab"] == ", ".join(everybody[3:7])
