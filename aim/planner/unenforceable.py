"""Levels that can't be set as the directory gives them, however often it is tried: said once for each room.
Pure.

In: one room, desired and observed. Out: problems. The diff makes no action of what is told here.
"""

from __future__ import annotations

from collections.abc import Iterator

from aim.desired.levels import ADMIN
from aim.desired.rooms import DesiredRoom
from aim.directory.model import Problem, Severity
from aim.directory.roster import People
from aim.planner.ranks import Ranks, needed_for, ranks_of
from aim.planner.sizes import too_many_levels
from aim.planner.world import World
from aim.world.rooms import Room

POWER_LEVELS = "m.room.power_levels"
_NAMED = 5


def unenforceable(world: World, desired: DesiredRoom) -> Iterator[Problem]:
    """What of the levels of this room stays undone, and what would help."""
    if too_many_levels(world, desired):
        yield Problem(Severity.ERROR, desired.key, _too_many(desired))
    room = world.observed.rooms.get(desired.key)
    if room is None:
        return
    ranks = ranks_of(room, world.observed, world.roster)
    if room.bot == "join" and ranks.bot >= ADMIN and desired.peer is None and not ranks.can_set_levels:
        yield Problem(Severity.WARNING, desired.key, _out_of_reach(room, ranks))
        return
    if ranks.creators:
        creators = _not_exempt(world, desired, ranks.creators & room.joined & desired.members)
        wanted = desired.levels_by_person() if creators else {}
        above = People(person for person in creators if wanted.get(person, 0) < ADMIN)
        if above:
            yield Problem(
                Severity.WARNING,
                desired.key,
                f"made by {_named(world, above)}, who in room version {room.version} stands above every "
                "level and can't be demoted: memberships, and everybody else's level, follow the directory",
            )
    absent = _absent_above(world, desired, room, ranks)
    if absent:
        yield Problem(
            Severity.INFO,
            desired.key,
            f"{_named(world, absent)} has the bot's own power level and is not in the room: only they "
            "themselves can lower it, and that is done as soon as they come in",
        )


def _out_of_reach(room: Room, ranks: Ranks) -> str:
    needed = needed_for(room.power_levels, POWER_LEVELS)
    return (
        f"changing the power levels of {room.room_id} takes level {needed}, and the bot has {ranks.bot:.0f}: "
        "nobody's level and no other state follows here, memberships do as far as the bot can; let who made "
        f"the room, or somebody with level {needed}, set what {POWER_LEVELS} takes back to {ADMIN}"
    )


def _too_many(desired: DesiredRoom) -> str:
    groups = [grant.group for grant in desired.grants if grant.level]
    named = ", ".join(groups[:_NAMED]) + (" and others" if len(groups) > _NAMED else "")
    count = sum(map(len, desired.levels.values()))
    return (
        f"{named} would give {count} people a power level of their own, more than one event can hold: nobody "
        "gets a higher level here, members come in all the same; give the level to a smaller group"
    )


def _absent_above(world: World, desired: DesiredRoom, room: Room, ranks: Ranks) -> People:
    """People outside the room with a level that the bot can't lower, and that the directory does not give."""
    holders = room.power_levels.people
    may = ranks.can_set_levels if desired.peer is None else ranks.can_write_levels
    if not holders or not may or max(holders.values()) < ranks.bot:
        return People()
    wanted = desired.levels_by_person()
    above = (
        person
        for person, level in holders.items()
        if level >= ranks.bot and level > wanted.get(person, 0) and person not in room.joined
    )
    return _not_exempt(world, desired, People(above))


def _not_exempt(world: World, desired: DesiredRoom, people: People) -> People:
    people -= desired.spared | world.desired.hands_off
    return People(
        person
        for person in people
        if not any(pattern.fullmatch(world.mxid(person)) for pattern in world.allowed_users)
    )


def _named(world: World, people: People) -> str:
    names = [world.observed.mxid(name) for name in world.roster.localparts(people)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
