"""The daemon and accounts: what makes it look at them, how each waits alone, and what is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from aim.daemon import Daemon, Pace
from aim.daemon.cycles import Cycles
from aim.daemon.queue import FIRST_PAUSE, Queue
from aim.daemon.telling import Teller
from aim.errors import HomeserverRefused, SourceUnavailable
from aim.ops.metrics import Metrics
from aim.reconciler import Cycle
from aim.world.accounts import Account
from tests.unit.fakes import Call, FakeSource
from tests.unit.model import mxid
from tests.unit.test_cycles import StillMirror
from tests.unit.test_daemon import daemon_of, worked
from tests.unit.test_reconciler import STAFF, STAYED, Firm, settled_firm, staff
from tests.unit.worlds import a_user

ANN, FAY = mxid("ann"), mxid("fay")


async def looked(daemon: Daemon) -> bool:
    """One look at the source: whether there is reason for a cycle over everything."""
    assert daemon._keeper is not None
    daemon._keeper.tried.set()
    daemon._whole_wanted = False
    await daemon._look()
    return daemon._whole_wanted


async def a_daemon(firm: Firm) -> Daemon:
    """One that has just ended a cycle, and has nothing to look at."""
    daemon = daemon_of(firm, StillMirror())
    assert await looked(daemon)
    daemon._last_whole, daemon._open = firm.clock.time, False
    assert not await looked(daemon)
    return daemon


# -- reasons for a cycle ----------------------------------------------------------------------------------


async def test_a_time_on_the_queue_that_ends_is_a_reason_for_a_cycle() -> None:
    firm = await settled_firm("20m")
    firm.make = staff(STAYED)
    await firm.cycle()
    daemon = await a_daemon(firm)
    firm.clock.time += timedelta(minutes=19)
    assert not await looked(daemon)
    firm.clock.time += timedelta(minutes=1)
    assert await looked(daemon)


async def test_it_is_one_reason_and_not_one_each_second() -> None:
    """Held by a guard, or by a person: that the time is over is not said again."""
    firm = await settled_firm("20m")
    firm.make = staff(STAYED)
    await firm.cycle()
    daemon = await a_daemon(firm)
    firm.clock.time += timedelta(minutes=20)
    assert await looked(daemon)
    for _ in range(3):
        firm.clock.time += timedelta(seconds=1)
        assert not await looked(daemon)


async def test_whom_a_person_holds_is_no_reason_at_all() -> None:
    firm = await settled_firm("20m")
    firm.make = staff(STAYED)
    await firm.cycle()
    recorded = firm.recorder.recorded
    [entry] = recorded.queue.values()
    held = {entry.user_id: replace(entry, held_by="boss")}
    firm.recorder.recorded = replace(recorded, queue=held)
    daemon = await a_daemon(firm)
    firm.clock.time += timedelta(minutes=20)
    assert not await looked(daemon)


async def worked_off(daemon: Daemon, *, over: Callable[[], bool]) -> None:
    """Lets it work until that is so."""
    work = asyncio.create_task(daemon._work())
    for _ in range(5000):
        if over():
            break
        await asyncio.sleep(0.001)
    else:
        pytest.fail("it never is")
    daemon.stop()
    await asyncio.wait_for(work, 5)
    await daemon._finish()


class Anywhere(StillMirror):
    def key_of(self, room_id: str) -> str | None:
        return "all"


async def test_a_source_that_cannot_be_read_erases_nobody_however_long_it_takes() -> None:
    """The last good directory stays in force, and events in rooms go on."""
    firm = await settled_firm("30d")
    firm.make = staff(STAYED)
    await firm.cycle()
    assert firm.account("fay") == "locked"
    unreachable = SourceUnavailable("no answer")
    source = FakeSource(lambda roster: firm.make(roster))  # noqa: PLW0108 - it is replaced
    is_down = False

    async def fingerprint() -> str:
        if is_down:
            raise unreachable
        return "one"

    source.fingerprint = fingerprint  # type: ignore[method-assign]
    daemon = Daemon(source, firm.reconciler(), Pace(3600), firm.clock.now, Metrics(), Anywhere())
    assert await looked(daemon)
    daemon._whole_wanted, is_down = False, True
    firm.make = staff()
    last = firm.clock.time + timedelta(days=31)
    # Until a moment ago somebody read the clock: it is in no doubt.
    firm.clock.time = last
    firm.recorder.recorded = replace(firm.recorder.recorded, clock=last - timedelta(minutes=1))
    assert not await looked(daemon)
    daemon.changed(["!any"])
    with capture_logs() as logs:
        await worked_off(daemon, over=lambda: any("1 erasures that are due" in str(line) for line in logs))
    assert firm.account("fay") == "locked"
    [told] = [line for line in logs if "1 erasures that are due" in str(line)]
    assert "the directory was last read at 2030-01-01" in str(told)

    is_down = False
    daemon = Daemon(source, firm.reconciler(), Pace(3600), firm.clock.now, Metrics(), Anywhere())
    assert await looked(daemon)
    await worked_off(daemon, over=lambda: firm.account("fay") != "locked")
    assert firm.account("fay") == "active"


async def test_whose_time_is_over_has_the_directory_read_first_even_if_it_looks_the_same() -> None:
    firm = await settled_firm("20m")
    firm.make = staff(STAYED)
    await firm.cycle()
    daemon = await a_daemon(firm)
    assert daemon._reading is not None
    before, firm.make = daemon._reading, staff()
    firm.clock.time += timedelta(minutes=20)
    assert await looked(daemon)
    assert daemon._reading.at == firm.clock.time
    assert daemon._reading.directory.everyone != before.directory.everyone


async def test_a_directory_that_was_read_by_a_clock_that_was_ahead_is_read_again() -> None:
    firm = await settled_firm()
    daemon = await a_daemon(firm)
    assert daemon._reading is not None
    firm.clock.time -= timedelta(days=40)
    daemon._open = True
    assert await looked(daemon)
    assert daemon._reading.at == firm.clock.time


@pytest.mark.parametrize("is_live", [True, False])
async def test_who_is_to_be_erased_and_has_to_be_locked_first_is_erased_at_once(*, is_live: bool) -> None:
    firm = await settled_firm()
    firm.make = staff(STAYED)
    await firm.cycle()
    recorded = firm.recorder.recorded
    [entry] = recorded.queue.values()
    firm.recorder.recorded = replace(recorded, queue={entry.user_id: replace(entry, erase_by="boss")})
    firm.accounts.accounts["fay"] = firm.accounts.believed["fay"] = Account("fay")
    daemon = daemon_of(firm, StillMirror(current=is_live))
    assert await looked(daemon)
    if is_live:
        await worked_off(daemon, over=lambda: firm.account("fay") == "erased")
    else:
        await worked_off(daemon, over=lambda: firm.account("fay") == "locked")
        assert daemon._open, "the next look is followed by a cycle"


async def test_an_hour_later_it_is_looked_at_once_more_by_a_clock_that_was_in_doubt() -> None:
    firm = await settled_firm("20m")
    firm.make = staff(STAYED)
    await firm.cycle()
    daemon = await a_daemon(firm)
    firm.clock.time += timedelta(days=10)
    assert await looked(daemon)
    await firm.cycle()
    daemon._last_whole, daemon._open = firm.clock.time, False
    assert firm.account("fay") == "locked"
    firm.clock.time += timedelta(hours=1)
    assert await looked(daemon)
    await firm.cycle()
    assert firm.account("fay") == "erased"


async def test_a_name_that_somebody_changed_is_put_back_when_their_event_arrives() -> None:
    firm = await settled_firm()
    firm.make = staff([replace(a_user("ann"), display_name="Ann"), *STAFF[1:]])
    await firm.cycle()
    assert firm.accounts.accounts["ann"].display_name == "Ann"
    daemon = daemon_of(firm, StillMirror())
    daemon._reading = await daemon._reconciler.read()
    firm.accounts.accounts["ann"] = Account("ann", "The Boss")
    firm.accounts.suspect("ann")
    firm.start()
    daemon.accounts_changed([ANN])
    await worked(daemon)
    assert firm.accounts.accounts["ann"].display_name == "Ann"
    assert [call.arguments for call in firm.line.of("set_display_name")] == [("ann", "Ann")]
    assert daemon._queue.busy == frozenset()


# -- accounts as keys -------------------------------------------------------------------------------------


class Desk:
    """A firm, and its daemon's cycles."""

    def __init__(self, firm: Firm) -> None:
        self.firm, self.queue, self.mirror = firm, Queue(), StillMirror()
        self.reconciler = firm.reconciler()
        self.cycles = Cycles(
            self.reconciler, self.queue, Teller(Metrics()), firm.clock.now, firm.stopping, self.mirror
        )

    async def look_at(self, *keys: str) -> Cycle:
        self.queue.add(keys, self.firm.clock.time)
        taken = self.queue.take(self.firm.clock.time)
        cycle = await self.cycles.rooms(taken, await self.reconciler.read(), asyncio.Event())
        await self.cycles.finish()
        return cycle

    async def whole(self) -> Cycle:
        cycle = await self.cycles.whole(await self.reconciler.read(), asyncio.Event())
        await self.cycles.finish()
        return cycle


