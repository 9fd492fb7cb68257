"""`spaces[].room`: an existing space, named by alias or id, that is taken over instead of making one. Pure.

In: the configured spaces, and what the homeserver says of the rooms they name. Out: the room's id, or a
problem; never a second space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aim.config.root import Config
from aim.config.spaces import SpaceConfig
from aim.directory.model import Directory, Problem, Severity
from aim.world.rooms import Observed

INSIDERS = 20
"""So many people are tried, to look into a space that the bot is not in."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What becomes of one `room`."""

    room_id: str = ""
    """"" if it can't be had: nothing is made in its place."""
    problem: Problem | None = None


def adopted(space: SpaceConfig, name: str, observed: Observed) -> Adopted:
    """The room that `name`, an alias or a room id, means for this space."""
    managed = observed.rooms.get(space.id)
    room_id = name if name.startswith("!") else observed.aliases.get(name)
    if managed is not None:
        if room_id in {managed.room_id, None}:
            # An alias may go once the space is ours.
            return Adopted(managed.room_id)
        return Adopted(
            managed.room_id,
            Problem(
                Severity.WARNING,
                space.id,
                f"has the space {managed.room_id} already: `room: {name}` has no effect; give it a new id to "
                "take that one over",
            ),
        )
    fault = _fault(name, room_id, observed)
    if fault is not None or room_id is None:
        return Adopted("", Problem(Severity.ERROR, space.id, f"`room: {name}` {fault}; no other one is made"))
    return Adopted(room_id)


def _fault(name: str, room_id: str | None, observed: Observed) -> str | None:
    """Why that room can't be taken over, as far as the room itself shows it."""
    if room_id is None:
        return f"is not found: {observed.unseen.get(name, 'the homeserver knows no such alias')}"
    owner = next((key for key, room in observed.rooms.items() if room.room_id == room_id), None)
    if owner is not None:
        return f"is managed as {owner} already"
    room = observed.unmanaged.get(room_id)
    if room is None:
        return f"can't be looked into: {observed.unseen.get(room_id, 'nobody of ours is in it')}"
    if not room.is_space:
        return "is a room, not a space"
    if room.replacement is not None:
        return f"was replaced{f' by {room.replacement}' if room.replacement else ''}: name the new one"
    return None


def wanted_rooms(config: Config, directory: Directory) -> Mapping[str, Sequence[str]]:
    """Every `room` of the configuration → localparts of people who may well be in it, the likeliest first:
    whoever is to have the highest level there. It takes somebody inside to look into it."""
    found: dict[str, Sequence[str]] = {}
    for space in _all(config.spaces):
        if space.room is not None:
            found.setdefault(space.room, tuple(_insiders(space, directory)))
    return found


def _all(spaces: Iterable[SpaceConfig]) -> Iterator[SpaceConfig]:
    for space in spaces:
        yield space
        yield from _all(space.subspaces)


def _insiders(space: SpaceConfig, directory: Directory) -> Iterator[str]:
    named: dict[str, None] = {}
    for group in sorted(space.groups, key=lambda group: -group.power_level):
        if group.external_id == "":
            people = [directory.everyone]
        else:
            people = [found.members for found in directory.find(group.external_id)]
        for members in people:
            named |= dict.fromkeys(directory.roster.localparts(members))
        if len(named) >= INSIDERS:
            break
    return iter(list(named)[:INSIDERS])
