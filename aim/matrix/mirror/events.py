"""From an event as the homeserver sends it to what the mirror keeps of it. Pure, and never raises.

In: one decoded event, by a transaction or from `GET /rooms/{id}/state`: untrusted, perhaps no event at all.
Out: a row of the mirror, or None. What it means for a room is `apply`'s and `parse`'s to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aim.matrix import mxid
from aim.matrix.parse import CONFIGURABLE, Home, mapping
from aim.ports import Stamp, StateKey, StoredEvent, StoredMember
from aim.world.federation import EXPECTATIONS_TYPE
from aim.world.rooms import MARKER_TYPE

CREATE, MEMBER, REDACTION = "m.room.create", "m.room.member", "m.room.redaction"

SINGLE = frozenset({CREATE, "m.room.power_levels", "m.room.tombstone", *CONFIGURABLE})
"""Types of which only the event with an empty state key counts."""
BY_ROOM = frozenset({"m.space.child", "m.space.parent"})
"""Types whose state key is a room id."""

_LONGEST = 255
"""Signs of an id or a state key (Client-Server API, Size limits). More would not fit into an index."""
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StateEvent:
    """A state event of concern."""

    row: StoredEvent | StoredMember
    sender: str
    replaces: str | None = None
    """Id of the event that it replaced when it was accepted, as the homeserver says; None if it does not."""

    @property
    def key(self) -> StateKey:
        return self.row.key


def is_kept(kind: object, state_key: object, home: Home) -> bool:
    """True if the mirror keeps state of that type under that key."""
    if not isinstance(kind, str) or not isinstance(state_key, str):
        return False
    if kind == MEMBER or kind in BY_ROOM:
        return True
    if kind == EXPECTATIONS_TYPE:
        # Of others, who may set as many as they are, none has a meaning.
        return state_key == home.bot or state_key in home.peers
    return state_key == "" if kind in SINGLE else kind == MARKER_TYPE and state_key == home.bot


def understood(room_id: str, event: Mapping[str, object], home: Home) -> StateEvent | None:
    """What the mirror keeps of a state event of that room; None if it is of no concern, or malformed."""
    kind, state_key, sender = event.get("type"), event.get("state_key"), event.get("sender")
    content = event.get("content")
    if not isinstance(content, dict) or not is_kept(kind, state_key, home):
        return None
    texts = (room_id, state_key, sender, event.get("event_id", ""))
    if not all(map(is_plain, texts)):
        return None
    key, stamp = StateKey(room_id, str(kind), str(state_key)), _stamp(event)
    row: StoredEvent | StoredMember | None
    if kind == MEMBER:
        row = _member(key, stamp, content, own=sender == state_key)
    else:
        row = _other(key, stamp, content, str(sender))
    return None if row is None else StateEvent(row, str(sender), _replaces(event))


def _member(key: StateKey, stamp: Stamp, content: dict[str, object], *, own: bool) -> StoredMember | None:
    if mxid.split(key.state_key) is None:
        return None
    membership = content.get("membership")
    return StoredMember(key, stamp, str(membership) if is_plain(membership) else "", own)


def _other(key: StateKey, stamp: Stamp, content: dict[str, object], sender: str) -> StoredEvent | None:
    try:
        return StoredEvent(key, stamp, sender, json.dumps(content, separators=(",", ":")))
    except (ValueError, RecursionError):
        # A number of thousands of digits, or brackets in brackets without end.
        return None


def is_plain(text: object) -> bool:
    """True for a text that the database can hold, also as part of a key."""
    return (
        isinstance(text, str)
        and len(text) <= _LONGEST
        and (text.isascii() or _encodes(text))
        and "\0" not in text
    )


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stamp(event: Mapping[str, object]) -> Stamp:
    sent = event.get("origin_server_ts")
    if not isinstance(sent, int) or isinstance(sent, bool):
        sent = 0
    return Stamp(str(event.get("event_id", "")), max(-_MOST, min(_MOST, sent)))


def _replaces(event: Mapping[str, object]) -> str | None:
    found = mapping(event.get("unsigned")).get("replaces_state", event.get("replaces_state"))
    return found if isinstance(found, str) else None


def redacted(event: Mapping[str, object]) -> str | None:
    """The id of the event that an m.room.redaction takes the content of; None if it names none.

    Up to room version 10 it stands beside the content, from 11 on in it.
    """
    found = event.get("redacts", mapping(event.get("content")).get("redacts"))
    return str(found) if is_plain(found) else None


def rows_of(room_id: str, events: object, home: Home) -> Iterator[StoredEvent | StoredMember]:
    """What the mirror keeps of the whole state of a room. Of several events for one key the last counts."""
    found: dict[StateKey, StoredEvent | StoredMember] = {}
    for event in events if isinstance(events, list) else []:
        kept = understood(room_id, event, home) if isinstance(event, dict) else None
        if kept is not None:
            found[kept.key] = kept.row
    yield from found.values()


def content_of(row: StoredEvent) -> object:
    """The content, decoded again."""
    try:
        return json.loads(row.content)
    except RecursionError:
        # It was shallow enough where it came in, but only just. No content of use is nested like that.
        return {}


def as_event(row: StoredEvent) -> dict[str, object]:
    """The event again, as far as `parse` looks at it."""
    return {
        "type": row.key.type,
        "state_key": row.key.state_key,
        "sender": row.sender,
        "origin_server_ts": row.stamp.sent,
        "content": content_of(row),
    }
