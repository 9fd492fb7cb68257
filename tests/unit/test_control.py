"""Taking control of rooms, and letting go of them: whom we act as, what is given back, what is only told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from aim.directory.model import Severity
from aim.directory.roster import Roster
from aim.planner.actions import (
    AbandonSpace,
    AnyAction,
    Kick,
    ReleaseRoom,
    RemoveChild,
    SetPowerLevel,
    TakeControl,
)
from aim.planner.control import take_control
from aim.planner.keys import Keys
from aim.planner.plan import Plan
from aim.world.recorded import Recorded, RecordedRoom
from aim.world.rooms import Child, Marker, Room
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
    room_id_of,
    with_child,
)

PEOPLE = ["ann", "bob", "cid", "eve"]
ROOM = "!people:example.com"
CONTROL = f"take_control {ROOM}"
OPEN: Mapping[str, Any] = {"rule": "restricted", "allow": ["top"]}
PRIVATE = {"m.room.join_rules": {"join_rule": "invite"}}
GENEROUS = {
    kind: {"per_space": {"at_least": 100}, "organisation": {"at_least": 100}}
    for kind in ("kicks", "demotions", "releases", "abandoned_spaces")
}


class Scenes:
    """A space `top` with everybody in it, and rooms of people in that."""

    def __init__(self, **provisioner: Any) -> None:
        self.config = a_config(a_space("top", "", ("mods", 50)), **provisioner)
        self.directory = a_directory(PEOPLE, {"mods": ["bob"]}, roster=Roster())
        self.roster = self.directory.roster
        self.top = a_room(self.roster, "top", PEOPLE, levels={"bob": 50})

    def room(self, *joined: str, **more: Any) -> Room:
        return a_room_of_people(self.roster, ROOM, joined or ("eve",), **{**OPEN, **more})

    def taken(self, *joined: str, level: int | None = 100, **more: Any) -> Room:
        """A room of eve's that we took over, with the bot in control."""
        room = self.room(*(joined or ("eve",)), **{"bot": "join", "levels": {}, **more})
        return replace(room, marker=Marker(1, INSTANCE, room.room_id, mxid("eve"), level))

    def scene(self, *rooms: Room, adder: str = "eve", children: bool = True, **recorded: Any) -> Scene:
        top = self.top
        for room in rooms if children else ():
            top = with_child(top, room.room_id, mxid(adder))
        managed = [room for room in rooms if room.marker is not None and room.bot == "join"]
        unmanaged = [room for room in rooms if room not in managed]
        known = {room.key: RecordedRoom(room.key, room.room_id, None) for room in (top, *managed)}
        entitled = {"top": self.directory.everyone, **recorded.pop("entitled", {})}
        return Scene(
            self.config,
            self.directory,
            an_observed(self.roster, PEOPLE, top, *managed, unmanaged=unmanaged),
            Recorded(fresh=False, source="ldif", rooms=known, entitled=entitled, **recorded),
        )


def control(scene: Scene) -> TakeControl | None:
    found = [action for action in scene.plan().actions if isinstance(action, TakeControl)]
    return found[0] if found else None


def told(plan: Plan, subject: str) -> list[tuple[Severity, str]]:
    return [(problem.severity, problem.message) for problem in plan.problems if problem.subject == subject]


def of_kind(plan: Plan, kind: type) -> list[AnyAction]:
    return [action for action in plan.actions if isinstance(action, kind)]


# -- whom we act as -------------------------------------------------------------------------------


def test_the_creator_lets_us_in() -> None:
    scenes = Scenes()
    scene = scenes.scene(scenes.room("eve", "ann", levels={"ann": 100, "eve": 100}))
    found = control(scene)
    assert found is not None
    assert (found.room, found.room_id, found.space) == (ROOM, ROOM, "top")
    assert (found.acting_as, found.creator, found.creator_level, found.invites) == (
        mxid("eve"),
        mxid("eve"),
        100,
        True,
    )
    assert found.reason == "belongs to top, open to its members"


@pytest.mark.parametrize(
    ("joined", "levels", "more", "acting"),
    [
        # Without the creator who put it there, else the first by name.
        (["cid", "bob", "ann"], {"ann": 100, "bob": 100, "cid": 100}, {}, "cid"),
        (["bob", "ann"], {"ann": 100, "bob": 100, "cid": 100}, {}, "ann"),
        # Nobody who can't give 100.
        (["bob", "ann"], {"ann": 99, "bob": 100}, {}, "bob"),
        (["bob"], {"bob": 99}, {}, None),
        # Nobody who can't change the levels, or who is not in it.
        (["bob"], {"ann": 100}, {}, None),
        # The creator, from version 12 on.
        (["eve", "ann"], {"ann": 100}, {"version": "12"}, "eve"),
        (["ann"], {"ann": 100}, {"version": "12"}, "ann"),
        # Whoever is banned can't be let in by an invite.
        (["eve"], {"eve": 100}, {"bot": "ban"}, None),
    ],
)
def test_somebody_local_who_can_invite_and_give_100(
    joined: list[str], levels: dict[str, int], more: dict[str, Any], acting: str | None
) -> None:
    scenes = Scenes()
    room = scenes.room(*joined, levels=levels, creator=mxid("eve"), **more)
    scene = scenes.scene(room, adder="cid")
    found = control(scene)
    if acting is None:
        assert found is None
        assert scene.plan().actions == ()
        [(severity, text)] = told(scene.plan(), ROOM)
        assert severity is Severity.WARNING
        assert text.startswith(f"{ROOM} can't be managed: ")
    else:
        assert found is not None
        assert found.acting_as == mxid(acting)


