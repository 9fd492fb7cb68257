"""How many people's power levels fit into one event. Pure.

An event may have 64 KiB, signatures and references included (Client-Server API, Size limits). A room whose
levels would not fit keeps those it has: only who is to have less is changed there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from aim.desired.levels import base_levels
from aim.desired.rooms import DesiredRoom
from aim.planner.world import World

MAX_BYTES = 59_000
"""A little less than the writer sends, as this is an estimate."""
FEW = 150
"""So many entries of the longest possible names fit in any case."""


def too_many_levels(world: World, desired: DesiredRoom) -> bool:
    """Whether the levels that the directory gives in this room are more than an event can hold."""
    room = world.observed.rooms.get(desired.key)
    holders: Mapping[int, int] = room.power_levels.people if room else {}
    if sum(map(len, desired.levels.values())) + len(holders) < FEW or holders == desired.levels_by_person():
        return False
    people = _names(world, desired, holders)
    if room is None:
        content: dict[str, object] = {
            **base_levels(is_space=desired.is_space, room_version=desired.room_version or ""),
            "users": people,
        }
    else:
        content = {**room.power_levels.base, "users": {**people, **room.power_levels.foreign}}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode(errors="surrogatepass")) > MAX_BYTES


def _names(world: World, desired: DesiredRoom, holders: Mapping[int, int]) -> dict[str, int]:
    """Everybody who would be named: the entitled who can be, and those who keep what they have."""
    reachable = None if world.desired.invite_before_login else world.reachable
    untouched = world.desired.hands_off | desired.spared
    named = {
        person: level
        for person, level in desired.levels_by_person().items()
        if reachable is None or person in reachable or person in holders
    }
    named |= {person: level for person, level in holders.items() if person in untouched}
    return {world.mxid(person): level for person, level in named.items()}
