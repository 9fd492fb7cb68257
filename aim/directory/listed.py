"""Sources whose groups list their members by id (SCIM, Graph): people and groups become a Directory. Pure.

In come the people and groups that a bridge understood; out goes a Directory. A bridge calls `settle`, on the
event loop `enrol`, for the roster is everybody's, and `assemble`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pyroaring import BitMap

from aim.directory.model import Directory, Group, GroupKind, Problem, Severity, User, same
from aim.directory.nesting import closure
from aim.directory.people import clash
from aim.directory.roster import People, Roster


class Listed(NamedTuple):
    """A person as the source has them."""

    id: str
    name: str
    """What messages call them."""
    user: User | None
    """None: no localpart can be made of what the source has."""
    problem: str = ""
    """Then why not."""


class Container(NamedTuple):
    """A group as the source has it."""

    id: str
    name: str
    others: tuple[str | None, ...]
    """What `externalId` may call it besides its id and its name."""
    members: Iterable[str]
    """Ids of direct members, users and groups; those of nobody are passed over."""


@dataclass(slots=True)
class Told:
    """People told apart."""

    users: list[User] = field(default_factory=list)
    """Sorted by id: those whom a localpart names without doubt."""
    contested: list[str] = field(default_factory=list)
    """Localparts that several users come to."""
    unresolved: set[str] = field(default_factory=set)
    """Ids of those who are no users."""
    problems: list[Problem] = field(default_factory=list)


class Enrolled(NamedTuple):
    """Numbers from the roster."""

    numbers: Mapping[str, int]
    """Of active users, by id."""
    contested: People


def settle(people: Iterable[Listed]) -> Told:
    """Who comes to a localpart that another user comes to is no user; nor is who has none."""
    told = Told()
    owners: defaultdict[str, list[tuple[str, User]]] = defaultdict(list)
    for person in people:
        if person.user is None:
            told.unresolved.add(person.id)
            told.problems.append(Problem(Severity.WARNING, person.name, person.problem))
        else:
            owners[person.user.localpart].append((person.name, person.user))
    for localpart, claims in owners.items():
        if len(claims) == 1:
            told.users.append(claims[0][1])
            continue
        told.contested.append(localpart)
        told.unresolved.update(user.id for _, user in claims)
        names = sorted(name for name, _ in claims)
        told.problems.append(clash(localpart, names, "users come to this localpart"))
    told.users.sort(key=lambda user: user.id)
    return told


def enrol(told: Told, roster: Roster) -> Enrolled:
    """Gives everybody their number."""
    numbers = {user.id: roster.number(user.localpart) for user in told.users if user.active}
    return Enrolled(numbers, roster.people(told.contested))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the Directory is besides its people and groups."""

    source: str
    name: str
    problems: Sequence[Problem] = ()
    """Further ones."""
    filling: bool = False
    key_of: Callable[[str], str] = same
    """Makes the comparison key of an external id."""


def assemble(
    told: Told,
    enrolled: Enrolled,
    containers: Iterable[Container],
    roster: Roster,
    frame: Frame,
    *,
    transitive: bool = True,
) -> Directory:
    """The Directory. A group holds the active users among its members and, if `transitive`, those of groups
    among them at any depth."""
    groups = sorted(containers, key=lambda container: container.id)
    return Directory(
        source=frame.source,
        name=frame.name,
        roster=roster,
        users=tuple(told.users),
        groups=tuple(
            Group(group.id, GroupKind.GROUP, group.name, inside)
            for group, inside in zip(groups, _members(groups, enrolled.numbers, transitive), strict=True)
        ),
        everyone=People(sorted(enrolled.numbers.values())),
        problems=tuple(sorted([*told.problems, *frame.problems])),
        contested=enrolled.contested,
        unresolved=frozenset(told.unresolved),
        keys=_keys(groups, frame.key_of),
        key_of=frame.key_of,
        filling=frame.filling,
    )


def _members(groups: Sequence[Container], numbers: Mapping[str, int], transitive: bool) -> list[People]:
    """Everybody in each group, in the groups' order."""
    places = {group.id: position for position, group in enumerate(groups)} if transitive else {}
    direct: list[BitMap] = []
    nested: list[Sequence[int]] = []
    for group in groups:
        direct.append(BitMap([numbers[id_] for id_ in group.members if id_ in numbers]))
        nested.append([places[id_] for id_ in group.members if id_ in places])
    return closure(direct, nested)


def _keys(groups: Sequence[Container], key_of: Callable[[str], str]) -> Mapping[str, tuple[int, ...]]:
    """Groups by each of the names that `externalId` may use."""
    keys: defaultdict[str, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        for key in dict.fromkeys(key_of(name) for name in (group.id, *group.others, group.name) if name):
            keys[key].append(position)
    return {key: tuple(positions) for key, positions in keys.items()}
