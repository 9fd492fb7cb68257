"""What a cycle remembers before it starts: rooms, people, entitlements, holds, recovery."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from aim.planner.memory import Memory, properties_of, remember
from aim.world.recorded import Recorded, RecordedRoom, Seen
from tests.unit.worlds import (
    NOW,
    Scene,
    a_config,
    a_directory,
    a_scene,
    a_space,
    a_user,
    cycle,
    provisioned,
)


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


def test_a_room_that_is_another_one_now_is_recorded_anew() -> None:
    scene = settled()
    scene = scene.with_room("all", room_id="!other:example.com")
    assert [(room.key, room.room_id) for room in memory_of(scene).rooms] == [("all", "!other:example.com")]


def test_rooms_that_are_gone_or_no_longer_configured_stay_recorded() -> None:
    scene = settled().without_room("all/talk")
    assert cycle(scene).recorded.rooms.keys() == {"all", "all/talk"}
    bare = replace(settled(), config=a_config(a_space("other", "")))
    assert cycle(bare).recorded.rooms.keys() == {"all", "all/talk", "other"}


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
