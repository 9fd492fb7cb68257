"""The client on a real Synapse, through a proxy that counts, loses and limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from mautrix.api import Path

from aim.desired.levels import base_levels
from aim.desired.rooms import Desired
from aim.directory.model import Directory
from aim.directory.roster import People, Roster
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix import client
from aim.matrix.accounts import AccountsWay
from aim.matrix.client import Connect, Writing, open_reader, open_writer
from aim.matrix.observe import Reader
from aim.matrix.parse import mapping
from aim.matrix.retrying import Retries
from aim.matrix.transport import open_transport
from aim.matrix.write import Writer
from aim.planner.actions import AnyAction, Invite, ReleaseRoom, SetRoomState, TakeControl
from aim.planner.plan import Plan, SourceCount
from aim.ports import HomeserverReader, HomeserverWriter, NewRoom
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.world.rooms import MARKER_TYPE, Child, Marker
from tests.servers.proxy import NewProxy, Proxy, Request, everything
from tests.servers.synapse import Homeserver
from tests.unit.fakes import FakeRecorder, Line

VERSIONS = ["10", "11", "12"]
IMPATIENT = Connect(retries=Retries(tries=3, first=0.01))


def settings(homeserver: Homeserver, **changes: Any) -> client.Homeserver:
    return replace(
        client.Homeserver(
            url=homeserver.base_url,
            server_name=homeserver.server_name,
            bot=homeserver.bot,
            instance=homeserver.appservice.id,
            as_token=homeserver.as_token,
            actor_token=homeserver.actor_token,
        ),
        **changes,
    )


@pytest.fixture
async def proxy(homeserver: Homeserver, new_proxy: NewProxy) -> Proxy:
    return await new_proxy(homeserver.base_url)


@pytest.fixture
async def aim(homeserver: Homeserver, proxy: Proxy) -> AsyncIterator[Writing]:
    """Our client, through the proxy, its bot registered."""
    async with open_writer(settings(homeserver, url=proxy.url), IMPATIENT) as opened:
        await opened.writer.ensure_bot()
        proxy.forget()
        yield opened


def new_room(key: str = "engineering", **changes: Any) -> NewRoom:
    given: dict[str, Any] = {
        "key": key,
        "is_space": True,
        "name": "Engineering",
        "room_version": None,
        "state": [],
        "power_levels": {**base_levels(is_space=True, room_version="12"), "users": {}},
        "invite": [],
    }
    return NewRoom(**{**given, **changes})


def creations(request: Request) -> bool:
    return request.path.endswith("/createRoom")


def levels(version: str, users: Mapping[str, int]) -> dict[str, object]:
    return {**base_levels(is_space=True, room_version=version), "users": dict(users)}


async def state(homeserver: Homeserver, room_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(event["type"], event["state_key"]): event for event in await homeserver.state(room_id)}


async def test_the_ports_are_implemented(aim: Writing) -> None:
    reader: HomeserverReader = aim.reader
    writer: HomeserverWriter = aim.writer
    assert (type(reader), type(writer)) == (Reader, Writer)


# The bot


async def test_before_anything_was_written_the_bot_reads_an_empty_homeserver(
    homeserver: Homeserver, proxy: Proxy
) -> None:
    async with open_reader(settings(homeserver, url=proxy.url)) as opened:
        observed = await opened.reader.observe(Roster(), [], {})
    assert observed.rooms == {}
    assert observed.default_room_version == "12"
    assert {request.method for request in proxy.requests} == {"GET"}


async def test_the_bot_is_registered_once(homeserver: Homeserver, proxy: Proxy) -> None:
    async with open_writer(settings(homeserver, url=proxy.url), IMPATIENT) as opened:
        await opened.writer.ensure_bot()
        assert len(proxy.writes) == 1
        await opened.writer.ensure_bot()
        assert (len(proxy.writes), len(proxy.requests)) == (1, 2), "once seen, it is not asked for again"
    async with open_writer(settings(homeserver, url=proxy.url), IMPATIENT) as opened:
        # A homeserver that shows no profile to strangers.
        proxy.fail(lambda request: "/profile/" in request.path, status=403, errcode="M_FORBIDDEN")
        await opened.writer.ensure_bot()
        assert [request.status for request in proxy.writes] == [200, 400]


# Creating rooms


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_space", [True, False])
async def test_a_new_room_is_exactly_as_given_in_one_request(
    homeserver: Homeserver, proxy: Proxy, aim: Writing, version: str, is_space: bool
) -> None:
    await homeserver.register("ann", "ben")
    ann, ben = homeserver.mxid("ann"), homeserver.mxid("ben")
    base = base_levels(is_space=is_space, room_version=version)
    topic = {"type": "m.room.topic", "state_key": "", "content": {"topic": "All of it"}}
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "public"}}
    room_id = await aim.writer.create_room(
        new_room(
            is_space=is_space,
            room_version=version,
            state=[topic, rule],
            power_levels={**base, "users": {ann: 50}},
            invite=[ann, ben],
        )
    )
    assert [request.path for request in proxy.requests] == ["/_matrix/client/v3/createRoom"]
    events = await state(homeserver, room_id)
    created = events["m.room.create", ""]
    assert created["sender"] == homeserver.bot
    assert created["content"]["room_version"] == version
    assert created["content"].get("type") == ("m.space" if is_space else None)
    assert created["content"][MARKER_TYPE] == {
        "version": 1,
        "instance": homeserver.appservice.id,
        "key": "engineering",
    }
    bot = {} if version == "12" else {homeserver.bot: 100}
    assert events["m.room.power_levels", ""]["content"] == {**base, "users": {ann: 50, **bot}}
    assert events["m.room.topic", ""]["content"] == {"topic": "All of it"}
    assert events["m.room.join_rules", ""]["content"] == {"join_rule": "public"}
    assert events["m.room.guest_access", ""]["content"] == {"guest_access": "forbidden"}
    assert events["m.room.name", ""]["content"] == {"name": "Engineering"}
    assert await homeserver.members(room_id, "invite") == {ann, ben}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_moderator_cannot_take_the_room_over(
    homeserver: Homeserver, aim: Writing, version: str
) -> None:
    await homeserver.register("mod")
    mod = homeserver.mxid("mod")
    room_id = await aim.writer.create_room(
        new_room(room_version=version, power_levels=levels(version, {mod: 50}), invite=[mod])
    )
    person = homeserver.client("mod")
    await person.join(room_id)
    forbidden: list[tuple[str, dict[str, object]]] = [
        ("m.room.power_levels", {**levels(version, {mod: 50}), "ban": 0}),
        ("m.room.history_visibility", {"history_visibility": "world_readable"}),
        ("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}),
        ("m.room.server_acl", {"allow": ["*"]}),
        ("m.room.tombstone", {"body": "gone", "replacement_room": "!x:y"}),
        ("m.room.join_rules", {"join_rule": "public"}),
    ]
    for event_type, content in forbidden:
        with pytest.raises(HomeserverRefused) as caught:
            await person.put_state(room_id, event_type, content)
        assert caught.value.status == 403, event_type
    await person.put_state(room_id, "m.room.topic", {"topic": "allowed"})
    await person.put_state(room_id, "m.space.child", {"via": [homeserver.server_name]}, "!child:x")


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_marker_cannot_be_redacted(homeserver: Homeserver, aim: Writing, version: str) -> None:
    room_id = await aim.writer.create_room(new_room(room_version=version, power_levels=levels(version, {})))
    created = (await state(homeserver, room_id))["m.room.create", ""]
    path = f"/_matrix/client/v3/rooms/{room_id}/redact/{created['event_id']}/t1"
    # Whether the homeserver refuses or obeys, the marker stays.
    with suppress(HomeserverRefused):
        await homeserver.request("PUT", path, {}, token=homeserver.as_token)
    content = await homeserver.bot_client().get_state(room_id, "m.room.create")
    assert content[MARKER_TYPE]["key"] == "engineering"


async def test_an_impossible_room_version_is_refused(aim: Writing) -> None:
    with pytest.raises(HomeserverRefused, match="M_UNSUPPORTED_ROOM_VERSION") as caught:
        await aim.writer.create_room(new_room(room_version="99"))
    assert "room_version" in caught.value.remedy


async def test_too_many_levels_leave_no_room_behind(homeserver: Homeserver, aim: Writing) -> None:
    users = {homeserver.mxid(f"user{number}"): 50 for number in range(2500)}
    with pytest.raises(HomeserverRefused, match="60000"):
        await aim.writer.create_room(new_room(power_levels=levels("12", users)))
    assert await homeserver.rooms() == []


# A lost answer


async def test_a_room_whose_answer_was_lost_is_found_by_its_marker(
    homeserver: Homeserver, proxy: Proxy, aim: Writing
) -> None:
    known = await aim.writer.create_room(new_room("other"))
    proxy.lose_answers(creations)
    with pytest.raises(HomeserverUnavailable) as caught:
        await aim.writer.create_room(new_room())
    assert caught.value.maybe_done
    assert len(proxy.matching(creations)) == 2
    proxy.forget()
    room_id = await aim.writer.find_by_marker("engineering", [known])
    assert room_id in {room["room_id"] for room in await homeserver.rooms()} - {known}
    assert len(proxy.requests) == 2
    assert proxy.writes == []
    assert await aim.writer.find_by_marker("engineering", [known, str(room_id)]) is None
    assert await aim.writer.find_by_marker("unheard-of", []) is None


async def test_a_room_whose_request_was_lost_is_not_found(
    homeserver: Homeserver, proxy: Proxy, aim: Writing
) -> None:
    proxy.lose_requests(creations)
    with pytest.raises(HomeserverUnavailable) as caught:
        await aim.writer.create_room(new_room())
    assert caught.value.maybe_done
    assert await aim.writer.find_by_marker("engineering", []) is None
    assert await homeserver.rooms() == []


async def test_a_server_error_may_have_made_a_room(proxy: Proxy, aim: Writing) -> None:
    proxy.fail(creations, status=502)
    with pytest.raises(HomeserverUnavailable) as caught:
        await aim.writer.create_room(new_room())
    assert caught.value.maybe_done
    assert len(proxy.matching(creations)) == 1


async def test_the_oldest_of_two_is_found_and_a_foreign_marker_is_not(
    homeserver: Homeserver, aim: Writing
) -> None:
    await homeserver.register("eve")
    first = await aim.writer.create_room(new_room())
    second = await aim.writer.create_room(new_room())
    forged = await homeserver.client("eve").create_room(
        creation_content={MARKER_TYPE: {"version": 1, "instance": homeserver.appservice.id, "key": "forged"}},
        invite=[homeserver.bot],
    )
    await homeserver.bot_client().join(forged)
    assert await aim.writer.find_by_marker("engineering", []) == first
    assert await aim.writer.find_by_marker("engineering", [first]) == second
    assert await aim.writer.find_by_marker("forged", []) is None
    observed = await aim.reader.observe(Roster(), [], {})
    assert observed.rooms["engineering"].room_id == first
    assert observed.duplicates == {"engineering": (second,)}
    assert "forged" not in observed.rooms


async def test_a_limit_is_waited_out(homeserver: Homeserver, proxy: Proxy, aim: Writing) -> None:
    fault = proxy.limit(creations, times=2, retry_after_ms=20)
    room_id = await aim.writer.create_room(new_room())
    assert fault.struck == 2
    assert [room["room_id"] for room in await homeserver.rooms()] == [room_id]


# Observing


async def test_what_was_written_is_observed(homeserver: Homeserver, proxy: Proxy, aim: Writing) -> None:
    await homeserver.register("ann", "ben", "cem", "dan")
    people = {name: homeserver.mxid(name) for name in ("ann", "ben", "cem", "dan")}
    base = base_levels(is_space=True, room_version="11")
    room_id = await aim.writer.create_room(
        new_room(
            room_version="11",
            power_levels={**base, "users": {people["ann"]: 50}},
            invite=list(people.values()),
        )
    )
    await homeserver.client("ann").join(room_id)
    await homeserver.client("ben").join(room_id)
    await homeserver.client("ann").ban(room_id, people["ben"])
    await homeserver.client("dan").leave(room_id)
    await aim.writer.put_state(
        room_id, "m.space.child", "!child:x", {"via": ["x"], "suggested": True, "order": "1"}
    )
    await aim.writer.put_state(room_id, "m.room.topic", "", {"topic": "All of it"})
    proxy.forget()
    roster = Roster()
    observed = await aim.reader.observe(roster, [], {})
    room = observed.rooms["engineering"]
    assert room.room_id == room_id
    assert room.marker == Marker(1, homeserver.appservice.id, "engineering")
    assert (room.version, room.is_space) == ("11", True)
    assert room.created_ts == (await state(homeserver, room_id))["m.room.create", ""]["origin_server_ts"]
    assert roster.localparts(room.joined) == ["ann"]
    assert roster.localparts(room.invited) == ["cem"]
    assert roster.localparts(room.banned) == ["ben"]
    assert roster.localparts(room.left) == ["dan"]
    assert not room.knocking
    assert not room.foreign
    assert room.power_levels.people == {roster.number("ann"): 50}
    assert room.power_levels.foreign == {homeserver.bot: 100}
    assert room.power_levels.base == base
    assert room.children == {"!child:x": Child("!child:x", True, "1", homeserver.bot)}
    assert room.state["m.room.name"] == {"name": "Engineering"}
    assert room.state["m.room.topic"] == {"topic": "All of it"}
    assert room.state["m.room.join_rules"] == {"join_rule": "invite"}
    assert {request.method for request in proxy.requests} == {"GET"}
    # The bot's rooms, the state of the one, what is in it that is not ours, and the default room version.
    assert len(proxy.requests) == 4


async def test_an_instance_sees_its_own_rooms_only(homeserver: Homeserver, aim: Writing) -> None:
    await aim.writer.create_room(new_room())
    async with open_reader(settings(homeserver, instance="another")) as opened:
        assert (await opened.reader.observe(Roster(), [], {})).rooms == {}


async def test_a_read_that_fails_midway_is_no_read(proxy: Proxy, aim: Writing) -> None:
    for number in range(5):
        await aim.writer.create_room(new_room(str(number)))
    proxy.fail(lambda request: request.path.endswith("/state"), times=None, status=500)
    with pytest.raises(HomeserverUnavailable):
        await aim.reader.observe(Roster(), [], {})
    proxy.behave()
    proxy.fail(lambda request: request.path.endswith("/state"), times=4, status=502)
    assert len((await aim.reader.observe(Roster(), [], {})).rooms) == 5


# Accounts


async def make_accounts(homeserver: Homeserver, prefix: str) -> None:
    """Somebody ordinary, somebody locked, somebody deactivated and somebody erased."""
    names = [f"{prefix}-{kind}" for kind in ("active", "locked", "gone", "erased")]
    await homeserver.register(*names)
    users = "/_synapse/admin/v2/users/"
    await homeserver.as_admin("PUT", users + homeserver.mxid(names[1]), {"locked": True})
    for name, erase in ((names[2], False), (names[3], True)):
        path = f"/_synapse/admin/v1/deactivate/{homeserver.mxid(name)}"
        await homeserver.as_admin("POST", path, {"erase": erase})


async def accounts_of(reader: Reader, *wanted: str) -> list[str]:
    roster = Roster()
    return roster.localparts((await reader.observe(roster, wanted, {})).accounts)


async def test_accounts_by_the_admins_list(homeserver: Homeserver, proxy: Proxy) -> None:
    await make_accounts(homeserver, "list")
    wanted = ("list-active", "list-locked", "list-gone", "list-erased", "list-nobody")
    async with open_reader(settings(homeserver, url=proxy.url, admin_user="root")) as opened:
        assert await accounts_of(opened.reader, *wanted) == ["list-active", "list-locked"]
        assert await opened.reader.accounts_way() is AccountsWay.LIST
        assert not proxy.matching(lambda request: "/whoami" in request.path and request.user_id is not None)
        # Before Synapse had the third version of the list.
        proxy.fail(
            lambda request: request.path.endswith("/v3/users"),
            times=None,
            status=404,
            errcode="M_UNRECOGNIZED",
        )
        assert await accounts_of(opened.reader, *wanted) == ["list-active", "list-locked"]
    assert not proxy.writes


async def test_the_list_is_read_page_by_page(
    homeserver: Homeserver, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim.matrix.accounts._PAGE", 3)
    names = [f"page-{number}" for number in range(10)]
    await homeserver.register(*names)
    async with open_reader(settings(homeserver, url=proxy.url, admin_user=homeserver.admin)) as opened:
        assert await accounts_of(opened.reader, *names, "page-nobody") == names
    assert len(proxy.matching(lambda request: request.path.endswith("/v3/users"))) >= 4


async def test_a_bot_that_is_admin_needs_no_other(homeserver: Homeserver, aim: Writing) -> None:
    await homeserver.register("bot-list")
    await homeserver.as_admin("PUT", f"/_synapse/admin/v1/users/{homeserver.bot}/admin", {"admin": True})
    assert await accounts_of(aim.reader, "bot-list", "bot-list-nobody") == ["bot-list"]
    assert await aim.reader.accounts_way() is AccountsWay.LIST


@pytest.mark.parametrize("auth", ["synapse", "mas"])
async def test_accounts_by_acting_as_each(homeserver: Homeserver, proxy: Proxy, auth: str) -> None:
    prefix = f"ask-{auth}"
    await make_accounts(homeserver, prefix)
    wanted = [f"{prefix}-{kind}" for kind in ("active", "locked", "gone", "erased", "nobody")]
    async with open_reader(settings(homeserver, url=proxy.url, auth=auth)) as opened:
        # Deactivation can't be seen this way.
        assert await accounts_of(opened.reader, *wanted) == sorted(wanted[:4])
        assert await opened.reader.accounts_way() is AccountsWay.ASK
    assert {request.method for request in proxy.requests} == {"GET"}
    listing = proxy.matching(lambda request: request.path.startswith("/_synapse"))
    assert bool(listing) == (auth == "synapse")


async def test_members_are_not_asked_for(homeserver: Homeserver, proxy: Proxy, aim: Writing) -> None:
    await homeserver.register("inside", "outside")
    room_id = await aim.writer.create_room(new_room(invite=[homeserver.mxid("inside")]))
    await homeserver.client("inside").join(room_id)
    assert await accounts_of(aim.reader, "inside", "outside") == ["inside", "outside"]
    asked = proxy.matching(lambda request: request.path.endswith("/whoami"))
    assert [request.user_id for request in asked] == [homeserver.mxid("outside")]


async def test_without_an_actor_nobody_can_be_asked(homeserver: Homeserver) -> None:
    async with open_reader(settings(homeserver, actor_token=None)) as opened:
        with pytest.raises(HomeserverRefused) as caught:
            await accounts_of(opened.reader, "somebody")
    assert caught.value.errcode == "M_EXCLUSIVE"
    assert "actor_token" in caught.value.remedy


async def test_an_admin_user_who_is_none_is_no_way_to_the_list(homeserver: Homeserver) -> None:
    await homeserver.register("plain")
    async with open_reader(settings(homeserver, admin_user="plain")) as opened:
        assert await opened.reader.accounts_way() is AccountsWay.ASK
    async with open_reader(settings(homeserver, admin_user="plain-nobody")) as opened:
        assert await opened.reader.accounts_way() is AccountsWay.ASK


# Inviting and kicking


async def test_an_invite_is_done_however_it_came_about(
    homeserver: Homeserver, proxy: Proxy, aim: Writing
) -> None:
    await homeserver.register("ann")
    ann = homeserver.mxid("ann")
    room_id = await aim.writer.create_room(new_room())
    proxy.forget()
    await aim.writer.invite(room_id, ann, "you are in the group")
    assert len(proxy.requests) == 1
    event = (await state(homeserver, room_id))["m.room.member", ann]["content"]
    assert (event["membership"], event["reason"]) == ("invite", "you are in the group")
    await aim.writer.invite(room_id, ann)
    await homeserver.client("ann").join(room_id)
    await aim.writer.invite(room_id, ann)
    assert await homeserver.members(room_id, "join") == {ann, homeserver.bot}


async def test_who_is_banned_is_not_invited(homeserver: Homeserver, aim: Writing) -> None:
    await homeserver.register("ann")
    ann = homeserver.mxid("ann")
    room_id = await aim.writer.create_room(new_room())
    await homeserver.bot_client().ban(room_id, ann)
    with pytest.raises(HomeserverRefused, match="is banned from") as caught:
        await aim.writer.invite(room_id, ann)
    assert caught.value.remedy
    await aim.writer.kick(room_id, ann, "already out")
    assert await homeserver.members(room_id, "ban") == {ann}


async def test_an_invite_with_a_lost_answer_is_repeated(
    homeserver: Homeserver, proxy: Proxy, aim: Writing
) -> None:
    await homeserver.register("ann")
    room_id = await aim.writer.create_room(new_room())
    fault = proxy.lose_answers(lambda request: request.path.endswith("/invite"))
    await aim.writer.invite(room_id, homeserver.mxid("ann"))
    assert fault.struck == 1
    assert await homeserver.members(room_id, "invite") == {homeserver.mxid("ann")}


async def test_kicking_ends_a_membership_an_invite_and_a_knock(homeserver: Homeserver, aim: Writing) -> None:
    await homeserver.register("ann", "ben", "cem")
    ann, ben, cem = map(homeserver.mxid, ("ann", "ben", "cem"))
    knock = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = await aim.writer.create_room(new_room(invite=[ann, ben], state=[knock]))
    await homeserver.client("ann").join(room_id)
    await homeserver.request(
        "POST", f"/_matrix/client/v3/knock/{room_id}?user_id={cem}", {}, token=homeserver.actor_token
    )
    assert await homeserver.members(room_id, "knock") == {cem}
    for mxid in (ann, ben, cem):
        await aim.writer.kick(room_id, mxid, "no longer in the group")
    assert await homeserver.members(room_id) == {homeserver.bot}
    assert await homeserver.members(room_id, "leave") == {ann, ben, cem}
    content = (await state(homeserver, room_id))["m.room.member", ann]["content"]
    assert content["reason"] == "no longer in the group"
    await aim.writer.kick(room_id, ann, "again")
    await aim.writer.kick(room_id, homeserver.mxid("never-in"), "again")


@pytest.mark.parametrize("version", ["11", "12"])
async def test_whom_the_bot_cannot_kick(homeserver: Homeserver, aim: Writing, version: str) -> None:
    """Up to version 11 an equal, from 12 on the creator of a room that is not the bot's own."""
    await homeserver.register("boss")
    boss = homeserver.client("boss")
    room_id = await boss.create_room(room_version=version, invite=[homeserver.bot])
    await homeserver.bot_client().join(room_id)
    await boss.set_power_levels(room_id, {homeserver.bot: 100})
    with pytest.raises(HomeserverRefused, match="can't be removed") as caught:
        await aim.writer.kick(room_id, boss.mxid, "no longer in the group")
    assert caught.value.status == 403
    assert "only they themselves" in caught.value.remedy


