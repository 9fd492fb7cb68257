"""Rooms that the `aim` of another server made: how we come in, how we leave, what stands against us. Pure.

In: one room, desired and observed. Out: actions on our own people and on our bot, and problems. Who belongs
in it was decided by `desired.federated`; levels and memberships are compared as everywhere, by `diff`.
"""

from __future__ import annotations

from collections.abc import Iterator

from aim.desired.rooms import DesiredRoom
from aim.directory.model import Problem, Severity
from aim.planner.actions import AbandonSpace, Accept, Kick
from aim.planner.ranks import Ranks, needed_for, ranks_of
from aim.planner.world import World
from aim.world.rooms import Room


def accept(world: World, desired: DesiredRoom, room: Room) -> Accept:
    """The bot comes in where it was asked in."""
    assert desired.peer is not None
    return Accept(
        room=desired.key,
        space=desired.space,
        room_id=room.room_id,
        person=world.observed.bot,
        needs_invite=False,
        inviter=desired.peer,
        reason=f"{desired.peer} asks us in, which is among provisioner.federation.federates_with",
    )


def leave(world: World, desired: DesiredRoom, room: Room, ranks: Ranks) -> Iterator[Kick | AbandonSpace]:
    """All of our people out, exempt ones included, then the bot: nobody stays where we see nothing."""
    reason = desired.leaves or ""
    kicks = [
        Kick(
            room=desired.key,
            space=desired.space,
            room_id=room.room_id,
            person=world.mxid(person),
            reason=reason,
            as_themselves=not ranks.can_kick(person),
        )
        for person in room.joined | room.invited | room.knocking
    ]
    yield from kicks
    yield AbandonSpace(
        room=desired.key,
        space=desired.space,
        room_id=room.room_id,
        reason=reason,
        after=tuple(sorted(kick.identity for kick in kicks)),
    )


def peer_problems(world: World, desired: DesiredRoom) -> Iterator[Problem]:
    """What the bot's own level there does not let it do; that we leave."""
    room = world.observed.rooms.get(desired.key)
    if room is None or room.bot != "join":
        return
    ranks = ranks_of(room, world.observed, world.roster)
    if desired.leaves is not None:
        yield Problem(
            Severity.WARNING, desired.key, f"{desired.leaves}: our people and the bot leave {desired.name}"
        )
    elif not (ranks.can_invite and ranks.can_write_levels):
        needed = needed_for(room.power_levels, "m.room.power_levels")
        yield Problem(
            Severity.WARNING,
            desired.key,
            f"{desired.peer} has given our bot level {ranks.bot:.0f} there, and changing levels takes "
            f"{needed}: what it may not do stays undone",
        )
