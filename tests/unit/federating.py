"""Two organisations on two homeservers that federate, each with an `aim` of its own, over one network.

Each homeserver has a copy of every room that somebody of it is in; what happens in one copy reaches the
others later, in its order. Two events for one key that did not know of each other are a conflict, and the
sender of the lower level wins it, as measured on real servers. Events are authorized by the rules of the
Matrix specification (Authorization rules, room version 12), as far as they are used here.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aim.config import Config
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix import parse
from aim.matrix.assemble import assemble
from aim.matrix.mirror.invited import invitation, within_bounds
from aim.matrix.parse import Home, mapping
from aim.matrix.unmanaged import Found
from aim.matrix.write import creation, merged_power_levels
from aim.planner.plan import Plan
from aim.ports import NewRoom, OutcomeStatus
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.reconciler import Cycle, Reconciler, Senses
from aim.world.federation import EXPECTATIONS_TYPE, server_of
from aim.world.rooms import Observed, Room
from tests.unit.fakes import Clock, FakeRecorder, Line
from tests.unit.worlds import a_directory

LEVELS, MEMBER, CREATE, RULES = "m.room.power_levels", "m.room.member", "m.room.create", "m.room.join_rules"
Json = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """A state event, and which one it replaced where it was made."""

    id: str
    room_id: str
    kind: str
    key: str
    sender: str
    content: Json
    sent: int
    before: str | None

    @property
    def json(self) -> Json:
        return {
            "room_id": self.room_id,
            "type": self.kind,
            "state_key": self.key,
            "sender": self.sender,
            "content": self.content,
            "event_id": self.id,
            "origin_server_ts": self.sent,
        }


State = dict[Key, Event]


def _refused(text: str) -> HomeserverRefused:
    return HomeserverRefused(text, status=403, errcode="M_FORBIDDEN")


class Network:
    """All homeservers, and what is on its way between them."""

    def __init__(self) -> None:
        self.servers: dict[str, Homeserver] = {}
        self.clock = Clock()
        self.waiting: dict[tuple[str, str], list[Event]] = defaultdict(list)
        """(from, to) → what was sent and has not arrived."""
        self._events = 0

    def number(self) -> int:
        self._events += 1
        return self._events

    def send(self, sender: Homeserver, event: Event, state: State) -> None:
        """To every other homeserver that somebody in the room is of."""
        present = {server_of(key) for (kind, key), held in state.items() if kind == MEMBER and _is_in(held)}
        for name in sorted(present - {sender.name}):
            if name in self.servers:
                self.waiting[sender.name, name].append(event)

    def deliver(self, sender: str, receiver: str, most: int | None = None) -> None:
        """The next so many events on that way."""
        way = self.waiting[sender, receiver]
        if self.servers[sender].is_away or self.servers[receiver].is_away:
            return
        count = len(way) if most is None else most
        for event in way[:count]:
            self.servers[receiver].receive(event)
        del way[:count]

    def deliver_all(self) -> None:
        while any(self.waiting.values()):
            before = sum(map(len, self.waiting.values()))
            for sender, receiver in list(self.waiting):
                self.deliver(sender, receiver)
            if sum(map(len, self.waiting.values())) == before:
                return

    def accept_invites(self) -> None:
        """All people who are invited, bots left out, come in."""
        for server in self.servers.values():
            for room_id, state in list(server.rooms.items()):
                for (kind, user), held in list(state.items()):
                    invited = kind == MEMBER and held.content["membership"] == "invite"
                    if invited and server_of(user) == server.name and user not in server.bots:
                        server.put(room_id, MEMBER, user, {"membership": "join"}, user)

    @property
    def is_one(self) -> bool:
        """Whether all copies of each room, of servers with people in it, agree."""
        for server in self.servers.values():
            for room_id, state in server.rooms.items():
                for other in self.servers.values():
                    copy = other.rooms.get(room_id)
                    if copy is None or not server.has_people(room_id) or not other.has_people(room_id):
                        continue
                    if {key: held.id for key, held in state.items()} != {k: h.id for k, h in copy.items()}:
                        return False
        return True


def _is_in(event: Event) -> bool:
    return event.content.get("membership") == "join"


class Homeserver:
    """One homeserver: its copies of rooms, and invites of its users into others."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.rooms: dict[str, State] = {}
        self.invites: dict[tuple[str, str], Json] = {}
        """(room id, invited user) → the event of the invite as the listener is sent it."""
        self.bots: set[str] = set()
        self.is_away = False
        network.servers[name] = self

    def has_people(self, room_id: str) -> bool:
        return any(
            kind == MEMBER and server_of(user) == self.name and _is_in(held)
            for (kind, user), held in self.rooms.get(room_id, {}).items()
        )

    def content(self, room_id: str, kind: str, key: str = "") -> Json:
        held = self.rooms[room_id].get((kind, key))
        return held.content if held else {}

    def membership(self, room_id: str, user: str) -> str | None:
        return self.content(room_id, MEMBER, user).get("membership")

    # -- what happens here -----------------------------------------------------------------------------------

    def create(self, creator: str, content: Json, state: Iterable[Json]) -> str:
        room_id = f"!{self.network.number()}"
        self.rooms[room_id] = {}
        self.put(room_id, CREATE, "", {**content, "room_version": "12"}, creator)
        self.put(room_id, MEMBER, creator, {"membership": "join"}, creator)
        for event in state:
            self.put(room_id, event["type"], event["state_key"], dict(event["content"]), creator)
        return room_id

    def put(self, room_id: str, kind: str, key: str, content: Json, sender: str) -> None:
        """Raises HomeserverRefused unless the authorization rules allow it."""
        state = self.rooms[room_id]
        held = state.get((kind, key))
        if held is not None and held.content == content:
            return
        Rules(state).check(kind, key, content, sender)
        number = self.network.number()
        sent = int(self.network.clock.time.timestamp() * 1000)
        event = Event(f"${number}", room_id, kind, key, sender, content, sent, held.id if held else None)
        # Whoever is removed hears of it, too.
        before = dict(state)
        state[kind, key] = event
        self.network.send(self, event, {**before, **state} if not _removes(event) else before)

    def receive(self, event: Event) -> None:
        """An event of another server."""
        state = self.rooms.get(event.room_id)
        if state is None:
            return
        held = state.get((event.kind, event.key))
        if held is None or held.id == event.before:
            state[event.kind, event.key] = event
        elif held.id != event.id:
            state[event.kind, event.key] = max(held, event, key=lambda one: _wins(state, one))

    def invite_over(self, room_id: str, user: str, sender: str) -> None:
        """Somebody of another server, which has to sign it."""
        other = self.network.servers.get(server_of(user))
        if self.is_away or other is None or other.is_away:
            raise HomeserverUnavailable("Can't connect to server")
        self.put(room_id, MEMBER, user, {"membership": "invite"}, sender)
        state = self.rooms[room_id]
        told = [state[key].json for key in ((CREATE, ""), (RULES, ""), ("m.room.name", "")) if key in state]
        other.invites[room_id, user] = {**state[MEMBER, user].json, "invite_room_state": told}

    def join_over(self, room_id: str, user: str, via: str) -> None:
        """By way of another server, if nobody of ours is in."""
        if not self.has_people(room_id):
            other = self.network.servers.get(via)
            if other is None or other.is_away or self.is_away:
                raise HomeserverUnavailable("Failed to make_join via any server")
            if room_id not in other.rooms:
                raise _refused("no such room")
            self.rooms[room_id] = dict(other.rooms[room_id])
            # What was on its way is part of that.
            way = self.network.waiting[via, self.name]
            way[:] = [event for event in way if event.room_id != room_id]
        self.put(room_id, MEMBER, user, {"membership": "join"}, user)
        self.invites.pop((room_id, user), None)


