"""Requests that change one resource at the same time: each gets what it asked for, whole or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aim.bridges.scim.core import Core
from aim.bridges.scim.turns import Turns
from aim.ports.scim import ScimKind, ScimResource
from tests.unit.scim_client import a_group, a_user, ops, service
from tests.unit.scim_store import MemoryScim


class Leisurely(MemoryScim):
    """Lets others have their turn after each read, as a database does."""

    async def get(self, kind: ScimKind, id_: str) -> ScimResource | None:
        found = await super().get(kind, id_)
        await asyncio.sleep(0)
        return found


# -- turns ---------------------------------------------------------------------------------------------------


async def test_one_comes_after_another_and_nothing_is_remembered_of_them() -> None:
    turns, seen = Turns(), list[tuple[int, str]]()

    async def change(number: int) -> None:
        async with turns.of("a"):
            seen.append((number, "in"))
            await asyncio.sleep(0)
            seen.append((number, "out"))

    await asyncio.gather(*map(change, range(4)))
    assert seen == [(number, what) for number in range(4) for what in ("in", "out")]
    assert len(turns) == 0


async def test_other_resources_are_nobodys_business() -> None:
    turns = Turns()
    async with turns.of("a"), turns.of("b"):
        assert len(turns) == 2


async def test_whoever_waited_too_long_goes_without_and_takes_nothing_from_others() -> None:
    turns, entered = Turns(patience=0.1), asyncio.Event()

    async def third() -> None:
        async with turns.of("a"):
            entered.set()

    async with turns.of("a"):
        async with asyncio.timeout(10), turns.of("a"):
            pass
        # The turn is still that of the first one.
        waiting = asyncio.create_task(third())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not entered.is_set()
    await waiting
    assert entered.is_set()


# -- requests ------------------------------------------------------------------------------------------------


async def test_many_who_change_attributes_and_members_of_one_group_are_all_heard() -> None:
    scim = service(Leisurely())
    ids = [(await scim.user())["id"] for _ in range(60)]
    group = (await scim.group("staff"))["id"]

    def patch(number: int) -> dict[str, Any]:
        member = {"op": "add", "path": "members", "value": [{"value": ids[number]}]}
        name = {"op": "replace", "path": "displayName", "value": f"staff {number}"}
        return ops(*([member, name], [member])[number % 3 == 0])

    answers = await asyncio.gather(
        *(scim.call("PATCH", f"/Groups/{group}", patch(number)) for number in range(60))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert await scim.members(group) == set(ids)


async def test_attributes_and_members_are_one_change() -> None:
    scim = service()
    ann, bob = (await scim.user("ann"))["id"], (await scim.user("bob"))["id"]
    group = await scim.group("staff", [ann])
    patch = ops(
        {"op": "replace", "path": "displayName", "value": "all staff"},
        {"op": "add", "path": "members", "value": [{"value": bob}]},
        {"op": "remove", "path": f'members[value eq "{ann}"]'},
    )
    where, headers = f"/Groups/{group['id']}", {"If-Match": group["meta"]["version"]}
    answer = await scim.call("PATCH", where, patch, headers=headers)
    assert answer.headers["etag"] == 'W/"2"'
    assert answer.json()["displayName"] == "all staff"
    assert await scim.members(group["id"]) == {bob}
    # The same once more changes nothing, and is no change.
    assert (await scim.call("PATCH", where, patch)).headers["etag"] == 'W/"2"'


async def test_any_version_is_any_version() -> None:
    scim = service()
    ann, group = (await scim.user("ann"))["id"], (await scim.group("staff"))["id"]
    add = ops({"op": "add", "path": "members", "value": [{"value": ann}]})
    title = ops({"op": "add", "path": "title", "value": "Boss"})
    for method, path, body in (
        ("PUT", f"/Users/{ann}", a_user("anna")),
        ("PATCH", f"/Users/{ann}", title),
        ("PATCH", f"/Groups/{group}", add),
        ("PUT", f"/Groups/{group}", a_group("others")),
        ("DELETE", f"/Groups/{group}", None),
        ("DELETE", f"/Users/{ann}", None),
    ):
        id_ = path.rpartition("/")[2]
        scim.memory.races.append(id_)
        answer = await scim.call(method, path, body, headers={"If-Match": "*"})
        assert answer.status_code < 300, (method, path, answer.text)
        assert scim.memory.races == []


async def test_of_several_versions_the_one_after_a_race_may_be_meant() -> None:
    scim = service()
    ann = (await scim.user("ann"))["id"]
    for method, status in (("PUT", 200), ("DELETE", 412)):
        scim.memory.races.append(ann)
        either = {"If-Match": 'W/"1", W/"2"'}
        answer = await scim.call(method, f"/Users/{ann}", a_user("anna"), headers=either)
        assert answer.status_code == status
    assert answer.json()["detail"] == "the resource has another version than If-Match says"
    ruled_out = await scim.call("DELETE", f"/Users/{ann}", headers={"If-None-Match": "*"})
    assert (ruled_out.status_code, "If-None-Match" in ruled_out.json()["detail"]) == (412, True)


@pytest.mark.parametrize("count", [3, 200])
async def test_what_takes_long_is_done_beside_other_requests(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    threads: list[bool] = []

    def noted(name: str) -> None:
        real: Callable[..., object] = getattr(Core, name)

        def work(self: Core, *of: object) -> object:
            threads.append(threading.current_thread() is not threading.main_thread())
            return real(self, *of)

        monkeypatch.setattr(Core, name, work)

    scim = service()
    emails = [{"value": f"{number}@example.com", "type": "work"} for number in range(count)]
    ann = (await scim.user("ann", emails=emails))["id"]
    group = (await scim.group("staff", [(await scim.user())["id"] for _ in range(count)]))["id"]
    noted("choose")
    noted("patched")
    for path, where in (('members[type eq "User"]', f"/Groups/{group}"), ("emails", f"/Users/{ann}")):
        assert (await scim.call("PATCH", where, ops({"op": "remove", "path": path}))).status_code == 200
    assert await scim.members(group) == set()
    assert threads == [count > 100] * 2
