"""Letting go of what is no longer ours to manage: spaces that left the configuration, rooms that left our
spaces or were closed. Pure.

In: a world. Out: with `gc.enabled` the actions, otherwise problems that tell what they would be. Nothing is
let go of on the strength of a space that can't be seen, nor what can't be seen itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from aim.desired.levels import ADMIN, MODERATOR, has_privileged_creators
from aim.desired.mirrored import is_mirrored
from aim.desired.taken_over import PRIVATE, allowed, is_made_private, join_rule
from aim.directory.model import Problem, Severity
from aim.planner.actions import AbandonSpace, AnyAction, Kick, ReleaseRoom
from aim.planner.control import invite_level, space_called
from aim.planner.ranks import Ranks, above_us, needed_for, ranks_of
from aim.planner.world import World
from aim.world.rooms import Room

TOMBSTONE = "m.room.tombstone"
_FOR_GOOD = "an abandoned space can't be had back"


def cleanup(world: World) -> Iterator[AnyAction]:
    """Everybody out of the spaces that are given up, and the bot last; rooms left to themselves."""
    if not world.desired.cleans_up:
        return
    for key, room in _given_up(world):
        if room.is_space:
            yield from _abandon(world, key, room)
        else:
            release = _release(world, key, room)
            if release is not None:
                yield release


def cleanup_problems(world: World) -> Iterator[Problem]:
    """What would be let go of if that were switched on; rooms that the bot can't leave."""
    if not world.desired.cleans_up:
        yield from _closed_ones(world)
    for key, room in _given_up(world):
        if not world.desired.cleans_up:
            yield Problem(Severity.INFO, key, _would_be(world, room))
        elif not room.is_space and not _somebody_remains(world, room):
            yield Problem(
                Severity.WARNING,
                key,
                f"is released, but the bot stays in {room.room_id} without doing anything there: no member "
                "of our homeserver could let it in again; let somebody who is in it have the level to invite",
            )
        elif room.is_space and (immovable := _immovable(world, room)):
            yield Problem(
                Severity.WARNING,
                key,
                f"{', '.join(immovable)} can't be removed from {room.room_id}: they have the bot's own power "
                "level or more, and belong to another server",
            )


def _closed_ones(world: World) -> Iterator[Problem]:
    """Default rooms that people made private: while nothing is let go of, they stay ours."""
    for key, desired in world.desired.rooms.items():
        room, recorded = world.observed.rooms.get(key), world.recorded.rooms.get(key)
        if room is None or recorded is None or room.bot != "join" or not world.observed.sees(key):
            continue
        if is_made_private(room, desired, recorded.properties):
            text = (
                f"was made private; {room.room_id} stays managed all the same: with provisioner.gc.enabled "
                "it would be released, and its members would stay"
            )
            yield Problem(Severity.INFO, key, text)


def _would_be(world: World, room: Room) -> str:
    if room.is_space:
        return (
            f"is no longer configured; {room.room_id} is left as it is: with provisioner.gc.enabled "
            f"everybody would be removed from it, and {_FOR_GOOD}"
        )
    return (
        f"{_why_released(world, room)}; {room.room_id} is left as it is: with provisioner.gc.enabled it "
        "would be released, and its members would stay"
    )


def _given_up(world: World) -> Iterator[tuple[str, Room]]:
    """Managed spaces and rooms that should not be, sorted by key. Replaced ones stay as they are, and so does
    what is told as it was; what the bot has left is let go of."""
    blind = _is_blind(world)
    replaced = {desired.replaces for desired in world.desired.rooms.values()}
    for key, room in sorted({**world.observed.rooms, **_without_marker(world)}.items()):
        if key in world.desired.rooms or room.bot != "join" or room.room_id in replaced:
            continue
        if room.room_id in world.observed.unseen or room.origin is not None:
            continue
        if room.is_space or (room.replacement is None and not (blind and _may_be_elsewhere(room))):
            yield key, room


def _without_marker(world: World) -> dict[str, Room]:
    """Rooms of people that we took over and whose marker is gone: a release empties it before the bot leaves,
    and may be broken off between the two."""
    return {
        room.key: room
        for room in world.observed.unmanaged.values()
        if room.marker is None and not room.is_space and room.key in world.recorded.rooms
    }


def _is_blind(world: World) -> bool:
    """Whether a space of ours can't be seen: then nobody knows what is in it."""
    return any(
        desired.is_space
        and not world.observed.sees(key)
        and (key in world.recorded.rooms or key in world.observed.rooms)
        for key, desired in world.desired.rooms.items()
    )


def _may_be_elsewhere(room: Room) -> bool:
    """Whether a space that can't be seen may hold the room, with its consent."""
    return join_rule(room) not in PRIVATE


