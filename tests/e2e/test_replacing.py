"""Rooms whose creator stands above us, on a real Synapse: replaced by one of ours, if that is asked for."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage, until
from tests.e2e.test_rooms_of_people import add, make
from tests.e2e.test_usage_scenarios import MOMENT, following

pytestmark = pytest.mark.e2e

ENGINEERS = ("ada", "bela", "cleo", "emil", "fina")


async def replacement(stage: Stage, theirs: str) -> str | None:
    """The id of the room that the tombstone of theirs names."""
    content = await stage.homeserver.state_content(theirs, "m.room.tombstone")
    return None if content is None else str(content["replacement_room"])


async def is_replaced(stage: Stage, theirs: str, space: str) -> None:
    """A room of ours is in the space instead, with the same name, for the same people."""
    new = await replacement(stage, theirs)
    assert new is not None
    room = await stage.look(new)
    assert (room.key, room.name) == (f"replacement:{theirs}", "Theirs")
    assert room.members() == {*stage.mxids(*ENGINEERS), stage.homeserver.bot}
    assert room.levels["users"] == {stage.mxid("ada"): 50}
    create = room.content("m.room.create") or {}
    assert create["predecessor"] == {"room_id": theirs}
    children = {
        event["state_key"]
        for event in await stage.homeserver.state(space)
        if event["type"] == "m.space.child" and event["content"].get("via")
    }
    assert new in children
    assert theirs not in children


async def test_a_room_is_replaced_once(stage: Stage) -> None:
    stage.configure(provisioner=stage.config["provisioner"] | {"replace_unmanageable_rooms": True})
    await stage.provision()
    await stage.join_all()
    ada, cleo, hana = map(stage.homeserver.client, ("ada", "cleo", "hana"))
    space = (await stage.rooms())["engineering"].room_id
    theirs = await make(cleo, open_to=space, version="12", invite=[hana.mxid])
    await hana.join(theirs)
    await ada.join(theirs)
    await add(ada, space, theirs)

    await stage.apply()

    await is_replaced(stage, theirs, space)
    assert (await stage.settles())["problems"] == []
    # Who was in the old one and has no right to be in ours is still there, and it is closed.
    assert (await stage.look(theirs)).members() == {ada.mxid, cleo.mxid, hana.mxid}


async def test_one_that_was_managed_is_replaced_when_that_is_switched_on(live_stage: Stage) -> None:
    stage = live_stage
    ada, cleo = map(stage.homeserver.client, ("ada", "cleo"))
    async with following(stage):
        space = (await stage.rooms())["engineering"].room_id
        theirs = await make(cleo, open_to=space, version="12")
        await ada.join(theirs)
        await add(ada, space, theirs)
        await until(lambda: is_managed(stage, theirs), "it is managed", MOMENT)
    stage.configure(provisioner=stage.config["provisioner"] | {"replace_unmanageable_rooms": True})
    async with stage.daemon() as daemon:
        await until(lambda: is_closed(stage, theirs), "it is closed", MOMENT)
        assert (await stage.settles())["problems"] == []
        await is_replaced(stage, theirs, space)
        ended = await daemon.terminate()
        assert ended.code == 0, ended.err


async def is_managed(stage: Stage, theirs: str) -> bool:
    return (await stage.look(theirs)).key == theirs


async def is_closed(stage: Stage, theirs: str) -> bool:
    return await replacement(stage, theirs) is not None
