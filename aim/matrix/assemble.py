"""From rooms as they are known to what the planner gets. Pure; the same for a fresh reading and for a mirror.

Used by `observe` and by the mirror, which differ only in how they come by the rooms and the accounts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aim.directory.roster import People
from aim.matrix.parse import Home
from aim.matrix.unmanaged import Found
from aim.world.managed import sort_out
from aim.world.rooms import Observed, Room


def assemble(
    home: Home,
    rooms: Collection[Room],
    known: Mapping[str, str],
    others: Found,
    *,
    accounts: People,
    default_room_version: str,
    kept: Collection[str] = (),
) -> Observed:
    """`rooms` are all that we know ourselves, marked or not; `known` is key → room id as recorded; `others`
    is what was found around them; `kept` are ids of rooms that stay in sight if their marker is lost."""
    managed = sort_out(rooms, known)
    foreign = {room.room_id: room for room in rooms if room.origin is not None and room.marker is None}
    unmarked = {
        room.room_id: room
        for room in rooms
        if room.marker is None and room.room_id in kept and room.room_id not in foreign
    }
    shared = {
        room_id: room
        for room_id, room in foreign.items()
        if room.bot == "join"
        or (room.bot == "invite" and room.origin is not None and room.origin.agent in home.peers)
    }
    return Observed(
        rooms={**shared, **managed.rooms},
        accounts=accounts,
        duplicates=managed.duplicates,
        newer=managed.newer,
        server_name=home.server_name,
        bot=home.bot,
        default_room_version=default_room_version,
        unmanaged={**others.rooms, **unmarked},
        unseen=others.unseen,
        aliases=others.aliases,
    )
