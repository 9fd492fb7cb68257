"""Journeys: people without an account, and people and rooms whose wish is respected."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage, actions

pytestmark = pytest.mark.e2e


async def test_people_are_invited_once_they_have_an_account(stage: Stage) -> None:
    # Without an admin each person is asked for; the other journeys have one.
    del stage.config["homeserver"]["admin_user"]
    stage.configure()
    await stage.register_everybody()
    # Accounts are common to all journeys: these names are used by no other.
    early, late = "pia.yard", "quin.yard"
    everybody = stage.organisation
    stage.give(everybody.joined(late, "sales").promoted(late, "sales-moderators").joined(early, "sales"))

    await stage.apply()
    plan = await stage.plan()

    assert plan["actions"] == []
    assert plan["summary"]["pending"] == 2
    [pending] = [problem for problem in plan["problems"] if problem["subject"] == "pending"]
    assert stage.mxid(late) in pending["message"]
    await stage.assert_follows(everybody)

    await stage.homeserver.register(late)
    provisioner = stage.config["provisioner"]
    stage.configure(provisioner=provisioner | {"invite_before_first_login": True})
    await stage.apply()

    await stage.assert_follows()
    # Whoever comes first finds the invite.
    await stage.homeserver.register(early)
    await stage.join_all(early, late)
    assert (await stage.plan())["actions"] == []


async def test_what_was_given_up_is_not_made_again_and_who_left_is_not_asked_again(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all(*(uid for uid in stage.organisation.people if uid != "emil"))
    rooms = await stage.rooms()
    people = stage.homeserver
    await people.bot_client().leave(rooms["sales/general"].room_id)
    await people.client("bela").leave(rooms["engineering/general"].room_id)
    await people.client("cleo").leave(rooms["engineering"].room_id)
    await people.client("emil").leave(rooms["platform"].room_id)
    await people.bot_client().leave(rooms["platform"].room_id)
    stage.proxy.forget()

    plan = await stage.plan()
    await stage.apply()

    # The room is open to the members of its space still: it is had back, not made again.
    assert set(actions(plan)) == {("take_control", "sales/general", None)}
    [problem] = plan["problems"]
    assert problem["subject"] == "platform"
    assert "no second one is made" in problem["message"]
    again = await stage.rooms()
    assert {key: room.room_id for key, room in again.items()} == {
        key: room.room_id for key, room in rooms.items()
    }
    assert stage.homeserver.bot in again["sales/general"].members("join")
    assert (await stage.plan())["actions"] == []
