"""Invites of our bot by users of other servers: which of them are of those that we share spaces with. Pure.

In: the event of an invite, with what its sender's server says of the room. Out: an Invitation, or why it is
ignored. What is said of the room is nobody's word but that server's: whoever joins looks at the room itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from aim.matrix import mxid
from aim.matrix.mirror.events import CREATE, MEMBER, is_plain, understood
from aim.matrix.parse import Home, mapping, membership_of, origin
from aim.ports import StoredEvent, StoredMember
from aim.world.rooms import Room

MOST = 100
"""So many rooms of one peer are shared at most, or asked into: more are memory that it has of us."""
MOST_OF_STRANGERS = 50
"""So many invites by others are remembered, in case that they are listed later. Nothing else tells of them:
the homeserver has no list of invites for the bot of an application service."""
MOST_OF_ONE = 5
"""So many of these by one of them."""
_TOLD = frozenset({CREATE, "m.room.name"})
"""What is kept of what comes with an invite."""


class Ignored(StrEnum):
    """Why an invite is ignored."""

    STRANGER = "stranger"
    NOT_THEIRS = "not_theirs"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invite of the bot by a user of another server."""

    room_id: str
    inviter: str
    rows: tuple[StoredEvent | StoredMember, ...]
    """What the mirror keeps of it, while the bot is not in; none of what is not even remembered."""
    ignored: Ignored | None = None


def is_about_us(event: Mapping[str, object], home: Home) -> bool:
    """Whether it tells the bot's own membership."""
    return event.get("type") == MEMBER and event.get("state_key") == home.bot


def invitation(room_id: str, event: Mapping[str, object], home: Home) -> Invitation | None:
    """None if it is no invite of the bot by somebody of another server."""
    sender = event.get("sender")
    parts = mxid.split(sender) if isinstance(sender, str) else None
    if not is_about_us(event, home) or membership_of(mapping(event.get("content"))) != "invite":
        return None
    if not isinstance(sender, str) or not is_plain(sender) or parts is None or parts[1] == home.server_name:
        return None
    is_stranger = sender not in home.peers
    told = _told(event)
    created = next((one for one in told if one.get("type") == CREATE), {})
    made_by = origin(created, home)
    if made_by is None or made_by.agent != sender:
        return Invitation(room_id, sender, (), Ignored.STRANGER if is_stranger else Ignored.NOT_THEIRS)
    found = (understood(room_id, one, home) for one in (*told, event))
    rows = tuple(one.row for one in found if one is not None)
    return Invitation(room_id, sender, rows, Ignored.STRANGER if is_stranger else None)


def _told(event: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The stripped state that comes with an invite: what the inviter's server says of the room (Client-Server
    API, Stripped state)."""
    state = event.get("invite_room_state", mapping(event.get("unsigned")).get("invite_room_state"))
    listed = state if isinstance(state, list) else []
    return [one for one in map(mapping, listed) if one.get("type") in _TOLD and one.get("state_key") == ""]


def within_bounds(invitations: Iterable[Invitation], rooms: Iterable[Room], home: Home) -> list[Invitation]:
    """The same, of each inviter, and of all strangers, only as many as there may be, `rooms` being those that
    we know."""
    held = Counter(room.origin.agent for room in rooms if room.origin is not None)
    strangers = sum(count for agent, count in held.items() if agent not in home.peers)
    judged = []
    for one in invitations:
        if one.ignored is None:
            fits = held[one.inviter] < MOST
            judged.append(one if fits else replace(one, rows=(), ignored=Ignored.TOO_MANY))
        else:
            fits = bool(one.rows) and strangers < MOST_OF_STRANGERS and held[one.inviter] < MOST_OF_ONE
            judged.append(one if fits else replace(one, rows=()))
            strangers += fits
        held[one.inviter] += fits
    return judged
