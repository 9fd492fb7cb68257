"""Getting a room of people out of the way that one of ours replaces. Pure.

The new room itself, its people and its place in the spaces are planned by the diff, like those of any other.
Here: the old one is closed, pointing to the new one, and taken out of the spaces once the new one is in.
"""

from __future__ import annotations

from collections.abc import Iterator

from aim.desired.replacing import local_creators
from aim.desired.rooms import DesiredRoom
from aim.planner.actions import AddChild, AnyAction, CreateRoom, RemoveChild, SetRoomState, identity_of
from aim.planner.ranks import ranks_of
from aim.planner.world import World
from aim.world.rooms import Room

TOMBSTONE = "m.room.tombstone"
_BODY = "This room has been replaced"


def replaced(world: World) -> Iterator[AnyAction]:
    """All that is to be done about old rooms."""
    for desired in world.desired.rooms.values():
        if desired.replaces is not None:
            tombstone = _tombstone(world, desired, desired.replaces)
            if tombstone is not None:
                yield tombstone
            yield from _removals(world, desired, desired.replaces, tombstone)


def _tombstone(world: World, desired: DesiredRoom, old_id: str) -> SetRoomState | None:
    """None if the old room has one, or if nobody who could write it is in it any more."""
    old = _room(world, old_id)
    if old is None or old.replacement is not None:
        return None
    able = (local_creators(old, world.observed, world.roster) & old.joined) - world.desired.hands_off
    acting_as = min(map(world.mxid, able), default=None)
    if acting_as is None:
        return None
    made = desired.key in world.observed.rooms
    return SetRoomState(
        room=old.key,
        space=desired.space,
        room_id=old_id,
        event_type=TOMBSTONE,
        content={"body": _BODY, "replacement_room": desired.key},
        acting_as=acting_as,
        reason="who made it stands above every level; another room replaces it",
        after=() if made else (identity_of(CreateRoom.type, desired.key),),
    )


def _room(world: World, room_id: str) -> Room | None:
    found = world.observed.unmanaged.get(room_id)
    managed = (room for room in world.observed.rooms.values() if room.room_id == room_id)
    return found or next(managed, None)


def _removals(
    world: World, desired: DesiredRoom, old_id: str, tombstone: SetRoomState | None
) -> Iterator[RemoveChild]:
    new = world.observed.rooms.get(desired.key)
    before = [] if tombstone is None else [tombstone.identity]
    for key, space in world.observed.rooms.items():
        if key not in world.desired.rooms or not space.is_space or old_id not in space.children:
            continue
        if not ranks_of(space, world.observed, world.roster).can_set_levels:
            continue
        belongs = key in (desired.parent, *desired.also_in)
        is_in = new is not None and new.room_id in space.children
        added = () if is_in or not belongs else (identity_of(AddChild.type, key, desired.key),)
        yield RemoveChild(
            room=key,
            space=world.desired.rooms[key].space,
            room_id=space.room_id,
            child=old_id,
            child_id=old_id,
            is_ours=False,
            reason="another room replaces it",
            after=tuple(sorted((*before, *added))),
        )
