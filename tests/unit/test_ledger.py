"""The ledger: outcomes are written while the cycle goes on, and no write is ever broken off."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import cast

import pytest

from aim.ledger import Ledger
from aim.planner.actions import Invite
from aim.planner.plan import Plan, SourceCount
from aim.ports import Outcome, OutcomeStatus, Recorder
from tests.unit.worlds import NOW

INVITE = Invite(room="all", space="all", person="@ann:example.com", reason="in the directory")
DONE = Outcome(INVITE, OutcomeStatus.DONE)


class SlowRecorder:
    """Takes as long for a write as the test wants."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.written: list[Mapping[int, Outcome]] = []

    async def record_outcomes(self, cycle: int, outcomes: Mapping[int, Outcome], now: datetime) -> None:
        self.begun.set()
        await self.goes_on.wait()
        self.written.append(dict(outcomes))


async def test_the_end_of_a_cycle_waits_for_a_write_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "EVERY", 0.001)
    recorder = SlowRecorder()
    plan = Plan(SourceCount("ldif", 1, 0), actions=(INVITE,))
    told: list[Outcome] = []
    ledger = Ledger(cast(Recorder, recorder), 1, plan, lambda: NOW, told.append)

    async def cycle() -> None:
        async with ledger.kept():
            ledger.note(DONE)
            await recorder.begun.wait()

    ending = asyncio.create_task(cycle())
    await recorder.begun.wait()
    # Enough turns of the loop for a cycle that would not wait.
    for _ in range(10):
        await asyncio.sleep(0)
    assert not ending.done()
    recorder.goes_on.set()
    await ending
    assert (recorder.written, told) == ([{0: DONE}], [DONE])
