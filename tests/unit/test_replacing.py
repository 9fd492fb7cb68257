"""Rooms of version 12 whose creator stands above us: replaced by one of our own, if that is asked for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from aim.directory.model import Severity
from aim.errors import HomeserverRefused
from aim.planner.actions import AnyAction, CreateRoom, Invite, Join, RemoveChild, SetRoomState
from aim.planner.keys import Keys
from aim.planner.memory import remember
from aim.ports import OutcomeStatus
from aim.world.recorded import RecordedRoom
from aim.world.rooms import Room
from tests.unit.fakes import Killed, Line
from tests.unit.model import CHILD, RULES, SERVER, TOMBSTONE, ModelRoom, mxid
from tests.unit.test_control import GENEROUS, PEOPLE, ROOM, Scenes, told
from tests.unit.test_reconciler import STAFF, Deployment
from tests.unit.worlds import (
    Scene,
    a_config,
    a_directory,
    a_room,
    a_space,
    accept_invites,
    apply_plan,
    cycle,
    identities,
    with_child,
)

NEW = f"replacement:{ROOM}"
CREATE, ADD = f"create_room {NEW}", f"add_child top {NEW}"
CLOSE, REMOVE = f"set_room_state {ROOM} m.room.tombstone", f"remove_child top {ROOM}"


def on(**provisioner: Any) -> Scenes:
    return Scenes(replace_unmanageable_rooms=True, guards=GENEROUS, **provisioner)


def theirs(scenes: Scenes, *joined: str, **more: Any) -> Room:
    """A room of eve's, of version 12, with a stranger in it."""
    room = scenes.room(*(joined or ("eve", "gil", "ann")), **{"version": "12", **more})
    state = {**room.state, "m.room.name": {"name": "Theirs"}, "m.room.topic": {"topic": "all"}}
    return replace(room, state=state)


def taken(scenes: Scenes, **more: Any) -> Room:
    """The same, taken over before that was asked for."""
    room = scenes.taken("eve", "ann", level=None, version="12", **more)
    return replace(room, state={**room.state, "m.room.name": {"name": "Theirs"}})


def due(scene: Scene) -> list[str]:
    return identities(scene.plan().actions)


def at_rest(scene: Scene) -> None:
    """The new room is where the old one was, and there is nothing left to do."""
    [new] = [room for room in scene.observed.rooms.values() if room.predecessor == ROOM]
    assert list(scene.observed.rooms["top"].children) == [new.room_id]
    assert due(scene) == []
    later = cycle(scene)
    plan = later.plan()
    assert plan.actions == ()
    assert not replace(remember(later.world, plan), returned={})
    assert told(plan, ROOM) == told(plan, NEW) == []


def test_the_plan_shows_all_of_it_in_one() -> None:
    scenes = on()
    plan = scenes.scene(theirs(scenes)).plan()
    by_identity = {action.identity: action for action in plan.actions}
    assert set(by_identity) == {
        CREATE,
        CLOSE,
        ADD,
        REMOVE,
        f"set_power_level {NEW} {mxid('bob')} 50",
        *(f"invite {NEW} {mxid(name)}" for name in PEOPLE),
    }
    assert list(by_identity).index(ADD) < list(by_identity).index(REMOVE)
    assert (by_identity[CLOSE].after, by_identity[REMOVE].after) == ((CREATE,), (ADD, CLOSE))
    close, create = by_identity[CLOSE], by_identity[CREATE]
    assert isinstance(close, SetRoomState)
    assert (close.room_id, close.acting_as) == (ROOM, mxid("eve"))
    assert close.content["replacement_room"] == NEW
    assert isinstance(create, CreateRoom)
    assert (create.name, create.room_version, create.predecessor, create.parent) == (
        "Theirs",
        "12",
        ROOM,
        "top",
    )
    assert create.state == theirs(scenes).state
    assert told(plan, ROOM) == []


