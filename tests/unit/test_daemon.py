"""The daemon's loop over fakes: what makes it look, and that it never looks without end."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from aim.app import now
from aim.daemon import Daemon, Pace
from aim.ops.metrics import Metrics
from tests.unit.fakes import FakeSource
from tests.unit.test_cycles import StillMirror
from tests.unit.test_reconciler import Deployment, settled
from tests.unit.worlds import a_directory


def daemon_of(deployment: Deployment, mirror: StillMirror) -> Daemon:
    source = FakeSource(lambda roster: deployment.make(roster))  # noqa: PLW0108 - it may be replaced
    reconciler = deployment.reconciler()
    return Daemon(source, reconciler, Pace(3600), deployment.clock.now, Metrics(), mirror)


async def worked(daemon: Daemon, seconds: float = 0.3) -> None:
    """Lets it work for a moment."""
    work = asyncio.create_task(daemon._work())
    await asyncio.wait({work}, timeout=seconds)
    daemon.stop()
    await asyncio.wait_for(work, 5)
    await daemon._finish()


class Keyed(StillMirror):
    def key_of(self, room_id: str) -> str | None:
        return "lab"


async def test_while_events_do_not_arrive_rooms_are_not_looked_at_one_by_one() -> None:
    deployment = await settled()
    mirror = Keyed(current=False)
    daemon = daemon_of(deployment, mirror)
    daemon._reading = await daemon._reconciler.read()
    daemon.changed(["!any"])
    await worked(daemon)
    assert deployment.line.names().count("observe") == 0


async def test_before_the_directory_was_read_nothing_is_looked_at_and_nobody_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment = await settled()
    daemon = daemon_of(deployment, Keyed())
    rounds = 0
    wait = daemon._wait

    async def counted() -> None:
        nonlocal rounds
        rounds += 1
        await wait()

    monkeypatch.setattr(daemon, "_wait", counted)
    daemon.changed(["!any"])
    await worked(daemon)
    assert rounds < 5


async def test_an_event_in_a_room_is_followed_by_a_look_at_it() -> None:
    deployment = await settled()
    daemon = daemon_of(deployment, Keyed())
    daemon._reading = await daemon._reconciler.read()
    daemon.changed(["!any"])
    await worked(daemon)
    assert deployment.line.names().count("observe") == 1


async def test_a_defect_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = await settled()
    daemon = daemon_of(deployment, Keyed())
    daemon._reading = await daemon._reconciler.read()
    daemon._whole_wanted = True

    async def broken(*_: Any) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(daemon._cycles, "whole", broken)
    with capture_logs() as logs:
        await worked(daemon)
    [line] = [line for line in logs if line["event"] == "a defect of aim; it goes on"]
    assert (line["type"], "secret" in str(line)) == ("KeyError", False)
    assert daemon._open


async def test_events_that_arrive_before_the_directory_was_read_block_nothing() -> None:
    deployment = await settled()
    daemon = daemon_of(deployment, Keyed())
    daemon._hears_again()
    await worked(daemon)
    assert deployment.line.names().count("observe") == 0
    assert daemon._whole_wanted


class Hanging(FakeSource):
    """Does not answer, until it is cancelled."""

    def __init__(self) -> None:
        super().__init__(lambda roster: a_directory([], roster=roster))
        self.asked = asyncio.Event()
        self.looks = 0
        self.is_cancelled = False

    async def fingerprint(self) -> NoReturn:
        self.looks += 1
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        raise AssertionError


async def test_nobody_waits_for_a_source_that_does_not_answer_when_it_stops() -> None:
    deployment, source = await settled(), Hanging()
    daemon = Daemon(source, deployment.reconciler(), Pace(3600), now, Metrics())
    running = asyncio.create_task(daemon.run())
    await asyncio.wait_for(source.asked.wait(), 5)
    # Its turn comes when the first one is cancelled.
    second = asyncio.create_task(daemon._tick())
    await asyncio.sleep(0)
    with capture_logs() as logs:
        daemon.stop()
        await asyncio.wait_for(running, 5)
        await asyncio.wait_for(second, 5)
    assert source.is_cancelled
    assert source.looks == 1
    assert [line["event"] for line in logs] == ["stopped"]


async def test_a_look_whose_turn_comes_after_the_stop_is_none() -> None:
    deployment, source = await settled(), Hanging()
    daemon = Daemon(source, deployment.reconciler(), Pace(3600), now, Metrics())
    daemon.stop()
    await daemon._tick()
    assert source.looks == 0
