"""The executor over a model homeserver: what is called, in which order, and what becomes of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from aim.errors import HomeserverRefused, HomeserverUnavailable, StoreError
from aim.planner.actions import AbandonSpace, AnyAction, Invite, Join, Kick, ReleaseRoom, TakeControl
from aim.planner.plan import Plan
from aim.ports import NewRoom, Outcome, OutcomeStatus
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.world.recorded import Done, RecordedRoom
from tests.unit.fakes import WRITES, Call, Clock, FakeRecorder, FakeWriter, Line, lost_answer
from tests.unit.model import BOT, CHILD, INSTANCE, LEVELS, PARENT, SERVER, ModelHomeserver, ModelRoom, mxid
from tests.unit.strategies import examples, scenes
from tests.unit.test_control import adopted
from tests.unit.worlds import (
    NOW,
    Scene,
    a_config,
    a_directory,
    a_room,
    a_scene,
    a_space,
    cycle,
    provisioned,
    room_id_of,
)

DONE, FAILED = OutcomeStatus.DONE, OutcomeStatus.FAILED
SKIPPED, HELD = OutcomeStatus.SKIPPED, OutcomeStatus.HELD


@dataclass
class Stage:
    """A scene, brought to life."""

    scene: Scene
    parallelism: int = 16
    line: Line = field(default_factory=Line)
    clock: Clock = field(default_factory=Clock)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.homeserver = ModelHomeserver.from_observed(self.scene.observed, self.scene.roster)
        self.recorder = FakeRecorder.of(self.scene, self.line)
        self.executor = Provisioner(
            Tools(
                writer=FakeWriter(self.homeserver, self.line),
                recorder=self.recorder,
                now=self.clock.now,
                server_name=SERVER,
                bot=BOT,
                instance=INSTANCE,
                parallelism=self.parallelism,
                sleep=self.clock.sleep,
            )
        )

    async def execute(self, plan: Plan | None = None) -> dict[str, Outcome]:
        """Outcomes by identity, checked to be one for each action, in order, each told once."""
        plan = plan or self.scene.plan()
        outcomes = await self.executor.execute(
            plan,
            self.scene.desired,
            {key: room.room_id for key, room in self.scene.observed.rooms.items()},
            self.stopping,
            self.told.append,
        )
        assert [outcome.action.identity for outcome in outcomes] == [
            action.identity for action in plan.actions
        ]
        assert all((outcome.message == "") == (outcome.status is DONE) for outcome in outcomes)
        told = [outcome.action.identity for outcome in self.told]
        assert sorted(told) == sorted(action.identity for action in plan.due)
        return {outcome.action.identity: outcome for outcome in outcomes}

    def after(self) -> Scene:
        """The scene as it is now."""
        known = {key: room.room_id for key, room in self.recorder.recorded.rooms.items()}
        return replace(self.scene, observed=self.homeserver.observe(self.scene.roster, known))

    def writes(self) -> list[str]:
        return [call.name for call in self.line.of(*WRITES)]

    def created(self) -> list[NewRoom]:
        return [new_room(call) for call in self.line.of("create_room")]


def new_room(call: Call) -> NewRoom:
    """What a createRoom was asked to make."""
    found = call.arguments[0]
    assert isinstance(found, NewRoom)
    return found


def statuses(outcomes: dict[str, Outcome], kind: str) -> set[OutcomeStatus]:
    return {outcome.status for outcome in outcomes.values() if outcome.action.type == kind}


def failing(name: str, error: Exception) -> Callable[[Call], BaseException | None]:
    """Every call of that name fails."""
    return lambda call: error if call.name == name else None


REFUSED = HomeserverRefused("not allowed", status=403, errcode="M_FORBIDDEN")
AWAY = HomeserverUnavailable("no answer from the homeserver")
PEOPLE = [f"e{number:03}" for number in range(60)]


def company(people: Iterable[str] = PEOPLE, mods: Iterable[str] = ("e000",), **more: Any) -> Scene:
    config = a_config(a_space("all", "", ("mods", 50)), **more)
    return a_scene(config, a_directory(people, {"mods": mods}))


# -- a new room -----------------------------------------------------------------------------------


async def test_one_request_makes_a_room_with_state_levels_and_fifty_invites() -> None:
    stage = Stage(company(default_rooms=[{"id": "talk", "properties": {"topic": "Hello"}}]))
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    space, room = stage.created()
    assert (space.key, space.is_space, space.name) == ("all", True, "All")
    assert space.power_levels["users"] == {mxid("e000"): 50}
    assert space.power_levels["state_default"] == 50
    assert list(space.invite) == [mxid(name) for name in PEOPLE[:50]]
    state = {(event["type"], event["state_key"]): event["content"] for event in room.state}
    [space_id] = [made.room_id for made in stage.homeserver.by_key("all")]
    assert state["m.room.topic", ""] == {"topic": "Hello"}
    assert state[PARENT, space_id] == {"via": [SERVER], "canonical": True}
    assert state["m.room.join_rules", ""] == {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": space_id}],
    }
    # Two rooms, ten more invites in each, and the child: nothing else.
    assert sorted(stage.writes()) == ["create_room"] * 2 + ["invite"] * 20 + ["put_state"]


async def test_a_room_is_recorded_with_its_properties_once_it_is_made() -> None:
    stage = Stage(company(["ann"], []))
    await stage.execute()
    names = stage.line.names()
    assert names == ["intend_room", "create_room", "record_room"]
    assert stage.recorder.intents == {}
    recorded = stage.recorder.recorded.rooms["all"]
    assert recorded.properties == {"m.room.name": {"name": "All"}, "suggested": False}


async def test_children_are_made_after_their_parents_and_added_once_they_exist() -> None:
    # By name the subspace comes first.
    config = a_config(a_space("z", "", subspaces=[a_space("a", "g", subspaces=[a_space("0", "g")])]))
    stage = Stage(a_scene(config, a_directory(["ann"], {"g": ["ann"]})))
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert [room.key for room in stage.created()] == ["z", "a", "0"]
    assert cycle(stage.scene).observed.rooms.keys() == stage.after().observed.rooms.keys()


@pytest.mark.parametrize("parallelism", [1, 2, 3])
async def test_rooms_never_wait_for_each_other_with_the_gate_in_hand(parallelism: int) -> None:
    before = provisioned(
        a_config(*(a_space(f"s{number}", "") for number in range(4))), a_directory(["ann", "bob"])
    )
    config = a_config(
        *(a_space(f"s{number}", "") for number in range(4)), default_rooms=[{"id": "r"}, {"id": "q"}]
    )
    stage = Stage(replace(before, config=config), parallelism)
    outcomes = await asyncio.wait_for(stage.execute(), 10)
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert len(stage.homeserver.rooms) == 12


def joins_of(before: Mapping[str, str]) -> tuple[Scene, list[Join]]:
    """Spaces, each with a join of ann's: space → the one whose join is to come first."""
    scene = provisioned(a_config(*(a_space(key, "") for key in before)), a_directory(["ann", "bob"]))
    joins = [
        Join(
            room=key,
            space=key,
            room_id=scene.observed.rooms[key].room_id,
            person=mxid("ann"),
            needs_invite=False,
            reason="",
            after=(f"join {other} {mxid('ann')}",) if other else (),
        )
        for key, other in before.items()
    ]
    for key in before:
        scene = scene.with_room(key, joined=["bob"], invited=["ann"])
    return scene, joins


