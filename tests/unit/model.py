"""A homeserver of plain Python data: does what is asked as a real one would, in as few lines as that takes.

The simulator of `worlds` and the ports of `fakes` share it. It checks what it is given, with assertions: a
call that no careful caller makes is a failed test, not a refusal.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aim.desired.levels import has_privileged_creators
from aim.directory.roster import Roster
from aim.errors import HomeserverRefused
from aim.ports import NewRoom
from aim.world.rooms import MARKER_TYPE, MARKER_VERSION, Child, Marker, Observed, PowerLevels, Room

SERVER = "example.com"
BOT = "@aim:example.com"
INSTANCE = "aim"
LEVELS = "m.room.power_levels"
CHILD = "m.space.child"
PARENT = "m.space.parent"
RULES = "m.room.join_rules"
TOMBSTONE = "m.room.tombstone"
DEFAULTS = {"kick": 50, "invite": 0, "users_default": 0, "state_default": 50}
PRESENT = frozenset({"join", "invite"})
Content = dict[str, Any]


def mxid(localpart: str) -> str:
    """The full id of a local user."""
    return f"@{localpart}:{SERVER}"


def localpart(user: str) -> str:
    """The other way round."""
    name = user[1:].removesuffix(f":{SERVER}")
    assert mxid(name) == user, f"{user} is no local user"
    return name


@dataclass
class ModelRoom:
    """One room, with our marker as a rule."""

    room_id: str
    key: str
    """"" if it has no marker."""
    is_space: bool = True
    version: str = "12"
    created_ts: int = 0
    marker_version: int = MARKER_VERSION
    has_bot: bool = True
    """False: the bot was removed, and sees the room no more."""
    creator: str = BOT
    predecessor: str | None = None
    taken_over: tuple[str, int | None] | None = None
    """Creator and creator's level, as our marker in a room that people made tells them."""
    members: dict[str, str] = field(default_factory=dict)
    """MXID → membership."""
    left: dict[str, int] = field(default_factory=dict)
    """MXID → when they left by their own wish, in milliseconds."""
    state: dict[tuple[str, str], Content] = field(default_factory=dict)
    adders: dict[str, str] = field(default_factory=dict)
    """Room id of a child → MXID of who put it here, if it was not the bot."""

    def who(self, *memberships: str) -> set[str]:
        """MXIDs with one of these memberships."""
        return {user for user, membership in self.members.items() if membership in memberships}

    @property
    def levels(self) -> Content:
        return self.state.setdefault((LEVELS, ""), {})

    def rank(self, user: str) -> float:
        """Where somebody stands, by the authorization rules."""
        if has_privileged_creators(self.version):
            if user == self.creator:
                return math.inf
        elif (LEVELS, "") not in self.state or not self.levels:
            return 100 if user == self.creator else 0
        return int(self.levels.get("users", {}).get(user, self.needed("users_default")))

    def needed(self, what: str) -> int:
        """One of the levels that are not people's."""
        return int(self.levels.get(what, DEFAULTS[what]))

    def needed_to_send(self, kind: str) -> int:
        return int(self.levels.get("events", {}).get(kind, self.needed("state_default")))

    def admits(self, user: str, inside: Collection[str]) -> bool:
        """Whether somebody may join; `inside` are the rooms that they are in."""
        if self.members.get(user) in PRESENT:
            return True
        rules = self.state.get((RULES, ""), {})
        if rules.get("join_rule") == "public":
            return True
        allowed = {rule["room_id"] for rule in rules.get("allow", [])}
        return rules.get("join_rule") in {"restricted", "knock_restricted"} and bool(allowed & set(inside))

    def children(self) -> set[str]:
        """Ids of the rooms that this space names as its children."""
        return {key for (kind, key), content in self.state.items() if kind == CHILD and content.get("via")}