def test_levels_that_take_more_than_100_need_more() -> None:
    scenes = Scenes()
    room = scenes.room("eve", levels={"eve": 100})
    base = {"events": {"m.room.power_levels": 101}, "invite": 0}
    room = replace(room, power_levels=replace(room.power_levels, base=base))
    assert control(scenes.scene(room)) is None


def test_nobody_whose_identity_is_in_doubt_is_acted_as() -> None:
    scenes = Scenes()
    scenes.directory = a_directory(PEOPLE, {"mods": ["bob"]}, roster=scenes.roster, contested=["eve"])
    assert control(scenes.scene(scenes.room("eve"))) is None


def test_somebody_of_another_server_is_never_acted_as() -> None:
    scenes = Scenes()
    room = scenes.room("ann", levels={}, creator="@zoe:example.org")
    room = replace(room, foreign=frozenset({"@zoe:example.org"}))
    assert control(scenes.scene(room)) is None


@pytest.mark.parametrize(
    ("bot", "bot_level", "rule", "acting", "invites"),
    [
        # The marker alone is missing: somebody redacted it.
        ("join", 100, "restricted", None, False),
        # The level alone.
        ("join", 0, "restricted", "eve", False),
        # We left, keeping our level, and can come back by ourselves, or be invited by anybody who can.
        ("leave", 100, "public", None, True),
        ("invite", 100, "restricted", None, True),
        ("leave", 100, "restricted", "eve", True),
    ],
)
def test_only_what_is_missing_is_done(
    *, bot: str, bot_level: int, rule: str, acting: str | None, invites: bool
) -> None:
    scenes = Scenes()
    rules = {"rule": rule, "allow": ["top"], "parents": ["top"]}
    room = scenes.room("eve", bot=bot, **rules)
    levels = replace(room.power_levels, foreign={BOT: bot_level} if bot_level else {})
    found = control(scenes.scene(replace(room, power_levels=levels)))
    assert found is not None
    assert (found.acting_as, found.invites) == (acting and mxid(acting), invites)


def test_without_a_marker_and_in_control_the_creator_had_100_before() -> None:
    scenes = Scenes()
    room = scenes.room("eve", bot="join", levels={})
    found = control(scenes.scene(room))
    assert found is not None
    assert (found.creator, found.creator_level, found.reason) == (mxid("eve"), 100, "its marker is missing")


def test_the_level_is_taken_back_in_a_room_that_was_taken_over() -> None:
    scenes = Scenes()
    room = scenes.taken("eve", "ann", levels={"ann": 100})
    room = replace(room, power_levels=replace(room.power_levels, foreign={BOT: 50}))
    found = control(scenes.scene(room))
    assert found is not None
    assert (found.acting_as, found.invites) == (mxid("ann"), False)
    assert (found.creator, found.creator_level) == (mxid("eve"), 100)
    assert "lost its power level" in found.reason
    # Nobody can give it: told, and the rest is done as far as it goes.
    helpless = scenes.scene(replace(room, joined=scenes.roster.people(["eve", "gil"])))
    assert control(helpless) is None
    assert [one[0] for one in told(helpless.plan(), ROOM) if "can't be managed" in one[1]] == [
        Severity.WARNING
    ]


def test_the_level_of_a_version_12_creator_is_above_all_and_not_remembered() -> None:
    scenes = Scenes()
    found = control(scenes.scene(scenes.room("eve", version="12")))
    assert found is not None
    assert (found.acting_as, found.creator, found.creator_level) == (mxid("eve"), mxid("eve"), None)


def test_of_several_creators_one_of_ours_is_remembered() -> None:
    scenes = Scenes()
    room = replace(
        scenes.room("eve", version="12"), creators=frozenset({"@aaa:example.org", mxid("eve"), mxid("zoe")})
    )
    found = control(scenes.scene(room))
    assert found is not None
    assert found.creator == mxid("eve")


def test_a_room_that_may_only_be_joined_is_told_if_nobody_can_invite() -> None:
    scenes = Scenes()
    room = scenes.room("eve", "gil", rule="public", allow=[], levels={})
    room = replace(room, power_levels=replace(room.power_levels, base={"invite": 50}))
    scene = scenes.scene(room, adder="bob")
    assert scene.plan().actions == ()
    [(severity, text)] = told(scene.plan(), ROOM)
    assert severity is Severity.INFO
    assert "has not consented" in text
    only = scene.desired.rooms[ROOM]
    assert take_control(scene.world, only, scene.observed.unmanaged[ROOM]) is None


