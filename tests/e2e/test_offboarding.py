"""Accounts follow people, on a real Synapse with the daemon running: leaving, coming back, erasure, names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.kit import Stage, until
from tests.e2e.organisation import Organisation
from tests.e2e.test_usage_scenarios import FIRST, MOMENT, follows, is_, level

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
ENFORCED = 20.0
"""Seconds until what the directory says has reached an account."""


def provisions(stage: Stage, period: str = "30d", **more: object) -> None:
    """Accounts follow the directory, and are locked and erased. The guards let one in twelve go at a time."""
    stage.configure(
        userProvisioner={"deprovisioning": {"enabled": True, "soft_delete_period": period, **more}},
    )


def hires(stage: Stage, *uids: str, unit: str = "engineering") -> Organisation:
    """These work there too. Only people whom no other test knows may be locked or erased: all tests of a
    Synapse share its accounts, and who is erased there is so for good."""
    organisation = stage.organisation
    for uid in uids:
        organisation = organisation.joined(uid, unit)
    return stage.give(organisation)


async def account(stage: Stage, localpart: str) -> Json:
    return await stage.homeserver.as_admin("GET", f"/_synapse/admin/v2/users/{stage.mxid(localpart)}")


async def change(stage: Stage, localpart: str, **body: object) -> None:
    await stage.homeserver.as_admin("PUT", f"/_synapse/admin/v2/users/{stage.mxid(localpart)}", body)


async def emails(stage: Stage, localpart: str) -> set[str]:
    found = (await account(stage, localpart))["threepids"]
    return {one["address"] for one in found if one["medium"] == "email"}


async def log_in(stage: Stage, localpart: str) -> str:
    """The error code of a login by password; "" if it is let in."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": localpart},
        "password": "correct horse battery",
    }
    status, answer = await stage.homeserver.attempt("POST", "/_matrix/client/v3/login", body)
    return "" if status == 200 else str(answer["errcode"])


async def test_offboarding(live_stage: Stage) -> None:
    """Gone: locked, in the rooms still, login refused. Back: unlocked, all as before. Gone again: erased."""
    stage = live_stage
    provisions(stage, "3s")
    everybody = stage.give(hires(stage, "ada.leaves").promoted("ada.leaves", "engineering-moderators"))
    await stage.register_everybody()
    await change(stage, "ada.leaves", password="correct horse battery")
    await change(
        stage,
        "ada.leaves",
        threepids=[{"medium": "msisdn", "address": "491701234567"}],
        displayname="Ada.Leaves",
    )
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await follows(stage, FIRST)
        await stage.join_all()
        assert await log_in(stage, "ada.leaves") == ""

        stage.give(everybody.left("ada.leaves"))
        await until(lambda: _is(stage, "ada.leaves", locked=True), "she is locked", ENFORCED)
        assert await log_in(stage, "ada.leaves") == "M_USER_LOCKED"
        for key in ("company", "engineering", "engineering/general"):
            assert await stage.membership(key, "ada.leaves") == "join"
        assert await level(stage, "engineering", "ada.leaves") == 50

        stage.give(everybody)
        await until(lambda: _is(stage, "ada.leaves", locked=False), "she is unlocked", ENFORCED)
        assert await log_in(stage, "ada.leaves") == ""
        assert await stage.membership("engineering", "ada.leaves") == "join"
        assert await level(stage, "engineering", "ada.leaves") == 50
        kept = [one["address"] for one in (await account(stage, "ada.leaves"))["threepids"]]
        assert kept == ["491701234567"]

        stage.give(everybody.left("ada.leaves"))
        await until(lambda: _is(stage, "ada.leaves", deactivated=True), "she is erased", FIRST)
        await until(is_(stage, "ada.leaves", "company", "leave"), "she left every room", MOMENT)
        assert (await daemon.terminate()).code == 0
    name = stage.mxid("ada.leaves")
    for table in ("seen", "queue", "accounts", "entitled", "mirror_members", "outcomes", "cycles", "done"):
        rows = await stage.fetch(f"select row_to_json(t)::text as row from aim.{table} t")
        assert not [row["row"] for row in rows if name in row["row"]], table
    erased = await stage.fetch("select target from aim.outcomes where type = 'erase_account'")
    assert [row["target"].startswith("erased:") for row in erased] == [True]


async def _is(stage: Stage, localpart: str, **wanted: bool) -> bool:
    found = await account(stage, localpart)
    return all(bool(found.get(key)) is value for key, value in wanted.items())


async def test_names_and_addresses_follow_the_directory(live_stage: Stage) -> None:
    """What differs is written; a user's own change of name is put back when its event arrives."""
    stage = live_stage
    stage.configure(
        userProvisioner={},
        source=stage.config["source"] | {"attributes": {"name": "displayName", "mail": "mail"}},
    )
    organisation = stage.organisation
    stage.write_ldif(organisation.ldif().replace("uid: ada\n", "uid: ada\nmail: ada@yard.example\n"))
    await stage.register_everybody()
    old = [{"medium": "email", "address": "old@yard.example"}, {"medium": "msisdn", "address": "49170555"}]
    await change(stage, "ada", displayname="wrong", threepids=old)
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await follows(stage, FIRST)
        await stage.join_all("ada")
        found = await account(stage, "ada")
        assert found["displayname"] == "Ada"
        assert {(one["medium"], one["address"]) for one in found["threepids"]} == {
            ("email", "ada@yard.example"),
            ("msisdn", "49170555"),
        }

        await stage.homeserver.request(
            "PUT",
            f"/_matrix/client/v3/profile/{stage.mxid('ada')}/displayname?user_id={stage.mxid('ada')}",
            {"displayname": "The Boss"},
            token=stage.homeserver.actor_token,
        )

        async def is_back() -> bool:
            return bool((await account(stage, "ada"))["displayname"] == "Ada")

        await until(is_back, "the name is put back", MOMENT)
        await daemon.says("set_display_name")


