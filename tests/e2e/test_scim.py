"""A directory that is pushed by SCIM, down to the spaces of a real Synapse, with kills."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage, until
from tests.e2e.scim_kit import asked_in, pushed_to
from tests.e2e.test_usage_scenarios import FIRST

pytestmark = pytest.mark.e2e


async def test_what_was_acknowledged_survives_a_kill(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_to(stage)
    await stage.homeserver.register("scim.dora")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        dora = await client.add("/Users", userName="scim.dora")
        await client.add("/Groups", displayName="Researchers", members=[{"value": dora}])
        await daemon.kill()
    async with stage.daemon():
        await until(asked_in(stage, "scim.dora"), "dora is asked in", FIRST)
