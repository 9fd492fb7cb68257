"""What stands against somebody's being where, or having the level, that the directory says. Pure.

In: a world, its plan, one person and one room. Out: the obstacles, in words, each with what it is and, where
it passes by itself, until when. The diff obeys all of them; here they are only told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from aim.desired.rooms import DesiredRoom
from aim.planner.actions import AnyAction
from aim.planner.control import inviter
from aim.planner.guards import ORGANISATION, Trip, kind_of
from aim.planner.plan import Plan
from aim.planner.ranks import ABOVE_ALL, Ranks, ranks_of
from aim.planner.render import held_by
from aim.planner.sizes import too_many_levels
from aim.planner.subjects import Person, PersonKind, Place
from aim.planner.wishes import ASK_AGAIN_MS, may_be_asked, newly_regained
from aim.planner.world import World
from aim.world.rooms import Room


class Against(StrEnum):
    """The kinds of obstacles, as the JSON of `aim explain` names them."""

    BOT = "bot"
    FOREIGN = "foreign"
    HANDS_OFF = "hands_off"
    LEAVING = "leaving"
    LEFT = "left"
    BANNED = "banned"
    PENDING = "pending"
    HELD = "held"
    ALLOWED_USERS = "allowed_users"
    SPARED = "spared"
    UNINVITED = "uninvited"
    OUT_OF_REACH = "out_of_reach"


@dataclass(frozen=True, slots=True)
class Obstacle:
    kind: Against
    text: str
    until: datetime | None = None
    """UTC; None if it does not pass by itself."""


def obstacles(
    world: World, plan: Plan, person: Person, place: Place, actions: Sequence[AnyAction]
) -> tuple[Obstacle, ...]:
    """All of them. `actions` are those of the plan on this person in this room."""
    if person.kind is PersonKind.FOREIGN and actions:
        # They are agents, or go with one.
        return tuple(_held(plan, actions))
    return (*_obstacles(world, plan, person, place), *_held(plan, actions))


def _obstacles(world: World, plan: Plan, person: Person, place: Place) -> Iterator[Obstacle]:
    if person.kind is PersonKind.BOT:
        yield Obstacle(Against.BOT, "the bot itself, never touched")
        return
    if person.kind is PersonKind.FOREIGN:
        yield Obstacle(Against.FOREIGN, "belongs to another server, never touched")
        return
    number, desired = person.number, place.desired
    if number is None or desired is None:
        return
    if number in world.desired.hands_off:
        yield from _hands_off(world, plan, person, number)
    if number in desired.members:
        yield from _staying_out(world, desired, place.room, number)
    elif number in desired.spared:
        text = "a group of this space is not found, so nobody of the directory is removed or demoted here"
        yield Obstacle(Against.SPARED, text)
    for pattern in world.allowed_users:
        if pattern.fullmatch(person.mxid):
            text = f"matches {pattern.pattern!r} of provisioner.allowed_users: never removed, never demoted"
            yield Obstacle(Against.ALLOWED_USERS, text)
            break
    if place.room is not None and not desired.only_invites:
        yield from _keeping_level(world, desired, place.room, number)


def _waiting(world: World, person: Person) -> str:
    """Of somebody who left, and stays where they are."""
    queue = world.recorded.queue.values()
    queued = next((each for each in queue if each.localpart == person.localpart), None)
    if queued is None:
        return "left the directory and is about to be locked: stays in the rooms until the account is erased"
    if queued.restored_by is not None:
        return f"left the directory and was restored by {queued.restored_by}: stays where they are"
    return "left the directory and waits in the queue: stays in the rooms until the account is erased"


def _hands_off(world: World, plan: Plan, person: Person, number: int) -> Iterator[Obstacle]:
    if number in world.desired.leaving.stays:
        yield Obstacle(Against.LEAVING, _waiting(world, person))
        return
    found = [problem.message for problem in plan.problems if problem.subject == person.mxid]
    otherwise = (
        "not touched in either direction, for it is not sure who that is: see the problems of `aim plan`"
    )
    for message in found or [otherwise]:
        yield Obstacle(Against.HANDS_OFF, message)


def _staying_out(world: World, desired: DesiredRoom, room: Room | None, number: int) -> Iterator[Obstacle]:
    """Why somebody who has the right to be there is not, or is not asked."""
    if room is not None and number in room.banned:
        yield Obstacle(Against.BANNED, "banned there, and stays so until somebody lifts the ban")
        return
    if room is not None and number in room.joined | room.invited:
        return
    has_account = number in world.observed.accounts
    if number not in world.reachable and (room is None or number not in room.left):
        if not world.desired.invite_before_login:
            yield Obstacle(Against.PENDING, "no account yet: asked in when it appears")
        return
    if room is None:
        return
    regained = newly_regained(world, desired)
    if not may_be_asked(world, desired, room, number, regained):
        yield _own_wish(room, number, has_account=has_account)
    if not desired.invites and number not in room.knocking:
        yield Obstacle(Against.UNINVITED, "may join by themselves: nobody is invited to this room")
    if desired.only_invites and inviter(world, desired, room) is None:
        yield Obstacle(Against.OUT_OF_REACH, "no member of our homeserver could invite them there")
    elif not (desired.only_invites or ranks_of(room, world.observed, world.roster).can_invite):
        yield Obstacle(Against.OUT_OF_REACH, "the bot's own power level does not let it invite there")


def _own_wish(room: Room, number: int, *, has_account: bool) -> Obstacle:
    left = datetime.fromtimestamp(room.left[number] / 1000, UTC)
    said = f"left by themselves at {left:%Y-%m-%dT%H:%MZ}"
    if not has_account:
        text = f"out since {left:%Y-%m-%dT%H:%MZ}, and the account is gone: asked again when it is back"
        return Obstacle(Against.PENDING, text)
    if not room.is_space:
        return Obstacle(Against.LEFT, f"{said}: not asked again until their entitlement changes")
    until = left + timedelta(milliseconds=ASK_AGAIN_MS)
    return Obstacle(Against.LEFT, f"{said}: asked again at {until:%Y-%m-%dT%H:%MZ}", until)


def _keeping_level(world: World, desired: DesiredRoom, room: Room, number: int) -> Iterator[Obstacle]:
    """Why a level that differs is not set."""
    was, level = room.power_levels.people.get(number, 0), wanted_level(desired, number)
    ranks = ranks_of(room, world.observed, world.roster)
    if ranks.of(number) == ABOVE_ALL and (number in room.joined or level):
        text = f"made the room: from version 12 on that stands above every level (it has {room.version})"
        yield Obstacle(Against.OUT_OF_REACH, text)
    elif was != level:
        yield from _out_of_reach(world, desired, room, number, ranks)


def _out_of_reach(
    world: World, desired: DesiredRoom, room: Room, number: int, ranks: Ranks
) -> Iterator[Obstacle]:
    was, level = room.power_levels.people.get(number, 0), wanted_level(desired, number)
    if not ranks.can_set_levels and desired.key in world.observed.rooms:
        yield Obstacle(Against.OUT_OF_REACH, "the bot's own power level does not let it set levels there")
    elif level > was and too_many_levels(world, desired):
        yield Obstacle(Against.OUT_OF_REACH, "more people would have a level than an event can hold")
    elif level < was and was >= ranks.bot and number not in room.joined:
        text = "has the bot's own level and is not in the room: lowered as soon as they come in"
        yield Obstacle(Against.OUT_OF_REACH, text)


def wanted_level(desired: DesiredRoom, number: int) -> int:
    """The level that the directory gives somebody in the room."""
    return next((level for level, people in desired.levels.items() if number in people), 0)


def _held(plan: Plan, actions: Sequence[AnyAction]) -> Iterator[Obstacle]:
    for action in actions:
        if not action.held:
            continue
        causes = [held_by(plan, trip) for trip in plan.trips if _concerns(plan, trip, action)]
        because = "; ".join(causes) or "a guard holds it"
        yield Obstacle(Against.HELD, f"{action.type} is held: {because}; `aim approve` lets it go")


def _concerns(plan: Plan, trip: Trip, action: AnyAction) -> bool:
    if trip.kind != kind_of(action):
        return False
    # A limit of any space holds all of that kind; the one of its own space says most.
    own = any(other.kind == trip.kind and other.scope == action.space for other in plan.trips)
    return trip.scope in {action.space, ORGANISATION} if own else True