async def test_a_room_the_bot_is_not_in(homeserver: Homeserver, aim: Writing) -> None:
    await homeserver.register("ann", "ben")
    room_id = await homeserver.client("ann").create_room()
    for attempt in (
        aim.writer.invite(room_id, homeserver.mxid("ben")),
        aim.writer.kick(room_id, homeserver.mxid("ann"), "x"),
        aim.writer.put_state(room_id, "m.room.topic", "", {"topic": "x"}),
        aim.writer.change_power_levels(room_id, None, {homeserver.mxid("ben"): 50}),
    ):
        with pytest.raises(HomeserverRefused) as caught:
            await attempt
        assert caught.value.status == 403


# Power levels


@pytest.mark.parametrize("version", VERSIONS)
async def test_levels_change_and_the_rest_stays(
    homeserver: Homeserver, proxy: Proxy, aim: Writing, version: str
) -> None:
    ann, ben, cem = map(homeserver.mxid, ("ann", "ben", "cem"))
    room_id = await aim.writer.create_room(
        new_room(room_version=version, power_levels=levels(version, {ann: 50, ben: 50}))
    )
    # Somebody of another server, whom we leave alone.
    await homeserver.bot_client().set_power_levels(room_id, {"@fay:other.org": 20})
    proxy.forget()
    await aim.writer.change_power_levels(room_id, {"kick": 60}, {ann: 0, cem: 75})
    assert [request.method for request in proxy.requests] == ["GET", "PUT"]
    content = await homeserver.state_content(room_id, "m.room.power_levels")
    bot = {} if version == "12" else {homeserver.bot: 100}
    users = {ben: 50, cem: 75, "@fay:other.org": 20, **bot}
    assert content == {**levels(version, users), "kick": 60}
    proxy.forget()
    await aim.writer.change_power_levels(room_id, {"kick": 60}, {ann: 0, cem: 75})
    assert [request.method for request in proxy.requests] == ["GET"]


