"""The organisation of the live benchmarks: generated, the same for the same size.

    company ─► divisions ─► teams        each a unit of the directory and a space

Everybody is in one team, and so in its division and in the company. The first of each team leads it, with
power level 50 in its space.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SUFFIX = "dc=bench,dc=example"
FIRST_INVITES = 50
"""People who can be invited with a `createRoom`: it invites one after the other before it answers, and more
would keep it from answering for long."""
TEAMS_OF_A_DIVISION = 9
_NAMESPACE = uuid.UUID("5c0e3c5a-7d0b-4f2e-9a39-0d5bb4f3c7a2")


@dataclass(frozen=True, slots=True)
class Organisation:
    """So many people, in so many spaces."""

    users: int
    spaces: int

    @property
    def divisions(self) -> int:
        return max(1, (self.spaces - 1) // (TEAMS_OF_A_DIVISION + 1))

    @property
    def teams(self) -> int:
        return self.spaces - 1 - self.divisions

    def team_of(self, person: int) -> int:
        return person % self.teams

    def division_of(self, team: int) -> int:
        return team % self.divisions

    def members(self) -> dict[str, list[str]]:
        """Space → localparts."""
        found: dict[str, list[str]] = {"company": []}
        found |= {f"division-{number}": [] for number in range(self.divisions)}
        found |= {f"team-{number}": [] for number in range(self.teams)}
        for person in range(self.users):
            team = self.team_of(person)
            for space in ("company", f"division-{self.division_of(team)}", f"team-{team}"):
                found[space].append(localpart(person))
        return found

    def leads(self) -> dict[str, str]:
        """Space → localpart of its moderator."""
        return {f"team-{team}": localpart(team) for team in range(min(self.teams, self.users))}

    def least_requests(self, accounts: int | None = None) -> dict[str, int]:
        """The fewest requests that can make all of it, by kind, if so many people (None: all) have accounts.

        A space, with its state, levels, marker and first invites, is one `createRoom`. Nobody else can be
        invited by less than a request. A space does not exist when the one that it lies in is made, or the
        other way round: one of the two links has to be written afterwards.
        """
        count = self.users if accounts is None else accounts
        known = {localpart(person) for person in range(count)}
        sizes = [sum(name in known for name in people) for people in self.members().values()]
        return {
            "createRoom": len(sizes),
            "invite": sum(max(0, size - FIRST_INVITES) for size in sizes),
            "m.space.child": len(sizes) - 1,
        }

    def config(self) -> list[dict[str, Any]]:
        """`spaces` as the configuration has it."""
        divisions: list[dict[str, Any]] = [
            {"id": f"division-{number}", "name": f"Division {number}", "subspaces": []}
            | {"groups": [{"externalId": self._division_dn(number)}]}
            for number in range(self.divisions)
        ]
        for team in range(self.teams):
            groups: list[dict[str, Any]] = [{"externalId": self._team_dn(team)}]
            if f"team-{team}" in self.leads():
                groups.append({"externalId": f"cn=leads-{team},{SUFFIX}", "powerLevel": 50})
            space = {"id": f"team-{team}", "name": f"Team {team}", "groups": groups}
            divisions[self.division_of(team)]["subspaces"].append(space)
        company = {"id": "company", "name": "Company", "groups": [{"externalId": ""}]}
        return [company | {"subspaces": divisions}]

    def ldif(self) -> str:
        """The whole directory as an export (RFC 2849)."""
        return "version: 1\n\n" + "\n".join(self._records())

    def _records(self) -> Iterator[str]:
        yield _record(SUFFIX, "domain", "dc: bench")
        for number in range(self.divisions):
            yield _record(self._division_dn(number), "organizationalUnit", f"ou: division-{number}")
        for team in range(self.teams):
            yield _record(self._team_dn(team), "organizationalUnit", f"ou: team-{team}")
        for person in range(self.users):
            yield _record(self._dn(person), "inetOrgPerson", *_about(person))
        for team in range(min(self.teams, self.users)):
            member = f"member: {self._dn(team)}"
            yield _record(f"cn=leads-{team},{SUFFIX}", "groupOfNames", f"cn: leads-{team}", member)

    def _division_dn(self, number: int) -> str:
        return f"ou=division-{number},{SUFFIX}"

    def _team_dn(self, team: int) -> str:
        return f"ou=team-{team},{self._division_dn(self.division_of(team))}"

    def _dn(self, person: int) -> str:
        return f"uid={localpart(person)},{self._team_dn(self.team_of(person))}"

    def __str__(self) -> str:
        return f"{self.users:,} users / {self.spaces:,} spaces"


def localpart(person: int) -> str:
    """The localpart of a person, by number."""
    return f"person{person:05}"


def _about(person: int) -> Iterator[str]:
    name = localpart(person)
    yield from (f"uid: {name}", f"cn: {name.title()}", f"displayName: {name.title()}")
    yield f"mail: {name}@bench.example"


def _record(dn: str, object_class: str, *lines: str) -> str:
    entry_id = uuid.uuid5(_NAMESPACE, dn)
    return "\n".join([f"dn: {dn}", f"objectClass: {object_class}", f"entryUUID: {entry_id}", *lines]) + "\n"