@pytest.mark.parametrize(
    ("before", "skipped"),
    [
        ({"a": "b", "b": "a"}, {"a", "b"}),
        ({"a": "b", "b": "c", "c": "a", "d": ""}, {"a", "b", "c"}),
        ({"a": "a"}, {"a"}),
        ({"a": "b", "b": "c", "c": ""}, set()),
    ],
)
async def test_actions_that_wait_for_each_other_are_skipped(
    before: dict[str, str], skipped: set[str]
) -> None:
    scene, joins = joins_of(before)
    outcomes = await asyncio.wait_for(Stage(scene).execute(only(*joins)), 10)
    assert {key for key in before if outcomes[f"join {key} {mxid('ann')}"].status is SKIPPED} == skipped
    assert {outcome.status for outcome in outcomes.values()} <= {SKIPPED, DONE}


async def test_rooms_may_wait_for_each_other_in_turn() -> None:
    scene, (first, second) = joins_of({"a": "", "b": "a"})
    third = replace(first, person=mxid("bob"), after=(second.identity,))
    fourth = replace(second, person=mxid("bob"), after=(third.identity,))
    scene = scene.with_room("a", invited=["ann", "bob"], joined=[])
    scene = scene.with_room("b", invited=["ann", "bob"], joined=[])
    outcomes = await asyncio.wait_for(Stage(scene).execute(only(first, third, second, fourth)), 10)
    assert {outcome.status for outcome in outcomes.values()} == {DONE}


