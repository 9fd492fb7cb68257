"""Journeys of closed federation, on two real homeservers with a daemon each: the specification's example, who
is refused, what converges, and the days on which one side is away.
"""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.e2e.conftest import NewStage
from tests.e2e.federation_kit import (
    AGENT,
    CEILING,
    EXPECTATIONS,
    KEY,
    MOMENT,
    Cities,
    Side,
    groups,
    management,
)
from tests.e2e.kit import MARKER, Command, Json, actions, until
from tests.servers.synapse import Pair

pytestmark = pytest.mark.e2e


@pytest.fixture
async def cities(new_stage: NewStage, federation: Pair) -> Cities:
    """Dallas and Berlin, where everybody has an account and nothing was done yet."""
    dallas, berlin = federation
    made = Cities(await new_stage(homeserver=dallas), await new_stage(homeserver=berlin))
    await made.register_everybody()
    return made


async def test_dallas_and_berlin(cities: Cities) -> None:
    """The example of the specification: two whitelists, one space, six people, two managers."""
    dallas, berlin = cities.both
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        assert await cities.expectations() == {
            "version": 1,
            "agents": {
                berlin.bot: {
                    "groups": [
                        {"external_id": "", "power_level": 0},
                        {"external_id": management("berlin"), "power_level": CEILING},
                    ]
                }
            },
            "former": {},
        }
        await cities.join()
        await cities.settles()
        # Nothing is left to do, and nothing is done any more.
        for side in cities.both:
            plan = await side.stage.settles()
            assert plan["problems"] == [], side.city
        await cities.assert_shared()

    space = await cities.look(berlin)
    assert space.name == "Federated space"
    assert space.members("join") == dallas.people | berlin.people | {dallas.bot, berlin.bot}
    assert dallas.bot not in space.levels["users"], "who made the room stands above all levels"


@pytest.mark.long
async def test_berlin_may_start_first_or_last(cities: Cities) -> None:
    """An invite that came while Berlin's daemon was away, and one that comes while Dallas's is."""
    dallas, berlin = cities.both
    async with cities.running(dallas):
        await until(lambda: _is(cities, dallas, berlin.bot, "invite"), "Berlin's bot is invited", MOMENT)
    async with cities.running(berlin):
        await cities.settles()
    berlin.give(berlin.stage.organisation.joined("gerd"))
    await berlin.stage.register_everybody()
    async with cities.running(berlin):
        await cities.settles()


@pytest.mark.long
async def test_a_plan_shows_what_berlin_is_expected_to_do_and_who_says_so(cities: Cities) -> None:
    """Before anything is done, at Dallas; once Berlin's bot is in, at Berlin."""
    dallas, berlin = cities.both
    planned = actions(await dallas.stage.plan())
    assert ("invite_agent", KEY, berlin.bot) in planned
    assert not [key for key in planned if key[2] in berlin.people], "nobody of Berlin's is Dallas's business"
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
    berlin.give(berlin.stage.organisation.joined("gerd"))
    await berlin.stage.register_everybody()

    planned = actions(await berlin.stage.plan("--fresh"))

    room_id = await cities.room_id()
    assert set(planned) == {("invite", key, berlin.stage.mxid("gerd")) for key in ("berlin", room_id)}
    assert dallas.bot in planned["invite", room_id, berlin.stage.mxid("gerd")]["reason"]
    assert (await dallas.stage.plan("--fresh"))["actions"] == []


async def test_changes_on_either_side_converge(cities: Cities) -> None:
    dallas, berlin = cities.both
    await _both_register(cities, "gerd", "hank")
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        await cities.join()

        # Somebody comes, somebody goes, and somebody else manages, in both cities at once.
        changed = berlin.stage.organisation.left("eve").joined("gerd")
        berlin.give(changed.promoted("gerd", "berlin-management").demoted("dave", "berlin-management"))
        changed = dallas.stage.organisation.left("cyril").joined("hank")
        dallas.give(changed.promoted("hank", "dallas-management").demoted("alice", "dallas-management"))
        await cities.settles()

        # What people do by hand is put right by their own side alone.
        room_id = await cities.room_id()
        manager = dallas.stage.homeserver.client("hank")
        await manager.join(room_id)
        eve = berlin.stage.mxid("eve")
        await manager.invite(room_id, eve)
        await until(lambda: _is(cities, dallas, eve, "leave"), "eve is out again", MOMENT)
        event = await _event(dallas, room_id, "m.room.member", eve)
        assert event["sender"] == berlin.bot
        await dallas.stage.homeserver.bot_client().set_power_levels(
            room_id, {berlin.stage.mxid("dave"): CEILING, dallas.stage.mxid("bob"): CEILING}
        )
        await cities.settles()


