"""What Graph's pages make of what is known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from aim.bridges.msgraph.graph import Item, ResyncNeeded
from aim.bridges.msgraph.items import properties_in
from aim.bridges.msgraph.memory import Draft, apply, differing
from aim.errors import SourceInvalid
from aim.ports.graph import GraphChanges, GraphGroup, GraphLinks, GraphState, GraphUser, GroupsLink

AT = datetime(2030, 1, 1, tzinfo=UTC)
LINKS = GraphLinks("users", (GroupsLink("groups"),))
UPN = "userPrincipalName"

ANN = {"id": "ann", UPN: "ann@example.com", "displayName": "Ann", "accountEnabled": True}
BOB = {"id": "bob", UPN: "bob@example.com", "mail": "bob@example.com", "userType": "Member"}
STAFF = {"id": "staff", "displayName": "Staff", "mailNickname": "staff"}


def member(id_: str, kind: str | None = "user") -> Item:
    typed = {} if kind is None else {"@odata.type": f"#microsoft.graph.{kind}"}
    return {"id": id_, **typed}


def lost(id_: str, kind: str = "user") -> Item:
    """A member who went."""
    return {**member(id_, kind), "@removed": {"reason": "deleted"}}


def gone(id_: str, reason: str = "changed") -> Item:
    return {"id": id_, "@removed": {"reason": reason}}


def staff(*members: Item, **values: object) -> Item:
    return {**STAFF, **values, "members@delta": list(members)}


def state(*users: Item, groups: list[Item] | None = None, username: str = UPN) -> GraphState:
    draft = Draft(username)
    draft.users(users)
    draft.groups(groups or [])
    return draft.whole("Example", LINKS, AT)


def after(known: GraphState, *users: Item, groups: list[Item] | None = None) -> GraphChanges:
    """The changes, which are also applied."""
    draft = Draft(UPN, known)
    draft.users(users)
    draft.groups(groups or [])
    changes = draft.changes()
    apply(known, changes, LINKS)
    return changes


def test_a_complete_read() -> None:
    known = state(ANN, BOB, groups=[staff(member("ann"))])
    assert known.users == {
        "ann": GraphUser("ann", "ann@example.com", "ann@example.com", "Ann", None, True, None),
        "bob": GraphUser(
            "bob", "bob@example.com", "bob@example.com", None, "bob@example.com", None, "Member"
        ),
    }
    assert known.groups == {"staff": GraphGroup("staff", "Staff", "staff")}
    assert known.members == {"staff": {"ann": False}}
    assert (known.name, known.links, known.read_at) == ("Example", LINKS, AT)


def test_what_is_missing_in_a_change_is_as_it_was_and_null_has_no_value() -> None:
    known = state(ANN, BOB)
    assert after(known, {"id": "ann", "mail": "a@b.c"}, {"id": "bob", "mail": None})
    assert known.users["ann"] == GraphUser(
        "ann", "ann@example.com", "ann@example.com", "Ann", "a@b.c", True, None
    )
    assert known.users["bob"].mail is None
    assert known.users["bob"].user_type == "Member"


def test_what_comes_again_is_no_change() -> None:
    known = state(ANN, groups=[staff(member("ann"))])
    assert not after(known, ANN, ANN, gone("bob"), groups=[staff(member("ann")), gone("nobody")])
    assert not after(known, {"id": "ann", "displayName": "Anna"}, ANN)
    assert not after(known, groups=[staff(lost("ann"), member("ann"))])


def test_the_last_word_counts() -> None:
    known = state(ANN)
    changes = after(known, {"id": "ann", "displayName": "x"}, {"id": "ann", "displayName": "y"})
    assert [user.display_name for user in changes.users] == ["y"]
    assert after(known, gone("ann"), BOB, gone("bob")).users_gone == ("ann",)
    assert known.users == {}


def test_a_large_group_comes_in_parts() -> None:
    parts: list[Item] = [
        staff(member("ann")),
        {"id": "staff", "members@delta": [member("bob"), member("inner", "group")]},
    ]
    known = state(ANN, BOB, groups=parts)
    assert known.members == {"staff": {"ann": False, "bob": False, "inner": True}}
    assert known.groups["staff"].name == "Staff"
    changes = after(known, groups=[{"id": "staff", "members@delta": [lost("ann")]}])
    assert changes == GraphChanges(removed={"staff": ("ann",)})
    assert known.members == {"staff": {"bob": False, "inner": True}}


def test_devices_and_their_like_are_nobody() -> None:
    known = state(
        groups=[staff(member("printer", "device"), member("app", "servicePrincipal"), member("x", None))]
    )
    assert known.members == {"staff": {"x": False}}
    assert not after(known, groups=[staff(lost("printer", "device"))])


def test_who_may_be_restored_keeps_their_groups_and_who_can_not_has_none() -> None:
    known = state(ANN, BOB, groups=[staff(member("ann"), member("bob"))])
    assert after(known, gone("ann")) == GraphChanges(users_gone=("ann",))
    assert known.members == {"staff": {"ann": False, "bob": False}}
    assert after(known, gone("ann", "deleted"), gone("bob", "deleted")) == GraphChanges(
        users_gone=("bob",), removed={"staff": ("ann", "bob")}
    )
    assert known.members == {}


def test_a_group_that_is_gone_has_no_members() -> None:
    known = state(ANN, BOB, groups=[staff(member("ann"))])
    assert after(known, groups=[gone("staff", "deleted")]) == GraphChanges(groups_gone=("staff",))
    assert (known.groups, known.members) == ({}, {})
    after(known, groups=[staff(member("bob"))])
    assert known.members == {"staff": {"bob": False}}
    # Gone and back between two looks.
    changes = after(known, groups=[gone("staff"), staff(member("ann"))])
    assert (changes.groups, changes.groups_gone) == ((), ())
    assert known.members == {"staff": {"ann": False}}


@pytest.mark.parametrize(
    "item", [{"id": "new", "displayName": "Ann"}, {"id": "new", "accountEnabled": False}]
)
def test_a_user_who_is_told_of_only_in_part_means_reading_all_anew(item: Item) -> None:
    draft = Draft(UPN, state(ANN))
    with pytest.raises(ResyncNeeded):
        draft.users([item])


def test_a_group_that_is_told_of_only_in_part_means_reading_all_anew() -> None:
    draft = Draft(UPN, state(ANN))
    with pytest.raises(ResyncNeeded):
        draft.groups([{"id": "new", "members@delta": []}])


def test_in_a_complete_read_parts_may_come_in_any_order() -> None:
    assert state({"id": "ann", "displayName": "Ann"}, {"id": "ann", UPN: "ann@x.org"}).users[
        "ann"
    ] == GraphUser("ann", "ann@x.org", "ann@x.org", "Ann")


def test_a_list_of_users_is_all_there_are() -> None:
    known = state(ANN, BOB)
    draft = Draft(UPN, known)
    draft.all_users([{**ANN, "displayName": None}, {"id": "cleo", UPN: "cleo@x.org"}])
    changes = draft.changes()
    assert [(user.id, user.display_name) for user in changes.users] == [("ann", None), ("cleo", None)]
    assert changes.users_gone == ("bob",)


EXTENSION = "onPremisesExtensionAttributes/extensionAttribute1"


@pytest.mark.parametrize(
    ("path", "values", "expected"),
    [
        ("mailNickname", [{"mailNickname": "a"}], "a"),
        ("mailNickname", [{"mailNickname": "a"}, {"mail": "x"}], "a"),
        (EXTENSION, [{"onPremisesExtensionAttributes": {"extensionAttribute1": "a"}}], "a"),
        (EXTENSION, [{"onPremisesExtensionAttributes": {"extensionAttribute1": "a"}}, {"mail": "x"}], "a"),
        (
            EXTENSION,
            [
                {"onPremisesExtensionAttributes": {"extensionAttribute1": "a"}},
                {"onPremisesExtensionAttributes": {"extensionAttribute2": "b"}},
            ],
            "a",
        ),
        (
            EXTENSION,
            [
                {"onPremisesExtensionAttributes": {"extensionAttribute1": "a"}},
                {"onPremisesExtensionAttributes": None},
            ],
            None,
        ),
        (EXTENSION, [{}], None),
    ],
)
def test_the_user_name_is_a_property_or_a_part_of_one(
    path: str, values: list[Item], expected: str | None
) -> None:
    known = state(*({"id": "ann", **value} for value in values), username=path)
    assert known.users["ann"].username == expected


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("companyName eq 'Example'", ["companyName"]),
        ("accountEnabled eq true and not(startswith(jobTitle,'and x eq 1'))", ["accountEnabled", "jobTitle"]),
        ("endsWith(mail,'@a''b.org') or userType ne null", ["mail", "userType"]),
        ("proxyAddresses/any(p:startswith(p,'smtp:x'))", ["proxyAddresses"]),
        ("onPremisesExtensionAttributes/extensionAttribute1 eq 'a'", ["onPremisesExtensionAttributes"]),
        (
            "department in ('A', 'B') and createdDateTime ge 2024-01-01T00:00:00Z",
            ["createdDateTime", "department"],
        ),
    ],
)
def test_the_properties_that_a_filter_compares(expression: str, names: list[str]) -> None:
    assert properties_in(expression) == names


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"id": None},
        {"id": ""},
        {"id": 1},
        {"id": "a", "mail": 1},
        {"id": "a", UPN: ["x"]},
        {"id": "a", "accountEnabled": "yes"},
    ],
)
def test_what_is_no_user_is_an_error(item: Item) -> None:
    with pytest.raises(SourceInvalid, match="Microsoft Graph gave"):
        Draft(UPN).users([item])


@pytest.mark.parametrize("members", ["ann", 1, ["ann"], [{}], [{"id": 1}]])
def test_what_are_no_members_is_an_error(members: Any) -> None:
    with pytest.raises(SourceInvalid, match="Microsoft Graph gave"):
        Draft(UPN).groups([{**STAFF, "members@delta": members}])


def test_text_that_postgres_can_not_hold_is_told_in_its_stead() -> None:
    known = state({**ANN, "displayName": "a\x00b\ud800é"})
    assert known.users["ann"].display_name == "a\ufffdb?é"


def test_differences() -> None:
    one = state(ANN, BOB, groups=[staff(member("ann"))])
    other = state({**ANN, "mail": "x"}, groups=[staff(member("bob")), {"id": "new", "displayName": "New"}])
    assert len(differing(one, one)) == 0
    assert len(differing(one, other)) == 4
    assert len(differing(one, other, {"ann", "new"})) == 1
    assert len(differing(one, other, {"ann", "bob", "new"})) == 0


def test_who_was_forgotten_or_may_be_restored_is_no_difference() -> None:
    disabled = {**ANN, "accountEnabled": False}
    assert len(differing(state(BOB), state(disabled, BOB, groups=[]))) == 0
    assert len(differing(state(BOB), state(ANN, BOB))) == 1
    kept = state(ANN, groups=[staff(member("ann"))])
    after(kept, gone("ann"))
    assert len(differing(kept, state(groups=[staff()]))) == 0
    assert len(differing(state(groups=[staff()]), state(disabled, groups=[staff(member("ann"))]))) == 0