async def test_levels_that_do_not_fit_are_refused(homeserver: Homeserver, proxy: Proxy, aim: Writing) -> None:
    room_id = await aim.writer.create_room(new_room())
    proxy.forget()
    many = {homeserver.mxid(f"user{number}"): 50 for number in range(2500)}
    with pytest.raises(HomeserverRefused, match="60000") as caught:
        await aim.writer.change_power_levels(room_id, None, many)
    assert caught.value.status == 413
    assert proxy.writes == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_whose_creation_broke_off_can_be_mended(
    homeserver: Homeserver, aim: Writing, version: str
) -> None:
    """The homeserver makes the room, then looks at its state: a refusal leaves a room without levels."""
    broken = {"type": "m.room.power_levels", "state_key": "", "content": {"users": {"no user id": 50}}}
    marker = {"version": 1, "instance": homeserver.appservice.id, "key": "half"}
    with pytest.raises(HomeserverRefused):
        await homeserver.bot_client().create_room(
            room_version=version, creation_content={MARKER_TYPE: marker}, initial_state=[broken]
        )
    room = (await aim.reader.observe(Roster(), [], {})).rooms["half"]
    assert room.power_levels.base == {}
    ann = homeserver.mxid("ann")
    base = base_levels(is_space=False, room_version=version)
    await aim.writer.change_power_levels(room.room_id, base, {ann: 50})
    bot = {} if version == "12" else {homeserver.bot: 100}
    content = await homeserver.state_content(room.room_id, "m.room.power_levels")
    assert content == {**base, "users": {ann: 50, **bot}}
    # The bot has not locked itself out.
    await aim.writer.put_state(
        room.room_id, "m.room.history_visibility", "", {"history_visibility": "joined"}
    )


