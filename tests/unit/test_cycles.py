"""The daemon's cycles over fakes: each room is worked on by one cycle at a time, and fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from aim.daemon.cycles import Cycles
from aim.daemon.queue import FIRST_PAUSE, Queue
from aim.daemon.telling import Teller
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.ops.metrics import Metrics
from aim.planner.fights import MOST
from aim.reconciler import Cycle, Reading
from tests.unit.fakes import Call
from tests.unit.model import BOT, SERVER, ModelRoom, mxid
from tests.unit.test_reconciler import STAFF, Deployment, settled

EVE = mxid("eve")
MINUTE = timedelta(minutes=1)


@dataclass
class StillMirror:
    """A mirror that has always seen everything; counts what it is asked."""

    current: bool = True
    has_to_look_around: bool = False
    barriers: int = 0
    stale: list[str] = field(default_factory=list)
    failing: bool = False
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.seen.set()

    async def begin(self) -> None: ...

    async def barrier(self) -> bool:
        self.barriers += 1
        await self.seen.wait()
        if self.failing:
            raise HomeserverUnavailable("no answer")
        return True

    async def verify_next(self, interval: timedelta) -> None: ...

    async def poll_accounts(self, wanted: Collection[str]) -> bool:
        return False

    def mark_stale(self, room_id: str) -> None:
        self.stale.append(room_id)

    def key_of(self, room_id: str) -> str | None:
        return None


class Bench:
    """A deployment, its daemon's cycles, and the directory in force."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.queue, self.mirror = Queue(), StillMirror()
        self.reconciler = deployment.reconciler()
        self.cycles = Cycles(
            self.reconciler,
            self.queue,
            Teller(Metrics()),
            deployment.clock.now,
            deployment.stopping,
            self.mirror,
        )

    async def reading(self) -> Reading:
        return await self.reconciler.read()

    async def rooms(self, *keys: str) -> Cycle:
        """An event came for these rooms, and a cycle over them follows."""
        self.queue.add(keys, self.deployment.clock.time)
        taken = self.queue.take(self.deployment.clock.time)
        cycle = await self.cycles.rooms(taken, await self.reading(), asyncio.Event())
        await self.cycles.finish()
        return cycle

    async def whole(self) -> Cycle:
        cycle = await self.cycles.whole(await self.reading(), asyncio.Event())
        await self.cycles.finish()
        return cycle

    def intrude(self, *keys: str) -> None:
        """Eve, who works elsewhere, gets into these rooms."""
        for key in keys:
            [room] = self.deployment.homeserver.by_key(key)
            self.deployment.homeserver.invite(room.room_id, EVE)


async def bench() -> Bench:
    return Bench(await settled())


def kicks(cycle: Cycle) -> list[tuple[str, str | None]]:
    return [(outcome.action.room, outcome.action.target) for outcome in cycle.outcomes]


async def test_a_cycle_over_a_room_works_on_that_room_alone() -> None:
    made = await bench()
    made.intrude("lab", "lab/talk")

    cycle = await made.rooms("lab")

    assert kicks(cycle) == [("lab", EVE)]
    assert EVE in made.deployment.members("lab/talk")
    assert made.queue.busy == frozenset()
    assert made.queue.take(made.deployment.clock.time) == {"lab/talk"}, "seen in passing"
    made.queue.done("lab/talk")
    assert kicks(await made.rooms("lab/talk")) == [("lab/talk", EVE)]


async def test_who_was_asked_into_a_room_that_is_not_ours_is_looked_for() -> None:
    made = await bench()
    homeserver = made.deployment.homeserver
    [lab] = homeserver.by_key("lab")
    theirs = homeserver.add(ModelRoom("!theirs:example.com", "", is_space=False, has_bot=False))
    theirs.members[mxid(STAFF[0])] = "join"
    theirs.state["m.room.join_rules", ""] = {"join_rule": "public"}
    lab.state["m.space.child", theirs.room_id] = {"via": [SERVER]}
    lab.adders[theirs.room_id] = mxid(STAFF[0])

    cycle = await made.rooms(theirs.room_id)

    assert {outcome.action.type for outcome in cycle.outcomes} == {"invite"}
    assert made.mirror.stale == [theirs.room_id] * len(cycle.outcomes)


async def test_where_nothing_differs_nothing_is_written() -> None:
    made = await bench()
    cycle = await made.rooms("lab", "all", "no such room")
    assert (cycle.outcomes, made.deployment.written(), made.mirror.barriers) == ((), [], 0)
    assert made.queue.busy == frozenset()


async def test_a_cycle_over_everything_leaves_out_what_others_work_on() -> None:
    made = await bench()
    made.intrude("lab", "lab/talk")
    made.queue.occupy(["lab"])

    cycle = await made.whole()

    assert kicks(cycle) == [("lab/talk", EVE)]
    made.queue.done("lab")
    assert made.queue.take(made.deployment.clock.time) == {"lab"}, "it is looked at again"


