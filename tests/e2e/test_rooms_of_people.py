"""Rooms that people make in our spaces, on a real Synapse: taken over, managed, or left alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.kit import MARKER, Room, Stage, actions, until
from tests.e2e.test_lost_database import digest_in
from tests.e2e.test_usage_scenarios import MOMENT, following
from tests.servers.synapse import Person

pytestmark = pytest.mark.e2e

ENGINEERS = ("ada", "bela", "cleo", "emil", "fina")
ALLOW = "m.room_membership"


async def make(
    person: Person, *, open_to: str | None = None, rule: str = "restricted", version: str = "11", **body: Any
) -> str:
    """A room that somebody makes; `open_to` is the space whose members a restricted one lets in."""
    rules: dict[str, object] = {"join_rule": rule}
    if open_to is not None:
        rules["allow"] = [{"type": ALLOW, "room_id": open_to}]
    state = [{"type": "m.room.join_rules", "state_key": "", "content": rules}]
    return await person.create_room(
        room_version=version, preset="private_chat", initial_state=state, **{"name": "Theirs", **body}
    )


async def add(person: Person, space: str, room_id: str) -> None:
    """Somebody puts a room into a space."""
    await person.put_state(space, "m.space.child", {"via": [person.homeserver.server_name]}, room_id)


def seen(stage: Stage, room_id: str, holds: Callable[[Room], bool]) -> Callable[[], Awaitable[bool]]:
    """A condition on a room of people."""

    async def check() -> bool:
        return holds(await stage.look(room_id))

    return check


def inside(room: Room, stage: Stage) -> set[str]:
    """Who is in, or invited, the bot left out."""
    return room.members() - {stage.homeserver.bot}


async def test_a_room_that_a_moderator_makes_follows_the_directory(live_stage: Stage) -> None:
    stage = live_stage
    bot = stage.homeserver.bot
    ada, gero = map(stage.homeserver.client, ("ada", "gero"))
    async with following(stage) as daemon:
        space = (await stage.rooms())["engineering"].room_id
        theirs = await make(ada, open_to=space, invite=[gero.mxid])
        await gero.join(theirs)

        await add(ada, space, theirs)

        people = stage.mxids(*ENGINEERS)
        await until(
            seen(stage, theirs, lambda room: inside(room, stage) == people), "only engineers are in", MOMENT
        )
        levels = {bot: 100, ada.mxid: 50}
        await until(seen(stage, theirs, lambda room: room.levels["users"] == levels), "levels follow", MOMENT)
        room = await stage.look(theirs)
        marker = room.content(MARKER, bot) or {}
        assert (marker["key"], marker["creator"], marker["creator_level"]) == (theirs, ada.mxid, 100)
        assert (room.members("join"), room.name) == ({bot, ada.mxid}, "Theirs")
        assert "belongs to engineering, open to its members" in daemon.err
        # Who was there before we came counts against the guards.
        counted = await stage.fetch("select person from aim.done where kind = 'kicks'")
        assert {row["person"] for row in counted} == {"gero"}

        stage.give(stage.organisation.promoted("cleo", "engineering-moderators"))
        await until(
            seen(stage, theirs, lambda room: room.levels["users"].get(stage.mxid("cleo")) == 50),
            "cleo moderates it",
            MOMENT,
        )
        # She may, and it does not help her friend.
        await stage.homeserver.client("cleo").join(theirs)
        await stage.homeserver.client("cleo").invite(theirs, gero.mxid)
        await until(
            seen(stage, theirs, lambda room: gero.mxid in room.members("leave")), "gero is out", MOMENT
        )
        plan = await stage.settles()
        assert plan["problems"] == []
        # The mirror knows the room as the homeserver has it.
        assert (await stage.plan())["digest"] == plan["digest"]


async def test_the_marker_and_the_level_of_the_bot_come_back(live_stage: Stage) -> None:
    stage = live_stage
    bot, root = stage.homeserver.bot, stage.mxid("kaya")
    ada, kaya = map(stage.homeserver.client, ("ada", "kaya"))
    stage.configure(provisioner=stage.config["provisioner"] | {"allowed_users": [root]})
    async with following(stage):
        space = (await stage.rooms())["engineering"].room_id
        theirs = await make(ada, open_to=space, invite=[root])
        await kaya.join(theirs)
        await ada.set_power_levels(theirs, {root: 100})
        await add(ada, space, theirs)
        await until(
            seen(stage, theirs, lambda room: room.levels["users"].get(ada.mxid) == 50), "it is ours", MOMENT
        )
        before = (await stage.look(theirs)).content(MARKER, bot)
        [event] = [event for event in await stage.homeserver.state(theirs) if event["type"] == MARKER]

        await redact(kaya, theirs, event["event_id"])
        await until(
            seen(stage, theirs, lambda room: room.content(MARKER, bot) == before), "marked again", MOMENT
        )

        # Only itself could take the level from an equal.
        await stage.homeserver.bot_client().set_power_levels(theirs, {bot: 50})
        await until(
            seen(stage, theirs, lambda room: room.levels["users"].get(bot) == 100), "in control again", MOMENT
        )
        await stage.homeserver.bot_client().leave(theirs)
        await until(seen(stage, theirs, lambda room: bot in room.members("join")), "the bot is back", MOMENT)
        await stage.settles()


async def redact(person: Person, room_id: str, event_id: str) -> None:
    path = f"/_matrix/client/v3/rooms/{room_id}/redact/{event_id}/once?user_id={person.mxid}"
    await person.homeserver.request("PUT", path, {}, token=person.token)


async def test_a_creator_who_outranks_us_is_one_problem_and_leaves_as_themselves(live_stage: Stage) -> None:
    stage = live_stage
    bot = stage.homeserver.bot
    ada, cleo, hana = map(stage.homeserver.client, ("ada", "cleo", "hana"))
    async with following(stage):
        space = (await stage.rooms())["engineering"].room_id
        theirs = await make(cleo, open_to=space, version="12", invite=[hana.mxid])
        await hana.join(theirs)
        await ada.join(theirs)
        await add(ada, space, theirs)

        people = stage.mxids(*ENGINEERS)
        await until(
            seen(stage, theirs, lambda room: inside(room, stage) == people), "only engineers are in", MOMENT
        )
        levels = {bot: 100, ada.mxid: 50}
        await until(seen(stage, theirs, lambda room: room.levels["users"] == levels), "levels follow", MOMENT)
        [problem] = (await stage.settles())["problems"]
        assert (problem["subject"], problem["severity"]) == (theirs, "warning")
        assert f"made by {cleo.mxid}" in problem["message"]
        assert "can't be demoted" in problem["message"]

        stage.give(stage.organisation.moved("cleo", "sales"))
        await until(
            seen(stage, theirs, lambda room: cleo.mxid in room.members("leave")), "cleo is out", MOMENT
        )
        [leave] = [
            event
            for event in await stage.homeserver.state(theirs)
            if (event["type"], event["state_key"]) == ("m.room.member", cleo.mxid)
        ]
        assert leave["sender"] == cleo.mxid, "nobody else can remove a creator"
        assert (await stage.settles())["problems"] == []

        # It was not her wish, and that is remembered: she is asked again when she is back.
        caused = await stage.fetch("select room_id, localpart from aim.caused")
        assert [tuple(row) for row in caused] == [(theirs, "cleo")]
        stage.give(stage.organisation.moved("cleo", "engineering"))
        await until(
            seen(stage, theirs, lambda room: cleo.mxid in room.members("invite")), "cleo is invited", MOMENT
        )


async def test_who_upgrades_their_room_takes_it_along(live_stage: Stage) -> None:
    stage = live_stage
    ada, cleo = map(stage.homeserver.client, ("ada", "cleo"))
    people = stage.mxids(*ENGINEERS)
    async with following(stage):
        space = (await stage.rooms())["engineering"].room_id
        theirs = await make(cleo, open_to=space, version="12")
        await ada.join(theirs)
        await add(ada, space, theirs)
        await until(seen(stage, theirs, lambda room: inside(room, stage) == people), "taken over", MOMENT)

        upgraded = await upgrade(cleo, theirs)

        await until(seen(stage, upgraded, lambda room: room.key == upgraded), "that one, too", MOMENT)
        await until(seen(stage, upgraded, lambda room: inside(room, stage) == people), "all asked", MOMENT)
        [problem] = (await stage.settles())["problems"]
        assert problem["subject"] == upgraded
        # It is watched like the first one was.
        await ada.join(upgraded)
        await ada.invite(upgraded, stage.mxid("hana"))
        hana = stage.mxid("hana")
        await until(seen(stage, upgraded, lambda room: hana in room.members("leave")), "hana is out", MOMENT)


async def upgrade(person: Person, room_id: str) -> str:
    """The id of the room that replaces it."""
    path = f"/_matrix/client/v3/rooms/{room_id}/upgrade?user_id={person.mxid}"
    answer = await person.homeserver.request("POST", path, {"new_version": "12"}, token=person.token)
    return str(answer["replacement_room"])


async def test_consent_is_the_rooms_own(stage: Stage) -> None:
    """What is private, or a space, is left alone until that changes; into what is open to all without naming
    ours people are only asked."""
    await stage.provision()
    await stage.join_all()
    ada = stage.homeserver.client("ada")
    space = (await stage.rooms())["engineering"].room_id
    public = await make(ada, rule="public", name="Open")
    private = await make(ada, rule="invite", name="Closed")
    subspace = await make(ada, open_to=space, creation_content={"type": "m.space"}, name="Sub")
    for room_id in (public, private, subspace):
        await add(ada, space, room_id)

    plan = await stage.plan()
    asked = {("invite", public, mxid) for mxid in stage.mxids(*ENGINEERS) - {ada.mxid}}
    assert (set(actions(plan)), plan["problems"]) == (asked, [])
    await stage.apply()
    assert {(await stage.look(room_id)).key for room_id in (public, private, subspace)} == {""}
    room = await stage.look(public)
    assert (room.members(), room.levels["users"]) == (stage.mxids(*ENGINEERS), {ada.mxid: 100})

    await ada.put_state(public, "m.space.parent", {"via": [stage.homeserver.server_name]}, space)
    rules = {"join_rule": "restricted", "allow": [{"type": ALLOW, "room_id": space}]}
    await ada.put_state(private, "m.room.join_rules", rules)
    found = actions(await stage.plan())
    assert {key for key in found if key[0] == "take_control"} == {
        ("take_control", room_id, None) for room_id in (public, private)
    }
    await stage.apply()

    people = stage.mxids(*ENGINEERS)
    for room_id in (public, private):
        room = await stage.look(room_id)
        assert (room.key, inside(room, stage)) == (room_id, people)
        assert room.levels["users"] == {stage.homeserver.bot: 100, ada.mxid: 50}
    assert (await stage.look(subspace)).key == ""
    assert (await stage.settles())["problems"] == []


async def test_a_room_in_two_spaces_has_the_people_of_both(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    ada, gero = map(stage.homeserver.client, ("ada", "gero"))
    rooms = await stage.rooms()
    spaces = [rooms[key].room_id for key in ("engineering", "sales")]
    theirs = await make(ada, open_to=spaces[0])
    allow = [{"type": ALLOW, "room_id": space} for space in spaces]
    await ada.put_state(theirs, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    await gero.join(theirs)
    for moderator, space in zip((ada, gero), spaces, strict=True):
        await add(moderator, space, theirs)

    await stage.apply()

    room = await stage.look(theirs)
    assert inside(room, stage) == stage.mxids(*stage.organisation.people) - {stage.mxid("kaya")}
    assert room.levels["users"] == {stage.homeserver.bot: 100, ada.mxid: 50, gero.mxid: 50}
    await stage.settles()

    # What one of them takes back, the other still has.
    await gero.put_state(spaces[1], "m.space.child", {}, theirs)
    plan = await stage.plan()
    kicked = {action["target"] for action in plan["actions"] if action["type"] == "kick"}
    assert kicked == stage.mxids("gero", "hana", "ivan", "jule", "lino", "mira")
    assert plan["summary"]["held"] > 0


async def test_the_first_kicks_in_a_room_are_guarded(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    ada = stage.homeserver.client("ada")
    strangers = ("gero", "hana", "ivan", "jule")
    space = (await stage.rooms())["engineering"].room_id
    theirs = await make(ada, open_to=space, invite=sorted(stage.mxids(*strangers)))
    for stranger in strangers:
        await stage.homeserver.client(stranger).join(theirs)
    await add(ada, space, theirs)

    first = await stage.apply(code=3)

    assert "kicks in space engineering: 4 people within an hour, the limit is 3" in first.out
    room = await stage.look(theirs)
    assert inside(room, stage) == stage.mxids(*ENGINEERS, *strangers)
    assert room.levels["users"] == {stage.homeserver.bot: 100, ada.mxid: 50}

    await stage.aim("approve", digest_in(first), "--by", "the admin")
    await stage.apply()

    assert inside(await stage.look(theirs), stage) == stage.mxids(*ENGINEERS)
    await stage.settles()