def _removes(event: Event) -> bool:
    return event.kind == MEMBER and event.content.get("membership") in {"leave", "ban"}


def _wins(state: State, event: Event) -> tuple[float, int, str]:
    return -Rules(state).rank(event.sender), event.sent, event.id


class Rules:
    """The authorization rules over the state of one room."""

    def __init__(self, state: State) -> None:
        self._state = state
        levels = state.get((LEVELS, ""))
        self._levels: Json = levels.content if levels else {}
        create = state.get((CREATE, ""))
        self._creator = create.sender if create else ""

    def rank(self, user: str) -> float:
        if user == self._creator:
            return math.inf
        return int(self._levels.get("users", {}).get(user, self._levels.get("users_default", 0)))

    def check(self, kind: str, key: str, content: Json, sender: str) -> None:
        if kind == CREATE or not self._creator:
            return
        if kind == MEMBER:
            self._check_member(key, content["membership"], sender)
            return
        if self._membership(sender) != "join":
            raise _refused(f"{sender} is not in the room")
        needed = self._levels.get("events", {}).get(kind, self._levels.get("state_default", 50))
        if self._levels and self.rank(sender) < needed:
            raise _refused(f"{sender} may not send {kind}")
        if key.startswith("@") and key != sender:
            raise _refused(f"{sender} may not send state of {key}")
        if kind == LEVELS and self._levels:
            self._check_levels(content, sender)

    def _membership(self, user: str) -> str | None:
        held = self._state.get((MEMBER, user))
        return held.content.get("membership") if held else None

    def _check_member(self, user: str, membership: str, sender: str) -> None:
        now = self._membership(user)
        if membership == "join":
            rules = self._state.get((RULES, ""))
            rule = rules.content.get("join_rule") if rules else "invite"
            if user != sender or not (user == self._creator or now in {"invite", "join"} or rule == "public"):
                raise _refused(f"{user} is not invited")
        elif membership == "invite":
            if self._membership(sender) != "join" or now in {"join", "ban"}:
                raise _refused(f"{user} can't be invited")
            if self.rank(sender) < self._levels.get("invite", 0):
                raise _refused(f"{sender} may not invite")
        elif user != sender and (
            self.rank(sender) < self._levels.get("kick", 50) or self.rank(sender) <= self.rank(user)
        ):
            raise _refused(f"{sender} may not remove {user}")

    def _check_levels(self, content: Json, sender: str) -> None:
        rank = self.rank(sender)
        before, after = self._levels.get("users", {}), content.get("users", {})
        for user in {*before, *after}:
            old, new = before.get(user, 0), after.get(user, 0)
            if old != new and (new > rank or (user != sender and old >= rank)):
                raise _refused(f"{sender} may not change the level of {user}")
        for part in ("events", ""):
            one, other = ((levels.get(part, {}) if part else levels) for levels in (self._levels, content))
            for name in {*one, *other} - {"users", "events", "notifications"}:
                if one.get(name) != other.get(name) and max(one.get(name, 0), other.get(name, 0)) > rank:
                    raise _refused(f"{sender} may not change what {name} takes")