def test_what_cannot_be_looked_into_is_told() -> None:
    scenes = Scenes()
    scene = scenes.scene()
    top = with_child(scenes.top, "!dark:example.com")
    observed = replace(
        scene.observed, rooms={"top": top}, unseen={"!dark:example.com": "no light", "#alias:a.b": "no such"}
    )
    plan = replace(scene, observed=observed).plan()
    assert told(plan, "!dark:example.com") == [
        (Severity.INFO, "is in one of the spaces, and can't be looked into: no light")
    ]
    assert told(plan, "#alias:a.b") == []


@pytest.mark.parametrize("bot", ["ban", "leave"])
def test_where_the_bot_is_out_and_nobody_lets_it_in_nothing_is_tried(bot: str) -> None:
    """A mirror may show a space that we are out of, as it was then."""
    scenes = Scenes()
    scene = scenes.scene().with_room("top", bot=bot, joined=["ann", "cid", "zed"], levels={})
    base = {**scene.observed.rooms["top"].power_levels.base, "invite": 50}
    levels = replace(scene.observed.rooms["top"].power_levels, base=base)
    plan = scene.with_room("top", power_levels=levels).plan()
    assert [action for action in plan.actions if action.room == "top"] == []
    [(severity, text)] = told(plan, "top")
    assert severity is Severity.ERROR
    assert "can't be managed" in text
    back = scene.with_room("top", power_levels=levels, bot="join").plan()
    assert f"kick top {mxid('zed')}" in identities(back.actions)


def test_levels_that_the_bot_cannot_change_are_told_and_not_tried() -> None:
    scenes = Scenes()
    room = scenes.taken("eve", "ann", "gil", level=None, version="12", levels={"ann": 50})
    room = replace(room, power_levels=replace(room.power_levels, foreign={BOT: 100}))
    raised = {**room.power_levels.base, "events": {"m.room.power_levels": 150}}
    above = replace(room, power_levels=replace(room.power_levels, base=raised))
    for admins in (["eve"], []):
        scenes.directory = a_directory(PEOPLE, {"mods": ["bob"], "boss": admins}, roster=scenes.roster)
        scenes.config = a_config(a_space("top", "", ("mods", 50), ("boss", 100)), guards=GENEROUS)
        plan = scenes.scene(above).plan()
        levels = [action for action in of_kind(plan, SetPowerLevel) if action.room == ROOM]
        assert levels == []
        [(severity, text)] = told(plan, ROOM)
        assert severity is Severity.WARNING
        assert "takes level 150, and the bot has 100" in text
        assert f"kick {ROOM} {mxid('gil')}" in identities(plan.actions)
        below = scenes.scene(room).plan()
        assert f"set_power_level {ROOM} {mxid('ann')} 0" in identities(below.actions)
        assert [text for _, text in told(below, ROOM) if "takes level" in text] == []


# -- what follows ---------------------------------------------------------------------------------


def a_take_over(**provisioner: Any) -> Scene:
    """eve's room, with two strangers in it and gil at level 100."""
    scenes = Scenes(**provisioner)
    return scenes.scene(scenes.room("eve", "gil", "hal", levels={"eve": 100, "gil": 100}))


def test_everything_else_in_the_room_waits_for_control() -> None:
    plan = a_take_over().plan()
    others = [action for action in plan.actions if action.identity != CONTROL]
    assert {action.identity for action in others} == {
        f"set_room_state {ROOM} m.room.power_levels",
        f"set_power_level {ROOM} {mxid('eve')} 0",
        f"set_power_level {ROOM} {mxid('gil')} 0",
        f"set_power_level {ROOM} {mxid('bob')} 50",
        f"kick {ROOM} {mxid('gil')}",
        f"kick {ROOM} {mxid('hal')}",
        *(f"invite {ROOM} {mxid(name)}" for name in ("ann", "bob", "cid")),
    }
    assert {action.after for action in others} == {(CONTROL,)}
    assert {action.room_id for action in plan.actions} == {ROOM}
    assert all(action.as_themselves for action in others if isinstance(action, SetPowerLevel) and action.was)


def test_it_is_never_made_nor_put_into_the_space_nor_taken_out_of_it() -> None:
    scene = a_take_over()
    for now in (scene, cycle(scene), accept_invites(cycle(scene))):
        kinds = {str(action.type) for action in now.plan().actions}
        assert not kinds & {"create_room", "create_space", "add_child", "remove_child"}


def test_the_first_kicks_count_against_the_guards_now_and_later() -> None:
    strict = {"guards": {"kicks": {"organisation": {"at_least": 1, "percent": 0}}}}
    scene = a_take_over(**strict)
    kicks = of_kind(scene.plan(), Kick)
    assert [kick.held for kick in kicks] == [True, True]
    # Control is taken; the kicks are still held, not let go of as if we had never seen those people.
    after = cycle(scene)
    assert ROOM in after.observed.rooms
    again = of_kind(after.plan(), Kick)
    assert identities(again) == identities(kicks)
    assert all(isinstance(kick, Kick) and kick.guarded and kick.held for kick in again)


