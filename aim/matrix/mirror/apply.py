"""The copy of one room: events are applied to it one by one, and it tells the Room that they come to.

In: rows of the mirror, from `events` or from the store. Out: world.rooms.Room, the same that `parse.room`
makes of the whole state. No I/O. Members are bitmaps of numbers in the roster: a million memberships are a
few megabytes, and no event of a member is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pyroaring import BitMap

from aim.directory.roster import People, Roster
from aim.matrix import mxid, parse
from aim.matrix.mirror.events import CREATE, MEMBER, as_event
from aim.matrix.parse import Home
from aim.ports import MemberKind, MirroredRoom, Stamp, StateKey, StoredEvent, StoredMember, StoredMembers
from aim.world.rooms import Room


class Members:
    """Who is in a room, invited, knocking or banned, and who left by themselves."""

    __slots__ = ("_home", "_roster", "bot", "foreign", "left", "sets")

    def __init__(self, home: Home, roster: Roster) -> None:
        self._home = home
        self._roster = roster
        self.bot: str | None = None
        self.sets = {"join": BitMap(), "invite": BitMap(), "knock": BitMap(), "ban": BitMap()}
        self.left: dict[int, int] = {}
        self.foreign: dict[str, set[str]] = {"join": set(), "invite": set()}
        """Users of other servers."""

    @property
    def has_foreign(self) -> bool:
        return any(self.foreign.values())

    def put(self, user_id: str, membership: str, *, own: bool, sent: int) -> None:
        """This is their membership now; "" for none."""
        parts = mxid.split(user_id)
        if user_id == self._home.bot:
            self.bot = membership or None
        elif parts is None or parts[1] != self._home.server_name:
            for others in self.foreign.values():
                others.discard(user_id)
            if membership in self.foreign:
                self.foreign[membership].add(user_id)
        else:
            self._put_local(self._roster.number(parts[0]), membership, sent if own else None)

    def _put_local(self, number: int, membership: str, sent: int | None) -> None:
        """`sent`: when, if by themselves."""
        for people in self.sets.values():
            people.discard(number)
        self.left.pop(number, None)
        if membership in self.sets:
            self.sets[membership].add(number)
        elif membership == "leave" and sent is not None:
            self.left[number] = sent

    def forget(self, localpart: str) -> bool:
        """True if there was anything to forget."""
        number = self._roster.find(localpart)
        known = number is not None and (
            number in self.left or any(number in people for people in self.sets.values())
        )
        if number is not None and known:
            self._put_local(number, "", None)
        return known

    def is_same(self, other: Members) -> bool:
        """True if both tell the same of everybody."""
        return (self.bot, self.sets, self.left, self.foreign) == (
            other.bot,
            other.sets,
            other.left,
            other.foreign,
        )

    def put_all(self, group: StoredMembers) -> None:
        """Many at once, of whom nothing was known before."""
        if group.kind is MemberKind.BOT:
            self.bot = group.membership or None
        elif group.kind is MemberKind.FOREIGN:
            if group.membership in self.foreign:
                self.foreign[group.membership].update(group.names)
        elif group.membership in self.sets:
            self.sets[group.membership].update(self._roster.people(group.names))
        elif group.membership == "leave":
            self.left.update(zip(map(self._roster.number, group.names), group.sent, strict=True))

    def of(self, room: Room) -> Room:
        """`room` with these members, as they are now."""
        return replace(
            room,
            bot=self.bot,
            joined=People(self.sets["join"]),
            invited=People(self.sets["invite"]),
            knocking=People(self.sets["knock"]),
            banned=People(self.sets["ban"]),
            left=dict(self.left),
            foreign=frozenset(self.foreign["join"] | self.foreign["invite"]),
            foreign_invited=frozenset(self.foreign["invite"]),
        )


class RoomCopy:
    """Our copy of one room: state and members, and how far they can be believed."""

    __slots__ = (
        "_described",
        "_home",
        "_room",
        "_roster",
        "_state",
        "changes",
        "condition",
        "is_recorded",
        "members",
        "room_id",
    )

    def __init__(self, room_id: str, home: Home, roster: Roster, condition: MirroredRoom) -> None:
        self.room_id = room_id
        self._home = home
        self._roster = roster
        self._state: dict[StateKey, StoredEvent] = {}
        self._described: Room | None = None
        self._room: Room | None = None
        self.members = Members(home, roster)
        self.condition = condition
        self.is_recorded = False
        """True once the store knows of it."""
        self.changes = 0
        """Grows with whatever the homeserver tells of this room, believed or not."""

    def empty(self) -> RoomCopy:
        """A copy of the same room of which nothing is known."""
        return RoomCopy(self.room_id, self._home, self._roster, MirroredRoom(stale=True))

    @property
    def is_known(self) -> bool:
        """False if we only know that there is such a room."""
        return StateKey(self.room_id, CREATE, "") in self._state

    @property
    def is_managed(self) -> bool:
        """True if it carries our marker."""
        described = self._describe()
        return described is not None and described.marker is not None

    @property
    def agent(self) -> str | None:
        """MXID of the bot of another server that made it."""
        described = self._describe()
        return described.origin.agent if described is not None and described.origin is not None else None

    @property
    def is_federated(self) -> bool:
        """True if the `aim` of another server made it."""
        return self.agent is not None

    @property
    def is_invitation(self) -> bool:
        """True for a room of another server that the bot is only asked into: it can't be read."""
        return self.members.bot == "invite" and not self.condition.stale and self.is_federated

    @property
    def state(self) -> Sequence[StoredEvent]:
        """All but the memberships."""
        return tuple(self._state.values())

    def stamp(self, key: StateKey) -> Stamp | None:
        """Of a piece of state that is no membership; None if there is none."""
        found = self._state.get(key)
        return None if found is None else found.stamp

    def put(self, row: StoredEvent | StoredMember) -> None:
        """This is what stands under its key now."""
        self._room = None
        if isinstance(row, StoredMember):
            self.members.put(row.key.state_key, row.membership, own=row.own, sent=row.stamp.sent)
        else:
            self._state[row.key] = row
            self._described = None

    def put_members(self, group: StoredMembers) -> None:
        """Many members at once, of whom nothing was known before."""
        self._room = None
        self.members.put_all(group)

    def correct(self, rows: Iterable[StoredMember]) -> bool:
        """These are all members that there are. True if others were held."""
        members = Members(self._home, self._roster)
        for row in rows:
            members.put(row.key.state_key, row.membership, own=row.own, sent=row.stamp.sent)
        if members.is_same(self.members):
            return False
        self.members, self._room = members, None
        return True

    def remove(self, key: StateKey) -> None:
        """Nothing stands under this key any more."""
        self._room = None
        if key.type == MEMBER:
            self.members.put(key.state_key, "", own=False, sent=0)
        elif self._state.pop(key, None) is not None:
            self._described = None

    def forget(self, localpart: str) -> None:
        """Nothing is known of their membership any more."""
        if self.members.forget(localpart):
            self._room = None

    def room(self) -> Room | None:
        """As it is now; None while its create event is missing."""
        if self._room is None:
            described = self._describe()
            self._room = None if described is None else self.members.of(described)
        return self._room

    def _describe(self) -> Room | None:
        if self._described is None and self.is_known:
            events = [as_event(row) for row in self._state.values()]
            self._described = parse.described(self.room_id, events, self._home, self._roster)
        return self._described
