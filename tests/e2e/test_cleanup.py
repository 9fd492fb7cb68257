"""Letting go of what is no longer ours (`provisioner.gc`), on a real Synapse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.kit import MARKER, Room, Stage, actions, until
from tests.e2e.organisation import spaces
from tests.e2e.test_rooms_of_people import add, inside, make, seen
from tests.e2e.test_usage_scenarios import MOMENT, following

pytestmark = pytest.mark.e2e

ENGINEERS = ("ada", "bela", "cleo", "emil", "fina")


def clean_up(stage: Stage, **guards: dict[str, Any]) -> None:
    """What is no longer ours is let go of from now on."""
    provisioner = stage.config["provisioner"] | {"gc": {"enabled": True}, "guards": guards}
    stage.configure(provisioner=provisioner)


def deconfigure(stage: Stage, space: str) -> None:
    """The space, somewhere below the company, leaves the configuration."""
    [company] = stage.config["spaces"]
    for parent in (company, *company["subspaces"]):
        parent["subspaces"] = [one for one in parent.get("subspaces", ()) if one["id"] != space]
    stage.configure()


async def remove(stage: Stage, localpart: str, space: str, room_id: str) -> None:
    """Somebody takes a room out of a space."""
    await stage.homeserver.client(localpart).put_state(space, "m.space.child", {}, room_id)


async def test_a_deconfigured_space_is_abandoned_and_its_rooms_are_released(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    bot = stage.homeserver.bot
    ada, emil = map(stage.homeserver.client, ("ada", "emil"))
    rooms = await stage.rooms()
    # In v11 we take her 100, in v12 nobody can take his.
    engineering, platform = rooms["engineering"].room_id, rooms["platform"].room_id
    older = await make(ada, open_to=engineering)
    newer = await make(emil, open_to=engineering, version="12")
    await ada.join(newer)
    for room_id in (older, newer):
        await add(ada, engineering, room_id)
    await stage.apply()
    await stage.join_all()
    assert (await stage.look(older)).levels["users"] == {bot: 100, ada.mxid: 50}
    assert (await stage.look(newer)).levels["users"] == {bot: 100, ada.mxid: 50}
    deconfigure(stage, "engineering")

    # Off by default: told, and left.
    before = await stage.settles()
    assert {problem["subject"] for problem in before["problems"]} >= {"engineering", "platform", older, newer}
    assert "can't be had back" in {p["subject"]: p["message"] for p in before["problems"]}["engineering"]

    many = {"at_least": 20, "percent": 100}
    anything = {"per_space": many, "organisation": many}
    clean_up(stage, kicks=anything, releases=anything)
    plan = actions(await stage.plan())
    assert {(kind, room) for kind, room, _ in plan if kind != "kick"} == {
        ("abandon_space", "engineering"),
        ("abandon_space", "platform"),
        ("release_room", "engineering/general"),
        ("release_room", "platform/general"),
        ("release_room", older),
        ("release_room", newer),
    }
    await stage.apply()

    for space in (engineering, platform):
        assert (await stage.look(space)).members() == set()
    old, new = await stage.look(older), await stage.look(newer)
    assert (old.members("join"), old.levels["users"][ada.mxid]) == ({ada.mxid}, 100)
    assert inside(old, stage) == stage.mxids(*ENGINEERS)
    assert (old.content(MARKER, bot), new.content(MARKER, bot)) == ({}, {})
    assert (inside(new, stage), bot in new.members("join")) == (stage.mxids(*ENGINEERS), False)
    general = (await stage.rooms())["engineering/general"]
    assert inside(general, stage) == stage.mxids(*ENGINEERS)
    assert bot not in general.members()
    # Only the bot could have closed it, and it is gone.
    await ada.put_state(general.room_id, "m.room.tombstone", {"body": "moved", "replacement_room": older})
    await stage.settles()

    # Asked for again under the same ids: nobody could come back to the old ones.
    stage.configure(spaces=spaces())
    await stage.apply()
    made = [room for room in await stage.all_rooms() if bot in room.members("join")]
    again = {room.key: room for room in made if room.key.startswith("engineering")}
    assert len(again) == 2
    assert {engineering, general.room_id}.isdisjoint(room.room_id for room in again.values())
    assert inside(again["engineering"], stage) == stage.mxids(*ENGINEERS)
    await stage.settles()


async def test_what_moderators_take_out_of_a_space_is_released_and_comes_back_by_another(
    live_stage: Stage,
) -> None:
    stage = live_stage
    clean_up(stage)
    bot = stage.homeserver.bot
    ada, gero = map(stage.homeserver.client, ("ada", "gero"))
    async with following(stage):
        rooms = await stage.rooms()
        engineering, sales = rooms["engineering"].room_id, rooms["sales"].room_id
        theirs = await make(ada, open_to=engineering)
        await add(ada, engineering, theirs)
        people = stage.mxids(*ENGINEERS)
        await until(seen(stage, theirs, lambda room: inside(room, stage) == people), "taken over", MOMENT)

        await remove(stage, "ada", engineering, theirs)

        await until(seen(stage, theirs, lambda room: bot not in room.members("join")), "left", MOMENT)
        released = await stage.look(theirs)
        assert (released.content(MARKER, bot), released.levels["users"][ada.mxid]) == ({}, 100)
        assert inside(released, stage) == people
        assert (await stage.settles())["problems"] == []

        # Now it is the sales people's.
        rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": sales}]}
        await ada.put_state(theirs, "m.room.join_rules", rules)
        await ada.invite(theirs, gero.mxid)
        await gero.join(theirs)
        await add(gero, sales, theirs)
        await until(seen(stage, theirs, lambda room: room.key == theirs), "taken over again", MOMENT)
        # Five engineers are more than three: somebody has to agree.
        plan = await stage.plan()
        held = {action["target"] for action in plan["actions"] if action["held"]}
        assert held == people
        await stage.aim("approve", plan["digest"], "--by", "the admin")

        salespeople = stage.mxids("gero", "hana", "ivan", "jule", "lino", "mira")
        await until(
            seen(stage, theirs, lambda room: inside(room, stage) == salespeople), "sales only", MOMENT
        )
        assert _moderators(await stage.look(theirs)) == {gero.mxid}
        await stage.settles()


def _moderators(room: Room) -> set[str]:
    return {mxid for mxid, level in room.levels["users"].items() if level == 50}


async def test_a_closed_room_is_released_and_one_that_would_shut_us_out_is_kept(stage: Stage) -> None:
    clean_up(stage)
    await stage.provision()
    await stage.join_all()
    bot, ada = stage.homeserver.bot, stage.homeserver.client("ada")
    engineering = (await stage.rooms())["engineering"].room_id
    closed = await make(ada, open_to=engineering)
    lonely = await make(ada, open_to=engineering, power_level_content_override={"invite": 50})
    for room_id in (closed, lonely):
        await add(ada, engineering, room_id)
    await stage.apply()
    for uid in ENGINEERS[1:]:
        await stage.homeserver.client(uid).join(lonely)
    rules = await ada.get_state(closed, "m.room.join_rules")

    await close(stage, closed)
    await ada.leave(lonely)
    await remove(stage, "ada", engineering, lonely)
    plan = await stage.plan()
    await stage.apply()

    [problem] = [problem for problem in plan["problems"] if problem["severity"] == "warning"]
    assert (problem["subject"], "the bot stays" in problem["message"]) == (lonely, True)
    for room_id, members in ((closed, {ada.mxid}), (lonely, {bot, *stage.mxids(*ENGINEERS[1:])})):
        room = await stage.look(room_id)
        assert (room.content(MARKER, bot), room.members("join")) == ({}, members)
    await stage.settles()

    await ada.put_state(closed, "m.room.join_rules", rules)
    await stage.apply()
    room = await stage.look(closed)
    assert (room.key, room.levels["users"]) == (closed, {bot: 100, ada.mxid: 50})
    await stage.settles()


async def close(stage: Stage, room_id: str) -> None:
    """Whoever may do everything in the room makes it private."""
    await stage.homeserver.bot_client().put_state(room_id, "m.room.join_rules", {"join_rule": "invite"})


async def test_too_many_at_once_wait_for_approval(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    ada = stage.homeserver.client("ada")
    rooms = await stage.rooms()
    engineering, sales = rooms["engineering"].room_id, rooms["sales"].room_id
    theirs = [await make(ada, open_to=engineering, name=f"No. {number}") for number in range(4)]
    for room_id in theirs:
        await add(ada, engineering, room_id)
    await stage.apply()
    for room_id in theirs:
        await remove(stage, "ada", engineering, room_id)
    many = {"at_least": 20, "percent": 100}
    clean_up(
        stage,
        kicks={"per_space": many, "organisation": many},
        abandoned_spaces={"organisation": {"at_least": 0, "percent": 0}},
    )
    deconfigure(stage, "sales")

    first = await stage.apply(code=3)

    assert "releases in the organisation: 5 rooms within an hour, the limit is 3" in first.out
    assert "abandoned spaces in the organisation: 1 spaces within an hour, the limit is 0" in first.out
    for room_id in theirs:
        assert stage.homeserver.bot in (await stage.look(room_id)).members("join")
    plan = await stage.plan()
    held = {(action["type"], action["room"]) for action in plan["actions"] if action["held"]}
    assert held >= {("abandon_space", "sales"), *(("release_room", room_id) for room_id in theirs)}

    await stage.aim("approve", plan["digest"], "--by", "the admin")
    await stage.apply()

    for room_id in theirs:
        assert stage.homeserver.bot not in (await stage.look(room_id)).members("join")
    assert (await stage.look(sales)).members() == set()
    await stage.settles()
