"""Who gets an account from us, and what waits for it. Pure.

In: a world whose configuration asks for accounts to be made (`source.register_users`), and what else differs
in it. Out: a registration for each newcomer (`World.newcomers`), and the other actions; those that need an
account which is still to be made come after its registration. Whose account is known to be deactivated is no
newcomer: they are not touched, and `desire` tells of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from aim.planner.actions import (
    AnyAction,
    Invite,
    Join,
    PersonAction,
    RegisterAccount,
    SetPowerLevel,
    account_key,
)
from aim.planner.world import World

_REASON = "in the directory, and without an account"


def registrations(world: World) -> list[RegisterAccount]:
    """One for each newcomer."""
    newcomers = world.newcomers
    if not newcomers:
        return []
    users = {user.localpart: user for user in world.desired.directory.users if user.active}
    names = world.roster.localparts(newcomers)
    return [_registration(users[name].id, world.observed.mxid(name)) for name in names]


def _registration(user_id: str, mxid: str) -> RegisterAccount:
    return RegisterAccount(room=account_key(mxid), space="", person=mxid, user_id=user_id, reason=_REASON)


def waiting_for(
    world: World, actions: Iterable[AnyAction], registering: Iterable[RegisterAccount]
) -> Iterator[AnyAction]:
    """The actions; those that need an account which is still to be made come after its registration."""
    made: Mapping[str, str] = {action.person: action.identity for action in registering}
    for action in actions:
        before = made.get(action.person) if isinstance(action, PersonAction) else None
        if before is not None and _needs_account(world, action):
            yield replace(action, after=tuple(sorted({*action.after, before})))
        else:
            yield action


def _needs_account(world: World, action: AnyAction) -> bool:
    match action:
        case Join():
            return True
        case Invite(acting_as=acting_as):
            # Into a room of people, `asking` invites nobody without an account, whatever is configured.
            return acting_as is not None or not world.desired.invite_before_login
        case SetPowerLevel(level=level, was=was):
            return level >= was and not world.desired.invite_before_login
        case _:
            return False
