"""`provisioner.membership: join`: who is joined, where that takes an invite, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from aim.planner.actions import Join, SetRoomState
from aim.world.rooms import Marker
from tests.unit.model import BOT, INSTANCE, mxid
from tests.unit.worlds import (
    NO_LIMITS,
    NOW,
    Scene,
    a_config,
    a_directory,
    a_room_of_people,
    a_scene,
    a_space,
    cycle,
    identities,
    provisioned,
    with_child,
)

ROOM = "all/talk"
JOIN = f"join all {mxid('ann')}"


def joining(rule: str = "restricted", accounts: list[str] | None = None, **more: Any) -> Scene:
    config = a_config(
        a_space("all", ""),
        default_rooms=[{"id": "talk", "properties": {"join_rule": rule}}],
        membership="join",
        guards=NO_LIMITS,
        **more,
    )
    return a_scene(config, a_directory(["ann"]), accounts)


def joins(scene: Scene) -> dict[str, tuple[bool, tuple[str, ...]]]:
    return {
        action.room: (action.needs_invite, action.after)
        for action in scene.plan().actions
        if isinstance(action, Join)
    }


def outside(scene: Scene, *rooms: str) -> Scene:
    """Nobody is in these rooms."""
    for key in rooms:
        scene = scene.with_room(key, joined=[])
    return scene


def test_in_a_new_space_people_are_invited_and_join_and_join_its_rooms_without() -> None:
    assert joins(joining()) == {
        "all": (True, ("create_space all",)),
        ROOM: (False, ("create_room all/talk", JOIN)),
    }
    after = cycle(joining())
    assert after.roster.localparts(after.observed.rooms[ROOM].joined) == ["ann"]
    assert after.plan().actions == ()


@pytest.mark.parametrize(
    ("rule", "needs_invite"),
    [
        ("restricted", False),
        ("knock_restricted", False),
        ("public", False),
        ("invite", True),
        ("knock", True),
    ],
)
def test_an_invite_is_sent_where_the_join_rule_takes_one(rule: str, needs_invite: bool) -> None:
    config = joining(rule).config
    scene = outside(provisioned(config, a_directory(["ann"])), ROOM)
    assert joins(scene) == {ROOM: (needs_invite, ())}
    assert cycle(scene).plan().actions == ()


@pytest.mark.parametrize(("bot_level", "needs_invite"), [(100, False), (50, True)])
def test_join_rules_that_the_bot_cannot_change_are_taken_as_they_are(
    bot_level: int, needs_invite: bool
) -> None:
    """The configuration opens a room that was made for invited people only."""
    before = outside(provisioned(joining("invite").config, a_directory(["ann"])), ROOM)
    room = before.observed.rooms[ROOM]
    levels = replace(room.power_levels, foreign={BOT: bot_level})
    scene = replace(before, config=joining("public").config)
    scene = scene.with_room(ROOM, version="11", power_levels=levels)
    written = [action for action in scene.plan().actions if isinstance(action, SetRoomState)]
    assert bool(written) is not needs_invite
    assert joins(scene) == {ROOM: (needs_invite, ())}


def test_the_space_comes_first_where_a_room_is_open_to_its_members() -> None:
    scene = outside(provisioned(joining().config, a_directory(["ann"])), "all", ROOM)
    assert joins(scene) == {"all": (True, ()), ROOM: (False, (JOIN,))}
    assert identities(scene.plan().actions) == [JOIN, f"join {ROOM} {mxid('ann')}"]


@pytest.mark.parametrize(
    ("bot", "expected"),
    [
        ("join", {"all": (True, ()), ROOM: (False, (JOIN,))}),
        ("invite", {"all": (True, ("take_control all",)), ROOM: (False, (JOIN,))}),
        ("ban", {ROOM: (True, ())}),
    ],
)
def test_nobody_waits_for_a_space_that_the_bot_cannot_bring_anybody_into(
    bot: str, expected: dict[str, tuple[bool, tuple[str, ...]]]
) -> None:
    scene = outside(provisioned(joining().config, a_directory(["ann"])), "all", ROOM)
    assert joins(scene.with_room("all", bot=bot)) == expected


def test_who_is_out_of_the_space_by_their_own_wish_needs_an_invite_to_its_room() -> None:
    scene = outside(provisioned(joining().config, a_directory(["ann"])), ROOM)
    scene = scene.with_room("all", joined=[], left={"ann": int(NOW.timestamp() * 1000)})
    assert joins(scene) == {ROOM: (True, ())}


def test_who_is_invited_already_just_joins() -> None:
    scene = provisioned(joining().config, a_directory(["ann"]))
    scene = scene.with_room("all", joined=[], invited=["ann"])
    assert joins(scene) == {"all": (False, ())}


def test_who_has_no_account_waits_or_is_invited() -> None:
    assert joins(joining(accounts=[])) == {}
    assert joining(accounts=[]).plan().pending == 1
    scene = joining(accounts=[], invite_before_first_login=True)
    assert scene.plan().by_type == {"create_room": 1, "create_space": 1, "add_child": 1, "invite": 2}
    after = cycle(scene)
    assert after.plan().actions == ()
    come = replace(after, observed=replace(after.observed, accounts=after.roster.people(["ann"])))
    assert joins(come) == {"all": (False, ()), ROOM: (False, ())}


def test_the_banned_and_those_who_left_are_not_joined() -> None:
    scene = outside(provisioned(joining().config, a_directory(["ann"])), ROOM)
    assert joins(scene.with_room(ROOM, banned=["ann"])) == {}
    assert joins(scene.with_room(ROOM, left={"ann": int(NOW.timestamp() * 1000)})) == {}


def test_rooms_that_nobody_is_invited_to_are_joined_only_by_who_knocks() -> None:
    config = joining("knock_restricted", invite_to_public_rooms=False).config
    scene = outside(provisioned(config, a_directory(["ann"])), ROOM)
    assert joins(scene) == {}
    assert joins(scene.with_room(ROOM, knocking=["ann"])) == {ROOM: (False, ())}


def test_by_default_people_are_invited() -> None:
    config = a_config(a_space("all", ""), guards=NO_LIMITS)
    plan = a_scene(config, a_directory(["ann"])).plan()
    assert plan.by_type == {"create_space": 1, "invite": 1}


# -- rooms that let in each other's members --------------------------------------------------------

ONE, TWO = "!one:example.com", "!two:example.com"


def letting_in(lets_in: Mapping[str, tuple[str, ...]]) -> Scene:
    """Rooms of mod's in the space `all`, which ann is to join: room id → those whose members it lets in."""
    config = a_config(a_space("all", ""), membership="join", guards=NO_LIMITS)
    scene = provisioned(config, a_directory(["ann", "mod"])).with_room("all", joined=["mod"])
    rooms = dict(scene.observed.rooms)
    ids = {"all": rooms["all"].room_id}
    for room_id, allow in lets_in.items():
        allowed = [{"type": "m.room_membership", "room_id": ids.get(other, other)} for other in allow]
        rules = {"m.room.join_rules": {"join_rule": "restricted", "allow": allowed}}
        made = a_room_of_people(scene.roster, room_id, ["mod"], levels={}, bot="join")
        marker = Marker(1, INSTANCE, room_id, mxid("mod"), 100)
        rooms[room_id] = replace(made, marker=marker, state=rules)
        rooms["all"] = with_child(rooms["all"], room_id, mxid("mod"))
    return replace(scene, observed=replace(scene.observed, rooms=rooms))


def test_rooms_that_let_in_each_others_members_wait_for_the_space_only() -> None:
    found = joins(letting_in({ONE: (TWO, "all"), TWO: (ONE, "all")}))
    assert found == {"all": (True, ()), ONE: (False, (JOIN,)), TWO: (False, (JOIN,))}


def test_a_room_that_lets_in_its_own_members_does_not_wait_for_itself() -> None:
    found = joins(letting_in({ONE: (ONE, "all")}))
    assert found == {"all": (True, ()), ONE: (False, (JOIN,))}


def test_who_is_in_a_room_whose_members_are_let_in_waits_for_nothing() -> None:
    scene = letting_in({ONE: ("all", TWO), TWO: ("all",)}).with_room(TWO, joined=["ann", "mod"])
    assert joins(scene) == {"all": (True, ()), ONE: (False, ())}
