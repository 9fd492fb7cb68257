"""People who go by themselves, or were banned, on a real Synapse: with the daemon running that counts."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage, until
from tests.e2e.test_usage_scenarios import MOMENT, following, is_

pytestmark = pytest.mark.e2e


async def test_who_leaves_is_left_in_peace_until_they_are_entitled_anew(live_stage: Stage) -> None:
    stage = live_stage
    bela, cleo = map(stage.homeserver.client, ("bela", "cleo"))
    async with following(stage):
        rooms = await stage.rooms()
        await bela.leave(rooms["engineering/general"].room_id)
        await cleo.leave(rooms["engineering"].room_id)
        assert (await stage.settles())["problems"] == []
        assert await stage.membership("engineering/general", "bela") == "leave"
        # Into a space people are asked again, but not on the same day.
        assert await stage.membership("engineering", "cleo") == "leave"

        stage.give(stage.organisation.moved("bela", "sales").moved("cleo", "sales"))
        await until(is_(stage, "bela", "engineering", "leave"), "bela is out", MOMENT)
        await until(is_(stage, "bela", "sales/general", "invite"), "bela may sell", MOMENT)
        await until(is_(stage, "cleo", "engineering/general", "leave"), "cleo is out", MOMENT)
        stage.give(stage.organisation.moved("bela", "engineering").moved("cleo", "engineering"))
        for uid in ("bela", "cleo"):
            for key in ("engineering", "engineering/general"):
                await until(is_(stage, uid, key, "invite"), f"{uid} is asked into {key} again", MOMENT)

        # To decline is to leave.
        await bela.leave(rooms["engineering/general"].room_id)
        await stage.settles()
        assert await stage.membership("engineering/general", "bela") == "leave"


async def test_who_is_banned_stays_banned(live_stage: Stage) -> None:
    stage = live_stage
    gero = stage.homeserver.client("gero")
    async with following(stage):
        general = (await stage.rooms())["sales/general"].room_id
        await gero.ban(general, stage.mxid("hana"))
        [problem] = (await stage.settles())["problems"]
        assert stage.mxid("hana") in problem["message"]
        assert problem["subject"] == "sales/general"

        stage.give(stage.organisation.moved("hana", "engineering"))
        await until(is_(stage, "hana", "sales", "leave"), "hana is out", MOMENT)
        await until(is_(stage, "hana", "engineering/general", "invite"), "hana is an engineer", MOMENT)
        assert (await stage.settles())["problems"] == []
        stage.give(stage.organisation.moved("hana", "sales"))
        await until(is_(stage, "hana", "sales", "invite"), "hana is back", MOMENT)
        await stage.settles()
        assert await stage.membership("sales/general", "hana") == "ban"
