"""Rooms that people put into our spaces, looked at on a real Synapse through a proxy that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest

from aim.desired.levels import base_levels
from aim.directory.roster import Roster
from aim.matrix import client
from aim.matrix.client import Writing, open_writer
from aim.ports import NewRoom
from tests.servers.proxy import NewProxy, Proxy
from tests.servers.synapse import Homeserver


@pytest.fixture
async def proxy(homeserver: Homeserver, new_proxy: NewProxy) -> Proxy:
    return await new_proxy(homeserver.base_url)


@pytest.fixture
async def aim(homeserver: Homeserver, proxy: Proxy) -> AsyncIterator[Writing]:
    """Our client, through the proxy, its bot registered."""
    settings = client.Homeserver(
        url=proxy.url,
        server_name=homeserver.server_name,
        bot=homeserver.bot,
        instance=homeserver.appservice.id,
        as_token=homeserver.as_token,
        actor_token=homeserver.actor_token,
    )
    async with open_writer(settings) as opened:
        await opened.writer.ensure_bot()
        yield opened


async def a_space(homeserver: Homeserver, aim: Writing) -> str:
    """A managed space with ann, who has level 50, and ben in it."""
    await homeserver.register("ann", "ben")
    levels = {**base_levels(is_space=True, room_version="12"), "users": {homeserver.mxid("ann"): 50}}
    space = await aim.writer.create_room(
        NewRoom(
            key="top",
            is_space=True,
            name="Top",
            room_version=None,
            state=(),
            power_levels=levels,
            invite=[homeserver.mxid("ann"), homeserver.mxid("ben")],
        )
    )
    for name in ("ann", "ben"):
        await homeserver.client(name).join(space)
    return space


async def put(homeserver: Homeserver, space: str, room_id: str) -> None:
    """ann puts the room into the space."""
    content = {"via": [homeserver.server_name]}
    await homeserver.client("ann").put_state(space, "m.space.child", content, room_id)


async def test_what_members_could_join_is_seen_and_the_rest_costs_nothing(
    homeserver: Homeserver, aim: Writing, proxy: Proxy
) -> None:
    space = await a_space(homeserver, aim)
    ann, ben = homeserver.client("ann"), homeserver.client("ben")
    allow = [{"type": "m.room_membership", "room_id": space}]
    restricted = {
        "type": "m.room.join_rules",
        "state_key": "",
        "content": {"join_rule": "restricted", "allow": allow},
    }
    rooms = {
        "restricted": await ben.create_room(initial_state=[restricted]),
        "public": await ann.create_room(preset="public_chat"),
        "private": await ann.create_room(preset="private_chat"),
        "subspace": await ann.create_room(preset="public_chat", creation_content={"type": "m.space"}),
        "elsewhere": await ann.create_room(
            initial_state=[{**restricted, "content": {"join_rule": "restricted", "allow": []}}]
        ),
    }
    for room_id in rooms.values():
        await put(homeserver, space, room_id)
    proxy.forget()
    roster = Roster()
    observed = await aim.reader.observe(roster, [], {})
    # ann, who put ben's room there, is not in it, and no moderator of the space is.
    assert set(observed.unmanaged) == {rooms["public"]}
    assert observed.unseen == {
        rooms["restricted"]: "neither who put it there nor the space's moderators are in it"
    }
    room = observed.unmanaged[rooms["public"]]
    assert (room.marker, room.bot, roster.localparts(room.joined)) == (None, None, ["ann"])
    paths = [unquote(request.path) for request in proxy.requests]
    assert sum(path.endswith("/hierarchy") for path in paths) == 1
    assert not [path for path in paths if rooms["private"] in path or rooms["subspace"] in path]
    await ann.join(rooms["restricted"])
    observed = await aim.reader.observe(Roster(), [], {})
    assert set(observed.unmanaged) == {rooms["public"], rooms["restricted"]}
    assert observed.rooms["top"].children[rooms["public"]].sender == homeserver.mxid("ann")


async def test_a_room_of_ours_that_the_bot_left_is_known_again(homeserver: Homeserver, aim: Writing) -> None:
    space = await a_space(homeserver, aim)
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    talk = await aim.writer.create_room(
        NewRoom(
            key="gone/talk",
            is_space=False,
            name="Talk",
            room_version=None,
            state=[{"type": "m.room.join_rules", "state_key": "", "content": rules}],
            power_levels={
                **base_levels(is_space=False, room_version="12"),
                "users": {homeserver.mxid("ann"): 50},
            },
            invite=[homeserver.mxid("ann")],
        )
    )
    await homeserver.client("ann").join(talk)
    await aim.writer.leave(talk)
    await put(homeserver, space, talk)
    room = (await aim.reader.observe(Roster(), [], {})).unmanaged[talk]
    assert room.marker is not None
    assert (room.key, room.bot) == ("gone/talk", "leave")


async def test_a_named_space_is_found_through_who_may_be_in_it(homeserver: Homeserver, aim: Writing) -> None:
    await homeserver.register("ann", "ben")
    space = await homeserver.client("ben").create_room(
        preset="private_chat", creation_content={"type": "m.space"}
    )
    alias = f"#none:{homeserver.server_name}"
    observed = await aim.reader.observe(Roster(), [], {}, {space: ["ann", "ben"], alias: ["ann"]})
    assert observed.unmanaged[space].is_space
    assert (observed.aliases, set(observed.unseen)) == ({}, {alias})
    hidden = await aim.reader.observe(Roster(), [], {}, {space: ["ann"]})
    assert (hidden.unmanaged, set(hidden.unseen)) == ({}, {space})
