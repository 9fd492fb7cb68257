"""`source.mirror_tree`: the units and domains of the directory as spaces, nested as they are there. Pure.

A space's id is made of the unit's stable id: a unit that is renamed or moved keeps its space. As nobody has
chosen that id, `space_names` gives what people know such a space by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from aim.config.spaces import GroupConfig, SpaceConfig
from aim.desired.rooms import DesiredRoom
from aim.directory.model import Branch, Directory

PREFIX = "tree:"
"""Before the stable id of a unit, in the id of its space."""


def is_mirrored(key: str) -> bool:
    """Whether a space, or the space of a default room, stands for a unit."""
    return key.startswith(PREFIX)


def space_names(rooms: Mapping[str, DesiredRoom]) -> dict[str, str]:
    """Key of a mirrored space → its name, for texts that people read. Other spaces are known by their keys.

    A name that another space has too is given with the names of the spaces above it, and if that does not
    tell them apart either, with the key.
    """
    others = [key for key, room in rooms.items() if room.is_space and not is_mirrored(key)]
    names = {key: room.name for key, room in rooms.items() if room.is_space and is_mirrored(key)}
    counts = Counter([*names.values(), *others])
    names = {key: name if counts[name] == 1 else _path(rooms, key) for key, name in names.items()}
    counts = Counter([*names.values(), *others])
    return {key: name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items()}


def _path(rooms: Mapping[str, DesiredRoom], key: str | None) -> str:
    names: list[str] = []
    while key is not None:
        names.append(rooms[key].name)
        key = rooms[key].parent
    return " / ".join(reversed(names))


def mirrored_spaces(directory: Directory) -> tuple[SpaceConfig, ...]:
    """The spaces at the top, each with its subspaces."""
    return _spaces(directory, directory.branches(), None)


def _spaces(
    directory: Directory, below: Mapping[str | None, Sequence[Branch]], parent: str | None
) -> tuple[SpaceConfig, ...]:
    return tuple(
        # Not validated: names come from the directory as they are, and are nobody's typing mistake.
        SpaceConfig.model_construct(
            id=PREFIX + branch.id,
            name=" ".join(directory.groups[branch.group].name.split()) or branch.id,
            groups=(
                GroupConfig.model_construct(external_id=directory.groups[branch.group].id, power_level=0),
            ),
            federated_groups=(),
            subspaces=_spaces(directory, below, branch.id),
        )
        for branch in below.get(parent, ())
    )
