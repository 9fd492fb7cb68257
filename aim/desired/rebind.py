"""`aim rebind`: a person says that a user with a new id or a new localpart is the one seen before. Pure.

In: the directory, what is recorded, the two names; or none, for all at once after a switch of source. Out:
what to record instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aim.desired.identity import Conflict, conflicts, has_other_ids, known_before
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


# -- all at once -----------------------------------------------------------------------------------------

_AT_LEAST = 3
_PERCENT = 10


@dataclass(frozen=True, slots=True)
class SourceRebinding:
    """What changes in the record when the localparts of a new source are believed."""

    seen: Sequence[Seen]
    """Under their new ids, sorted by those."""
    forget: Sequence[str]
    """The old ids of the same people, sorted."""
    missing: Sequence[str]
    """Localparts, sorted, of those present before whom the new source does not have: they leave."""
    known: int
    """How many users were present when the ids changed (identity.known_before)."""
    message: str

    @property
    def exceeds_guard(self) -> bool:
        """Whether so many would leave that this is more likely the wrong source."""
        return len(self.missing) > max(_AT_LEAST, self.known * _PERCENT // 100)


def rebind_all(directory: Directory, recorded: Recorded, server_name: str) -> SourceRebinding:
    """Takes every user present until the ids changed for the user of the same localpart in the directory.

    Who had left before is not rebound: a new user of that name may be anybody. Raises AimError unless most
    ids are new.
    """
    present = known_before(recorded, conflicts(directory.users, recorded.seen))
    if not has_other_ids(directory, present):
        raise AimError(
            "most users have the ids under which they are known: there is nothing to rebind all at once",
            "see the problems of `aim plan`: each names the command that settles it",
        )
    users = {user.localpart: user for user in directory.users}
    ids = {user.id for user in directory.users}
    same = [
        (known, user) for known in present if (user := users.get(known.localpart)) and user.id != known.id
    ]
    seen = {user.id: Seen(user.id, user.localpart, user.weak_id, old.first_seen, None) for old, user in same}
    missing = sorted(
        known.localpart for known in present if known.id not in ids and known.localpart not in users
    )
    return SourceRebinding(
        seen=tuple(seen[user_id] for user_id in sorted(seen)),
        forget=tuple(sorted({old.id for old, _ in same} - seen.keys())),
        missing=tuple(missing),
        known=len(present),
        message=_all_in_words(len(seen), len(present), [f"@{name}:{server_name}" for name in missing]),
    )


def _all_in_words(same: int, known: int, missing: Sequence[str]) -> str:
    text = f"{same} of {known} known users are those of the same localpart in the new source"
    if not missing:
        return text
    more = f" and {len(missing) - _AT_LEAST} more" if len(missing) > _AT_LEAST else ""
    return f"{text}; it does not have {', '.join(missing[:_AT_LEAST])}{more}, who leave"
