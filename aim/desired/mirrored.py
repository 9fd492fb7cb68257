"""`source.mirror_tree`: the units and domains of the directory as spaces, nested as they are there. Pure.

A space's id is made of the unit's stable id: a unit that is renamed or moved keeps its space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aim.config.spaces import GroupConfig, SpaceConfig
from aim.directory.model import Branch, Directory

PREFIX = "tree:"
"""Before the stable id of a unit, in the id of its space."""


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
