"""Takes out of a transaction what concerns us. Pure, and never raises.

In: what the homeserver sent, decoded and untrusted. Out: the few events of concern, understood, in their
order. Most of a busy stream is messages: they are dropped by a look at two keys, before anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from aim.matrix import mxid
from aim.matrix.mirror.events import CREATE, MEMBER, REDACTION, StateEvent, is_plain, redacted, understood
from aim.matrix.mirror.invited import Invitation, invitation, is_about_us
from aim.matrix.parse import Home, mapping, marker, membership_of, taken_over_marker
from aim.world.rooms import MARKER_TYPE

CONTROL_TYPE = "aim.control"
"""Type of the state event that comes back through the stream, and what tells our control room apart."""

Event = Mapping[str, object]


@dataclass(slots=True)
class Sifted:
    """What a transaction says that concerns us."""

    events: list[StateEvent] = field(default_factory=list)
    """In the order in which they were sent."""
    redactions: list[tuple[str, str]] = field(default_factory=list)
    """Room id and id of the redacted event."""
    born: set[str] = field(default_factory=set)
    """Rooms of ours whose create event is among the events."""
    entered: set[str] = field(default_factory=set)
    """Rooms that we know nothing of, which the bot has joined or taken over."""
    invites: dict[str, Invitation] = field(default_factory=dict)
    """Room id → the invite of the bot by somebody of another server, into a room that we know nothing of."""
    control_rooms: set[str] = field(default_factory=set)
    """Rooms that our bot made for the counter."""
    names: dict[str, str | None] = field(default_factory=dict)
    """Localpart → display name, as the last join of one of our users says it."""
    counter: int = 0
    """The highest that came back; 0 for none."""
    malformed: int = 0
    """Events of concern that can't be understood."""

    def __bool__(self) -> bool:
        """False if nothing of it concerns us."""
        invited = any(one.rows for one in self.invites.values())
        return bool(self.events or self.redactions or self.entered or self.counter or invited)

    def rooms(self) -> set[str]:
        """Ids of the rooms that it tells something of."""
        return {event.key.room_id for event in self.events}.union(room_id for room_id, _ in self.redactions)


def is_control(create: Event, home: Home) -> bool:
    """True for the create event of a control room of ours."""
    content = mapping(mapping(create.get("content")).get(MARKER_TYPE))
    return (
        create.get("sender") == home.bot
        and content.get("instance") == home.instance
        and content.get("control") is True
    )


def counter_of(content: object) -> int:
    """The number in an event of the control room; 0 if there is none."""
    found = mapping(content).get("counter")
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**62 else 0


class Sift:
    """Knows what concerns us."""

    def __init__(
        self, home: Home, mirrored: Container[str], control_room: str | None, ignored: Container[str]
    ) -> None:
        """`mirrored`: ids of the rooms that we keep a copy of. `ignored`: other rooms that are our own."""
        self._home = home
        self._mirrored = mirrored
        self._control_room = control_room
        self._ignored = ignored

    def take(self, events: object) -> Sifted:
        """What of one transaction concerns us."""
        sifted = Sifted()
        for event in events if isinstance(events, list) else []:
            if not isinstance(event, dict):
                sifted.malformed += 1
            elif "state_key" in event:
                self._state_event(event, sifted)
            elif event.get("type") == REDACTION:
                self._redaction(event, sifted)
        return sifted

    def _state_event(self, event: Event, sifted: Sifted) -> None:
        room_id = event.get("room_id")
        if not isinstance(room_id, str) or not is_plain(room_id):
            sifted.malformed += 1
        elif room_id == self._control_room:
            self._of_the_control_room(event, sifted)
        elif room_id in self._mirrored or room_id in sifted.born:
            self._of_a_copy(room_id, event, sifted)
        elif room_id not in self._ignored and room_id not in sifted.control_rooms:
            self._of_a_stranger(room_id, event, sifted)

    def _of_the_control_room(self, event: Event, sifted: Sifted) -> None:
        is_counter = event.get("type") == CONTROL_TYPE and event.get("state_key") == ""
        if is_counter and event.get("sender") == self._home.bot:
            sifted.counter = max(sifted.counter, counter_of(event.get("content")))

    def _of_a_copy(self, room_id: str, event: Event, sifted: Sifted) -> None:
        found = understood(room_id, event, self._home)
        if found is not None:
            sifted.events.append(found)
            self._name(event, sifted)
        elif _is_malformed(event):
            sifted.malformed += 1

    def _name(self, event: Event, sifted: Sifted) -> None:
        """A profile has no events of its own: each room of its user tells of a change."""
        content = mapping(event.get("content"))
        if event.get("type") != MEMBER or membership_of(content) != "join":
            return
        parts = mxid.split(str(event.get("state_key")))
        if parts is not None and parts[1] == self._home.server_name:
            name = content.get("displayname")
            sifted.names[parts[0]] = name if isinstance(name, str) else None

    def _of_a_stranger(self, room_id: str, event: Event, sifted: Sifted) -> None:
        kind = event.get("type")
        if is_about_us(event, self._home):
            # Whatever came before in the same transaction, this is how it is now.
            sifted.invites.pop(room_id, None)
            invited = invitation(room_id, event, self._home)
            if invited is not None:
                sifted.invites[room_id] = invited
        if kind == CREATE and marker(event, self._home) is not None:
            found = understood(room_id, event, self._home)
            if found is not None:
                sifted.born.add(room_id)
                sifted.events.append(found)
        elif kind == CREATE and is_control(event, self._home):
            sifted.control_rooms.add(room_id)
        elif _is_entry(event, self._home) or (
            kind == MARKER_TYPE and taken_over_marker(event, self._home) is not None
        ):
            sifted.entered.add(room_id)

    def _redaction(self, event: Event, sifted: Sifted) -> None:
        room_id, target = event.get("room_id"), redacted(event)
        if not isinstance(room_id, str) or target is None:
            return
        if room_id in self._mirrored or room_id in sifted.born:
            sifted.redactions.append((room_id, target))


def _is_entry(event: Event, home: Home) -> bool:
    return (
        event.get("type") == MEMBER
        and event.get("state_key") == home.bot
        and membership_of(mapping(event.get("content"))) == "join"
    )


def _is_malformed(event: Event) -> bool:
    """True for what no homeserver sends; other types and keys are merely of no concern."""
    return not isinstance(event.get("content"), dict) or not all(
        is_plain(event.get(name)) for name in ("type", "state_key", "sender", "event_id")
    )


def digest(events: object) -> str:
    """Tells two transactions with one id apart: over the ids of their events."""
    ids = hashlib.sha256()
    for name in _ids(events):
        ids.update(name.encode("utf-8", "surrogatepass") + b"\n")
    return ids.hexdigest()


def _ids(events: object) -> Iterator[str]:
    for event in events if isinstance(events, list) else []:
        found = event.get("event_id") if isinstance(event, dict) else None
        yield found if isinstance(found, str) else ""


def plain_id(txn_id: str) -> str:
    """A transaction's id as the database can hold it."""
    if is_plain(txn_id):
        return txn_id
    return "sha256:" + hashlib.sha256(txn_id.encode("utf-8", "surrogatepass")).hexdigest()