class ModelHomeserver:
    """All rooms of ours, and who has an account."""

    def __init__(self, accounts: Iterable[str] = (), default_version: str = "12") -> None:
        self.rooms: dict[str, ModelRoom] = {}
        self.accounts = set(accounts)
        self.default_version = default_version
        self._made = 0

    def add(self, room: ModelRoom) -> ModelRoom:
        self.rooms[room.room_id] = room
        return room

    def by_key(self, key: str) -> list[ModelRoom]:
        """Every room with this marker, the oldest first."""
        return sorted(
            (room for room in self.rooms.values() if room.key == key),
            key=lambda room: (room.created_ts, room.room_id),
        )

    # -- what a writer asks for ---------------------------------------------------------------------------

    def create_room(self, new: NewRoom) -> str:
        """`POST /createRoom`: all the state, then the invites."""
        assert len(new.invite) <= 50, "too many invites for one createRoom"
        assert len(set(new.invite)) == len(new.invite), "somebody is invited twice"
        assert "users" in new.power_levels, "power levels must be complete"
        assert BOT not in new.power_levels["users"], "the writer adds the bot, nobody else"  # type: ignore[operator] # object by its port
        self._made += 1
        room = ModelRoom(
            room_id=self._new_id(new.key),
            key=new.key,
            is_space=new.is_space,
            version=new.room_version or self.default_version,
            created_ts=10**12 + self._made,
            predecessor=new.predecessor,
        )
        room.state["m.room.name", ""] = {"name": new.name}
        for event in new.state:
            kind, key, content = event["type"], event["state_key"], event["content"]
            assert isinstance(kind, str)
            assert isinstance(key, str)
            assert isinstance(content, dict)
            self._check_ids(kind, key, content)
            room.state[kind, key] = content
        users = dict(new.power_levels["users"])  # type: ignore[call-overload] # object by its port
        if not has_privileged_creators(room.version):
            users[BOT] = 100
        room.state[LEVELS, ""] = {**new.power_levels, "users": users}
        for user in new.invite:
            localpart(user)
            room.members[user] = "invite"
        self.add(room)
        return room.room_id

    def invite(self, room_id: str, user: str, acting_as: str | None = None) -> None:
        """As the bot, or acting as somebody in a room that is not ours."""
        room = self._seen(room_id) if acting_as is None else self.rooms[room_id]
        localpart(user)
        assert user != BOT, "the bot is in its rooms"
        if acting_as is not None:
            localpart(acting_as)
            assert room.members.get(acting_as) == "join", f"{acting_as} is not in {room_id}"
        sender = acting_as or BOT
        assert room.rank(sender) >= room.needed("invite"), f"{sender} can't invite to {room_id}"
        membership = room.members.get(user)
        if membership == "ban":
            raise HomeserverRefused(f"{user} is banned from {room_id}", status=403, errcode="M_FORBIDDEN")
        if membership != "join":
            room.members[user] = "invite"
            room.left.pop(user, None)

    def kick(self, room_id: str, user: str) -> None:
        room = self._seen(room_id)
        assert user != BOT, "the bot never kicks itself"
        if not user.endswith(f":{SERVER}"):
            assert room.is_space, "others are removed only from a space that is given up"
            assert room.members.get(user) in PRESENT, f"{user} is not in {room_id}"
        if room.members.get(user) in PRESENT | {"knock"}:
            assert room.rank(BOT) > room.rank(user), f"the bot can't kick {user} from {room_id}"
            assert room.rank(BOT) >= room.needed("kick"), f"the bot can't kick from {room_id}"
            room.members[user] = "leave"

    def join_as(self, room_id: str, user: str) -> None:
        """Acting as them."""
        room = self.rooms[room_id]
        assert localpart(user) in self.accounts, f"{user} has no account to act as"
        inside = {id_ for id_, other in self.rooms.items() if other.members.get(user) == "join"}
        assert room.admits(user, inside), f"{user} is not let into {room_id}"
        room.members[user] = "join"
        room.left.pop(user, None)

    def leave_as(self, room_id: str, user: str, at: int) -> None:
        """Acting as them: what others see as their own wish."""
        room = self.rooms[room_id]
        if room.members.get(user) in PRESENT | {"knock"}:
            room.members[user] = "leave"
            room.left[user] = at

    def leave(self, room_id: str) -> None:
        """The bot itself."""
        self.rooms[room_id].has_bot = False

    def put_state(
        self, room_id: str, kind: str, key: str, content: Mapping[str, object], acting_as: str | None = None
    ) -> None:
        room = self._seen(room_id) if acting_as is None else self.rooms[room_id]
        sender = acting_as or BOT
        if acting_as is not None:
            assert room.members.get(acting_as) == "join", f"{acting_as} is not in {room_id}"
            assert kind == TOMBSTONE, "people are acted as to close their room, and nothing else"
            assert content["replacement_room"] in self.rooms
        assert kind != LEVELS, "power levels are changed by change_power_levels"
        assert room.rank(sender) >= room.needed_to_send(kind), f"{sender} can't send {kind} to {room_id}"
        self._check_ids(kind, key, content)
        if kind == MARKER_TYPE:
            assert key == BOT
            if room.creator != BOT:
                # In one that we made the create event has the say.
                room.key = str(content.get("key", ""))
                marker: Any = content
                room.taken_over = (marker["creator"], marker["creator_level"]) if marker else None
        else:
            room.state[kind, key] = dict(content)

    def change_power_levels(
        self, room_id: str, base: Mapping[str, object] | None, levels: Mapping[str, int]
    ) -> bool:
        """True if that made a difference."""
        self._seen(room_id)
        assert BOT not in levels, "the bot never changes its own level"
        return self._write_levels(room_id, BOT, base, levels)

    def lower_own_level(self, room_id: str, user: str, level: int) -> None:
        """Acting as them."""
        room = self.rooms[room_id]
        assert room.members.get(user) == "join", f"{user} is not in {room_id}"
        assert level < room.rank(user), "a level is lowered by themselves, never raised"
        self._write_levels(room_id, user, None, {user: level})

    def take_control(self, room_id: str, acting_as: str | None, *, invites: bool) -> None:
        room = self.rooms[room_id]
        if acting_as is None:
            room.has_bot = True
            return
        assert room.members.get(acting_as) == "join", f"{acting_as} is not in {room_id}"
        if invites:
            assert room.rank(acting_as) >= room.needed("invite"), f"{acting_as} can't invite to {room_id}"
            room.has_bot = True
        if room.rank(BOT) < 100:
            self._write_levels(room_id, acting_as, None, {BOT: 100})

    def _write_levels(
        self, room_id: str, sender: str, base: Mapping[str, object] | None, levels: Mapping[str, int]
    ) -> bool:
        """By the authorization rules for m.room.power_levels."""
        room = self.rooms[room_id]
        before = room.levels
        after = _merged(before, base or {})
        users = dict(before.get("users", {}))
        for user, level in levels.items():
            localpart(user)
            if level == after.get("users_default", 0):
                users.pop(user, None)
            else:
                users[user] = level
        after["users"] = users
        if after == before:
            return False
        self._check_levels(room, sender, before, after)
        room.state[LEVELS, ""] = after
        return True

    def _check_levels(self, room: ModelRoom, sender: str, before: Content, after: Content) -> None:
        rank = room.rank(sender)
        assert rank >= room.needed_to_send(LEVELS), f"{sender} can't change levels in {room.room_id}"
        old, new = before.get("users", {}), after["users"]
        if has_privileged_creators(room.version):
            assert room.creator not in new, "who made the room must not be named in its levels"
        for user in {*old, *new}:
            if old.get(user) != new.get(user):
                assert new.get(user, 0) <= rank, f"{sender} can't give {user} so much"
                assert user == sender or old.get(user, 0) < rank, f"{sender} can't change {user}"
        for part in ("events", ""):
            one, other = (levels.get(part, {}) if part else levels for levels in (before, after))
            for key in {*one, *other}:
                if key not in {"users", "events", "notifications"} and one.get(key) != other.get(key):
                    assert max(one.get(key, 0), other.get(key, 0)) <= rank, f"{sender} can't set {key}"

    def find_by_marker(self, key: str, ignoring: Collection[str]) -> str | None:
        found = [room for room in self.by_key(key) if room.has_bot and room.room_id not in ignoring]
        return found[0].room_id if found else None

    # -- what people do -----------------------------------------------------------------------------------

    def join(self, room_id: str, user: str) -> None:
        self.rooms[room_id].members[user] = "join"

    def accept_invites(self) -> None:
        """Everybody who has an account accepts."""
        for room in self.rooms.values():
            for user in room.who("invite"):
                if localpart(user) in self.accounts:
                    room.members[user] = "join"

    # -- what a reader sees -------------------------------------------------------------------------------

    def observe(self, roster: Roster, known: Mapping[str, str]) -> Observed:
        """Everything of ours that the bot is in. `known` decides between two rooms with one key."""
        rooms: dict[str, Room] = {}
        duplicates: dict[str, tuple[str, ...]] = {}
        newer: dict[str, str] = {}
        for key in sorted({room.key for room in self.rooms.values() if room.has_bot and room.key}):
            seen = [room for room in self.by_key(key) if room.has_bot]
            for room in seen:
                if room.marker_version > MARKER_VERSION:
                    newer[key] = room.room_id
            ours = [room for room in seen if room.marker_version <= MARKER_VERSION]
            ours.sort(key=lambda room: room.room_id != known.get(room.key))
            if ours:
                rooms[key] = _as_observed(ours[0], roster)
            if len(ours) > 1:
                duplicates[key] = tuple(sorted(room.room_id for room in ours[1:]))
        return Observed(
            rooms=rooms,
            accounts=roster.people(self.accounts),
            duplicates=duplicates,
            newer=newer,
            server_name=SERVER,
            bot=BOT,
            default_room_version=self.default_version,
            unmanaged={room.room_id: _as_observed(room, roster) for room in self._strangers()},
        )

    def _strangers(self) -> list[ModelRoom]:
        """What is in our spaces without being ours, or without us, as far as its doors are open."""
        ours = [room for room in self.rooms.values() if room.has_bot and room.key]
        children = {child for room in ours for child in room.children()}
        strangers = [self.rooms[room_id] for room_id in sorted(children & self.rooms.keys())]
        rules = {room.room_id: room.state.get((RULES, ""), {}).get("join_rule") for room in strangers}
        return [
            room
            for room in strangers
            if room not in ours
            and (room.has_bot or rules[room.room_id] in {"public", "restricted", "knock_restricted"})
        ]

    @classmethod
    def from_observed(cls, observed: Observed, roster: Roster) -> ModelHomeserver:
        """A homeserver that looks like this."""
        made = cls(roster.localparts(observed.accounts), observed.default_room_version)
        for key, room in observed.rooms.items():
            made.add(_from_observed(key, room, roster))
        for room in observed.unmanaged.values():
            added = made.add(_from_observed(room.marker.key if room.marker else "", room, roster))
            added.has_bot = room.bot == "join"
        for key, room_ids in observed.duplicates.items():
            for room_id in room_ids:
                made.add(ModelRoom(room_id, key, created_ts=10**13))
        for key, room_id in observed.newer.items():
            made.add(ModelRoom(room_id, key, marker_version=MARKER_VERSION + 1))
        return made

    def _seen(self, room_id: str) -> ModelRoom:
        room = self.rooms.get(room_id)
        assert room is not None, f"there is no room {room_id}"
        assert room.has_bot, f"the bot is not in {room_id}"
        assert room.marker_version <= MARKER_VERSION, f"{room_id} is marked by a newer version: hands off"
        return room

    def _new_id(self, key: str) -> str:
        number = 1
        while (room_id := f"!{key}~{number}:{SERVER}") in self.rooms:
            number += 1
        return room_id

    def _check_ids(self, kind: str, key: str, content: Mapping[str, object]) -> None:
        if kind in {CHILD, PARENT}:
            assert key in self.rooms, f"{kind} names {key}, which does not exist"
        allow = content.get("allow", [])
        assert isinstance(allow, list)
        for rule in allow:
            assert set(rule) == {"type", "room_id"}, f"not a rule of the Matrix specification: {rule}"
            assert rule["room_id"] in self.rooms, f"{kind} allows {rule['room_id']}, which does not exist"