# Acting as people


RESTRICTED = "m.room.join_rules"


def let_in_by(space: str) -> dict[str, object]:
    allow = [{"type": "m.room_membership", "room_id": space}]
    return {"type": RESTRICTED, "state_key": "", "content": {"join_rule": "restricted", "allow": allow}}


async def test_somebody_of_the_bots_own_level_lowers_it_themselves(
    homeserver: Homeserver, proxy: Proxy, aim: Writing
) -> None:
    await homeserver.register("boss")
    boss = homeserver.mxid("boss")
    room_id = await aim.writer.create_room(
        new_room(room_version="11", invite=[boss], power_levels=levels("11", {boss: 100}))
    )
    await homeserver.client("boss").join(room_id)
    with pytest.raises(HomeserverRefused):
        await aim.writer.change_power_levels(room_id, None, {boss: 50})
    proxy.forget()
    await aim.writer.lower_own_level(room_id, boss, 50)
    assert [request.method for request in proxy.requests] == ["GET", "PUT"]
    event = (await state(homeserver, room_id))["m.room.power_levels", ""]
    assert event["sender"] == boss
    assert event["content"] == levels("11", {boss: 50, homeserver.bot: 100})
    await aim.writer.lower_own_level(room_id, boss, 50)
    assert len(proxy.writes) == 1
    await aim.writer.kick(room_id, boss, "no longer in the group")


