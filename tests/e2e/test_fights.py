"""Somebody changes the same thing back each time: it is corrected ever slower, and said loudly."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage, until
from tests.e2e.test_usage_scenarios import MOMENT, following, is_

pytestmark = pytest.mark.e2e


async def test_a_fight_is_told_and_nobody_else_waits(live_stage: Stage) -> None:
    stage = live_stage
    async with following(stage) as daemon:
        sales = (await stage.rooms())["sales"].room_id
        gero = stage.homeserver.client("gero")
        for _ in range(6):
            await gero.invite(sales, stage.mxid("bela"))
            await until(is_(stage, "bela", "sales", "leave"), "bela's invite is taken back", MOMENT)

        await gero.invite(sales, stage.mxid("bela"))
        await daemon.says("the same correction is made again and again")
        await gero.invite(sales, stage.mxid("cleo"))
        await until(is_(stage, "cleo", "sales", "leave"), "cleo's invite is taken back at once", MOMENT)
        assert await stage.membership("sales", "bela") == "invite", "that one waits"

        checked = await stage.aim("check")
        assert "events of the homeserver arrive" in checked.out
        assert f"kick of {stage.mxid('bela')} in sales was done 6 times" in checked.out
