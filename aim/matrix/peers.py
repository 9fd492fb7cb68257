"""How things stand with the servers that we share spaces with, by what the mirror has stored. For `check`.

In: the store of the mirror. Out: plain facts. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from aim.directory.roster import Roster
from aim.matrix.mirror.events import MEMBER
from aim.matrix.mirror.memory import Memory
from aim.matrix.parse import Home
from aim.ports import MirrorStore, StateKey
from aim.world.rooms import MARKER_VERSION, Room


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """One bot of another server."""

    bot: str
    joined: int
    """In so many of the rooms that we made."""
    invited: int
    """Asked into so many more of them, and has not come."""
    shared: int
    """So many rooms of theirs we are in."""
    asked_into: int
    """Into so many more we are asked."""
    last_seen: datetime | None
    """When it did something that still stands, by its server's clock. UTC."""
    newer: bool
    """It says something in a version that we do not understand."""
    silent: int
    """So many spaces of theirs in which it says nothing that can be understood of what it expects of us."""


async def peer_facts(store: MirrorStore, home: Home, peers: Collection[str]) -> list[PeerFacts]:
    """Of these bots, in their order. Raises StoreError."""
    memory = Memory(home, Roster())
    await memory.load(store)
    return [await _facts(store, memory, peer) for peer in peers]


async def _facts(store: MirrorStore, memory: Memory, peer: str) -> PeerFacts:
    rooms = memory.rooms()
    ours = [room for room in rooms if room.origin is None and room.marker is not None]
    theirs = [room for room in rooms if room.origin is not None and room.origin.agent == peer]
    said = [room.expectations for room in theirs if room.is_space and room.bot == "join"]
    invited = [room for room in ours if peer in room.foreign_invited]
    with_peer = [room for room in ours if peer in room.foreign]
    return PeerFacts(
        bot=peer,
        joined=len(with_peer) - len(invited),
        invited=len(invited),
        shared=sum(room.bot == "join" for room in theirs),
        asked_into=sum(room.bot == "invite" for room in theirs),
        last_seen=await _last_seen(store, memory, peer, [*with_peer, *theirs]),
        newer=any(one is not None and not one.is_understood for one in said)
        or any(room.origin is not None and room.origin.version > MARKER_VERSION for room in theirs),
        silent=sum(one is None for one in said),
    )


async def _last_seen(
    store: MirrorStore, memory: Memory, peer: str, rooms: Collection[Room]
) -> datetime | None:
    times: list[int] = []
    for room in rooms:
        copy = memory.copies[room.room_id]
        times += [row.stamp.sent for row in copy.state if row.sender == peer]
        members = await store.members_of(room.room_id)
        own = members.get(StateKey(room.room_id, MEMBER, peer))
        times += [own.stamp.sent] if own is not None and own.own else []
    try:
        return datetime.fromtimestamp(max(times) / 1000, UTC) if times else None
    except (ValueError, OverflowError, OSError):
        return None
