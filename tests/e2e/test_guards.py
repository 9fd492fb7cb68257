"""Journeys: more people leave than the guards let go."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage
from tests.e2e.test_lost_database import digest_in

pytestmark = pytest.mark.e2e

LEAVERS = ("hana", "ivan", "jule", "lino")
"""One more than three, which may always go."""


async def test_too_many_leavers_wait_for_approval_and_everything_else_goes_on(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    before = stage.organisation
    changed = before.left(*LEAVERS).joined("nora", "sales").promoted("bela", "engineering-moderators")
    await stage.homeserver.register("nora")
    stage.give(changed)

    first = await stage.apply(code=3)
    stage.proxy.forget()
    cycles = await stage.cycles()
    again = await stage.apply(code=3)

    assert "kicks in space sales: 4 people within an hour, the limit is 3" in first.out
    rooms = await stage.rooms()
    assert stage.mxids(*LEAVERS) <= rooms["sales"].members("join") & rooms["company"].members("join")
    assert stage.mxid("nora") in rooms["sales"].members("invite")
    assert rooms["engineering"].levels["users"][stage.mxid("bela")] == 50
    assert (stage.proxy.writes, await stage.cycles()) == ([], cycles)
    assert digest_in(again) == (await stage.plan())["digest"]

    approved = await stage.aim("approve", digest_in(again), "--by", "the admin")
    await stage.apply()

    assert approved.out.count("approved until") == 4 * 4, approved
    await stage.assert_follows()
    rows = await stage.fetch("select distinct approved_by, digest from aim.approvals")
    assert [tuple(row) for row in rows] == [("the admin", digest_in(again))]


async def test_time_releases_nothing_but_a_world_that_no_longer_asks_does(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    stage.give(stage.organisation.left("hana", "ivan", "jule"))
    await stage.apply()
    with_lino = stage.organisation
    stage.give(with_lino.left("lino"))

    await stage.apply(code=3)
    # Two hours later nothing is left of the three that made lino one too many.
    await stage.fetch("update aim.done set at = at - interval '2 hours'")
    later = await stage.apply(code=3)

    assert "held since an earlier cycle: only approval releases them" in later.out
    assert await stage.membership("sales", "lino") == "join"

    stage.give(with_lino)
    await stage.apply()
    stage.give(with_lino.left("lino"))
    await stage.apply()

    await stage.assert_follows()
