"""Who is meant by a member value of a group: a person, a container, or nobody. Pure.

In come people with their numbers, containers, and the raw values of `member`, `uniqueMember` and `memberUid`;
out go numbers of people and positions of containers. Values name DNs in any spelling, so each spelling is
looked up as it stands first and made canonical only if that fails.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aim.directory import dn
from aim.directory.entries import Value, sid, text
from aim.directory.gather import Container, Gathered
from aim.directory.localpart import localpart_of

_UID_BITS = re.compile(r"\s*#\s*'[01]*'B\s*$")
"""The optional unique identifier at the end of a uniqueMember value (RFC 4517, 3.3.21)."""

# What a name can mean, beside the number of an active user (0 and above).
_NO_USER = -1  # was read and is no active user: disabled, contested, a computer, a contact
_NOBODY_READ = -2
_FIRST_CONTAINER = -3  # and downwards: container i is -3 - i


class Members(NamedTuple):
    """What one group lists."""

    people: list[int]
    containers: list[int]
    """Positions in `Gathered.containers`."""
    unknown: list[str]
    """The values that name nobody who was read, as they are spelled."""


class Resolver:
    """Looks up names among all that was read; remembers what it found."""

    def __init__(self, gathered: Gathered, numbers: Sequence[int]) -> None:
        """`numbers` are those of the settled people, in their order."""
        self._gathered = gathered
        self._by_dn = dict.fromkeys(gathered.read, _NO_USER)
        self._by_uid: dict[str, int] | None = None
        self._numbers = numbers
        for person, number in zip(gathered.settled.people, numbers, strict=True):
            if person.user.active:
                self._by_dn[person.key] = self._by_dn[person.user.dn or person.key] = number
        for position, container in enumerate(gathered.containers):
            self._by_dn[container.key] = self._by_dn[container.dn] = _FIRST_CONTAINER - position

    def members(self, container: Container) -> Members:
        """The members that a group lists."""
        people: list[int] = []
        containers: list[int] = []
        unknown: list[str] = []
        for name, found in self._listed(container):
            if found >= 0:
                people.append(found)
            elif found <= _FIRST_CONTAINER:
                containers.append(_FIRST_CONTAINER - found)
            elif found == _NOBODY_READ:
                unknown.append(name)
        return Members(people, containers, unknown)

    def primary_members(self) -> dict[int, list[int]]:
        """Position of a group → the active users whose primary group it is, by security identifier."""
        by_sid = {}
        for position, container in enumerate(self._gathered.containers):
            values = container.attributes.get("objectsid")
            if values:
                by_sid[sid(values[0])] = position
        found: defaultdict[int, list[int]] = defaultdict(list)
        if by_sid:
            for person, number in zip(self._gathered.settled.people, self._numbers, strict=True):
                if person.primary_group in by_sid and person.primary_group and person.user.active:
                    found[by_sid[person.primary_group]].append(number)
        return found

    def _listed(self, container: Container) -> Iterable[tuple[str, int]]:
        attributes = container.attributes
        known = self._by_dn
        for attribute in ("member", "uniquemember"):
            for value in attributes.get(attribute, ()):
                name = value if isinstance(value, str) else value.decode("utf-8", "replace")
                found = known.get(name)
                if found is None:
                    found = known[name] = self._find(name)
                yield name, found
        for value in attributes.get("memberuid", ()):
            yield text(value), self._find_uid(value)

    def _find(self, name: str) -> int:
        for spelled in (name, _UID_BITS.sub("", name)):
            try:
                found = self._by_dn.get(dn.canonical(spelled))
            except ValueError:
                continue
            if found is not None:
                return found
        return _NOBODY_READ

    def _find_uid(self, value: Value) -> int:
        if self._by_uid is None:
            self._by_uid = self._uids()
        try:
            return self._by_uid.get(localpart_of(text(value).strip()), _NOBODY_READ)
        except UnicodeEncodeError:
            return _NOBODY_READ

    def _uids(self) -> dict[str, int]:
        """Localpart of a user name → number. A user's further names count where they name nobody else."""
        found = dict.fromkeys(self._gathered.settled.contested, _NO_USER)
        further: defaultdict[str, set[int]] = defaultdict(set)
        for person, number in zip(self._gathered.settled.people, self._numbers, strict=True):
            meant = number if person.user.active else _NO_USER
            found[person.user.localpart] = meant
            for uid in person.other_uids:
                further[localpart_of(uid)].add(meant)
        for localpart, meant_by in further.items():
            if len(meant_by) == 1:
                found.setdefault(localpart, *meant_by)
        return found