async def desk(*gone: str, period: str = "30d") -> Desk:
    firm = await settled_firm(period)
    firm.make = staff([name for name in STAFF if name not in gone])
    return Desk(firm)


def refused_for(name: str) -> Callable[[Call], BaseException | None]:
    def fail(call: Call) -> BaseException | None:
        is_it = call.name == "lock" and call.arguments[0] == name
        return HomeserverRefused("no", status=403) if is_it else None

    return fail


async def test_a_cycle_over_an_account_works_on_that_account_alone() -> None:
    made = await desk("eve", "fay")
    cycle = await made.look_at(FAY)
    assert [outcome.action.identity for outcome in cycle.outcomes] == [f"lock_account {FAY}"]
    assert (made.firm.account("fay"), made.firm.account("eve")) == ("locked", "active")
    assert made.queue.take(made.firm.clock.time) == {mxid("eve"), FAY}, "seen in passing, and once more"


async def test_who_is_back_while_their_lock_waits_its_turn_is_unlocked_at_once() -> None:
    made = await desk("eve", "fay")
    await made.whole()
    made.firm.make = staff()
    assert made.firm.account("fay") == "locked"
    taken = made.queue.take(made.firm.clock.time)
    await made.cycles.rooms(taken, await made.reconciler.read(), asyncio.Event())
    assert (made.firm.account("fay"), made.firm.account("eve")) == ("active", "active")
    assert not made.firm.recorder.recorded.queue
    await made.cycles.finish()
    assert made.queue.take(made.firm.clock.time) == frozenset(), "and that is all"