def test_a_second_cycle_has_nothing_to_do() -> None:
    after = accept_invites(cycle(a_take_over(guards=GENEROUS)))
    assert after.members(ROOM) == PEOPLE
    assert after.levels(ROOM) == {"bob": 50}
    marker = after.observed.rooms[ROOM].marker
    assert marker is not None
    assert (marker.key, marker.creator, marker.creator_level) == (ROOM, mxid("eve"), 100)
    assert identities(cycle(after).plan().actions) == []


def test_for_a_person_the_same_as_in_the_whole() -> None:
    scene = a_take_over()
    for keys in (Keys(people=frozenset({mxid("gil"), mxid("ann")})), Keys(rooms=frozenset({ROOM}))):
        whole = [action for action in scene.plan().actions if keys.cover(action)]
        assert identities(scene.plan(keys).actions) == identities(whole)
        assert whole


# -- adopting -------------------------------------------------------------------------------------


def adopted(**changes: Any) -> Scene:
    """A space that the configuration names, made by eve, with gil and a room of its own in it."""
    config = a_config(
        a_space("top", "", ("mods", 50), room="!old:example.com"), default_rooms=[{"id": "talk"}]
    )
    directory = a_directory(PEOPLE, {"mods": ["bob"]}, roster=Roster())
    old = a_room_of_people(directory.roster, "!old:example.com", ["eve", "gil"], rule="invite")
    old = replace(old, is_space=True, state={"m.room.name": {"name": "Old"}}, **changes)
    observed = an_observed(directory.roster, PEOPLE, unmanaged=[old])
    return Scene(config, directory, observed, Recorded(fresh=False, source="ldif"))


def test_adopting_shows_who_would_be_kicked_and_demoted() -> None:
    plan = adopted().plan()
    assert identities(plan.actions) == [
        "take_control top",
        "set_room_state top m.room.name",
        "set_room_state top m.room.power_levels",
        *(f"set_power_level top {mxid(name)} {level}" for name, level in (("bob", 50), ("eve", 0))),
        f"kick top {mxid('gil')}",
        *(f"invite top {mxid(name)}" for name in ("ann", "bob", "cid")),
        "add_child top top/talk",
        "create_room top/talk",
        f"set_power_level top/talk {mxid('bob')} 50",
        *(f"invite top/talk {mxid(name)}" for name in ("ann", "bob", "cid", "eve")),
    ]
    assert {action.room_id for action in plan.actions} == {"!old:example.com", None}
    by_identity = {action.identity: action for action in plan.actions}
    assert by_identity["create_room top/talk"].after == ("take_control top",)
    assert by_identity["add_child top top/talk"].after == ("create_room top/talk", "take_control top")
    [kick] = of_kind(plan, Kick)
    assert isinstance(kick, Kick)
    assert kick.guarded


def test_an_adopted_space_gets_its_rooms_at_once_and_is_then_at_rest() -> None:
    made = cycle(adopted())
    assert set(made.observed.rooms) == {"top", "top/talk"}
    rest = accept_invites(made)
    assert identities(cycle(rest).plan().actions) == []
    assert rest.observed.rooms["top"].room_id == "!old:example.com"
    assert told(rest.plan(), "top") == []


def test_an_adopted_space_that_is_in_another_one_is_moved_at_once() -> None:
    scene = adopted()
    side = a_room(scene.roster, "side", PEOPLE)
    side = replace(side, children={"!old:example.com": Child("!old:example.com", sender=mxid("eve"))})
    config = a_config(
        a_space("top", "", ("mods", 50), room="!old:example.com"), a_space("side", ""), default_rooms=[]
    )
    plan = replace(scene, config=config, observed=replace(scene.observed, rooms={"side": side})).plan()
    [moved] = of_kind(plan, RemoveChild)
    assert (moved.identity, moved.after) == ("remove_child side top", ("take_control top",))
    assert moved.reason == "stands at the top"


def test_a_space_that_nobody_can_hand_over_is_an_error_and_no_second_one_is_made() -> None:
    scene = adopted()
    powerless = adopted(joined=scene.roster.people(["ann"]))
    plan = powerless.plan()
    assert plan.actions == ()
    [(severity, text)] = told(plan, "top")
    assert severity is Severity.ERROR
    assert text.startswith("Old (!old:example.com) can't be managed: no member of our homeserver can give")


def test_a_space_that_is_not_there_is_not_made_either() -> None:
    scene = adopted()
    plan = replace(scene, observed=replace(scene.observed, unmanaged={})).plan()
    assert plan.actions == ()
    assert [severity for severity, _ in told(plan, "top")] == [Severity.ERROR]


# -- spaces that are given up ----------------------------------------------------------------------

ON: Mapping[str, Any] = {"gc": {"enabled": True}, "guards": GENEROUS}


def with_lab(**provisioner: Any) -> Scene:
    """`top` is configured; `lab` is not any more, with people of all kinds and a default room in it."""
    scenes = Scenes(**provisioner)
    talk = a_room(scenes.roster, "lab/talk", ["ann", "bob"], levels={"bob": 50})
    lab = a_room(
        scenes.roster,
        "lab",
        ["ann", "bob"],
        invited=["cid"],
        knocking=["eve"],
        foreign=["@zoe:example.org"],
        children=["lab/talk"],
    )
    return scenes.scene(lab, talk, children=False)


