"""Public rooms in our spaces that have not consented: the space's people are asked in, and that is all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from aim.planner.actions import Invite, Kick, TakeControl
from aim.planner.explain import Question, explain, scope_of
from aim.planner.keys import Keys
from aim.planner.memory import remember
from aim.world.audit import Audit
from aim.world.rooms import Room
from tests.unit.model import mxid
from tests.unit.test_control import PEOPLE, ROOM, Scenes, told
from tests.unit.worlds import (
    NOW,
    Scene,
    a_directory,
    accept_invites,
    cycle,
    identities,
    with_child,
)

LONG_AGO = 1000
ANYBODYS: Mapping[str, Any] = {"rule": "public", "allow": []}


def public(scenes: Scenes, *joined: str, invite: int = 0, **more: Any) -> Room:
    """A public room of eve's; `invite` is the level that it takes to ask somebody in."""
    room = scenes.room(*joined, **{**ANYBODYS, **more})
    return replace(room, power_levels=replace(room.power_levels, base={"invite": invite}))


def invites(scene: Scene) -> dict[str, str | None]:
    """MXID → acting as whom, of everything that is planned."""
    actions = scene.plan().actions
    assert all(isinstance(action, Invite) for action in actions), actions
    return {action.person: action.acting_as for action in actions if isinstance(action, Invite)}


def with_people(scene: Scene, **changes: Any) -> Scene:
    """The room as people left it."""
    for name in ("joined", "invited", "banned"):
        if name in changes:
            changes[name] = scene.roster.people(changes[name])
    if "left" in changes:
        changes["left"] = {scene.roster.number(name): when for name, when in changes["left"].items()}
    room = replace(scene.observed.unmanaged[ROOM], **changes)
    return replace(scene, observed=replace(scene.observed, unmanaged={ROOM: room}))


def test_those_who_are_missing_are_asked_by_a_member() -> None:
    scenes = Scenes()
    scene = scenes.scene(public(scenes, "eve", "gil", banned=scenes.roster.people(["bob"])), adder="bob")
    assert invites(scene) == {mxid(name): mxid("eve") for name in ("ann", "cid")}
    [first, *_] = scene.plan().actions
    assert (first.room, first.room_id, first.space, first.after) == (ROOM, ROOM, "top", ())
    assert (first.details, first.reason) == ({"acting_as": mxid("eve")}, "in the directory")
    assert told(scene.plan(), ROOM) == []


@pytest.mark.parametrize(
    ("joined", "levels", "adder", "acting"),
    [
        # Who put it there, then the highest, then the first by name.
        (["eve", "gil", "bob"], {"gil": 100, "eve": 60, "bob": 50}, "bob", "bob"),
        (["eve", "gil", "bob"], {"gil": 100, "eve": 60, "bob": 40}, "bob", "gil"),
        (["eve", "gil", "hal"], {"gil": 60, "eve": 60, "hal": 60}, "bob", "eve"),
        # Nobody who is not in it, whatever their level.
        (["gil"], {"gil": 50, "eve": 100}, "eve", "gil"),
        (["gil"], {"gil": 49, "eve": 100}, "eve", None),
    ],
)
def test_as_whom(joined: list[str], levels: dict[str, int], adder: str, acting: str | None) -> None:
    scenes = Scenes()
    room = public(scenes, *joined, levels=levels, invite=50, creator=mxid("eve"))
    scene = scenes.scene(room, adder=adder)
    assert set(invites(scene).values()) == ({mxid(acting)} if acting else set())
    assert bool(told(scene.plan(), ROOM)) == (acting is None)


def test_the_creator_of_a_version_12_room_stands_above_every_level() -> None:
    scenes = Scenes()
    room = public(scenes, "ann", "eve", version="12", levels={"ann": 100}, creator=mxid("eve"))
    assert set(invites(scenes.scene(room, adder="bob")).values()) == {mxid("eve")}


def test_nobody_in_doubt_is_acted_as_or_asked() -> None:
    scenes = Scenes()
    scenes.directory = a_directory(PEOPLE, {"mods": ["bob"]}, roster=scenes.roster, contested=["eve", "cid"])
    scene = scenes.scene(public(scenes, "eve", "gil"))
    assert invites(scene) == {mxid(name): mxid("gil") for name in ("ann", "bob")}


def test_only_those_with_an_account_are_asked_and_only_asked() -> None:
    scenes = Scenes(membership="join", invite_before_first_login=True)
    scene = scenes.scene(public(scenes, "eve"), adder="bob")
    accounts = scenes.roster.people(["ann", "eve"])
    scene = replace(scene, observed=replace(scene.observed, accounts=accounts))
    mine = [action for action in scene.plan().actions if action.room == ROOM]
    assert identities(mine) == [f"invite {ROOM} {mxid('ann')}"]


def test_switched_off_nobody_is() -> None:
    scenes = Scenes(invite_to_public_rooms=False)
    plan = scenes.scene(public(scenes, "eve"), adder="bob").plan()
    assert (plan.actions, told(plan, ROOM)) == ((), [])


