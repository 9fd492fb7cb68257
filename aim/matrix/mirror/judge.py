"""What of a transaction is believed, and what has to be asked about. Pure.

In: the events of concern, our copies, and what is stored of the memberships they touch. Out: MirrorChanges.
Events prompt, they are not the state: one that does not follow on what we hold, or comes from a room in which
servers have to agree on the state, makes its key a doubt, to be read from the homeserver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from aim.matrix import mxid
from aim.matrix.mirror.apply import RoomCopy
from aim.matrix.mirror.events import MEMBER, StateEvent
from aim.matrix.mirror.sift import Sifted
from aim.matrix.parse import Home
from aim.ports import (
    MirrorChanges,
    MirroredRoom,
    MirrorRecord,
    Stamp,
    StateKey,
    StoredEvent,
    StoredMember,
)


class Verdict(Enum):
    KNOWN = auto()
    BELIEVED = auto()
    DOUBTED = auto()


def verdict(event: StateEvent, held: Stamp | None, *, agreed_on: bool) -> Verdict:
    """How to take an event for a key under which we hold the event `held`.

    `agreed_on`: our homeserver alone decides on the state of that room.
    """
    if held is not None and event.row.stamp.event_id == held.event_id:
        return Verdict.KNOWN
    if not agreed_on:
        return Verdict.DOUBTED
    if event.replaces is not None:
        follows = held is not None and held.event_id == event.replaces
    else:
        follows = held is None or event.row.stamp.sent >= held.sent
    return Verdict.BELIEVED if follows else Verdict.DOUBTED


@dataclass(slots=True)
class _Draft:
    """The changes while they come together."""

    rows: dict[StateKey, StoredEvent | StoredMember] = field(default_factory=dict)
    doubts: set[StateKey] = field(default_factory=set)
    rooms: dict[str, MirroredRoom] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    federated: set[str] = field(default_factory=set)
    """Rooms that users of other servers came into, or were asked into, by these events."""
    ids: dict[str, StateKey] = field(default_factory=dict)
    """Event id → key, of what was believed."""


class Judge:
    """Judges one transaction."""

    def __init__(
        self,
        home: Home,
        copies: Mapping[str, RoomCopy],
        doubts: Mapping[StateKey, int],
        record: MirrorRecord,
        now: datetime,
    ) -> None:
        """`doubts`: keys that are in doubt already."""
        self._home = home
        self._copies = copies
        self._doubts = doubts
        self._record = record
        self._now = now
        self._draft = _Draft()
        self.early: set[StateKey] = set()
        """Invites of our people by users of other servers: told before they are in the state."""

    def judge(self, sifted: Sifted) -> MirrorChanges:
        """What the transaction changes; that the counter came back is a change, too."""
        draft = self._draft
        draft.rooms.update({room_id: MirroredRoom(verified_at=self._now) for room_id in sifted.born})
        for invited in sifted.invites.values():
            if invited.rows:
                draft.rooms[invited.room_id] = MirroredRoom(verified_at=self._now)
                draft.rows.update({row.key: row for row in invited.rows})
        draft.rooms.update({room_id: MirroredRoom(stale=True) for room_id in sifted.entered})
        for event in sifted.events:
            if not self._is_stale(event.key.room_id):
                self._take(event)
        draft.doubts.update(self._redacted(sifted.redactions))
        rows = [row for key, row in draft.rows.items() if key.room_id not in draft.dropped]
        return MirrorChanges(
            dropped=draft.dropped,
            rooms={room_id: room for room_id, room in draft.rooms.items() if room_id not in draft.dropped},
            events=[row for row in rows if isinstance(row, StoredEvent)],
            members=[row for row in rows if isinstance(row, StoredMember)],
            doubts={key for key in draft.doubts if key.room_id not in draft.dropped},
        )

    def _is_stale(self, room_id: str) -> bool:
        """True if all of the room is going to be read, whatever its events say."""
        room = self._draft.rooms.get(room_id)
        if room is not None:
            return room.stale
        copy = self._copies.get(room_id)
        return copy is not None and copy.condition.stale

    def _take(self, event: StateEvent) -> None:
        key, draft = event.key, self._draft
        copy = self._copies.get(key.room_id)
        if copy is not None and copy.is_invitation:
            # From outside nothing can be read; what comes of the invite itself is told to us alone.
            if key.type == MEMBER and key.state_key == self._home.bot:
                self._follow(event)
            return
        if copy is not None and self._is_asked_back(copy, event):
            # What we could read of the room stays as it was when we left: the event alone tells of it.
            self._follow(event)
            return
        agreed_on = not self._is_federated(event) and key not in self._doubts and key not in draft.doubts
        match verdict(event, self._held(key), agreed_on=agreed_on):
            case Verdict.DOUBTED:
                draft.doubts.add(key)
                if self._is_early(event):
                    self.early.add(key)
            case Verdict.BELIEVED:
                self._follow(event)
            case Verdict.KNOWN:
                pass

    def _is_asked_back(self, copy: RoomCopy, event: StateEvent) -> bool:
        """Whether it asks the bot into a room of another server that it was in before, and is out of."""
        is_invite = isinstance(event.row, StoredMember) and event.row.membership == "invite"
        if not is_invite or event.key.state_key != self._home.bot:
            return False
        is_doubted = event.key in self._doubts or event.key in self._draft.doubts
        return (copy.members.bot != "join" or is_doubted) and event.sender == copy.agent

    def _is_early(self, event: StateEvent) -> bool:
        is_invite = isinstance(event.row, StoredMember) and event.row.membership == "invite"
        return is_invite and self._is_foreign(event.sender) and not self._is_foreign(event.key.state_key)

    def _held(self, key: StateKey) -> Stamp | None:
        row = self._draft.rows.get(key)
        if row is not None:
            return row.stamp
        if key.type == MEMBER:
            return self._record.stamps.get(key)
        copy = self._copies.get(key.room_id)
        return None if copy is None else copy.stamp(key)

    def _follow(self, event: StateEvent) -> None:
        row, draft = event.row, self._draft
        if isinstance(row, StoredMember) and row.key.state_key == self._home.bot:
            self._moved(row)
        if isinstance(row, StoredMember) and self._is_foreign(row.key.state_key):
            draft.federated.add(row.key.room_id)
        draft.rows[row.key] = row
        draft.ids[row.stamp.event_id] = row.key

    def _moved(self, row: StoredMember) -> None:
        """The bot itself came or went."""
        room_id, copy = row.key.room_id, self._copies.get(row.key.room_id)
        before = self._bot_in(row.key, copy)
        if row.membership == "join" and before not in {None, "join"}:
            # Nobody told us what happened while we were away.
            self._draft.rooms[room_id] = MirroredRoom(stale=True)
        elif row.membership in {"leave", "ban"} and copy is not None and not copy.is_managed:
            self._draft.dropped.add(room_id)

    def _bot_in(self, key: StateKey, copy: RoomCopy | None) -> str | None:
        row = self._draft.rows.get(key)
        if isinstance(row, StoredMember):
            return row.membership
        return None if copy is None else copy.members.bot

    def _is_federated(self, event: StateEvent) -> bool:
        room_id = event.key.room_id
        copy = self._copies.get(room_id)
        return (
            room_id in self._draft.federated
            or self._is_foreign(event.sender)
            or (copy is not None and copy.members.has_foreign)
        )

    def _is_foreign(self, user_id: str) -> bool:
        parts = mxid.split(user_id)
        return parts is not None and parts[1] != self._home.server_name

    def _redacted(self, redactions: Iterable[tuple[str, str]]) -> set[StateKey]:
        found: set[StateKey] = set()
        for room_id, event_id in redactions:
            copy = self._copies.get(room_id)
            held = () if copy is None else copy.state
            found.update(row.key for row in held if row.stamp.event_id == event_id)
            if event_id in self._draft.ids:
                found.add(self._draft.ids[event_id])
        found.update(self._record.redacted)
        rooms = {room_id for room_id, _ in redactions}
        return {key for key in found if key.room_id in rooms and not self._is_stale(key.room_id)}
