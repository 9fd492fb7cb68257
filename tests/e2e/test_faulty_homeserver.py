"""Journeys: answers get lost, calls are limited or fail, and one thing never works."""

from __future__ import annotations

import json

import pytest

from tests.e2e.kit import Stage, ends_with
from tests.servers.proxy import Predicate, Request

pytestmark = pytest.mark.e2e

CREATION = ends_with("/createRoom")


def _every(n: int, offset: int, but: Predicate = lambda request: False) -> Predicate:
    """One request in `n`, beginning with number `offset`."""
    count = 0

    def is_it(request: Request) -> bool:
        nonlocal count
        count += 1
        return count % n == offset and not but(request)

    return is_it


def _makes(key: str) -> Predicate:
    """The creation of the room with this key."""

    def is_it(request: Request) -> bool:
        return CREATION(request) and json.loads(request.body)["creation_content"]["aim.managed"]["key"] == key

    return is_it


async def test_a_room_whose_creation_was_not_answered_is_found(stage: Stage) -> None:
    await stage.register_everybody()
    lost = stage.proxy.lose_answers(CREATION, times=3)

    await stage.apply()

    assert lost.struck == 3
    await stage.assert_follows()
    assert (await stage.plan())["actions"] == []


async def test_when_every_fifth_call_fails_all_is_done_in_the_end(stage: Stage) -> None:
    await stage.register_everybody()
    limited = stage.proxy.limit(_every(10, 3), times=None, retry_after_ms=20)
    # Not the creation of rooms: without an answer it is waited for, as long as it can be under way.
    failing = stage.proxy.fail(_every(10, 8, but=CREATION), times=None, status=502)

    await stage.apply()
    stage.give(stage.organisation.moved("hana", "engineering").moved("bela", "sales").left("mira"))
    await stage.apply()

    assert min(limited.struck, failing.struck) >= 3
    await stage.assert_follows()


async def test_what_never_works_is_listed_and_the_rest_is_done(stage: Stage) -> None:
    await stage.provision()
    rooms = await stage.rooms()
    path = f"/rooms/{rooms['sales'].room_id}/invite"
    stage.proxy.fail(ends_with(path), times=None, status=403, errcode="M_FORBIDDEN", error="Not today")
    stage.give(stage.organisation.joined("nora", "sales").moved("hana", "engineering"))
    await stage.homeserver.register("nora")

    failed = await stage.apply(code=1)

    listed = [line for line in failed.out.splitlines() if line.startswith("failed")]
    assert len(listed) == 1, failed
    assert f"invite sales {stage.mxid('nora')}" in listed[0]
    assert "Not today" in listed[0]
    assert await stage.membership("sales/general", "nora") == "invite"
    assert await stage.membership("engineering", "hana") == "invite"
    assert await stage.membership("sales", "nora") is None
    assert (await stage.cycles())[-1] == "failed"

    stage.proxy.behave()
    await stage.apply()
    await stage.assert_follows()


async def test_what_depends_on_a_failure_is_skipped_and_says_so(stage: Stage) -> None:
    await stage.register_everybody()
    stage.proxy.fail(_makes("engineering"), times=None, status=400, errcode="M_UNKNOWN", error="Not today")

    failed = await stage.apply(code=1)

    assert set(await stage.rooms()) == {"company", "company/general", "sales", "sales/general"}
    skipped = [line for line in failed.out.splitlines() if line.startswith("skipped")]
    assert any("create_space platform" in line and "depends on" in line for line in skipped), failed

    stage.proxy.behave()
    await stage.apply()
    await stage.assert_follows()
