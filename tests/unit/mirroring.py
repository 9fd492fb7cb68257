"""What the tests of the mirror need: a store in memory, and a homeserver that keeps state and tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from mautrix.api import PathBuilder

from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, StoreError
from aim.matrix import mxid, parse
from aim.matrix.accounts import Accounts
from aim.matrix.mirror import Hooks, Mirror
from aim.matrix.parse import Home
from aim.matrix.transport import ReadTransport
from aim.ports import (
    MemberKind,
    MirrorChanges,
    MirrorContents,
    MirroredRoom,
    MirrorFacts,
    MirrorRecord,
    Stamp,
    StateKey,
    StoredEvent,
    StoredMember,
    StoredMembers,
)
from aim.world.rooms import MARKER_TYPE, Observed, Room

HOME = Home("example.com", "@aim:example.com", "aim")
NOW = datetime(2026, 5, 4, 12, 30, 15, tzinfo=UTC)
CONTROL = "!control:example.com"
Json = dict[str, object]


def local(name: str) -> str:
    return f"@{name}:example.com"


class FakeMirrorStore:
    """MirrorStore in memory. `test_store_mirror` holds it to what the real one does."""

    def __init__(self) -> None:
        self.facts = MirrorFacts(complete=False, is_current=False)
        self.rooms: dict[str, MirroredRoom] = {}
        self.events: dict[StateKey, StoredEvent] = {}
        self.memberships: dict[StateKey, StoredMember] = {}
        self.doubts: set[StateKey] = set()
        self.accounts: set[str] = set()
        self.transactions: dict[str, str] = {}
        self.failing = False
        self.writes = 0

    def copy(self) -> FakeMirrorStore:
        """A backup."""
        found = FakeMirrorStore()
        for name, value in vars(self).items():
            setattr(found, name, value.copy() if isinstance(value, dict | set) else value)
        return found

    async def load(self) -> MirrorContents:
        return MirrorContents(
            self.facts,
            dict(self.rooms),
            list(self.events.values()),
            frozenset(self.doubts),
            sorted(self.accounts),
        )

    async def members(self, server_name: str, bot: str) -> AsyncIterator[StoredMembers]:
        groups: dict[tuple[str, str, MemberKind], list[tuple[str, int]]] = {}
        for member in self.memberships.values():
            parts = mxid.split(member.key.state_key)
            assert parts is not None
            kind = MemberKind.LOCAL if parts[1] == server_name else MemberKind.FOREIGN
            name = parts[0] if kind is MemberKind.LOCAL else member.key.state_key
            if member.key.state_key == bot:
                kind, name = MemberKind.BOT, bot
            elif member.membership == "leave" and not member.own:
                continue
            group = groups.setdefault((member.key.room_id, member.membership, kind), [])
            group.append((name, member.stamp.sent))
        for (room_id, membership, kind), found in groups.items():
            sent = [time for _, time in found] if membership == "leave" else []
            yield StoredMembers(room_id, membership, kind, [name for name, _ in found], sent)

    async def members_of(self, room_id: str) -> Mapping[StateKey, StoredMember]:
        return {key: member for key, member in self.memberships.items() if key.room_id == room_id}

    async def compare(
        self, txn_id: str, members: Collection[StateKey], redacted: Collection[str]
    ) -> MirrorRecord:
        await asyncio.sleep(0)
        return MirrorRecord(
            self.transactions.get(txn_id),
            {key: self.memberships[key].stamp for key in members if key in self.memberships},
            {key for key, member in self.memberships.items() if member.stamp.event_id in redacted},
        )

    async def record(self, changes: MirrorChanges, now: datetime) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise StoreError("the database is away")
        self.writes += 1
        if changes.transaction is not None:
            self.transactions.update([changes.transaction])
        for key in [key for key in self._keys() if key.room_id in changes.dropped]:
            self._forget(key)
        for room_id in changes.dropped:
            self.rooms.pop(room_id, None)
        self.rooms.update(changes.rooms)
        for key in changes.gone:
            self.events.pop(key, None)
            self.memberships.pop(key, None)
        self.events.update({event.key: event for event in changes.events})
        self.memberships.update({member.key: member for member in changes.members})
        self.doubts = self.doubts.difference(changes.settled).union(changes.doubts)
        self.accounts = set() if changes.only_these_accounts else self.accounts
        self.accounts.update(changes.accounts)
        self.facts = self.facts.changed_by(changes.facts)

    def _keys(self) -> set[StateKey]:
        return {*self.events, *self.memberships, *self.doubts}

    def _forget(self, key: StateKey) -> None:
        self.events.pop(key, None)
        self.memberships.pop(key, None)
        self.doubts.discard(key)


def refuse(status: int, errcode: str) -> HomeserverRefused:
    return HomeserverRefused(f"{status} {errcode}", status=status, errcode=errcode)


class Server:
    """A homeserver that keeps the state of rooms, and tells the mirror what happens in them.

    What happens waits in `queue` until it is delivered; what the mirror requests is noted in `asked`.
    """

    def __init__(self) -> None:
        self.state: dict[str, dict[tuple[str, str], Json]] = {}
        self.queue: list[Json] = []
        self.asked: list[str] = []
        self.users: list[str] = []
        self.is_admin = True
        self.mirror: Mirror | None = None
        self.mute = False
        self.content_only = False
        self.ping_code: str | None = None
        self.bot = HOME.bot
        self.before_answer: Callable[[str], None] | None = None
        """Called with the path of each GET, after it was answered and before the answer arrives."""
        self.counted = asyncio.Event()
        """Set when a counter was sent while the homeserver is mute."""
        self._events = 0
        self._transactions = 0

    # -- what happens ----------------------------------------------------------------------------------------

    def event(self, room_id: str, kind: str, key: str, content: Json, sender: str = HOME.bot) -> Json:
        """A state event that is accepted; it will be told."""
        self._events += 1
        event: Json = {
            "room_id": room_id,
            "type": kind,
            "state_key": key,
            "sender": sender,
            "content": content,
            "event_id": f"${self._events}",
            "origin_server_ts": 1000 + self._events,
        }
        state = self.state.setdefault(room_id, {})
        if (kind, key) in state:
            event["unsigned"] = {"replaces_state": state[kind, key]["event_id"]}
        state[kind, key] = event
        self.queue.append(event)
        return event

    def make(
        self, room_id: str, key: str | None = None, sender: str = HOME.bot, kind: str | None = None
    ) -> None:
        """A room, by default of the bot's; with the marker for `key`, and that type of room."""
        marked = {} if key is None else {MARKER_TYPE: {"version": 1, "instance": "aim", "key": key}}
        self._create(room_id, {**marked, **({"type": kind} if kind else {})}, sender)

    def _create(self, room_id: str, content: Mapping[str, object], sender: str = HOME.bot) -> None:
        self.event(room_id, "m.room.create", "", {"room_version": "12", **content}, sender)
        self.member(room_id, sender, "join")

    def member(self, room_id: str, user: str, membership: str, sender: str | None = None) -> Json:
        return self.event(room_id, "m.room.member", user, {"membership": membership}, sender or user)

    def redact(self, event: Json) -> None:
        """Takes the content out of a state event."""
        room_id, event_id = str(event["room_id"]), event["event_id"]
        for key, held in self.state[room_id].items():
            if held["event_id"] == event_id:
                self.state[room_id][key] = {**held, "content": {}}
        self.queue.append(
            {
                "room_id": room_id,
                "type": "m.room.redaction",
                "sender": HOME.bot,
                "event_id": f"$r{len(self.queue)}",
                "content": {"redacts": event_id},
            }
        )

    def invite_from(self, room_id: str, sender: str, *told: Json) -> Json:
        """The bot is invited into a room of another server, whose bot tells this of it."""
        self._events += 1
        member: Json = {
            "room_id": room_id,
            "type": "m.room.member",
            "state_key": HOME.bot,
            "sender": sender,
            "content": {"membership": "invite"},
            "event_id": f"${self._events}",
            "origin_server_ts": 1000 + self._events,
        }
        event: Json = {**member, "unsigned": {"invite_room_state": list(told)}}
        self.queue.append(event)
        return event

    async def deliver(self, *, txn_id: str | None = None) -> None:
        """One transaction of everything that waits."""
        assert self.mirror is not None
        self._transactions += 1
        events, self.queue = self.queue, []
        await self.mirror.take(txn_id or str(self._transactions), events)

    def truth(self, room_id: str, roster: Roster) -> Room | None:
        return parse.room(room_id, list(self.state[room_id].values()), HOME, roster)

    # -- what is asked ---------------------------------------------------------------------------------------

    async def get(
        self, path: PathBuilder, query: Mapping[str, str] | None = None, user_id: str | None = None
    ) -> object:
        name = unquote(str(path)).removeprefix("_matrix/client/v3/")
        self.asked.append(name)
        answer = self._answer(name, dict(query or {}), user_id)
        await asyncio.sleep(0)
        if self.before_answer is not None:
            self.before_answer(name)
            await asyncio.sleep(0)
        return answer

    def _answer(self, name: str, query: Mapping[str, str], user_id: str | None) -> object:
        match name.split("/"):
            case ["joined_rooms"]:
                return {"joined_rooms": [room_id for room_id in self.state if self._is_in(room_id)]}
            case ["capabilities"]:
                return {"capabilities": {"m.room_versions": {"default": "12", "available": {}}}}
            case ["account", "whoami"] if user_id is None:
                return {"user_id": self.bot}
            case ["account", "whoami"]:
                if user_id not in self.users:
                    raise refuse(403, "M_FORBIDDEN")
                return {"user_id": user_id}
            case ["rooms", room_id, "state"]:
                self._require(room_id)
                return list(self.state[room_id].values())
            case ["rooms", room_id, "state", kind, *key]:
                self._require(room_id)
                return self._key(room_id, kind, "/".join(key), whole="format" in query)
            case ["_matrix", _, _, "rooms", room_id, "hierarchy"]:
                self._require(room_id)
                return {"rooms": []}
            case ["_synapse", *_]:
                return self._users(query)
        raise AssertionError(name)

    def _is_in(self, room_id: str) -> bool:
        member = self.state[room_id].get(("m.room.member", HOME.bot), {"content": {}})
        return parse.mapping(member["content"]).get("membership") == "join"

    def _require(self, room_id: str) -> None:
        if room_id not in self.state or not self._is_in(room_id):
            raise refuse(403, "M_FORBIDDEN")

    def _key(self, room_id: str, kind: str, key: str, *, whole: bool) -> object:
        event = self.state[room_id].get((kind, key))
        if event is None:
            raise refuse(404, "M_NOT_FOUND")
        return event if whole and not self.content_only else event["content"]

    def _users(self, query: Mapping[str, str]) -> Json:
        if not self.is_admin:
            raise refuse(403, "M_FORBIDDEN")
        users = self.users[::-1] if query.get("order_by") == "creation_ts" else self.users
        start, size = int(query.get("from", 0)), int(query["limit"])
        page: Json = {"users": [{"name": user} for user in users[start : start + size]]}
        return {**page, "next_token": str(start + size)} if start + size < len(users) else page

    async def put(self, path: PathBuilder, body: Mapping[str, object], user_id: str | None = None) -> object:
        name = unquote(str(path)).removeprefix("_matrix/client/v3/")
        self.asked.append(f"PUT {name}")
        _, room_id, _, kind = name.split("/")
        self.event(room_id, kind, "", dict(body))
        if self.mute:
            self.counted.set()
        else:
            await self.deliver()
        return {}

    async def post(
        self, path: PathBuilder, body: Mapping[str, object], user_id: str | None = None, *, once: bool = False
    ) -> object:
        name = unquote(str(path))
        self.asked.append(f"POST {name}")
        if name.endswith("/ping"):
            if self.ping_code is not None:
                raise refuse(502, self.ping_code)
            return {"duration_ms": 1}
        self._create(CONTROL, parse.mapping(body["creation_content"]))
        return {"room_id": CONTROL}