@pytest.mark.parametrize("version", ["11", "12"])
async def test_whom_the_bot_cannot_kick_leaves_by_themselves(
    homeserver: Homeserver, proxy: Proxy, aim: Writing, version: str
) -> None:
    await homeserver.register("boss")
    boss = homeserver.client("boss")
    room_id = await boss.create_room(room_version=version, invite=[homeserver.bot])
    await homeserver.bot_client().join(room_id)
    await boss.set_power_levels(room_id, {homeserver.bot: 100})
    proxy.forget()
    await aim.writer.leave(room_id, boss.mxid, "no longer in the group")
    assert len(proxy.requests) == 1
    event = (await state(homeserver, room_id))["m.room.member", boss.mxid]
    assert event["sender"] == boss.mxid
    assert event["content"]["reason"] == "no longer in the group"
    assert await homeserver.members(room_id) == {homeserver.bot}
    await aim.writer.leave(room_id, boss.mxid, "again")
    await aim.writer.leave(room_id)
    await aim.writer.leave(room_id)
    assert room_id not in await homeserver.bot_client().joined_rooms()


async def test_an_invite_is_declined_and_who_never_was_in_is_out(
    homeserver: Homeserver, aim: Writing
) -> None:
    await homeserver.register("ann", "ben")
    ann = homeserver.mxid("ann")
    room_id = await aim.writer.create_room(new_room(invite=[ann]))
    await aim.writer.leave(room_id, ann, "not meant")
    assert await homeserver.members(room_id, "invite") == set()
    await aim.writer.leave(room_id, homeserver.mxid("ben"))


