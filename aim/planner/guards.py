"""Guards: limits on destructive actions, on by default. Pure.

In: every pending action of the world, what was done in the last hour, what is held and approved. Out: which
actions are held, and why. Above a limit all pending actions of that kind are held; time does not release
them, only approval, or a world that no longer asks for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from aim.directory.roster import NOBODY, People
from aim.planner.actions import (
    AbandonSpace,
    AccountAction,
    AnyAction,
    EraseAccount,
    Kick,
    LockAccount,
    ReleaseRoom,
    SetPowerLevel,
)
from aim.planner.world import Limits, World


class Kind(StrEnum):
    """The destructive kinds, as `provisioner.guards` names them."""

    KICKS = "kicks"
    DEMOTIONS = "demotions"
    LOCKS = "locks"
    ERASURES = "erasures"
    RELEASES = "releases"
    ABANDONED_SPACES = "abandoned_spaces"

    @property
    def words(self) -> str:
        """As a sentence says it."""
        return self.replace("_", " ")


_COUNTED = {Kind.RELEASES: "rooms", Kind.ABANDONED_SPACES: "spaces"}
"""What is counted where it is not people."""
ORGANISATION = "organisation"
RECOVERY = "recovery"
FILLING = "filling"
EARLIER = "earlier"
WITH_KICKS = "with kicks"
WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True, order=True)
class Trip:
    """One limit that was passed."""

    kind: str
    scope: str
    """`organisation`, `recovery`, `filling`, `earlier` (since an earlier cycle), `with kicks`, or the key of
    a space."""
    count: int
    """Distinct people, rooms or spaces, pending and done in the last hour."""
    limit: int
    earlier: int = field(default=0, compare=False)
    """How many of `count` are only of those done in the last hour. What goes from pending to done makes no
    other trip."""

    @property
    def message(self) -> str:
        """One line for a person."""
        words = Kind(self.kind).words
        if self.scope == RECOVERY:
            return f"{self.count} {words} held: in recovery nothing is removed without approval"
        if self.scope == FILLING:
            return f"{self.count} {words} held: the source is still being filled; `aim scim ready` ends that"
        if self.scope == WITH_KICKS:
            return f"{self.count} {words} held with {self._which_kicks}"
        if self.scope == EARLIER:
            return f"{self.count} {words} held since an earlier cycle: only approval releases them"
        where = "in the organisation" if self.scope == ORGANISATION else f"in space {self.scope}"
        counted = _COUNTED.get(Kind(self.kind), "people")
        parts = f" ({self.count - self.earlier} now, {self.earlier} before)" if self.earlier else ""
        return f"{words} {where}: {self.count} {counted} within an hour{parts}, the limit is {self.limit}"

    @property
    def _which_kicks(self) -> str:
        same = "the kicks of the same people"
        return same if self.kind == Kind.DEMOTIONS else "the kicks that come first"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guards decided."""

    held: frozenset[str] = frozenset()
    """Identities of held actions."""
    trips: tuple[Trip, ...] = ()


def kind_of(action: AnyAction) -> Kind | None:
    """The destructive kind of an action, or None if it is none."""
    if isinstance(action, Kick):
        return Kind.KICKS
    if isinstance(action, SetPowerLevel) and action.is_demotion:
        return Kind.DEMOTIONS
    return _BY_TYPE.get(type(action))


_BY_TYPE: Mapping[type, Kind] = {
    LockAccount: Kind.LOCKS,
    EraseAccount: Kind.ERASURES,
    ReleaseRoom: Kind.RELEASES,
    AbandonSpace: Kind.ABANDONED_SPACES,
}


def is_counted(action: AnyAction) -> bool:
    """Whether a destructive action counts: not so the kick of somebody who never had a right to be there."""
    return not (isinstance(action, Kick) and not action.guarded)


def counted_as(action: AnyAction, server_name: str) -> str:
    """Who or what a destructive action counts for: a localpart, or the key of a room or space."""
    if isinstance(action, AbandonSpace):
        # The rooms of another server's space are left with it.
        return action.space
    if action.target is None:
        return action.room
    return action.target[1:].removesuffix(f":{server_name}")


def counted_in(action: AnyAction) -> tuple[str, ...]:
    """Keys of the spaces in which a destructive action counts; "" for one that counts in none."""
    if isinstance(action, AccountAction):
        return action.in_spaces or ("",)
    return (action.space,)