class Setting:
    """A mirror, its store and its homeserver."""

    def __init__(
        self, server: Server | None = None, store: FakeMirrorStore | None = None, home: Home = HOME
    ) -> None:
        self.server = server or Server()
        self.store = store or FakeMirrorStore()
        self.roster = Roster()
        self.now = NOW
        self.changed: list[set[str]] = []
        self.differences: list[tuple[str, int]] = []
        self.ignored: list[tuple[str, str]] = []
        self.mirror = Mirror(
            self.server,
            home,
            self.roster,
            self.store,
            Accounts(ReadTransport(self.server.get), HOME.server_name),
            now=lambda: self.now,
            hooks=Hooks(
                on_change=lambda rooms: self.changed.append(set(rooms)),
                on_ignored=lambda inviter, why: self.ignored.append((inviter, str(why))),
                on_difference=lambda *found: self.differences.append(found),
            ),
        )
        self.server.mirror = self.mirror

    async def started(self) -> Setting:
        """Loaded, begun and complete; what it took to get there is forgotten."""
        await self.mirror.load()
        await self.mirror.begin("aim")
        await self.observe()
        self.forget()
        return self

    def forget(self) -> None:
        for told in (self.server.asked, self.changed, self.differences):
            told.clear()

    async def observe(self, *wanted: str, known: Mapping[str, str] | None = None) -> Observed:
        return await self.mirror.observe(self.roster, wanted, known or {})

    async def rooms(self) -> dict[str, Room]:
        """What it tells, by room id."""
        return {room.room_id: room for room in (await self.observe()).rooms.values()}

    async def is_true(self, *room_ids: str) -> bool:
        """True if it tells of these rooms what the homeserver has."""
        told = await self.rooms()
        return all(told.get(room_id) == self.server.truth(room_id, self.roster) for room_id in room_ids)

    def names(self, people: Iterable[int]) -> list[str]:
        return self.roster.localparts(people)


def key(room_id: str, kind: str, state_key: str = "") -> StateKey:
    return StateKey(room_id, kind, state_key)


def stamp(event_id: str, sent: int = 1) -> Stamp:
    return Stamp(event_id, sent)


HOUR = timedelta(hours=1)