# -- an organisation ---------------------------------------------------------------------------------------


@dataclass
class Party:
    """An organisation: its homeserver, its directory, its `aim` with a database."""

    homeserver: Homeserver
    people: list[str]
    groups: dict[str, list[str]] = field(default_factory=dict)
    spaces: list[Json] = field(default_factory=list)
    provisioner: Json = field(default_factory=dict)
    bot_name: str = "groupsync"
    roster: Roster = field(default_factory=Roster)

    def __post_init__(self) -> None:
        self.recorder = FakeRecorder(Line())
        self.homeserver.bots.add(self.bot)
        self.calls: list[tuple[str, ...]] = []
        """What the homeserver was asked to change."""

    @property
    def name(self) -> str:
        return self.homeserver.name

    @property
    def bot(self) -> str:
        return f"@{self.bot_name}:{self.homeserver.name}"

    def mxid(self, localpart: str) -> str:
        return f"@{localpart}:{self.name}"

    @property
    def config(self) -> Config:
        return Config.model_validate(
            {
                "homeserver": {"url": "http://localhost:8008", "server_name": self.name},
                "appservice": {"as_token": "as", "hs_token": "hs", "sender_localpart": self.bot_name},
                "source": {"type": "ldif", "path": "directory.ldif"},
                "provisioner": self.provisioner,
                **({"spaces": self.spaces} if self.spaces else {"spaces": [{"id": "own", "name": "Own"}]}),
            }
        )

    @property
    def home(self) -> Home:
        peers = self.config.provisioner.federation.federates_with
        return Home(self.name, self.bot, "aim", frozenset(peers))

    def observe(self) -> Observed:
        """What is on its homeserver."""
        return self._observed({key: room.room_id for key, room in self.recorder.recorded.rooms.items()})

    def _observed(self, known: Mapping[str, str]) -> Observed:
        rooms: list[Room] = []
        for room_id, state in self.homeserver.rooms.items():
            if self.homeserver.membership(room_id, self.bot) == "join":
                room = parse.room(room_id, [event.json for event in state.values()], self.home, self.roster)
                assert room is not None
                rooms.append(room)
        invites = (
            invitation(room_id, event, self.home)
            for (room_id, user), event in self.homeserver.invites.items()
            if user == self.bot
        )
        for one in within_bounds([one for one in invites if one is not None], rooms, self.home):
            if one.ignored is None:
                event = self.homeserver.invites[one.room_id, self.bot]
                told = [*event["invite_room_state"], event]
                room = parse.room(one.room_id, told, self.home, self.roster)
                assert room is not None
                rooms.append(room)
        return assemble(
            self.home,
            rooms,
            known,
            Found(),
            accounts=self.roster.people(self.people),
            default_room_version="12",
            kept=frozenset(known.values()),
        )

    @property
    def reconciler(self) -> Reconciler:
        clock = self.homeserver.network.clock.now
        senses = Senses(self.config, _Source(self), _Reader(self), self.recorder, clock, self.roster)
        tools = Tools(
            _Writer(self),
            self.recorder,
            clock,
            self.name,
            bot=self.bot,
            instance="aim",
            sleep=_no_time,
        )
        return Reconciler(senses, self.recorder, Provisioner(tools))

    def plan(self) -> Plan:
        return asyncio.run(self.reconciler.plan())

    def cycle(self) -> Cycle:
        return asyncio.run(self.reconciler.cycle(asyncio.Event()))

    def did(self) -> list[str]:
        """The identities of what a cycle did."""
        cycle = self.cycle()
        assert not cycle.failed, [f"{one.action.identity}: {one.message}" for one in cycle.failed]
        return [one.action.identity for one in cycle.outcomes if one.status is OutcomeStatus.DONE]

    def problems(self) -> str:
        return "\n".join(
            f"{problem.severity} {problem.subject}: {problem.message}" for problem in self.plan().problems
        )

    def room_of(self, key: str) -> str:
        """The id of a room that this one made."""
        return self.observe().rooms[key].room_id


