"""The shape of a generated organisation: the groups, who is in them, and the spaces that follow them.

In: a size and a seed. Out: a Shape, people being plain numbers; `organisation` gives them names. The same
size and seed give the same shape.

The organisation is a tree of divisions (one for 100 spaces), departments (nine in each division) and teams
(all other spaces); it gets wider with size, never deeper: ten times the size is ten times the memberships.

    everyone ─► division ─► department ─► team          each a space; four levels at every size

- One person in a hundred is disabled in the directory and belongs to no group.
- Everyone else is in one team; the teams of a division are of log-normal size. A department's group nests
  those of its teams, a division's group those of its departments.
- Each team has a group of its one to three leads.
- All other groups are projects of a division: of log-normal size, three times as many memberships as there
  are people, nine in ten of them from the division and the others from anywhere. Every fifth project nests
  one to three others. So each person is in four groups, and through nesting in three more.
- A space has one to six groups: its own, a team's space that of its leads too (power level 50), and up to
  four projects of its division (of ten, one with level 50). Everyone's space has `''` and, with level 100, a
  project.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from pyroaring import BitMap

SEED = 20261124
NOBODY_OF_A_TEAM = -1
MODERATOR, ADMIN = 50, 100


@dataclass(frozen=True, slots=True)
class Size:
    """How large an organisation is."""

    users: int
    groups: int
    spaces: int

    @property
    def divisions(self) -> int:
        return max(1, self.spaces // 100)

    @property
    def departments(self) -> int:
        return min(9 * self.divisions, (self.spaces - 1 - self.divisions) // 3)

    @property
    def teams(self) -> int:
        return self.spaces - 1 - self.divisions - self.departments

    @property
    def projects(self) -> int:
        return self.groups - 2 * self.teams - self.departments - self.divisions

    def division_of_department(self, department: int) -> int:
        return department % self.divisions

    def department_of_team(self, team: int) -> int:
        return team % self.departments

    def division_of_team(self, team: int) -> int:
        return self.division_of_department(self.department_of_team(team))

    def __str__(self) -> str:
        return f"{self.users:,} users / {self.groups:,} groups / {self.spaces:,} spaces"


@dataclass(frozen=True, slots=True)
class Space:
    """A configured space. `groups` are pairs of a group's name, `''` for everyone, and a power level."""

    key: str
    parent: str | None
    groups: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Shape:
    """Who is where. Numbers of people count from 0 and are never used again."""

    size: Size
    team_of: array[int]
    """By person; NOBODY_OF_A_TEAM for those who are disabled or have left."""
    leads: list[list[int]]
    """By team."""
    projects: list[BitMap]
    """Direct members, by project."""
    nested: dict[int, tuple[int, ...]]
    """Project → the projects in it, which nest none themselves."""
    spaces: tuple[Space, ...]
    """Parents before their children."""
    left: set[int]
    """People who are no longer in the directory."""

    @property
    def everyone(self) -> BitMap:
        """All active people."""
        return BitMap(person for person, team in enumerate(self.team_of) if team != NOBODY_OF_A_TEAM)

    def groups(self) -> Iterator[tuple[str, BitMap]]:
        """Name and members of each group, those of nested groups included."""
        size = self.size
        teams = self._teams()
        departments = [BitMap() for _ in range(size.departments)]
        divisions = [BitMap() for _ in range(size.divisions)]
        for team, members in enumerate(teams):
            departments[size.department_of_team(team)] |= members
            divisions[size.division_of_team(team)] |= members
        yield from _named("division", divisions)
        yield from _named("department", departments)
        yield from _named("team", teams)
        yield from _named("leads", [BitMap(leads) for leads in self.leads])
        for number, members in enumerate(self.projects):
            inner = (self.projects[project] for project in self.nested.get(number, ()))
            yield f"project-{number}", members.union(*inner)

    def _teams(self) -> list[BitMap]:
        members = [array("I") for _ in range(self.size.teams)]
        for person, team in enumerate(self.team_of):
            if team != NOBODY_OF_A_TEAM:
                members[team].append(person)
        return [BitMap(people) for people in members]

    def members(self) -> dict[str, BitMap]:
        """Key of each space → everyone in it, those of its subspaces included."""
        groups = dict(self.groups())
        groups[""] = self.everyone
        found = {space.key: BitMap() for space in self.spaces}
        for space in reversed(self.spaces):
            for group, _ in space.groups:
                found[space.key] |= groups[group]
            if space.parent is not None:
                found[space.parent] |= found[space.key]
        return found

    def levels(self) -> dict[str, dict[int, int]]:
        """Key of each space → person → power level above 0."""
        groups = dict(self.groups())
        found: dict[str, dict[int, int]] = {}
        for space in self.spaces:
            levels = found[space.key] = {}
            for group, level in sorted(space.groups, key=lambda entry: entry[1]):
                if level:
                    levels.update(dict.fromkeys(groups[group], level))
        return found