def test_everybody_is_removed_and_the_bot_last() -> None:
    plan = with_lab(**ON, allowed_users=["@ann:.*"]).plan()
    kicks = [action for action in plan.actions if isinstance(action, Kick)]
    assert [kick.person for kick in kicks] == [
        *(mxid(name) for name in ("ann", "bob", "cid", "eve")),
        "@zoe:example.org",
    ]
    assert {kick.room for kick in kicks} == {"lab"}
    assert all(kick.guarded and kick.reason == "space is no longer configured" for kick in kicks)
    [abandon] = [action for action in plan.actions if isinstance(action, AbandonSpace)]
    assert abandon.after == tuple(sorted(identities(kicks)))
    assert "an abandoned space can't be had back" in abandon.reason
    [release] = [action for action in plan.actions if isinstance(action, ReleaseRoom)]
    assert (release.room, release.space) == ("lab/talk", "lab")
    assert release.reason == "its space lab is no longer configured"
    assert len(plan.actions) == len(kicks) + 2


def test_the_guards_count_the_people_and_the_space_waits_for_them() -> None:
    guards = {"kicks": {"organisation": {"at_least": 2, "percent": 0}}}
    plan = with_lab(gc={"enabled": True}, guards=guards).plan()
    assert {str(action.type) for action in plan.held} == {"kick", "abandon_space"}


def test_a_unit_that_is_gone_from_the_directory_is_given_up_too() -> None:
    scenes = Scenes(**ON)
    unit = a_room(scenes.roster, "tree:1", ["ann"])
    plan = scenes.scene(unit, children=False).plan()
    assert {action.reason for action in plan.actions} == {
        "unit is no longer in the directory",
        "unit is no longer in the directory; an abandoned space can't be had back",
    }


def test_a_mirrored_space_is_told_by_its_name() -> None:
    scenes = Scenes(**ON)
    room = scenes.taken("eve")
    unit = with_child(a_room(scenes.roster, "tree:1", state={"m.room.name": {"name": " Far  East "}}), ROOM)
    [release] = of_kind(scenes.scene(unit, room, children=False).plan(), ReleaseRoom)
    assert release.reason == "its space Far East is no longer configured"


def test_off_it_is_only_told() -> None:
    plan = with_lab().plan()
    assert plan.actions == ()
    [(severity, text)] = told(plan, "lab")
    assert severity is Severity.INFO
    assert "can't be had back" in text
    [(severity, text)] = told(plan, "lab/talk")
    assert severity is Severity.INFO
    assert text.startswith(
        f"its space lab is no longer configured; {room_id_of('lab/talk')} is left as it is"
    )


def test_given_up_spaces_are_left_and_never_made_again() -> None:
    after = cycle(with_lab(**ON))
    assert set(after.observed.rooms) == {"top"}
    assert identities(after.plan().actions) == []
    again = replace(after, config=a_config(a_space("top", ""), a_space("lab", ""), **ON))
    assert [action.room for action in again.plan().actions if action.type.startswith("create")] == []
    assert [severity for severity, _ in told(again.plan(), "lab")] == [Severity.ERROR]


def test_who_stands_above_us_leaves_by_themselves_and_strangers_above_us_are_told() -> None:
    scenes = Scenes(**ON)
    lab = a_room(
        scenes.roster,
        "lab",
        ["ann", "bob"],
        version="11",
        levels={"ann": 100},
        foreign=["@zoe:example.org", "@yan:example.org"],
        foreign_levels={"@zoe:example.org": 100},
    )
    plan = scenes.scene(lab, children=False).plan()
    kicks = {action.person: action.as_themselves for action in plan.actions if isinstance(action, Kick)}
    assert kicks == {mxid("ann"): True, mxid("bob"): False, "@yan:example.org": False}
    [(severity, text)] = told(plan, "lab")
    assert severity is Severity.WARNING
    assert text.startswith("@zoe:example.org can't be removed")


# -- rooms that are released ----------------------------------------------------------------------


def released(scene: Scene) -> ReleaseRoom:
    [action] = scene.plan().actions
    assert isinstance(action, ReleaseRoom)
    return action


def test_a_room_of_people_that_left_the_space_gets_its_creator_back() -> None:
    scenes = Scenes(**ON)
    action = released(scenes.scene(scenes.taken("eve", "ann"), children=False))
    assert (action.room, action.room_id, action.space) == (ROOM, ROOM, ROOM)
    assert (action.restore, action.tombstone_level, action.leaves) == ({mxid("eve"): 100}, None, True)
    assert action.reason == "is in none of the spaces any more"


def test_a_room_of_people_that_was_made_private_is_let_go_of() -> None:
    scenes = Scenes(**ON)
    action = released(scenes.scene(scenes.taken("eve", rule="invite")))
    assert (action.space, action.reason) == ("top", "was made private")
    assert scenes.scene(scenes.taken("eve", "ann", "bob", "cid", levels={"bob": 50})).plan().actions[
        0
    ].type != ("release_room")


