"""Which of several rooms with our marker count. Pure; the same for a fresh reading and for the mirror."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aim.world.rooms import MARKER_VERSION, Room


@dataclass(frozen=True, slots=True)
class Managed:
    """Rooms sorted out by their markers."""

    rooms: Mapping[str, Room]
    """Key → the room that counts."""
    duplicates: Mapping[str, tuple[str, ...]]
    """Key → ids of the others that carry the same key."""
    newer: Mapping[str, str]
    """Key → id of a room whose marker is of a newer version than we know."""


def sort_out(rooms: Iterable[Room], known: Mapping[str, str]) -> Managed:
    """`known` is key → room id as recorded: it decides between two rooms with one key; without it the oldest
    counts. Rooms without our marker are left out, and so are those that we left and do not remember."""
    ours = frozenset(known.values())
    by_key: dict[str, list[Room]] = {}
    newer: dict[str, str] = {}
    for room in rooms:
        if room.marker is None or (room.bot == "leave" and room.room_id not in ours):
            continue
        if room.marker.version > MARKER_VERSION:
            newer[room.key] = room.room_id
        else:
            by_key.setdefault(room.key, []).append(room)
    chosen: dict[str, Room] = {}
    others: dict[str, tuple[str, ...]] = {}
    for key, same in sorted(by_key.items()):
        same.sort(key=lambda room: (room.room_id != known.get(room.key), room.created_ts, room.room_id))
        chosen[key] = same[0]
        if len(same) > 1:
            others[key] = tuple(sorted(room.room_id for room in same[1:]))
    return Managed(chosen, others, newer)
