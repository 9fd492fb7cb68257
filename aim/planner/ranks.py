"""Who stands above whom in one room: what the bot can do to whom, and what only they themselves can do. Pure.

In: a room as observed. Out: the bot's rank and everybody else's. The rules are those of the Matrix
specification (Authorization rules): nobody removes, or lowers, whoever has the same level or a higher one;
from room version 12 on those who made the room stand above every level, and can't be named in the levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from aim.desired.levels import ADMIN, MODERATOR, has_privileged_creators
from aim.directory.roster import NOBODY, People, Roster
from aim.world.rooms import Observed, PowerLevels, Room

ABOVE_ALL = math.inf
"""The rank of a creator from room version 12 on."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks in one room."""

    bot: float
    """The bot's own level, or ABOVE_ALL."""
    creators: People
    """Local people, the bot left out, who stand above every level."""
    levels: PowerLevels

    def of(self, person: int) -> float:
        """Somebody's level, or ABOVE_ALL."""
        if person in self.creators:
            return ABOVE_ALL
        return self.levels.people.get(person, self.levels.users_default)

    def beats(self, person: int) -> bool:
        """Whether the bot stands above this person."""
        return self.bot > self.of(person)

    @property
    def can_set_levels(self) -> bool:
        """Whether the bot has what it takes to enforce levels and state."""
        return self.bot >= max(ADMIN, needed_for(self.levels, "m.room.power_levels"))

    @property
    def can_write_levels(self) -> bool:
        """Whether the bot may change the levels of those below it: all that it does in rooms of others."""
        return self.bot >= needed_for(self.levels, "m.room.power_levels")

    @property
    def can_invite(self) -> bool:
        return self.bot >= _level(self.levels.base, "invite", 0)

    def can_kick(self, person: int) -> bool:
        """Whether the bot may remove this person, once the levels that guard the room are set right."""
        needed = _level(self.levels.base, "kick", MODERATOR)
        return self.beats(person) and (self.bot >= needed or self.can_set_levels)

    def in_control(self) -> Self:
        """The ranks once the bot has been given level 100."""
        return replace(self, bot=max(self.bot, ADMIN))


def ranks_of(room: Room, observed: Observed, roster: Roster) -> Ranks:
    """The ranks in a room as it is."""
    levels, bot = room.power_levels, observed.bot
    if has_privileged_creators(room.version):
        creators = _people(room.creators - {bot}, observed.server_name, roster)
        return Ranks(ABOVE_ALL if bot in room.creators else _own_level(levels, bot), creators, levels)
    if not (levels.base or levels.people or levels.foreign) and bot in room.creators:
        # Where there is no such event at all, who made the room has 100.
        return Ranks(ADMIN, NOBODY, levels)
    return Ranks(_own_level(levels, bot), NOBODY, levels)


def needed_for(levels: PowerLevels, event_type: str) -> int:
    """The level that it takes to send state of this type."""
    events = levels.base.get("events")
    default = _level(levels.base, "state_default", MODERATOR)
    return _level(events, event_type, default) if isinstance(events, Mapping) else default


def _own_level(levels: PowerLevels, bot: str) -> int:
    return levels.foreign.get(bot, levels.users_default)


def _level(content: Mapping[str, object], key: str, default: int) -> int:
    value = content.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _people(mxids: frozenset[str], server_name: str, roster: Roster) -> People:
    """The local ones that we have a number for: nobody else is in any set of ours."""
    suffix = f":{server_name}"
    names = (mxid[1:].removesuffix(suffix) for mxid in mxids if mxid.endswith(suffix))
    return People(person for name in names if (person := roster.find(name)) is not None)


def above_us(room: Room, ranks: Ranks) -> frozenset[str]:
    """Users of other servers whom the bot can't remove."""
    levels = room.power_levels.foreign
    creators = room.creators if has_privileged_creators(room.version) else frozenset()
    return frozenset(
        mxid
        for mxid in room.foreign
        if mxid in creators or levels.get(mxid, ranks.levels.users_default) >= ranks.bot
    )
