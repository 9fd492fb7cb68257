"""The usage scenarios of the documentation, on a real Synapse, with the daemon running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.kit import Command, Stage, until

pytestmark = pytest.mark.e2e

MOMENT = 10.0
"""Seconds. A correction takes a fraction of one; the rest is for a busy machine."""
FIRST = 60.0
"""Seconds for making all rooms, and for whatever takes many requests."""


@asynccontextmanager
async def following(stage: Stage) -> AsyncIterator[Command]:
    """The daemon runs, everybody has an account and has joined, and all is as the directory says."""
    await stage.register_everybody()
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await follows(stage, FIRST)
        await stage.join_all()
        yield daemon
        ended = await daemon.terminate()
        assert ended.code == 0, ended.err


async def follows(stage: Stage, patience: float = MOMENT) -> None:
    """Waits until the homeserver is as the directory says."""

    async def does() -> bool:
        try:
            await stage.assert_follows()
        except (AssertionError, KeyError):
            return False
        return True

    await until(does, "the homeserver follows the directory", patience)


def is_(stage: Stage, localpart: str, key: str, *memberships: str | None) -> Callable[[], Awaitable[bool]]:
    """A condition: somebody's membership is one of these."""

    async def check() -> bool:
        return await stage.membership(key, localpart) in memberships

    return check


async def level(stage: Stage, key: str, localpart: str) -> int:
    users: dict[str, int] = (await stage.rooms())[key].levels.get("users", {})
    return users.get(stage.mxid(localpart), 0)


async def test_onboarding(live_stage: Stage) -> None:
    """Units are nested as in the directory; who logs in for the first time is invited to all of theirs."""
    stage = live_stage
    source: dict[str, Any] = stage.config["source"] | {"mirror_tree": True}
    del stage.config["spaces"]
    stage.configure(source=source)
    newcomer = "noor.onboards"
    stage.give(stage.organisation.joined(newcomer, "platform,ou=engineering"))
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await until(lambda: _has_rooms(stage, 2 * 4), "four units, and a room in each", MOMENT)
        by_name = {room.name: key for key, room in (await stage.rooms()).items() if room.is_space}
        assert set(by_name) == {"yard", "engineering", "platform", "sales"}

        await stage.homeserver.register(newcomer)

        for unit in ("yard", "engineering", "platform"):
            for key in (by_name[unit], f"{by_name[unit]}/general"):
                await until(is_(stage, newcomer, key, "invite"), f"invited to {unit}", MOMENT)
        assert await stage.membership(by_name["sales"], newcomer) is None
        await stage.join_all(newcomer)
        # They see their place, and the public conversations of the company.
        assert await stage.tree(newcomer, by_name["yard"]) >= {"yard", "engineering", "platform", "General"}


async def _has_rooms(stage: Stage, number: int) -> bool:
    return len(await stage.rooms()) == number


async def test_restructuring(live_stage: Stage) -> None:
    stage = live_stage
    async with following(stage):
        stage.give(stage.organisation.moved("bela", ""))
        for key in ("engineering", "engineering/general"):
            await until(is_(stage, "bela", key, "leave"), f"out of {key}", MOMENT)
        stage.give(stage.organisation.moved("bela", "sales"))
        for key in ("sales", "sales/general"):
            await until(is_(stage, "bela", key, "invite"), f"invited to {key}", MOMENT)
        assert await stage.membership("company", "bela") == "join"
        await follows(stage)


async def test_offboarding(live_stage: Stage) -> None:
    stage = live_stage
    async with following(stage):
        stage.give(stage.organisation.left("cleo"))
        for key in ("company", "company/general", "engineering", "engineering/general"):
            await until(is_(stage, "cleo", key, "leave"), f"out of {key}", MOMENT)
        await follows(stage)


async def test_permission_management(live_stage: Stage) -> None:
    stage = live_stage
    async with following(stage):
        stage.give(stage.organisation.promoted("bela", "leads").promoted("cleo", "engineering-moderators"))
        await follows(stage)
        # A level goes to a space and its rooms, and to no subspace.
        assert [await level(stage, key, "bela") for key in ("company", "company/general")] == [50, 50]
        assert await level(stage, "engineering", "bela") == 0
        assert [await level(stage, key, "cleo") for key in ("engineering", "engineering/general")] == [50, 50]
        assert await level(stage, "company", "cleo") == 0
        # Moderators may make rooms in their space.
        moderator = stage.homeserver.client("cleo")
        space = (await stage.rooms())["engineering"].room_id
        made = await moderator.create_room(name="Their own")
        await moderator.put_state(space, "m.space.child", {"via": [stage.homeserver.server_name]}, made)


async def test_ldap_as_a_source_of_truth(live_stage: Stage) -> None:
    stage = live_stage
    rooms = [{"id": "general", "properties": {"name": "General", "suggested": True, "room_version": "11"}}]
    stage.configure(provisioner=stage.config["provisioner"] | {"default_rooms": rooms})
    async with following(stage) as daemon:
        sales = (await stage.rooms())["sales"]
        bot, gero, hana = stage.homeserver.bot_client(), *map(stage.homeserver.client, ("gero", "hana"))

        # Somebody has more than the directory gives them.
        await bot.set_power_levels(sales.room_id, {hana.mxid: 50})
        await until(lambda: _has_level(stage, "sales", "hana", 0), "hana is demoted", MOMENT)

        # Somebody is admin, of the bot's own level: only they themselves can step down.
        await bot.set_power_levels((await stage.rooms())["sales/general"].room_id, {hana.mxid: 100})
        await until(lambda: _has_level(stage, "sales/general", "hana", 0), "hana steps down", MOMENT)

        # Somebody is where they should not be.
        await gero.invite(sales.room_id, stage.mxid("bela"))
        await until(is_(stage, "bela", "sales", "leave"), "bela's invite is taken back", MOMENT)
        await gero.invite(sales.room_id, stage.mxid("bela"))
        await stage.homeserver.client("bela").join(sales.room_id)
        await until(is_(stage, "bela", "sales", "leave"), "bela is kicked", MOMENT)

        # In two places at once.
        for place in (sales, (await stage.rooms())["sales/general"]):
            await gero.invite(place.room_id, stage.mxid("cleo"))
        for key in ("sales", "sales/general"):
            await until(is_(stage, "cleo", key, "leave"), f"cleo's invite to {key} is taken back", MOMENT)
        await follows(stage)
        assert "not in ou=sales" in daemon.err
        assert daemon.err.count("started") == 1, "nothing stopped it in between"


async def _has_level(stage: Stage, key: str, localpart: str, wanted: int) -> bool:
    return await level(stage, key, localpart) == wanted