def test_of_somebody_the_same_as_in_the_whole() -> None:
    scenes = Scenes()
    scene = scenes.scene(public(scenes, "eve"), adder="bob")
    for keys in (Keys(rooms=frozenset({ROOM})), Keys(people=frozenset({mxid("ann")}))):
        whole = [action for action in scene.plan().actions if keys.cover(action)]
        assert list(scene.plan(keys).actions) == whole
        assert whole


def test_afterwards_there_is_nothing_to_do_and_nobody_else_was_touched() -> None:
    scenes = Scenes()
    scene = scenes.scene(public(scenes, "eve", "gil"), adder="bob")
    after = cycle(scene)
    room, before = after.observed.unmanaged[ROOM], scene.observed.unmanaged[ROOM]
    assert scenes.roster.localparts(room.invited) == ["ann", "bob", "cid"]
    assert (room.joined, room.power_levels, room.marker) == (before.joined, before.power_levels, None)
    for later in (after, accept_invites(after)):
        plan = later.plan()
        assert plan.actions == ()
        assert not remember(later.world, plan)


def test_who_declines_is_not_asked_again_until_the_right_is_lost_and_gained_anew() -> None:
    scenes = Scenes()
    everybody = scenes.directory
    scene = cycle(scenes.scene(public(scenes, "eve"), adder="bob"))
    said_no = int(NOW.timestamp() * 1000) + 60_000
    scene = with_people(scene, invited=["bob", "cid"], left={"ann": said_no}).later(minutes=5)
    assert invites(scene) == {}

    without = a_directory(["bob", "cid", "eve"], {"mods": ["bob"]}, roster=scenes.roster)
    scene = cycle(replace(scene, directory=without)).later(minutes=5)
    assert scenes.roster.localparts(scene.recorded.lapsed[ROOM]) == ["ann"]
    scene = replace(scene, directory=everybody)
    assert mxid("ann") in {action.target for action in scene.plan().actions if action.room == ROOM}
    # The fact is remembered: a cycle that was broken off asks her all the same.
    again = replace(cycle(scene), observed=scene.observed).later(minutes=5)
    assert mxid("ann") in {action.target for action in again.plan().actions if action.room == ROOM}


def test_who_left_before_we_ever_looked_is_not_asked() -> None:
    scenes = Scenes()
    room = public(scenes, "eve", left={scenes.roster.number("ann"): LONG_AGO})
    scene = scenes.scene(room, adder="bob")
    assert set(invites(scene)) == {mxid("bob"), mxid("cid")}
    assert set(invites(with_people(cycle(scene), invited=[]))) == {mxid("bob"), mxid("cid")}


def test_who_gains_the_right_for_the_first_time_is_asked_although_they_left_before() -> None:
    scenes = Scenes()
    everybody = scenes.directory
    scenes.directory = a_directory(["bob", "cid", "eve"], {"mods": ["bob"]}, roster=scenes.roster)
    room = public(scenes, "eve", left={scenes.roster.number("ann"): LONG_AGO})
    scene = cycle(scenes.scene(room, adder="bob"))
    assert mxid("ann") not in {action.target for action in scene.plan().actions}
    scene = replace(scene, directory=everybody)
    assert mxid("ann") in {action.target for action in scene.plan().actions if action.room == ROOM}


def test_who_came_in_while_we_only_invited_counts_when_it_is_taken_over() -> None:
    strict = {"guards": {"kicks": {"organisation": {"at_least": 1, "percent": 0}}}}
    scenes = Scenes(**strict)
    scene = accept_invites(cycle(scenes.scene(public(scenes, "eve"), adder="bob")))
    scene = with_people(scene, joined=[*PEOPLE, "gil", "hal"], parents=frozenset({"!top:example.com"}))
    plan = scene.plan()
    assert [action for action in plan.actions if isinstance(action, TakeControl)]
    kicks = [action for action in plan.actions if isinstance(action, Kick)]
    assert [(kick.person, kick.guarded, kick.held) for kick in kicks] == [
        (mxid(name), True, True) for name in ("gil", "hal")
    ]
    again = [action for action in cycle(scene).plan().actions if isinstance(action, Kick)]
    assert identities(again) == identities(kicks)
    assert all(kick.guarded and kick.held for kick in again)


def test_the_space_that_it_was_put_into_tells_who_put_it_there() -> None:
    scenes = Scenes()
    room = public(scenes, "ann", "bob", levels={}, creator=mxid("eve"))
    scene = scenes.scene(room, adder="bob")
    assert set(invites(scene).values()) == {mxid("bob")}
    top = with_child(scene.observed.rooms["top"], ROOM, mxid("cid"))
    moved = replace(scene, observed=replace(scene.observed, rooms={"top": top}))
    assert set(invites(moved).values()) == {mxid("ann")}


@pytest.mark.parametrize(("invite", "against"), [(0, set()), (101, {"out_of_reach"})])
def test_it_is_explained(invite: int, against: set[str]) -> None:
    scenes = Scenes()
    scene = scenes.scene(public(scenes, "eve", levels={"ann": 100}, invite=invite, creator=mxid("eve")))
    plan = scene.plan()
    scope = scope_of(scene.world, plan, Question(mxid("ann"), ROOM))
    answer = explain(scene.world, plan, scope, Audit())
    [standing] = answer.standings
    assert {obstacle.kind for obstacle in standing.against} == against
    assert answer.room is not None
    assert answer.room.status == "not managed, it has not consented"
