"""Who stays out by their own wish, and how long that counts. Pure.

Whoever left a room by themselves is not asked into it again until their entitlement changes; into a space
once a day. A leave that we caused is no wish, nor is one that is older than the last time they became
entitled, nor that of an account which is gone: so an account that comes back is asked again.
"""

from __future__ import annotations

from aim.desired.rooms import DesiredRoom
from aim.directory.roster import NOBODY, People
from aim.planner.control import room_of
from aim.planner.world import World
from aim.world.rooms import Room

ASK_AGAIN_MS = 24 * 3600 * 1000


def may_be_asked(world: World, desired: DesiredRoom, room: Room, person: int, regained: People) -> bool:
    """Whether an entitled person may be brought in now; `regained` are those of `newly_regained`."""
    left = room.left.get(person)
    if left is None or person in regained:
        return True
    if person not in world.observed.accounts:
        # Deactivated: they are asked once the account is there again, see newly_regained.
        return False
    if person in world.recorded.caused.get(room.room_id, NOBODY):
        return True
    since = world.recorded.regained.get(desired.key, {}).get(person)
    if since is not None and since.timestamp() * 1000 >= left:
        return True
    return room.is_space and world.now.timestamp() * 1000 - left >= ASK_AGAIN_MS


def ever_entitled(world: World, desired: DesiredRoom) -> People:
    """Everybody who is, or was, entitled to be in the room; where nothing is known, whoever is in it too.

    So also in a room that is about to be taken over, whatever is known of a time when we only invited to it.
    """
    now = desired.members - world.desired.hands_off
    known = world.recorded.entitled.get(desired.key)
    if known is not None and (desired.only_invites or desired.key in world.observed.rooms):
        return known | now
    room = room_of(world, desired)
    found = now | room.joined | room.invited if room else now
    return found if known is None else found | known


def newly_lapsed(world: World, desired: DesiredRoom) -> People:
    """Who is not entitled any more since we last looked, and whose account went away and out."""
    now = desired.members - world.desired.hands_off
    gone = ever_entitled(world, desired) - desired.members - desired.spared - world.desired.hands_off
    lapsed = world.recorded.lapsed.get(desired.key, NOBODY)
    return (gone | (now & _parted_with_account(world, desired))) - lapsed


def newly_regained(world: World, desired: DesiredRoom) -> People:
    """Who is entitled again since we last looked, or for the first time but having left before."""
    now = desired.members - world.desired.hands_off
    found = world.recorded.lapsed.get(desired.key, NOBODY) & now
    known = world.recorded.entitled.get(desired.key)
    room = room_of(world, desired)
    if known is not None and room is not None and room.left:
        found |= (now - known) & People(room.left)
    return found - _parted_with_account(world, desired) if found else NOBODY


def _parted_with_account(world: World, desired: DesiredRoom) -> People:
    """Who left and has no account: a deactivated one leaves every room, in its own name."""
    room = room_of(world, desired)
    return People(room.left) - world.observed.accounts if room and room.left else NOBODY
