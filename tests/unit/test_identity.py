"""Who a person is: new ids, new localparts, and everybody whose identity is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aim.desired.identity import conflicts, hands_off, has_switched
from aim.desired.rebind import rebind_all
from aim.directory.model import Severity, User
from aim.errors import AimError
from aim.planner.memory import remember
from aim.world.recorded import Recorded, Seen
from tests.unit.model import SERVER
from tests.unit.worlds import (
    NOW,
    Scene,
    a_config,
    a_directory,
    a_space,
    a_user,
    cycle,
    identities,
    provisioned,
)

CONFIG = a_config(a_space("all", "", ("mods", 50)))


def seen(id_: str, name: str, *, gone: bool = False) -> Seen:
    return Seen(id_, name, False, NOW - timedelta(days=90), NOW - timedelta(days=9) if gone else None)


def known(*people: Seen) -> dict[str, Seen]:
    return {one.id: one for one in people}


@pytest.mark.parametrize(
    ("users", "before", "found"),
    [
        ([a_user("ann", "1")], [], []),
        ([a_user("ann", "1")], [seen("1", "ann")], []),
        ([a_user("ann", "1")], [seen("1", "ann", gone=True)], []),
        # A known localpart with a new id, whether its former owner is still there or long gone.
        ([a_user("ann", "2")], [seen("1", "ann")], [("ann", "1", True)]),
        ([a_user("ann", "2")], [seen("1", "ann", gone=True)], [("ann", "1", True)]),
        # A known id with a new localpart.
        ([a_user("anna", "1")], [seen("1", "ann")], [("anna", "1", False)]),
        # Two people who swapped names: all four sides.
        (
            [a_user("bob", "1"), a_user("ann", "2")],
            [seen("1", "ann"), seen("2", "bob")],
            [("ann", "1", True), ("ann", "2", False), ("bob", "1", False), ("bob", "2", True)],
        ),
        # Two ids were bound to one localpart before: the one of today is in no conflict.
        ([a_user("ann", "2")], [seen("1", "ann", gone=True), seen("2", "ann")], []),
    ],
)
def test_conflicts(users: list[User], before: list[Seen], found: list[tuple[str, str, bool]]) -> None:
    conflict = conflicts(users, known(*before))
    assert [(one.user.localpart, one.seen.id, one.is_new_id) for one in conflict] == found


def test_a_new_id_is_told_with_both_ids_and_the_command_that_settles_it() -> None:
    [conflict] = conflicts([a_user("ann", "2")], known(seen("1", "ann")))
    problem = conflict.problem("example.com")
    assert (problem.severity, problem.subject) == (Severity.ERROR, "@ann:example.com")
    assert "aim rebind 1 2" in problem.message
    assert "not touched" in problem.message


def test_a_new_localpart_is_told_with_both_names_and_the_command_that_settles_it() -> None:
    [conflict] = conflicts([a_user("anna", "1")], known(seen("1", "ann")))
    problem = conflict.problem("example.com")
    assert problem.subject == "@anna:example.com"
    assert "aim rebind @ann:example.com @anna:example.com" in problem.message
    assert "neither account is touched" in problem.message


def test_hands_off_who_is_contested_in_conflict_or_unreadable() -> None:
    directory = a_directory([a_user("anna", "1"), "eve"], contested=["bob"], unresolved=["3", "unknown"])
    recorded = Recorded(seen=known(seen("1", "ann"), seen("3", "cid"), seen("id-eve", "eve")))
    found = conflicts(directory.users, recorded.seen)
    assert directory.roster.localparts(hands_off(directory, recorded, found)) == ["ann", "anna", "bob", "cid"]


# -- what that means in a cycle -------------------------------------------------------------------

STAFF = ["ann", "bob", "cid"]


def working() -> Scene:
    """Three people; ann moderates."""
    return provisioned(CONFIG, a_directory(STAFF, {"mods": ["ann"]}), [*STAFF, "anna"])


def with_users(scene: Scene, *users: User | str, mods: Iterable[str] = ("ann",), **more: Any) -> Scene:
    return replace(scene, directory=a_directory(users, {"mods": mods}, roster=scene.roster, **more))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda scene: with_users(scene, a_user("anna", "id-ann"), "bob", "cid"), id="new localpart"
        ),
        pytest.param(
            lambda scene: with_users(scene, a_user("ann", "other"), "bob", "cid", mods=[]), id="new id"
        ),
        pytest.param(
            lambda scene: with_users(scene, "bob", "cid", contested=["ann"], unresolved=["id-ann"]),
            id="contested",
        ),
        pytest.param(lambda scene: with_users(scene, "bob", "cid", unresolved=["id-ann"]), id="unreadable"),
    ],
)
def test_neither_account_is_touched_in_any_direction(change: Callable[[Scene], Scene]) -> None:
    scene = change(working())
    assert identities(scene.plan().actions) == []
    # Nor are they forgotten, renamed or counted as gone: what was known of them stays until it is settled.
    memory = remember(scene.world, scene.plan())
    assert [one for one in memory.seen if one.id == "id-ann" and one.localpart != "ann"] == []
    assert memory.entitled == {}


def test_a_conflict_lasts_until_it_is_settled() -> None:
    scene = with_users(working(), a_user("ann", "other"), "bob", "cid")
    for _ in range(3):
        assert len([p for p in scene.plan().problems if "aim rebind" in p.message]) == 1
        scene = cycle(scene).later(hours=30)
    # Rebound: the person is the one known before.
    rebound = {key: one for key, one in scene.recorded.seen.items() if key != "id-ann"}
    rebound["other"] = replace(scene.recorded.seen["id-ann"], id="other", gone_since=None)
    scene = replace(scene, recorded=replace(scene.recorded, seen=rebound))
    assert scene.plan().problems == ()
    assert identities(scene.plan().actions) == []


def test_the_command_is_one_that_a_shell_takes() -> None:
    scene = with_users(working(), a_user("ann", "uid=ann,ou=human res,dc=x"), "bob", "cid")
    [message] = [found.message for found in scene.plan().problems if found.subject == "@ann:example.com"]
    assert message.endswith("aim rebind id-ann 'uid=ann,ou=human res,dc=x'")


def test_a_settled_marriage_moves_the_rights_to_the_new_account() -> None:
    scene = with_users(working(), a_user("anna", "id-ann"), "bob", "cid", mods=["anna"])
    rebound = {**scene.recorded.seen, "id-ann": replace(scene.recorded.seen["id-ann"], localpart="anna")}
    scene = replace(scene, recorded=replace(scene.recorded, seen=rebound))
    assert identities(scene.plan().due) == [
        "set_power_level all @ann:example.com 0",
        "set_power_level all @anna:example.com 50",
        "kick all @ann:example.com",
        "invite all @anna:example.com",
    ]


def test_somebody_who_comes_back_with_the_same_id_is_welcome() -> None:
    away = cycle(with_users(working(), "bob", "cid"))
    assert away.members("all") == ["bob", "cid"]
    assert away.recorded.seen["id-ann"].gone_since == NOW
    back = with_users(away, *STAFF)
    assert "invite all @ann:example.com" in identities(back.plan().due)
    assert cycle(back).recorded.seen["id-ann"].gone_since is None


# -- another source --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "ids", "switched"),
    [
        ("ldap", ["1", "2", "x", "y"], False),
        ("ldap", ["1", "x", "y", "z"], True),
        # Of the same source: three new ids, and more than half of those known.
        ("ldif", ["1", "x", "y", "z"], True),
        ("ldif", ["1", "2", "y", "z"], False),
        (None, ["1", "x", "y", "z"], True),
    ],
)
def test_a_switch_of_source_is_told_by_the_ids(source: str | None, ids: list[str], switched: bool) -> None:
    names = ["ann", "bob", "cid", "dan"]
    directory = a_directory([a_user(name, id_) for name, id_ in zip(names, ids, strict=True)])
    before = known(
        *(seen(str(number), name) for number, name in enumerate(names, 1)), seen("9", "old", gone=True)
    )
    found = conflicts(directory.users, before)
    assert has_switched(directory, Recorded(source=source, seen=before), found) is switched


def test_three_new_colleagues_of_old_names_are_no_other_source() -> None:
    names = [f"p{number}" for number in range(7)]
    before = known(*(seen(name, name) for name in names))
    directory = a_directory([a_user(name, f"new-{name}" if name < "p3" else name) for name in names])
    found = conflicts(directory.users, before)
    assert len(found) == 3
    assert not has_switched(directory, Recorded(source="ldif", seen=before), found)


def test_people_who_swap_names_are_no_other_source() -> None:
    directory = a_directory([a_user("bob", "1"), a_user("cid", "2"), a_user("ann", "3")])
    before = known(seen("1", "ann"), seen("2", "bob"), seen("3", "cid"))
    found = conflicts(directory.users, before)
    assert not has_switched(directory, Recorded(source="ldif", seen=before), found)


def with_new_ids(scene: Scene) -> Scene:
    """The same people under other ids, from a source of the same type, and one who is new."""
    return with_users(scene, *(a_user(name, f"new-{name}") for name in STAFF), "new")


def test_new_ids_of_all_are_one_problem_until_all_are_rebound() -> None:
    scene = with_new_ids(working())
    for _ in range(3):
        errors = [(p.subject, p.message) for p in scene.plan().problems if p.severity == Severity.ERROR]
        assert [subject for subject, _ in errors] == ["source"]
        assert errors[0][1].startswith("3 users are known from before")
        assert "aim rebind --by-localpart" in errors[0][1]
        assert [one for one in identities(scene.plan().actions) if "@new:" not in one] == []
        scene = cycle(scene).later(hours=30)
        assert {one.gone_since for one in scene.recorded.seen.values()} == {None}
    found = rebind_all(scene.directory, scene.recorded, SERVER)
    assert ([one.localpart for one in found.seen], found.missing) == (STAFF, ())
    assert found.forget == ("id-ann", "id-bob", "id-cid")
    scene = replace(scene, recorded=replace(scene.recorded, seen={one.id: one for one in found.seen}))
    assert [p for p in scene.plan().problems if p.severity == Severity.ERROR] == []


def test_who_was_taken_for_a_leaver_when_the_ids_changed_is_rebound_too() -> None:
    """As a cycle without that problem recorded it: everybody gone at one moment."""
    scene = with_new_ids(working())
    gone = {id_: replace(one, gone_since=NOW) for id_, one in scene.recorded.seen.items()}
    more = {
        "9": Seen("9", "dan", False, NOW - timedelta(days=90), NOW),
        "8": Seen("8", "new", False, NOW - timedelta(days=90), NOW - timedelta(days=9)),
    }
    scene = replace(scene, recorded=replace(scene.recorded, seen={**gone, **more}))
    assert [p.subject for p in scene.plan().problems if p.severity == Severity.ERROR] == ["source"]
    found = rebind_all(scene.directory, scene.recorded, SERVER)
    # Whoever had left before stays a stranger; whoever left with the change is missing.
    assert [one.localpart for one in found.seen] == STAFF
    assert {one.gone_since for one in found.seen} == {None}
    assert (found.missing, found.known) == (("dan",), 4)


def test_all_are_rebound_by_localpart_but_for_those_who_had_left() -> None:
    directory = a_directory([a_user("ann", "x1"), a_user("bob", "x2", active=False), a_user("old", "x3")])
    before = known(seen("1", "ann"), seen("2", "bob"), seen("3", "cid"), seen("9", "old", gone=True))
    found = rebind_all(directory, Recorded(source="ldap", seen=before), SERVER)
    assert found.seen == (
        Seen("x1", "ann", False, before["1"].first_seen, None),
        Seen("x2", "bob", False, before["2"].first_seen, None),
    )
    assert found.forget == ("1", "2")
    assert found.missing == ("cid",)
    assert found.known == 3
    assert not found.exceeds_guard
    assert "2 of 3 known users" in found.message
    assert f"@cid:{SERVER}" in found.message


def test_ids_that_another_one_gets_are_not_forgotten() -> None:
    directory = a_directory([a_user("ann", "2"), a_user("bob", "x"), a_user("cid", "y")])
    before = known(seen("1", "ann"), seen("2", "bob"), seen("3", "cid"))
    found = rebind_all(directory, Recorded(source="ldap", seen=before), SERVER)
    assert [(one.id, one.localpart) for one in found.seen] == [("2", "ann"), ("x", "bob"), ("y", "cid")]
    assert found.forget == ("1", "3")


@pytest.mark.parametrize(
    ("missing", "people", "exceeds"), [(3, 10, False), (4, 10, True), (5, 50, False), (6, 50, True)]
)
def test_too_many_missing_are_more_likely_the_wrong_source(missing: int, people: int, exceeds: bool) -> None:
    names = [f"p{number}" for number in range(people)]
    before = known(*(seen(name, name) for name in names))
    directory = a_directory([a_user(name, f"new-{name}") for name in names[missing:]])
    found = rebind_all(directory, Recorded(source="ldap", seen=before), SERVER)
    assert (len(found.missing), found.exceeds_guard) == (missing, exceeds)


def test_nothing_is_rebound_all_at_once_where_the_ids_are_the_same() -> None:
    directory = a_directory([a_user("ann", "1"), a_user("bob", "x")])
    with pytest.raises(AimError, match="nothing to rebind"):
        rebind_all(directory, Recorded(seen=known(seen("1", "ann"), seen("2", "bob"))), SERVER)
