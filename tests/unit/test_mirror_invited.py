"""Invites of the bot by users of other servers: which are kept, which are ignored, what becomes of them."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import pytest

from aim.matrix.mirror.invited import MOST, MOST_OF_ONE, MOST_OF_STRANGERS
from aim.world.federation import EXPECTATIONS_TYPE
from aim.world.rooms import MARKER_TYPE
from tests.unit.mirroring import HOME, FakeMirrorStore, Json, Server, Setting, local

PEER = "@aim:other.org:8448"
STRANGER = "@aim:stranger.org"
WITH_PEER = replace(HOME, peers=frozenset({PEER}))
ROOM = "!theirs"
MARKED: Json = {"version": 1, "instance": "aim", "key": "shared"}


def created(sender: str = PEER, **content: object) -> Json:
    """What an invite tells of a room's beginning."""
    content = {"room_version": "12", "type": "m.space", MARKER_TYPE: MARKED, **content}
    return {"type": "m.room.create", "state_key": "", "sender": sender, "content": content}


def named(text: str) -> Json:
    return {"type": "m.room.name", "state_key": "", "sender": PEER, "content": {"name": text}}


async def begun(store: FakeMirrorStore | None = None, server: Server | None = None) -> Setting:
    return await Setting(server, store, WITH_PEER).started()


def join(server: Server, creator: str = PEER) -> None:
    """The bot has joined: from now on the homeserver knows the room."""
    event = server.event(ROOM, "m.room.create", "", created(creator)["content"], creator)  # type: ignore[arg-type]
    server.member(ROOM, creator, "join")
    server.queue.remove(event)
    server.queue.clear()
    server.member(ROOM, HOME.bot, "join")


async def test_an_invite_by_a_peer_is_kept() -> None:
    setting = await begun()
    setting.server.invite_from(ROOM, PEER, created(), named("Shared"))
    await setting.server.deliver()
    assert setting.changed == [{ROOM}]
    assert setting.mirror.key_of(ROOM) == ROOM
    room = (await setting.observe()).federated[ROOM]
    assert (room.bot, room.is_space, room.state["m.room.name"]) == ("invite", True, {"name": "Shared"})
    assert room.origin is not None
    assert (room.origin.agent, room.origin.key) == (PEER, "shared")
    # It can't be read, and nobody tries.
    assert setting.server.asked == []
    assert setting.ignored == []


async def test_it_is_there_after_a_restart() -> None:
    setting = await begun()
    setting.server.invite_from(ROOM, PEER, created())
    await setting.server.deliver()
    again = await begun(setting.store, setting.server)
    assert set((await again.observe()).federated) == {ROOM}


async def test_it_is_remembered_although_the_peer_is_not_listed_yet() -> None:
    setting = await Setting().started()
    setting.server.invite_from(ROOM, PEER, created())
    await setting.server.deliver()
    assert (await setting.observe()).rooms == {}
    assert setting.ignored == [(PEER, "stranger")]
    again = await begun(setting.store, setting.server)
    assert set((await again.observe()).federated) == {ROOM}


async def test_what_it_leads_to_is_read() -> None:
    setting = await begun()
    server = setting.server
    server.invite_from(ROOM, PEER, created())
    await server.deliver()
    join(server)
    server.event(ROOM, EXPECTATIONS_TYPE, PEER, {"version": 1, "agents": {HOME.bot: {"groups": []}}}, PEER)
    server.event(ROOM, EXPECTATIONS_TYPE, local("ann"), {"version": 1, "agents": {}}, local("ann"))
    await server.deliver()
    room = (await setting.observe()).federated[ROOM]
    assert room.bot == "join"
    assert room.expectations is not None
    assert room.expectations.agents == {HOME.bot: ()}
    assert f"rooms/{ROOM}/state" in server.asked
    # Nobody else's are even kept.
    assert [key.state_key for key in setting.store.events if key.type == EXPECTATIONS_TYPE] == [PEER]


async def test_in_a_room_of_another_server_an_event_only_prompts_a_read() -> None:
    setting = await begun()
    server = setting.server
    server.invite_from(ROOM, PEER, created())
    await server.deliver()
    join(server)
    await server.deliver()
    await setting.observe()
    before = {"version": 1, "agents": {HOME.bot: {"groups": []}}}
    server.event(ROOM, EXPECTATIONS_TYPE, PEER, before, PEER)
    await server.deliver()
    await setting.observe()
    lost = server.event(ROOM, EXPECTATIONS_TYPE, PEER, {"version": 1, "agents": {}}, PEER)
    # It lost: the state is as before.
    server.state[ROOM][EXPECTATIONS_TYPE, PEER] = {**lost, "content": before, "event_id": "$kept"}
    await server.deliver()
    room = (await setting.observe()).federated[ROOM]
    assert room.expectations is not None
    assert room.expectations.agents == {HOME.bot: ()}