@pytest.mark.long
async def test_levels_set_on_both_sides_at_once_come_out_right(cities: Cities) -> None:
    """State resolution drops one of two writes, and says so to one side only."""
    dallas, berlin = cities.both
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        for uid in ("bob", "cyril"):
            for side, other in ((dallas, uid), (berlin, {"bob": "eve", "cyril": "francis"}[uid])):
                side.give(side.stage.organisation.promoted(other, f"{side.city}-management"))
            await cities.settles()
        for side, other in ((dallas, "bob"), (berlin, "eve")):
            side.give(side.stage.organisation.demoted(other, f"{side.city}-management"))
        await cities.settles()


@pytest.mark.long
async def test_a_group_that_is_not_federated_any_more_takes_its_people_along(cities: Cities) -> None:
    dallas, berlin = cities.both
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        await cities.join()
    dallas.stage.configure(spaces=[cities.shared(groups("berlin")[1:])])
    others = berlin.people - berlin.managers
    async with cities.running():
        await until(lambda: cities.gone(dallas, others), "only Berlin's manager is left", MOMENT)
        space = await cities.look(dallas)
        assert space.members() >= berlin.managers | dallas.people | {berlin.bot}
        await cities.assert_untouched(space.room_id)


@pytest.mark.long
async def test_an_agent_that_is_not_configured_any_more_leaves_with_its_people(cities: Cities) -> None:
    dallas, berlin = cities.both
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        await cities.join()
    dallas.stage.configure(spaces=[cities.shared([])])
    async with cities.running():
        await until(lambda: cities.gone(dallas, berlin.people | {berlin.bot}), "Berlin has left", MOMENT)
        await until(lambda: _has_no_level(cities), "its level is taken back", MOMENT)
        space = await cities.look(dallas)
        assert space.members() == dallas.people | {dallas.bot}
        await cities.assert_untouched(space.room_id)
        for side in cities.both:
            await side.stage.settles()

    # And may come back.
    dallas.stage.configure(spaces=[cities.shared()])
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)


@pytest.mark.long
async def test_a_peer_that_does_not_leave_is_removed_after_the_grace(cities: Cities) -> None:
    dallas, berlin = cities.both
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
    dallas.stage.configure(spaces=[cities.shared([])])
    dallas.federate(berlin.bot, grace="3s")
    async with cities.running(dallas):
        # Berlin's daemon does not run.
        await until(lambda: cities.gone(dallas, berlin.people | {berlin.bot}), "Berlin is out", 2 * MOMENT)
        assert (await cities.look(dallas)).members() == dallas.people | {dallas.bot}


@pytest.mark.long
async def test_who_takes_a_peer_off_the_list_leaves_its_spaces(cities: Cities) -> None:
    dallas, berlin = cities.both
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        await cities.join()
    berlin.federate()
    async with cities.running():
        await until(lambda: cities.gone(dallas, berlin.people | {berlin.bot}), "Berlin has left", MOMENT)
        await cities.assert_untouched(await cities.room_id())
        assert (await cities.look(dallas)).members() >= dallas.people