async def test_an_account_about_which_nothing_is_to_be_done_is_free_again() -> None:
    made = await desk()
    cycle = await made.look_at(ANN, "@nobody:example.com")
    assert (cycle.outcomes, made.queue.busy, made.firm.written()) == ((), frozenset(), [])


async def test_accounts_are_given_free_without_waiting_for_the_mirror() -> None:
    """What was done to them comes back through no room."""
    made = await desk("eve", "fay")
    made.mirror.seen.clear()
    await asyncio.wait_for(made.whole(), 5)
    assert (made.queue.busy, made.mirror.barriers) == (frozenset(), 0)
    assert (made.firm.account("fay"), made.firm.account("eve")) == ("locked", "locked")


async def test_rooms_of_the_same_cycle_are_waited_for() -> None:
    made = await desk("fay")
    made.firm.make = staff(STAYED, lab=["cid"])
    cycle = await made.whole()
    assert {str(outcome.action.type) for outcome in cycle.outcomes} == {"kick", "invite", "lock_account"}
    assert (made.queue.busy, made.mirror.barriers) == (frozenset(), 1)


async def test_an_account_that_fails_waits_alone_and_longer_each_time() -> None:
    made = await desk("eve", "fay")
    made.firm.line.fail = refused_for("fay")
    await made.whole()
    assert (made.firm.account("fay"), made.firm.account("eve")) == ("active", "locked")
    assert made.mirror.stale == [], "no room is in doubt for it"
    assert made.queue.take(made.firm.clock.time) == {mxid("eve")}, "looked at once more"
    assert made.queue.next_due() == made.firm.clock.time + FIRST_PAUSE
    made.firm.clock.time += FIRST_PAUSE
    assert made.queue.take(made.firm.clock.time) == {FAY}
    made.queue.failed(FAY, made.firm.clock.time)
    assert made.queue.next_due() == made.firm.clock.time + 2 * FIRST_PAUSE


async def test_the_time_of_whom_we_could_not_lock_begins_when_they_are() -> None:
    made = await desk("fay", period="1h")
    made.firm.line.fail = refused_for("fay")
    for _ in range(3):
        await made.look_at(FAY)
        made.firm.clock.time += timedelta(hours=1)
    made.firm.line.fail = lambda _: None
    await made.look_at(FAY)
    [entry] = made.firm.recorder.recorded.queue.values()
    assert entry.due_at == made.firm.clock.time + timedelta(hours=1)
    assert made.firm.account("fay") == "locked"


# -- what it says -----------------------------------------------------------------------------------------


async def test_accounts_are_logged_by_their_name_and_no_room() -> None:
    made = await desk("fay")
    with capture_logs() as logs:
        await made.whole()
    [line] = [line for line in logs if line["event"] == "lock_account"]
    assert (line["target"], "room" in line) == (FAY, False)