@pytest.mark.parametrize("is_read_between", [True, False])
async def test_who_left_can_be_asked_in_again(is_read_between: bool) -> None:
    """The homeserver shows a room that all of ours have left as it was then, whoever is asked in since."""
    setting = await begun()
    server = setting.server
    server.invite_from(ROOM, PEER, created())
    await server.deliver()
    join(server)
    await server.deliver()
    await setting.observe()
    server.member(ROOM, HOME.bot, "leave")
    await server.deliver()
    if is_read_between:
        await setting.observe()
    server.invite_from(ROOM, PEER, created())
    await server.deliver()
    for _ in range(2):
        assert (await setting.observe()).federated[ROOM].bot == "invite"
    server.member(ROOM, HOME.bot, "join")
    await server.deliver()
    assert (await setting.observe()).federated[ROOM].bot == "join"


async def test_a_room_that_is_not_what_was_said_is_not_kept() -> None:
    setting = await begun()
    setting.server.invite_from(ROOM, PEER, created())
    await setting.server.deliver()
    join(setting.server, creator="@mallory:other.org")
    setting.server.state[ROOM]["m.room.create", ""]["content"] = {"room_version": "12"}
    await setting.server.deliver()
    assert (await setting.observe()).rooms == {}
    assert setting.store.rooms == {}


async def test_an_invite_that_is_taken_back_is_forgotten() -> None:
    setting = await begun()
    server = setting.server
    server.invite_from(ROOM, PEER, created())
    await server.deliver()
    server.queue.append(
        {
            "room_id": ROOM,
            "type": "m.room.member",
            "state_key": HOME.bot,
            "sender": PEER,
            "content": {"membership": "leave"},
            "event_id": "$gone",
            "origin_server_ts": 5000,
        }
    )
    await server.deliver()
    assert (await setting.observe()).rooms == {}
    assert setting.store.rooms == {}
    # The same within one transaction.
    event = server.invite_from(ROOM, PEER, created())
    server.queue.append({**event, "content": {"membership": "leave"}, "event_id": "$gone2"})
    await server.deliver()
    assert setting.store.rooms == {}


@pytest.mark.parametrize(
    ("sender", "told", "why"),
    [
        (STRANGER, created(), "stranger"),
        (PEER, created(STRANGER), "not_theirs"),
        (PEER, {**created(), "content": {}}, "not_theirs"),
        (PEER, named("Shared"), "not_theirs"),
        (PEER, {"type": "m.room.create", "state_key": "x", "sender": PEER, "content": []}, "not_theirs"),
    ],
)
async def test_others_are_ignored_and_told(sender: str, told: Json, why: str) -> None:
    setting = await begun()
    setting.server.invite_from(ROOM, sender, told)
    await setting.server.deliver()
    assert setting.ignored == [(sender, why)]
    assert (await setting.observe()).rooms == {}
    assert setting.store.rooms == {}
    assert setting.server.asked == []


async def test_an_invite_by_one_of_ours_is_none_of_these() -> None:
    setting = await begun()
    setting.server.invite_from(ROOM, local("ann"), created())
    await setting.server.deliver()
    assert setting.ignored == []
    assert (await setting.observe()).rooms == {}


@pytest.mark.parametrize("sender", [PEER, STRANGER])
async def test_ten_thousand_invites_cost_no_memory(sender: str) -> None:
    setting = await begun()
    for first in range(0, 10_000, 100):
        for number in range(first, first + 100):
            setting.server.invite_from(f"!{number}", sender, created(sender))
        await setting.server.deliver()
    kept = MOST_OF_ONE if sender == STRANGER else MOST
    assert len(setting.ignored) == 10_000 - (0 if sender == STRANGER else kept)
    assert len(setting.store.rooms) == len(setting.mirror._memory.copies) == kept
    assert len((await setting.observe()).federated) == (0 if sender == STRANGER else kept)
    assert sum(map(sys.getsizeof, setting.store.events.values())) < 1_000_000


async def test_nor_do_invites_by_ten_thousand_strangers() -> None:
    setting = await begun()
    for number in range(10_000):
        stranger = f"@aim:s{number}.org"
        setting.server.invite_from(f"!{number}", stranger, created(stranger))
    await setting.server.deliver()
    assert len(setting.ignored) == 10_000
    assert len(setting.store.rooms) == MOST_OF_STRANGERS
    # A peer is heard all the same.
    setting.server.invite_from(ROOM, PEER, created())
    await setting.server.deliver()
    assert set((await setting.observe()).federated) == {ROOM}


async def test_an_invite_of_ours_by_others_is_looked_at_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told before the homeserver has it in the room's state, and not told again."""
    monkeypatch.setattr("aim.matrix.mirror.mirror.ASK_AGAIN", (0.0, 0.0))
    setting = await begun()
    server = setting.server
    server.invite_from(ROOM, PEER, created())
    await server.deliver()
    join(server)
    await server.deliver()
    await setting.observe()
    invite = server.member(ROOM, local("eve"), "invite", sender="@hank:other.org")
    key = ("m.room.member", local("eve"))
    del server.state[ROOM][key]
    await server.deliver()
    assert not (await setting.observe()).federated[ROOM].invited
    server.state[ROOM][key] = invite
    setting.changed.clear()
    await asyncio.gather(*setting.mirror._asking)
    assert setting.changed
    assert setting.names((await setting.observe()).federated[ROOM].invited) == ["eve"]
