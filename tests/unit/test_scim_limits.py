"""What one request may cost: whoever is let in can still not keep the service busy, nor fill its memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from itertools import chain
from typing import Any

import pytest

from aim.bridges.scim import core, patching, server, storage
from aim.ports.scim import ScimMember
from tests.unit.scim_client import TOKEN, Service, a_user, ops, service
from tests.unit.scim_store import MemoryScim


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


# -- members in memory ---------------------------------------------------------------------------------------


class Counting(MemoryScim):
    """`read` says how many members each reading came to, and of how many groups."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[int, int]] = []

    async def members(
        self, group_ids: Collection[str], at_most: int | None = None
    ) -> Mapping[str, Sequence[ScimMember]]:
        found = await super().members(group_ids, at_most)
        self.read.append((sum(map(len, found.values())), len(group_ids)))
        return found


async def _groups(scim: Service, *sizes: int) -> list[str]:
    """Groups with so many members, by name in this order."""
    ids = [(await scim.user(f"user{number}"))["id"] for number in range(max(sizes))]
    return [(await scim.group(f"g{n}", ids[:size]))["displayName"] for n, size in enumerate(sizes)]


@pytest.mark.parametrize("search", [{}, {"sortBy": "externalId"}], ids=["by the store", "one by one"])
async def test_large_groups_make_a_page_shorter(
    monkeypatch: pytest.MonkeyPatch, search: dict[str, object]
) -> None:
    monkeypatch.setattr(storage, "MOST_MEMBERS", 5)
    store = Counting()
    scim = service(store)
    names = await _groups(scim, 3, 2, 1, 9, 0, 5)
    # What has no value is in the order of ids.
    order = {one.name: one.id for one in store.resources.values()}
    expected = names if not search else sorted(names, key=lambda name: order[name])

    found: list[str] = []
    while len(found) < len(names):
        page = await scim.found("/Groups", startIndex=len(found) + 1, count=50, **search)
        assert page["totalResults"] == len(names)
        assert page["itemsPerPage"] == len(page["Resources"]) > 0
        found += [one["displayName"] for one in page["Resources"]]
    assert found == expected
    assert all(total <= 5 or groups == 1 for total, groups in store.read)

    without = await scim.found("/Groups", count=50, excludedAttributes="members", **search)
    assert [one["displayName"] for one in without["Resources"]] == expected


@pytest.mark.parametrize("search", [{}, {"sortBy": "externalId"}], ids=["by the store", "one by one"])
async def test_shorter_pages_leave_nobody_out_by_cursor_there_and_back(
    monkeypatch: pytest.MonkeyPatch, search: dict[str, object]
) -> None:
    monkeypatch.setattr(storage, "MOST_MEMBERS", 5)
    store = Counting()
    scim = service(store)
    names = set(await _groups(scim, 3, 2, 1, 9, 0, 5, 2, 2, 2))

    async def walk(direction: str, cursor: str) -> tuple[list[list[str]], str]:
        """The names of each page, in the order in which they come, and the way back from the last one."""
        pages: list[list[str]] = []
        while True:
            page = await scim.found("/Groups", count=50, cursor=cursor, **search)
            pages.append([one["displayName"] for one in page["Resources"]])
            cursor = page.get(direction, "")
            if not cursor:
                return pages, page.get("previousCursor", "")

    pages, previous = await walk("nextCursor", "")
    there = list(chain(*pages))
    assert (len(there), set(there)) == (len(names), names)
    back, _ = await walk("previousCursor", previous)
    assert list(chain(*reversed(back))) == list(chain(*pages[:-1]))
    assert all(total <= 5 or groups == 1 for total, groups in store.read)


async def test_members_are_read_where_the_filter_asks_for_them_and_not_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "MOST_MEMBERS", 5)
    store = Counting()
    scim = service(store)
    await _groups(scim, 3, 2, 9, 0)
    for filter_ in ('members[display ew "8" and type eq "User"]', "not (members[display pr and type pr])"):
        store.read.clear()
        listed = await scim.found("/Groups", filter=filter_, excludedAttributes="members")
        assert listed["totalResults"] == 1, filter_
        assert store.read
        assert all(total <= 5 or groups == 1 for total, groups in store.read)
    for filter_ in (
        'meta.resourceType eq "members" or meta.resourceType eq "Group"',
        'meta.location co "members" or not (externalId eq "groups") and meta.resourceType pr',
    ):
        store.read.clear()
        assert (await scim.found("/Groups", filter=filter_, excludedAttributes="members"))[
            "totalResults"
        ] == 4
        assert store.read == []


# -- time ----------------------------------------------------------------------------------------------------


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_WITHIN", 0.05)
    sent: list[MutableMapping[str, Any]] = []
    pieces = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> MutableMapping[str, Any]:
        for piece in pieces:
            return piece
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"host", b"example.com")]
    scope = {"type": "http", "method": "POST", "path": "/scim/v2/Users", "query_string": b""}
    async with asyncio.timeout(10):
        await service().app({**scope, "headers": headers, "scheme": "https"}, receive, send)
    start, body = sent
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"])["status"] == "408"
