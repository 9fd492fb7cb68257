"""`provisioner.membership: join` on a real Synapse with the daemon running: people are simply in."""

from __future__ import annotations

import json

import pytest

from tests.e2e.kit import Stage, ends_with, until
from tests.e2e.test_rooms_of_people import add, make, seen
from tests.e2e.test_usage_scenarios import FIRST, MOMENT, follows, is_
from tests.servers.proxy import Request

pytestmark = pytest.mark.e2e


def requests(stage: Stage, action: str, room_id: str) -> list[Request]:
    """What was asked about memberships of a room."""
    return stage.proxy.matching(ends_with(f"/rooms/{room_id}/{action}"))


async def test_everybody_is_simply_in(live_stage: Stage) -> None:
    stage = live_stage
    stage.configure(provisioner=stage.config["provisioner"] | {"membership": "join"})
    # Accounts are common to all journeys: this name is used by no other.
    newcomer = "nora.joins"
    stage.give(stage.organisation.joined(newcomer, "sales"))
    await stage.homeserver.register(*(uid for uid in stage.organisation.people if uid != newcomer))
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await until(lambda: _are_all_in(stage, newcomer), "everybody is in", FIRST)

        rooms = await stage.rooms()
        for key, room in rooms.items():
            people = room.members("join") - {stage.homeserver.bot}
            assert len(requests(stage, "join", room.room_id)) == len(people), key
            assert requests(stage, "invite", room.room_id) == [], key
        # A space lets nobody in by itself: its invites came with its creation. A room needs none.
        created = [json.loads(request.body) for request in stage.proxy.matching(ends_with("/createRoom"))]
        invited = {body["name"]: len(body["invite"]) for body in created if "invite" in body}
        assert invited == {"The Yard": 12, "Engineering": 5, "Platform": 2, "Sales": 6, "General": 0}
        stage.proxy.forget()

        await stage.homeserver.register(newcomer)
        await until(is_(stage, newcomer, "sales/general", "join"), "the newcomer is in", MOMENT)
        await until(lambda: _are_all_in(stage), "everybody is in", MOMENT)
        for key in ("company", "sales"):
            assert len(requests(stage, "invite", rooms[key].room_id)) == 1, key
            assert requests(stage, "invite", rooms[f"{key}/general"].room_id) == [], key
            assert len(requests(stage, "join", rooms[f"{key}/general"].room_id)) == 1, key

        stage.give(stage.organisation.moved("bela", "sales"))
        for key in ("sales", "sales/general"):
            await until(is_(stage, "bela", key, "join"), f"bela is in {key}", MOMENT)
        await follows(stage)

        # Into a room that people make as well.
        ada, engineering = stage.homeserver.client("ada"), rooms["engineering"].room_id
        theirs = await make(ada, open_to=engineering)
        await add(ada, engineering, theirs)
        people = stage.mxids("ada", "cleo", "emil", "fina") | {stage.homeserver.bot}
        await until(seen(stage, theirs, lambda room: room.members("join") == people), "all in", MOMENT)
        asked = [json.loads(request.body)["user_id"] for request in requests(stage, "invite", theirs)]
        assert asked == [stage.homeserver.bot]

        # Whoever wants to leave may.
        await stage.homeserver.client("hana").leave(rooms["sales/general"].room_id)
        assert (await stage.settles())["problems"] == []
        assert await stage.membership("sales/general", "hana") == "leave"


async def _are_all_in(stage: Stage, *but: str) -> bool:
    """Whether everybody is where the directory says, and nobody merely invited."""
    try:
        rooms = await stage.assert_follows(stage.organisation.left(*but))
    except (AssertionError, KeyError):
        return False
    return not any(room.members("invite") for room in rooms.values())
