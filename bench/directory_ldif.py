"""A generated organisation as LDIF for an LDAP server: `python -m bench.directory_ldif 100000 >
organisation.ldif`.

    Shape ─► write ─► LDIF ─► slapadd ─► what the LDAP bridge is measured on

The same number of people gives the same LDIF, byte for byte. The tree has a unit for each division and one
for each department in it, where its teams' people are; who is disabled is locked. A group is a `groupOfNames`
of its direct members: divisions nest departments, departments nest teams, and some projects nest others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

from bench.shape import NOBODY_OF_A_TEAM, SEED, Shape, Size, make_shape

SUFFIX = "dc=example,dc=com"
PEOPLE, GROUPS = f"ou=people,{SUFFIX}", f"ou=groups,{SUFFIX}"
_GIVEN = "alba bruno carla denis elin fabio gisela hugo inga joel katja lars mona nils olga paul".split()
_FAMILY = "arnold becker conrad dahl eriksen farkas gomes horvat iversen jonas koch lang moser".split()


@dataclass(slots=True)
class Written:
    """How much there is of what."""

    entries: int = 0
    users: int = 0
    groups: int = 0
    memberships: int = 0
    """Values of `member`."""


def size_of(users: int) -> Size:
    """An organisation with a group for every twenty people, and 1,000 people at least."""
    return Size(users=users, groups=users // 20, spaces=users // 100)


def write(shape: Shape, file: TextIO) -> Written:
    """Writes all entries, parents first."""
    written = Written()
    for dn, attributes in _units(shape.size):
        _write_entry(file, written, dn, attributes)
    for person, team in enumerate(shape.team_of):
        written.users += 1
        _write_entry(file, written, _person(shape, person), _attributes(person, team))
    for name, members in _groups(shape):
        written.groups += 1
        written.memberships += len(members)
        values = [("member", member) for member in members]
        # The class demands a member; nobody is the empty name.
        attributes = [("objectClass", "groupOfNames"), ("cn", name), *(values or [("member", "")])]
        _write_entry(file, written, _group(name), attributes)
    return written


def _write_entry(file: TextIO, written: Written, dn: str, attributes: Iterable[tuple[str, str]]) -> None:
    written.entries += 1
    lines = (f"{name}: {value}" if value else f"{name}:" for name, value in attributes)
    file.write("\n".join((f"dn: {dn}", *lines, "\n")))


def _units(size: Size) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    domain = [
        ("objectClass", "dcObject"),
        ("objectClass", "organization"),
        ("dc", "example"),
        ("o", "Example"),
    ]
    yield SUFFIX, domain
    yield _unit(PEOPLE)
    yield _unit(GROUPS)
    for number in range(size.divisions):
        yield _unit(_division(number))
    for number in range(size.departments):
        yield _unit(_department(size, number))


def _unit(dn: str) -> tuple[str, list[tuple[str, str]]]:
    name = dn.partition(",")[0].removeprefix("ou=")
    return dn, [("objectClass", "organizationalUnit"), ("ou", name)]


def _division(number: int) -> str:
    return f"ou=division-{number},{PEOPLE}"


def _department(size: Size, number: int) -> str:
    return f"ou=department-{number},{_division(size.division_of_department(number))}"


def _person(shape: Shape, person: int) -> str:
    team = shape.team_of[person]
    size = shape.size
    unit = PEOPLE if team == NOBODY_OF_A_TEAM else _department(size, size.department_of_team(team))
    return f"uid=person{person},{unit}"


def _attributes(person: int, team: int) -> Iterator[tuple[str, str]]:
    given = _GIVEN[person % len(_GIVEN)].capitalize()
    family = _FAMILY[person // len(_GIVEN) % len(_FAMILY)].capitalize()
    yield "objectClass", "inetOrgPerson"
    yield "uid", f"person{person}"
    yield "cn", f"{given} {family}"
    yield "sn", family
    yield "givenName", given
    yield "displayName", f"{given} {family} ({person})"
    yield "mail", f"{given}.{family}.{person}@example.com".lower()
    yield "telephoneNumber", f"+49 30 {person:06}"
    yield "employeeNumber", str(person)
    if team == NOBODY_OF_A_TEAM:
        # Locked for good (draft-behera-ldap-password-policy, section 5.3.3).
        yield "pwdAccountLockedTime", "000001010000Z"


def _group(name: str) -> str:
    return f"cn={name},{GROUPS}"


def _groups(shape: Shape) -> Iterator[tuple[str, list[str]]]:
    """Each group's name and the DNs of its direct members."""
    size = shape.size
    teams: list[list[str]] = [[] for _ in range(size.teams)]
    for person, team in enumerate(shape.team_of):
        if team != NOBODY_OF_A_TEAM:
            teams[team].append(_person(shape, person))
    departments: list[list[str]] = [[] for _ in range(size.departments)]
    divisions: list[list[str]] = [[] for _ in range(size.divisions)]
    for team in range(size.teams):
        departments[size.department_of_team(team)].append(_group(f"team-{team}"))
    for department in range(size.departments):
        divisions[size.division_of_department(department)].append(_group(f"department-{department}"))
    yield from _named("division", divisions)
    yield from _named("department", departments)
    yield from _named("team", teams)
    yield from _named("leads", ([_person(shape, lead) for lead in leads] for leads in shape.leads))
    for number, members in enumerate(shape.projects):
        nested = [_group(f"project-{inner}") for inner in shape.nested.get(number, ())]
        yield f"project-{number}", [_person(shape, member) for member in members] + nested


def _named(kind: str, groups: Iterable[list[str]]) -> Iterator[tuple[str, list[str]]]:
    return ((f"{kind}-{number}", members) for number, members in enumerate(groups))


def main() -> None:
    """`python -m bench.directory_ldif USERS [SEED]`."""
    users, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    print(write(make_shape(size_of(users), seed), sys.stdout), file=sys.stderr)


if __name__ == "__main__":
    main()