@pytest.mark.parametrize("is_taken", [True, False])
def test_afterwards_ours_is_in_its_place(*, is_taken: bool) -> None:
    scenes = on()
    scene = scenes.scene(taken(scenes) if is_taken else theirs(scenes))
    old_levels = scene.observed.rooms[ROOM].power_levels if is_taken else None
    after = cycle(scene)
    at_rest(after)
    at_rest(accept_invites(after))
    assert after.members(NEW) == PEOPLE
    assert after.levels(NEW) == {"bob": 50}
    if is_taken:
        old = after.observed.rooms[ROOM]
        assert (old.replacement, old.power_levels) == (after.observed.rooms[NEW].room_id, old_levels)


def test_what_it_is_like_later_is_theirs() -> None:
    scenes = on()
    after = accept_invites(cycle(cycle(scenes.scene(theirs(scenes)))))
    renamed = {**after.observed.rooms[NEW].state, "m.room.name": {"name": "Other"}}
    assert due(after.with_room(NEW, state=renamed)) == []
    # It is a managed room like any other.
    assert due(after.with_room(NEW, joined=[*PEOPLE, "gil"])) == [f"kick {NEW} {mxid('gil')}"]


def test_broken_off_anywhere_it_is_finished_and_no_second_room_is_made() -> None:
    scenes = on()
    scene = scenes.scene(theirs(scenes))
    plan = scene.plan()
    whole = [action for action in plan.actions if action.identity in {CREATE, ADD, CLOSE, REMOVE}]
    for part in ((), (CREATE,), (CREATE, ADD), (CREATE, CLOSE), (CREATE, ADD, CLOSE)):
        assert set(part) <= set(identities(whole))

        def chosen(action: AnyAction, part: tuple[str, ...] = part) -> bool:
            return action.identity in part

        halfway = apply_plan(scene, plan, chosen)
        off = replace(halfway, config=Scenes(guards=GENEROUS).config)
        for again in (halfway, off if part else halfway):
            assert [action for action in again.plan().actions if isinstance(action, CreateRoom)] == (
                [] if part else [action for action in plan.actions if isinstance(action, CreateRoom)]
            )
            at_rest(cycle(again))


def test_a_room_that_was_made_and_never_recorded_is_found_by_its_marker() -> None:
    scenes = on()
    scene = scenes.scene(theirs(scenes))
    halfway = apply_plan(scene, scene.plan(), lambda action: action.identity == CREATE)
    forgotten = {key: room for key, room in halfway.recorded.rooms.items() if key != NEW}
    at_rest(cycle(replace(halfway, recorded=replace(halfway.recorded, rooms=forgotten))))


def test_one_that_is_gone_is_never_made_again() -> None:
    scenes = on()
    scene = scenes.scene(theirs(scenes))
    rooms = {**scene.recorded.rooms, NEW: RecordedRoom(NEW, "!gone:example.com", None)}
    plan = replace(scene, recorded=replace(scene.recorded, rooms=rooms)).plan()
    assert f"take_control {ROOM}" in identities(plan.actions)
    assert CREATE not in identities(plan.actions)


def test_off_there_is_the_one_problem_and_the_plan_is_as_it_was() -> None:
    scenes = Scenes(guards=GENEROUS)
    plan = scenes.scene(theirs(scenes)).plan()
    assert f"take_control {ROOM}" in identities(plan.actions)
    assert not [action for action in plan.actions if isinstance(action, CreateRoom | RemoveChild)]
    [(severity, text)] = told(scenes.scene(taken(scenes)).plan(), ROOM)
    assert severity is Severity.WARNING
    assert "can't be demoted" in text


def test_what_can_be_managed_is_not_replaced() -> None:
    for more in (
        {"version": "11"},
        # Who made it is not in, or is to be put out, or belongs to another server.
        {"creator": mxid("bob")},
        {"creator": mxid("gil")},
        {"creator": "@zoe:example.org"},
        # It does not consent, or to being joined only.
        {"rule": "invite"},
        {"rule": "public", "allow": []},
    ):
        scenes = on()
        room = theirs(scenes, **more)
        scene = scenes.scene(room, adder="bob")
        assert not [action for action in scene.plan().actions if isinstance(action, CreateRoom)], more
    # A group that is not found may give them the level.
    scenes = on()
    scenes.config = a_config(a_space("top", "", ("gone", 100)), replace_unmanageable_rooms=True)
    assert CREATE not in due(scenes.scene(theirs(scenes)))
    scenes = on(allowed_users=[r"@eve:.*"])
    assert CREATE not in due(scenes.scene(theirs(scenes)))
    scenes = on()
    scenes.directory = a_directory(PEOPLE, {"mods": ["bob"]}, roster=scenes.roster, contested=["eve"])
    assert CREATE not in due(scenes.scene(theirs(scenes)))