@pytest.mark.long
async def test_an_invite_of_somebody_who_is_not_on_the_list_is_ignored(cities: Cities) -> None:
    """Whoever it is and whatever their room says; and it is told once."""
    dallas, berlin = cities.both
    berlin.federate("@groupsync:elsewhere.example.com")
    stranger = dallas.stage.homeserver.client("bob")
    async with cities.running() as (_, daemon):
        await until(lambda: _is(cities, dallas, berlin.bot, "invite"), "Berlin's bot is invited", MOMENT)
        await daemon.says(dallas.bot)
        for _ in range(2):
            room_id = await stranger.create_room(
                creation_content={"type": "m.space", MARKER: {"version": 1, "instance": "x", "key": KEY}}
            )
            await stranger.invite(room_id, berlin.bot)
        await daemon.says(stranger.mxid)
        # It does go on with its own affairs; nobody of Berlin's was named to anybody.
        await berlin.stage.settles()
        assert berlin.bot in (await dallas.stage.look(room_id)).members("invite")
        assert (await cities.look(dallas)).members() == dallas.people | {dallas.bot, berlin.bot}
        assert [_mentions(daemon, mxid) for mxid in (dallas.bot, stranger.mxid)] == [1, 1]

    # Put on the list, what was ignored is accepted: of the two inviters the one that is listed.
    berlin.federate(dallas.bot)
    async with cities.running() as (_, daemon):
        await cities.settles(patience=2 * MOMENT)
        assert berlin.bot in (await dallas.stage.look(room_id)).members("invite")


@pytest.mark.long
async def test_a_room_that_the_peer_did_not_make_is_ignored(cities: Cities) -> None:
    """An invite by the bot itself, to a room of somebody else's, and to one of its own without our marker."""
    dallas, berlin = cities.both
    person, bot = dallas.stage.homeserver.client("bob"), dallas.stage.homeserver.bot_client()
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
    marker = {MARKER: {"version": 1, "instance": "x", "key": KEY}}
    foreign = await person.create_room(creation_content={"type": "m.space", **marker})
    await person.invite(foreign, bot.mxid)
    await bot.join(foreign)
    await person.set_power_levels(foreign, {bot.mxid: 50})
    unmarked = await bot.create_room(creation_content={"type": "m.space"})
    for room_id in (foreign, unmarked):
        await bot.invite(room_id, berlin.bot)
    async with cities.running(berlin) as (daemon,):
        await daemon.says(dallas.bot)
        await berlin.stage.settles()
        for room_id in (foreign, unmarked):
            assert berlin.bot in (await dallas.stage.look(room_id)).members("invite")
        await cities.assert_shared()


@pytest.mark.long
async def test_more_than_the_ceiling_is_capped_and_told_to_the_own_admin(cities: Cities) -> None:
    """Also what is unknown: that is nothing that Dallas learns."""
    dallas, berlin = cities.both
    asked: list[Json] = [
        {"externalId": ""},
        {"externalId": management("berlin"), "powerLevel": 100},
        {"externalId": management("atlantis"), "powerLevel": 50},
    ]
    dallas.stage.configure(spaces=[cities.shared(asked)])
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        problems = " ".join(p["message"] for p in (await berlin.stage.plan("--fresh"))["problems"])
        assert management("atlantis") in problems
        assert "100" in problems
        problems = " ".join(p["message"] for p in (await dallas.stage.plan("--fresh"))["problems"])
        assert management("atlantis") not in problems


@pytest.mark.long
async def test_a_redacted_expectation_sends_nobody_away(cities: Cities) -> None:
    """Whoever may redact can empty the event: Dallas writes it again, and until then nothing is done."""
    dallas, berlin = cities.both
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
    room_id = await cities.room_id()
    event = await _event(dallas, room_id, EXPECTATIONS, dallas.bot)
    hs = dallas.stage.homeserver
    event_id = quote(event["event_id"], safe="")
    path = f"/_matrix/client/v3/rooms/{quote(room_id, safe='')}/redact/{event_id}/once"
    await hs.request("PUT", path, {}, token=hs.as_token)
    async with cities.running(berlin):
        await until(lambda: _is_redacted(cities), "Berlin's homeserver knows", MOMENT)
        plan = await berlin.stage.settles()
        assert [p for p in plan["problems"] if dallas.bot in p["subject"] + p["message"]]
        await cities.assert_shared()
    async with cities.running():
        await until(lambda: _is_whole(cities), "Dallas says it again", MOMENT)
        await cities.settles()


@pytest.mark.long
async def test_berlin_s_homeserver_is_down_for_a_while(cities: Cities) -> None:
    """When it is invited, and later: Dallas goes on, there is no storm, and it comes right by itself."""
    dallas, berlin = cities.both
    await _both_register(cities, "gerd", "hank")
    await berlin.stage.homeserver.server.stop()
    try:
        async with cities.running(dallas) as (daemon,):
            await until(lambda: _invited(cities), "Dallas invites its own", MOMENT)
            await daemon.says(berlin.server_name)
            await berlin.stage.homeserver.server.start()
            async with cities.running(berlin):
                await cities.settles(patience=3 * MOMENT)
                await cities.join()
                await _away_and_back(cities, daemon)
    finally:
        await berlin.stage.homeserver.server.start()


