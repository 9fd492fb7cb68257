"""What one request may cost: whoever is let in can still not keep the service busy, nor fill its memory."""

from __future__ import annotations

import pytest

from aim.bridges.scim import core, patching
from tests.unit.scim_client import Service, a_user, ops, service


async def _refused(scim: Service, method: str, path: str, body: object) -> str:
    """The scimType of a 400."""
    answer = await scim.call(method, path, body)
    assert answer.status_code == 400, answer.text[:200]
    scim_type: str = answer.json()["scimType"]
    return scim_type


def _any_of(attribute: str, count: int) -> dict[str, str]:
    return {"filter": " or ".join(f'{attribute} eq "{number}"' for number in range(count))}


async def test_a_filter_that_is_tried_on_each_resource_is_a_short_one() -> None:
    scim = service()
    await scim.user("7", title="7")
    for filter_, total in ((_any_of("title", 100), 1), (_any_of("userName", 900), 1)):
        answer = await scim.call("POST", "/Users/.search", filter_)
        assert answer.json()["totalResults"] == total
    assert await _refused(scim, "POST", "/Users/.search", _any_of("title", 101)) == "invalidFilter"
    selection = {"filter": f"emails[{_any_of('type', 101)['filter']}]"}
    assert await _refused(scim, "POST", "/Users/.search", selection) == "invalidFilter"
    negated = {"filter": f"not ({_any_of('title', 101)['filter']})"}
    assert await _refused(scim, "POST", "/Users/.search", negated) == "invalidFilter"


@pytest.mark.parametrize(
    "search",
    [
        _any_of("userName", 50_000),
        {"sortBy": "a" * core.LONGEST_SEARCH},
        {"attributes": ["title"] * core.LONGEST_SEARCH},
    ],
)
async def test_a_search_is_no_book(search: dict[str, object]) -> None:
    assert await _refused(service(), "POST", "/Users/.search", search) == "invalidFilter"


async def test_a_patch_has_so_many_operations() -> None:
    scim = service()
    where = f"/Users/{(await scim.user('ann'))['id']}"
    one = {"op": "add", "path": "emails", "value": [{"value": "a@example.com"}]}
    many = core.MOST_CHANGES + 1
    assert await _refused(scim, "PATCH", where, ops(*[one] * many)) == "invalidValue"
    # And fewer of them, the more values each has to be compared with.
    more = [{**one, "value": [{"value": f"{number}@example.com"}]} for number in range(90)]
    assert (await scim.call("PATCH", where, ops(*more))).status_code == 200
    assert await _refused(scim, "PATCH", where, ops(*more)) == "invalidValue"
    keys = {f'emails[type eq "{number}"].value': "a@example.com" for number in range(many)}
    assert await _refused(scim, "PATCH", where, ops({"op": "add", "value": keys})) == "invalidValue"
    # What sets one plain value costs next to nothing.
    title = {"op": "add", "path": "title", "value": "x"}
    assert (await scim.call("PATCH", where, ops(*[title] * many))).status_code == 200


async def test_an_attribute_has_so_many_values() -> None:
    scim = service()
    full = [{"value": f"{number}@example.com"} for number in range(core.MOST_VALUES)]
    ann = await scim.user("ann", emails=full)
    where, one = f"/Users/{ann['id']}", {"value": "one@example.com"}
    assert await _refused(scim, "POST", "/Users", a_user("bob", emails=[*full, one])) == "invalidValue"
    assert await _refused(scim, "PUT", where, a_user("ann", emails=[*full, one])) == "invalidValue"
    for value in ([one], [*full, one]):
        patch = ops({"op": "add", "path": "emails", "value": value})
        assert await _refused(scim, "PATCH", where, patch) == "invalidValue"
    assert len(scim.memory.resources[ann["id"]].emails) == core.MOST_VALUES


async def test_a_path_is_short_but_for_a_list_of_members() -> None:
    scim = service()
    ann = await scim.user("ann")
    group = await scim.group("staff", [ann["id"]])
    where = f"/Groups/{group['id']}"
    long = "a" * core.LONGEST_PATH
    for path, resource in (
        (f'emails[value eq "{long}"].type', f"/Users/{ann['id']}"),
        (f'members[display eq "{long}"]', where),
    ):
        assert await _refused(scim, "PATCH", resource, ops({"op": "remove", "path": path})) == "invalidPath"
    listed = " or ".join(f'value eq "{id_}"' for id_ in ["nobody"] * 1000 + [ann["id"]])
    await scim.call("PATCH", where, ops({"op": "remove", "path": f"members[{listed}]"}))
    assert await scim.members(group["id"]) == set()


async def test_members_are_looked_at_one_by_one_a_few_times_only() -> None:
    scim = service()
    where = f"/Groups/{(await scim.group('staff'))['id']}"
    one = {"op": "remove", "path": 'members[type eq "Group"]'}
    most = patching.MOST_SELECTIONS
    assert (await scim.call("PATCH", where, ops(*[one] * most))).status_code == 200
    scim.memory.loaded.clear()
    assert await _refused(scim, "PATCH", where, ops(*[one] * (most + 1))) == "tooMany"
    assert len(scim.memory.loaded) == most
