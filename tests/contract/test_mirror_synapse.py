"""The mirror on a real Synapse and a real Postgres: it tells the same as reading everything anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from aiohttp import web
from mautrix.api import Path, PathBuilder

from aim.desired.levels import base_levels
from aim.directory.roster import Roster
from aim.errors import HomeserverRefused
from aim.matrix.accounts import Accounts
from aim.matrix.mirror import Mirror
from aim.matrix.observe import Reader
from aim.matrix.parse import Home
from aim.matrix.retrying import Retries
from aim.matrix.transport import Transport, open_transport
from aim.matrix.write import Writer
from aim.ports import NewRoom
from aim.store.recorder import open_recorder
from aim.world.rooms import Observed
from tests.servers.synapse import Homeserver, NewSynapse

WANTED = ["ann", "ben", "eve"]


class Ears:
    """Where the homeserver sends its transactions."""

    def __init__(self) -> None:
        self.mirror: Mirror | None = None
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "PUT" and self.mirror is not None:
            body = await request.json()
            await self.mirror.take(request.path.rsplit("/", 1)[-1], body["events"])
        return web.json_response({}, status=503 if self.mirror is None else 200)


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    found = Ears()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{any:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@dataclass(slots=True)
class Counted:
    """The transport, counting what goes through it."""

    transport: Transport
    asked: list[str] = field(default_factory=list)

    async def get(
        self, path: PathBuilder, query: Mapping[str, str] | None = None, user_id: str | None = None
    ) -> object:
        self.asked.append(str(path))
        return await self.transport.get(path, query, user_id)

    async def put(self, path: PathBuilder, body: Mapping[str, object], user_id: str | None = None) -> object:
        self.asked.append(str(path))
        return await self.transport.put(path, body, user_id)

    async def post(
        self, path: PathBuilder, body: Mapping[str, object], user_id: str | None = None, *, once: bool = False
    ) -> object:
        self.asked.append(str(path))
        return await self.transport.post(path, body, user_id, once=once)


@dataclass(slots=True)
class Opened:
    """A mirror, and beside it the reader that it has to agree with."""

    mirror: Mirror
    reader: Reader
    writer: Writer
    roster: Roster
    counted: Counted
    instance: str

    async def told(self) -> Observed:
        assert await self.mirror.barrier()
        return await self.mirror.observe(self.roster, WANTED, {})

    async def read(self) -> Observed:
        return await self.reader.observe(self.roster, WANTED, {})


@asynccontextmanager
async def opened(homeserver: Homeserver, dsn: str, ears: Ears) -> AsyncIterator[Opened]:
    """Everything up to `begin`."""
    home = Home(homeserver.server_name, homeserver.bot, homeserver.appservice.id)
    async with (
        open_transport(
            homeserver.base_url, homeserver.as_token, homeserver.actor_token, retries=Retries(tries=1)
        ) as transport,
        open_recorder(dsn) as recorder,
    ):
        roster, counted = Roster(), Counted(transport)
        accounts = Accounts(transport.reading(), home.server_name, admin=homeserver.admin)
        mirror = Mirror(counted, home, roster, recorder.mirror, accounts, now=lambda: datetime.now(UTC))
        writer = Writer(transport, home)
        await writer.ensure_bot()
        await mirror.load()
        ears.mirror = mirror
        yield Opened(
            mirror, Reader(transport.reading(), home, accounts), writer, roster, counted, home.instance
        )
        ears.mirror = None


def new_room(key: str, *invite: str) -> NewRoom:
    levels = {**base_levels(is_space=True, room_version="12"), "users": {}}
    return NewRoom(
        key=key, is_space=True, name=key, room_version=None, state=[], power_levels=levels, invite=invite
    )


async def test_it_tells_what_a_reader_reads(new_synapse: NewSynapse, dsn: str, ears: Ears) -> None:
    homeserver = await new_synapse(url=ears.url)
    await homeserver.register("ann", "ben")
    ann, ben = homeserver.client("ann"), homeserver.client("ben")
    async with opened(homeserver, dsn, ears) as found:
        await found.mirror.begin(found.instance)
        assert found.mirror.current
        assert await found.told() == await found.read()
        found.counted.asked.clear()

        room = await found.writer.create_room(new_room("a", ann.mxid, ben.mxid))
        other = await found.writer.create_room(new_room("b", ann.mxid))
        await ann.join(room)
        await ben.join(room)
        await ben.leave(room)
        await ann.join(other)
        await found.writer.kick(other, ann.mxid, "no reason")
        await found.writer.change_power_levels(room, None, {ann.mxid: 50})
        await ann.put_state(room, "m.room.name", {"name": "Renamed"})
        await ann.put_state(room, "m.room.topic", {"topic": "Talk"})
        told = await found.told()
        assert told == await found.read()
        assert told.rooms["a"].state["m.room.name"] == {"name": "Renamed"}
        # Two barriers aside there was nothing to ask.
        assert [path for path in found.counted.asked if "aim.control" not in path] == []

        name = await homeserver.as_admin("GET", f"/_synapse/admin/v1/rooms/{room}/state")
        event_id = next(e["event_id"] for e in name["state"] if e["type"] == "m.room.name")
        await found.counted.transport.put(Path.v3.rooms[room].redact[event_id]["1"], {})
        told = await found.told()
        assert told == await found.read()
        assert told.rooms["a"].state["m.room.name"] == {}

    # What happens while nobody listens comes with the ping.
    await ann.leave(room)
    async with opened(homeserver, dsn, ears) as found:
        await found.mirror.begin(found.instance)
        assert found.mirror.current
        assert await found.told() == await found.read()
        assert len(found.counted.asked) < 10
        assert not [path for path in found.counted.asked if path.endswith("/state")]


async def test_a_homeserver_that_can_not_reach_us_says_so(
    new_synapse: NewSynapse, dsn: str, ears: Ears
) -> None:
    homeserver = await new_synapse(url="http://127.0.0.1:1")
    async with opened(homeserver, dsn, ears) as found:
        with pytest.raises(HomeserverRefused) as caught:
            await found.mirror.begin(found.instance)
    assert caught.value.errcode == "M_CONNECTION_FAILED"
    assert "listen" in caught.value.remedy
