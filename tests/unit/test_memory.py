"""What a cycle remembers before it starts: rooms, people, entitlements, holds, recovery."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aim.planner.memory import Memory, applied, properties_of, remember
from aim.world.recorded import Recorded, RecordedRoom, Seen
from tests.unit.worlds import (
    NOW,
    Scene,
    a_config,
    a_directory,
    a_room_of_people,
    a_scene,
    a_space,
    a_user,
    an_observed,
    apply_plan,
    cycle,
    provisioned,
)

SPACE = "!old:example.com"


def memory_of(scene: Scene) -> Memory:
    return remember(scene.world, scene.plan())


def config(**properties: Any) -> Any:
    return a_config(a_space("all", ""), default_rooms=[{"id": "talk", "properties": properties}])


def settled(**properties: Any) -> Scene:
    return provisioned(config(**properties), a_directory(["ann", "bob"]))


def moved(scene: Scene, users: list[Any], **more: Any) -> Scene:
    return replace(scene, directory=a_directory(users, roster=scene.roster, **more))


def test_a_first_cycle_remembers_people_and_what_they_are_entitled_to() -> None:
    memory = memory_of(a_scene(config(), a_directory(["ann", "bob"]), ["ann"]))
    assert [(seen.id, seen.localpart, seen.first_seen, seen.gone_since) for seen in memory.seen] == [
        ("id-ann", "ann", NOW, None),
        ("id-bob", "bob", NOW, None),
    ]
    assert memory.entitled == {"all": ("ann", "bob"), "all/talk": ("ann", "bob")}
    assert memory.rooms == ()
    assert memory.held is None
    assert memory.recovery_changed is False


def test_an_unchanged_world_leaves_nothing_to_remember() -> None:
    memory = memory_of(settled().later(days=1))
    assert not memory
    assert memory == Memory()


def test_each_part_alone_is_worth_remembering() -> None:
    assert not Memory()
    assert Memory(rooms=(RecordedRoom("a", "!a", None),))
    assert Memory(seen=(Seen("1", "ann", False, NOW, None),))
    assert Memory(entitled={"a": ("ann",)})
    assert Memory(held=frozenset())
    assert Memory(recovery_changed=True)


# -- people ---------------------------------------------------------------------------------------


def test_who_is_gone_is_remembered_with_the_time_and_once() -> None:
    scene = moved(settled(), ["ann"]).later(hours=1)
    [seen] = memory_of(scene).seen
    assert (seen.id, seen.gone_since, seen.first_seen) == ("id-bob", scene.now, NOW)
    assert memory_of(cycle(scene).later(hours=1)).seen == ()


def test_who_comes_back_keeps_the_day_they_were_first_seen() -> None:
    gone = cycle(moved(settled(), ["ann"]).later(hours=1))
    [seen] = memory_of(moved(gone, ["ann", "bob"]).later(hours=2)).seen
    assert (seen.id, seen.gone_since, seen.first_seen) == ("id-bob", None, NOW)


def test_disabled_people_are_not_gone() -> None:
    assert memory_of(moved(settled(), ["ann", a_user("bob", active=False)])).seen == ()


def test_an_id_that_became_strong_or_weak_is_remembered_so() -> None:
    [seen] = memory_of(moved(settled(), ["ann", a_user("bob", weak_id=True)])).seen
    assert (seen.id, seen.weak_id) == ("id-bob", True)


def test_those_in_doubt_are_neither_gone_nor_new() -> None:
    scene = moved(settled(), ["ann", a_user("cid", "id-bob")])
    assert memory_of(scene).seen == ()
    assert memory_of(moved(settled(), ["ann"], unresolved=["id-bob"])).seen == ()
    # The one whose name was taken over is gone indeed, but whoever took it over is not recorded.
    assert [seen.id for seen in memory_of(moved(settled(), ["ann", a_user("bob", "other")])).seen] == [
        "id-bob"
    ]


# -- entitlements ---------------------------------------------------------------------------------


def test_entitlements_are_only_added_to() -> None:
    scene = settled()
    assert memory_of(moved(scene, ["ann", "bob", "cid"])).entitled == {"all": ("cid",), "all/talk": ("cid",)}
    after = cycle(moved(scene, ["ann"]))
    assert scene.roster.localparts(after.recorded.entitled["all"]) == ["ann", "bob"]


def test_in_a_room_of_which_nothing_is_known_everybody_present_counts() -> None:
    scene = settled().with_room("all", joined=["ann", "eve"], invited=["bob", "fay"], banned=["gus"])
    scene = replace(scene, recorded=replace(scene.recorded, entitled={}))
    assert memory_of(scene).entitled == {
        "all": ("ann", "bob", "eve", "fay"),
        "all/talk": ("ann", "bob"),
    }


def test_a_stranger_of_today_is_not_entitled_tomorrow() -> None:
    scene = settled().with_room("all", joined=["ann", "bob", "eve"])
    assert memory_of(scene).entitled == {}


# -- rooms ----------------------------------------------------------------------------------------


def test_a_room_found_by_its_marker_is_recorded() -> None:
    scene = settled(topic="Hello")
    found = replace(scene, recorded=Recorded(fresh=False))
    rooms = {room.key: room for room in memory_of(found).rooms}
    assert rooms.keys() == {"all", "all/talk"}
    assert rooms["all/talk"].room_id == scene.observed.rooms["all/talk"].room_id
    assert rooms["all/talk"].properties == properties_of(scene.desired.rooms["all/talk"])


def test_properties_about_to_be_applied_are_not_remembered_as_applied() -> None:
    changed = replace(settled(name="Talk"), config=config(name="Chat", topic="New", suggested=True))
    [room] = memory_of(changed).rooms or [changed.recorded.rooms["all/talk"]]
    assert room.properties is not None
    assert room.properties["m.room.name"] == {"name": "Talk"}
    assert room.properties["suggested"] is False
    assert "m.room.topic" not in room.properties


def test_a_property_that_is_so_already_is_remembered_without_a_write() -> None:
    scene = settled(name="Talk")
    state = {**scene.observed.rooms["all/talk"].state, "m.room.topic": {"topic": "Hello"}}
    changed = replace(scene.with_room("all/talk", state=state), config=config(name="Talk", topic="Hello"))
    assert changed.plan().actions == ()
    [room] = memory_of(changed).rooms
    assert room.properties == properties_of(changed.desired.rooms["all/talk"])


@pytest.mark.parametrize("why", ["banned", "levels"])
def test_properties_that_the_bot_cannot_change_are_not_remembered_as_applied(why: str) -> None:
    before = settled(name="Talk", topic="Old")
    changed = replace(before, config=config(name="Talk", topic="New", suggested=True))
    powerless = changed
    for key in ("all", "all/talk"):
        levels = changed.observed.rooms[key].power_levels
        base = {**levels.base, "events": {"m.room.power_levels": 150}}
        powerless = (
            powerless.with_room(key, bot="ban")
            if why == "banned"
            else powerless.with_room(key, version="11", power_levels=replace(levels, base=base))
        )
    assert powerless.plan().actions == ()
    assert memory_of(powerless).rooms == ()
    able = cycle(replace(cycle(powerless), observed=changed.observed))
    talk = able.observed.rooms["all/talk"]
    assert talk.state["m.room.topic"] == {"topic": "New"}
    assert able.observed.rooms["all"].children[talk.room_id].suggested
    assert not memory_of(able)


def test_a_suggestion_that_is_so_already_is_remembered_without_a_write() -> None:
    changed = replace(settled(), config=config(suggested=True))
    [child] = changed.observed.rooms["all"].children.values()
    shown = changed.with_room("all", children={child.room_id: replace(child, suggested=True)})
    assert shown.plan().actions == ()
    [room] = memory_of(shown).rooms
    assert room.properties == properties_of(changed.desired.rooms["all/talk"])
    assert memory_of(changed).rooms == ()


def test_a_room_that_is_another_one_now_is_recorded_anew() -> None:
    scene = settled()
    scene = scene.with_room("all", room_id="!other:example.com")
    assert [(room.key, room.room_id) for room in memory_of(scene).rooms] == [("all", "!other:example.com")]


def test_rooms_that_are_gone_or_no_longer_configured_stay_recorded() -> None:
    scene = settled().without_room("all/talk")
    assert cycle(scene).recorded.rooms.keys() == {"all", "all/talk"}
    bare = replace(settled(), config=a_config(a_space("other", "")))
    assert cycle(bare).recorded.rooms.keys() == {"all", "all/talk", "other"}


# -- what a cycle has applied ---------------------------------------------------------------------


def after(scene: Scene, *done: str) -> dict[str, RecordedRoom]:
    """What is recorded of rooms once these actions of the plan are done, and no others."""
    plan = scene.plan()
    chosen = [action for action in plan.actions if action.identity in done]
    assert len(chosen) == len(done)
    return {room.key: room for room in applied(scene.world, plan, remember(scene.world, plan), chosen)}


def test_what_was_applied_is_remembered_and_what_was_not_is_left_as_it_was() -> None:
    changed = replace(settled(name="Talk"), config=config(name="Chat", topic="New", suggested=True))
    before = changed.recorded.rooms["all/talk"]
    assert before.properties is not None
    topic, name = "set_room_state all/talk m.room.topic", "set_room_state all/talk m.room.name"
    assert after(changed) == {}
    assert after(changed, topic) == {
        "all/talk": replace(before, properties={**before.properties, "m.room.topic": {"topic": "New"}})
    }
    [room] = after(changed, topic, name, "add_child all all/talk").values()
    assert room.properties == properties_of(changed.desired.rooms["all/talk"])


def test_of_a_room_that_was_made_everything_is_recorded_already() -> None:
    scene = a_scene(config(suggested=True), a_directory(["ann"]))
    assert after(scene, "create_space all", "create_room all/talk", "add_child all all/talk") == {}


def adopting() -> Scene:
    """An existing space of ann's, `Old`, is to be the space `all`, named `All`."""
    directory = a_directory(["ann"])
    state = {"m.room.name": {"name": "Old"}, "m.room.join_rules": {"join_rule": "invite"}}
    room = a_room_of_people(directory.roster, SPACE, ["ann"])
    room = replace(room, is_space=True, state=state)
    observed = an_observed(directory.roster, ["ann"], unmanaged=[room])
    return Scene(a_config(a_space("all", "", room=SPACE)), directory, observed)