async def _no_time(_: float) -> None:
    await asyncio.sleep(0)


class _Source:
    type = "ldif"

    def __init__(self, party: Party) -> None:
        self._party = party

    async def read(self, roster: Roster) -> Directory:
        return a_directory(self._party.people, self._party.groups, roster=roster)

    async def fingerprint(self) -> str:
        return ""


class _Reader:
    def __init__(self, party: Party) -> None:
        self._party = party

    async def observe(
        self,
        roster: Roster,
        wanted: Collection[str],
        known: Mapping[str, str],
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> Observed:
        return self._party._observed(known)


class _Writer:
    """HomeserverWriter over one homeserver, as its bot."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._server = party.homeserver

    def _note(self, *call: str) -> None:
        self._party.calls.append(call)

    async def create_room(self, room: NewRoom) -> str:
        self._note("create_room", room.key)
        body: Json = creation(room, "12", self._party.home)
        assert not [user for user in body["invite"] if server_of(user) != self._party.name], (
            "agents come later"
        )
        named = [{"type": "m.room.name", "state_key": "", "content": {"name": room.name}}]
        state = [event for event in body["initial_state"] if event["type"] != "m.room.name"]
        room_id = self._server.create(self._party.bot, body["creation_content"], [*named, *state])
        for user in room.invite:
            self._server.put(room_id, MEMBER, user, {"membership": "invite"}, self._party.bot)
        return room_id

    async def find_by_marker(self, key: str, ignoring: Collection[str]) -> str | None:
        return None

    async def invite(
        self, room_id: str, mxid: str, reason: str | None = None, acting_as: str | None = None
    ) -> None:
        self._note("invite", room_id, mxid)
        assert server_of(mxid) == self._party.name, f"{mxid} is of another server"
        self._server.put(room_id, MEMBER, mxid, {"membership": "invite"}, acting_as or self._party.bot)

    async def invite_agent(self, room_id: str, mxid: str) -> None:
        self._note("invite_agent", room_id, mxid)
        self._server.invite_over(room_id, mxid, self._party.bot)

    async def kick(self, room_id: str, mxid: str, reason: str) -> None:
        self._note("kick", room_id, mxid)
        self._server.put(room_id, MEMBER, mxid, {"membership": "leave"}, self._party.bot)

    async def join(self, room_id: str, mxid: str) -> None:
        self._note("join", room_id, mxid)
        self._server.put(room_id, MEMBER, mxid, {"membership": "join"}, mxid)

    async def leave(self, room_id: str, mxid: str | None = None, reason: str | None = None) -> None:
        user = mxid or self._party.bot
        self._note("leave", room_id, user)
        assert server_of(user) == self._party.name
        self._server.put(room_id, MEMBER, user, {"membership": "leave"}, user)

    async def accept(self, room_id: str, inviter: str) -> None:
        self._note("accept", room_id, inviter)
        self._server.join_over(room_id, self._party.bot, server_of(inviter))
        create = self._server.rooms[room_id][CREATE, ""].json
        found = parse.origin(create, self._party.home)
        if found is None or found.agent != inviter:
            await self.leave(room_id)
            raise _refused("it is not made by them")

    async def lower_own_level(self, room_id: str, mxid: str, level: int) -> None:
        self._note("lower_own_level", room_id, mxid)
        self._levels(room_id, None, {mxid: level}, mxid)

    async def take_control(self, room_id: str, acting_as: str | None, *, invites: bool) -> None:
        raise AssertionError("nothing is taken over here")

    async def put_state(
        self,
        room_id: str,
        event_type: str,
        state_key: str,
        content: Mapping[str, object],
        acting_as: str | None = None,
    ) -> None:
        self._note("put_state", room_id, event_type)
        self._server.put(room_id, event_type, state_key, dict(content), acting_as or self._party.bot)

    async def change_power_levels(
        self, room_id: str, base: Mapping[str, object] | None, levels: Mapping[str, int]
    ) -> None:
        self._note("change_power_levels", room_id, *sorted(levels))
        self._levels(room_id, base, levels, self._party.bot)

    def _levels(
        self, room_id: str, base: Mapping[str, object] | None, levels: Mapping[str, int], sender: str
    ) -> None:
        current = self._server.content(room_id, LEVELS)
        content = merged_power_levels(current, base, levels)
        if content != current:
            self._server.put(room_id, LEVELS, "", content, sender)


# -- Dallas and Berlin -------------------------------------------------------------------------------------

DALLAS, BERLIN = "dallas.example.com", "berlin.example.com"


@dataclass
class Story:
    """The two of the documentation's example."""

    network: Network
    dallas: Party
    berlin: Party

    def settle(self, rounds: int = 12) -> None:
        """Cycles of both, and everybody accepts, until nothing is left to do."""
        for _ in range(rounds):
            acted = [bool(party.did()) for party in (self.dallas, self.berlin)]
            waited = any(self.network.waiting.values())
            self.network.deliver_all()
            self.network.accept_invites()
            waited = waited or any(self.network.waiting.values())
            self.network.deliver_all()
            if not any(acted) and not waited:
                return
        raise AssertionError("it never comes to rest")

    @property
    def room_id(self) -> str:
        return self.dallas.room_of("shared")

    def members(self, membership: str = "join", *, at: Party | None = None) -> set[str]:
        """MXIDs in the shared space."""
        server = (at or self.dallas).homeserver
        return {
            user
            for (kind, user), held in server.rooms[self.room_id].items()
            if kind == MEMBER and held.content["membership"] == membership
        }

    def levels(self, *, at: Party | None = None) -> dict[str, int]:
        server = (at or self.dallas).homeserver
        return dict(mapping(server.content(self.room_id, LEVELS).get("users")))  # type: ignore[arg-type]  # JSON

    @property
    def expectations(self) -> Json:
        return self.dallas.homeserver.content(self.room_id, EXPECTATIONS_TYPE, self.dallas.bot)

    def pass_time(self, **time: float) -> None:
        self.network.clock.time += timedelta(**time)

    def federated_groups(self, *groups: Json) -> None:
        """What Dallas expects of others from now on."""
        self.dallas.spaces[0]["federatedGroups"] = list(groups)

    @property
    def everyone(self) -> Json:
        return {"externalId": "", "agent": self.berlin.bot}

    @property
    def managers(self) -> Json:
        return {"externalId": "berlin-managers", "powerLevel": 50, "agent": self.berlin.bot}


def a_story(
    dallas: str = DALLAS, berlin: str = BERLIN, *, change: Callable[[Story], None] = lambda _: None
) -> Story:
    """Before anybody has done anything."""
    network = Network()
    here = Party(Homeserver(network, dallas), ["alice", "bob", "cyril"], {"dallas-managers": ["alice"]})
    there = Party(Homeserver(network, berlin), ["dave", "eve", "francis"], {"berlin-managers": ["dave"]})
    story = Story(network, here, there)
    groups = [{"externalId": ""}, {"externalId": "dallas-managers", "powerLevel": 50}]
    here.spaces.append({"id": "shared", "name": "Federated space", "groups": groups})
    story.federated_groups(story.everyone, story.managers)
    here.provisioner["federation"] = {"federates_with": [there.bot]}
    there.provisioner["federation"] = {"federates_with": [here.bot]}
    change(story)
    return story


def settled(**more: Any) -> Story:
    """When all have come in."""
    story = a_story(**more)
    story.settle()
    return story
