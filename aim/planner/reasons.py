"""Why somebody is, or is not, in a room with that level: the words behind each action on a person. Pure."""

from __future__ import annotations

from aim.desired.desire import EVERYONE
from aim.desired.mirrored import space_names
from aim.desired.rooms import DesiredRoom, Grant
from aim.planner.world import World

_NAMED = 2
"""So many groups are named in a reason; the rest is counted."""


class Reasons:
    """Answers for one world. Goes through the directory's users only when first asked about a missing one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._disabled: frozenset[str] | None = None
        self._names: dict[str, str] | None = None

    def entitled(self, room: DesiredRoom, person: int) -> str:
        """Why the person belongs into the room: the group, and the subspaces on the way to it."""
        for grant in room.grants:
            if person in grant.people:
                return _member_of(grant) + _as_asked(room)
        for key in room.subspaces:
            subspace = self._world.desired.rooms[key]
            if person in subspace.members:
                return f"in its subspace {self.named(key)}: {self.entitled(subspace, person)}"
        return "member"

    def level(self, room: DesiredRoom, person: int, level: int) -> str:
        """Why the person has this level there."""
        for grant in room.grants:
            if level and grant.level == level and person in grant.people:
                return f"{_member_of(grant)}, which gives level {level}{_as_asked(room)}"
        if person in room.members:
            return f"no group of theirs gives more than level {level} here"
        return self.lost(room, person)

    def lost(self, room: DesiredRoom, person: int) -> str:
        """Why the person has no right to be in the room."""
        if room.leaves is not None:
            return room.leaves
        known = person in self._world.recorded.entitled.get(room.key, ())
        if person not in self._world.desired.directory.everyone:
            if self._is_disabled(person):
                return "disabled in the directory"
            return "no longer in the directory" if known else "not in the directory"
        groups = [grant.group for grant in room.grants if grant.group != EVERYONE]
        if not groups:
            return "no longer in any subspace" if known else "in no group of this space"
        named = " or ".join(groups[:_NAMED])
        if len(groups) > _NAMED:
            named += f" or {len(groups) - _NAMED} more groups"
        return f"{'no longer' if known else 'not'} in {named}"

    def named(self, key: str) -> str:
        """What people know a space by: the name of a mirrored one, whose key nobody has chosen."""
        if self._names is None:
            self._names = space_names(self._world.desired.rooms)
        return self._names.get(key, key)

    def _is_disabled(self, person: int) -> bool:
        if self._disabled is None:
            users = self._world.desired.directory.users
            self._disabled = frozenset(user.localpart for user in users if not user.active)
        return self._world.roster.localpart(person) in self._disabled


def _as_asked(room: DesiredRoom) -> str:
    """Who wants it so, where it is not our own configuration."""
    return "" if room.peer is None else f", as {room.peer} expects"


def _member_of(grant: Grant) -> str:
    return "in the directory" if grant.group == EVERYONE else f"member of {grant.group}"
