"""How one person stands to one room: in or not, with which level, by what right, and what will be done. Pure.

In: a world, its plan and what the audit knows. Out: frozen `Standing` values, for `explain` to put together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aim.desired.rooms import DesiredRoom, Grant
from aim.planner.actions import AnyAction, PersonAction
from aim.planner.against import Obstacle, obstacles, wanted_level
from aim.planner.plan import Plan
from aim.planner.ranks import ABOVE_ALL, ranks_of
from aim.planner.reasons import Reasons
from aim.planner.subjects import Person, PersonKind, Place
from aim.planner.world import World
from aim.world.audit import Audit, Happened
from aim.world.federation import server_of
from aim.world.rooms import Room


@dataclass(frozen=True, slots=True)
class Through:
    """One way to a right: the space whose group somebody is in, and the level that gives in the room asked
    about (0 where the group is one of a subspace)."""

    space: str
    group: str
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One person in one room. Times in UTC."""

    person: str
    """MXID."""
    room: str
    """Our key."""
    named: str
    """What people know the room by."""
    membership: str | None
    """As Matrix says it: join, invite, knock, ban; leave: by themselves. None: out, or never there."""
    left_at: datetime | None
    """When they left by themselves, by the homeserver's clock."""
    entitled: bool | None
    """None where the directory does not rule: rooms that are not managed, users of other servers, the bot."""
    reason: str
    """Why they have the right to be there, or have not."""
    through: tuple[Through, ...]
    since: datetime | None
    """When they gained the right, or, without one, lost it; None if that is not recorded."""
    level: int | None
    """As observed; None: above every level, or there is no room."""
    above_all: bool
    wanted_level: int | None
    level_reason: str
    last: Happened | None
    against: tuple[Obstacle, ...]
    next: tuple[AnyAction, ...]
    """What the plan has for them there, held or not."""

    @property
    def state(self) -> str:
        """In a word or a few."""
        named = {"invite": "invited", "knock": "knocking", "ban": "banned", "leave": "left"}
        if self.membership == "join":
            return "in without a right" if self.entitled is False else "in"
        return named.get(self.membership or "", "missing" if self.entitled else "out")


class Standings:
    """Answers for one world and one audit."""

    def __init__(self, world: World, plan: Plan, audit: Audit) -> None:
        self._world, self._plan, self._audit = world, plan, audit
        self._reasons = Reasons(world)
        self._actions: dict[tuple[str, str], list[AnyAction]] = defaultdict(list)
        for action in plan.actions:
            if isinstance(action, PersonAction):
                self._actions[action.room, action.person].append(action)

    def of(self, person: Person, place: Place) -> Standing:
        """How the person stands to the room."""
        actions = tuple(self._actions.get((place.key, person.mxid), ()))
        entitled = self._entitled(person, place)
        room, desired, number = place.room, place.desired, person.number
        left = room.left.get(number) if room and number is not None else None
        wanted = (
            wanted_level(desired, number) if desired and entitled is not None and number is not None else None
        )
        level, above_all = self._level(person, room)
        return Standing(
            person=person.mxid,
            room=place.key,
            named=_shown(self._plan.named(place.key), place),
            membership=_membership(person, room),
            left_at=datetime.fromtimestamp(left / 1000, UTC) if left is not None else None,
            entitled=entitled,
            reason=self._reason(person, place, entitled, actions),
            through=tuple(_through(self._world, desired, number)) if desired and number is not None else (),
            since=self._since(person, place, entitled),
            level=level,
            above_all=above_all,
            wanted_level=wanted,
            level_reason=self._reasons.level(desired, number, wanted)
            if desired is not None and number is not None and wanted is not None
            else "",
            last=self._audit.last.get((place.key, person.mxid)),
            against=obstacles(self._world, self._plan, person, place, actions),
            next=actions,
        )

    def _entitled(self, person: Person, place: Place) -> bool | None:
        if place.desired is None or person.kind is not PersonKind.LOCAL:
            return None
        return person.number is not None and person.number in place.desired.members

    def _reason(
        self, person: Person, place: Place, entitled: bool | None, actions: tuple[AnyAction, ...]
    ) -> str:
        desired, number = place.desired, person.number
        if desired is not None and number is not None and entitled is not None:
            return (
                self._reasons.entitled(desired, number) if entitled else self._reasons.lost(desired, number)
            )
        if person.kind is PersonKind.FOREIGN and not actions:
            return _of_another_server(person.mxid, desired)
        if person.kind is PersonKind.BOT:
            return "the directory says nothing about them"
        return next((action.reason for action in actions), "this room does not follow the directory")

    def _since(self, person: Person, place: Place, entitled: bool | None) -> datetime | None:
        known = self._audit.entitlements.get((place.key, person.localpart))
        if known is None or entitled is None:
            return None
        if not entitled:
            return known.lapsed_at
        # Recorded as entitled no more: it is back since, and that is not recorded yet.
        return (known.regained_at or known.since) if known.lapsed_at is None else None

    def _level(self, person: Person, room: Room | None) -> tuple[int | None, bool]:
        """The level observed; whether they stand above every level instead."""
        if room is None:
            return None, False
        ranks = ranks_of(room, self._world.observed, self._world.roster)
        rank: float
        if person.kind is PersonKind.BOT:
            rank = ranks.bot
        elif person.number is None:
            rank = room.power_levels.foreign.get(person.mxid, room.power_levels.users_default)
        else:
            rank = ranks.of(person.number)
        return (None, True) if rank == ABOVE_ALL else (int(rank), False)


