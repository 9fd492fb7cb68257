"""SCIM answers that wait for the homeserver, and what `aim check` says of the service."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.kit import Stage
from tests.e2e.scim_kit import GROUP, PATCH, TOKEN, USER, Json, pushed_to

pytestmark = pytest.mark.e2e

EVERYONE = [{"id": "lab", "name": "Lab", "groups": [{"externalId": ""}]}]
WAITS = {"synchronous_provisioning": True}


def a_user(name: str) -> Json:
    return {"schemas": [USER], "userName": name}


async def test_an_answer_comes_when_the_homeserver_has_followed(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_to(stage, WAITS, EVERYONE)
    await stage.homeserver.register("sync.ann", "sync.bob", "sync.cid")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        await client.add("/Users", userName="sync.ann")
        assert await stage.membership("lab", "sync.ann") == "invite"

        held = stage.proxy.hold(lambda request: request.path.endswith("/invite"))
        adding = asyncio.create_task(client.add("/Users", userName="sync.bob"))
        await asyncio.wait_for(held.reached.wait(), 30)
        assert not adding.done()
        held.release.set()
        bob = await adding
        assert await stage.membership("lab", "sync.bob") == "invite"

        group = {"schemas": [GROUP], "displayName": "Few", "members": [{"value": bob}]}
        assert (await client.send("POST", "/Groups", group))[0] == 201
        await daemon.terminate()
    assert TOKEN not in daemon.err


async def test_a_refused_invite_is_the_error_of_the_user_whom_it_concerns(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_to(stage, WAITS, EVERYONE)
    await stage.homeserver.register("sync.dan", "sync.eve", "sync.fay")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        await client.add("/Users", userName="sync.dan")
        stage.proxy.fail(
            lambda request: request.path.endswith("/invite"),
            times=None,
            status=403,
            errcode="M_FORBIDDEN",
            error="the answer is no",
        )
        status, answer = await client.send("POST", "/Users", a_user("sync.eve"))
        assert status == 500
        detail = answer["detail"]
        for word in ("stored", "invite", stage.mxid("sync.eve"), "the answer is no"):
            assert word in detail
        # It is stored: the same again is one too many.
        assert (await client.send("POST", "/Users", a_user("sync.eve")))[0] == 409

        stage.proxy.behave()
        assert (await client.send("POST", "/Users", a_user("sync.fay")))[0] == 201
        found = (await client.found("/Users", 'userName eq "sync.eve"'))["Resources"][0]["id"]
        patch = {"schemas": [PATCH], "Operations": [{"op": "add", "path": "title", "value": "Boss"}]}
        assert (await client.send("PATCH", f"/Users/{found}", patch))[0] == 200
        assert await stage.membership("lab", "sync.eve") == "invite"


async def test_stopping_ends_the_waiting_and_nothing_is_lost(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_to(stage, WAITS, EVERYONE)
    await stage.homeserver.register("sync.gus", "sync.hal")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        await client.add("/Users", userName="sync.gus")
        held = stage.proxy.hold(lambda request: request.path.endswith("/invite"))
        adding = asyncio.create_task(client.send("POST", "/Users", a_user("sync.hal")))
        await asyncio.wait_for(held.reached.wait(), 30)
        ending = asyncio.create_task(daemon.terminate())
        status, answer = await asyncio.wait_for(adding, 10)
        assert (status, "stopped" in answer["detail"]) == (500, True)
        held.release.set()
        assert (await ending).code == 0
    result = await stage.aim("apply", "--yes")
    assert result.code in {0, 3}, result
    assert await stage.membership("lab", "sync.hal") == "invite"


async def test_an_admin_of_the_homeserver_and_a_check_from_outside(live_stage: Stage) -> None:
    stage = live_stage
    grants = [{"synapse_user": "admin", "roles": "read:*"}]
    client = pushed_to(stage, {"rbac": grants}, EVERYONE)
    source = stage.config["source"]
    url = f"http://127.0.0.1:{source['port']}"
    stage.configure(source={**source, "public_url": url})
    ordinary = await stage.homeserver.server.register("sync.ian", "a-password")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        admin = stage.homeserver.admin_token
        assert (await client.send("GET", "/Users", token=admin))[0] == 200
        assert (await client.send("POST", "/Users", a_user("sync.joe"), token=admin))[0] == 403
        assert (await client.send("GET", "/Users", token=ordinary))[0] == 401
        status, answer = await client.send("GET", "/Users", token="nobodys")
        assert (status, answer["status"]) == (401, "401")
        asked = [one for one in stage.proxy.requests if one.path.endswith("/account/whoami")]
        assert len(asked) >= 3

        checked = await stage.aim("check")
        assert f"{url} leads to aim, and a token is accepted there" in checked.out
        assert f"{url} is not encrypted" in checked.out
        stage.configure(source={**source, "public_url": f"{url}/scim"})
        wrong = f"aim answers, but {url}/scim/ServiceProviderConfig is not one of its addresses"
        assert wrong in (await stage.aim("check")).out
        await daemon.terminate()
    assert f"aim run does not run: whether {url}/scim leads to it" in (await stage.aim("check")).out
    for token in (admin, ordinary, TOKEN):
        assert token not in daemon.err + checked.out + checked.err