async def test_no_more_requests_at_once_than_allowed() -> None:
    stage = Stage(company(default_rooms=[{"id": f"r{number}"} for number in range(5)]), parallelism=2)
    running = [0, 0]
    take, give = stage.line.take, stage.line.give

    async def counted_take(name: str, *arguments: object) -> Call:
        if name in WRITES:
            running[0] += 1
            running[1] = max(running)
        return await take(name, *arguments)

    async def counted_give(call: Call) -> None:
        await give(call)
        if call.name in WRITES:
            running[0] -= 1

    stage.line.take, stage.line.give = counted_take, counted_give  # type: ignore[method-assign] # to watch it
    await stage.execute()
    assert running[1] == 2


# -- a room that exists ---------------------------------------------------------------------------


def restructured() -> Scene:
    """Somebody new, somebody gone, one up, one down, a new name, and the guarding levels lost."""
    config = a_config(a_space("all", "staff", ("mods", 50)))
    scene = provisioned(
        config, a_directory(["ann", "bob", "cid"], {"staff": ["ann", "bob"], "mods": ["ann"]})
    )
    room = scene.observed.rooms["all"]
    base = {**room.power_levels.base, "ban": 0}
    scene = scene.with_room("all", power_levels=replace(room.power_levels, base=base))
    return replace(
        scene,
        config=a_config(a_space("all", "staff", ("mods", 50), name="Everybody")),
        directory=a_directory(
            ["ann", "bob", "cid"], {"staff": ["ann", "cid"], "mods": ["cid"]}, roster=scene.roster
        ),
    )


async def test_the_levels_of_a_room_are_one_write_and_come_before_the_rest() -> None:
    stage = Stage(restructured())
    await stage.execute()
    room_id = stage.scene.observed.rooms["all"].room_id
    [levels] = stage.line.of("change_power_levels")
    assert levels.arguments[0] == room_id
    assert isinstance(levels.arguments[1], dict)
    assert levels.arguments[1]["ban"] == 50
    assert levels.arguments[2] == {mxid("ann"): 0, mxid("cid"): 50}
    assert stage.writes() == ["change_power_levels", "put_state", "kick", "invite"]
    assert stage.after().plan().due == ()


async def test_a_destructive_action_is_recorded_before_it_is_tried_and_an_uncounted_one_is_not() -> None:
    scene = restructured()
    room = scene.observed.rooms["all"]
    stage = Stage(scene.with_room("all", joined=[*scene.roster.localparts(room.joined), "eve"]))
    await stage.execute()
    calls = stage.line.of("record_done", "kick", "change_power_levels")
    dones = {done.identity: done for done in stage.recorder.recorded.done}
    assert dones == {
        "kick all @bob:example.com": Done("kick all @bob:example.com", "kicks", "all", "bob", NOW),
        "set_power_level all @ann:example.com 0": Done(
            "set_power_level all @ann:example.com 0", "demotions", "all", "ann", NOW
        ),
    }
    names = [call.name for call in calls]
    # Demotion, then the guarded kick, each after its record; eve was never entitled.
    assert names == ["record_done", "change_power_levels", "record_done", "kick", "kick"]
    assert stage.homeserver.rooms[room.room_id].members[mxid("eve")] == "leave"


async def test_what_is_held_is_never_called() -> None:
    before = provisioned(a_config(a_space("all", "")), a_directory(PEOPLE))
    stage = Stage(replace(before, directory=a_directory(["e000", "new"], roster=before.roster)))
    outcomes = await stage.execute()
    assert statuses(outcomes, "kick") == {HELD}
    assert len(outcomes) == 59
    assert stage.writes() == []


