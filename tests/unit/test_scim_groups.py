"""What a PATCH of a group does, and that nobody's members are read or written for it but those it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.bridges.scim.dialects import Operation
from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.patching import GroupChange, group_change, member_ids
from aim.bridges.scim.rights import Grant, Rights
from tests.unit.scim_client import TOKEN, Service, a_group, a_user, ops, service

LARGE = 150


async def _large(scim: Service) -> tuple[str, list[str]]:
    ids = [(await scim.user())["id"] for _ in range(LARGE)]
    group = await scim.group("large", ids)
    scim.memory.loaded.clear()
    scim.memory.touched.clear()
    return group["id"], ids


def _value(ids: Sequence[str]) -> list[dict[str, str]]:
    return [{"value": id_} for id_ in ids]


async def test_a_change_of_a_large_group_touches_whom_it_names() -> None:
    scim = service()
    group, ids = await _large(scim)
    new = (await scim.user("new"))["id"]
    answer = await scim.call(
        "PATCH",
        f"/Groups/{group}",
        ops(
            {"op": "add", "path": "members", "value": _value([new, ids[5]])},
            {"op": "remove", "path": "members", "value": _value([ids[0]])},
            {"op": "remove", "path": f'members[value eq "{ids[1]}"]'},
            {"op": "remove", "path": f'members[value eq "{ids[2]}" or value eq "{ids[3]}"]'},
        ),
    )
    assert answer.status_code == 204
    assert answer.headers["etag"]
    assert sorted(scim.memory.touched) == sorted([new, *ids[:4]])
    # To tell a large group from a small one, one more than a small one has is read.
    assert scim.memory.loaded == [(group, 101)]
    assert await scim.members(group) == {new, *ids[4:]}


async def test_a_large_group_is_renamed_without_its_members() -> None:
    scim = service()
    group, ids = await _large(scim)
    both = ops(
        {"op": "replace", "path": "displayName", "value": "renamed"},
        {"op": "remove", "path": "members", "value": _value(ids[:1])},
    )
    assert (await scim.call("PATCH", f"/Groups/{group}", both)).status_code == 204
    assert scim.memory.touched == ids[:1]
    assert scim.memory.loaded == [(group, 101)]
    scim.memory.loaded.clear()
    asked = await scim.call("PATCH", f"/Groups/{group}", both, params={"excludedAttributes": "members"})
    assert asked.json()["displayName"] == "renamed"
    assert scim.memory.loaded == []


async def test_members_are_told_from_each_other_by_more_than_their_ids() -> None:
    scim = service()
    ann, bob, inner = await scim.user("ann"), await scim.user("bob"), await scim.group("inner")
    group = await scim.group("outer", [ann["id"], bob["id"], inner["id"]])
    where = f"/Groups/{group['id']}"
    removal = ops({"op": "remove", "path": 'members[type eq "Group"]'})
    assert (await scim.call("PATCH", where, removal)).status_code == 200
    assert await scim.members(group["id"]) == {ann["id"], bob["id"]}
    removal = ops({"op": "remove", "path": 'members[display sw "A" and value pr]'})
    assert (await scim.call("PATCH", where, removal)).status_code == 200
    assert await scim.members(group["id"]) == {bob["id"]}
    broken = await scim.call("PATCH", where, ops({"op": "remove", "path": "members[value eq]"}))
    assert broken.status_code == 400
    assert (await scim.call("PATCH", where, ops({"op": "remove", "path": "members"}))).status_code == 200
    assert await scim.members(group["id"]) == set()


async def test_a_group_is_no_member_of_itself() -> None:
    scim = service()
    group = await scim.group("staff")
    where = f"/Groups/{group['id']}"
    for method, body in (
        ("PATCH", ops({"op": "add", "path": "members", "value": _value([group["id"]])})),
        ("PATCH", ops({"op": "replace", "path": "members", "value": _value([group["id"]])})),
        ("PUT", a_group("staff", [group["id"]])),
    ):
        answer = await scim.call(method, where, body)
        assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidValue")


@pytest.mark.parametrize("op", ["add", "replace"])
async def test_an_operation_without_a_value_takes_nobody_out(op: str) -> None:
    scim = service()
    ann = await scim.user("ann")
    group = await scim.group("staff", [ann["id"]])
    answer = await scim.call("PATCH", f"/Groups/{group['id']}", ops({"op": op, "path": "members"}))
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidValue")
    assert await scim.members(group["id"]) == {ann["id"]}


async def test_who_may_only_write_is_not_shown_who_is_a_member_of_what() -> None:
    scim = service()
    ann = await scim.user("ann")
    group = await scim.group("staff", [ann["id"]])
    writer = service(scim.store, rights=Rights([Grant(TOKEN, ["write:*"])]))
    for method, path, body in (
        ("PUT", f"/Groups/{group['id']}", a_group("staff")),
        ("PUT", f"/Users/{ann['id']}", a_user("ann")),
        ("POST", "/Groups", a_group("others", [ann["id"]])),
    ):
        for asked in ({}, {"attributes": "id,members,groups"}, {"excludedAttributes": "meta"}):
            answer = await writer.call(method, path, body, params=asked)
            assert answer.status_code in (200, 201)
            assert not {"members", "groups"} & set(answer.json()), (path, asked)
            assert ("meta" in answer.json()) == (not asked)
    assert await scim.members(group["id"]) == {ann["id"]}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": 'members[value eq "x"]', "value": {"value": "y"}},
        {"op": "replace", "path": 'members[value eq "x"].display', "value": "y"},
        {"op": "remove", "path": 'members[value eq "x"].display'},
        {"op": "replace", "path": "members.value", "value": "y"},
    ],
)
async def test_members_themselves_are_not_for_a_group_to_change(operation: Mapping[str, object]) -> None:
    scim = service()
    group = await scim.group("staff")
    answer = await scim.call("PATCH", f"/Groups/{group['id']}", ops(operation))
    assert (answer.status_code, answer.json()["scimType"]) == (400, "mutability")


@pytest.mark.parametrize("value", [[{}], [{"value": ""}], [{"value": 5}], [5], {"display": "x"}, [None], ""])
def test_members_that_are_nobody(value: object) -> None:
    with pytest.raises(ScimError) as told:
        member_ids(value)
    assert told.value.scim_type == "invalidValue"


IDS = st.lists(st.sampled_from("abcdef"), max_size=4)


@given(
    st.frozensets(st.sampled_from("abcdef")),
    st.lists(st.tuples(st.sampled_from(["add", "remove", "select", "replace", "clear"]), IDS), max_size=8),
)
async def test_operations_in_their_order_come_to_the_same_as_one_by_one(
    before: frozenset[str], steps: list[tuple[str, list[str]]]
) -> None:
    expected = set(before)
    operations = []
    for op, ids in steps:
        match op:
            case "add":
                expected |= set(ids)
                operations.append(Operation("add", "members", _value(ids)))
            case "remove":
                expected -= set(ids)
                operations.append(Operation("remove", "members", _value(ids)))
            case "select":
                expected -= set(ids)
                operations += [Operation("remove", f'members[value eq "{id_}"]', None, False) for id_ in ids]
            case "replace":
                expected = set(ids)
                operations.append(Operation("replace", "members", _value(ids)))
            case _:
                expected = set()
                operations.append(Operation("remove", "members", None, False))

    async def never(path: str) -> Sequence[str]:
        raise AssertionError(path)

    assert _after(before, await group_change(operations, never)) == expected


def _after(before: frozenset[str], change: GroupChange) -> set[str]:
    if change.whole is not None:
        return change.whole
    assert not change.add & change.remove
    return (set(before) - change.remove) | change.add