def _of_another_server(mxid: str, desired: DesiredRoom | None) -> str:
    """Why somebody of another server is there: where spaces are shared, their own `aim` looks after that."""
    agents = desired.agents if desired is not None else {}
    if mxid in agents:
        return f"the agent for the people of {server_of(mxid)} here, as configured"
    theirs = sorted(agent for agent in agents if server_of(agent) == server_of(mxid))
    if desired is not None and desired.peer is not None:
        theirs = [desired.peer] if server_of(desired.peer) == server_of(mxid) else []
    return f"looked after by {theirs[0]}" if theirs else "the directory says nothing about them"


def _membership(person: Person, room: Room | None) -> str | None:
    if room is None:
        return None
    if person.kind is PersonKind.BOT:
        return room.bot
    if person.number is None:
        if person.mxid in room.foreign_invited:
            return "invite"
        return "join" if person.mxid in room.foreign else None
    sets = {"join": room.joined, "invite": room.invited, "knock": room.knocking, "ban": room.banned}
    found = next((name for name, people in sets.items() if person.number in people), None)
    return found or ("leave" if person.number in room.left else None)


def _shown(named: str, place: Place) -> str:
    """`Engineering (engineering)`; the key alone if the name says no more."""
    if place.name in {named, place.key}:
        return named
    return f"{place.name} ({named})"


def _through(world: World, desired: DesiredRoom, number: int) -> Iterator[Through]:
    """Every way to the right: groups of the space itself, then those of its subspaces."""
    for grant in desired.grants:
        if number in grant.people:
            yield Through(_space_of(world, desired, grant), grant.group, grant.level)
    for key in desired.subspaces:
        subspace = world.desired.rooms[key]
        if number in subspace.members:
            for way in _through(world, subspace, number):
                yield replace(way, level=0)


def _space_of(world: World, desired: DesiredRoom, grant: Grant) -> str:
    """The space that a grant is one of: a room that people made may have those of several."""
    if not desired.is_of_people:
        return desired.space
    spaces = (room for room in world.desired.rooms.values() if room.is_space and grant in room.grants)
    inside = (room.key for room in spaces if _has_child(world, room.key, desired.takes_over))
    return next(inside, desired.space)


def _has_child(world: World, key: str, room_id: str | None) -> bool:
    space = world.observed.rooms.get(key)
    return space is not None and room_id in space.children