def test_a_room_that_lets_others_in_instead_is_let_go_of() -> None:
    scenes = Scenes(**ON)
    action = released(scenes.scene(scenes.taken("eve", allow=["elsewhere"])))
    assert action.reason == "does not let the members of top in any more, or nobody vouches for it there"


@pytest.mark.parametrize(
    ("joined", "level", "version", "restore"),
    [
        (["eve", "ann"], 100, "11", True),
        # They had less than 100, stood above all, or are gone: nothing of theirs was taken.
        (["eve", "ann"], 50, "11", False),
        (["eve", "ann"], None, "12", False),
        (["ann"], 100, "11", False),
    ],
)
def test_the_creator_gets_back_what_we_took_if_they_are_there(
    *, joined: list[str], level: int | None, version: str, restore: bool
) -> None:
    scenes = Scenes(**ON)
    room = scenes.taken(*joined, level=level, version=version, creator=mxid("eve"))
    action = released(scenes.scene(room, children=False))
    assert action.restore == ({mxid("eve"): 100} if restore else {})


def test_nothing_is_given_back_that_they_have() -> None:
    scenes = Scenes(**ON)
    room = scenes.taken("eve", levels={"eve": 100})
    assert released(scenes.scene(room, children=False)).restore == {}


@pytest.mark.parametrize(
    ("joined", "levels", "version", "leaves"),
    [
        (["ann", "bob"], {"bob": 50}, "12", True),
        (["ann", "bob"], {"bob": 49}, "12", False),
        (["ann"], {"bob": 50}, "12", False),
        ([], {}, "12", False),
    ],
)
def test_the_bot_leaves_only_if_somebody_can_let_it_in_again(
    *, joined: list[str], levels: dict[str, int], version: str, leaves: bool
) -> None:
    scenes = Scenes(**ON)
    room = a_room(scenes.roster, "lab/talk", joined, levels=levels, version=version)
    scene = scenes.scene(room, children=False)
    action = released(scene)
    assert (action.leaves, action.restore, action.tombstone_level) == (leaves, {}, 50)
    assert [severity for severity, _ in told(scene.plan(), "lab/talk")] == (
        [] if leaves else [Severity.WARNING]
    )


def test_the_creator_of_a_version_12_room_can_always_let_us_in() -> None:
    scenes = Scenes(**ON)
    room = scenes.taken("eve", level=None, version="12")
    room = replace(room, power_levels=replace(room.power_levels, base={"invite": 100}))
    assert released(scenes.scene(room, children=False)).leaves


def test_where_anybody_may_invite_anybody_can_let_us_in() -> None:
    scenes = Scenes(**ON)
    room = scenes.taken("ann", creator=mxid("eve"))
    assert released(scenes.scene(room, children=False)).leaves
    closed = replace(room, power_levels=replace(room.power_levels, base={"invite": 50}))
    assert not released(scenes.scene(closed, children=False)).leaves


def test_in_older_versions_moderators_can_close_the_room_as_it_is() -> None:
    scenes = Scenes(**ON)
    room = a_room(scenes.roster, "lab/talk", ["bob"], levels={"bob": 50}, version="11")
    assert released(scenes.scene(room, children=False)).tombstone_level is None


def test_a_room_in_which_the_bot_stays_is_released_once() -> None:
    scenes = Scenes(**ON)
    scene = scenes.scene(a_room(scenes.roster, "lab/talk", ["ann"]), children=False)
    after = cycle(scene)
    assert after.observed.rooms["lab/talk"].bot == "join"
    assert identities(after.plan().actions) == []
    assert [severity for severity, _ in told(after.plan(), "lab/talk")] == [Severity.WARNING]
    taken = cycle(scenes.scene(scenes.taken("gil", creator=mxid("eve"), rule="invite"), children=True))
    assert ROOM not in taken.observed.rooms
    assert identities(taken.plan().actions) == []


def broken_off(*joined: str, **provisioner: Any) -> Scene:
    """A room of people of which a release has emptied the marker; then the bot could not leave."""
    scenes = Scenes(**provisioner)
    room = scenes.taken(*joined, levels={"ann": 50}, creator=mxid("eve"))
    room = replace(room, power_levels=replace(room.power_levels, base={"invite": 50}))
    scene = scenes.scene(room, children=False)
    rooms = {"top": scene.observed.rooms["top"]}
    half = {room.room_id: replace(room, marker=None)}
    return replace(scene, observed=replace(scene.observed, rooms=rooms, unmanaged=half))


def test_a_release_that_broke_off_before_the_bot_left_is_done_to_its_end() -> None:
    scene = broken_off("eve", "ann", **ON)
    action = released(scene)
    assert (action.room, action.room_id, action.restore, action.leaves) == (ROOM, ROOM, {}, True)
    after = cycle(scene)
    assert identities(after.plan().actions) == []
    assert told(after.plan(), ROOM) == []