async def test_a_leave_that_is_refused_is_not_done(
    homeserver: Homeserver, proxy: Proxy, aim: Writing
) -> None:
    await homeserver.register("ann")
    ann = homeserver.mxid("ann")
    room_id = await aim.writer.create_room(new_room(invite=[ann]))
    await aim.writer.join(room_id, ann)
    proxy.fail(lambda request: request.path.endswith("/leave"), status=403, errcode="M_FORBIDDEN")
    with pytest.raises(HomeserverRefused):
        await aim.writer.leave(room_id, ann)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_that_somebody_made_is_taken_over(
    homeserver: Homeserver, proxy: Proxy, aim: Writing, version: str
) -> None:
    """A private room that the members of a space may join; the bot is no server admin."""
    await homeserver.register("ann")
    ann = homeserver.client("ann")
    space = await aim.writer.create_room(new_room(invite=[ann.mxid]))
    await ann.join(space)
    room_id = await ann.create_room(
        room_version=version, preset="private_chat", initial_state=[let_in_by(space)]
    )
    before = await homeserver.state_content(room_id, "m.room.power_levels")
    assert before is not None
    await aim.writer.take_control(room_id, ann.mxid, invites=True)
    assert await homeserver.members(room_id, "join") == {ann.mxid, homeserver.bot}
    content = await homeserver.state_content(room_id, "m.room.power_levels")
    assert content == {**before, "users": {**before["users"], homeserver.bot: 100}}
    proxy.forget()
    await aim.writer.take_control(room_id, ann.mxid, invites=False)
    assert proxy.writes == []
    await aim.writer.take_control(room_id, ann.mxid, invites=True)
    await aim.writer.take_control(room_id, None, invites=True)
    assert await homeserver.state_content(room_id, "m.room.power_levels") == content


async def test_who_cannot_grant_it_gives_no_control(homeserver: Homeserver, aim: Writing) -> None:
    await homeserver.register("ann", "ben")
    ann, ben = homeserver.client("ann"), homeserver.client("ben")
    room_id = await ann.create_room(preset="private_chat", invite=[ben.mxid])
    await ben.join(room_id)
    with pytest.raises(HomeserverRefused):
        await aim.writer.take_control(room_id, None, invites=True)
    with pytest.raises(HomeserverRefused):
        await aim.writer.take_control(room_id, ben.mxid, invites=True)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_member_asks_people_into_a_room_that_the_bot_is_not_in(
    homeserver: Homeserver, proxy: Proxy, aim: Writing, version: str
) -> None:
    """Also who is invited, or in, already; and who is banned is told."""
    await homeserver.register("ann", "ben", "cem")
    ann, ben, cem = homeserver.client("ann"), homeserver.client("ben"), homeserver.mxid("cem")
    room_id = await ann.create_room(room_version=version, preset="public_chat")
    before = await homeserver.state_content(room_id, "m.room.power_levels")
    invite = Invite(
        room=room_id, space="all", room_id=room_id, person=ben.mxid, acting_as=ann.mxid, reason="in the group"
    )
    statuses = []
    for _ in range(2):
        proxy.forget()
        await execute(homeserver, aim, invite)
        statuses.append([request.status for request in proxy.writes])
    await ben.join(room_id)
    proxy.forget()
    await execute(homeserver, aim, invite)
    statuses.append([request.status for request in proxy.writes])
    assert statuses == [[200], [200], [403]]
    await ann.ban(room_id, cem)
    with pytest.raises(HomeserverRefused, match="is banned from"):
        await aim.writer.invite(room_id, cem, acting_as=ann.mxid)
    event = (await state(homeserver, room_id))["m.room.member", ben.mxid]
    assert event["content"]["membership"] == "join"
    assert event["unsigned"]["prev_sender"] == ann.mxid
    # Nothing else of the room was touched, and the bot never was there.
    assert await homeserver.state_content(room_id, "m.room.power_levels") == before
    assert await homeserver.members(room_id) == {ann.mxid, ben.mxid}


