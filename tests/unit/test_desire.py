"""Space mapping and default rooms: from configuration and directory to the desired state, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from aim.config import Config
from aim.desired.desire import desire
from aim.desired.levels import base_levels, has_privileged_creators
from aim.desired.rooms import Desired, DesiredRoom
from aim.directory.model import Directory, Problem, Severity
from aim.directory.roster import Roster
from aim.world.recorded import Recorded
from tests.unit.model import BOT
from tests.unit.worlds import a_config, a_directory, a_room, a_space, a_user, an_observed

EVERYONE = ["ann", "bob", "cid", "dan"]
GROUPS = {
    "element-users": ["ann", "bob"],
    "moderators": ["ann", "cid"],
    "admins": ["ann"],
    "matrix-mods": ["ann"],
    "london-matrix-mods": ["bob"],
    "london-employees": ["bob", "cid"],
}
DIRECTORY = a_directory(EVERYONE, GROUPS)


def desired(config: Config, directory: Directory = DIRECTORY, *rooms: Any) -> Desired:
    return desire(config, directory, an_observed(directory.roster, EVERYONE, *rooms), Recorded())


def who(room: DesiredRoom, directory: Directory = DIRECTORY) -> list[str]:
    return directory.roster.localparts(room.members)


def levels(room: DesiredRoom, directory: Directory = DIRECTORY) -> dict[str, int]:
    """Localpart → level, of who has another level than 0."""
    found = {directory.roster.localpart(person): level for person, level in room.levels_by_person().items()}
    assert found.keys() <= set(directory.roster.localparts(room.members))
    return found


# -- space mapping, by the examples of the documentation ------------------------------------------


def test_a_space_holds_the_users_of_its_group() -> None:
    rooms = desired(a_config(a_space("root", "element-users", name="Company"))).rooms
    assert list(rooms) == ["root"]
    assert (rooms["root"].is_space, rooms["root"].parent, rooms["root"].name) == (True, None, "Company")
    assert who(rooms["root"]) == ["ann", "bob"]
    assert levels(rooms["root"]) == {}


def test_any_group_is_enough_and_a_power_level_goes_to_the_users_of_that_group() -> None:
    room = desired(a_config(a_space("root", "element-users", ("moderators", 50)))).rooms["root"]
    assert who(room) == ["ann", "bob", "cid"]
    assert levels(room) == {"ann": 50, "cid": 50}


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_power_levels_the_highest_counts(order: int) -> None:
    groups = [("moderators", 50), ("admins", 100), ("element-users", 0)][::order]
    room = desired(a_config(a_space("root", *groups))).rooms["root"]
    assert levels(room) == {"ann": 100, "cid": 50}


def test_the_empty_group_means_everyone() -> None:
    room = desired(a_config(a_space("root", ""))).rooms["root"]
    assert who(room) == EVERYONE


def test_everyone_leaves_out_who_is_disabled() -> None:
    directory = a_directory(["ann", a_user("bob", active=False)], {"g": ["ann", "bob"]})
    rooms = desired(a_config(a_space("all", ""), a_space("some", "g")), directory).rooms
    assert who(rooms["all"], directory) == who(rooms["some"], directory) == ["ann"]


def test_subspaces_add_their_members_to_the_spaces_above_but_no_levels_in_any_direction() -> None:
    config = a_config(
        a_space(
            "shared",
            ("matrix-mods", 50),
            subspaces=[a_space("london", ("london-matrix-mods", 50), "london-employees")],
        )
    )
    rooms = desired(config).rooms
    assert who(rooms["shared"]) == ["ann", "bob", "cid"]
    assert who(rooms["london"]) == ["bob", "cid"]
    assert levels(rooms["shared"]) == {"ann": 50}
    assert levels(rooms["london"]) == {"bob": 50}
    assert (rooms["london"].parent, rooms["shared"].subspaces) == ("shared", ("london",))


def test_members_rise_through_every_depth() -> None:
    config = a_config(a_space("a", subspaces=[a_space("b", subspaces=[a_space("c", "admins")])]))
    rooms = desired(config).rooms
    assert [who(room) for room in rooms.values()] == [["ann"]] * 3
    assert list(rooms) == ["a", "b", "c"]


def test_a_negative_level_holds_only_for_who_has_no_other_way_in() -> None:
    config = a_config(
        a_space("root", ("element-users", -1), subspaces=[a_space("below", "london-employees")])
    )
    assert levels(desired(config).rooms["root"]) == {"ann": -1}
    assert levels(desired(a_config(a_space("root", ("element-users", -1), "admins"))).rooms["root"]) == {
        "bob": -1
    }


def test_a_space_without_groups_and_subspaces_is_empty() -> None:
    assert who(desired(a_config(a_space("root"))).rooms["root"]) == []


# -- groups that are not there, or there twice ----------------------------------------------------


def test_an_unknown_group_is_a_warning_that_names_the_nearest_and_gives_nobody() -> None:
    found = desired(a_config(a_space("root", "london-employes", "admins")))
    assert who(found.rooms["root"]) == ["ann"]
    [problem] = found.problems
    assert (problem.severity, problem.subject) == (Severity.WARNING, "root")
    assert "'london-employes'" in problem.message
    assert "did you mean 'london-employees'" in problem.message


def test_an_unknown_group_like_no_other_is_a_warning_without_a_guess() -> None:
    [problem] = desired(a_config(a_space("root", "zzzzzz"))).problems
    assert "'zzzzzz'" in problem.message
    assert "did you mean" not in problem.message


def test_nearest_groups_are_found_in_a_large_directory_too() -> None:
    groups = {f"cn=team{number},dc=example": ["ann"] for number in range(6000)}
    directory = a_directory(["ann"], {**groups, "cn=accounting,dc=example": ["ann"]})
    [problem] = desired(a_config(a_space("root", "cn=accountng,dc=example")), directory).problems
    assert "cn=accounting,dc=example" in problem.message


def test_a_name_that_groups_share_means_all_of_them_and_is_a_warning() -> None:
    directory = a_directory(
        EVERYONE,
        {"cn=it,ou=a": ["ann"], "cn=it,ou=b": ["bob"]},
        shared_names={"it": ["cn=it,ou=a", "cn=it,ou=b"]},
    )
    found = desired(a_config(a_space("root", ("it", 50))), directory)
    assert who(found.rooms["root"], directory) == ["ann", "bob"]
    assert levels(found.rooms["root"], directory) == {"ann": 50, "bob": 50}
    [problem] = found.problems
    assert problem.severity is Severity.WARNING
    assert "names 2 groups" in problem.message
    assert "cn=it,ou=a; cn=it,ou=b" in problem.message


def test_problems_of_the_directory_are_passed_on() -> None:
    problem = Problem(Severity.WARNING, "cn=x", "has no user name")
    directory = a_directory(["ann"], problems=(problem,))
    assert desired(a_config(a_space("root", "")), directory).problems == (problem,)


# -- without spaces -------------------------------------------------------------------------------


def test_without_spaces_there_is_one_for_everyone_named_after_the_source() -> None:
    directory = a_directory(EVERYONE, name="Example Corp")
    found = desired(a_config(default_rooms=[{"id": "talk"}]), directory)
    assert list(found.rooms) == ["everyone", "everyone/talk"]
    space = found.rooms["everyone"]
    assert (space.name, space.parent, who(space, directory)) == ("Example Corp", None, EVERYONE)
    # Moderators may rename it, whatever the configuration says about configured names.
    assert space.enforced == frozenset()


@pytest.mark.parametrize(("enforce", "enforced"), [(True, {"m.room.name"}), (False, set())])
def test_names_of_configured_spaces_are_enforced_unless_configured_otherwise(
    *, enforce: bool, enforced: set[str]
) -> None:
    config = a_config(a_space("root", ""), default_rooms=[{"id": "talk"}], enforce_names=enforce)
    rooms = desired(config).rooms
    assert rooms["root"].enforced == enforced
    assert rooms["root/talk"].enforced == frozenset()


# -- default rooms --------------------------------------------------------------------------------


def talk(**properties: Any) -> DesiredRoom:
    """A default room of a space of moderators and users."""
    config = a_config(
        a_space("root", "element-users", ("admins", 50)),
        default_rooms=[{"id": "talk", "properties": properties} if properties else {"id": "talk"}],
    )
    return desired(config).rooms["root/talk"]


def test_every_space_gets_every_default_room_with_its_own_people_and_levels() -> None:
    config = a_config(
        a_space("root", ("admins", 50), subspaces=[a_space("below", ("london-matrix-mods", 50))]),
        default_rooms=[{"id": "talk"}, {"id": "news"}],
    )
    rooms = desired(config).rooms
    assert list(rooms) == ["root", "root/talk", "root/news", "below", "below/talk", "below/news"]
    for key, space in (("root/talk", "root"), ("below/news", "below")):
        assert (rooms[key].space, rooms[key].parent, rooms[key].is_space) == (space, space, False)
        assert rooms[key].members == rooms[space].members
        assert levels(rooms[key]) == levels(rooms[space])
    assert who(rooms["root/talk"]) == ["ann", "bob"]
    assert levels(rooms["root/talk"]) == {"ann": 50}


def test_a_default_room_is_joinable_by_the_members_of_its_space() -> None:
    room = talk()
    assert room.name == "talk"
    assert room.state == {
        "m.room.name": {"name": "talk"},
        "m.room.join_rules": {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "space": "root"}],
        },
    }
    assert (room.suggested, room.room_version, room.encrypted, room.invites) == (False, None, None, True)


@pytest.mark.parametrize(
    ("properties", "event_type", "content"),
    [
        ({"name": "General"}, "m.room.name", {"name": "General"}),
        ({"topic": "All sorts"}, "m.room.topic", {"topic": "All sorts"}),
        ({"topic": ""}, "m.room.topic", {"topic": ""}),
        ({"avatar": "mxc://example.com/abc"}, "m.room.avatar", {"url": "mxc://example.com/abc"}),
        ({"encrypted": True}, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}),
        ({"encrypted": False}, "m.room.encryption", None),
        (
            {"history_visibility": "joined"},
            "m.room.history_visibility",
            {"history_visibility": "joined"},
        ),
        ({"join_rule": "public"}, "m.room.join_rules", {"join_rule": "public"}),
        ({"join_rule": "invite"}, "m.room.join_rules", {"join_rule": "invite"}),
        ({"join_rule": "knock"}, "m.room.join_rules", {"join_rule": "knock"}),
        (
            {"join_rule": "knock_restricted"},
            "m.room.join_rules",
            {"join_rule": "knock_restricted", "allow": [{"type": "m.room_membership", "space": "root"}]},
        ),
    ],
)
def test_properties_become_state(
    properties: dict[str, Any], event_type: str, content: dict[str, Any] | None
) -> None:
    assert talk(**properties).state.get(event_type) == content


def test_properties_that_are_no_state() -> None:
    room = talk(suggested=True, room_version="11", encrypted=False)
    assert (room.suggested, room.room_version, room.encrypted) == (True, "11", False)


@pytest.mark.parametrize(("rule", "invites"), [("restricted", False), ("public", False), ("invite", True)])
def test_without_invites_to_rooms_only_those_get_them_who_could_not_get_in_otherwise(
    *, rule: str, invites: bool
) -> None:
    config = a_config(
        a_space("root", ""),
        default_rooms=[{"id": "talk", "properties": {"join_rule": rule}}],
        invite_to_public_rooms=False,
    )
    rooms = desired(config).rooms
    assert rooms["root"].invites
    assert rooms["root/talk"].invites is invites


def test_a_deconfigured_default_room_keeps_its_people_and_is_otherwise_left_alone() -> None:
    directory = a_directory(EVERYONE, GROUPS, roster=Roster())
    config = a_config(a_space("root", ("admins", 50)), default_rooms=[{"id": "news"}])
    space = a_room(directory.roster, "root", children=["root/talk"])
    rooms = [space, *(a_room(directory.roster, key) for key in ("root/talk", "gone/talk"))]
    found = desired(config, directory, *rooms).rooms
    assert set(found) == {"root", "root/news", "root/talk"}
    assert who(found["root/talk"], directory) == ["ann"]
    assert levels(found["root/talk"], directory) == {"ann": 50}
    assert found["root/talk"].state == {}


def test_slashes_in_ids_do_not_mix_up_spaces_and_rooms() -> None:
    directory = a_directory(EVERYONE, GROUPS, roster=Roster())
    config = a_config(a_space("a", "admins"), a_space("a/b", "moderators"), default_rooms=[{"id": "x/y"}])
    keys = {"a", "a/x/y", "a/b", "a/b/x/y"}
    assert set(desired(config, directory).rooms) == keys
    rooms = [a_room(directory.roster, key) for key in ("a/x/y", "a/b/x/y")]
    bare = a_config(a_space("a", "admins"), a_space("a/b", "moderators"))
    found = desired(bare, directory, *rooms).rooms
    assert {key: room.space for key, room in found.items()} == {
        "a": "a",
        "a/x/y": "a",
        "a/b": "a/b",
        "a/b/x/y": "a/b",
    }


# -- our own account ------------------------------------------------------------------------------


def test_a_user_of_the_directory_who_comes_to_our_own_account_is_not_touched_and_is_a_problem() -> None:
    directory = a_directory(["ann", "aim"])
    found = desired(a_config(a_space("root", ("", 50))), directory)
    assert directory.roster.localparts(found.hands_off) == ["aim"]
    [problem] = found.problems
    assert (problem.severity, problem.subject) == (Severity.ERROR, BOT)


def test_nobody_of_our_name_is_no_problem() -> None:
    assert desired(a_config(a_space("root", ""))).hands_off == a_directory([]).everyone
    assert desired(a_config(a_space("root", ""))).problems == ()


# -- power levels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_space", [True, False])
@pytest.mark.parametrize("version", ["10", "11", "12", "", "org.example.next"])
def test_moderators_look_after_a_room_and_cannot_change_what_guards_it(
    *, is_space: bool, version: str
) -> None:
    levels = base_levels(is_space=is_space, room_version=version)
    events = levels["events"]
    assert isinstance(events, dict)
    for guarding in (
        "power_levels",
        "history_visibility",
        "encryption",
        "server_acl",
        "join_rules",
        "tombstone",
    ):
        assert events[f"m.room.{guarding}"] >= 100
    for looking_after in ("m.room.name", "m.room.topic", "m.room.avatar", "m.space.child"):
        assert events[looking_after] == 50
    assert {levels[key] for key in ("ban", "kick", "invite", "redact", "state_default")} == {50}
    assert levels["users_default"] == 0
    assert "users" not in levels
    # In a space nobody talks; in a room everybody does.
    assert levels["events_default"] == (100 if is_space else 0)


@pytest.mark.parametrize(
    ("version", "privileged"),
    [
        ("1", False),
        ("9", False),
        ("11", False),
        ("12", True),
        ("13", True),
        ("org.example.next", True),
        ("", False),
    ],
)
def test_from_version_12_on_creators_stand_above_all(*, version: str, privileged: bool) -> None:
    assert has_privileged_creators(version) is privileged
    tombstone = base_levels(is_space=False, room_version=version)["events"]
    assert isinstance(tombstone, dict)
    assert tombstone["m.room.tombstone"] == (150 if privileged else 100)
