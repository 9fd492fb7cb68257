"""The reference: the least that any program must do here, written as plainly as Python allows.

For each space a set of localparts: the union of its groups' member sets and of its subspaces' members. No
power levels, no identity, no comparison with anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.organisation import localpart_of_person
from bench.shape import Size, make_shape


@dataclass(frozen=True, slots=True)
class Reference:
    """Plain data, and only what the loop needs."""

    groups: Mapping[str, frozenset[str]]
    """Members by name; `''` is everyone."""
    spaces: Sequence[tuple[str, str | None, tuple[str, ...]]]
    """Key, key of the parent, names of groups. Children before their parents."""


def make_reference(size: Size) -> Reference:
    """The same organisation as `organisation` makes, unchanged."""
    shape = make_shape(size)
    localparts = [localpart_of_person(person) for person in range(len(shape.team_of))]
    groups = {
        name: frozenset(localparts[person] for person in members)
        for name, members in (*shape.groups(), ("", shape.everyone))
    }
    spaces = [
        (space.key, space.parent, tuple(group for group, _ in space.groups))
        for space in reversed(shape.spaces)
    ]
    return Reference(groups, spaces)


def unite(reference: Reference) -> dict[str, set[str]]:
    """Everyone in each space."""
    members: dict[str, set[str]] = {key: set() for key, _, _ in reference.spaces}
    for key, parent, groups in reference.spaces:
        found = members[key]
        for group in groups:
            found |= reference.groups[group]
        if parent is not None:
            members[parent] |= found
    return members
