"""From grants to levels: who has which power level, if several groups give them one. Pure; used by `desire`
and, for rooms that belong to several spaces, by `taken_over`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aim.desired.rooms import DesiredRoom, Grant
from aim.directory.roster import NOBODY, People, union


def levels_of(grants: Sequence[Grant], members_below: People = NOBODY) -> Mapping[int, People]:
    """Level → people, the highest level of each person; the default 0 is left out.

    `members_below` are in through a subspace, which gives the default level: it raises a negative one.
    """
    by_level: dict[int, list[People]] = {0: [members_below]}
    for grant in grants:
        by_level.setdefault(grant.level, []).append(grant.people)
    return _highest(by_level)


def merged_levels(spaces: Iterable[DesiredRoom]) -> Mapping[int, People]:
    """The same for a room of several spaces: of each person the highest level that one of them gives."""
    by_level: dict[int, list[People]] = {0: []}
    for space in spaces:
        by_level[0].append(space.members - union(space.levels.values()))
        for level, people in space.levels.items():
            by_level.setdefault(level, []).append(people)
    return _highest(by_level)


def _highest(by_level: Mapping[int, Sequence[People]]) -> Mapping[int, People]:
    from_the_top = sorted(by_level, reverse=True)
    if from_the_top[-1] == 0:
        # Below the default nobody is left whom it would raise.
        from_the_top.pop()
    levels: dict[int, People] = {}
    higher = NOBODY
    for level in from_the_top:
        people = union(by_level[level])
        if level and (rest := people - higher):
            levels[level] = rest
        higher |= people
    return levels
