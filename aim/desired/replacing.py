"""Rooms of people that we can manage only in part, and that are to be replaced by one of ours. Pure.

In: a room of people, and what is desired of it. Out: the desired room in its place. It has a key of its own,
made of the old room's id: both can be told apart while both are there, and what is made is found again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from aim.desired.levels import ADMIN, has_privileged_creators
from aim.desired.rooms import DesiredRoom
from aim.directory.roster import NOBODY, People, Roster
from aim.world.rooms import Observed, Room

PREFIX = "replacement:"
"""Before the id of the old room, in the key of the one that replaces it."""
_NAME = "m.room.name"
_ALLOWED = ("type", "room_id")


def replacement_key(room_id: str) -> str:
    """Our key of the room that takes the place of that one."""
    return PREFIX + room_id


def local_creators(room: Room, observed: Observed, roster: Roster) -> People:
    """People of our homeserver who stand above every level there, the bot left out."""
    if not has_privileged_creators(room.version):
        return NOBODY
    suffix = f":{observed.server_name}"
    names = (
        mxid[1:].removesuffix(suffix) for mxid in room.creators - {observed.bot} if mxid.endswith(suffix)
    )
    return People(person for name in names if (person := roster.find(name)) is not None)


def is_replaced_by(old: str, new: Room | None) -> bool:
    """Whether that room of ours was made in the old one's place. Only who makes a room says so in it."""
    ours = new is not None and new.marker is not None and not new.marker.is_taken_over
    return ours and new is not None and new.key == replacement_key(old) and new.predecessor == old


@dataclass(frozen=True, slots=True)
class Replacing:
    """Which rooms are replaced."""

    observed: Observed
    roster: Roster
    is_ruled: Callable[[int], bool]
    """Whether the directory rules somebody's level, and they may be acted as."""
    gone: Collection[str]
    """Keys of which no room is made: we made one before."""
    is_on: bool = False
    """`provisioner.replace_unmanageable_rooms`. What was begun is finished without it."""

    def concerns(self, room: Room, desired: DesiredRoom) -> bool:
        """Whether another room is, or is to be, in the place of this one."""
        key = replacement_key(room.room_id)
        new = self.observed.rooms.get(key)
        if new is not None:
            return new.bot == "join" and is_replaced_by(room.room_id, new)
        return self.is_on and key not in self.gone and self._outranks_us(room, desired)

    def _outranks_us(self, room: Room, desired: DesiredRoom) -> bool:
        """Whether somebody in it, who belongs there, stands higher than the directory has it, for good."""
        if room.is_space or self.observed.bot in room.creators:
            return False
        above = local_creators(room, self.observed, self.roster) & room.joined & desired.members
        wanted = desired.levels_by_person() if above else {}
        above -= desired.spared
        return any(wanted.get(person, 0) < ADMIN and self.is_ruled(person) for person in above)


def instead_of(room: Room, desired: DesiredRoom, spaces: Sequence[str]) -> DesiredRoom:
    """The room to be made in the place of `room`, which is a child of these spaces; `desired` is what that
    one would be. It gets the same name, look and rules."""
    name = room.state.get(_NAME, {}).get("name")
    return replace(
        in_place_of(room.room_id, desired, spaces),
        key=replacement_key(room.room_id),
        name=name if isinstance(name, str) else "",
        state={kind: _copied(content) for kind, content in room.state.items()},
        takes_over=None,
        room_version=room.version,
        moving=room.joined & desired.members,
    )


def in_place_of(old: str, desired: DesiredRoom, spaces: Sequence[str]) -> DesiredRoom:
    """The desired room, told to be a child of these spaces, and `old` of none."""
    parent = spaces[0] if spaces else None
    return replace(desired, replaces=old, parent=parent, also_in=tuple(spaces[1:]))


def _copied(content: Mapping[str, object]) -> Mapping[str, object]:
    """Of join rules what the protocol knows, and nothing that we would take for a key of ours."""
    allow = content.get("allow")
    if not isinstance(allow, list):
        return content
    rules = [rule for rule in allow if isinstance(rule, Mapping) and all(key in rule for key in _ALLOWED)]
    return {**content, "allow": [{key: rule[key] for key in _ALLOWED} for rule in rules]}
