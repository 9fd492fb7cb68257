"""`aim explain`: why somebody is, or is not, in a space or room, with that level. Pure.

    question ─► scope ─► (the audit is asked about it) ─► explanation

In: a world and its plan; a person, a room, or both. Out: first whom and which rooms the answer is about,
then, with what the audit knows of those, the answer. Text and JSON are made of it in `explained`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from aim.desired.rooms import DesiredRoom
from aim.directory.model import Problem, User
from aim.directory.roster import NOBODY, People
from aim.planner.actions import AccountAction, AnyAction, PersonAction
from aim.planner.plan import Plan
from aim.planner.standing import Standing, Standings
from aim.planner.subjects import Person, PersonKind, Place, find_person, find_place, person_of, place_of
from aim.planner.world import World
from aim.world.audit import Audit, Happened
from aim.world.recorded import Queued, Seen
from aim.world.rooms import Room

MOST = 50
"""So many people of a room, or rooms of a person, are told of unless all are asked for."""


@dataclass(frozen=True, slots=True)
class Question:
    """At least one of person and room."""

    person: str | None
    """MXID or localpart."""
    room: str | None
    """Key, room id, or name."""
    everybody: bool = False
    """Of a room: all its people, not only those about whom something differs; and no limit of numbers."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom and what an answer is about."""

    person: Person | None
    place: Place | None
    people: tuple[str, ...]
    """MXIDs."""
    rooms: tuple[str, ...]
    """Keys. The standing of everybody of `people` in all of these is told."""
    left_out: int = 0
    """How many more people, or rooms, there are to tell of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAnswer:
    """What is known of somebody beside rooms."""

    mxid: str
    kind: PersonKind
    users: tuple[User, ...]
    """Of the directory; none, or one."""
    seen: tuple[Seen, ...]
    """Users who had that localpart when they were last seen."""
    has_account: bool | None
    """None: the homeserver was not asked."""
    locked: bool | None
    """Of the account; None: there is none, or it is not known."""
    queued: Queued | None
    """Their entry of the deprovisioning queue."""
    would_be_locked: bool
    """They left, and only the configuration keeps their account from being locked."""
    erases: bool
    """Whether the configuration lets anybody be erased."""
    next: tuple[AnyAction, ...]
    """What the plan has for the account."""
    entitled: int
    """In how many rooms they have the right to be."""
    inside: int
    """In how many of those they are."""
    surplus: int
    """In how many others they are."""
    groups: tuple[str, ...]
    """Those that the configuration names and that they are in."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAnswer:
    """What is known of a room beside people."""

    key: str
    named: str
    name: str
    room_id: str | None
    is_space: bool
    space: str | None
    """Key of the space it belongs to; None for a space at the top."""
    status: str
    """Whether we manage it, in words."""
    entitled: int
    joined: int
    invited: int
    foreign: int
    missing: int
    """Entitled, and neither in nor invited."""
    surplus: int
    """In or invited, and not entitled."""
    groups: tuple[tuple[str, int, int], ...]
    """Group, level, and how many people are in it."""
    subspaces: tuple[str, ...]
    last: Happened | None
    next: tuple[AnyAction, ...]
    """What the plan has for the room itself."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    person: PersonAnswer | None
    room: RoomAnswer | None
    standings: tuple[Standing, ...]
    left_out: int
    is_recorded: bool
    """False: no cycle was ever recorded, so nothing is known of since when, and of what happened."""


def scope_of(world: World, plan: Plan, question: Question) -> Scope:
    """Whom and what the question is about. Raises AimError if it names somebody or something unknown."""
    person = find_person(world, question.person) if question.person is not None else None
    place = find_place(world, plan, question.room) if question.room is not None else None
    if person is not None and place is not None:
        return Scope(person, place, (person.mxid,), (place.key,))
    most = None if question.everybody else MOST
    if person is not None:
        rooms = list(_rooms_of(world, plan, person))
        return Scope(person, None, (person.mxid,), tuple(rooms[:most]), len(rooms[most:]) if most else 0)
    if place is None:
        raise ValueError("a question is about a person, a room, or both")
    people = sorted(_people_of(world, plan, place, everybody=question.everybody))
    return Scope(None, place, tuple(people[:most]), (place.key,), len(people[most:]) if most else 0)


def explain(world: World, plan: Plan, scope: Scope, audit: Audit) -> Explanation:
    """The answer; `audit` has what is recorded of `scope.people` in `scope.rooms`."""
    standings = Standings(world, plan, audit)
    people = [person_of(world, mxid) for mxid in scope.people]
    places = [place_of(world, key) for key in scope.rooms]
    return Explanation(
        person=_person(world, plan, scope.person) if scope.person else None,
        room=_room(world, plan, scope.place, audit) if scope.place else None,
        standings=tuple(standings.of(person, place) for person in people for place in places),
        left_out=scope.left_out,
        is_recorded=not world.recorded.fresh,
    )


# -- one person ------------------------------------------------------------------------------------------


def _rooms_of(world: World, plan: Plan, person: Person) -> Iterator[str]:
    """Where they are entitled, present or banned, have a level, or the plan has something for them."""
    planned = {a.room for a in plan.actions if isinstance(a, PersonAction) and a.person == person.mxid}
    for key in dict.fromkeys(chain(world.desired.rooms, world.observed.rooms)):
        place = place_of(world, key)
        if key in planned or _concerns(person, place.desired, place.room):
            yield key


def _concerns(person: Person, desired: DesiredRoom | None, room: Room | None) -> bool:
    number = person.number
    if person.kind is PersonKind.BOT:
        # It is everywhere: only where it is not is worth a word.
        return room is not None and room.bot != "join"
    if number is None:
        return room is not None and person.mxid in room.foreign | room.power_levels.foreign.keys()
    if desired is not None and number in desired.members:
        return True
    if room is None:
        return False
    present = (room.joined, room.invited, room.knocking, room.banned)
    return any(number in people for people in present) or number in room.power_levels.people


def _person(world: World, plan: Plan, person: Person) -> PersonAnswer:
    local = person.kind is PersonKind.LOCAL
    name, number = person.localpart, person.number
    entitled = {
        key for key, room in world.desired.rooms.items() if number is not None and number in room.members
    }
    present = {key for key, room in world.observed.rooms.items() if _is_in(person, room)}
    users = tuple(user for user in world.desired.directory.users if local and user.localpart == name)
    seen = tuple(seen for seen in world.recorded.seen.values() if local and seen.localpart == name)
    subjects = {
        person.mxid,
        *(user.id for user in users),
        *(user.dn for user in users),
        *(one.id for one in seen),
    }
    return PersonAnswer(
        mxid=person.mxid,
        kind=person.kind,
        users=users,
        seen=seen,
        has_account=_has_account(world, person),
        locked=_is_locked(world, person),
        queued=_queued(world, person),
        would_be_locked=local and _would_be_locked(world, person),
        erases=world.desired.accounts is not None and world.desired.accounts.deprovisions,
        next=tuple(a for a in plan.actions if isinstance(a, AccountAction) and a.person == person.mxid),
        entitled=len(entitled),
        inside=len(entitled & present),
        surplus=len(present - entitled),
        groups=tuple(dict.fromkeys(_groups(world, person.number))) if person.number is not None else (),
        problems=tuple(problem for problem in plan.problems if problem.subject in subjects),
    )


def _is_in(person: Person, room: Room) -> bool:
    if person.number is None:
        return person.mxid in room.foreign
    return person.number in room.joined


def _has_account(world: World, person: Person) -> bool | None:
    if person.number is None:
        return None
    if person.number in world.observed.accounts:
        return True
    # Of others it may not have been asked.
    return False if person.number in world.desired.directory.everyone else None


def _is_locked(world: World, person: Person) -> bool | None:
    known = world.observed.known_accounts
    account = known.accounts.get(person.localpart) if known and person.kind is PersonKind.LOCAL else None
    return None if account is None else account.locked


def _queued(world: World, person: Person) -> Queued | None:
    if person.kind is not PersonKind.LOCAL:
        return None
    queue = world.recorded.queue.values()
    return next((queued for queued in queue if queued.localpart == person.localpart), None)


def _would_be_locked(world: World, person: Person) -> bool:
    rules = world.desired.accounts
    off = rules is not None and not rules.deprovisions
    return off and person.localpart in world.desired.leaving.left and not _is_locked(world, person)


def _groups(world: World, number: int) -> Iterator[str]:
    for room in world.desired.rooms.values():
        if room.is_space:
            yield from (grant.group for grant in room.grants if number in grant.people)


# -- one room --------------------------------------------------------------------------------------------


def _people_of(world: World, plan: Plan, place: Place, *, everybody: bool) -> Iterable[str]:
    """MXIDs of those about whom something differs, or of all."""
    room, desired = place.room, place.desired
    members = desired.members if desired else NOBODY
    present = room.joined | room.invited if room else NOBODY
    names = {a.person for a in plan.actions if isinstance(a, PersonAction) and a.room == place.key}
    if everybody:
        people = members | present
        if room is not None:
            people |= room.knocking | room.banned | People(room.power_levels.people)
            names |= room.foreign
    else:
        people = (members ^ present) | _differing_levels(desired, room) if desired else NOBODY
    return names.union(map(world.mxid, people))


def _differing_levels(desired: DesiredRoom, room: Room | None) -> People:
    holders = room.power_levels.people if room else {}
    wanted = desired.levels_by_person() if room else {}
    if holders == wanted:
        return NOBODY
    return People(p for p in holders.keys() | wanted.keys() if holders.get(p, 0) != wanted.get(p, 0))


def _room(world: World, plan: Plan, place: Place, audit: Audit) -> RoomAnswer:
    room, desired = place.room, place.desired
    members = desired.members if desired else NOBODY
    present = room.joined | room.invited if room else NOBODY
    own = (a for a in plan.actions if a.room == place.key and not isinstance(a, PersonAction))
    subjects = {place.key, place.room_id}
    above = desired.parent if desired and desired.is_space else desired.space if desired else None
    return RoomAnswer(
        key=place.key,
        named=plan.named(place.key),
        name=place.name,
        room_id=place.room_id,
        is_space=place.is_space,
        space=above,
        status=_status(world, place),
        entitled=len(members),
        joined=len(room.joined) if room else 0,
        invited=len(room.invited) if room else 0,
        foreign=len(room.foreign) if room else 0,
        missing=len(members - present),
        surplus=len(present - members) if desired else 0,
        groups=tuple((g.group, g.level, len(g.people)) for g in desired.grants) if desired else (),
        subspaces=desired.subspaces if desired else (),
        last=audit.last.get((place.key, None)),
        next=tuple(own),
        problems=tuple(problem for problem in plan.problems if problem.subject in subjects),
    )


def _status(world: World, place: Place) -> str:
    """Whether the room is ours, and if not, what it is."""
    if place.key in world.observed.newer:
        return "marked by a newer version of aim, not touched"
    if place.room is not None and place.room.origin is not None:
        return _status_of_others(place.room, place.room.origin.agent, place.desired)
    if place.key in world.observed.rooms:
        return "managed" if place.desired else "managed, and no longer asked for by the configuration"
    if place.desired is None:
        return "not managed" if place.room else _GIVEN_UP
    return _status_to_come(world, place.desired, place.room)


def _status_of_others(room: Room, agent: str, desired: DesiredRoom | None) -> str:
    """Of a room that the `aim` of another server made."""
    if desired is not None and desired.leaves is not None:
        return f"made by {agent}, to be left with all our people"
    if room.bot == "invite":
        return f"made by {agent}, which asks us in"
    return (
        f"made by {agent}, where we look after our own people"
        if desired
        else f"made by {agent}, left as it is"
    )


_GIVEN_UP = "managed once, given up since"


def _status_to_come(world: World, desired: DesiredRoom, room: Room | None) -> str:
    """Of a room that should be ours and is not."""
    if room is not None:
        return "not managed, it has not consented" if desired.only_invites else "to be taken over"
    if desired.takes_over is not None:
        return "to be taken over, and can't be had"
    if desired.key in world.recorded.rooms:
        return "managed once, and can't be seen any more" if desired.is_space else _GIVEN_UP
    return "not made yet"
