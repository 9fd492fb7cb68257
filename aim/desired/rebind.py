"""`aim rebind`: a person says that a user with a new id or a new localpart is the one seen before. Pure.

In: the directory, what is recorded, the two names. Out: what to record instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aim.desired.identity import Conflict, conflicts
from aim.directory.model import Directory
from aim.errors import AimError
from aim.world.recorded import Recorded, Seen


@dataclass(frozen=True, slots=True)
class Rebinding:
    """What changes in the record."""

    seen: Seen
    forget: Sequence[str]
    """Ids that were the same person."""
    message: str


def rebind(directory: Directory, recorded: Recorded, server_name: str, old: str, new: str) -> Rebinding:
    """Settles the one conflict between `old` and `new`: two ids, or two MXIDs or localparts.

    Raises AimError if there is no such conflict: nothing is rebound on somebody's word alone.
    """
    found = conflicts(directory.users, recorded.seen)
    for conflict in found:
        if _is_between(conflict, server_name, old, new):
            return _rebinding(conflict)
    remedy = "see the problems of `aim plan`: each names the command that settles it"
    raise AimError(f"{old} and {new} are not the two sides of a change of id or localpart", remedy)


def _is_between(conflict: Conflict, server_name: str, old: str, new: str) -> bool:
    user, seen = conflict.user, conflict.seen
    if conflict.is_new_id:
        return (old, new) == (seen.id, user.id)
    return _localpart(old, server_name) == seen.localpart and _localpart(new, server_name) == user.localpart


def _localpart(name: str, server_name: str) -> str:
    return name[1:].removesuffix(f":{server_name}") if name.startswith("@") else name


def _rebinding(conflict: Conflict) -> Rebinding:
    user, before = conflict.user, conflict.seen
    seen = Seen(user.id, user.localpart, user.weak_id, before.first_seen, None)
    if conflict.is_new_id:
        return Rebinding(seen, (before.id,), f"id {user.id} is the {user.localpart} known as {before.id}")
    message = f"{user.localpart} is the user {user.id} known as {before.localpart}"
    return Rebinding(seen, (), message)