async def test_a_space_that_moves_gets_its_new_parent_and_loses_the_old_one() -> None:
    names = {"g": ["ann"]}
    before = provisioned(
        a_config(a_space("a", "", subspaces=[a_space("c", "g")]), a_space("b", "")),
        a_directory(["ann"], names),
    )
    config = a_config(a_space("a", ""), a_space("b", "", subspaces=[a_space("c", "g")]))
    stage = Stage(replace(before, config=config))
    await stage.execute()
    ids = {key: room.room_id for key, room in before.observed.rooms.items()}
    moved = stage.homeserver.rooms[ids["c"]]
    assert moved.state[PARENT, ids["a"]] == {}
    assert moved.state[PARENT, ids["b"]] == {"via": [SERVER], "canonical": True}
    assert stage.homeserver.rooms[ids["a"]].children() == set()
    assert stage.homeserver.rooms[ids["b"]].children() == {ids["c"]}


async def test_a_space_that_moves_under_a_new_one_names_it_as_its_parent() -> None:
    before = provisioned(a_config(a_space("c", "")), a_directory(["ann"]))
    stage = Stage(replace(before, config=a_config(a_space("top", "", subspaces=[a_space("c", "")]))))
    await stage.execute()
    [top] = stage.homeserver.by_key("top")
    [moved] = stage.homeserver.by_key("c")
    assert moved.state[PARENT, top.room_id] == {"via": [SERVER], "canonical": True}
    assert top.children() == {moved.room_id}


@pytest.mark.parametrize("broken", ["m.space.parent", "m.space.child"])
async def test_a_move_that_breaks_off_between_its_two_requests_is_done_again(broken: str) -> None:
    before = provisioned(
        a_config(a_space("a", "", subspaces=[a_space("c", "")]), a_space("b", "")), a_directory(["ann"])
    )
    moved = replace(before, config=a_config(a_space("a", ""), a_space("b", "", subspaces=[a_space("c", "")])))
    stage = Stage(moved)
    stage.line.fail = lambda call: AWAY if call.name == "put_state" and broken in call.arguments else None
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {FAILED}
    again = {action.identity for action in stage.after().plan().due}
    assert again == {"add_child b c", "remove_child a c"}


async def test_suggesting_is_a_change_of_the_child() -> None:
    def config(*, suggested: bool) -> Any:
        return a_config(a_space("a", ""), default_rooms=[{"id": "r", "properties": {"suggested": suggested}}])

    before = provisioned(config(suggested=False), a_directory(["ann"]))
    stage = Stage(replace(before, config=config(suggested=True)))
    await stage.execute()
    [space] = stage.homeserver.by_key("a")
    [room] = stage.homeserver.by_key("a/r")
    assert space.state[CHILD, room.room_id]["suggested"] is True


# -- failures -------------------------------------------------------------------------------------


async def test_one_failure_does_not_stop_the_others() -> None:
    stage = Stage(restructured())
    stage.line.fail = failing("kick", REFUSED)
    outcomes = await stage.execute()
    assert outcomes["kick all @bob:example.com"] == Outcome(
        outcomes["kick all @bob:example.com"].action, FAILED, "not allowed"
    )
    assert {o.status for identity, o in outcomes.items() if not identity.startswith("kick")} == {DONE}


async def test_levels_that_fail_fail_together() -> None:
    stage = Stage(restructured())
    stage.line.fail = failing("change_power_levels", AWAY)
    outcomes = await stage.execute()
    assert statuses(outcomes, "set_power_level") == {FAILED}
    assert outcomes[f"set_room_state all {LEVELS}"].status is FAILED
    assert outcomes["set_room_state all m.room.name"].status is DONE


async def test_what_depends_on_a_failed_room_is_skipped_and_says_why() -> None:
    stage = Stage(company(["ann"], ["ann"], default_rooms=[{"id": "talk"}]))
    stage.line.fail = failing("create_room", REFUSED)
    outcomes = await stage.execute()
    assert outcomes["create_space all"].status is FAILED
    others = [outcome for identity, outcome in outcomes.items() if identity != "create_space all"]
    assert {outcome.status for outcome in others} == {SKIPPED}
    assert outcomes["create_room all/talk"].message == "depends on the space all, which does not exist"
    assert outcomes[f"invite all {mxid('ann')}"].message == "depends on the room all, which does not exist"
    assert len(stage.line.of("create_room")) == 1