async def test_who_may_not_invite_can_ask_nobody(homeserver: Homeserver, aim: Writing) -> None:
    await homeserver.register("ann", "ben", "cem")
    ann, ben = homeserver.client("ann"), homeserver.client("ben")
    room_id = await ann.create_room(preset="public_chat", power_level_content_override={"invite": 50})
    await ben.join(room_id)
    for member in (ben.mxid, homeserver.mxid("cem")):
        with pytest.raises(HomeserverRefused) as caught:
            await aim.writer.invite(room_id, homeserver.mxid("cem"), acting_as=member)
        assert caught.value.status == 403


@pytest.mark.parametrize("version", VERSIONS)
async def test_members_of_a_space_join_its_rooms_with_one_request_and_no_invite(
    homeserver: Homeserver, proxy: Proxy, aim: Writing, version: str
) -> None:
    await homeserver.register("ann")
    ann = homeserver.mxid("ann")
    space = await aim.writer.create_room(new_room(invite=[ann]))
    await aim.writer.join(space, ann)
    room_id = await aim.writer.create_room(
        new_room(
            "engineering/talk",
            is_space=False,
            room_version=version,
            power_levels={**base_levels(is_space=False, room_version=version), "users": {}},
            state=[let_in_by(space)],
        )
    )
    proxy.forget()
    await aim.writer.join(room_id, ann)
    assert len(proxy.requests) == 1
    event = (await state(homeserver, room_id))["m.room.member", ann]
    assert event["content"]["membership"] == "join"
    assert "prev_content" not in event.get("unsigned", {}), "no invite went before"
    await aim.writer.join(room_id, ann)
    assert await homeserver.members(room_id, "join") == {ann, homeserver.bot}


async def test_a_room_that_is_not_ours_is_replaced(homeserver: Homeserver, aim: Writing) -> None:
    """The new room names the old one, without any of its events; who made that one closes it."""
    await homeserver.register("ann", "ben")
    ann = homeserver.client("ann")
    space = await aim.writer.create_room(
        new_room(invite=[ann.mxid], power_levels=levels("12", {ann.mxid: 50}))
    )
    await ann.join(space)
    old = await ann.create_room(room_version="12", preset="private_chat", initial_state=[let_in_by(space)])
    await ann.put_state(space, "m.space.child", {"via": [homeserver.server_name]}, old)
    new = await aim.writer.create_room(
        new_room(
            f"replacement:{old}",
            is_space=False,
            room_version="12",
            power_levels={**base_levels(is_space=False, room_version="12"), "users": {}},
            state=[let_in_by(space)],
            invite=[ann.mxid],
            predecessor=old,
        )
    )
    closing = SetRoomState(
        room=old,
        space="all",
        room_id=old,
        event_type="m.room.tombstone",
        content={"body": "moved", "replacement_room": f"replacement:{old}"},
        acting_as=ann.mxid,
        reason="replaced",
    )
    tombstones = set()
    for _ in range(2):
        await execute(homeserver, aim, closing, {f"replacement:{old}": new})
        tombstones.add((await state(homeserver, old))["m.room.tombstone", ""]["event_id"])
    assert len(tombstones) == 1
    observed = await aim.reader.observe(Roster(), [], {})
    ours, theirs = observed.rooms[f"replacement:{old}"], observed.unmanaged[old]
    assert (ours.room_id, ours.predecessor) == (new, old)
    assert ours.creators == {homeserver.bot}
    assert (theirs.replacement, theirs.bot, theirs.marker) == (new, None, None)
    assert (await state(homeserver, old))["m.room.tombstone", ""]["sender"] == ann.mxid
    assert await homeserver.members(old) == {ann.mxid}
    # Nobody but who made it could.
    await ann.set_power_levels(old, {homeserver.mxid("ben"): 100})
    await homeserver.bot_client().invite(space, homeserver.mxid("ben"))
    ben = homeserver.client("ben")
    await ben.join(space)
    await ben.join(old)
    other = {"body": "x", "replacement_room": space}
    with pytest.raises(HomeserverRefused) as caught:
        await aim.writer.put_state(old, "m.room.tombstone", "", other, acting_as=ben.mxid)
    assert caught.value.status == 403


