"""Who is pushed by SCIM gets an account, and is asked in by the same cycle; with kills, on a real Synapse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import pytest

from aim.errors import HomeserverRefused
from tests.e2e.kit import Stage, until
from tests.e2e.scim_kit import USER, Client, Json, asked_in, pushed_to
from tests.e2e.test_usage_scenarios import FIRST

pytestmark = pytest.mark.e2e


def pushed_with(stage: Stage, register_users: str) -> Client:
    """The stage's source is SCIM, and has accounts made."""
    client = pushed_to(stage)
    stage.configure(source={**stage.config["source"], "register_users": register_users})
    return client


def has_account(stage: Stage, localpart: str) -> Callable[[], Awaitable[bool]]:
    """A condition: Synapse knows them."""
    path = f"/_synapse/admin/v2/users/{quote(stage.mxid(localpart), safe='')}"

    async def check() -> bool:
        try:
            user = await stage.homeserver.as_admin("GET", path)
        except HomeserverRefused as error:
            if error.status != 404:
                raise
            return False
        return user["deactivated"] is False

    return check


async def test_who_is_pushed_gets_an_account_and_an_invite(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_with(stage, "if-missing")
    await stage.homeserver.register("made.bob")
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        ann = await client.add("/Users", userName="made.ann")
        bob = await client.add("/Users", userName="made.bob")
        await client.add("/Groups", displayName="Researchers", members=[{"value": ann}, {"value": bob}])
        for name in ("made.ann", "made.bob"):
            await until(asked_in(stage, name), f"{name} is asked in", FIRST)
            assert await has_account(stage, name)()
        # Who is in no space gets one, too.
        await client.add("/Users", userName="made.cleo")
        await until(has_account(stage, "made.cleo"), "cleo has an account", FIRST)
        await stage.settles()
        assert (await daemon.terminate()).code == 0
    registrations = [line for line in daemon.err.splitlines() if "register_account" in line]
    assert len(registrations) == 2, registrations


async def test_whoever_was_acknowledged_gets_their_account_after_a_kill(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_with(stage, "if-missing")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        dora = await client.add("/Users", userName="made.dora")
        await client.add("/Groups", displayName="Researchers", members=[{"value": dora}])
        await daemon.kill()
    async with stage.daemon():
        await until(asked_in(stage, "made.dora"), "dora is asked in", FIRST)
        assert await has_account(stage, "made.dora")()


async def test_with_yes_an_account_that_exists_is_an_error(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_with(stage, "yes")
    await stage.homeserver.register("made.evan")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        status, answer = await client.send("POST", "/Users", {"schemas": [USER], "userName": "made.evan"})
        assert (status, answer["scimType"]) == (409, "uniqueness")
        assert "if-missing" in answer["detail"]
        await client.add("/Users", userName="made.fay")
        await until(has_account(stage, "made.fay"), "fay has an account", FIRST)
        # Now there is one, and the user is found first.
        status, answer = await client.send("POST", "/Users", {"schemas": [USER], "userName": "made.fay"})
        assert (status, "if-missing" in answer["detail"]) == (409, False)


async def test_plan_shows_accounts_to_be_made_and_apply_makes_them(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_with(stage, "no")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        gus = await client.add("/Users", userName="made.gus")
        await client.add("/Groups", displayName="Researchers", members=[{"value": gus}])
        assert (await daemon.terminate()).code == 0
    mxid = stage.mxid("made.gus")
    assert ("register_account", mxid) not in targets(await stage.plan())
    stage.configure(source={**stage.config["source"], "register_users": "if-missing"})
    found = targets(await stage.plan())
    assert found["register_account", mxid]["room"] is None
    assert f"register_account {mxid}" in found["invite", mxid]["after"]
    assert not await has_account(stage, "made.gus")()
    await stage.apply()
    assert await has_account(stage, "made.gus")()
    assert await asked_in(stage, "made.gus")()
    assert (await stage.plan())["actions"] == []


def targets(plan: Json) -> dict[tuple[str, str | None], Json]:
    """(type, target) → action, of a plan for one space."""
    return {(action["type"], action["target"]): action for action in plan["actions"]}