async def test_a_failing_room_waits_alone_and_is_read_again() -> None:
    made = await bench()
    made.intrude("lab", "lab/talk")
    [lab] = made.deployment.homeserver.by_key("lab")

    def refuse(call: Call) -> BaseException | None:
        is_it = call.name == "kick" and call.arguments[0] == lab.room_id
        return HomeserverRefused("no", status=403) if is_it else None

    made.deployment.line.fail = refuse
    await made.rooms("lab", "lab/talk")

    assert EVE not in made.deployment.members("lab/talk")
    assert made.mirror.stale == [lab.room_id]
    assert made.queue.next_due() == made.deployment.clock.time + FIRST_PAUSE
    made.deployment.line.fail = lambda _: None
    made.deployment.clock.time += FIRST_PAUSE
    assert kicks(await made.rooms("lab")) == [("lab", EVE)]
    assert made.queue.next_due() is None


async def test_a_room_is_free_again_only_when_the_mirror_has_seen_what_was_done() -> None:
    made = await bench()
    made.intrude("lab")
    made.mirror.seen.clear()
    made.queue.add(["lab"], made.deployment.clock.time)
    taken = made.queue.take(made.deployment.clock.time)
    await made.cycles.rooms(taken, await made.reading(), asyncio.Event())
    assert made.queue.busy == {"lab"}
    made.mirror.seen.set()
    await made.cycles.finish()
    assert (made.queue.busy, made.mirror.barriers) == (frozenset(), 1)


async def test_a_room_that_was_taken_over_is_looked_at_once_more() -> None:
    """Nothing was heard from it before the bot was in: the next look reads it."""
    made = await bench()
    [talk] = made.deployment.homeserver.by_key("lab/talk")
    talk.version, talk.members[mxid("ann")] = "11", "join"
    talk.levels["events"] = {**talk.levels["events"], "m.room.tombstone": 100}
    talk.levels["users"] = {BOT: 50, mxid("ann"): 100}

    cycle = await made.rooms("lab/talk")

    assert cycle.outcomes[0].action.type == "take_control"
    assert made.queue.next_due() == made.deployment.clock.time
    assert (await made.rooms("lab/talk")).outcomes == ()
    assert made.queue.next_due() is None


async def test_a_mirror_that_fails_does_not_keep_a_room_for_ever() -> None:
    made = await bench()
    made.mirror.failing = True
    made.intrude("lab")
    await made.rooms("lab")
    assert made.queue.busy == frozenset()


async def test_what_fails_as_a_whole_is_tried_again() -> None:
    made = await bench()
    made.deployment.line.fail = lambda call: HomeserverUnavailable("down") if call.name == "observe" else None
    with pytest.raises(HomeserverUnavailable):
        await made.rooms("lab", "all")
    assert made.queue.busy == frozenset()
    made.deployment.clock.time += FIRST_PAUSE
    assert made.queue.take(made.deployment.clock.time) == {"lab", "all"}


async def test_a_fight_slows_down_and_nobody_elses_correction_waits() -> None:
    made = await bench()
    for _ in range(MOST + 1):
        made.intrude("lab")
        assert kicks(await made.rooms("lab")) == [("lab", EVE)]
        made.deployment.clock.time += timedelta(seconds=1)
    made.intrude("lab", "lab/talk")
    [room] = made.deployment.homeserver.by_key("lab")
    made.deployment.homeserver.invite(room.room_id, mxid("fay"))

    cycle = await made.rooms("lab", "lab/talk")

    assert sorted(kicks(cycle)) == [("lab", mxid("fay")), ("lab/talk", EVE)]
    assert EVE in made.deployment.members("lab")
    due = made.queue.next_due()
    assert due is not None
    assert timedelta(0) < due - made.deployment.clock.time < MINUTE
    made.deployment.clock.time = due
    taken = made.queue.take(due)
    await made.cycles.rooms(taken, await made.reading(), asyncio.Event())
    assert EVE not in made.deployment.members("lab"), "it never stops"


async def test_what_is_postponed_is_not_forgotten_by_a_cycle_over_everything_that_takes_its_room() -> None:
    made = await bench()
    for _ in range(MOST + 1):
        made.intrude("lab")
        await made.rooms("lab")
        made.deployment.clock.time += timedelta(seconds=1)
    made.intrude("lab")
    [room] = made.deployment.homeserver.by_key("lab")
    made.deployment.homeserver.invite(room.room_id, mxid("fay"))

    cycle = await made.whole()

    assert kicks(cycle) == [("lab", mxid("fay"))]
    assert EVE in made.deployment.members("lab")
    due = made.queue.next_due()
    assert due is not None
    assert timedelta(0) < due - made.deployment.clock.time < MINUTE
    made.deployment.clock.time = due
    taken = made.queue.take(due)
    await made.cycles.rooms(taken, await made.reading(), asyncio.Event())
    assert EVE not in made.deployment.members("lab")


async def test_stopping_leaves_the_rest() -> None:
    made = await bench()
    made.intrude("lab")
    made.deployment.stopping.set()
    await made.rooms("lab")
    assert EVE in made.deployment.members("lab")


def test_the_staff_is_who_the_tests_think() -> None:
    assert {"eve", "fay"} <= set(STAFF)


async def test_rooms_of_one_cycle_are_given_free_together() -> None:
    made = await bench()
    made.intrude("lab", "lab/talk")
    cycle = await made.whole()
    assert sorted(kicks(cycle)) == [("lab", EVE), ("lab/talk", EVE)]
    assert (made.queue.busy, made.mirror.barriers) == (frozenset(), 1)
