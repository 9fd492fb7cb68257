"""The first step of flattening: every entry is read once and sorted by what it is. Pure.

In come entries in any order; out go people told apart, and containers with what they hold as yet unread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from aim.directory import dn
from aim.directory.entries import Attributes, Entry, Rules, first
from aim.directory.kinds import kind_of
from aim.directory.model import GroupKind
from aim.directory.people import Reader, Settled, is_trust_account
from aim.errors import SourceInvalid

_NAMES = {
    GroupKind.GROUP: ("cn",),
    GroupKind.OU: ("ou",),
    GroupKind.DOMAIN: ("o", "dc"),
}


class Container(NamedTuple):
    """A group, organisational unit or domain as it was read."""

    dn: str
    key: str
    """Canonical DN."""
    kind: GroupKind
    name: str
    attributes: Attributes
    is_person: bool
    """True for an entry that is a user as well."""


@dataclass(slots=True)
class Gathered:
    """All that was read, before anybody has a number."""

    settled: Settled
    containers: list[Container]
    """Sorted by DN."""
    read: set[str]
    """Canonical DNs of all entries."""
    unreadable: int
    """How many entries had no object class."""


def gather(entries: Iterable[Entry], rules: Rules) -> Gathered:
    """Reads all entries. SourceInvalid if a DN is malformed or two entries have the same."""
    read: set[str] = set()
    people = Reader(rules)
    containers: list[Container] = []
    unreadable = 0
    for entry in entries:
        key = _unique_key(entry.dn, read)
        attributes = entry.attributes
        classes = attributes.get("objectclass")
        if not classes:
            unreadable += 1
            continue
        kind = kind_of(tuple(classes))
        is_person = kind.is_person and not is_trust_account(attributes)
        if is_person:
            people.add(entry, key)
        if kind.container is not None:
            name = _name(attributes, key, kind.container, rules)
            containers.append(Container(entry.dn, key, kind.container, name, attributes, is_person))
    containers.sort(key=lambda container: container.dn)
    return Gathered(people.settle(), containers, read, unreadable)


def top_name(containers: Iterable[Container]) -> str | None:
    """What the topmost domain or unit calls itself (o, dc, ou); of several, the first by DN."""
    roots = [container for container in containers if container.kind is not GroupKind.GROUP]
    if not roots:
        return None
    top = min(roots, key=lambda container: (dn.depth(container.key), container.key))
    return first(top.attributes, ("o", "dc", "ou")) or top.name


def _unique_key(spelled: str, read: set[str]) -> str:
    try:
        key = dn.canonical(spelled)
    except ValueError as error:
        raise SourceInvalid(
            f"an entry's DN is no DN: {spelled} ({error})", "Mend the entry, or export the directory again."
        ) from error
    if key in read:
        raise SourceInvalid(
            f"two entries have the DN {spelled}",
            "Read or export the directory again, in one go: it may have changed meanwhile.",
        )
    read.add(key)
    return key


def _name(attributes: Attributes, key: str, kind: GroupKind, rules: Rules) -> str:
    """By the configured attributes, else by the one usual for the kind, else by the DN."""
    return first(attributes, (*rules.name, *_NAMES[kind])) or (dn.parse(key)[0][0][1] if key else "")
