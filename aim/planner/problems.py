"""Problems that only the whole world shows: what could not, or must not, be done about a room. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from aim.desired.rooms import DesiredRoom
from aim.directory.model import Problem, Severity
from aim.directory.roster import NOBODY, People, union
from aim.planner.cleanup import cleanup_problems
from aim.planner.control import room_of
from aim.planner.world import World

_NAMED = 5


def world_problems(world: World) -> Iterator[Problem]:
    """Rooms that carry our marker and are not (only) what the configuration asks for; people who wait."""
    observed = world.observed
    yield from cleanup_problems(world)
    # Where the configuration names such a room, `desire` tells it.
    for room_id in _children(world).intersection(observed.unseen):
        text = f"is in one of the spaces, and can't be looked into: {observed.unseen[room_id]}"
        yield Problem(Severity.INFO, room_id, text)
    for key, room_ids in observed.duplicates.items():
        kept = observed.rooms[key].room_id if key in observed.rooms else "none"
        yield Problem(
            Severity.WARNING,
            key,
            f"has more than one room with its marker; {kept} is used, left alone: {', '.join(room_ids)}",
        )
    for key, room_id in observed.newer.items():
        yield Problem(
            Severity.ERROR,
            key,
            f"{room_id} was marked by a newer version of aim and is not touched; upgrade this one",
        )
    if world.recovering:
        yield Problem(
            Severity.WARNING,
            "recovery",
            "the database knows nothing of the rooms that exist, as after its loss: nothing is removed until "
            "a person approves a plan or no removal is due",
        )
    if world.filling:
        yield Problem(
            Severity.WARNING,
            "source",
            "is filled from outside, and nobody has said that all are in it: nothing is removed until "
            "`aim scim ready`",
        )
    yield from _waiting(world)


def _children(world: World) -> set[str]:
    """Ids of everything in our spaces."""
    if not world.observed.unseen:
        return set()
    return {child for room in world.observed.rooms.values() for child in room.children}


def pending(world: World) -> People:
    """Entitled people who are not invited because they have no account, and get none by this plan."""
    if world.desired.invite_before_login:
        return NOBODY
    # The members of a space at the top include those of all spaces below it.
    entitled = union(room.members for room in world.desired.rooms.values() if room.parent is None)
    return entitled - world.reachable - world.desired.hands_off


def _waiting(world: World) -> Iterator[Problem]:
    waiting = pending(world)
    if waiting:
        names = [world.observed.mxid(name) for name in world.roster.localparts(waiting)[:_NAMED]]
        more = f" and {len(waiting) - len(names)} more" if len(waiting) > len(names) else ""
        yield Problem(
            Severity.INFO,
            "pending",
            f"{len(waiting)} users have no account yet and are invited when it appears: "
            f"{', '.join(names)}{more}",
        )


def room_problems(world: World, desired: DesiredRoom) -> Iterator[Problem]:
    """What stands against this one room."""
    observed = world.observed.rooms.get(desired.key)
    if observed is None:
        recorded = world.recorded.rooms.get(desired.key)
        taken = room_of(world, desired) is not None
        lost = recorded is not None and desired.is_space and desired.key not in world.observed.newer
        if recorded is not None and lost and not taken:
            yield Problem(
                Severity.ERROR,
                desired.key,
                f"the space {recorded.room_id} can't be seen any more by {world.observed.bot}; no second "
                "one is made: invite the bot back, or give the space a new id in the configuration",
            )
        return
    if desired.encrypted is False and "m.room.encryption" in observed.state:
        yield Problem(
            Severity.WARNING,
            desired.key,
            "is encrypted, and encryption can't be taken back: `encrypted: false` has no effect",
        )
    if desired.room_version is not None and desired.room_version != observed.version:
        yield Problem(
            Severity.WARNING,
            desired.key,
            f"has room version {observed.version}, and a room's version can't change: "
            f"`room_version: {desired.room_version}` has no effect",
        )
    if observed.banned and (banned := observed.banned & desired.members):
        names = ", ".join(world.observed.mxid(name) for name in world.roster.localparts(banned))
        yield Problem(Severity.INFO, desired.key, f"entitled but banned, and stays so: {names}")