async def test_an_address_of_somebody_else_is_a_problem_and_no_failed_cycle(new_stage: Any) -> None:
    stage: Stage = await new_stage()
    stage.configure(
        userProvisioner={},
        source=stage.config["source"] | {"attributes": {"name": "displayName", "mail": "mail"}},
    )
    stage.write_ldif(stage.organisation.ldif().replace("uid: ada\n", "uid: ada\nmail: boss@yard.example\n"))
    await stage.provision()
    await stage.homeserver.register("old.boss")
    await change(stage, "old.boss", threepids=[{"medium": "email", "address": "boss@yard.example"}])
    await change(stage, "ada", threepids=[])
    plan = await stage.plan("--fresh")
    (problem,) = [one for one in plan["problems"] if "boss@yard.example" in one["message"]]
    assert stage.mxid("ada") in problem["subject"] + problem["message"]
    assert stage.mxid("old.boss") in problem["message"]
    await stage.apply()
    assert await emails(stage, "old.boss") == {"boss@yard.example"}


async def test_nobody_is_locked_because_of_a_bad_read(new_stage: Any) -> None:
    """Halved, all disabled: above the guard nobody is locked, and nobody loses a room either."""
    stage: Stage = await new_stage()
    provisions(stage)
    await stage.provision()
    await stage.join_all()
    everybody = stage.organisation
    stage.give(everybody.left("ada", "bela", "cleo", "emil", "fina", "gero"))
    result = await stage.aim("apply", "--yes")
    assert result.code == 3, result
    for gone in ("ada", "gero"):
        assert await _is(stage, gone, locked=False)
        assert await stage.membership("company", gone) == "join"
    plan = await stage.plan()
    held = [action["target"] for action in plan["actions"] if action["type"] == "lock_account"]
    assert set(held) == stage.mxids("ada", "bela", "cleo", "emil", "fina", "gero")
    assert all(action["held"] for action in plan["actions"] if action["type"] == "lock_account")
    stage.give(everybody)
    assert (await stage.plan())["summary"]["total"] == 0


async def test_who_was_never_in_the_directory_is_kicked_and_no_more(new_stage: Any) -> None:
    """Somebody whom an admin asked in by hand."""
    stage: Stage = await new_stage()
    provisions(stage, "0s")
    await stage.provision()
    await stage.homeserver.register("guest")
    rooms = await stage.rooms()
    await stage.homeserver.bot_client().invite(rooms["company"].room_id, stage.mxid("guest"))
    await stage.homeserver.client("guest").join(rooms["company"].room_id)
    await stage.apply()
    assert await stage.membership("company", "guest") == "leave"
    assert await _is(stage, "guest", locked=False, deactivated=False)
    assert not await stage.fetch("select * from aim.queue")


async def test_an_empty_database_locks_nobody(new_stage: Any) -> None:
    stage: Stage = await new_stage()
    provisions(stage, "0s")
    await stage.provision()
    await stage.fetch("drop schema aim cascade")
    stage.give(stage.organisation.left("ada"))
    await stage.aim("apply", "--yes")
    assert await _is(stage, "ada", locked=False, deactivated=False)


async def test_a_period_that_is_over_and_the_queue_commands(new_stage: Any) -> None:
    """`0s` erases with the next cycle; hold and restore stand against it."""
    stage: Stage = await new_stage()
    provisions(stage, "30d")
    hires(stage, "ada.erased", "bela.restored")
    await stage.provision()
    stage.give(stage.organisation.left("ada.erased", "bela.restored"))
    await stage.apply()
    listed = (await stage.aim("queue", "list", "--json")).json
    assert {one["mxid"] for one in listed["queue"]} == stage.mxids("ada.erased", "bela.restored")
    assert (await stage.aim("queue", "erase", stage.mxid("ada.erased"))).code == 1
    assert (await stage.aim("queue", "restore", stage.mxid("bela.restored"))).code == 0
    assert (await stage.aim("queue", "erase", stage.mxid("ada.erased"), "--yes")).code == 0
    await stage.apply()
    assert await _is(stage, "ada.erased", deactivated=True)
    assert await _is(stage, "bela.restored", locked=False, deactivated=False)
    assert await stage.membership("company", "bela.restored") == "invite"
    # Her levels are left in the rooms that she left, until the next cycle.
    await stage.apply()
    assert (await stage.plan())["actions"] == []


async def test_killed_between_queue_and_lock(new_stage: Any) -> None:
    """Whoever is on the queue and not locked is locked by the next cycle, and the time begins then."""
    stage: Stage = await new_stage()
    provisions(stage)
    hires(stage, "ada.killed")
    await stage.provision()
    stage.give(stage.organisation.left("ada.killed"))
    await stage.apply()
    await change(stage, "ada.killed", locked=False)
    await stage.fetch("update aim.queue set due_at = now() - interval '1 day'")
    await stage.fetch("update aim.accounts set locked = false")
    result = await stage.apply()
    assert await _is(stage, "ada.killed", locked=True, deactivated=False), result
    (row,) = await stage.fetch("select due_at > now() + interval '29 days' as later from aim.queue")
    assert row["later"]
