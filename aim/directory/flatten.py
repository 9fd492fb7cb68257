"""The flattening rules: a tree of entries becomes users and groups. Pure; serves LDIF and LDAP alike.

In come entries in any order, and the rules; out goes a Directory. Three steps, because the roster, which only
the second one adds to, must not be added to by two threads at once:

    entries ─► gather ─► enrol (roster) ─► assemble ─► Directory

- Organisational units, domains and groups are containers. A container holds the active users below it in
  the tree, whether or not the entries between were read. A group also holds its members (`member`,
  `uniqueMember`, `memberUid`, primary group) and all people of containers among them, at any depth.
- Who is a member of a group that lies inside a unit is not thereby in the unit.
- An entry that is a user and a container holds itself.
- Names that name nobody who was read are harmless: they may lie outside the base, or be long gone.
- A container without people is there, with nobody in it.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from aim.directory import dn, nesting
from aim.directory.entries import Entry, Rules, stable_id, texts
from aim.directory.gather import Container, Gathered, gather, top_name
from aim.directory.members import Resolver
from aim.directory.model import Branch, Directory, Group, GroupKind, Problem, Severity
from aim.directory.roster import People, Roster

_CN_KEY = "cn:"
"""Before the key of a CN; no canonical DN begins like this, as a type has no colon."""

_SHOWN = 3
"""How many groups, and how many of their members, a summary names."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The numbers of the people of a Gathered."""

    people: Sequence[int]
    """In the order of `Settled.people`."""
    contested: People


def flatten(
    entries: Iterable[Entry], rules: Rules, roster: Roster, *, source: str, name: str | None
) -> Directory:
    """The Directory of these entries: all three steps in one.

    `source` is the source's type; `name` what the organisation is called, if that is configured, else the
    topmost container says. SourceInvalid if a DN is malformed or two entries have the same.
    """
    gathered = gather(entries, rules)
    return assemble(gathered, enrol(gathered, roster), roster, source=source, name=name)


def key_of(external_id: str) -> str:
    """The comparison key of an external id: a DN's canonical form, else the key of a group's CN."""
    if "=" in external_id:
        try:
            return dn.canonical(external_id)
        except ValueError:
            pass
    return _CN_KEY + dn.prepare(external_id)


def enrol(gathered: Gathered, roster: Roster) -> Enrolled:
    """Gives everybody a number. Quick: the only step that adds to the roster."""
    settled = gathered.settled
    people = [roster.number(person.user.localpart) for person in settled.people]
    return Enrolled(people, roster.people(settled.contested))


def assemble(
    gathered: Gathered, enrolled: Enrolled, roster: Roster, *, source: str, name: str | None
) -> Directory:
    """Finds everybody's place and makes the Directory. Does not add to the roster."""
    settled, containers = gathered.settled, gathered.containers
    title = name or top_name(containers) or source
    members, problems = _members(gathered, enrolled.people, title)
    return Directory(
        source=source,
        name=title,
        roster=roster,
        users=tuple(person.user for person in settled.people),
        groups=tuple(
            Group(container.dn, container.kind, container.name, people)
            for container, people in zip(containers, members, strict=True)
        ),
        everyone=People(
            [
                number
                for person, number in zip(settled.people, enrolled.people, strict=True)
                if person.user.active
            ]
        ),
        problems=tuple(sorted([*settled.problems, *problems, *_summaries(gathered, title)])),
        contested=enrolled.contested,
        unresolved=frozenset(settled.unresolved),
        keys=_keys(containers),
        key_of=key_of,
        tree=_tree(containers),
    )


def _members(gathered: Gathered, numbers: Sequence[int], title: str) -> tuple[list[People], list[Problem]]:
    """Everybody in each container, in the containers' order."""
    containers = gathered.containers
    direct = _below(gathered, numbers)
    nested: list[Sequence[int]] = [()] * len(containers)
    unknown: dict[str, list[str]] = {}
    resolver = Resolver(gathered, numbers)
    for position, container in enumerate(containers):
        if container.kind is GroupKind.GROUP:
            people, nested[position], missing = resolver.members(container)
            direct[position].update(people)
            if missing:
                unknown[container.dn] = missing
    for position, people in resolver.primary_members().items():
        direct[position].update(people)
    return nesting.closure(direct, nested), _unknown_members(unknown, title)