def _merged(before: Content, change: Mapping[str, object]) -> Content:
    """Our keys changed, one level down too; the rest as it was."""
    after = dict(before)
    for key, value in change.items():
        mine = after.get(key)
        after[key] = {**mine, **value} if isinstance(mine, dict) and isinstance(value, Mapping) else value
    return after


def _as_observed(room: ModelRoom, roster: Roster) -> Room:
    local = {user: member for user, member in room.members.items() if user.endswith(f":{SERVER}")}
    people = {
        kind: roster.people(localpart(user) for user, membership in local.items() if membership == kind)
        for kind in ("join", "invite", "knock", "ban")
    }
    users: Mapping[str, int] = room.levels.get("users", {})
    return Room(
        room_id=room.room_id,
        marker=Marker(room.marker_version, INSTANCE, room.key, *(room.taken_over or ()))
        if room.key
        else None,
        bot="join" if room.has_bot else "leave",
        version=room.version,
        created_ts=room.created_ts,
        creators=frozenset({room.creator}),
        is_space=room.is_space,
        joined=people["join"],
        invited=people["invite"],
        knocking=people["knock"],
        banned=people["ban"],
        left={roster.number(localpart(user)): when for user, when in room.left.items()},
        foreign=frozenset(user for user in room.who(*PRESENT) if user not in local),
        power_levels=PowerLevels(
            people={
                roster.number(localpart(user)): level
                for user, level in users.items()
                if user.endswith(f":{SERVER}") and user != BOT
            },
            foreign={
                user: level for user, level in users.items() if not user.endswith(f":{SERVER}") or user == BOT
            },
            base={key: value for key, value in room.levels.items() if key != "users"},
        ),
        children={
            room_id: Child(
                room_id,
                room.state[CHILD, room_id].get("suggested") is True,
                sender=room.adders.get(room_id, BOT),
            )
            for room_id in room.children()
        },
        parents=frozenset(
            key for (kind, key), content in room.state.items() if kind == PARENT and content.get("via")
        ),
        predecessor=room.predecessor,
        replacement=room.state.get((TOMBSTONE, ""), {}).get("replacement_room"),
        state={
            kind: content
            for (kind, key), content in room.state.items()
            if not key and kind not in {LEVELS, TOMBSTONE}
        },
    )