async def _away_and_back(cities: Cities, daemon: Command) -> None:
    """Berlin's homeserver goes while both daemons run; both cities change meanwhile."""
    dallas, berlin = cities.both
    await berlin.stage.homeserver.server.stop()
    lines = len(daemon.err.splitlines())
    dallas.give(dallas.stage.organisation.left("cyril").joined("hank"))
    berlin.give(berlin.stage.organisation.left("eve").joined("gerd"))
    hank = dallas.stage.mxid("hank")
    await until(lambda: _is(cities, dallas, hank, "invite"), "Dallas goes on", MOMENT)
    assert len(daemon.err.splitlines()) - lines < 20, daemon.err
    await berlin.stage.homeserver.server.start()
    await cities.settles(patience=3 * MOMENT)


@pytest.mark.long
async def test_default_rooms_are_made_by_dallas_and_joined_by_both(cities: Cities) -> None:
    dallas, berlin = cities.both
    general = {"id": "general", "properties": {"name": "General", "suggested": True}}
    dallas.stage.configure(provisioner=dallas.stage.config["provisioner"] | {"default_rooms": [general]})
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        await until(lambda: _all_in_general(cities), "everybody is in the default room too", 2 * MOMENT)
        assert set(await berlin.stage.rooms()) == {"berlin"}, "Berlin makes no rooms of Dallas's"
        await cities.assert_untouched(await cities.room_id("shared/general"))


@pytest.mark.long
async def test_check_tells_of_each_peer(cities: Cities) -> None:
    dallas, berlin = cities.both
    before = await dallas.stage.aim("check")
    assert berlin.bot in before.out
    async with cities.running():
        await cities.settles(patience=2 * MOMENT)
        for side, peer in ((dallas, berlin), (berlin, dallas)):
            check = await side.stage.aim("check")
            lines = [line for line in check.out.splitlines() if peer.bot in line]
            assert lines, check.out
    assert AGENT == CEILING + 1


# -- conditions ------------------------------------------------------------------------------------------


async def _is(cities: Cities, side: Side, mxid: str, *memberships: str) -> bool:
    return KEY in await cities.dallas.stage.rooms() and await cities.member(side, mxid) in memberships


async def _invited(cities: Cities) -> bool:
    """Whether all of Dallas are asked in."""
    rooms = await cities.dallas.stage.rooms()
    return KEY in rooms and rooms[KEY].members() >= cities.dallas.people


async def _has_no_level(cities: Cities) -> bool:
    """Whether Berlin's bot, which has left, has none any more."""
    return cities.berlin.bot not in (await cities.look(cities.dallas)).levels["users"]


async def _is_redacted(cities: Cities) -> bool:
    return await cities.expectations() == {}


async def _is_whole(cities: Cities) -> bool:
    return bool(await cities.expectations())


async def _all_in_general(cities: Cities) -> bool:
    key = f"{KEY}/general"
    if key not in await cities.dallas.stage.rooms():
        return False
    room = await cities.look(cities.dallas, key)
    managers = {mxid for mxid, level in room.levels["users"].items() if level == CEILING}
    people = cities.dallas.people | cities.berlin.people
    return room.members() >= people and managers == cities.dallas.managers | cities.berlin.managers


async def _event(side: Side, room_id: str, event_type: str, state_key: str) -> dict[str, str]:
    (found,) = (
        event
        for event in await side.stage.homeserver.state(room_id)
        if (event["type"], event["state_key"]) == (event_type, state_key)
    )
    return found


async def _both_register(cities: Cities, theirs: str, ours: str) -> None:
    """Somebody for Berlin and somebody for Dallas, who are in no directory yet."""
    await cities.berlin.stage.homeserver.register(theirs)
    await cities.dallas.stage.homeserver.register(ours)


def _mentions(daemon: Command, mxid: str) -> int:
    """In how many lines it spoke of somebody's invites."""
    return sum(mxid in line and "ignored" in line for line in daemon.err.splitlines())