def _below(gathered: Gathered, numbers: Sequence[int]) -> list[BitMap]:
    """The active users below each container in the tree, and the container itself if it is one."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    selves: dict[str, int] = {}
    both = {container.key for container in gathered.containers if container.is_person}
    for person, number in zip(gathered.settled.people, numbers, strict=True):
        if person.user.active:
            places[dn.parent(person.key)].append(number)
            if person.key in both:
                selves[person.key] = number
    found = nesting.below(places, {container.key for container in gathered.containers})
    direct = [found.get(container.key, BitMap()) for container in gathered.containers]
    for people, container in zip(direct, gathered.containers, strict=True):
        if container.key in selves:
            people.add(selves[container.key])
    return direct


def _tree(containers: Sequence[Container]) -> tuple[Branch, ...]:
    """The units and domains, each with the nearest one above it."""
    ids = {
        container.key: stable_id(container.attributes, ()) or container.key
        for container in containers
        if container.kind is not GroupKind.GROUP
    }
    shared = {id_ for id_, count in Counter(ids.values()).items() if count > 1}
    # An id that two entries share names neither of them: with it the tree could lead back into itself.
    ids = {key: key if id_ in shared else id_ for key, id_ in ids.items()}
    branches = [
        Branch(
            ids[container.key],
            position,
            next((ids[key] for key in dn.ancestors(container.key) if key in ids), None),
        )
        for position, container in enumerate(containers)
        if container.key in ids
    ]
    return tuple(sorted(branches, key=lambda branch: (branch.id, branch.group)))


def _keys(containers: Sequence[Container]) -> Mapping[str, tuple[int, ...]]:
    """Keys by DN for all containers, and by CN for groups."""
    keys: defaultdict[str, list[int]] = defaultdict(list)
    for position, container in enumerate(containers):
        keys[container.key].append(position)
        if container.kind is GroupKind.GROUP:
            names = texts(container.attributes, "cn") or [container.name]
            for key in sorted({_CN_KEY + dn.prepare(name) for name in names}):
                keys[key].append(position)
    return {key: tuple(positions) for key, positions in keys.items()}


def _unknown_members(unknown: Mapping[str, Sequence[str]], title: str) -> list[Problem]:
    """One line for all groups together: such members are normal, and there can be many."""
    if not unknown:
        return []
    count = sum(len(names) for names in unknown.values())
    members = "1 member" if count == 1 else f"{count} members"
    groups = "1 group" if len(unknown) == 1 else f"{len(unknown)} groups"
    # What a server gives first is not the same every time.
    shown = _some({name for names in unknown.values() for name in names})
    message = f"{members} of {groups} {'names' if count == 1 else 'name'} nobody who was read: {shown}"
    return [Problem(Severity.INFO, title, f"{message} (in {_some(unknown)})")]


def _some(names: Collection[str]) -> str:
    shown = "; ".join(heapq.nsmallest(_SHOWN, names)) + ("; …" if len(names) > _SHOWN else "")
    # They may hold anything: nobody has read them as DNs.
    return "".join(char if char.isprintable() else "\ufffd" for char in shown)


def _summaries(gathered: Gathered, title: str) -> list[Problem]:
    problems = []
    weak = sum(person.user.weak_id for person in gathered.settled.people)
    if weak:
        message = f"{weak} users have no stable id (entryUUID, objectGUID): they are known by their DN only"
        problems.append(Problem(Severity.INFO, title, message))
    if gathered.unreadable:
        message = f"{gathered.unreadable} entries have no objectClass: nobody can tell what they are, ignored"
        problems.append(Problem(Severity.WARNING, title, message))
    return problems
