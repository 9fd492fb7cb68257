"""The demo's organisation: some forty invented people, as an LDIF export (RFC 2849).

Immutable: `moved`, `promoted` and `left` give a changed copy, as a directory changes under `aim`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

SUFFIX = "dc=harbour,dc=example"
_NAMESPACE = uuid.UUID("6a1f6c0e-8a53-4c0b-9d1e-2f6d2b1f7c55")
_GIVEN = (
    "Ada Bela Cleo Dara Emil Fina Gero Hana Ivan Jule Kaya Lino Mira Nilo Olga Pia Quin Rosa Sami Tara "
    "Udo Vera Wim Xenia Yara Zeno Alma Bruno Carla Dino Elif Franz Greta Hugo Ines Jona Kira Leon Mona Nino"
).split()
_FAMILY = "Anker Bake Deich Ebbe Fleet Gezeit Hafen Kiel Lotse Mole".split()
_UNITS = {
    "engineering": 10,
    "platform,ou=engineering": 6,
    "support": 9,
    "sales": 8,
    "people": 7,
}


@dataclass(frozen=True, slots=True)
class Person:
    uid: str
    name: str
    unit: str
    """`ou` components below the suffix."""

    @property
    def dn(self) -> str:
        return f"uid={self.uid},{self.unit_dn}"

    @property
    def unit_dn(self) -> str:
        return f"ou={self.unit},{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Organisation:
    """Who is where, and who moderates what."""

    people: tuple[Person, ...]
    groups: Mapping[str, tuple[str, ...]]
    """CN of a group → uids of its members."""

    def person(self, uid: str) -> Person:
        return next(person for person in self.people if person.uid == uid)

    def moved(self, uid: str, unit: str) -> Organisation:
        """Somebody works in another unit."""
        people = (replace(person, unit=unit) if person.uid == uid else person for person in self.people)
        return replace(self, people=tuple(people))

    def promoted(self, uid: str, group: str) -> Organisation:
        """Somebody joins a group."""
        return replace(self, groups={**self.groups, group: (*self.groups[group], uid)})

    def left(self, uid: str) -> Organisation:
        """Somebody is no longer in the directory, nor in any group."""
        groups = {name: tuple(m for m in members if m != uid) for name, members in self.groups.items()}
        return Organisation(tuple(person for person in self.people if person.uid != uid), groups)

    def ldif(self) -> str:
        """The whole directory as an export."""
        return "version: 1\n\n" + "\n".join(self._records())

    def _records(self) -> Iterator[str]:
        yield _record(SUFFIX, "domain", dc="harbour", name="Harbour Works")
        for unit in sorted({*_UNITS, *(person.unit for person in self.people)}, key=_depth):
            yield _record(f"ou={unit},{SUFFIX}", "organizationalUnit", ou=unit.split(",")[0])
        for person in self.people:
            yield _record(
                person.dn,
                "inetOrgPerson",
                uid=person.uid,
                cn=person.name,
                displayName=person.name,
                mail=f"{person.uid}@harbour.example",
            )
        for name, members in self.groups.items():
            dns = [self.person(uid).dn for uid in members]
            yield _record(f"cn={name},{SUFFIX}", "groupOfNames", cn=name, member=dns)


def harbour_works() -> Organisation:
    """The organisation as the demo finds it."""
    people = []
    units = [unit for unit, size in _UNITS.items() for _ in range(size)]
    for position, (given, unit) in enumerate(zip(_GIVEN, units, strict=True)):
        family = _FAMILY[position * 7 % len(_FAMILY)]
        people.append(Person(f"{given}.{family}".lower(), f"{given} {family}", unit))
    heads = {unit: next(person.uid for person in people if person.unit == unit) for unit in _UNITS}
    groups = {
        "leads": tuple(heads.values()),
        "engineering-moderators": (heads["engineering"], heads["platform,ou=engineering"]),
        "support-moderators": (heads["support"],),
    }
    return Organisation(tuple(people), groups)


def _depth(unit: str) -> tuple[int, str]:
    return unit.count(","), unit


def _record(dn: str, object_class: str, **attributes: str | list[str]) -> str:
    lines = [f"dn: {dn}", f"objectClass: {object_class}", f"entryUUID: {uuid.uuid5(_NAMESPACE, _stable(dn))}"]
    for name, values in attributes.items():
        lines += [f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)]
    return "\n".join(lines) + "\n"


def _stable(dn: str) -> str:
    """What stays when an entry moves: its own name."""
    return dn.split(",", 1)[0]