def _from_observed(key: str, room: Room, roster: Roster) -> ModelRoom:
    made = ModelRoom(room.room_id, key, room.is_space, room.version, room.created_ts)
    [made.creator] = room.creators
    made.predecessor = room.predecessor
    if room.replacement is not None:
        made.state[TOMBSTONE, ""] = {"replacement_room": room.replacement}
    if room.marker is not None and room.marker.creator is not None:
        made.taken_over = (room.marker.creator, room.marker.creator_level)
    for membership, people in (
        ("join", room.joined),
        ("invite", room.invited),
        ("knock", room.knocking),
        ("ban", room.banned),
    ):
        made.members |= {mxid(name): membership for name in roster.localparts(people)}
    made.members |= dict.fromkeys(room.foreign, "join")
    made.left = {mxid(roster.localpart(number)): when for number, when in room.left.items()}
    users = {mxid(roster.localpart(number)): level for number, level in room.power_levels.people.items()}
    made.state[LEVELS, ""] = {**room.power_levels.base, "users": {**users, **room.power_levels.foreign}}
    for child in room.children.values():
        content: Content = {"via": [SERVER]}
        made.adders[child.room_id] = child.sender
        made.state[CHILD, child.room_id] = {**content, "suggested": True} if child.suggested else content
    made.state |= {(kind, ""): dict(content) for kind, content in room.state.items()}
    made.state |= {(PARENT, space): {"via": [SERVER]} for space in room.parents}
    assert made.who("ban") & made.who(*PRESENT) == set()
    return made
