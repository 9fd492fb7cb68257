"""Keeping the mirror current: begun until it is, verified while it is, and trouble said once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from aim.daemon import keeping
from aim.daemon.keeping import Keeper
from aim.errors import AimError, HomeserverRefused, StoreError
from tests.unit.test_cycles import StillMirror

HOUR = timedelta(hours=1)


class Mirror(StillMirror):
    """Begins and verifies as the test says; stops the keeper after so many steps."""

    def __init__(self, stopping: asyncio.Event, steps: int) -> None:
        super().__init__(current=False)
        self.stopping, self.steps = stopping, steps
        self.did: list[str] = []
        self.defects: list[Exception] = []
        self.on_begin: Callable[[], None] = self.becomes_current

    def becomes_current(self) -> None:
        self.current = True

    def _step(self, what: str) -> None:
        self.did.append(what)
        if len(self.did) >= self.steps:
            self.stopping.set()

    async def begin(self) -> None:
        self._step("begin")
        self.on_begin()

    async def verify_next(self, interval: timedelta) -> None:
        assert interval == HOUR
        self._step("verify")


async def kept(steps: int, change: Callable[[Mirror], None] = lambda _: None) -> tuple[Mirror, list[str]]:
    """The mirror after so many steps, and what was said."""
    stopping = asyncio.Event()
    mirror = Mirror(stopping, steps)
    change(mirror)
    keeper = Keeper(mirror, HOUR, stopping, mirror.defects.append, lambda: mirror.did.append("hears"))
    with capture_logs() as logs:
        await asyncio.wait_for(keeper.keep(), 10)
    assert keeper.tried.is_set()
    return mirror, [line["event"] for line in logs]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_AGAIN", 0.001)
    monkeypatch.setattr(keeping, "_CALM", 0.001)
    monkeypatch.setattr(keeping, "_ROOMS_AT_ONCE", 2)


async def test_it_is_begun_and_then_verified() -> None:
    mirror, said = await kept(5)
    assert mirror.did[:2] == ["begin", "hears"]
    assert set(mirror.did[2:]) == {"verify"}
    assert said == ["the mirror is current: events of the homeserver arrive"]


async def test_what_can_not_begin_is_begun_again_and_said_once() -> None:
    def fails(mirror: Mirror) -> None:
        def begin() -> None:
            raise HomeserverRefused("can't connect", "check the url", status=502)

        mirror.on_begin = begin

    mirror, said = await kept(4, fails)
    assert mirror.did == ["begin"] * 4
    assert said == ["events of the homeserver don't arrive; it is read anew for each cycle instead"]


async def test_a_mirror_that_falls_behind_is_begun_again() -> None:
    def lost(mirror: Mirror) -> None:
        mirror.on_begin = lambda: setattr(mirror, "current", len(mirror.did) > 1)

    mirror, said = await kept(3, lost)
    assert mirror.did[:2] == ["begin", "begin"]
    assert len(said) == 1


async def test_a_defect_is_told_and_it_goes_on() -> None:
    def broken(mirror: Mirror) -> None:
        def begin() -> None:
            raise KeyError("secret")

        mirror.on_begin = begin

    mirror, said = await kept(3, broken)
    assert mirror.did == ["begin"] * 3
    assert [type(error) for error in mirror.defects] == [KeyError] * 3
    assert said == []


async def test_a_lost_database_ends_it() -> None:
    def lost(mirror: Mirror) -> None:
        def begin() -> None:
            raise StoreError("gone")

        mirror.on_begin = begin

    with pytest.raises(AimError, match="gone"):
        await kept(9, lost)
