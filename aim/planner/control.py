"""Taking control: how the bot gets into a room that is to be ours, with level 100 and our marker. Pure.

In: a desired room, and the room as observed. Out: one `take_control`, or a problem if nobody of our
homeserver could let us in. Rooms that we made and manage have all of it from their creation. Of a room that
has not consented: who of its members could ask people in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aim.desired.levels import ADMIN, has_privileged_creators
from aim.desired.mirrored import is_mirrored
from aim.desired.rooms import DesiredRoom
from aim.desired.taken_over import NAME, join_rule
from aim.directory.model import Problem, Severity
from aim.directory.roster import People
from aim.planner.actions import TakeControl
from aim.planner.ranks import Ranks, needed_for, ranks_of
from aim.planner.world import World
from aim.world.rooms import Room


def room_of(world: World, desired: DesiredRoom) -> Room | None:
    """The room that it is: managed, or to be taken over; None if there is none, or none that can be seen."""
    found = world.observed.rooms.get(desired.key)
    return world.observed.unmanaged.get(desired.takes_over or "") if found is None else found


@dataclass(frozen=True, slots=True)
class _Need:
    """What the bot lacks in a room."""

    entry: bool
    level: bool
    marker: bool

    def __bool__(self) -> bool:
        return self.entry or self.level or self.marker


def _need(room: Room, ranks: Ranks) -> _Need:
    return _Need(entry=room.bot != "join", level=ranks.bot < ADMIN, marker=room.marker is None)


def take_control(world: World, desired: DesiredRoom, room: Room) -> TakeControl | None:
    """The action that makes this room ours; None if it is, or if nobody can hand it over."""
    ranks = ranks_of(room, world.observed, world.roster)
    need = _need(room, ranks)
    if not need or desired.only_invites or desired.peer is not None:
        return None
    acting_as = None
    if need.level or (need.entry and not _lets_us_in(room)):
        acting_as = _helper(world, desired, room, ranks, need)
        if acting_as is None:
            return None
    creator, level = _creator(world, room, ranks, need)
    return TakeControl(
        room=desired.key,
        space=desired.space,
        room_id=room.room_id,
        acting_as=acting_as,
        creator=creator,
        creator_level=level,
        invites=need.entry,
        reason=_reason(desired, room, need, space_called(world, desired.space)),
    )


def _lets_us_in(room: Room) -> bool:
    """Whether the bot can come in by itself."""
    return room.bot == "invite" or (room.bot != "ban" and join_rule(room) == "public")


def _helper(world: World, desired: DesiredRoom, room: Room, ranks: Ranks, need: _Need) -> str | None:
    """MXID of the local member who can do all that is needed: who made the room, else who put it into the
    space, else the first by name."""
    if need.entry and room.bot == "ban":
        return None
    least = max(
        invite_level(room) if need.entry else 0,
        max(ADMIN, needed_for(room.power_levels, "m.room.power_levels")) if need.level else 0,
    )
    able = _able(room, ranks, least) - world.desired.hands_off
    if not able:
        return None
    names = [world.mxid(person) for person in able]
    space = world.observed.rooms.get(desired.space)
    child = space.children.get(room.room_id) if space else None
    preferred = [*sorted(room.creators), *([child.sender] if child else ())]
    return next((name for name in preferred if name in names), min(names))


def inviter(world: World, desired: DesiredRoom, room: Room) -> str | None:
    """MXID of the local member of a room that is not ours who can ask people in: who put it into the space,
    else the highest level, else the first by name; None if nobody can."""
    ranks = ranks_of(room, world.observed, world.roster)
    able = _able(room, ranks, invite_level(room)) - world.desired.hands_off
    names = {world.mxid(person): ranks.of(person) for person in able}
    space = world.observed.rooms.get(desired.space)
    child = space.children.get(room.room_id) if space else None
    adder = child.sender if child else None
    return min(names, key=lambda name: (name != adder, -names[name], name), default=None)


def invite_level(room: Room) -> int:
    """What it takes to invite somebody (Client-Server API, m.room.power_levels)."""
    value = room.power_levels.base.get("invite", 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _able(room: Room, ranks: Ranks, least: int) -> People:
    """Local members of the room with that rank."""
    if ranks.levels.users_default >= least:
        return People(person for person in room.joined if ranks.of(person) >= least)
    named = room.joined & (People(ranks.levels.people) | ranks.creators)
    return People(person for person in named if ranks.of(person) >= least)


def _creator(world: World, room: Room, ranks: Ranks, need: _Need) -> tuple[str, int | None]:
    """Who made the room, and the level they have, or had before we took it."""
    if room.marker is not None and room.marker.creator is not None:
        return room.marker.creator, room.marker.creator_level
    suffix = f":{world.observed.server_name}"
    # Of several the protocol does not say which one made it: one of ours, whom we can give a level back.
    creator = min(room.creators, key=lambda mxid: (not mxid.endswith(suffix), mxid), default="")
    if has_privileged_creators(room.version) or creator == world.observed.bot:
        return creator, None
    if not need.level:
        # We were in control before and lost the marker: what they have now is what we left them.
        return creator, ADMIN
    return creator, _level_of(world, room, ranks, creator)


def _level_of(world: World, room: Room, ranks: Ranks, mxid: str) -> int:
    suffix = f":{world.observed.server_name}"
    person = world.roster.find(mxid[1:].removesuffix(suffix)) if mxid.endswith(suffix) else None
    if person is None:
        return room.power_levels.foreign.get(mxid, ranks.levels.users_default)
    return ranks.levels.people.get(person, ranks.levels.users_default)


def space_called(world: World, key: str) -> str:
    """What people know a space by: the name of a mirrored one, whose key nobody has chosen."""
    room = world.observed.rooms.get(key) if is_mirrored(key) else None
    name = room.state.get(NAME, {}).get("name") if room else None
    return " ".join(name.split()) if isinstance(name, str) and name.strip() else key


def _reason(desired: DesiredRoom, room: Room, need: _Need, space: str) -> str:
    if room.marker is not None and not need.entry:
        return "the bot has lost its power level here"
    if desired.is_space:
        return "the configuration names it as this space"
    if room.marker is not None:
        return f"is back in {space}, open to its members"
    if not need.entry and not need.level:
        return "its marker is missing"
    return f"belongs to {space}, open to its members"


def control_problems(world: World, desired: DesiredRoom) -> Iterator[Problem]:
    """That a room should be ours and nobody can hand it over; that one may only be joined."""
    room = room_of(world, desired)
    if room is None or desired.peer is not None:
        return
    if desired.only_invites:
        if inviter(world, desired, room) is not None:
            return
        text = (
            f"{_called(room)} may be joined by the members of {space_called(world, desired.space)}, but has "
            "not consented to being managed: it does not name that space as its m.space.parent, and nobody "
            "with level 100 there put it into it; it is left as it is, and nobody is invited, as no member "
            "of our homeserver in it could do that"
        )
        yield Problem(Severity.INFO, desired.key, text)
        return
    ranks = ranks_of(room, world.observed, world.roster)
    need = _need(room, ranks)
    if need and take_control(world, desired, room) is None:
        severity = Severity.ERROR if desired.is_space else Severity.WARNING
        yield Problem(severity, desired.key, f"{_called(room)} {_obstacle(world, room, need)}")


def _obstacle(world: World, room: Room, need: _Need) -> str:
    bot = world.observed.bot
    if need.entry and room.bot == "ban":
        return f"can't be managed: {bot} is banned from it; unban it there"
    if need.level:
        return (
            f"can't be managed: no member of our homeserver can give {bot} level 100 there; let somebody who "
            "has 100 do that"
        )
    return f"can't be managed: no member of our homeserver can invite {bot}; let somebody who can do that"


def _called(room: Room) -> str:
    name = room.state.get(NAME, {}).get("name")
    return f"{' '.join(name.split())} ({room.room_id})" if isinstance(name, str) and name else room.room_id