def test_a_creator_to_whom_the_directory_gives_100_is_no_reason() -> None:
    scenes = on()
    scenes.directory = a_directory(PEOPLE, {"mods": ["eve"]}, roster=scenes.roster)
    assert CREATE in due(scenes.scene(theirs(scenes)))
    scenes.config = a_config(a_space("top", "", ("mods", 100)), replace_unmanageable_rooms=True)
    assert CREATE not in due(scenes.scene(theirs(scenes)))


@pytest.mark.parametrize("membership", ["invite", "join"])
def test_who_is_in_the_old_one_comes_along_even_if_nobody_is_invited(membership: str) -> None:
    scenes = on(invite_to_public_rooms=False, membership=membership)
    scene = scenes.scene(theirs(scenes))
    people = {action.person for action in scene.plan().actions if isinstance(action, Invite | Join)}
    assert people == {mxid("eve"), mxid("ann")}
    after = cycle(scene)
    assert after.members(NEW) == ["ann", "eve"]
    at_rest(after)


def with_lab(scenes: Scenes, room: Room) -> Scene:
    """The room is in a second space, too."""
    scene = scenes.scene(room)
    lab = with_child(a_room(scenes.roster, "lab", ["bob"]), ROOM, mxid("eve"))
    known = {**scene.recorded.rooms, "lab": RecordedRoom("lab", lab.room_id, None)}
    return replace(
        scene,
        config=a_config(
            a_space("top", ("mods", 50)),
            a_space("lab", ""),
            replace_unmanageable_rooms=True,
            guards=GENEROUS,
        ),
        observed=replace(scene.observed, rooms={**scene.observed.rooms, "lab": lab}),
        recorded=replace(scene.recorded, rooms=known),
    )


def test_it_is_put_into_all_spaces_that_the_old_one_was_in() -> None:
    scenes = on()
    after = cycle(with_lab(scenes, theirs(scenes, allow=["top", "lab"])))
    new = after.observed.rooms[NEW].room_id
    assert [list(after.observed.rooms[key].children) for key in ("top", "lab")] == [[new], [new]]
    assert [action for action in due(after) if NEW in action or ROOM in action] == []


@pytest.mark.parametrize("only", [None, (CREATE, CLOSE), (CREATE, CLOSE, f"add_child lab {NEW}")])
def test_a_space_to_which_the_old_one_did_not_consent_gets_nothing(only: tuple[str, ...] | None) -> None:
    scenes = on()
    scene = with_lab(scenes, theirs(scenes, "eve", "gil", allow=["lab"]))
    if only is not None:
        scene = apply_plan(scene, scene.plan(), lambda action: action.identity in only)
    after = cycle(scene)
    new = after.observed.rooms[NEW].room_id
    assert [list(after.observed.rooms[key].children) for key in ("top", "lab")] == [[], [new]]
    assert after.levels(NEW) == {}
    assert [action for action in due(after) if NEW in action or ROOM in action] == []


def test_with_clean_up_the_old_one_is_not_released_meanwhile() -> None:
    scenes = on(gc={"enabled": True})
    scene = scenes.scene(taken(scenes))
    assert [kind for kind in due(scene) if kind.startswith("release")] == []
    at_rest(cycle(scene))
    told_off = on()
    assert told(told_off.scene(taken(told_off)).plan(), ROOM) == []


def test_for_keys_the_same_as_in_the_whole() -> None:
    scenes = on()
    scene = scenes.scene(theirs(scenes))
    for keys in ({ROOM}, {NEW}, {"top"}, {"top", NEW}):
        whole = [action for action in scene.plan().actions if action.room in keys]
        assert scene.plan(Keys(rooms=frozenset(keys))).actions == tuple(whole)
        assert whole


