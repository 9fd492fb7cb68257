"""Journey: the database is lost, and rebuilt from the markers; nobody is removed by mistake."""

from __future__ import annotations

import re
import shutil

import pytest

from aim.store import embedded
from tests.e2e.conftest import NewStage
from tests.e2e.kit import Result, Stage

pytestmark = pytest.mark.e2e


def digest_in(result: Result) -> str:
    """The digest of the plan that a command showed."""
    found = re.search(r"sha256:[0-9a-f]{64}", result.out)
    assert found, result
    return found[0]


async def test_a_lost_database_is_rebuilt_and_removals_wait_for_a_person(new_stage: NewStage) -> None:
    stage = await new_stage(embedded=True)
    await stage.provision()
    await stage.join_all()
    before = await stage.rooms()
    shutil.rmtree(stage.data_dir)
    stage.give(stage.organisation.left("mira").joined("nora", "sales"))
    await stage.homeserver.register("nora")

    rebuilt = await stage.apply(code=3)

    after = await stage.rooms()
    assert {key: room.room_id for key, room in after.items()} == {
        k: room.room_id for k, room in before.items()
    }
    assert stage.mxid("mira") in after["company"].members("join") & after["sales"].members("join")
    assert stage.mxid("nora") in after["company"].members("invite") & after["sales"].members("invite")
    assert "in recovery nothing is removed without approval" in rebuilt.out
    # Held open from here on, so that the commands don't start and stop it one by one.
    async with embedded(stage.data_dir, create=False):
        await _approved(stage, digest_in(rebuilt))
        await _assert_out_of_recovery(stage)


async def _approved(stage: Stage, digest: str) -> None:
    """The plan says what is held and why; a person lets it go."""
    plan = await stage.plan()
    assert "recovery" in {problem["subject"] for problem in plan["problems"]}
    assert {(action["type"], action["held"]) for action in plan["actions"]} == {("kick", True)}

    approved = await stage.aim("approve", digest, "--by", "the admin")
    await stage.apply()

    assert (approved.code, approved.err) == (0, "")
    await stage.assert_follows()


async def _assert_out_of_recovery(stage: Stage) -> None:
    """Somebody else who leaves is removed without anybody's approval."""
    stage.give(stage.organisation.left("lino"))
    await stage.apply()
    await stage.assert_follows()
    assert (await stage.plan())["problems"] == []