def _named(kind: str, groups: list[BitMap]) -> Iterator[tuple[str, BitMap]]:
    return ((f"{kind}-{number}", members) for number, members in enumerate(groups))


def make_shape(size: Size, seed: int = SEED) -> Shape:
    """A new organisation."""
    rng = random.Random(seed)
    team_of = array("i", _teams_of(size, rng))
    people: list[array[int]] = [array("I") for _ in range(size.teams)]
    by_division: list[array[int]] = [array("I") for _ in range(size.divisions)]
    for person, team in enumerate(team_of):
        if team != NOBODY_OF_A_TEAM:
            people[team].append(person)
            by_division[size.division_of_team(team)].append(person)
    return Shape(
        size=size,
        team_of=team_of,
        leads=[sorted(set(rng.choices(team, k=rng.randint(1, 3)))) if team else [] for team in people],
        projects=_projects(size, by_division, rng),
        nested=_nested(size, rng),
        spaces=tuple(_spaces(size, rng)),
        left=set(),
    )


def _teams_of(size: Size, rng: random.Random) -> Iterator[int]:
    teams: list[list[int]] = [[] for _ in range(size.divisions)]
    for team in range(size.teams):
        teams[size.division_of_team(team)].append(team)
    weights = [list(accumulate(rng.lognormvariate(0, 0.6) for _ in found)) for found in teams]
    for _ in range(size.users):
        division = rng.randrange(size.divisions)
        if rng.random() < 0.01:
            yield NOBODY_OF_A_TEAM
        else:
            yield rng.choices(teams[division], cum_weights=weights[division])[0]


def _projects(size: Size, by_division: list[array[int]], rng: random.Random) -> list[BitMap]:
    weights = [rng.lognormvariate(0, 1.2) for _ in range(size.projects)]
    people_for_one = 3 * size.users / sum(weights)
    projects = []
    for number, weight in enumerate(weights):
        pool = by_division[number % size.divisions]
        count = max(2, min(round(weight * people_for_one), len(pool) // 4))
        elsewhere = count // 10
        members = BitMap(rng.choices(pool, k=count - elsewhere))
        for _ in range(elsewhere):
            members.add(rng.choice(rng.choice(by_division)))
        projects.append(members)
    return projects


def _nested(size: Size, rng: random.Random) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    step = size.divisions
    for number in range(0, size.projects, 5):
        others = [other for other in range(number % step, size.projects, step) if other % 5]
        found[number] = tuple(rng.sample(others, min(len(others), rng.randint(1, 3))))
    return found


def _spaces(size: Size, rng: random.Random) -> Iterator[Space]:
    def projects(division: int) -> Iterator[tuple[str, int]]:
        pool = range(division, size.projects, size.divisions)
        for project in rng.sample(pool, min(len(pool), rng.randint(0, 4))):
            yield f"project-{project}", MODERATOR if rng.random() < 0.1 else 0

    yield Space("everyone", None, (("", 0), ("project-0", ADMIN)))
    for number in range(size.divisions):
        key = f"division-{number}"
        yield Space(key, "everyone", ((key, 0), *projects(number)))
    for number in range(size.departments):
        key, division = f"department-{number}", size.division_of_department(number)
        yield Space(key, f"division-{division}", ((key, 0), *projects(division)))
    for number in range(size.teams):
        key, department = f"team-{number}", size.department_of_team(number)
        leads = (f"leads-{number}", MODERATOR)
        others = projects(size.division_of_team(number))
        yield Space(key, f"department-{department}", ((key, 0), leads, *others))


def change(shape: Shape, seed: int = SEED) -> Shape:
    """The organisation some time later: 0.1 % of its people left, came or moved to another team (one quarter,
    one quarter, one half), and one in ten thousand became a lead of their team."""
    rng = random.Random(seed + 1)
    later = Shape(
        size=shape.size,
        team_of=array("i", shape.team_of),
        leads=[list(leads) for leads in shape.leads],
        projects=[BitMap(members) for members in shape.projects],
        nested=shape.nested,
        spaces=shape.spaces,
        left=set(),
    )
    active = shape.everyone.to_array()
    some = max(1, shape.size.users // 4000)
    touched = rng.sample(active, 3 * some + max(1, shape.size.users // 10_000))
    for person in touched[:some]:
        _leave(later, person)
    for person in touched[some : 3 * some]:
        _drop_lead(later, person)
        later.team_of[person] = rng.randrange(shape.size.teams)
    for person in touched[3 * some :]:
        later.leads[later.team_of[person]].append(person)
    for _ in range(some):
        newcomer = len(later.team_of)
        later.team_of.append(rng.randrange(shape.size.teams))
        rng.choice(later.projects).add(newcomer)
    return later


def _leave(shape: Shape, person: int) -> None:
    _drop_lead(shape, person)
    shape.left.add(person)
    shape.team_of[person] = NOBODY_OF_A_TEAM
    for members in shape.projects:
        members.discard(person)


def _drop_lead(shape: Shape, person: int) -> None:
    leads = shape.leads[shape.team_of[person]]
    if person in leads:
        leads.remove(person)
