"""A homeserver in memory, for organisations that a real one would take hours to make.

In: what aim asks of one. Out: answers as Synapse gives them, and the events of the bot's rooms as
transactions, one at a time. It checks what it is sent: tokens, rooms that exist, contents that are complete,
memberships that allow what is asked; anything else is refused as Synapse refuses it, and kept in `faults` if
aim should never send it. No power levels, no federation, no clients: what people do is done by its methods.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from aim.world.rooms import MARKER_TYPE
from tests.servers.synapse import ADMIN, SERVER_NAME, Appservice

Json = dict[str, Any]
MEMBER = "m.room.member"
_AT_ONCE = 100
"""Events in a transaction."""
_AGAIN = 0.1
"""Seconds until a transaction that was not taken is sent again."""
_VERSION = "12"
_SENT = 1_700_000_000_000


class RefusedError(Exception):
    """The answer to something that can't be done."""

    def __init__(self, status: int, errcode: str, error: str) -> None:
        super().__init__(error)
        self.status, self.errcode = status, errcode


class StandIn:
    """`async with StandIn(appservice, localparts) as homeserver:` answers at `homeserver.base_url`."""

    def __init__(self, appservice: Appservice, localparts: list[str]) -> None:
        """`localparts`: those who have an account, the oldest first."""
        self.appservice = appservice
        self.server_name = SERVER_NAME
        self.localparts = [ADMIN, *localparts]
        self._has_account = frozenset(self.localparts)
        self.state: dict[str, dict[tuple[str, str], Json]] = {}
        """Room id → (type, key) → event."""
        self.faults: list[str] = []
        """What nobody should have sent."""
        self._numbers = itertools.count(1)
        self._has_bot = False
        self._waiting: list[Json] = []
        self._delivered = asyncio.Event()
        self._wake = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._sending: asyncio.Task[None] | None = None
        self.base_url = ""

    @property
    def bot(self) -> str:
        return f"@{self.appservice.sender_localpart}:{self.server_name}"

    @property
    def _listener(self) -> str:
        """The registration that is sent transactions, as `aim registration` calls it."""
        return f"{self.appservice.id}-listener"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sending:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        if self._runner:
            await self._runner.cleanup()

    # -- what people do --------------------------------------------------------------------------------------

    def fill(self, members: Mapping[str, list[str]], leads: Mapping[str, str]) -> int:
        """Everybody has an account and is in their rooms, by the rooms' keys, as if they had always been; no
        event tells it. Gives the number of memberships."""
        everybody = dict.fromkeys(name for names in members.values() for name in names)
        self.localparts = [*self.localparts, *everybody]
        self._has_account = frozenset(self.localparts)
        for key, names in members.items():
            room_id = self.rooms_by_key()[key]
            for name in names:
                self._put(room_id, MEMBER, self.mxid(name), self.mxid(name), {"membership": "join"})
            if key in leads:
                levels = self.state[room_id]["m.room.power_levels", ""]["content"]
                users = {**levels.get("users", {}), self.mxid(leads[key]): 50}
                self._put(room_id, "m.room.power_levels", "", self.bot, {**levels, "users": users})
        self._waiting.clear()
        return sum(map(len, members.values()))

    def rooms_by_key(self) -> dict[str, str]:
        """Key → id of the rooms that carry one."""
        markers = (
            (event["content"].get(MARKER_TYPE, {}), room_id)
            for room_id, state in self.state.items()
            for event in [state["m.room.create", ""]]
        )
        return {marker["key"]: room_id for marker, room_id in markers if "key" in marker}

    def mxid(self, localpart: str) -> str:
        return f"@{localpart}:{self.server_name}"

    def invite(self, room_id: str, sender: str, person: str) -> None:
        """Somebody invites somebody; all are MXIDs."""
        self._put(room_id, MEMBER, person, sender, {"membership": "invite"})

    async def all_delivered(self) -> None:
        """Waits until every event was taken."""
        while self._waiting:
            self._delivered.clear()
            await self._delivered.wait()

    # -- rooms -----------------------------------------------------------------------------------------------

    def _put(self, room_id: str, kind: str, key: str, sender: str, content: Mapping[str, Any]) -> str:
        state = self.state[room_id]
        before = state.get((kind, key))
        if before is not None and before["content"] == content:
            return str(before["event_id"])
        number = next(self._numbers)
        event: Json = {
            "type": kind,
            "state_key": key,
            "room_id": room_id,
            "sender": sender,
            "content": dict(content),
            "event_id": f"${number:043}",
            "origin_server_ts": _SENT + number,
            "unsigned": {} if before is None else {"replaces_state": before["event_id"]},
        }
        state[kind, key] = event
        self._waiting.append(event)
        self._wake.set()
        return str(event["event_id"])

    def _create(self, body: Json) -> Json:
        room_id = f"!{next(self._numbers):043}"
        self.state[room_id] = {}
        content = {"room_version": body.get("room_version", _VERSION), **body["creation_content"]}
        self._put(room_id, "m.room.create", "", self.bot, content)
        self._put(room_id, MEMBER, self.bot, self.bot, {"membership": "join"})
        for event in body.get("initial_state", []):
            self._put(room_id, event["type"], event["state_key"], self.bot, event["content"])
        if "name" in body:
            self._put(room_id, "m.room.name", "", self.bot, {"name": body["name"]})
        for person in body.get("invite", []):
            self._member(room_id, person, "invite")
        return {"room_id": room_id}

    def _member(self, room_id: str, person: str, membership: str) -> Json:
        before = self.state[room_id].get((MEMBER, person), {}).get("content", {}).get("membership")
        if person.partition(":")[0].removeprefix("@") not in self._has_account:
            self.faults.append(f"{person} has no account")
        if membership == "invite" and before in {"invite", "join"}:
            raise RefusedError(403, "M_FORBIDDEN", f"{person} is already in the room.")
        if membership == "leave" and before not in {"invite", "join"}:
            raise RefusedError(403, "M_FORBIDDEN", "The target user is not in the room")
        self._put(room_id, MEMBER, person, self.bot, {"membership": membership})
        return {}

    # -- requests --------------------------------------------------------------------------------------------

    async def _handle(self, incoming: web.Request) -> web.Response:
        body = await incoming.read()
        try:
            content = json.loads(body) if body else {}
            return web.json_response(await self._answer(incoming, content))
        except RefusedError as error:
            content = {"errcode": error.errcode, "error": str(error)}
            return web.json_response(content, status=error.status)
        except (ValueError, KeyError, TypeError) as error:
            self.faults.append(f"{incoming.method} {incoming.path}: {error!r}")
            return web.json_response({"errcode": "M_BAD_JSON", "error": str(error)}, status=400)

    async def _answer(self, incoming: web.Request, body: Json) -> Json | list[Json]:
        token = incoming.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in {self.appservice.as_token, self.appservice.actor_token}:
            raise RefusedError(401, "M_UNKNOWN_TOKEN", "Unrecognised access token")
        words = [unquote(word) for word in incoming.raw_path.partition("?")[0].split("/")[1:]]
        match incoming.method, words:
            case "GET", ["_synapse", "admin", "v3", "users"]:
                return self._accounts(incoming.query)
            case _, ["_matrix", "client", "v3", "rooms", room_id, *rest]:
                return self._in_room(incoming, room_id, rest, body)
            case "POST", ["_matrix", "client", "v1", "appservice", name, "ping"] if name == self._listener:
                return {"duration_ms": 1}
            case "POST", ["_matrix", "client", "v3", "createRoom"]:
                return self._create(body)
            case _, ["_matrix", "client", "v3", *rest]:
                return self._about_us(incoming.method, rest)
        raise RefusedError(404, "M_UNRECOGNIZED", "Unrecognized request")

    def _about_us(self, method: str, words: list[str]) -> Json:
        match method, words:
            case "GET", ["joined_rooms"]:
                return {"joined_rooms": list(self.state)}
            case "GET", ["capabilities"]:
                return {"capabilities": {"m.room_versions": {"default": _VERSION, "available": {}}}}
            case "GET", ["account", "whoami"]:
                return {"user_id": self.bot}
            case "GET", ["profile", self.bot] if self._has_bot:
                return {"displayname": "aim"}
            case "POST", ["register"]:
                self._has_bot = True
                return {"user_id": self.bot}
            case "GET", ["profile", _]:
                raise RefusedError(404, "M_NOT_FOUND", "Profile was not found")
        raise RefusedError(404, "M_UNRECOGNIZED", "Unrecognized request")

    def _accounts(self, query: Mapping[str, str]) -> Json:
        """The admin API's list of accounts."""
        names = self.localparts
        if query.get("order_by") == "creation_ts" and query.get("dir") == "b":
            names = names[::-1]
        start, limit = int(query.get("from", "0")), int(query["limit"])
        page = [{"name": f"@{name}:{self.server_name}"} for name in names[start : start + limit]]
        end = start + limit
        return {"users": page, "total": len(names)} | ({"next_token": str(end)} if end < len(names) else {})

    def _in_room(
        self, incoming: web.Request, room_id: str, words: list[str], body: Json
    ) -> Json | list[Json]:
        if room_id not in self.state:
            raise RefusedError(403, "M_FORBIDDEN", f"{self.bot} not in room {room_id}")
        match incoming.method, words:
            case "GET", ["state"]:
                return list(self.state[room_id].values())
            case "GET", ["state", kind, *rest]:
                return self._one(room_id, kind, "".join(rest), whole="format" in incoming.query)
            case "PUT", ["state", kind, *rest]:
                return {"event_id": self._put(room_id, kind, "".join(rest), self.bot, body)}
            case "POST", ["invite"]:
                return self._member(room_id, body["user_id"], "invite")
            case "POST", ["kick"]:
                return self._member(room_id, body["user_id"], "leave")
        raise RefusedError(404, "M_UNRECOGNIZED", "Unrecognized request")

    def _one(self, room_id: str, kind: str, key: str, *, whole: bool) -> Json:
        event = self.state[room_id].get((kind, key))
        if event is None:
            raise RefusedError(404, "M_NOT_FOUND", "Event not found.")
        return event if whole else event["content"]

    # -- transactions ----------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """What happened, in order; the same again until it is taken."""
        url = f"{self.appservice.url}/_matrix/app/v1/transactions"
        headers = {"Authorization": f"Bearer {self.appservice.hs_token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            for number in itertools.count(1):
                await self._something()
                events = self._waiting[:_AT_ONCE]
                await _deliver(session, f"{url}/{number}", events)
                del self._waiting[: len(events)]
                self._delivered.set()

    async def _something(self) -> None:
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()


async def _deliver(session: aiohttp.ClientSession, url: str, events: list[Json]) -> None:
    """Until it is taken."""
    while True:
        if await _taken(session, url, events):
            return
        await asyncio.sleep(_AGAIN)


async def _taken(session: aiohttp.ClientSession, url: str, events: list[Json]) -> bool:
    try:
        async with session.put(url, json={"events": events}) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
