"""Arbitrary rooms that people made in two spaces: whatever they are like, a few cycles come to rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim.directory.roster import Roster
from aim.planner.actions import CreateRoom, Kick, RemoveChild, SetPowerLevel
from aim.world.recorded import Recorded, RecordedRoom
from aim.world.rooms import Marker, Room
from tests.unit.model import BOT, INSTANCE, mxid
from tests.unit.worlds import (
    Scene,
    a_config,
    a_directory,
    a_room,
    a_room_of_people,
    a_space,
    accept_invites,
    an_observed,
    cycle,
    identities,
    with_child,
)

PEOPLE = ["ann", "bob", "cid", "dan"]
EVERYBODY = [*PEOPLE, "xia", "yan"]
"""With two who are not in the directory."""
SPACES = ["top", "lab"]
ZOE = "@zoe:example.org"
GENEROUS = {
    kind: {"per_space": {"at_least": 100}, "organisation": {"at_least": 100}}
    for kind in ("kicks", "demotions", "releases", "abandoned_spaces")
}
some_people = st.lists(st.sampled_from(EVERYBODY), unique=True)
some_spaces = st.sampled_from([["top", "lab"], ["top"], ["lab"], []])


@st.composite
def rooms(draw: st.DrawFn, roster: Roster, number: int) -> Room:
    """A room of people, taken over or not, with the bot in it or not."""
    version = draw(st.sampled_from(["10", "11", "12"]))
    creator = draw(st.sampled_from([*EVERYBODY, "zoe"]))
    creator_mxid = ZOE if creator == "zoe" else mxid(creator)
    named = draw(st.dictionaries(st.sampled_from(EVERYBODY), st.sampled_from([50, 99, 100])))
    joined = draw(some_people)
    if draw(st.booleans()):
        # As it is where nobody has changed anything.
        joined, named = sorted({*joined, creator} & {*EVERYBODY}), {creator: 100}
    if version == "12" or creator == "zoe":
        named.pop(creator, None)
    room = a_room_of_people(
        roster,
        f"!room{number}:example.com",
        joined,
        rule=draw(st.sampled_from(["restricted", "public", "knock_restricted", "invite", None])),
        allow=draw(some_spaces),
        parents=draw(some_spaces),
        levels=named,
        creator=creator_mxid,
        version=version,
        bot=draw(st.sampled_from([None, "join", "leave"])),
        foreign=frozenset({ZOE}) if creator == "zoe" else frozenset(),
    )
    bot_level = draw(st.sampled_from([0, 50, 100]))
    levels = replace(room.power_levels, foreign={BOT: bot_level} if bot_level else {})
    room = replace(room, power_levels=levels)
    if room.bot == "join" and bot_level == 100 and draw(st.booleans()):
        return replace(room, marker=Marker(1, INSTANCE, room.room_id, creator_mxid, 100))
    return room


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    directory = a_directory(PEOPLE, {"lab": ["cid", "dan"], "mods": ["bob"]}, roster=Roster())
    roster = directory.roster
    provisioner: dict[str, Any] = {
        "guards": GENEROUS,
        "gc": {"enabled": draw(st.booleans())},
        "membership": draw(st.sampled_from(["invite", "join"])),
        "invite_to_public_rooms": draw(st.booleans()),
        "replace_unmanageable_rooms": draw(st.booleans()),
        "allowed_users": draw(st.sampled_from([[], ["@xia:.*"]])),
    }
    config = a_config(a_space("top", "", ("mods", 50)), a_space("lab", "lab", ("mods", 100)), **provisioner)
    spaces = {
        "top": a_room(roster, "top", PEOPLE, levels={"bob": 50}),
        "lab": a_room(roster, "lab", ["bob", "cid", "dan"], levels={"bob": 100}),
    }
    found = [draw(rooms(roster, number)) for number in range(draw(st.integers(1, 2)))]
    for room in found:
        for space in draw(some_spaces):
            adder = draw(st.sampled_from([*map(mxid, EVERYBODY), BOT, ZOE]))
            spaces[space] = with_child(spaces[space], room.room_id, adder)
    managed = [*spaces.values(), *(room for room in found if room.marker is not None)]
    near = {child for space in spaces.values() for child in space.children}
    open_ = [
        room
        for room in found
        if room not in managed
        and room.room_id in near
        and (
            room.bot == "join"
            or room.state.get("m.room.join_rules", {}).get("join_rule")
            in {"public", "restricted", "knock_restricted"}
        )
    ]
    known = {room.key: RecordedRoom(room.key, room.room_id, None) for room in managed}
    entitled = {key: roster.people(PEOPLE) for key in known}
    observed = an_observed(roster, PEOPLE, *managed, unmanaged=open_)
    return Scene(config, directory, observed, Recorded(False, None, "ldif", rooms=known, entitled=entitled))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenes())
def test_a_few_cycles_come_to_rest(scene: Scene) -> None:
    for _ in range(4):
        scene = accept_invites(cycle(scene))
    assert identities(scene.plan().actions) == []


def is_replacing(action: CreateRoom | RemoveChild) -> bool:
    if isinstance(action, CreateRoom):
        return action.room == f"replacement:{action.predecessor}"
    return not action.is_ours


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenes())
def test_no_room_is_made_for_them_and_nobody_of_another_server_or_exempt_is_touched(scene: Scene) -> None:
    for _ in range(3):
        for action in scene.plan().actions:
            assert not isinstance(action, CreateRoom | RemoveChild) or is_replacing(action)
            if isinstance(action, Kick) or (isinstance(action, SetPowerLevel) and action.is_demotion):
                assert not scene.config.provisioner.allows(action.person)
                assert action.person not in {ZOE, BOT}
        scene = accept_invites(cycle(scene))
