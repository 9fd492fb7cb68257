"""Names and the tree, on a real Synapse: changed by people, and in the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.kit import Stage, until
from tests.e2e.test_usage_scenarios import MOMENT, following

pytestmark = pytest.mark.e2e


async def rename(stage: Stage, name: str) -> None:
    """The moderator of the sales people's space gives it another name."""
    room_id = (await stage.rooms())["sales"].room_id
    await stage.homeserver.client("gero").put_state(room_id, "m.room.name", {"name": name})


async def test_a_name_that_people_change_is_put_back_unless_that_is_switched_off(live_stage: Stage) -> None:
    stage = live_stage
    async with following(stage):
        await rename(stage, "The Best")

        async def is_back() -> bool:
            return (await stage.rooms())["sales"].name == "Sales"

        await until(is_back, "the name is back", MOMENT)
        await stage.settles()
    stage.configure(provisioner=stage.config["provisioner"] | {"enforce_names": False})
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await rename(stage, "The Best")
        await stage.settles()
        assert (await stage.rooms())["sales"].name == "The Best"


async def test_a_subspace_is_moved_and_renamed_never_made_anew(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    before = await stage.rooms()
    [company] = stage.config["spaces"]
    units: dict[str, dict[str, Any]] = {space["id"]: space for space in company["subspaces"]}
    [platform] = units["engineering"].pop("subspaces")
    units["sales"]["subspaces"] = [platform | {"name": "Selling platform"}]
    stage.configure()

    await stage.apply()

    rooms = await stage.rooms()
    assert {key: room.room_id for key, room in rooms.items()} == {
        key: room.room_id for key, room in before.items()
    }
    moved = rooms["platform"]
    assert (moved.name, moved.related("m.space.parent")) == ("Selling platform", {rooms["sales"].room_id})
    assert moved.room_id in rooms["sales"].related("m.space.child")
    assert moved.room_id not in rooms["engineering"].related("m.space.child")
    # Whoever is in a subspace is in what it stands in.
    assert stage.mxids("emil", "fina") <= rooms["sales"].members() & rooms["engineering"].members()
    assert moved.members() == before["platform"].members() | {stage.homeserver.bot}
    await stage.settles()
