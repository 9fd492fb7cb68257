"""The transaction stream of a real Synapse, into our endpoint: what docs/homeserver.md says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aim.errors import HomeserverRefused, StoreError
from aim.matrix.appservice import router
from aim.ops.listening import application, listening
from aim.ops.metrics import Metrics
from tests.servers.synapse import Appservice, Homeserver, NewSynapse, Person, make_appservice

LOOPBACK = "127.0.0.1"
SOON = 30
"""Seconds within which something must have come; it takes milliseconds."""
PING = "/_matrix/client/v1/appservice/aim/ping"
Event = dict[str, Any]


class Stream:
    """What came, and a way to wait for what has not come yet."""

    def __init__(self) -> None:
        self.transactions: list[tuple[str, list[Event]]] = []
        self.failures = 0
        """So many transactions more are refused, as if the database were down."""
        self.refused: list[tuple[str, list[Event]]] = []
        self._came = asyncio.Condition()

    async def take(self, txn_id: str, events: list[object]) -> None:
        found: list[Event] = [event for event in events if isinstance(event, dict)]
        assert len(found) == len(events)
        async with self._came:
            self._came.notify_all()
            if self.failures:
                self.failures -= 1
                self.refused.append((txn_id, found))
                raise StoreError("the database is down", "start it")
            self.transactions.append((txn_id, found))

    @property
    def events(self) -> list[Event]:
        return [event for _, events in self.transactions for event in events]

    def find(self, event_type: str, content: Mapping[str, object]) -> Event | None:
        """An event of that type with at least that content."""
        for event in self.events:
            if event["type"] == event_type and content.items() <= event["content"].items():
                return event
        return None

    async def wait(self, event_type: str, **content: object) -> Event:
        async with asyncio.timeout(SOON), self._came:
            while (found := self.find(event_type, content)) is None:
                await self._came.wait()
        return found

    async def wait_refused(self) -> None:
        async with asyncio.timeout(SOON), self._came:
            await self._came.wait_for(lambda: self.refused)


@asynccontextmanager
async def streaming(
    new_synapse: NewSynapse, *, hs_token: str | None = None
) -> AsyncIterator[tuple[Homeserver, Stream]]:
    """A Synapse that sends us what it has, and an account for the bot."""
    stream, appservice = Stream(), make_appservice()
    app = application([router(hs_token or appservice.hs_token, stream.take)], Metrics(), lambda: True)
    async with listening(app, LOOPBACK, 0) as port:
        homeserver = await new_synapse(appservice=appservice, url=f"http://{LOOPBACK}:{port}")
        await _register_bot(homeserver, appservice)
        yield homeserver, stream


async def _register_bot(homeserver: Homeserver, appservice: Appservice) -> None:
    body = {"type": "m.login.application_service", "username": appservice.sender_localpart}
    await homeserver.request("POST", "/_matrix/client/v3/register", body, token=homeserver.as_token)


async def ping(homeserver: Homeserver) -> Event:
    return await homeserver.request("POST", PING, {"transaction_id": "hello"}, token=homeserver.as_token)


async def a_room_with_the_bot(homeserver: Homeserver) -> tuple[Person, str]:
    await homeserver.register("ann")
    ann = homeserver.client("ann")
    room = await ann.create_room(name="ours", invite=[homeserver.bot])
    await homeserver.bot_client().join(room)
    return ann, room


async def test_ping(new_synapse: NewSynapse) -> None:
    async with streaming(new_synapse) as (homeserver, stream):
        assert (await ping(homeserver))["duration_ms"] >= 0
        assert not stream.transactions


async def test_a_ping_tells_of_a_wrong_token(new_synapse: NewSynapse) -> None:
    async with streaming(new_synapse, hs_token="another") as (homeserver, stream):
        with pytest.raises(HomeserverRefused) as told:
            await ping(homeserver)
        assert (told.value.status, told.value.errcode) == (502, "M_BAD_STATUS")
        assert not stream.transactions


async def test_what_comes_is_of_the_bots_rooms_and_how_it_looks(new_synapse: NewSynapse) -> None:
    async with streaming(new_synapse) as (homeserver, stream):
        ann, room = await a_room_with_the_bot(homeserver)
        await (other := homeserver.client("ann")).create_room(name="theirs")
        await other.put_state(room, "m.room.topic", {"topic": "first"})
        first = await stream.wait("m.room.topic", topic="first")
        await ann.put_state(room, "m.room.topic", {"topic": "second"})
        second = await stream.wait("m.room.topic", topic="second")

        assert {event["room_id"] for event in stream.events} == {room}
        # Nothing of the time before the bot was in it but its invite; and what the bot does itself.
        assert [event["type"] for event in stream.events[:2]] == ["m.room.member"] * 2
        invite, join = stream.events[:2]
        assert (invite["sender"], invite["content"]["membership"]) == (ann.mxid, "invite")
        assert (join["sender"], join["content"]["membership"]) == (homeserver.bot, "join")
        # Beside the format of clients, the copies of an older one.
        assert first["user_id"] == first["sender"] == ann.mxid
        assert "replaces_state" not in first["unsigned"]
        assert "invite_room_state" in invite
        assert second["unsigned"]["replaces_state"] == second["replaces_state"] == first["event_id"]
        assert second["unsigned"]["prev_content"] == second["prev_content"] == {"topic": "first"}
        assert second["unsigned"]["prev_sender"] == ann.mxid
        ids = [int(txn_id) for txn_id, _ in stream.transactions]
        assert ids == sorted(set(ids))


async def test_the_deepest_event_that_it_takes_does_not_stop_the_stream(new_synapse: NewSynapse) -> None:
    async with streaming(new_synapse) as (homeserver, stream):
        ann, room = await a_room_with_the_bot(homeserver)
        taken, refused = 1, 20_000
        while refused - taken > 1:
            depth = (taken + refused) // 2
            if await _send_nested(homeserver, ann, room, depth):
                taken = depth
            else:
                refused = depth
        assert taken > 100
        await ann.put_state(room, "m.room.topic", {"topic": "after"})
        await stream.wait("m.room.topic", topic="after")
        assert stream.find("com.example.nested", {"depth": taken})


async def _send_nested(homeserver: Homeserver, person: Person, room: str, depth: int) -> bool:
    """Whether the homeserver takes an event that is so deep."""
    body = f'{{"depth": {depth}, "x": {"[" * depth}{"]" * depth}}}'
    url = f"{homeserver.base_url}/_matrix/client/v3/rooms/{room}/send/com.example.nested/{depth}"
    headers = {"Authorization": f"Bearer {homeserver.actor_token}"}
    async with homeserver.session.put(
        url, params={"user_id": person.mxid}, data=body, headers=headers
    ) as response:
        return response.status == 200


async def test_what_could_not_be_stored_comes_again_with_its_id(new_synapse: NewSynapse) -> None:
    async with streaming(new_synapse) as (homeserver, stream):
        ann, room = await a_room_with_the_bot(homeserver)
        await stream.wait("m.room.member", membership="join")
        stream.failures = 1
        await ann.put_state(room, "m.room.topic", {"topic": "first"})
        await stream.wait_refused()
        await ann.put_state(room, "m.room.topic", {"topic": "second"})
        # It would wait for two seconds, then four, eight …
        await ping(homeserver)
        await stream.wait("m.room.topic", topic="second")

        ((again, events),) = stream.refused
        (repeated,) = (found for txn_id, found in stream.transactions if txn_id == again)
        assert [event["event_id"] for event in repeated] == [event["event_id"] for event in events]
        topics = [event["content"]["topic"] for event in stream.events if event["type"] == "m.room.topic"]
        assert topics == ["first", "second"]