async def test_a_space_goes_on_without_the_room_that_failed() -> None:
    stage = Stage(company(["ann"], default_rooms=[{"id": "good"}, {"id": "bad"}]))
    stage.line.fail = lambda call: (
        REFUSED if call.name == "create_room" and new_room(call).key == "all/bad" else None
    )
    outcomes = await stage.execute()
    assert outcomes["add_child all all/good"].status is DONE
    assert outcomes["add_child all all/bad"].status is SKIPPED
    assert "all/bad" in outcomes["add_child all all/bad"].message
    [space] = stage.homeserver.by_key("all")
    assert len(space.children()) == 1


async def test_a_create_whose_answer_was_lost_is_looked_for_and_not_repeated() -> None:
    stage = Stage(company())
    stage.line.lose = lost_answer("create_room")
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert len(stage.homeserver.rooms) == 1
    assert len(stage.created()) == 1
    # Which invites went along nobody knows: all are made sure of, one by one.
    assert len(stage.line.of("invite")) == len(PEOPLE)
    assert stage.recorder.recorded.rooms["all"].room_id in stage.homeserver.rooms
    assert stage.recorder.intents == {}


async def test_a_create_that_may_be_under_way_is_waited_for() -> None:
    stage = Stage(company(["ann"]))
    stage.line.fail = lost_answer("create_room")
    late: list[NewRoom] = []

    def arrives(call: Call) -> BaseException | None:
        # The request that seemed lost is carried out half a minute later.
        if call.name == "create_room":
            late.append(new_room(call))
            return HomeserverUnavailable("timed out", maybe_done=True)
        if call.name == "find_by_marker" and late and stage.clock.time - NOW > timedelta(seconds=30):
            stage.homeserver.create_room(late.pop())
        return None

    stage.line.fail = arrives
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert len(stage.homeserver.rooms) == 1


async def test_a_create_that_never_happened_fails_and_keeps_its_intent() -> None:
    stage = Stage(company(["ann"]))
    stage.line.fail = lost_answer("create_room")
    outcomes = await stage.execute()
    assert outcomes["create_space all"].status is FAILED
    assert stage.clock.time - NOW >= timedelta(seconds=60)
    assert stage.recorder.intents == {"all": NOW}
    assert "all" not in stage.recorder.recorded.rooms


async def test_no_answer_that_can_mean_a_room_is_not_looked_for() -> None:
    stage = Stage(company(["ann"]))
    stage.line.fail = failing("create_room", AWAY)
    outcomes = await stage.execute()
    assert outcomes["create_space all"].message == "no answer from the homeserver"
    assert stage.line.of("find_by_marker") == []


async def test_a_refused_create_that_left_its_room_behind_is_taken_up() -> None:
    stage = Stage(company())
    stage.line.lose = failing("create_room", HomeserverRefused("an invite failed", status=502))
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert len(stage.homeserver.rooms) == 1
    assert len(stage.line.of("invite")) == len(PEOPLE)
    assert stage.clock.time == NOW


# -- stopping -------------------------------------------------------------------------------------


async def test_when_asked_to_stop_what_is_under_way_is_finished_and_the_rest_skipped() -> None:
    stage = Stage(company(default_rooms=[{"id": "talk"}]))

    def stop(call: Call) -> None:
        if call.name == "create_room":
            stage.stopping.set()

    stage.line.fail = stop
    outcomes = await stage.execute()
    assert outcomes["create_space all"].status is DONE
    assert outcomes["create_room all/talk"] == Outcome(
        outcomes["create_room all/talk"].action, SKIPPED, "asked to stop"
    )
    assert outcomes[f"invite all {mxid('e059')}"].status is SKIPPED
    assert stage.recorder.recorded.rooms.keys() == {"all"}
    assert stage.line.of("invite") == []


