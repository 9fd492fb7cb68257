"""Those who wait for the outcome of what they wrote: on the daemon's loop over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aim.daemon import Awaiting, Daemon, Pace
from aim.daemon.awaiting import Taken
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, HomeserverUnavailable, SourceUnavailable
from aim.ops.metrics import Metrics
from tests.unit.fakes import Call, Failure, FakeSource
from tests.unit.model import mxid
from tests.unit.test_cycles import StillMirror
from tests.unit.test_reconciler import Deployment, settled, staff

CID, DAN = mxid("cid"), mxid("dan")
TO_LAB = staff(lab=["bob", "cid", "dan"])


class Waiting:
    """A deployment in which all is well, its daemon at work, and those who wait."""

    def __init__(self, deployment: Deployment, awaiting: Awaiting) -> None:
        self.deployment, self.awaiting = deployment, awaiting
        self.reads = 0
        self.daemon = Daemon(
            FakeSource(staff()),
            deployment.reconciler(),
            Pace(3600),
            deployment.clock.now,
            Metrics(),
            StillMirror(),
            awaiting=awaiting,
        )

    def push(self, make: Callable[[Roster], Directory]) -> None:
        """The source is like this now, and says nothing of it."""

        def read(roster: Roster) -> Directory:
            self.reads += 1
            return make(roster)

        self.deployment.make = read

    @property
    def cycles(self) -> int:
        return self.deployment.line.names().count("observe")


@asynccontextmanager
async def waiting(patience: float = 20.0) -> AsyncIterator[Waiting]:
    made = Waiting(await settled(), Awaiting(patience))
    made.push(TO_LAB)
    work = asyncio.create_task(made.daemon._work())
    following = asyncio.create_task(made.daemon._follow_prompts())
    try:
        yield made
    finally:
        made.daemon.stop()
        following.cancel()
        await asyncio.wait_for(work, 5)
        await made.daemon._finish()


def refused(person: str) -> Failure:
    """Nobody asks them in."""

    def fail(call: Call) -> BaseException | None:
        is_it = call.name == "invite" and call.arguments[1] == person
        return HomeserverRefused("they are banned", status=403, errcode="M_FORBIDDEN") if is_it else None

    return fail


async def test_the_answer_comes_when_all_is_done() -> None:
    async with waiting() as made:
        assert await made.awaiting.outcome(CID) is None
        assert {CID, DAN} <= set(made.deployment.members("lab"))
        # The fingerprint is the same: that is no reason not to look.
        made.push(staff(lab=["bob", "cid", "dan", "eve"]))
        assert await made.awaiting.outcome(None) is None
        assert mxid("eve") in made.deployment.members("lab")


async def test_a_failure_is_told_to_those_whom_it_concerns() -> None:
    async with waiting() as made:
        made.deployment.line.fail = refused(CID)
        of_cid, of_dan, of_all = await asyncio.gather(*map(made.awaiting.outcome, (CID, DAN, None)))
        assert of_cid is not None
        for word in ("stored", "invite", CID, "lab", "they are banned"):
            assert word in of_cid
        assert (of_dan, of_all) == (None, of_cid)
        assert DAN in made.deployment.members("lab")


async def test_of_many_failures_the_first_are_named() -> None:
    async with waiting() as made:
        made.deployment.line.fail = lambda call: (
            HomeserverRefused("no", status=403) if call.name == "invite" else None
        )
        made.push(staff(lab=["ann", "bob", "cid", "dan", "eve", "fay"]))
        text = await made.awaiting.outcome(None) or ""
        invites = text.count("invite of")
        assert invites == 3
        assert int(text.rpartition("and ")[2].removesuffix(" more")) == 10 - invites


async def test_a_burst_is_one_read_and_one_cycle() -> None:
    async with waiting() as made:
        assert await asyncio.gather(*(made.awaiting.outcome(CID) for _ in range(100))) == [None] * 100
        assert (made.reads, made.cycles) == (1, 1)


async def test_a_source_that_can_not_be_read() -> None:
    def broken(_: Roster) -> Directory:
        raise SourceUnavailable("the database is away")

    async with waiting() as made:
        made.push(broken)
        text = await made.awaiting.outcome(CID) or ""
        assert ("the database is away" in text, made.cycles) == (True, 0)
        made.push(TO_LAB)
        assert await made.awaiting.outcome(CID) is None


async def test_a_cycle_that_fails_as_a_whole() -> None:
    async with waiting() as made:
        made.deployment.line.fail = lambda call: (
            HomeserverUnavailable("the homeserver is away") if call.name == "observe" else None
        )
        assert "the homeserver is away" in (await made.awaiting.outcome(CID) or "")


async def test_a_defect_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise KeyError("secret")

    async with waiting() as made:
        monkeypatch.setattr(made.daemon._cycles, "whole", broken)
        text = await made.awaiting.outcome(CID) or ""
        assert ("see the log" in text, "secret" in text) == (True, False)


async def test_what_a_guard_holds_is_no_failure() -> None:
    async with waiting() as made:
        made.push(staff(["ann"], lab=[]))
        assert await made.awaiting.outcome(None) is None
        assert mxid("bob") in made.deployment.members("lab")


async def test_what_others_are_at_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = asyncio.Event()
    done = Taken.done

    def told(self: Taken, *arguments: Any) -> None:
        done(self, *arguments)
        over.set()

    monkeypatch.setattr(Taken, "done", told)
    async with waiting() as made:
        queue = made.daemon._queue
        queue.occupy(["lab"])
        asking = asyncio.create_task(made.awaiting.outcome(CID))
        await asyncio.wait_for(over.wait(), 5)
        assert (asking.done(), CID in made.deployment.members("lab")) == (False, False)
        cycles = made.cycles

        over.clear()
        queue.done("lab")
        made.daemon._cycles.freed.set()
        assert await asyncio.wait_for(asking, 5) is None
        assert CID in made.deployment.members("lab")
        assert (made.cycles, made.reads) == (cycles + 1, 1)


async def test_being_stopped_ends_all_waiting_at_once() -> None:
    async with waiting() as made:
        asking = asyncio.create_task(made.awaiting.outcome(CID))
        await asyncio.sleep(0)
        made.daemon.stop()
        text = await asyncio.wait_for(asking, 1) or ""
        assert ("stopped" in text, made.reads) == (True, 0)
        assert await made.awaiting.outcome(CID) == text


async def test_patience_ends() -> None:
    awaiting = Awaiting(0.01)
    text = await awaiting.outcome(CID) or ""
    assert ("within 0.01 s" in text, awaiting.wants_read(0)) == (True, False)


async def test_who_asks_before_the_daemon_is_there_is_answered_when_it_is() -> None:
    awaiting = Awaiting(20)
    asking = asyncio.create_task(awaiting.outcome(CID))
    await asyncio.sleep(0)
    made = Waiting(await settled(), awaiting)
    made.push(TO_LAB)
    work = asyncio.create_task(made.daemon._work())
    await made.daemon._tick()
    assert await asyncio.wait_for(asking, 5) is None
    made.daemon.stop()
    await asyncio.wait_for(work, 5)
    await made.daemon._finish()


async def test_a_read_that_began_earlier_is_not_enough() -> None:
    awaiting = Awaiting(20)
    first = asyncio.create_task(awaiting.outcome(CID))
    await asyncio.sleep(0)
    covered = awaiting.asked
    second = asyncio.create_task(awaiting.outcome(CID))
    await asyncio.sleep(0)
    assert awaiting.wants_read(covered)
    with awaiting.taken(covered) as taken:
        taken.failed("first")
    assert "first" in (await first or "")
    assert not second.done()
    awaiting.not_read(SourceUnavailable("away"), covered, awaiting.asked)
    assert "away" in (await second or "")
