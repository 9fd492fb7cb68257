"""Journeys of `aim run`: it follows the directory, shares its database, and stops cleanly."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.e2e.conftest import NewStage
from tests.e2e.kit import Command, Stage, number, until
from tests.e2e.test_guards import LEAVERS

pytestmark = pytest.mark.e2e

SOON = 15.0
"""Seconds. What the daemon does in a second or two must not take longer, however busy the machine."""
FIRST = 60.0
"""Seconds in which the homeserver makes all rooms."""


async def _followed(stage: Stage, patience: float = SOON) -> None:
    """Waits until the homeserver is as the directory says."""

    async def follows() -> bool:
        try:
            await stage.assert_follows()
        except (AssertionError, KeyError):
            return False
        return True

    await until(follows, "the homeserver follows the directory", patience)


async def test_the_daemon_follows_the_directory_and_commands_work_beside_it(new_stage: NewStage) -> None:
    stage = await new_stage(embedded=True)
    stage.configure(logging={"level": "debug"})
    await stage.register_everybody()
    async with stage.daemon() as daemon:
        await _followed(stage, FIRST)
        await stage.join_all()

        # On the database that the daemon has started.
        assert (await stage.plan())["actions"] == []
        cause, remedy = (await stage.aim("apply", "--yes")).error()
        assert f"aim run, pid {daemon.pid} on " in cause
        assert "stop it" in remedy

        stage.give(stage.organisation.moved("hana", "engineering").joined("nora.yard", "sales"))
        await until(lambda: _invited(stage, "hana", "engineering"), "hana is invited")
        assert await stage.membership("sales", "nora.yard") is None, "there is no such account"
        await stage.homeserver.register("nora.yard")
        await _followed(stage)

        await _survives_a_bad_read(stage, daemon)
        await _holds_until_approved(stage, daemon)
        ended = await daemon.terminate(SOON)

    assert (ended.code, ended.out) == (0, "")
    assert "stopped" in ended.err


async def _invited(stage: Stage, localpart: str, key: str) -> bool:
    return await stage.membership(key, localpart) == "invite"


async def _survives_a_bad_read(stage: Stage, daemon: Command) -> None:
    """Says so once, removes nobody, and goes on when it is mended."""
    whole = stage.organisation.ldif()
    stage.proxy.forget()
    stage.write_ldif(whole[: whole.index("uid=ivan") + 4])
    await daemon.says("the directory could not be read; the last good one stays in force")
    await until(lambda: daemon.err.count("still could not be read") >= 2, "it looks again")
    assert daemon.err.count("the last good one stays in force") == 1
    assert stage.proxy.writes == []
    assert str(stage.ldif) in daemon.err
    stage.give(stage.organisation.promoted("bela", "engineering-moderators"))
    await _followed(stage)
    assert "the directory can be read again" in daemon.err


async def _holds_until_approved(stage: Stage, daemon: Command) -> None:
    stage.give(stage.organisation.left(*LEAVERS[1:], "mira"))
    await daemon.says("held by a guard")
    stage.proxy.forget()
    held = re.findall(r"sha256:[0-9a-f]{64}", daemon.err)
    assert await stage.membership("sales", "mira") == "join"

    approved = await stage.aim("approve", held[-1])

    assert (approved.code, approved.err) == (0, "")
    await _followed(stage)


async def test_a_daemon_that_is_asked_to_stop_ends_soon_and_leaves_the_rest(stage: Stage) -> None:
    provisioner = stage.config["provisioner"] | {"parallelism": 2}
    stage.configure(logging={"level": "silly", "format": "json"}, provisioner=provisioner)
    await stage.register_everybody()
    held = stage.proxy.hold(number(5))
    async with stage.daemon() as daemon:
        await until(held.reached.is_set, "the fifth write has come")
        stopping = asyncio.create_task(daemon.terminate(SOON))
        await daemon.says("stopping: finishing requests under way")
        assert daemon.is_running, "it waits for the request under way"
        held.release.set()
        ended = await stopping

    assert (ended.code, ended.out) == (0, "")
    messages = [json.loads(line)["message"] for line in ended.err.splitlines()]
    assert (messages[0], messages[-1]) == ("started", "stopped")
    made = await stage.rooms()
    assert 0 < len(made) < 8, "some are made, the rest is left"
    recorded = await stage.fetch("select key, room_id from aim.rooms")
    assert {row["key"]: row["room_id"] for row in recorded} == {k: room.room_id for k, room in made.items()}

    await stage.apply()
    await stage.assert_follows()
