"""Looks at rooms that are not ours: what people put into our spaces, and what `spaces[].room` names.

Called by `observe` and by the mirror. In: the managed rooms, as read. Out: Rooms without our marker, as far
as there is somebody to look through. Private rooms cost nothing but their space's one request: only what the
space's members can join is read, acting as whoever is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mautrix.api import Path, SynapseAdminPath

from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix import mxid, parse
from aim.matrix.parallel import each
from aim.matrix.parse import Home, mapping
from aim.matrix.rooms import joined
from aim.matrix.transport import PARALLELISM, Getter
from aim.world.rooms import Child, Room

JOINABLE = frozenset({"public", "restricted", "knock_restricted"})
SPACE = "m.space"
PAGE = 50
"""Rooms per page of a hierarchy: the most that Synapse gives."""
TRIES = 5
"""So many people are asked to look into one room."""
MODERATOR = 50


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the rooms that were looked for."""

    rooms: Mapping[str, Room] = field(default_factory=dict)
    """Room id → the room."""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """Room id or alias → why it can't be seen."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Alias → room id."""
    failed: frozenset[str] = frozenset()
    """What is unseen only because the homeserver failed: another time it may be seen."""

    def completed_by(self, last: Found) -> Found:
        """With what was found `last` in place of what failed this time."""
        aliases = {name: last.aliases[name] for name in self.failed & last.aliases.keys()}
        ids = self.failed.union(aliases.values()) - self.rooms.keys()
        rooms = {room_id: last.rooms[room_id] for room_id in ids & last.rooms.keys()}
        return replace(
            self,
            rooms={**rooms, **self.rooms},
            unseen={name: why for name, why in self.unseen.items() if name not in {*rooms, *aliases}},
            aliases={**aliases, **self.aliases},
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A room that is worth looking into, and as whom."""

    room_id: str
    people: tuple[str, ...]
    """MXIDs, the likeliest member first."""


class Unmanaged:
    """Reads rooms by GET requests only, as the bot or as local people."""

    def __init__(
        self,
        transport: Getter,
        home: Home,
        roster: Roster,
        *,
        admin: str | None = None,
        parallelism: int = PARALLELISM,
    ) -> None:
        """`admin`: MXID of an administrator to act as, where a room is named that nobody known is in."""
        self._transport = transport
        self._home = home
        self._roster = roster
        self._admin = admin
        self._parallelism = parallelism

    async def look(self, read: Collection[Room], wanted: Mapping[str, Sequence[str]] | None = None) -> Found:
        """What is in our spaces without being ours, and the rooms that are `wanted`.

        `read` are all rooms that the bot is in, marked or not. `wanted` is alias or room id → localparts of
        people who may be in it. A refusal concerns one room only, and so does a failure as long as the
        homeserver answers otherwise. Raises HomeserverUnavailable.
        """
        known = {room.room_id: room for room in read}
        failed: set[str] = set()
        names = [name for name in wanted or {} if name.startswith("#")]
        aliases, unseen = await self._resolve(names, failed)
        candidates: dict[str, _Candidate] = {}
        for name, people in (wanted or {}).items():
            room_id = name if name.startswith("!") else aliases.get(name)
            if room_id is not None and room_id not in known:
                acting = tuple(mxid.make(person, self._home.server_name) for person in people)
                candidates[room_id] = _Candidate(room_id, acting)
        asked_for = set(candidates)
        for candidate in await self._in_spaces(known, unseen, failed):
            candidates.setdefault(candidate.room_id, candidate)
        for candidate in self._replacements(known):
            candidates.setdefault(candidate.room_id, candidate)
        look = self._candidate(asked_for)

        async def look_into(candidate: _Candidate) -> Room | str:
            try:
                return await look(candidate)
            except HomeserverUnavailable as error:
                await self._require_answers()
                failed.add(candidate.room_id)
                return error.message

        found = await each(look_into, list(candidates.values()), self._parallelism)
        ours = [room for room in known.values() if room.marker is not None]
        near = {child for room in ours for child in room.children} | {room.replacement for room in ours}
        near |= {*aliases.values(), *(wanted or {})}
        of_people = {id_: room for id_, room in known.items() if (room.marker or room.origin) is None}
        rooms = {id_: room for id_, room in of_people.items() if id_ in near}
        for candidate, room in zip(candidates.values(), found, strict=True):
            if isinstance(room, Room):
                rooms[room.room_id] = room
            else:
                unseen[candidate.room_id] = room
        return Found(rooms, unseen, aliases, frozenset(failed))

    async def _require_answers(self) -> None:
        """Raises HomeserverUnavailable if the homeserver answers nothing else either."""
        await joined(self._transport)

    # -- names -----------------------------------------------------------------------------------------------

    async def _resolve(self, names: Sequence[str], failed: set[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Alias → room id (Client-Server API, `GET /directory/room/{alias}`); of the others, why not."""
        aliases: dict[str, str] = {}
        unseen: dict[str, str] = {}

        async def resolve(name: str) -> None:
            try:
                answer = mapping(await self._transport.get(Path.v3.directory.room[name]))
            except HomeserverRefused as refusal:
                unseen[name] = refusal.message
                return
            except HomeserverUnavailable as error:
                await self._require_answers()
                unseen[name] = error.message
                failed.add(name)
                return
            room_id = answer.get("room_id")
            if isinstance(room_id, str):
                aliases[name] = room_id
            else:
                unseen[name] = "the homeserver's answer names no room"

        await each(resolve, names, self._parallelism)
        return aliases, unseen

    # -- what is in our spaces -------------------------------------------------------------------------------

    async def _in_spaces(
        self, known: Mapping[str, Room], unseen: dict[str, str], failed: set[str]
    ) -> list[_Candidate]:
        """What the members of a space of ours could join there, and is not ours."""
        spaces = [
            room
            for room in known.values()
            if room.is_space and room.marker is not None and not known.keys() >= room.children.keys()
        ]

        async def strangers(space: Room) -> list[_Candidate]:
            others = {room_id: child for room_id, child in space.children.items() if room_id not in known}
            try:
                joinable = await self._joinable(space.room_id)
            except HomeserverRefused as refusal:
                unseen.update(dict.fromkeys(others, refusal.message))
                return []
            except HomeserverUnavailable as error:
                await self._require_answers()
                unseen.update(dict.fromkeys(others, error.message))
                failed.update(others)
                return []
            return [
                _Candidate(room_id, tuple(self._insiders(space, child)))
                for room_id, child in sorted(others.items())
                if room_id in joinable
            ]

        return [one for found in await each(strangers, spaces, self._parallelism) for one in found]

    async def _joinable(self, space_id: str) -> set[str]:
        """Ids of the rooms right below a space, no spaces, that let somebody in by themselves (Client-Server
        API, `GET /rooms/{id}/hierarchy`). What the bot may not see is private, or none of its business."""
        found: set[str] = set()
        query = {"max_depth": "1", "limit": str(PAGE)}
        pages: set[str] = set()
        while True:
            answer = mapping(await self._transport.get(Path.v1.rooms[space_id].hierarchy, query))
            rooms = answer.get("rooms")
            for room in map(mapping, rooms if isinstance(rooms, list) else ()):
                if room.get("room_type") != SPACE and room.get("join_rule") in JOINABLE:
                    found.add(str(room.get("room_id")))
            following = answer.get("next_batch")
            if not isinstance(following, str) or following in pages:
                return found
            pages.add(following)
            query = {**query, "from": following}

    def _insiders(self, space: Room, child: Child) -> Iterator[str]:
        """As whom to look into a child: who put it there, then the space's moderators, the highest first."""
        suffix = f":{self._home.server_name}"
        if child.sender.endswith(suffix) and child.sender != self._home.bot:
            yield child.sender
        levels = space.power_levels.people
        moderators = (person for person in levels if levels[person] >= MODERATOR and person in space.joined)
        for person in sorted(moderators, key=lambda one: (-levels[one], self._roster.localpart(one))):
            name = mxid.make(self._roster.localpart(person), self._home.server_name)
            if name != child.sender:
                yield name

    def _replacements(self, known: Mapping[str, Room]) -> Iterator[_Candidate]:
        """What people replaced a room of theirs with that we manage: its members may have moved there."""
        for room in known.values():
            theirs = room.marker is not None and room.marker.is_taken_over
            if theirs and room.replacement and room.replacement not in known:
                levels = room.power_levels.people
                people = sorted(
                    room.joined, key=lambda one: (-levels.get(one, 0), self._roster.localpart(one))
                )
                names = (mxid.make(self._roster.localpart(one), self._home.server_name) for one in people)
                creators = sorted(
                    creator
                    for creator in room.creators
                    if creator.endswith(f":{self._home.server_name}") and creator != self._home.bot
                )
                yield _Candidate(room.replacement, tuple(dict.fromkeys([*creators, *names]))[:TRIES])

    # -- one room --------------------------------------------------------------------------------------------

    def _candidate(self, asked_for: Collection[str]) -> _Look:
        return _Look(self._transport, self._home, self._roster, self._admin, frozenset(asked_for))


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks into one room after the other."""

    transport: Getter
    home: Home
    roster: Roster
    admin: str | None
    asked_for: frozenset[str]
    """Rooms that the configuration names: for these an administrator may be asked, too."""

    async def __call__(self, candidate: _Candidate) -> Room | str:
        """The room, or why it can't be seen."""
        named = candidate.room_id in self.asked_for
        for person in candidate.people if named else candidate.people[:TRIES]:
            try:
                events = await self.transport.get(Path.v3.rooms[candidate.room_id].state, user_id=person)
            except HomeserverRefused:
                continue
            return self._parsed(candidate.room_id, events)
        if named:
            try:
                events = await self._as_admin(candidate.room_id)
            except HomeserverRefused as refusal:
                return f"none of those who should have rights in it is in it, nor does {refusal.message}"
            return self._parsed(candidate.room_id, events)
        return "neither who put it there nor the space's moderators are in it"

    async def _as_admin(self, room_id: str) -> object:
        """The state as an administrator sees it (Synapse, `GET /_synapse/admin/v1/rooms/{id}/state`)."""
        path = SynapseAdminPath.v1.rooms[room_id].state
        return mapping(await self.transport.get(path, user_id=self.admin)).get("state")

    def _parsed(self, room_id: str, events: object) -> Room | str:
        room = parse.room(room_id, events, self.home, self.roster)
        return "the homeserver's answer is no state of a room" if room is None else room