def test_a_release_that_broke_off_is_told_where_it_cannot_be_done() -> None:
    stays = broken_off("eve", **ON).plan()
    assert stays.actions == ()
    assert [severity for severity, _ in told(stays, ROOM)] == [Severity.WARNING]
    off = broken_off("eve", "ann").plan()
    assert off.actions == ()
    assert [severity for severity, _ in told(off, ROOM)] == [Severity.INFO]


def test_what_was_never_ours_or_is_to_be_ours_is_not_released_for_want_of_a_marker() -> None:
    scene = broken_off("eve", "ann", **ON)
    rooms = {key: room for key, room in scene.recorded.rooms.items() if key != ROOM}
    unknown = replace(scene, recorded=replace(scene.recorded, rooms=rooms)).plan()
    assert (unknown.actions, told(unknown, ROOM)) == ((), [])
    top = with_child(scene.observed.rooms["top"], ROOM, mxid("eve"))
    wanted = replace(scene, observed=replace(scene.observed, rooms={"top": top}))
    assert of_kind(wanted.plan(), ReleaseRoom) == []
    assert CONTROL in identities(wanted.plan().actions)
    blind = replace(scene, observed=replace(scene.observed, unseen={room_id_of("top"): "502"}))
    assert blind.plan().actions == ()


def test_released_rooms_keep_their_people_and_come_back_when_they_are_open_again() -> None:
    scenes = Scenes(**ON)
    room = a_room(scenes.roster, "lab/talk", ["ann", "bob"], levels={"bob": 50})
    after = cycle(scenes.scene(room, children=False))
    assert "lab/talk" not in after.observed.rooms
    # Somebody puts it into a space of ours: what is needed is an invite, our level is still there.
    left = replace(room, bot="leave", power_levels=replace(room.power_levels, foreign={}), state=OPEN_TO_TOP)
    top = with_child(after.observed.rooms["top"], room.room_id, mxid("bob"))
    observed = replace(after.observed, rooms={"top": top}, unmanaged={room.room_id: left})
    again = replace(after, observed=observed)
    found = control(again)
    assert found is not None
    assert (found.room, found.acting_as, found.invites) == ("lab/talk", mxid("bob"), True)
    assert found.creator == BOT
    back = accept_invites(cycle(again))
    assert back.members("lab/talk") == PEOPLE
    assert identities(cycle(back).plan().actions) == []


OPEN_TO_TOP: Mapping[str, Any] = {
    "m.room.join_rules": {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": room_id_of("top")}],
    }
}


def closed_by_people(**provisioner: Any) -> Scene:
    """A default room that was made open, and that somebody has made private since."""
    scenes = Scenes()
    scenes.config = a_config(a_space("top", ""), default_rooms=[{"id": "talk"}], **provisioner)
    talk = a_room(scenes.roster, "top/talk", ["bob"], levels={"bob": 50}, state=PRIVATE)
    scene = scenes.scene(talk)
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "space": "top"}]}
    rooms = {
        **scene.recorded.rooms,
        "top/talk": RecordedRoom("top/talk", talk.room_id, {"m.room.join_rules": rules}),
    }
    return replace(scene, recorded=replace(scene.recorded, rooms=rooms))


def test_off_it_is_told_of_a_default_room_that_was_made_private_and_it_stays_ours() -> None:
    scene = closed_by_people(guards=GENEROUS)
    talk = scene.observed.rooms["top/talk"]
    [(severity, text)] = told(scene.plan(), "top/talk")
    assert severity is Severity.INFO
    assert text == (
        f"was made private; {talk.room_id} stays managed all the same: with provisioner.gc.enabled it would "
        "be released, and its members would stay"
    )
    assert f"invite top/talk {mxid('ann')}" in identities(scene.plan().actions)
    # Neither if it is open, nor if we are out of it, nor while nobody knows what it was given.
    for changes in ({"state": OPEN_TO_TOP}, {"bot": "leave"}):
        assert told(scene.with_room("top/talk", **changes).plan(), "top/talk") == []
    unknown = {**scene.recorded.rooms, "top/talk": RecordedRoom("top/talk", talk.room_id, None)}
    forgotten = replace(scene, recorded=replace(scene.recorded, rooms=unknown))
    assert told(forgotten.plan(), "top/talk") == []
    assert told(closed_by_people(**ON).plan(), "top/talk") == []


def test_a_default_room_that_we_left_is_not_made_again() -> None:
    scene = closed_by_people(**ON)
    [action] = of_kind(scene.plan(), ReleaseRoom)
    assert action.reason == "was made private"
    after = cycle(scene)
    assert "top/talk" not in after.observed.rooms
    assert [action for action in after.plan().actions if action.room == "top/talk"] == []