async def test_asked_to_stop_before_it_began_nothing_is_done() -> None:
    stage = Stage(restructured())
    stage.stopping.set()
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {SKIPPED}
    assert stage.line.calls == []


@pytest.mark.parametrize("call", ["record_done", "record_room", "intend_room"])
async def test_a_database_that_fails_ends_the_work_at_once(call: str) -> None:
    scene = restructured()
    config = a_config(
        *(space.model_dump(by_alias=False) for space in scene.config.spaces), a_space("new", "")
    )
    stage = Stage(replace(scene, config=config))
    stage.line.fail = failing(call, StoreError("the database is gone"))
    with pytest.raises(StoreError, match="the database is gone"):
        await stage.execute()
    if call == "record_done":
        assert stage.line.of("kick") == []
    if call == "intend_room":
        assert stage.line.of("create_room") == []


# -- intents of an earlier process ----------------------------------------------------------------


async def test_an_old_intent_is_looked_for_once() -> None:
    stage = Stage(company(["ann"]))
    await stage.executor.settle({"all": NOW - timedelta(hours=1)}, [])
    assert stage.line.names() == ["find_by_marker"]
    assert stage.clock.time == NOW


async def test_a_fresh_intent_is_waited_for_as_long_as_it_can_be_under_way() -> None:
    stage = Stage(company(["ann"]))
    await stage.executor.settle({"all": NOW - timedelta(seconds=20)}, [])
    assert timedelta(seconds=40) <= stage.clock.time - NOW < timedelta(seconds=46)


async def test_an_intent_whose_room_is_there_is_not_waited_for() -> None:
    stage = Stage(provisioned(a_config(a_space("all", "")), a_directory(["ann"])))
    await stage.executor.settle({"all": NOW}, [])
    assert stage.clock.time == NOW


# -- all in all -----------------------------------------------------------------------------------


@examples(80)
@given(scenes())
async def test_the_executor_does_what_the_plan_says(scene: Scene) -> None:
    approved = scene.approve(scene.plan())
    plan = approved.plan()
    stage = Stage(approved, parallelism=3)
    outcomes = await stage.execute(plan)
    assert {outcome.status for outcome in outcomes.values()} <= {DONE}
    after = cycle(approved)
    for call in stage.line.of("record_room"):
        [room] = call.arguments
        assert isinstance(room, RecordedRoom)
        assert stage.recorder.recorded.rooms[room.key] == after.recorded.rooms[room.key]
    wanted, found = after.observed, stage.after().observed
    assert {key: replace(room, created_ts=0) for key, room in found.rooms.items()} == {
        key: replace(room, created_ts=0) for key, room in wanted.rooms.items()
    }


# -- acting as people -----------------------------------------------------------------------------


def with_equals(version: str = "11", **room: Any) -> Scene:
    """Two people have the bot's own level; one of them lost the right to be there."""
    scene = provisioned(company().config, a_directory(["ann", "bob", "eve"], {"mods": ["ann"]}))
    space = a_room(
        scene.roster,
        "all",
        ["ann", "bob", "eve", "fay"],
        version=version,
        levels={"bob": 100, "eve": 100},
        **room,
    )
    directory = a_directory(["ann", "bob", "fay"], {"mods": ["ann"]}, roster=scene.roster)
    scene = replace(scene, directory=directory)
    return replace(scene, observed=replace(scene.observed, rooms={"all": space}))


async def test_who_is_not_below_the_bot_acts_after_the_one_write_of_levels() -> None:
    stage = Stage(with_equals())
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert [call.name for call in stage.line.of(*WRITES, "record_caused")] == [
        "change_power_levels",
        "lower_own_level",
        "lower_own_level",
        "record_caused",
        "leave",
    ]
    [change] = stage.line.of("change_power_levels")
    assert change.arguments[2] == {mxid("ann"): 50}
    assert stage.recorder.caused == {room_id_of("all"): {"eve"}}
    assert stage.after().plan().actions == ()


async def test_killed_before_they_leave_it_is_known_that_we_are_the_cause() -> None:
    stage = Stage(with_equals())
    stage.line.fail = lambda call: StoreError("the database is gone", "x") if call.name == "leave" else None
    with pytest.raises(StoreError):
        await stage.execute()
    assert stage.recorder.caused == {room_id_of("all"): {"eve"}}