def test_rules_of_others_are_copied_without_what_we_would_take_for_keys() -> None:
    scenes = on()
    room = theirs(scenes)
    allow: list[object] = ["nonsense", *room.state["m.room.join_rules"]["allow"]]  # type: ignore[misc] # a list
    allow.append({"type": "m.room_membership", "room_id": "!top:example.com", "space": "top"})
    rules = {"join_rule": "restricted", "allow": allow}
    room = replace(room, state={**room.state, "m.room.join_rules": rules})
    [create] = [action for action in scenes.scene(room).plan().actions if isinstance(action, CreateRoom)]
    rule = {"type": "m.room_membership", "room_id": "!top:example.com"}
    assert create.state["m.room.join_rules"] == {"join_rule": "restricted", "allow": [rule, rule]}


# -- carried out ----------------------------------------------------------------------------------


async def with_theirs() -> Deployment:
    """A space that everybody is in, and eve's room in it."""
    config = a_config(a_space("all", "", ("mods", 50)), replace_unmanageable_rooms=True, guards=GENEROUS)
    made = Deployment(config=config)
    await made.cycle()
    made.homeserver.accept_invites()
    [space] = made.homeserver.by_key("all")
    old = made.homeserver.add(
        ModelRoom(ROOM, "", is_space=False, has_bot=False, creator=mxid("eve"), version="12")
    )
    old.members |= {mxid("eve"): "join", mxid("gil"): "join"}
    allow = [{"type": "m.room_membership", "room_id": space.room_id}]
    old.state[RULES, ""] = {"join_rule": "restricted", "allow": allow}
    space.state[CHILD, ROOM] = {"via": [SERVER]}
    space.adders[ROOM] = mxid("eve")
    made.start()
    return made


def is_replaced(deployment: Deployment) -> bool:
    """One room of ours is where the old one was, with everybody asked in; the old one points to it."""
    homeserver = deployment.homeserver
    [space], [new] = homeserver.by_key("all"), homeserver.by_key(NEW)
    assert space.children() == {new.room_id}
    assert new.who("join", "invite") == {mxid(name) for name in STAFF}
    assert (new.predecessor, new.version, new.creator) == (ROOM, "12", "@aim:example.com")
    assert new.state[RULES, ""] == homeserver.rooms[ROOM].state[RULES, ""]
    assert new.levels["users"] == {mxid("ann"): 50}
    old = homeserver.rooms[ROOM]
    assert old.who("join", "invite") == {mxid("eve"), mxid("gil")}
    return bool(old.state[TOMBSTONE, ""]["replacement_room"] == new.room_id)


async def test_one_cycle_does_it_and_the_next_has_nothing_to_do() -> None:
    made = await with_theirs()
    cycle = await made.cycle()
    assert [outcome.message for outcome in cycle.outcomes] == [""] * len(cycle.outcomes)
    assert is_replaced(made)
    assert made.line.of("create_room")[0].arguments[0].predecessor == ROOM  # type: ignore[attr-defined] # a NewRoom
    for _ in range(2):
        made.start()
        assert (await made.cycle()).plan.actions == ()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_any_call_it_ends_in_the_same_state(*, after: bool) -> None:
    whole = await with_theirs()
    await whole.cycle()
    for moment in range(len(whole.line.calls)):
        made = await with_theirs()
        made.start(Line(kill_after=moment) if after else Line(kill_before=moment))
        with suppress(Killed):
            await made.cycle()
        for _ in range(3):
            made.start()
            await made.cycle()
        assert is_replaced(made), f"killed at call {moment}"
        made.start()
        assert (await made.cycle()).plan.actions == ()


@pytest.mark.parametrize("failing", ["create_room", "put_state"])
async def test_after_a_refusal_it_is_finished_later(failing: str) -> None:
    made = await with_theirs()
    made.line.fail = lambda call: HomeserverRefused("no", status=403) if call.name == failing else None
    cycle = await made.cycle()
    assert OutcomeStatus.FAILED in {outcome.status for outcome in cycle.outcomes}
    # Nothing of theirs is taken away before what replaces it is there.
    [space] = made.homeserver.by_key("all")
    assert ROOM in space.children()
    for _ in range(2):
        made.start()
        await made.cycle()
    assert is_replaced(made)
