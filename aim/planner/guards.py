"""Guards: limits on destructive actions, on by default. Pure.

In: every pending action of the world, what was done in the last hour, what is held and approved. Out: which
actions are held, and why. Above a limit all pending actions of that kind are held; time does not release
them, only approval, or a world that no longer asks for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from aim.directory.roster import NOBODY, People
from aim.planner.actions import AnyAction, Kick, SetPowerLevel
from aim.planner.world import Limits, World


class Kind(StrEnum):
    """The destructive kinds, as `provisioner.guards` names them."""

    KICKS = "kicks"
    DEMOTIONS = "demotions"


ORGANISATION = "organisation"
RECOVERY = "recovery"
EARLIER = "earlier"
WITH_KICKS = "with kicks"
WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True, order=True)
class Trip:
    """One limit that was passed."""

    kind: str
    scope: str
    """`organisation`, `recovery`, `earlier` (since an earlier cycle), `with kicks`, or the key of a space."""
    count: int
    """Distinct people, pending and done in the last hour."""
    limit: int

    @property
    def message(self) -> str:
        """One line for a person."""
        if self.scope == RECOVERY:
            return f"{self.count} {self.kind} held: in recovery nothing is removed without approval"
        if self.scope == WITH_KICKS:
            return f"{self.count} {self.kind} held with the kicks of the same people"
        if self.scope == EARLIER:
            return f"{self.count} {self.kind} held since an earlier cycle: only approval releases them"
        where = "in the organisation" if self.scope == ORGANISATION else f"in space {self.scope}"
        return f"{self.kind} {where}: {self.count} people within an hour, the limit is {self.limit}"


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
    return None


def is_counted(action: AnyAction) -> bool:
    """Whether a destructive action counts: not so the kick of somebody who never had a right to be there."""
    return not (isinstance(action, Kick) and not action.guarded)


def judge(world: World, actions: Iterable[AnyAction]) -> Verdict:
    """Which of the actions of the WHOLE world's diff are held."""
    by_kind: dict[Kind, list[AnyAction]] = defaultdict(list)
    for action in actions:
        kind = kind_of(action)
        if kind is not None and (is_counted(action) or world.recovering):
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


def _judge_kind(world: World, kind: Kind, pending: list[AnyAction]) -> tuple[set[str], list[Trip]]:
    unapproved = {action.identity for action in pending} - world.recorded.approvals.keys()
    if not unapproved:
        return set(), []
    if world.recovering:
        return unapproved, [Trip(kind, RECOVERY, len(pending), 0)]
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
        concerned[action.space].add(_localpart(world, action.target or ""))
    for done in world.recorded.done:
        if done.kind == kind and world.now - done.at < WINDOW:
            concerned[done.space].add(done.person)
            gone[done.space].add(done.person)
    for space, people in sorted(concerned.items()):
        size = len(_people_of(world, space) | world.roster.people(gone[space]))
        limit = limits.per_space.of(size)
        if len(people) > limit:
            yield Trip(kind, space, len(people), limit)
    everybody = set().union(*concerned.values())
    limit = limits.organisation.of(
        len(_organisation(world) | world.roster.people(set().union(*gone.values())))
    )
    if len(everybody) > limit:
        yield Trip(kind, ORGANISATION, len(everybody), limit)


def _localpart(world: World, mxid: str) -> str:
    return mxid[1:].removesuffix(f":{world.observed.server_name}")


def _people_of(world: World, space: str) -> People:
    room = world.observed.rooms.get(space)
    return room.joined | room.invited if room else NOBODY


def _organisation(world: World) -> People:
    spaces = (key for key, room in world.observed.rooms.items() if room.is_space)
    return NOBODY.union(*(_people_of(world, key) for key in spaces))