def joined_scene() -> Scene:
    return company(["ann", "bob"], [], membership="join", default_rooms=[{"id": "talk"}])


async def test_people_are_joined_to_a_new_space_and_then_without_invites_to_its_rooms() -> None:
    stage = Stage(joined_scene())
    outcomes = await stage.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    space, room = stage.created()
    assert (list(space.invite), list(room.invite)) == ([mxid("ann"), mxid("bob")], [])
    joins = [call.arguments for call in stage.line.of("join")]
    space_id, room_id = (stage.homeserver.by_key(key)[0].room_id for key in ("all", "all/talk"))
    assert sorted(joins) == sorted(
        (id_, mxid(name)) for id_ in (space_id, room_id) for name in ("ann", "bob")
    )
    assert joins.index((space_id, mxid("bob"))) < joins.index((room_id, mxid("bob")))
    assert stage.line.of("invite") == []
    assert stage.after().plan().actions == ()


async def test_who_could_not_join_the_space_is_not_joined_to_its_rooms() -> None:
    stage = Stage(joined_scene())
    stage.line.fail = lambda call: (
        REFUSED if call.name == "join" and call.arguments[1] == mxid("ann") else None
    )
    outcomes = await stage.execute()
    assert outcomes[f"join all {mxid('ann')}"].status is FAILED
    skipped = outcomes[f"join all/talk {mxid('ann')}"]
    assert (skipped.status, skipped.message) == (
        SKIPPED,
        f"depends on “join all {mxid('ann')}”, which failed",
    )
    assert outcomes[f"join all/talk {mxid('bob')}"].status is DONE


async def test_a_join_that_rests_on_one_outside_the_plan_is_skipped() -> None:
    plan = joined_scene().plan()
    part = replace(
        plan,
        actions=tuple(action for action in plan.actions if action.type != "join" or action.room != "all"),
    )
    outcomes = await Stage(joined_scene()).execute(part)
    assert outcomes[f"join all/talk {mxid('ann')}"].message.endswith("which is not done yet")


@pytest.mark.parametrize("parallelism", [1, 2, 16])
async def test_joins_never_wait_with_the_gate_in_hand(parallelism: int) -> None:
    stage = Stage(joined_scene(), parallelism=parallelism)
    outcomes = await asyncio.wait_for(stage.execute(), 10)
    assert {outcome.status for outcome in outcomes.values()} == {DONE}


# -- rooms that change hands ----------------------------------------------------------------------

GIVEN_UP: dict[str, Any] = {
    "room": "all",
    "space": "all",
    "room_id": room_id_of("all"),
    "reason": "no longer configured",
}


def only(*actions: AnyAction) -> Plan:
    return replace(company().plan(), actions=actions)


async def test_a_release_gives_levels_back_empties_the_marker_and_leaves_last() -> None:
    stage = Stage(with_equals(creator=mxid("ann"), taken_over=True))
    release = ReleaseRoom(**GIVEN_UP, restore={mxid("ann"): 60}, tombstone_level=50)
    await stage.execute(only(release))
    assert [call.name for call in stage.line.calls] == [
        "record_done",
        "change_power_levels",
        "put_state",
        "leave",
    ]
    room = stage.homeserver.rooms[room_id_of("all")]
    assert (room.key, room.has_bot, room.rank(mxid("ann"))) == ("", False, 60)
    [done] = stage.recorder.recorded.done
    assert (done.kind, done.space, done.person) == ("releases", "all", "all")


@pytest.mark.parametrize("of_people", [False, True])
async def test_a_release_that_breaks_off_is_known_as_long_as_the_bot_is_in(*, of_people: bool) -> None:
    """The marker tells of a room that we made; of another one, whose marker is emptied, the record."""
    room_id = room_id_of("all")
    stage = Stage(with_equals(creator=mxid("ann") if of_people else BOT, taken_over=of_people))
    key = room_id if of_people else "all"
    release = ReleaseRoom(**{**GIVEN_UP, "room": key, "space": "given up"})
    stage.line.fail = failing("leave", AWAY)
    outcomes = await stage.execute(only(release))
    assert outcomes[release.identity].status is FAILED
    calls = [call.name for call in stage.line.calls if call.name in {"forget_room", "leave"}]
    assert calls == (["leave"] if of_people else ["forget_room", "leave"])
    stage.line.fail = lambda _: None
    stage.told.clear()
    await stage.execute(only(release))
    calls = [call.name for call in stage.line.calls if call.name in {"forget_room", "leave"}]
    assert calls[-2:] == (["leave", "forget_room"] if of_people else ["forget_room", "leave"])


