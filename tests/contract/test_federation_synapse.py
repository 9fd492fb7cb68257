"""Two real Synapses that federate: what docs/homeserver.md says of it, and closed federation stands on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from aim.errors import HomeserverRefused
from aim.matrix.appservice import router
from aim.ops.listening import application, listening
from aim.ops.metrics import Metrics
from tests.contract.test_appservice_synapse import LOOPBACK, SOON, Stream
from tests.servers.synapse import Homeserver, Pair, Person

# Facts of Synapse, and not of ours: for whoever wants to know whether a newer one does the same.
pytestmark = pytest.mark.long

MARKER = {"aim.managed": {"version": 1, "instance": "aim", "key": "shared"}}
EXPECTATIONS = "aim.expectations"
AGENT = 51
LEVELS: Mapping[str, object] = {"state_default": 100, "events": {"m.room.power_levels": AGENT}}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cities:
    """Dallas, whose bot makes rooms, and Berlin, whose bot is invited as an agent."""

    dallas: Homeserver
    berlin: Homeserver

    @property
    def bot(self) -> Person:
        return self.dallas.bot_client()

    @property
    def agent(self) -> Person:
        return self.berlin.bot_client()

    async def space(self, *, version: str = "12", **levels: object) -> str:
        """A space of Dallas's bot, where Berlin's bot has its level and is invited."""
        users = {self.berlin.bot: AGENT} | ({} if version == "12" else {self.dallas.bot: 100})
        room_id = await self.bot.create_room(
            name="Shared",
            room_version=version,
            creation_content={"type": "m.space", **MARKER},
            power_level_content_override={**LEVELS, **levels, "users": users},
        )
        await self.bot.invite(room_id, self.agent.mxid)
        return room_id

    async def join(self, room_id: str, person: Person | None = None) -> None:
        """Somebody of Berlin, its bot by default, joins by way of Dallas."""
        person = person or self.agent
        path = f"/_matrix/client/v3/join/{quote(room_id, safe='')}?server_name={self.dallas.server_name}"
        await self.berlin.request("POST", f"{path}&user_id={quote(person.mxid)}", {}, token=person.token)

    async def joined(self, *, version: str = "12", **levels: object) -> str:
        """A space with both bots in it."""
        room_id = await self.space(version=version, **levels)
        await self.join(room_id)
        return room_id

    async def bring(self, room_id: str, person: Person) -> None:
        """Berlin's bot invites somebody of its own, who joins.

        In the first moments Berlin may send the join by way of Dallas: that one has to know of the invite.
        """
        await self.agent.invite(room_id, person.mxid)
        await _until_membership(self.dallas, room_id, person.mxid, "invite")
        await self.join(room_id, person)
        await _until_membership(self.dallas, room_id, person.mxid, "join")

    async def agree(self, room_id: str, event_type: str, state_key: str = "") -> Json:
        """Waits until both have the same content of a state event, for half a second; gives it."""
        ours: Json | None = None
        same = 0
        async with asyncio.timeout(SOON):
            while same < 5:
                ours = await self.dallas.state_content(room_id, event_type, state_key)
                theirs = await self.berlin.state_content(room_id, event_type, state_key)
                same = same + 1 if ours == theirs else 0
                await asyncio.sleep(0.1)
        return ours or {}


@pytest.fixture
async def cities(federation: Pair) -> Cities:
    made = Cities(*federation)
    for side in federation:
        body = {"type": "m.login.application_service", "username": side.appservice.sender_localpart}
        await side.request("POST", "/_matrix/client/v3/register", body, token=side.as_token)
    await made.dallas.register("alice")
    await made.berlin.register("dave", "eve")
    return made


@asynccontextmanager
async def hearing(homeserver: Homeserver) -> AsyncIterator[Stream]:
    """What a bot is sent."""
    stream, appservice = Stream(), homeserver.appservice
    assert appservice.port
    app = application([router(appservice.hs_token, stream.take)], Metrics(), lambda: True)
    async with listening(app, LOOPBACK, appservice.port):
        yield stream


async def refused(status: int, request: Any) -> str:
    """A request is refused with that status; gives what is said of it."""
    with pytest.raises(HomeserverRefused) as told:
        await request
    assert told.value.status == status, told.value
    return str(told.value)


async def test_the_invite_brings_the_marker_and_nothing_of_the_time_before_comes_after(
    cities: Cities,
) -> None:
    async with hearing(cities.berlin) as stream:
        room_id = await cities.space()
        await cities.bot.put_state(room_id, EXPECTATIONS, {"version": 1}, cities.bot.mxid)
        invite = await stream.wait("m.room.member", membership="invite")
        assert (invite["room_id"], invite["sender"]) == (room_id, cities.bot.mxid)
        stripped = {event["type"]: event for event in invite["invite_room_state"]}
        assert set(stripped) == {"m.room.create", "m.room.join_rules", "m.room.name", "m.room.member"}
        assert stripped["m.room.create"]["sender"] == cities.bot.mxid
        assert stripped["m.room.create"]["content"].items() >= MARKER.items()

        await cities.join(room_id)
        await stream.wait("m.room.member", membership="join")
        await cities.bot.put_state(room_id, "m.room.topic", {"topic": "after"})
        await stream.wait("m.room.topic", topic="after")
        assert [event["type"] for event in stream.events] == [
            "m.room.member",
            "m.room.member",
            "m.room.topic",
        ]
    state = await cities.agent.get_state(room_id, EXPECTATIONS, cities.bot.mxid)
    assert state == {"version": 1}


@pytest.mark.parametrize("version", ["11", "12"])
async def test_what_an_agent_of_51_may_do(cities: Cities, version: str) -> None:
    room_id = await cities.joined(version=version)
    dave, eve = (cities.berlin.client(name) for name in ("dave", "eve"))
    for person in (dave, eve):
        await cities.bring(room_id, person)
    await cities.agent.set_power_levels(room_id, {dave.mxid: 50})
    await cities.agent.kick(room_id, dave.mxid)
    # Its own level it can give, and not take.
    await cities.agent.set_power_levels(room_id, {eve.mxid: AGENT})
    await refused(403, cities.agent.set_power_levels(room_id, {eve.mxid: 50}))
    await eve.set_power_levels(room_id, {eve.mxid: 50})
    await refused(403, cities.agent.set_power_levels(room_id, {dave.mxid: AGENT + 1}))
    # State under somebody's MXID is theirs alone.
    for mxid in (cities.bot.mxid, dave.mxid):
        await refused(403, cities.agent.put_state(room_id, EXPECTATIONS, {"version": 1}, mxid))


@pytest.mark.parametrize("entry", [{}, {"m.room.power_levels": 100}])
async def test_levels_are_written_by_whom_their_own_entry_allows(
    cities: Cities, entry: Mapping[str, int]
) -> None:
    room_id = await cities.joined(events=entry)
    await refused(403, cities.agent.set_power_levels(room_id, {cities.berlin.mxid("dave"): 50}))


async def test_an_agent_can_touch_the_others_people_and_redact_what_is_expected_of_it(cities: Cities) -> None:
    """The homeserver lets it: what it does not do is its own decision. A higher level for redacting helps."""
    room_id = await cities.joined()
    alice = cities.dallas.client("alice")
    await cities.bot.invite(room_id, alice.mxid)
    await alice.join(room_id)
    await cities.bot.put_state(room_id, EXPECTATIONS, {"version": 1}, cities.bot.mxid)
    await cities.agree(room_id, EXPECTATIONS, cities.bot.mxid)
    await cities.agent.kick(room_id, alice.mxid)
    await _redact(cities, room_id)
    assert await cities.agree(room_id, EXPECTATIONS, cities.bot.mxid) == {}

    content = await cities.bot.get_state(room_id, "m.room.power_levels")
    await cities.bot.put_state(room_id, "m.room.power_levels", content | {"redact": AGENT + 1})
    await cities.bot.put_state(room_id, EXPECTATIONS, {"version": 1}, cities.bot.mxid)
    await cities.agree(room_id, EXPECTATIONS, cities.bot.mxid)
    await refused(403, _redact(cities, room_id))


async def _redact(cities: Cities, room_id: str) -> None:
    """The agent redacts the expectations."""
    (event,) = (e for e in await cities.berlin.state(room_id) if e["type"] == EXPECTATIONS)
    path = f"/_matrix/client/v3/rooms/{quote(room_id, safe='')}/redact/{quote(event['event_id'])}"
    await cities.berlin.request("PUT", f"{path}/{event['origin_server_ts']}", {}, token=cities.agent.token)


async def test_of_two_levels_at_once_those_of_the_lower_sender_stay(cities: Cities) -> None:
    """Both are answered with 200 and sent to both bots: an event that was heard need not be the state."""
    alice, dave = cities.dallas.mxid("alice"), cities.berlin.mxid("dave")
    async with hearing(cities.berlin) as stream:
        room_id = await cities.joined()
        for level in range(1, 10):
            await asyncio.gather(
                cities.bot.set_power_levels(room_id, {alice: level}),
                cities.agent.set_power_levels(room_id, {dave: level}),
            )
            users = (await cities.agree(room_id, "m.room.power_levels"))["users"]
            assert users[dave] == level
            # On a busy machine one of the two may know of the other, and nothing is lost.
            if users.get(alice) != level:
                break
        else:
            pytest.fail("they were never at once")
        before = {cities.agent.mxid: AGENT, **({alice: level - 1, dave: level - 1} if level > 1 else {})}
        lost = await stream.wait("m.room.power_levels", users={**before, alice: level})
        assert lost["sender"] == cities.bot.mxid
        # It is written once more, on top.
        await cities.bot.set_power_levels(room_id, {alice: level})
        assert (await cities.agree(room_id, "m.room.power_levels"))["users"] == {**users, alice: level}


async def test_an_invite_by_the_other_server_is_heard_once_and_is_the_state_a_little_later(
    cities: Cities,
) -> None:
    eve = cities.berlin.mxid("eve")
    async with hearing(cities.berlin) as stream:
        room_id = await cities.joined()
        await cities.bot.invite(room_id, eve)
        await _until_membership(cities.berlin, room_id, eve, "invite")
        # Whatever comes after it has come.
        await cities.bot.put_state(room_id, "m.room.topic", {"topic": "after"})
        await stream.wait("m.room.topic", topic="after")
        assert [event["state_key"] for event in stream.events].count(eve) == 1


async def test_who_is_invited_anew_to_a_room_that_their_server_is_in_may_have_to_wait(cities: Cities) -> None:
    """A join right after the invite is refused with 403: the server has two of them for a moment."""
    room_id = await cities.joined()
    dave = cities.berlin.client("dave")
    await cities.bring(room_id, dave)
    await cities.agent.leave(room_id)
    await _until_membership(cities.dallas, room_id, cities.agent.mxid, "leave")
    await cities.bot.invite(room_id, cities.agent.mxid)
    said = ""
    async with asyncio.timeout(SOON):
        while cities.agent.mxid not in await cities.berlin.members(room_id, "join"):
            try:
                await cities.join(room_id)
            except HomeserverRefused as error:
                said = f"{error.status} {error}"
    assert not said or (said.startswith("403") and "duplicate auth_events" in said), said


async def test_a_restricted_room_takes_people_of_another_server_by_way_of_it(cities: Cities) -> None:
    space = await cities.joined()
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    state = [{"type": "m.room.join_rules", "state_key": "", "content": rule}]
    room_id = await cities.bot.create_room(initial_state=state, power_level_content_override={"invite": 50})
    dave, eve = (cities.berlin.client(name) for name in ("dave", "eve"))
    await cities.bring(space, dave)
    await refused(404, dave.join(room_id))
    await cities.join(room_id, dave)
    await refused(403, cities.join(room_id, eve))
    # A level in the space is none in its rooms.
    await cities.join(room_id)
    await refused(403, cities.agent.invite(room_id, eve.mxid))


async def test_a_room_that_is_not_to_federate_takes_nobody(cities: Cities) -> None:
    room_id = await cities.bot.create_room(creation_content={"m.federate": False})
    await refused(403, cities.bot.invite(room_id, cities.agent.mxid))


async def test_while_a_server_is_away_its_people_cant_be_invited_and_all_else_goes_on(cities: Cities) -> None:
    room_id = await cities.joined()
    dave = cities.berlin.client("dave")
    await cities.bring(room_id, dave)
    await cities.berlin.server.stop()
    try:
        await refused(502, cities.bot.invite(room_id, cities.berlin.mxid("eve")))
        assert await cities.dallas.members(room_id) == {cities.bot.mxid, cities.agent.mxid, dave.mxid}
        await cities.bot.kick(room_id, dave.mxid)
        await cities.bot.put_state(room_id, "m.room.topic", {"topic": "meanwhile"})
    finally:
        await cities.berlin.server.start()
    # A server that hears of us sends what it has kept: as soon as we do anything.
    await cities.agent.put_state(room_id, "m.room.power_levels", await _levels(cities, room_id))
    assert await cities.agree(room_id, "m.room.topic") == {"topic": "meanwhile"}
    assert (await cities.agree(room_id, "m.room.member", dave.mxid))["membership"] == "leave"


async def _levels(cities: Cities, room_id: str) -> Json:
    content = await cities.agent.get_state(room_id, "m.room.power_levels")
    return content | {"users": content["users"] | {cities.berlin.mxid("eve"): 10}}


async def _until_membership(homeserver: Homeserver, room_id: str, mxid: str, membership: str) -> None:
    """Waits until a homeserver knows."""
    async with asyncio.timeout(SOON):
        while True:
            if mxid in await homeserver.members(room_id, membership):
                return
            await asyncio.sleep(0.05)
