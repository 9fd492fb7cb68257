"""Asking the space's people into a public room that has not consented to being managed. Pure.

In: such a room, desired and observed. Out: invites, each acting as the same local member, for the bot is not
in there. Nothing else of the room is touched: no level, no membership of anybody.
"""

from __future__ import annotations

from collections.abc import Iterator

from aim.desired.rooms import DesiredRoom
from aim.directory.roster import People
from aim.planner.actions import Invite
from aim.planner.control import inviter
from aim.planner.reasons import Reasons
from aim.planner.wishes import may_be_asked, newly_regained
from aim.planner.world import World
from aim.world.rooms import Room


def ask_in(
    world: World, desired: DesiredRoom, room: Room, scope: People | None, reasons: Reasons
) -> Iterator[Invite]:
    """An invite for each entitled person who has an account, or gets one by this plan, is not in, and has not
    chosen to be out; if `scope` is given, only for these. None at all if no local member can invite."""
    missing = desired.members & world.reachable
    missing -= room.joined | room.invited | room.banned | world.desired.hands_off
    if scope is not None:
        missing &= scope
    if not desired.invites or not missing:
        return
    acting_as = inviter(world, desired, room)
    if acting_as is None:
        return
    regained = newly_regained(world, desired)
    for person in missing:
        if may_be_asked(world, desired, room, person, regained):
            yield Invite(
                room=desired.key,
                space=desired.space,
                room_id=room.room_id,
                person=world.mxid(person),
                acting_as=acting_as,
                reason=reasons.entitled(desired, person),
            )
