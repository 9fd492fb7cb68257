"""Who outranks whom: what the bot does itself, what people do to themselves, and what is only said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from aim.desired.levels import base_levels
from aim.directory.roster import Roster
from aim.planner.actions import Kick, SetPowerLevel, SetRoomState
from aim.planner.ranks import ABOVE_ALL, ranks_of
from aim.world.recorded import Recorded
from tests.unit.model import BOT, LEVELS, SERVER, mxid
from tests.unit.worlds import (
    NO_LIMITS,
    Scene,
    a_config,
    a_directory,
    a_room,
    a_space,
    an_observed,
    cycle,
    identities,
)

KNOWN = Recorded(fresh=False)
PEOPLE = ["ann", "bob", "eve"]


def a_scene_of(version: str, creator: str, entitled: list[str] = PEOPLE, **room: Any) -> Scene:
    """A space that somebody made and we took over; everybody is in it."""
    config = a_config(a_space("all", "staff", ("mods", 50)), guards=NO_LIMITS, allowed_users="@boss:.*")
    directory = a_directory(entitled, {"staff": entitled, "mods": ["bob"] if "bob" in entitled else []})
    there = {"joined": [*PEOPLE], "state": {"m.room.name": {"name": "All"}}, **room}
    room_ = a_room(
        directory.roster, "all", version=version, creator=creator, taken_over=creator != BOT, **there
    )
    return Scene(config, directory, an_observed(directory.roster, PEOPLE, room_), KNOWN)


def demotions(scene: Scene) -> dict[str, tuple[int, bool]]:
    return {
        action.person: (action.level, action.as_themselves)
        for action in scene.plan().actions
        if isinstance(action, SetPowerLevel)
    }


def kicks(scene: Scene) -> dict[str, bool]:
    return {
        action.person: action.as_themselves for action in scene.plan().actions if isinstance(action, Kick)
    }


def told(scene: Scene) -> list[str]:
    return [problem.message for problem in scene.plan().problems if problem.subject == "all"]


@pytest.mark.parametrize(
    ("version", "creator", "bot", "ann"),
    [
        ("11", BOT, 100, 0),
        ("11", mxid("ann"), 100, 0),
        ("12", BOT, ABOVE_ALL, 0),
        ("12", mxid("ann"), 100, ABOVE_ALL),
        ("12", "@ann:other.example", 100, 0),
    ],
)
def test_creators_stand_above_every_level_from_version_12_on(
    version: str, creator: str, bot: float, ann: float
) -> None:
    scene = a_scene_of(version, creator)
    ranks = ranks_of(scene.observed.rooms["all"], scene.observed, scene.roster)
    assert (ranks.bot, ranks.of(scene.roster.number("ann"))) == (bot, ann)


def test_where_nobody_has_set_levels_who_made_the_room_has_100() -> None:
    roster = Roster()
    room = a_room(roster, "all", version="11", base={})
    room = replace(room, power_levels=replace(room.power_levels, foreign={}))
    ranks = ranks_of(room, an_observed(roster, [], room), roster)
    assert (ranks.bot, ranks.can_set_levels) == (100, True)


def test_who_is_not_named_has_the_default_level() -> None:
    base = {**base_levels(is_space=True, room_version="11"), "users_default": 100}
    scene = a_scene_of("11", BOT, base=base)
    ranks = ranks_of(scene.observed.rooms["all"], scene.observed, scene.roster)
    assert not ranks.beats(scene.roster.number("ann"))


# -- demotions ------------------------------------------------------------------------------------


def test_up_to_version_11_an_equal_and_whoever_has_more_lowers_their_own_level() -> None:
    scene = a_scene_of("11", mxid("ann"), levels={"ann": 100, "bob": 150, "eve": 99})
    assert demotions(scene) == {mxid("ann"): (0, True), mxid("bob"): (50, True), mxid("eve"): (0, False)}
    assert scene.plan().actions[0].details["acting_as"] == mxid("ann")
    after = cycle(scene)
    assert after.levels("all") == {"bob": 50}
    assert identities(after.plan().actions) == []


def test_in_a_room_of_our_own_from_version_12_on_the_bot_demotes_anybody() -> None:
    assert demotions(a_scene_of("12", BOT, levels={"ann": 100})) == {
        mxid("ann"): (0, False),
        mxid("bob"): (50, False),
    }


def test_a_creator_above_all_is_neither_demoted_nor_named() -> None:
    scene = a_scene_of("12", mxid("bob"), levels={"ann": 100})
    assert demotions(scene) == {mxid("ann"): (0, True)}
    [message] = told(scene)
    assert message.startswith(f"made by {mxid('bob')}, who in room version 12 stands above every level")
    assert told(cycle(scene)) == [message]


def test_who_is_exempt_keeps_what_they_have_and_is_no_problem() -> None:
    scene = a_scene_of("12", mxid("boss"), joined=[*PEOPLE, "boss"])
    assert demotions(scene) == {mxid("bob"): (50, False)}
    assert told(scene) == []
    foreign = a_scene_of(
        "11", BOT, foreign=["@far:other.example"], foreign_levels={"@far:other.example": 100}
    )
    assert demotions(foreign) == {mxid("bob"): (50, False)}


def test_who_is_outside_with_the_bots_level_is_a_problem_until_they_come_in() -> None:
    scene = a_scene_of("11", BOT, joined=["bob", "eve"], levels={"ann": 100, "bob": 50})
    assert demotions(scene) == {}
    [message] = told(scene)
    assert message.startswith(f"{mxid('ann')} has the bot's own power level and is not in the room")
    assert demotions(scene.with_room("all", joined=PEOPLE)) == {mxid("ann"): (0, True)}


@pytest.mark.parametrize("needed", [50, 100])
def test_a_bot_without_the_level_does_nothing_that_would_be_refused(needed: int) -> None:
    base = {**base_levels(is_space=True, room_version="11"), "invite": needed}
    scene = a_scene_of("11", BOT, joined=["bob", "mal"], levels={"mal": 50}, bot_level=50, base=base)
    assert demotions(scene) == {}
    assert kicks(scene) == {mxid("mal"): True}
    invited = {action.type for action in scene.plan().actions} - {"kick"}
    assert invited == ({"invite"} if needed == 50 else set())


# -- kicks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "creator", "levels", "themselves"),
    [
        ("11", BOT, {}, False),
        ("11", BOT, {"eve": 99}, False),
        ("11", BOT, {"eve": 100}, True),
        ("11", mxid("eve"), {"eve": 150}, True),
        ("12", BOT, {"eve": 100}, False),
        ("12", mxid("ann"), {"eve": 100}, True),
        ("12", mxid("eve"), {}, True),
    ],
)
def test_who_can_not_be_kicked_leaves_by_themselves(
    version: str, creator: str, levels: Mapping[str, int], themselves: bool
) -> None:
    scene = a_scene_of(version, creator, ["ann", "bob"], levels=levels)
    assert kicks(scene) == {mxid("eve"): themselves}
    after = cycle(scene)
    assert after.members("all") == ["ann", "bob"]
    assert identities(after.plan().actions) == []
    caused = {room_id: after.roster.localparts(people) for room_id, people in after.recorded.caused.items()}
    assert caused == ({after.observed.rooms["all"].room_id: ["eve"]} if themselves else {})


# -- the levels that guard the room ---------------------------------------------------------------


def guarding(scene: Scene) -> Mapping[str, object] | None:
    found = [action.content for action in scene.plan().actions if isinstance(action, SetRoomState)]
    return found[0] if found else None


def test_in_a_room_taken_over_only_what_is_too_low_is_raised() -> None:
    base = {"kick": 0, "ban": 100, "users_default": 10, "events": {"m.room.power_levels": 50, "x": 1}, "y": 2}
    scene = a_scene_of("11", mxid("ann"), base=base)
    assert guarding(scene) == {
        "kick": 50,
        "invite": 50,
        "users_default": 0,
        "events": {"m.room.power_levels": 100, "m.room.server_acl": 100},
    }
    after = cycle(scene).observed.rooms["all"].power_levels.base
    assert after == {
        "kick": 50,
        "ban": 100,
        "invite": 50,
        "users_default": 0,
        "events": {"m.room.power_levels": 100, "m.room.server_acl": 100, "x": 1},
        "y": 2,
    }
    assert guarding(cycle(scene)) is None


def test_children_of_a_space_taken_over_are_for_moderators() -> None:
    base = {
        "invite": 50,
        "events": {"m.room.power_levels": 100, "m.room.server_acl": 100, "m.space.child": 0},
    }
    assert guarding(a_scene_of("12", mxid("ann"), base=base)) == {"events": {"m.space.child": 50}}


@pytest.mark.parametrize("key", ["ban", "invite", "kick", "redact", "state_default", "users_default"])
def test_in_a_room_of_ours_every_level_is_put_back(key: str) -> None:
    for version in ("11", "12"):
        base = {**base_levels(is_space=True, room_version=version), key: 33}
        wanted = base_levels(is_space=True, room_version=version)
        assert guarding(a_scene_of(version, BOT, base=base)) == wanted


def test_events_of_a_room_of_ours_are_put_back_and_what_else_is_there_stays() -> None:
    base: dict[str, Any] = dict(base_levels(is_space=True, room_version="12"))
    base["events"] = {**base["events"], "m.space.child": 0, "org.example.own": 7}
    scene = a_scene_of("12", BOT, base=base)
    changed = [action for action in scene.plan().actions if isinstance(action, SetRoomState)]
    assert [action.event_type for action in changed] == [LEVELS]
    events = cycle(scene).observed.rooms["all"].power_levels.base["events"]
    assert isinstance(events, dict)
    assert (events["m.space.child"], events["org.example.own"]) == (50, 7)


# -- more levels than fit -------------------------------------------------------------------------


CROWD = [f"person-with-a-long-name-{number:05}" for number in range(1500)]


def crowded(count: int) -> Scene:
    people = CROWD[:count]
    config = a_config(a_space("all", "", ("mods", 50)), guards=NO_LIMITS)
    directory = a_directory(people, {"mods": people})
    return Scene(config, directory, an_observed(directory.roster, people), KNOWN)


def test_levels_that_do_not_fit_are_a_problem_and_members_come_in_all_the_same() -> None:
    scene = crowded(1500)
    plan = scene.plan()
    assert plan.by_type == {"create_space": 1, "invite": 1500}
    assert [message for message in told(scene) if message.startswith("mods would give 1500 people")]
    after = cycle(scene)
    assert after.plan().actions == ()
    assert told(after) == told(scene)


def test_levels_that_fit_are_given() -> None:
    scene = crowded(900)
    assert scene.plan().by_type == {"create_space": 1, "invite": 900, "set_power_level": 900}
    assert told(scene) == []
    assert told(cycle(scene)) == []


def test_where_levels_do_not_fit_people_can_still_lose_theirs() -> None:
    scene = cycle(crowded(1500)).with_room("all", levels={CROWD[0]: 100, "mal": 50})
    assert demotions(scene) == {mxid(CROWD[0]): (50, False), mxid("mal"): (0, False)}
    assert SERVER in mxid("mal")
