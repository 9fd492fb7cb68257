"""Keys: the part of the world that a cycle covers. Pure.

A full cycle covers everything; an event covers a room, a space or a person. `diff(world, keys)` is exactly
`diff(world)` restricted to what `keys.cover`.
"""

from __future__ import annotations

from dataclasses import dataclass

from aim.planner.actions import Action, PersonAction


@dataclass(frozen=True, slots=True)
class Keys:
    """Room keys, and MXIDs of people whose memberships and levels are looked at in every room."""

    rooms: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()

    def cover(self, action: Action) -> bool:
        """Whether the action belongs to these keys."""
        return action.room in self.rooms or (
            isinstance(action, PersonAction) and action.person in self.people
        )
