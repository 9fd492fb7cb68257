"""Rooms and spaces on the homeserver as we observe them. Plain frozen data, no Matrix library types.

Filled by `matrix.observe` from `GET /rooms/{id}/state` (Client-Server API, Room state); read by the planner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aim.directory.roster import NOBODY, People
from aim.world.accounts import KnownAccounts
from aim.world.federation import Expectations, Origin

MARKER_TYPE = "aim.managed"
"""Key of our marker in the `m.room.create` content of rooms that we make, and, in rooms that we took over,
type of the state event that holds it, keyed by our bot's MXID."""
MARKER_VERSION = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """What tells a room of ours: in the create event of one that we made, sent by our own bot, never
    redactable; in one that we took over, in a state event that only our bot can send."""

    version: int
    instance: str
    """`appservice.id`: two of us with different ids on one homeserver keep apart."""
    key: str
    """Our stable key of the room: the space id, `<space id>/<default room id>`, or the id of a room that
    people made and we took over."""
    creator: str | None = None
    """MXID of who made a room that we took over; None for one that we made."""
    creator_level: int | None = None
    """The level that the creator had before we took the room over; None above every level, or not known."""

    @property
    def is_taken_over(self) -> bool:
        return self.creator is not None


@dataclass(frozen=True, slots=True)
class PowerLevels:
    """The content of `m.room.power_levels`, people apart from the rest.

    Defaults are those of the Matrix specification for an event that exists.
    """

    people: Mapping[int, int] = field(default_factory=dict)
    """Roster number → level, for local users named in `users`."""
    foreign: Mapping[str, int] = field(default_factory=dict)
    """MXID → level, for everybody else named in `users`, and the bot."""
    base: Mapping[str, object] = field(default_factory=dict)
    """All other keys as they are: users_default, events, ban, kick, …"""

    @property
    def users_default(self) -> int:
        value = self.base.get("users_default", 0)
        return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class Child:
    """One `m.space.child` of a space."""

    room_id: str
    suggested: bool = False
    order: str | None = None
    sender: str = ""
    """MXID of who added it."""


@dataclass(frozen=True, slots=True)
class Room:
    """One room or space, as observed. Membership sets hold local users, the bot left out."""

    room_id: str
    marker: Marker | None
    """None: not managed, but a child of a managed space, or asked for by `spaces[].room`."""
    version: str
    created_ts: int
    """`origin_server_ts` of the create event, milliseconds since the epoch, as the server says."""
    creators: frozenset[str] = frozenset()
    """MXIDs: the sender of the create event and the `additional_creators`. From room version 12 on they stand
    above every level."""
    bot: str | None = "join"
    """Our own membership; None if we never were there."""
    is_space: bool = False
    joined: People = NOBODY
    invited: People = NOBODY
    knocking: People = NOBODY
    banned: People = NOBODY
    left: Mapping[int, int] = field(default_factory=dict)
    """Who left, declined an invite or withdrew a knock themselves → `origin_server_ts`, milliseconds."""
    foreign: frozenset[str] = frozenset()
    """MXIDs of users of other servers who are joined or invited: never touched."""
    foreign_invited: frozenset[str] = frozenset()
    """Those of `foreign` who are only invited."""
    power_levels: PowerLevels = field(default_factory=PowerLevels)
    children: Mapping[str, Child] = field(default_factory=dict)
    """By room id; only children with a non-empty `via` (Client-Server API, m.space.child)."""
    parents: frozenset[str] = frozenset()
    """Room ids of the spaces that its m.space.parent events name, with a non-empty `via`."""
    predecessor: str | None = None
    """Room id of the room that this one replaces, as its create event says."""
    replacement: str | None = None
    """Room id that its m.room.tombstone names; "" if that names none."""
    state: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Content of the state events with an empty key that a configuration can set: m.room.name,
    m.room.topic, m.room.avatar, m.room.join_rules, m.room.history_visibility, m.room.encryption."""
    origin: Origin | None = None
    """The `aim` of another server that made it: there we look after our own people, and nothing else."""
    expectations: Expectations | None = None
    """What whoever made the room expects of others in it; None if they say nothing, or nothing that can be
    understood."""

    @property
    def key(self) -> str:
        """Our stable key of a managed room; the room id of another."""
        return self.marker.key if self.marker else self.room_id


@dataclass(frozen=True, slots=True)
class Observed:
    """How the homeserver is."""

    rooms: Mapping[str, Room]
    """Our stable key → the room. If two rooms carry one key, the recorded or else the oldest one. By their
    room ids also those that the `aim` of another server made and let us into, or asked us into."""
    accounts: People
    """Local users who have an account that can take an invite."""
    duplicates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Key → room ids of further rooms with the same marker: left alone, reported."""
    newer: Mapping[str, str] = field(default_factory=dict)
    """Key → room id of rooms whose marker is of a newer version than we know: hands off."""
    server_name: str = ""
    bot: str = ""
    """Our own MXID."""
    default_room_version: str = ""
    """What the homeserver makes when no version is asked for."""
    unmanaged: Mapping[str, Room] = field(default_factory=dict)
    """Room id → rooms and spaces without our marker, or that we left, and were asked to look at (children of
    managed spaces, `spaces[].room`), as far as they can be seen."""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """Room id, or alias, → why such a room can't be seen, in words. One that is among `rooms` all the same is
    told there as it was when it was seen last."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Alias → room id, of those that `spaces[].room` names and that exist."""
    known_accounts: KnownAccounts | None = None
    """What is known of people's accounts; None where the configuration asks for nothing of them."""

    @property
    def has_rooms(self) -> bool:
        """Whether there is any room that we made, took over or came into; to be asked in is not enough."""
        return any(room.origin is None or room.bot != "invite" for room in self.rooms.values())

    @property
    def federated(self) -> Mapping[str, Room]:
        """Room id → those of `rooms` that the `aim` of another server made."""
        return {room.room_id: room for room in self.rooms.values() if room.origin is not None}

    def mxid(self, localpart: str) -> str:
        """The full Matrix user id of somebody of our homeserver."""
        return f"@{localpart}:{self.server_name}"

    def localpart(self, mxid: str) -> str:
        """Of a user of our homeserver."""
        return mxid[1:].removesuffix(f":{self.server_name}")

    def sees(self, key: str) -> bool:
        """Whether that managed room is told as it is: not one of `unseen`, of which an old copy is told."""
        room = self.rooms.get(key)
        return room is not None and room.room_id not in self.unseen