@pytest.mark.parametrize("gc", [True, False])
@pytest.mark.parametrize("rooms", [[], [{"id": "talk"}]])
def test_what_the_bot_left_and_still_sees_is_not_let_go_of_again_nor_taken_back(
    *, gc: bool, rooms: list[dict[str, str]]
) -> None:
    """A mirror may show rooms that we are out of."""
    scenes = Scenes()
    scenes.config = a_config(a_space("top", ""), default_rooms=rooms, guards=GENEROUS, gc={"enabled": gc})
    talk = a_room(scenes.roster, "top/talk", ["bob"], levels={"bob": 50}, state=PRIVATE)
    lab = a_room(scenes.roster, "lab")
    scene = scenes.scene(talk, lab)
    seen = {**scene.observed.rooms, **{room.key: replace(room, bot="leave") for room in (talk, lab)}}
    plan = replace(scene, observed=replace(scene.observed, rooms=seen)).plan()
    assert [action for action in plan.actions if action.room != "top"] == []
    assert told(plan, "top/talk") == told(plan, "lab") == []


def test_a_default_room_that_is_open_and_that_we_are_out_of_is_taken_back() -> None:
    scenes = Scenes()
    scenes.config = a_config(a_space("top", ""), default_rooms=[{"id": "talk"}])
    talk = a_room(scenes.roster, "top/talk", ["bob"], levels={"bob": 50}, state=OPEN_TO_TOP)
    scene = scenes.scene(talk)
    seen = {**scene.observed.rooms, "top/talk": replace(talk, bot="leave")}
    found = control(replace(scene, observed=replace(scene.observed, rooms=seen)))
    assert found is not None
    assert (found.room, found.acting_as, found.invites) == ("top/talk", mxid("bob"), True)


def test_a_replaced_room_stays_as_it_is() -> None:
    scenes = Scenes(**ON)
    plan = scenes.scene(scenes.taken("gil", creator=mxid("eve"), replacement="!new:example.com")).plan()
    assert plan.actions == ()
    assert told(plan, ROOM) == []


def test_while_a_space_cannot_be_seen_nothing_is_released_that_may_be_in_it() -> None:
    scenes = Scenes(**ON)
    scene = scenes.scene(scenes.taken("eve"), children=False)
    assert of_kind(scene.plan(), ReleaseRoom)
    blind = scene.without_room("top")
    assert of_kind(blind.plan(), ReleaseRoom) == []
    private = scenes.scene(scenes.taken("eve", rule="invite"), children=False).without_room("top")
    assert of_kind(private.plan(), ReleaseRoom)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_space_that_is_told_as_it_was_is_not_seen(*, recorded: bool) -> None:
    scenes = Scenes(**ON)
    scene = scenes.scene(scenes.taken("eve"), children=False)
    if not recorded:
        rooms = {key: room for key, room in scene.recorded.rooms.items() if key != "top"}
        scene = replace(scene, recorded=replace(scene.recorded, rooms=rooms))
    assert of_kind(scene.plan(), ReleaseRoom)
    unseen = {scenes.top.room_id: "502"}
    stale = replace(scene, observed=replace(scene.observed, unseen=unseen))
    assert of_kind(stale.plan(), ReleaseRoom) == []


def told_as_it_was(scene: Scene, key: str) -> Scene:
    """That room can't be read: it may be another by now."""
    unseen = {scene.observed.rooms[key].room_id: "502"}
    return replace(scene, observed=replace(scene.observed, unseen=unseen))


@pytest.mark.parametrize("gc", [True, False])
def test_what_is_told_as_it_was_itself_is_not_let_go_of(*, gc: bool) -> None:
    scenes = Scenes(**{**ON, "gc": {"enabled": gc}})
    closed = scenes.scene(scenes.taken("eve", "ann", rule="invite"), children=True)
    old = scenes.scene(a_room(scenes.roster, "old", ["ann"]), children=False)
    for scene, key, kind in ((closed, ROOM, "release_room"), (old, "old", "abandon_space")):
        plan = scene.plan()
        assert (kind in {action.type for action in plan.actions}) is gc
        assert bool(told(plan, key)) is not gc
        stale = told_as_it_was(scene, key).plan()
        assert [action for action in stale.actions if action.room == key] == []
        assert [text for _, text in told(stale, key) if "released" in text or "removed" in text] == []


def test_a_default_room_that_was_private_when_it_was_read_last_stays_ours_with_all_who_are_in_it() -> None:
    scene = closed_by_people(**ON).with_room("top/talk", joined=["bob", "gil"], levels={"bob": 50, "gil": 70})
    assert of_kind(scene.plan(), ReleaseRoom)
    stale = told_as_it_was(scene, "top/talk")
    done = [action for action in stale.plan().actions if action.room == "top/talk"]
    assert not any(isinstance(action, (ReleaseRoom, Kick, SetPowerLevel)) for action in done)
    assert f"invite top/talk {mxid('ann')}" in identities(done)
    assert told(told_as_it_was(closed_by_people(guards=GENEROUS), "top/talk").plan(), "top/talk") == []


def test_for_keys_the_same_as_in_the_whole() -> None:
    scene = with_lab(**ON)
    for keys in (
        Keys(rooms=frozenset({"lab"})),
        Keys(rooms=frozenset({"lab/talk"})),
        Keys(people=frozenset({mxid("ann")})),
    ):
        whole = [action for action in scene.plan().actions if keys.cover(action)]
        assert identities(scene.plan(keys).actions) == identities(whole)
        assert whole
