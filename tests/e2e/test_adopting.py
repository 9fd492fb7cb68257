"""Spaces that exist already and are taken over (`spaces[].room`), on a real Synapse."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.kit import Stage, actions, until
from tests.e2e.test_rooms_of_people import add, inside, make, seen
from tests.e2e.test_usage_scenarios import MOMENT
from tests.servers.synapse import Person

pytestmark = pytest.mark.e2e

ENGINEERS = ("ada", "bela", "cleo", "emil", "fina")
SALES = ("gero", "hana", "ivan", "jule", "lino", "mira")
SPACE = {"type": "m.space"}


def adopt(stage: Stage, **named: str) -> None:
    """These spaces of the configuration are the existing ones of that alias or id."""
    [company] = stage.config["spaces"]
    subspaces: list[dict[str, Any]] = company["subspaces"]
    for space in subspaces:
        if space["id"] in named:
            space["room"] = named[space["id"]]
    stage.configure()


async def call(person: Person, room_id: str, name: str) -> str:
    """Gives the room an alias. An appservice may not do that: the admin comes in, and leaves again."""
    server = person.homeserver
    room, alias = quote(room_id, safe=""), f"#{name}:{server.server_name}"
    await person.invite(room_id, server.admin)
    await server.as_admin("POST", f"/_matrix/client/v3/join/{room}", {})
    await server.as_admin(
        "PUT", f"/_matrix/client/v3/directory/room/{quote(alias, safe='')}", {"room_id": room_id}
    )
    await server.as_admin("POST", f"/_matrix/client/v3/rooms/{room}/leave", {})
    return alias


async def test_spaces_that_people_made_are_taken_over(stage: Stage) -> None:
    await stage.register_everybody()
    ada, gero = map(stage.homeserver.client, ("ada", "gero"))
    engineering = await make(ada, rule="invite", creation_content=SPACE)
    alias = await call(ada, engineering, f"old-{stage.instance}")
    for uid in ("bela", "gero"):
        await ada.invite(engineering, stage.mxid(uid))
        await stage.homeserver.client(uid).join(engineering)
    # A room of theirs comes along with the space.
    theirs = await make(ada, open_to=engineering)
    await add(ada, engineering, theirs)
    sales = await make(gero, rule="invite", version="12", creation_content=SPACE)
    adopt(stage, engineering=alias, sales=sales)

    plan = actions(await stage.plan())
    shown = await stage.aim("plan")

    assert plan["take_control", "engineering", None]["details"]["acting_as"] == ada.mxid
    assert plan["take_control", "sales", None]["details"]["acting_as"] == gero.mxid
    assert {key for key in plan if key[0] == "kick"} == {("kick", "engineering", gero.mxid)}
    assert plan["set_power_level", "engineering", ada.mxid]["details"]["acting_as"] == ada.mxid
    assert not any(key[:2] in {("create_space", "engineering"), ("create_space", "sales")} for key in plan)
    assert "the configuration names it as this space" in shown.out
    assert stage.proxy.writes == []

    await stage.apply()

    bot, rooms = stage.homeserver.bot, await stage.rooms()
    for key, room_id, people in (("engineering", engineering, ENGINEERS), ("sales", sales, SALES)):
        space = await stage.look(room_id)
        assert (space.key, space.name) == (key, key.title())
        assert inside(space, stage) == stage.mxids(*people)
        assert inside(rooms[f"{key}/general"], stage) == stage.mxids(*people)
        assert room_id in rooms["company"].related("m.space.child")
        assert rooms[f"{key}/general"].room_id in space.related("m.space.child")
    assert (await stage.look(engineering)).levels["users"] == {bot: 100, ada.mxid: 50}
    assert set(rooms).isdisjoint({"engineering", "sales"}), "no second space"

    # The room in it is found once the space is ours.
    await stage.apply()
    assert inside(await stage.look(theirs), stage) == stage.mxids(*ENGINEERS)
    [problem] = (await stage.settles())["problems"]
    assert (problem["subject"], f"made by {gero.mxid}" in problem["message"]) == ("sales", True)


async def test_a_space_that_is_not_there_is_an_error_and_no_second_one_is_made(stage: Stage) -> None:
    await stage.register_everybody()
    hana = stage.homeserver.client("hana")
    room = await make(hana, rule="invite")
    adopt(stage, engineering=f"#nowhere-{stage.instance}:{stage.homeserver.server_name}", sales=room)

    plan = await stage.plan()
    await stage.apply()

    problems = {problem["subject"]: problem for problem in plan["problems"]}
    assert {key: problem["severity"] for key, problem in problems.items()} == {
        "engineering": "error",
        "sales": "error",
    }
    assert "is not found" in problems["engineering"]["message"]
    assert "is a room, not a space" in problems["sales"]["message"]
    assert set(await stage.rooms()) == {"company", "company/general", "platform", "platform/general"}
    assert (await stage.settles())["problems"] == plan["problems"]


async def test_a_space_is_taken_over_by_the_daemon_and_kept(live_stage: Stage) -> None:
    stage = live_stage
    await stage.register_everybody()
    ada = stage.homeserver.client("ada")
    engineering = await make(ada, rule="invite", creation_content=SPACE)
    adopt(stage, engineering=engineering)
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        people = stage.mxids(*ENGINEERS)
        await until(seen(stage, engineering, lambda room: inside(room, stage) == people), "taken over", 30)
        await stage.settles()

        # From now on it is watched like any other.
        await ada.invite(engineering, stage.mxid("hana"))
        await until(
            seen(stage, engineering, lambda room: inside(room, stage) == people), "hana is out", MOMENT
        )
        await ada.put_state(engineering, "m.room.name", {"name": "Mine"})
        await until(seen(stage, engineering, lambda room: room.name == "Engineering"), "named", MOMENT)
        theirs = await make(ada, open_to=engineering)
        await add(ada, engineering, theirs)
        await until(seen(stage, theirs, lambda room: inside(room, stage) == people), "their room", MOMENT)
        await stage.settles()
