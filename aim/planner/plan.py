"""The plan: what the diff found, as the guards let it. Pure.

In: a world, and keys if only a part is asked for. Out: what is shown, saved, approved and executed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from aim.desired.mirrored import is_mirrored, space_names
from aim.directory.model import Problem
from aim.planner.actions import AnyAction
from aim.planner.agents import next_removal
from aim.planner.diff import diff
from aim.planner.guards import Trip, judge
from aim.planner.keys import Keys
from aim.planner.world import World


@dataclass(frozen=True, slots=True)
class SourceCount:
    """What the directory held."""

    type: str
    users: int
    groups: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered changes with their reasons, and what a person should know besides."""

    source: SourceCount
    actions: tuple[AnyAction, ...] = ()
    problems: tuple[Problem, ...] = ()
    pending: int = 0
    """People entitled to something who have no account yet."""
    trips: tuple[Trip, ...] = ()
    """The limits that hold something."""
    holding: frozenset[str] = frozenset()
    """Identities of everything that is held in the whole world, whatever the keys."""
    server_name: str = ""
    parents: Mapping[str, str | None] = field(default_factory=dict)
    """Space → the space it is in: how the plan is shown."""
    wakes_at: datetime | None = None
    """When more is to be done although nothing has changed; None: never. UTC."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What people know mirrored spaces by, where their keys would tell them nothing."""

    @property
    def held(self) -> tuple[AnyAction, ...]:
        return tuple(action for action in self.actions if action.held)

    @property
    def due(self) -> tuple[AnyAction, ...]:
        """What a cycle would do now."""
        return tuple(action for action in self.actions if not action.held)

    def named(self, key: str) -> str:
        """What people know a space or a default room by; anything else as it is."""
        space, slash, room = key.rpartition("/")
        if key in self.names or space not in self.names:
            return self.names.get(key, key)
        return self.names[space] + slash + room

    @property
    def by_type(self) -> Mapping[str, int]:
        return dict(sorted(Counter(str(action.type) for action in self.actions).items()))


def make_plan(world: World, keys: Keys | None = None) -> Plan:
    """The plan for the world, or for the part that `keys` cover. Guards always look at the whole world."""
    whole = diff(world)
    verdict = judge(world, whole.actions)
    wanted = whole.actions if keys is None else diff(world, keys).actions
    directory = world.desired.directory
    return Plan(
        source=SourceCount(directory.source, len(directory.users), len(directory.groups)),
        actions=tuple(action.hold() if action.identity in verdict.held else action for action in wanted),
        problems=whole.problems,
        pending=len(whole.pending),
        trips=verdict.trips,
        holding=verdict.held,
        server_name=world.observed.server_name,
        parents={key: room.parent for key, room in world.desired.rooms.items() if room.is_space},
        names=_names(world),
        wakes_at=next_removal(world),
    )


def _names(world: World) -> Mapping[str, str]:
    """Of the mirrored spaces, and of those whose unit is gone; of the rooms of other servers."""
    names = space_names(world.desired.rooms)
    for key, desired in world.desired.rooms.items():
        if desired.peer is not None:
            names[key] = f"{' '.join(desired.name.split())} (of {desired.peer})"
    for key, room in world.observed.rooms.items():
        if room.is_space and is_mirrored(key) and key not in world.desired.rooms:
            name = " ".join(str(room.state.get("m.room.name", {}).get("name", "")).split())
            names[key] = f"{name} ({key})" if name else key
    return names