@pytest.mark.parametrize("version", ["11", "12"])
async def test_a_room_is_taken_over_and_given_back(
    homeserver: Homeserver, aim: Writing, version: str
) -> None:
    """As the executor does it, twice each, as after a crash."""
    await homeserver.register("ann", "ben")
    ann = homeserver.client("ann")
    room_id = await ann.create_room(
        room_version=version, preset="private_chat", invite=[homeserver.mxid("ben")]
    )
    await homeserver.client("ben").join(room_id)
    await ann.set_power_levels(room_id, {homeserver.mxid("ben"): 100})
    taken = TakeControl(
        room=room_id,
        space="all",
        room_id=room_id,
        acting_as=ann.mxid,
        creator=homeserver.mxid("ben"),
        creator_level=100,
        reason="added to the space",
    )
    for _ in range(2):
        await execute(homeserver, aim, taken)
    roster = Roster()
    [room] = (await aim.reader.observe(roster, [], {})).rooms.values()
    assert room.marker == Marker(1, homeserver.appservice.id, room_id, homeserver.mxid("ben"), 100)
    await aim.writer.lower_own_level(room_id, homeserver.mxid("ben"), 0)
    released = ReleaseRoom(
        room=room_id,
        space="all",
        room_id=room_id,
        restore={homeserver.mxid("ben"): 50},
        leaves=False,
        reason="removed from the space",
    )
    for leaves in (False, False, True):
        await execute(homeserver, aim, replace(released, leaves=leaves))
    content = await homeserver.state_content(room_id, "m.room.power_levels")
    assert content is not None
    assert content["users"][homeserver.mxid("ben")] == 50
    assert content["users"][homeserver.bot] == 100
    assert await homeserver.state_content(room_id, MARKER_TYPE, homeserver.bot) == {}
    assert await homeserver.members(room_id, "join") == {ann.mxid, homeserver.mxid("ben")}


@pytest.mark.parametrize("version", ["11", "12"])
async def test_moderators_can_close_a_room_of_ours_that_is_given_up(
    homeserver: Homeserver, aim: Writing, version: str
) -> None:
    await homeserver.register("ann")
    ann = homeserver.client("ann")
    base = base_levels(is_space=False, room_version=version)
    room_id = await aim.writer.create_room(
        new_room(
            is_space=False,
            room_version=version,
            invite=[ann.mxid],
            power_levels={**base, "users": {ann.mxid: 50}},
        )
    )
    await ann.join(room_id)
    action = ReleaseRoom(
        room="engineering", space="all", room_id=room_id, tombstone_level=50, reason="out of the space"
    )
    await execute(homeserver, aim, action)
    content = await homeserver.state_content(room_id, "m.room.power_levels")
    assert content is not None
    assert content["events"] == {**mapping(base["events"]), "m.room.tombstone": 50}
    await ann.put_state(room_id, "m.room.tombstone", {"body": "moved", "replacement_room": "!new"})


async def execute(
    homeserver: Homeserver, aim: Writing, action: AnyAction, others: Mapping[str, str] | None = None
) -> None:
    """Carries out one action on a room of somebody's; `others` are keys and ids of rooms of ours."""
    tools = Tools(
        writer=aim.writer,
        recorder=FakeRecorder(Line()),
        now=lambda: datetime(2030, 1, 1, tzinfo=UTC),
        server_name=homeserver.server_name,
        bot=homeserver.bot,
        instance=homeserver.appservice.id,
    )
    roster = Roster()
    directory = Directory("ldif", "Example", roster, (), (), People())
    room_ids = {} if isinstance(action, TakeControl) else {action.room: str(action.room_id)}
    room_ids |= others or {}
    plan = Plan(SourceCount("ldif", 0, 0), (action,))
    outcomes = await Provisioner(tools).execute(
        plan, Desired(directory, {}), room_ids, asyncio.Event(), lambda _: None
    )
    assert [outcome.message for outcome in outcomes] == [""]


# What holds for all


async def test_a_bad_token_is_refused_with_the_remedy(homeserver: Homeserver) -> None:
    async with open_reader(settings(homeserver, as_token="wrong-token")) as opened:
        with pytest.raises(HomeserverRefused, match="M_UNKNOWN_TOKEN") as caught:
            await opened.reader.observe(Roster(), [], {})
    assert "registration" in caught.value.remedy
    assert "wrong-token" not in caught.value.message


async def test_tokens_are_never_logged(
    homeserver: Homeserver, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ours = settings(homeserver, url=proxy.url)
    proxy.fail(everything, times=2, status=502)
    async with open_writer(ours, IMPATIENT) as opened:
        await opened.writer.ensure_bot()
        await opened.writer.create_room(new_room(name="Nobody's business"))
        await accounts_of(opened.reader, "token-nobody")
    said = [repr(ours), *(record.getMessage() + repr(vars(record)) for record in caplog.records)]
    assert [line for line in said if "createRoom" in line]
    for secret in (homeserver.as_token, homeserver.actor_token, "Nobody's business"):
        assert not [line for line in said if secret in line]


async def test_acting_as_somebody(homeserver: Homeserver) -> None:
    """The listener's token acts as the bot only, named or not; the actor's as everybody with an account."""
    await homeserver.register("ann+b=c")
    mxid = homeserver.mxid("ann+b=c")
    whoami = Path.v3.account.whoami
    async with open_transport(homeserver.base_url, homeserver.as_token, homeserver.actor_token) as both:
        assert await both.get(whoami, user_id=mxid) == {"user_id": mxid, "is_guest": False}
        assert await both.get(whoami) == {"user_id": homeserver.bot, "is_guest": False}
    async with open_transport(homeserver.base_url, homeserver.as_token) as listener:
        assert await listener.get(whoami, user_id=homeserver.bot) == {
            "user_id": homeserver.bot,
            "is_guest": False,
        }
        with pytest.raises(HomeserverRefused) as caught:
            await listener.get(whoami, user_id=mxid)
        assert caught.value.errcode == "M_EXCLUSIVE"