def _parents(world: World, room: Room) -> list[str]:
    """Keys of the spaces of ours that the room is a child of, those of the configuration first."""
    found = [
        key
        for key, space in world.observed.rooms.items()
        if space.is_space and room.room_id in space.children
    ]
    return sorted(found, key=lambda key: (key not in world.desired.rooms, key))


# -- spaces ------------------------------------------------------------------------------------------------


def _abandon(world: World, key: str, room: Room) -> Iterator[AnyAction]:
    gone = "unit is no longer in the directory" if is_mirrored(key) else "space is no longer configured"
    ranks = ranks_of(room, world.observed, world.roster)
    kicks = [*_local_kicks(world, key, room, ranks, gone), *_foreign_kicks(key, room, ranks, gone)]
    yield from kicks
    yield AbandonSpace(
        room=key,
        space=key,
        room_id=room.room_id,
        reason=f"{gone}; {_FOR_GOOD}",
        after=tuple(sorted(kick.identity for kick in kicks)),
    )


def _local_kicks(world: World, key: str, room: Room, ranks: Ranks, reason: str) -> Iterator[Kick]:
    """Whoever is in, invited or knocking, exempt people included: nobody is to be left with the space."""
    for person in room.joined | room.invited | room.knocking:
        yield Kick(
            room=key,
            space=key,
            room_id=room.room_id,
            person=world.mxid(person),
            reason=reason,
            as_themselves=not ranks.can_kick(person),
        )


def _foreign_kicks(key: str, room: Room, ranks: Ranks, reason: str) -> Iterator[Kick]:
    for mxid in sorted(room.foreign - above_us(room, ranks)):
        yield Kick(room=key, space=key, room_id=room.room_id, person=mxid, reason=reason)


def _immovable(world: World, room: Room) -> list[str]:
    return sorted(room.foreign & above_us(room, ranks_of(room, world.observed, world.roster)))


# -- rooms -------------------------------------------------------------------------------------------------


def _release(world: World, key: str, room: Room) -> ReleaseRoom | None:
    """None if there is nothing left to do but stay."""
    restore = _restored(world, room)
    leaves = _somebody_remains(world, room)
    tombstone = _tombstone_level(world, room)
    marked = room.marker is not None and room.marker.is_taken_over
    if not (restore or leaves or marked or tombstone is not None):
        return None
    return ReleaseRoom(
        room=key,
        space=next(iter(_parents(world, room)), key),
        room_id=room.room_id,
        restore=restore,
        tombstone_level=tombstone,
        leaves=leaves,
        reason=_why_released(world, room),
    )


def _why_released(world: World, room: Room) -> str:
    if join_rule(room) in PRIVATE:
        return "was made private"
    parents = _parents(world, room)
    if not parents:
        return "is in none of the spaces any more"
    if parents[0] not in world.desired.rooms:
        return f"its space {space_called(world, parents[0])} is no longer configured"
    if join_rule(room) == "public" or allowed(room):
        space = space_called(world, parents[0])
        return f"does not let the members of {space} in any more, or nobody vouches for it there"
    return "nobody can join it by themselves any more"


def _restored(world: World, room: Room) -> dict[str, int]:
    """Who made the room gets back the 100 that we took, as long as they are in it."""
    marker = room.marker
    if marker is None or marker.creator is None or (marker.creator_level or 0) < ADMIN:
        return {}
    ranks = ranks_of(room, world.observed, world.roster)
    if ranks.bot < ADMIN or has_privileged_creators(room.version):
        # It can't be given, or who made the room stands above every level all the time.
        return {}
    suffix = f":{world.observed.server_name}"
    local = marker.creator.endswith(suffix)
    person = world.roster.find(marker.creator[1:].removesuffix(suffix)) if local else None
    levels = room.power_levels
    if person is None:
        # We never touch those of other servers: there is nothing to give back.
        return {}
    inside = person in room.joined
    return {marker.creator: ADMIN} if inside and levels.people.get(person, 0) < ADMIN else {}


def _tombstone_level(world: World, room: Room) -> int | None:
    """In a room that we made, from version 12 on, nobody who stays could close it."""
    ours = world.observed.bot in room.creators and has_privileged_creators(room.version)
    return MODERATOR if ours and needed_for(room.power_levels, TOMBSTONE) > MODERATOR else None


def _somebody_remains(world: World, room: Room) -> bool:
    """Whether a local member could invite the bot again: acting as them it comes back."""
    ranks = ranks_of(room, world.observed, world.roster)
    least = invite_level(room)
    if least <= ADMIN and _restored(world, room):
        return True
    if ranks.levels.users_default >= least:
        return any(ranks.of(person) >= least for person in room.joined)
    named = (person for person in ranks.levels.people if person in room.joined)
    return any(ranks.of(person) >= least for person in (*named, *(ranks.creators & room.joined)))
