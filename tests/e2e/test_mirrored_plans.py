"""`aim plan` beside a running daemon: from the daemon's mirror, without asking the homeserver."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Json, Stage
from tests.e2e.test_usage_scenarios import following

pytestmark = pytest.mark.e2e


async def test_a_plan_beside_the_daemon_asks_the_homeserver_nothing(live_stage: Stage) -> None:
    stage = live_stage
    # So that the daemon does not see the change before the plan is made.
    stage.configure(source=stage.config["source"] | {"check_interval_seconds": 3600})
    async with following(stage):
        stage.give(stage.organisation.left("cleo").moved("hana", "engineering"))

        mirrored, requests = await _planned(stage)
        fresh, read_anew = await _planned(stage, "--fresh")

        assert mirrored["summary"]["by_type"] == {"invite": 2, "kick": 6}
        assert (mirrored["digest"], mirrored["actions"]) == (fresh["digest"], fresh["actions"])
        assert requests == 0
        assert read_anew > len(await stage.rooms())

    # Nobody keeps it any more.
    _, read_anew = await _planned(stage)
    assert read_anew > len(await stage.rooms())


async def _planned(stage: Stage, *options: str) -> tuple[Json, int]:
    """The plan, and how many requests it took."""
    stage.proxy.forget()
    result = await stage.aim("plan", "--json", *options)
    assert (result.code, result.err) == (0, ""), result
    return result.json, len(stage.proxy.requests)
