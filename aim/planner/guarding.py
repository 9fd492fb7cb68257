"""The levels that guard a room as a whole: who may change levels, remove, invite, and lay out a space. Pure.

In: a room as observed, and the bot's rank in it. Out: the keys of `m.room.power_levels` (people apart) that
are to be written. A room that we made has all of them from us. In one that people made only what our work
rests on is kept, and what is stricter there stays: the rest is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

from aim.desired.levels import ADMIN, MODERATOR, base_levels
from aim.planner.ranks import Ranks
from aim.world.rooms import Room

# What holds where the event does not say (Client-Server API, m.room.power_levels).
_DEFAULTS = {"ban": 50, "invite": 0, "kick": 50, "redact": 50, "state_default": 50, "users_default": 0}
_AT_LEAST = {
    "ban": MODERATOR,
    "invite": MODERATOR,
    "kick": MODERATOR,
    "redact": MODERATOR,
    "state_default": MODERATOR,
}
_STATE_AT_LEAST = {"m.room.power_levels": ADMIN, "m.room.server_acl": ADMIN}
_IN_SPACES_AT_LEAST = {"m.space.child": MODERATOR}


def guarding_levels(room: Room, ranks: Ranks, agent_level: int | None = None) -> Mapping[str, object] | None:
    """What is to be written, or None if nothing is. Nothing that the bot's own rank does not allow.

    `agent_level`: that of other servers' bots in the room; None if there are none.
    """
    if room.marker is None or room.marker.is_taken_over:
        return _taken_over(room, ranks) or None
    wanted = base_levels(is_space=room.is_space, room_version=room.version, agent_level=agent_level)
    return None if _includes(room.power_levels.base, wanted) else wanted


def _taken_over(room: Room, ranks: Ranks) -> dict[str, object]:
    present = room.power_levels.base
    raised: dict[str, object] = {
        key: least for key, least in _AT_LEAST.items() if _number(present.get(key), _DEFAULTS[key]) < least
    }
    # Who is not named has what the directory gives to everybody.
    if _number(present.get("users_default"), 0) != 0:
        raised["users_default"] = 0
    events = present.get("events")
    named = events if isinstance(events, Mapping) else {}
    otherwise = max(_number(present.get("state_default"), MODERATOR), MODERATOR)
    needed = {**_STATE_AT_LEAST, **(_IN_SPACES_AT_LEAST if room.is_space else {})}
    state = {kind: least for kind, least in needed.items() if _number(named.get(kind), otherwise) < least}
    if state:
        raised["events"] = state
    return raised if ranks.can_set_levels else {}


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _includes(present: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Whether every key of `wanted` is in `present` with that value, one level down too."""
    for key, value in wanted.items():
        found = present.get(key)
        if found == value:
            continue
        if not (isinstance(found, Mapping) and isinstance(value, Mapping) and _includes(found, value)):
            return False
    return True