async def test_an_inert_bot_stays() -> None:
    stage = Stage(with_equals(creator=mxid("ann"), taken_over=True))
    await stage.execute(only(ReleaseRoom(**GIVEN_UP, leaves=False)))
    assert stage.writes() == ["put_state"]


async def test_a_space_is_left_only_when_everybody_is_out() -> None:
    kick = Kick(**GIVEN_UP, person=mxid("ann"))
    abandon = AbandonSpace(**GIVEN_UP, after=(kick.identity,))
    stage = Stage(with_equals())
    stage.line.fail = failing("kick", REFUSED)
    outcomes = await stage.execute(only(kick, abandon))
    assert outcomes[abandon.identity].message == f"depends on “{kick.identity}”, which failed"
    held = await Stage(with_equals()).execute(only(kick.hold(), abandon))
    assert held[abandon.identity].message == f"depends on “{kick.identity}”, which is held by a guard"
    done = Stage(with_equals())
    await done.execute(only(kick, abandon))
    assert done.writes() == ["kick", "leave"]


async def test_what_follows_control_that_was_not_given_is_skipped() -> None:
    take = TakeControl(**GIVEN_UP, acting_as=mxid("bob"), creator=mxid("ann"), creator_level=100)
    kick = Kick(**GIVEN_UP, person=mxid("ann"), after=(take.identity,))
    stage = Stage(with_equals(bot_level=50))
    stage.line.fail = failing("take_control", REFUSED)
    outcomes = await stage.execute(only(take, kick))
    assert (outcomes[take.identity].status, outcomes[kick.identity].status) == (FAILED, SKIPPED)
    given = Stage(with_equals(bot_level=50, creator=mxid("ann"), taken_over=True))
    outcomes = await given.execute(only(take, kick))
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    [marker] = given.line.of("put_state")
    assert marker.arguments[1:] == (
        "aim.managed",
        BOT,
        {"version": 1, "instance": INSTANCE, "key": "all", "creator": mxid("ann"), "creator_level": 100},
    )
    assert given.recorder.recorded.rooms["all"] == RecordedRoom("all", room_id_of("all"), None)


@pytest.mark.parametrize("parallelism", [1, 3])
async def test_rooms_of_an_adopted_space_are_made_once_it_is_ours(parallelism: int) -> None:
    stage = Stage(adopted(), parallelism)
    outcomes = await asyncio.wait_for(stage.execute(), 10)
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    names = stage.line.names()
    assert names.index("take_control") < names.index("create_room")

    refused = Stage(adopted(), parallelism)
    refused.line.fail = failing("take_control", REFUSED)
    outcomes = await asyncio.wait_for(refused.execute(), 10)
    assert statuses(outcomes, "create_room") == {SKIPPED}
    assert outcomes["create_room top/talk"].message == "depends on “take_control top”, which failed"
    assert refused.created() == []


async def test_into_a_room_that_is_not_ours_a_member_asks_them() -> None:
    stage = Stage(company())
    theirs = stage.homeserver.add(ModelRoom("!theirs:example.com", "", is_space=False, has_bot=False))
    theirs.members[mxid("ann")] = "join"
    where: dict[str, Any] = {**GIVEN_UP, "room": theirs.room_id, "room_id": theirs.room_id}
    invite = Invite(**where, person=mxid("bob"), acting_as=mxid("ann"))
    outcomes = await stage.execute(only(invite))
    assert outcomes[invite.identity].status is DONE
    assert [call.arguments for call in stage.line.calls] == [(theirs.room_id, mxid("bob"), mxid("ann"))]
    assert theirs.members[mxid("bob")] == "invite"
