"""The diff: what is done about which difference, in which order, and how it is explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aim.directory.model import Directory, Severity
from aim.planner.actions import (
    AddChild,
    AnyAction,
    CreateRoom,
    Kick,
    RemoveChild,
    SetPowerLevel,
    SetRoomState,
)
from aim.planner.keys import Keys
from aim.planner.plan import Plan
from aim.world.recorded import Recorded, RecordedRoom
from tests.unit.model import LEVELS, ModelHomeserver, mxid
from tests.unit.worlds import (
    NOW,
    Scene,
    a_config,
    a_directory,
    a_room,
    a_scene,
    a_space,
    a_user,
    accept_invites,
    cycle,
    identities,
    provisioned,
    room_id_of,
)

STAFF = ["ann", "bob", "cid"]
GROUPS = {"mods": ["ann"], "lab": ["bob"]}
COMPANY = a_config(a_space("all", "", ("mods", 50), subspaces=[a_space("lab", "lab")]))


def company() -> Scene:
    """Everybody is in `all`, bob in `lab` too; ann moderates `all`."""
    return provisioned(COMPANY, a_directory(STAFF, GROUPS))


def with_directory(scene: Scene, users: list[Any], groups: dict[str, list[str]] | None = None) -> Scene:
    return replace(scene, directory=a_directory(users, groups or GROUPS, roster=scene.roster))


def only(plan: Plan) -> AnyAction:
    [action] = plan.actions
    return action


def reasons(plan: Plan) -> dict[str, str]:
    return {action.identity: action.reason for action in plan.actions}


def problems(plan: Plan, subject: str) -> list[tuple[Severity, str]]:
    return [(problem.severity, problem.message) for problem in plan.problems if problem.subject == subject]


# -- making spaces and rooms ----------------------------------------------------------------------


def test_a_first_plan_in_its_order() -> None:
    config = a_config(
        a_space("all", "", ("mods", 50), subspaces=[a_space("lab", "lab")]), default_rooms=[{"id": "talk"}]
    )
    plan = a_scene(config, a_directory(STAFF, GROUPS)).plan()
    assert identities(plan.actions) == [
        "create_space all",
        "set_power_level all @ann:example.com 50",
        "invite all @ann:example.com",
        "invite all @bob:example.com",
        "invite all @cid:example.com",
        "add_child all all/talk",
        "add_child all lab",
        "create_room all/talk",
        "set_power_level all/talk @ann:example.com 50",
        "invite all/talk @ann:example.com",
        "invite all/talk @bob:example.com",
        "invite all/talk @cid:example.com",
        "create_space lab",
        "invite lab @bob:example.com",
        "add_child lab lab/talk",
        "create_room lab/talk",
        "invite lab/talk @bob:example.com",
    ]
    after = {action.identity: action.after for action in plan.actions}
    assert after["create_space all"] == ()
    assert after["create_space lab"] == ("create_space all",)
    assert after["create_room lab/talk"] == ("create_space lab",)
    assert after["add_child all lab"] == ("create_space all", "create_space lab")
    assert after["invite all @ann:example.com"] == ("create_space all",)
    assert after["set_power_level all/talk @ann:example.com 50"] == ("create_room all/talk",)


def test_a_new_space_has_complete_power_levels_and_its_name() -> None:
    action = a_scene(a_config(a_space("all")), a_directory([])).plan().actions[0]
    assert isinstance(action, CreateRoom)
    assert (action.name, action.parent, action.room_version) == ("All", None, None)
    assert action.power_levels["ban"] == 50
    assert action.state == {"m.room.name": {"name": "All"}}


def test_a_new_subspace_of_a_space_that_exists_is_added_to_it() -> None:
    scene = replace(
        company(),
        config=a_config(a_space("all", "", ("mods", 50), subspaces=[a_space("lab", "lab"), a_space("new")])),
    )
    plan = scene.plan()
    assert identities(plan.actions) == ["add_child all new", "create_space new"]
    assert plan.actions[0].after == ("create_space new",)
    assert plan.actions[1].after == ()


# -- members --------------------------------------------------------------------------------------


def test_nothing_to_do_is_an_empty_plan() -> None:
    plan = company().plan()
    assert (plan.actions, plan.problems, plan.pending) == ((), (), 0)


def test_somebody_new_is_invited() -> None:
    scene = company()
    scene = replace(scene, observed=replace(scene.observed, accounts=scene.roster.people([*STAFF, "dan"])))
    action = only(with_directory(scene, [*STAFF, "dan"]).plan())
    assert (action.identity, action.reason, action.room_id) == (
        "invite all @dan:example.com",
        "in the directory",
        scene.observed.rooms["all"].room_id,
    )


@pytest.mark.parametrize(
    ("users", "groups", "reason"),
    [
        (["ann", "bob"], GROUPS, "no longer in the directory"),
        ([*STAFF[:2], a_user("cid", active=False)], GROUPS, "disabled in the directory"),
    ],
)
def test_who_left_is_removed_and_told_why(
    users: list[Any], groups: dict[str, list[str]], reason: str
) -> None:
    action = only(with_directory(company(), users, groups).plan())
    assert (action.identity, action.reason) == ("kick all @cid:example.com", reason)
    assert isinstance(action, Kick)
    assert action.guarded


def test_who_moves_between_groups_is_told_of_the_groups() -> None:
    config = a_config(
        a_space("all", "", subspaces=[a_space("lab", "lab", ("chiefs", 50)), a_space("shop", "shop")])
    )
    groups = {"lab": ["bob"], "shop": ["cid"], "chiefs": []}
    scene = provisioned(config, a_directory(STAFF, groups))
    moved = with_directory(scene, STAFF, {"lab": [], "shop": ["bob", "cid"], "chiefs": []})
    assert reasons(moved.plan()) == {
        "kick lab @bob:example.com": "no longer in lab or chiefs",
        "invite shop @bob:example.com": "member of shop",
    }


def test_many_groups_are_counted() -> None:
    groups = {f"g{number}": ["ann"] for number in range(5)}
    scene = provisioned(a_config(a_space("all", *groups)), a_directory(["ann"], groups))
    moved = with_directory(scene, ["ann"], {key: [] for key in groups})
    assert only(moved.plan()).reason == "no longer in g0 or g1 or 3 more groups"


def test_members_through_subspaces_are_told_the_way() -> None:
    config = a_config(a_space("a", subspaces=[a_space("b", subspaces=[a_space("c", "lab")])]))
    plan = a_scene(config, a_directory(["bob"], GROUPS)).plan()
    assert reasons(plan)["invite a @bob:example.com"] == "in its subspace b: in its subspace c: member of lab"
    # And when they lose it: the space has no groups of its own to name.
    gone = with_directory(
        accept_invites(cycle(a_scene(config, a_directory(["bob"], GROUPS)))), ["bob"], {"lab": []}
    )
    assert reasons(gone.plan())["kick a @bob:example.com"] == "no longer in any subspace"


def test_a_stranger_is_removed_without_counting() -> None:
    scene = company().with_room("all", joined=[*STAFF, "eve"])
    action = only(scene.plan())
    assert isinstance(action, Kick)
    assert (action.identity, action.reason, action.guarded) == (
        "kick all @eve:example.com",
        "not in the directory",
        False,
    )


def test_a_colleague_who_wandered_in_is_told_which_groups_are_meant() -> None:
    scene = company().with_room("lab", joined=["bob", "ann"])
    assert only(scene.plan()).reason == "not in lab"


def test_an_invite_to_who_should_not_come_is_taken_back() -> None:
    scene = company().with_room("lab", invited=["cid"])
    assert only(scene.plan()).identity == "kick lab @cid:example.com"


def test_where_nobody_knows_who_was_entitled_everybody_counts() -> None:
    scene = company().with_room("all", joined=[*STAFF, "eve"])
    scene = replace(scene, recorded=replace(scene.recorded, entitled={}))
    action = only(scene.plan())
    assert isinstance(action, Kick)
    assert action.guarded


def test_the_banned_stay_banned_and_are_a_note() -> None:
    scene = company().with_room("all", joined=["ann", "bob"], banned=["cid"])
    plan = scene.plan()
    assert plan.actions == ()
    assert problems(plan, "all") == [(Severity.INFO, "entitled but banned, and stays so: @cid:example.com")]


def test_who_left_a_space_is_asked_again_after_a_day() -> None:
    left = int(NOW.timestamp() * 1000)
    scene = company().with_room("all", joined=["ann", "bob"], left={"cid": left})
    assert scene.later(hours=23, minutes=59).plan().actions == ()
    assert only(scene.later(hours=24).plan()).identity == "invite all @cid:example.com"


def test_who_left_a_room_is_not_asked_again() -> None:
    config = a_config(a_space("all", ""), default_rooms=[{"id": "talk"}])
    scene = provisioned(config, a_directory(STAFF))
    scene = scene.with_room("all/talk", joined=["ann", "bob"], left={"cid": int(NOW.timestamp() * 1000)})
    assert scene.later(days=400).plan().actions == ()


def test_without_invites_to_rooms_they_are_for_spaces_only() -> None:
    config = a_config(a_space("all", ""), default_rooms=[{"id": "talk"}], invite_to_public_rooms=False)
    plan = a_scene(config, a_directory(["ann"])).plan()
    assert [action.room for action in plan.actions if action.type == "invite"] == ["all"]
    # Whoever joins a room by themselves and may be there stays; who may not does not.
    scene = cycle(a_scene(config, a_directory(["ann"]))).with_room("all/talk", joined=["ann", "eve"])
    assert only(scene.plan()).identity == "kick all/talk @eve:example.com"


# -- people without an account --------------------------------------------------------------------


def test_who_has_no_account_waits_for_it_and_is_named() -> None:
    scene = a_scene(COMPANY, a_directory(STAFF, GROUPS), ["bob"])
    plan = scene.plan()
    assert [action.identity for action in plan.actions if action.type in {"invite", "set_power_level"}] == [
        "invite all @bob:example.com",
        "invite lab @bob:example.com",
    ]
    assert plan.pending == 2
    [(severity, message)] = problems(plan, "pending")
    assert severity is Severity.INFO
    assert message.startswith("2 users have no account yet")
    assert "@ann:example.com, @cid:example.com" in message
    after = cycle(scene)
    assert after.plan().actions == ()
    arrived = replace(after, observed=replace(after.observed, accounts=after.roster.people(STAFF)))
    assert identities(arrived.plan().actions) == [
        "set_power_level all @ann:example.com 50",
        "invite all @ann:example.com",
        "invite all @cid:example.com",
    ]


def test_only_who_is_entitled_to_something_waits() -> None:
    plan = a_scene(a_config(a_space("lab", "lab")), a_directory(STAFF, GROUPS), []).plan()
    assert plan.pending == 1
    [(_, message)] = problems(plan, "pending")
    assert message.startswith("1 user")
    assert "@bob:example.com" in message
    assert "@ann:example.com" not in message


def test_many_who_wait_are_counted() -> None:
    plan = a_scene(
        a_config(a_space("all", "")), a_directory([f"u{number}" for number in range(9)]), []
    ).plan()
    [(_, message)] = problems(plan, "pending")
    assert message.startswith("9 users")
    assert message.endswith("and 4 more")


def test_invite_before_first_login_waits_for_nobody() -> None:
    config = a_config(a_space("all", "", ("mods", 50)), invite_before_first_login=True)
    plan = a_scene(config, a_directory(STAFF, GROUPS), []).plan()
    assert len([action for action in plan.actions if action.type == "invite"]) == 3
    assert "set_power_level all @ann:example.com 50" in identities(plan.actions)
    assert (plan.pending, plan.problems) == (0, ())


# -- power levels ---------------------------------------------------------------------------------


def test_promotion_and_demotion_with_their_reasons() -> None:
    plan = with_directory(company(), STAFF, {"mods": ["cid"], "lab": ["bob"]}).plan()
    down, up = plan.actions
    assert isinstance(down, SetPowerLevel)
    assert isinstance(up, SetPowerLevel)
    assert (down.person, down.was, down.level, down.is_demotion) == (mxid("ann"), 50, 0, True)
    assert (up.person, up.was, up.level, up.is_demotion) == (mxid("cid"), 0, 50, False)
    assert up.reason == "member of mods, which gives level 50"
    assert down.reason == "no group of theirs gives more than level 0 here"


def test_who_was_promoted_by_somebody_else_is_demoted() -> None:
    action = only(company().with_room("all", levels={"ann": 50, "bob": 100}).plan())
    assert isinstance(action, SetPowerLevel)
    assert (action.person, action.was, action.level) == (mxid("bob"), 100, 0)


def test_a_stranger_with_a_level_loses_it_too() -> None:
    scene = company().with_room("all", levels={"ann": 50, "eve": 50})
    assert only(scene.plan()).reason == "not in the directory"


def test_levels_that_guard_the_room_are_put_back_whole() -> None:
    scene = company()
    room = scene.observed.rooms["all"]
    base = {**room.power_levels.base, "events": {"m.room.power_levels": 50}, "state_default": 0}
    scene = scene.with_room("all", power_levels=replace(room.power_levels, base=base))
    action = only(scene.plan())
    assert isinstance(action, SetRoomState)
    assert action.identity == f"set_room_state all {LEVELS}"
    assert action.content["state_default"] == 50
    assert "users" not in action.content
    assert action.content == room.power_levels.base
    assert cycle(scene).plan().actions == ()


def test_keys_that_we_do_not_set_are_nobodys_business() -> None:
    scene = company()
    room = scene.observed.rooms["all"]
    events = room.power_levels.base["events"]
    assert isinstance(events, dict)
    base = {**room.power_levels.base, "historical": 100, "events": {**events, "com.example.poll": 0}}
    scene = scene.with_room("all", power_levels=replace(room.power_levels, base=base))
    assert scene.plan().actions == ()


def test_another_default_level_is_put_back_without_losing_anybodys_own() -> None:
    # ann's 50 went without saying while everybody had it.
    scene = company()
    room = scene.observed.rooms["all"]
    power_levels = replace(room.power_levels, people={}, base={**room.power_levels.base, "users_default": 50})
    scene = cycle(scene.with_room("all", power_levels=power_levels))
    assert scene.levels("all") == {"ann": 50}
    assert scene.observed.rooms["all"].power_levels.users_default == 0


# -- exemptions -----------------------------------------------------------------------------------


def test_allowed_users_may_stay_and_keep_their_level_but_nobody_who_only_looks_like_them() -> None:
    config = a_config(a_space("all", ""), allowed_users=["@audit:example.com", "@bot-.*", "@aud"])
    scene = provisioned(config, a_directory(["ann"]))
    strangers = ["audit", "bot-1", "audit2", "robot-1"]
    scene = scene.with_room("all", joined=["ann", *strangers], levels=dict.fromkeys(strangers, 50))
    assert {action.identity for action in scene.plan().actions} == {
        "set_power_level all @audit2:example.com 0",
        "set_power_level all @robot-1:example.com 0",
        "kick all @audit2:example.com",
        "kick all @robot-1:example.com",
    }


def test_allowed_users_can_still_be_invited_and_promoted() -> None:
    config = a_config(a_space("all", "", ("mods", 50)), allowed_users=[".*"])
    plan = a_scene(config, a_directory(["ann"], GROUPS)).plan()
    assert "set_power_level all @ann:example.com 50" in identities(plan.actions)
    assert "invite all @ann:example.com" in identities(plan.actions)


def test_our_own_account_is_never_touched_whatever_the_directory_says() -> None:
    config = a_config(a_space("all", ("", 50)))
    plan = a_scene(config, a_directory(["ann", "aim"])).plan()
    assert [identity for identity in identities(plan.actions) if "@aim" in identity] == []
    assert len(problems(plan, "@aim:example.com")) == 1


# -- names and properties -------------------------------------------------------------------------

NAME = "m.room.name"


def renamed(scene: Scene, key: str, name: str) -> Scene:
    return scene.with_room(key, state={**scene.observed.rooms[key].state, NAME: {"name": name}})


def test_the_name_of_a_space_is_put_back() -> None:
    action = only(renamed(company(), "all", "Ann's").plan())
    assert isinstance(action, SetRoomState)
    assert (action.event_type, action.content) == (NAME, {"name": "All"})
    assert action.reason == "differs from the configuration"


def test_with_enforce_names_off_it_changes_with_the_configuration_only() -> None:
    config = a_config(a_space("all", ""), enforce_names=False)
    scene = renamed(provisioned(config, a_directory(STAFF)), "all", "Ann's")
    assert scene.plan().actions == ()
    changed = replace(scene, config=a_config(a_space("all", "", name="Everybody"), enforce_names=False))
    action = only(changed.plan())
    assert action.reason == "changed in the configuration"
    after = cycle(changed)
    assert after.observed.rooms["all"].state[NAME] == {"name": "Everybody"}
    assert renamed(after, "all", "Mine").plan().actions == ()


def test_the_one_space_for_everyone_follows_the_source_but_may_be_renamed() -> None:
    scene = provisioned(a_config(), a_directory(STAFF, name="Example"))
    assert renamed(scene, "everyone", "Ours").plan().actions == ()
    moved = replace(scene, directory=a_directory(STAFF, name="Example Ltd", roster=scene.roster))
    assert only(moved.plan()).identity == f"set_room_state everyone {NAME}"


def room_config(**properties: Any) -> Any:
    return a_config(a_space("all", ""), default_rooms=[{"id": "talk", "properties": properties}])


def test_properties_of_rooms_apply_when_the_configuration_changes_and_not_against_moderators() -> None:
    scene = provisioned(room_config(name="Talk", topic="Hello"), a_directory(STAFF))
    scene = renamed(scene, "all/talk", "Chat")
    assert scene.plan().actions == ()
    changed = replace(scene, config=room_config(name="Talk", topic="Welcome"))
    assert identities(changed.plan().actions) == ["set_room_state all/talk m.room.topic"]
    after = cycle(changed)
    assert after.observed.rooms["all/talk"].state["m.room.topic"] == {"topic": "Welcome"}
    assert after.observed.rooms["all/talk"].state[NAME] == {"name": "Chat"}
    assert after.plan().actions == ()


def test_a_property_that_was_taken_out_and_comes_back_applies_again() -> None:
    scene = provisioned(room_config(topic="Hello"), a_directory(STAFF))
    scene = cycle(replace(scene, config=room_config()))
    assert scene.observed.rooms["all/talk"].state["m.room.topic"] == {"topic": "Hello"}
    state = {**scene.observed.rooms["all/talk"].state, "m.room.topic": {"topic": "By a moderator"}}
    scene = scene.with_room("all/talk", state=state)
    assert scene.plan().actions == ()
    again = replace(scene, config=room_config(topic="Hello"))
    assert identities(again.plan().actions) == ["set_room_state all/talk m.room.topic"]


def test_a_join_rule_that_changes_names_the_space_by_its_id_once_it_is_sent() -> None:
    scene = provisioned(room_config(join_rule="invite"), a_directory(STAFF))
    changed = replace(scene, config=room_config())
    action = only(changed.plan())
    assert isinstance(action, SetRoomState)
    assert action.content["allow"] == [{"type": "m.room_membership", "space": "all"}]
    after = cycle(changed)
    assert after.observed.rooms["all/talk"].state["m.room.join_rules"] == {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": scene.observed.rooms["all"].room_id}],
    }
    assert after.plan().actions == ()


def test_rooms_are_suggested_when_the_configuration_says_so_and_not_against_moderators() -> None:
    scene = provisioned(room_config(), a_directory(STAFF))
    changed = replace(scene, config=room_config(suggested=True))
    action = only(changed.plan())
    assert isinstance(action, AddChild)
    assert action.suggested
    after = cycle(changed)
    assert after.plan().actions == ()
    [child] = after.observed.rooms["all"].children.values()
    assert child.suggested
    mine = after.with_room("all", children={child.room_id: replace(child, suggested=False)})
    assert mine.plan().actions == ()


def test_encryption_can_be_turned_on_and_not_off() -> None:
    scene = provisioned(room_config(), a_directory(STAFF))
    on = replace(scene, config=room_config(encrypted=True))
    assert identities(on.plan().actions) == ["set_room_state all/talk m.room.encryption"]
    after = cycle(on)
    off = replace(after, config=room_config(encrypted=False)).plan()
    assert off.actions == ()
    [(severity, message)] = problems(off, "all/talk")
    assert severity is Severity.WARNING
    assert "encryption can't be taken back" in message
    # Not a word where the configuration says nothing of it.
    assert replace(after, config=room_config()).plan().problems == ()


def test_another_room_version_is_a_problem_and_no_action() -> None:
    scene = provisioned(room_config(room_version="11"), a_directory(STAFF))
    assert scene.observed.rooms["all/talk"].version == "11"
    plan = replace(scene, config=room_config(room_version="12")).plan()
    assert plan.actions == ()
    [(severity, message)] = problems(plan, "all/talk")
    assert severity is Severity.WARNING
    assert "room version 11" in message


# -- moved, lost, doubled, deconfigured -----------------------------------------------------------


def test_a_space_that_moved_changes_parents() -> None:
    plan = replace(company(), config=a_config(a_space("all", "", ("mods", 50)), a_space("lab", "lab"))).plan()
    action = only(plan)
    assert isinstance(action, RemoveChild)
    assert (action.identity, action.reason) == ("remove_child all lab", "stands at the top")
    other = a_config(a_space("all", "", ("mods", 50)), a_space("top", subspaces=[a_space("lab", "lab")]))
    scene = replace(company(), config=other)
    assert {
        "add_child top lab": "belongs to top",
        "remove_child all lab": "belongs to top",
    }.items() <= reasons(scene.plan()).items()
    assert cycle(scene).plan().actions == ()


def test_children_that_are_not_ours_are_left_alone() -> None:
    scene = company()
    room = scene.observed.rooms["all"]
    child = replace(next(iter(room.children.values())), room_id="!theirs:example.com")
    scene = scene.with_room("all", children={**room.children, child.room_id: child})
    assert scene.plan().actions == ()


def test_a_child_that_somebody_took_out_is_put_back() -> None:
    assert identities(company().with_room("all", children={}).plan().actions) == ["add_child all lab"]


def test_a_lost_space_is_a_problem_and_no_second_one_is_made() -> None:
    plan = company().without_room("all").plan()
    assert plan.actions == ()
    [(severity, message)] = problems(plan, "all")
    assert severity is Severity.ERROR
    assert "no second one is made" in message


def test_nothing_is_made_for_a_lost_space() -> None:
    config = a_config(
        a_space("all", "", ("mods", 50), subspaces=[a_space("lab", "lab")]), default_rooms=[{"id": "talk"}]
    )
    plan = replace(company().without_room("all"), config=config).plan()
    assert {action.room for action in plan.actions} == {"lab", "lab/talk"}


def test_a_default_room_that_was_given_up_is_not_made_again() -> None:
    scene = provisioned(room_config(), a_directory(STAFF)).without_room("all/talk")
    scene = scene.with_room("all", children={})
    assert scene.plan() == replace(scene.plan(), actions=(), problems=())


def test_two_rooms_with_one_marker_are_told_of_and_one_is_used() -> None:
    scene = company()
    observed = replace(scene.observed, duplicates={"lab": ("!copy:example.com", "!more:example.com")})
    plan = replace(scene, observed=observed).plan()
    assert plan.actions == ()
    [(severity, message)] = problems(plan, "lab")
    assert severity is Severity.WARNING
    assert scene.observed.rooms["lab"].room_id in message
    assert "!copy:example.com, !more:example.com" in message


def test_a_marker_of_a_newer_version_means_hands_off() -> None:
    scene = company().without_room("lab").with_room("all", children={})
    observed = replace(scene.observed, newer={"lab": "!next:example.com"})
    plan = replace(scene, observed=observed, recorded=replace(scene.recorded, rooms={})).plan()
    assert plan.actions == ()
    [(severity, message)] = problems(plan, "lab")
    assert severity is Severity.ERROR
    assert "newer version" in message


def test_a_space_that_is_no_longer_configured_is_mentioned_and_left_as_it_is() -> None:
    plan = replace(company(), config=a_config(a_space("all", "", ("mods", 50)))).plan()
    assert plan.actions == ()
    assert problems(plan, "lab") == [
        (
            Severity.INFO,
            f"is no longer configured; {company().observed.rooms['lab'].room_id} is left as it is: with "
            "provisioner.gc.enabled everybody would be removed from it, "
            "and an abandoned space can't be had back",
        )
    ]


def test_after_the_loss_of_the_database_rooms_keep_what_moderators_made_of_them() -> None:
    scene = renamed(provisioned(room_config(topic="Hello"), a_directory(STAFF)), "all/talk", "Chat")
    scene = replace(scene, recorded=Recorded())
    assert scene.plan().actions == ()
    after = cycle(scene)
    assert after.recorded.rooms.keys() == {"all", "all/talk"}
    assert after.plan().actions == ()


def test_a_room_that_was_broken_off_in_the_making_is_finished() -> None:
    # Made, but never recorded: its state may be anything.
    scene = provisioned(room_config(topic="Hello", suggested=True), a_directory(STAFF))
    scene = scene.with_room("all/talk", state={})
    rooms = {"all": scene.recorded.rooms["all"]}
    scene = replace(scene, recorded=replace(scene.recorded, rooms=rooms))
    assert identities(scene.plan().actions) == [
        "set_room_state all/talk m.room.join_rules",
        "set_room_state all/talk m.room.name",
        "set_room_state all/talk m.room.topic",
    ]
    assert cycle(scene).plan().actions == ()


def test_a_problem_is_told_once() -> None:
    config = a_config(a_space("all", "nobody", "nobody"))
    assert (
        len(
            [
                problem
                for problem in a_scene(config, a_directory([])).plan().problems
                if problem.subject == "all"
            ]
        )
        == 1
    )


# -- parts ----------------------------------------------------------------------------------------


def test_no_keys_are_no_actions_and_all_problems() -> None:
    scene = with_directory(company(), STAFF, {"mods": ["cid"], "lab": ["nobody"]})
    whole, part = scene.plan(), scene.plan(Keys())
    assert part.actions == ()
    assert len(whole.actions) > 0
    assert (part.problems, part.source) == (whole.problems, whole.source)


def test_a_person_is_looked_at_in_every_room_and_nobody_else_is() -> None:
    scene = with_directory(company(), ["ann", "cid"], {"mods": [], "lab": []})
    assert identities(scene.plan(Keys(people=frozenset({mxid("bob")}))).actions) == [
        "kick all @bob:example.com",
        "kick lab @bob:example.com",
    ]
    assert (
        identities(scene.plan(Keys(people=frozenset({"@bob:other.example", "@who:example.com"}))).actions)
        == []
    )


def test_a_room_is_looked_at_with_everything_in_it() -> None:
    scene = with_directory(company(), ["ann", "cid"], {"mods": [], "lab": []})
    assert {action.room for action in scene.plan(Keys(rooms=frozenset({"lab"}))).actions} == {"lab"}


def test_the_model_refuses_what_a_homeserver_would() -> None:
    """The simulator these tests lean on must not be forgiving."""
    scene = company()
    homeserver = ModelHomeserver.from_observed(scene.observed, scene.roster)
    room_id = scene.observed.rooms["all"].room_id
    wrongs: list[Callable[[], object]] = [
        lambda: homeserver.kick(room_id, "@aim:example.com"),
        lambda: homeserver.kick(room_id, "@ann:other.example"),
        lambda: homeserver.invite("!nowhere:example.com", mxid("ann")),
        lambda: homeserver.put_state(room_id, "m.space.child", "!nowhere:example.com", {"via": ["x"]}),
        lambda: homeserver.put_state(room_id, "m.room.join_rules", "", {"allow": [{"space": "all"}]}),
    ]
    for wrong in wrongs:
        with pytest.raises(AssertionError):
            wrong()


def test_observed_rooms_survive_the_model() -> None:
    scene = company()
    room = a_room(
        scene.roster,
        "all",
        ["ann"],
        invited=["bob"],
        banned=["cid"],
        knocking=["dan"],
        left={"eve": 5},
        foreign=["@far:other.example"],
        levels={"ann": 50},
        foreign_levels={"@far:other.example": 10},
        children={"lab": True},
    )
    assert room.room_id == room_id_of("all")
    observed = replace(scene.observed, rooms={"all": room})
    again = ModelHomeserver.from_observed(observed, scene.roster).observe(scene.roster, {})
    assert again == observed


def test_recorded_properties_decide_only_with_the_room() -> None:
    scene = provisioned(room_config(name="Talk"), a_directory(STAFF))
    known = RecordedRoom("all/talk", scene.observed.rooms["all/talk"].room_id, None)
    scene = replace(
        scene, recorded=replace(scene.recorded, rooms={**scene.recorded.rooms, "all/talk": known})
    )
    assert replace(scene, config=room_config(name="Chat")).plan().actions == ()


def test_a_group_that_is_not_found_removes_nobody_who_is_in_the_directory() -> None:
    config = a_config(
        a_space("all", "", subspaces=[a_space("lab", ("lab", 50), "guests"), a_space("shop", "shop")]),
    )
    groups = {"lab": ["ann"], "guests": ["bob"], "shop": ["cid"]}
    scene = provisioned(config, a_directory(STAFF, groups))

    def lost(directory: Directory) -> list[str]:
        return identities(replace(scene, directory=directory).plan().actions)

    # The whole group is gone: of the one space nobody is removed or demoted, of the other as ever.
    gone = a_directory(STAFF, {"guests": ["bob"], "shop": []}, roster=scene.roster)
    assert lost(gone) == ["kick shop @cid:example.com"]
    [(severity, message)] = problems(replace(scene, directory=gone).plan(), "lab")
    assert severity is Severity.WARNING
    assert "nobody who is in the directory is removed" in message
    # Emptied is not missing.
    emptied = a_directory(STAFF, {"lab": [], "guests": ["bob"], "shop": ["cid"]}, roster=scene.roster)
    assert lost(emptied) == ["set_power_level lab @ann:example.com 0", "kick lab @ann:example.com"]
    # Who has left the directory is entitled by no group.
    left = a_directory(["bob", "cid"], {"guests": ["bob"], "shop": ["cid"]}, roster=scene.roster)
    assert "kick lab @ann:example.com" in lost(left)


def test_who_is_entitled_and_knocks_is_let_in_where_nobody_is_invited() -> None:
    config = a_config(
        a_space("all", ""),
        default_rooms=[{"id": "talk", "properties": {"join_rule": "knock"}}],
        invite_to_public_rooms=False,
    )
    scene = provisioned(config, a_directory(STAFF, {}))
    knocked = scene.with_room("all/talk", knocking=["ann", "stranger"])
    assert identities(knocked.plan().actions) == ["invite all/talk @ann:example.com"]