def test_of_a_room_that_was_taken_over_what_is_so_already_is_remembered_as_applied() -> None:
    scene = adopting()
    taken = after(scene, "take_control all")
    assert taken == {"all": RecordedRoom("all", SPACE, {"suggested": False})}
    named = after(scene, "take_control all", "set_room_state all m.room.name")
    assert named["all"].properties == properties_of(scene.desired.rooms["all"])


def test_a_name_that_could_not_be_set_when_a_space_was_taken_over_is_set_by_the_next_cycle() -> None:
    scene = adopting()
    half = apply_plan(scene, scene.plan(), lambda action: action.type != "set_room_state")
    assert "set_room_state all m.room.name" in [action.identity for action in half.plan().actions]
    assert cycle(half).observed.rooms["all"].state["m.room.name"] == {"name": "All"}


def test_what_was_known_of_a_room_of_which_control_is_taken_again_stays_known() -> None:
    before = settled(name="Talk", topic="Old")
    changed = replace(before, config=config(name="Talk", topic="New"))
    outside = changed.with_room("all/talk", bot="invite")
    assert after(outside, "take_control all/talk") == {"all/talk": before.recorded.rooms["all/talk"]}


# -- guards and recovery --------------------------------------------------------------------------


def test_what_is_held_is_remembered_once_and_forgotten_when_it_is_over() -> None:
    people = ["ann", "bob", "cid", "dan", "eve"]
    before = provisioned(a_config(a_space("all", "")), a_directory(people))
    scene = moved(before, ["ann"])
    held = memory_of(scene).held
    assert held == scene.plan().holding != frozenset()
    after = cycle(scene)
    assert memory_of(after).held is None
    assert memory_of(replace(after, directory=before.directory)).held == frozenset()


def test_recovery_begins_with_something_to_hold_and_keeps_its_date() -> None:
    scene = replace(settled().with_room("all", joined=["ann", "bob", "eve"]), recorded=Recorded())
    memory = memory_of(scene)
    assert (memory.recovery_since, memory.recovery_changed) == (NOW, True)
    later = cycle(scene).later(days=1)
    assert memory_of(later).recovery_changed is False
    over = later.with_room("all", joined=["ann", "bob"])
    memory = memory_of(over)
    assert (memory.recovery_since, memory.recovery_changed) == (None, True)


def test_recovery_does_not_begin_by_itself() -> None:
    scene = settled()
    recorded = replace(scene.recorded, recovery_since=NOW - timedelta(days=1))
    assert memory_of(scene).recovery_changed is False
    assert memory_of(replace(scene, recorded=recorded)).recovery_changed is True