def judge(world: World, actions: Iterable[AnyAction]) -> Verdict:
    """Which of the actions of the WHOLE world's diff are held."""
    by_kind: dict[Kind, list[AnyAction]] = defaultdict(list)
    actions = list(actions)
    for action in actions:
        kind = kind_of(action)
        if kind is not None and (is_counted(action) or world.removes_nobody):
            by_kind[kind].append(action)
    held: set[str] = set()
    trips: list[Trip] = []
    for kind, pending in sorted(by_kind.items()):
        kept, tripped = _judge_kind(world, kind, pending)
        held |= kept
        trips += tripped
    if held:
        waiting = _demotions_of_held(world, by_kind, held)
        if waiting:
            held |= waiting
            trips.append(Trip(Kind.DEMOTIONS, WITH_KICKS, len(waiting), 0))
        abandoned = _abandoned_too_early(by_kind, held)
        if abandoned:
            held |= abandoned
            trips.append(Trip(Kind.ABANDONED_SPACES, WITH_KICKS, len(abandoned), 0))
        bots = _bots_of_held(actions, held)
        if bots:
            held |= bots
            trips.append(Trip(Kind.KICKS, WITH_KICKS, len(bots), 0))
    return Verdict(frozenset(held), tuple(sorted(trips)))


def _demotions_of_held(world: World, by_kind: Mapping[Kind, list[AnyAction]], held: set[str]) -> set[str]:
    """Demotions, not held yet, of people whose kick is held: what may be a mistake is one as a whole."""
    people = {action.target for action in by_kind[Kind.KICKS] if action.identity in held}
    return {
        action.identity
        for action in by_kind[Kind.DEMOTIONS]
        if action.target in people
        and action.identity not in held
        and action.identity not in world.recorded.approvals
    }


def _abandoned_too_early(by_kind: Mapping[Kind, list[AnyAction]], held: set[str]) -> set[str]:
    """Spaces, not held yet, that the bot may leave only after kicks that are held, approved or not."""
    return {
        action.identity
        for action in by_kind[Kind.ABANDONED_SPACES]
        if action.identity not in held and not held.isdisjoint(action.after)
    }


def _bots_of_held(actions: Iterable[AnyAction], held: set[str]) -> set[str]:
    """Bots of other servers, not held yet, that go only after people of theirs whose kicks are held."""
    return {
        action.identity
        for action in actions
        if isinstance(action, Kick)
        and action.last
        and action.identity not in held
        and not held.isdisjoint(action.after)
    }


def _judge_kind(world: World, kind: Kind, pending: list[AnyAction]) -> tuple[set[str], list[Trip]]:
    unapproved = {action.identity for action in pending} - world.recorded.approvals.keys()
    if not unapproved:
        return set(), []
    if world.recovering:
        return unapproved, [Trip(kind, RECOVERY, len(pending), 0)]
    if world.filling:
        return unapproved, [Trip(kind, FILLING, len(pending), 0)]
    trips = list(_trips(world, kind, pending))
    if trips:
        return unapproved, trips
    earlier = unapproved & world.recorded.held
    return earlier, [Trip(kind, EARLIER, len(earlier), 0)] if earlier else []


def _trips(world: World, kind: Kind, pending: list[AnyAction]) -> Iterator[Trip]:
    limits = world.limits.get(kind, Limits())
    concerned: dict[str, set[str]] = defaultdict(set)
    gone: dict[str, set[str]] = defaultdict(set)
    for action in pending:
        for space in counted_in(action):
            concerned[space].add(counted_as(action, world.observed.server_name))
    now = {space: set(counted) for space, counted in concerned.items()}
    for done in world.recorded.done:
        if done.kind == kind and world.now - done.at < WINDOW:
            concerned[done.space].add(done.person)
            gone[done.space].add(done.person)
    for space, counted in sorted(concerned.items()):
        # A space that is given up is the only one in itself; whose account it is may be in none.
        if kind is Kind.ABANDONED_SPACES or not space:
            continue
        limit = limits.per_space.of(_size(world, kind, space, gone[space]))
        if len(counted) > limit:
            yield Trip(kind, space, len(counted), limit, len(counted - now.get(space, set())))
    everything = set().union(*concerned.values())
    limit = limits.organisation.of(_size(world, kind, None, set().union(*gone.values())))
    if len(everything) > limit:
        earlier = everything.difference(*now.values())
        yield Trip(kind, ORGANISATION, len(everything), limit, len(earlier))


def _size(world: World, kind: Kind, space: str | None, gone: set[str]) -> int:
    """Of how many the limit is a share, those that went within the hour included; `space` None: of all."""
    if kind is Kind.RELEASES:
        return len(_rooms_of(world, space) | gone)
    if kind is Kind.ABANDONED_SPACES:
        return len({key for key, room in world.observed.rooms.items() if room.is_space} | gone)
    people = _organisation(world) if space is None else _people_of(world, space)
    return len(people | world.roster.people(gone))


def _rooms_of(world: World, space: str | None) -> set[str]:
    """Keys of the managed rooms in that space, or of all of them."""
    rooms = {key: room for key, room in world.observed.rooms.items() if not room.is_space}
    if space is None:
        return set(rooms)
    parent = world.observed.rooms.get(space)
    return {key for key, room in rooms.items() if parent and room.room_id in parent.children}


def _people_of(world: World, space: str) -> People:
    room = world.observed.rooms.get(space)
    return room.joined | room.invited if room else NOBODY


def _organisation(world: World) -> People:
    spaces = (key for key, room in world.observed.rooms.items() if room.is_space)
    return NOBODY.union(*(_people_of(world, key) for key in spaces))
