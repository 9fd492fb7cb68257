"""The organisation of the journeys: a dozen invented people, as an LDIF export (RFC 2849).

Immutable: each change gives a changed copy, as a directory changes under `aim`. `spaces` is the configuration
that belongs to it, and `expected` says, by rules of its own, who must be where in the end.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SUFFIX = "dc=yard,dc=example"
_NAMESPACE = uuid.UUID("0f6b1c52-9a57-4a0e-8f0e-2f6f3d6a1c11")
PLATFORM = "platform,ou=engineering"


@dataclass(frozen=True, slots=True)
class Person:
    uid: str
    unit: str
    """`ou` components below the suffix; empty: right below it."""
    id: str

    @property
    def dn(self) -> str:
        return f"uid={self.uid},{unit_dn(self.unit)}"


@dataclass(frozen=True, slots=True)
class Organisation:
    people: Mapping[str, Person] = field(default_factory=dict)
    """By uid."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """CN of a group → uids of its members."""

    def joined(self, uid: str, unit: str = "", entry: str = "") -> Organisation:
        """Somebody new is hired, or back; of one uid and `entry` the id is always the same."""
        person = Person(uid, unit, _id(entry or uid))
        return replace(self, people={**self.people, uid: person})

    def moved(self, uid: str, unit: str) -> Organisation:
        return replace(self, people={**self.people, uid: replace(self.people[uid], unit=unit)})

    def promoted(self, uid: str, group: str) -> Organisation:
        """Somebody joins a group."""
        return replace(self, groups={**self.groups, group: (*self.groups[group], uid)})

    def demoted(self, uid: str, group: str) -> Organisation:
        """Somebody leaves a group."""
        members = tuple(member for member in self.groups[group] if member != uid)
        return replace(self, groups={**self.groups, group: members})

    def left(self, *uids: str) -> Organisation:
        """These are no longer in the directory, nor in any group."""
        people = {uid: person for uid, person in self.people.items() if uid not in uids}
        groups = {name: tuple(m for m in members if m not in uids) for name, members in self.groups.items()}
        return Organisation(people, groups)

    def renamed(self, old: str, new: str) -> Organisation:
        """Somebody has another uid, and is the same entry still."""
        groups = {name: tuple(new if m == old else m for m in ms) for name, ms in self.groups.items()}
        people = dict(self.people)
        people[new] = replace(people.pop(old), uid=new)
        return Organisation(people, groups)

    def replaced(self, uid: str) -> Organisation:
        """The entry was made anew: same uid, new id."""
        return self.joined(uid, self.people[uid].unit, f"{uid} again")

    def ldif(self) -> str:
        """The whole directory as an export."""
        return "version: 1\n\n" + "\n".join(self._records())

    def _records(self) -> Iterator[str]:
        yield _record(SUFFIX, "domain", dc="yard")
        for unit in ("engineering", PLATFORM, "sales"):
            yield _record(unit_dn(unit), "organizationalUnit", ou=unit.split(",")[0])
        for person in self.people.values():
            name = person.uid.title()
            yield _record(person.dn, "inetOrgPerson", person.id, uid=person.uid, cn=name, displayName=name)
        for name, members in self.groups.items():
            dns = [self.people[uid].dn for uid in members]
            yield _record(f"cn={name},{SUFFIX}", "groupOfNames", cn=name, member=dns)


def the_yard() -> Organisation:
    """Twelve people in three units; one leads the whole, two moderate their space."""
    units = {"": "kaya", "engineering": "ada bela cleo", PLATFORM: "emil fina"}
    units["sales"] = "gero hana ivan jule lino mira"
    organisation = Organisation(
        groups={"leads": (), "engineering-moderators": (), "sales-moderators": (), "empty": ()}
    )
    for unit, uids in units.items():
        for uid in uids.split():
            organisation = organisation.joined(uid, unit)
    organisation = organisation.promoted("kaya", "leads")
    return organisation.promoted("ada", "engineering-moderators").promoted("gero", "sales-moderators")


def spaces() -> list[dict[str, Any]]:
    """Four spaces: company ⊃ (engineering ⊃ platform), sales."""
    platform = {"id": "platform", "name": "Platform", "groups": [{"externalId": unit_dn(PLATFORM)}]}
    engineering = _unit("engineering") | {"subspaces": [platform]}
    groups = [{"externalId": ""}, {"externalId": f"cn=leads,{SUFFIX}", "powerLevel": 50}]
    company = {"id": "company", "name": "The Yard", "groups": groups}
    return [company | {"subspaces": [engineering, _unit("sales")]}]


PARENTS = {"company": None, "engineering": "company", "platform": "engineering", "sales": "company"}
"""Space → the space it is in."""
NAMES = {
    "company": "The Yard",
    "engineering": "Engineering",
    "platform": "Platform",
    "sales": "Sales",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """Who must be in a space and its default rooms."""

    members: frozenset[str]
    """Uids."""
    moderators: frozenset[str]


def expected(organisation: Organisation) -> dict[str, Expected]:
    """Space → who is in it. People without an account are the caller's business."""
    units = {"company": "", "engineering": "engineering", "platform": PLATFORM, "sales": "sales"}
    groups = {"company": "leads", "engineering": "engineering-moderators", "sales": "sales-moderators"}
    found = {}
    for space, unit in units.items():
        inside = frozenset(
            person.uid
            for person in organisation.people.values()
            if not unit or person.unit == unit or person.unit.endswith(f",ou={unit}")
        )
        moderators = frozenset(organisation.groups.get(groups.get(space, ""), ()))
        # Whoever moderates a space is in it, wherever they work.
        found[space] = Expected(inside | moderators, moderators)
    return found


def unit_dn(unit: str) -> str:
    return f"ou={unit},{SUFFIX}" if unit else SUFFIX


def _unit(name: str) -> dict[str, Any]:
    groups = [
        {"externalId": unit_dn(name)},
        {"externalId": f"cn={name}-moderators,{SUFFIX}", "powerLevel": 50},
    ]
    return {"id": name, "name": name.title(), "groups": groups}


def _id(entry: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, entry))


def _record(dn: str, object_class: str, entry_id: str = "", **attributes: str | list[str]) -> str:
    lines = [f"dn: {dn}", f"objectClass: {object_class}", f"entryUUID: {entry_id or _id(dn)}"]
    for name, values in attributes.items():
        lines += [f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)]
    return "\n".join(lines) + "\n"
