"""Those who wait for the outcome of what they wrote: on the daemon's loop over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from aim.daemon import Awaiting, Daemon, Pace
from aim.daemon.awaiting import Taken
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, HomeserverUnavailable, SourceUnavailable
from aim.ops.metrics import Metrics
from aim.provisioner.tools import Tools
from aim.reconciler import Senses
from aim.world.accounts import Account
from tests.unit.account_fakes import FakeAccounts
from tests.unit.fakes import Call, Failure, FakeSource, Line
from tests.unit.model import mxid
from tests.unit.test_cycles import StillMirror
from tests.unit.test_reconciler import STAFF, Deployment, settled, staff
from tests.unit.test_registering import ANN, config
from tests.unit.test_registering_work import Campus
from tests.unit.worlds import a_directory, a_user

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
    async with at_work(made):
        yield made


@asynccontextmanager
async def at_work(made: Waiting) -> AsyncIterator[Waiting]:
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


async def test_what_others_are_at_keeps_only_those_whom_it_concerns() -> None:
    async with waiting() as made:
        made.daemon._queue.occupy(["lab", "lab/talk"])
        made.push(staff([*STAFF, "gus"], lab=["bob", "cid"]))
        made.deployment.homeserver.accounts.add("gus")
        of_cid, of_all = (asyncio.create_task(made.awaiting.outcome(one)) for one in (CID, None))
        assert await asyncio.wait_for(made.awaiting.outcome(mxid("gus")), 5) is None
        assert mxid("gus") in made.deployment.members("all")
        assert (of_cid.done(), of_all.done()) == (False, False)


class Staffing(Campus):
    """Accounts are made, and follow the directory; what was made can be seen at once."""

    def __init__(self) -> None:
        users = [replace(a_user("ann"), display_name="Ann"), a_user("bob")]
        super().__init__(
            make=lambda roster: a_directory(users, roster=roster), config=config(user_provisioner={})
        )

    def start(self, line: Line | None = None) -> None:
        super().start(line)
        self.people = FakeAccounts(self.line)

    @property
    def senses(self) -> Senses:
        return replace(super().senses, accounts=self.people)

    @property
    def tools(self) -> Tools:
        return replace(
            super().tools, found_account=self.found, known_accounts=self.people, accounts=self.people
        )

    async def found(self, localpart: str) -> None:
        self.homeserver.accounts.add(localpart)
        self.people.accounts[localpart] = Account(localpart)


@asynccontextmanager
async def new_staff() -> AsyncIterator[Waiting]:
    async with at_work(Waiting(Staffing(), Awaiting(20))) as made:
        yield made


async def test_whose_account_is_made_has_their_name_too_when_the_answer_comes() -> None:
    async with new_staff() as made:
        assert await made.awaiting.outcome(ANN) is None
        assert isinstance(made.deployment, Staffing)
        assert made.deployment.people.accounts["ann"].display_name == "Ann"
        assert ANN in made.deployment.members("lab")


async def test_that_their_name_is_refused_is_told() -> None:
    async with new_staff() as made:
        made.deployment.line.fail = lambda call: (
            HomeserverRefused("no such name", status=400) if call.name == "set_display_name" else None
        )
        text = await made.awaiting.outcome(ANN) or ""
        assert ("set_display_name" in text, "no such name" in text) == (True, True)


async def test_what_waits_for_an_account_that_others_make_is_no_failure() -> None:
    async with new_staff() as made:
        made.daemon._queue.occupy([ANN])
        asking = asyncio.create_task(made.awaiting.outcome(ANN))
        assert await asyncio.wait_for(made.awaiting.outcome(mxid("bob")), 5) is None
        assert (asking.done(), ANN in made.deployment.members("lab")) == (False, False)
        made.daemon._queue.done(ANN)
        made.daemon._cycles.freed.set()
        assert await asyncio.wait_for(asking, 5) is None
        assert ANN in made.deployment.members("lab")


async def test_without_a_mirror_the_next_look_does_what_was_left_to_others() -> None:
    """No queue is worked on then, and others may have had an older reading."""
    deployment = await settled()
    deployment.make = TO_LAB
    reconciler = deployment.reconciler()
    daemon = Daemon(FakeSource(TO_LAB), reconciler, Pace(3600), deployment.clock.now, Metrics())
    await daemon._tick()
    reading = daemon._reading
    assert reading is not None
    for is_free in (False, True):
        daemon._whole_wanted = False
        if is_free:
            daemon._queue.done("lab")
        else:
            daemon._queue.occupy(["lab"])
        await daemon._whole(reading, 0, asyncio.Event())
        assert (CID in deployment.members("lab")) is is_free
        await daemon._tick()
        assert daemon._whole_wanted is not is_free


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
