"""The deprovisioning queue as a person changes it: `aim queue restore`, `erase`, `hold` and so on. Pure.

In: the queue, whom is meant, who says so and when. Out: the entries to record instead, the approvals that go
with them or end with them, and a line for each that says what was decided. The store does it in one
transaction; the next cycle acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

from aim.errors import AimError
from aim.world.recorded import Approval, Queued, after

APPROVED_FOR = timedelta(hours=24)
"""How long the guards let an erasure go that a person asked for."""
_SEE = "see `aim queue list`"
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """What a person decided about the queue."""

    entries: tuple[Queued, ...]
    """As they are from now on."""
    messages: tuple[str, ...]
    """A line each."""
    approvals: tuple[Approval, ...] = ()
    revoked: frozenset[str] = frozenset()
    """Identities of actions that nobody has approved any more."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decides, when, and on which homeserver."""

    server_name: str
    by: str
    now: datetime
    """UTC."""

    def mxid(self, entry: Queued) -> str:
        """The person as they are shown."""
        return f"@{entry.localpart}:{self.server_name}"

    def find(self, queue: Mapping[str, Queued], name: str) -> Queued:
        """The entry of `name`, an MXID or a localpart. Raises AimError, with the names that are near."""
        wanted = self._localpart(name)
        for entry in queue.values():
            if entry.localpart == wanted:
                return entry
        names = sorted(entry.localpart for entry in queue.values())
        near = get_close_matches(wanted, names, n=_NAMED, cutoff=0.6)
        shown = " or ".join(f"@{localpart}:{self.server_name}" for localpart in near)
        raise AimError(
            f"{name} is not on the queue: only who left the directory and was locked waits there",
            f"did you mean {shown}?" if shown else _SEE,
        )

    def _localpart(self, name: str) -> str:
        if not name.startswith("@"):
            return name
        localpart, colon, server = name[1:].partition(":")
        if colon and server != self.server_name:
            raise AimError(
                f"{name} is of another homeserver: only people of {self.server_name} are on the queue", _SEE
            )
        return localpart


def erase_identity(mxid: str) -> str:
    """Identity of the action that erases this account: see planner.actions.identity_of."""
    return f"erase_account {mxid.replace('%', '%25').replace(' ', '%20')}"


def merged(before: Queued | None, new: Queued) -> Queued:
    """What is recorded when the writer puts `new` where `before` stands.

    Who is held or restored is for people to say, and they may have said or taken it back after the writer had
    last looked: what stands there counts. Within one stay (the same `queued_at`) so does the time that falls
    due, and the wish to erase at once; a new stay begins without that.
    """
    if before is None:
        return new
    is_same_stay = before.queued_at == new.queued_at
    return replace(
        new,
        due_at=before.due_at if is_same_stay else new.due_at,
        erase_by=before.erase_by if is_same_stay else new.erase_by,
        held_by=before.held_by,
        restored_by=before.restored_by,
    )


def locked_anew(before: Queued | None, new: Queued, *, queues: bool) -> Queued:
    """What is recorded when somebody is about to be locked, or was found locked (`new.ours` is False):
    `before` stands there at this moment.

    With `queues` a new stay begins. Not so if somebody has asked for the erasure: then they wait on as they
    do, and the word counts. Whom we locked before we were killed is still locked by us.
    """
    if before is None:
        return new
    is_same = before.localpart == new.localpart
    ours = new.ours or (is_same and before.ours)
    if is_same and not (queues and before.erase_by is None):
        return replace(before, ours=ours)
    return merged(before, replace(new, ours=ours))


def restore(queue: Mapping[str, Queued], name: str, decision: Decision) -> QueueChange:
    """They keep their account although they left. Raises AimError if that was said before."""
    entry = decision.find(queue, name)
    mxid = decision.mxid(entry)
    if entry.restored_by is not None:
        raise AimError(f"{mxid} was restored by {entry.restored_by} already", _SEE)
    kept = replace(entry, restored_by=decision.by, held_by=None, erase_by=None, found_due_at=None)
    if entry.ours:
        message = f"{mxid} is unlocked in the next cycle, and neither locked nor erased while they are away"
    else:
        message = (
            f"{mxid} is not erased while they are away; it was locked before aim came, so it stays locked "
            "until an administrator of the homeserver unlocks it"
        )
    if _is_due(entry, decision.now):
        message += (
            f"; their time was over on {_moment(entry.due_at)}, so look whether the account is still there"
        )
    return QueueChange(entries=(kept,), messages=(message,), revoked=frozenset({erase_identity(mxid)}))


def erase(queue: Mapping[str, Queued], name: str, decision: Decision, *, sure: bool) -> QueueChange:
    """They are erased at once, whatever their time. Raises AimError if they are held, if that was said
    before, or, unless the person is `sure`, to tell what would be lost."""
    entry = decision.find(queue, name)
    mxid = decision.mxid(entry)
    if entry.held_by is not None:
        raise AimError(
            f"{mxid} is held by {entry.held_by}: not erased before someone lets go",
            f"let go first: `aim queue release {mxid}`",
        )
    if not sure:
        raise AimError(
            f"erasing {mxid} can't be undone: the account, its memberships and e-mail addresses are lost, "
            "what they wrote is marked as erased, and nobody gets the name again",
            "add --yes if that is meant; `aim queue restore` keeps the account",
        )
    if entry.erase_by is not None:
        raise AimError(
            f"{entry.erase_by} has asked for the erasure of {mxid} already",
            "the daemon's next cycle carries it out, or `aim apply`",
        )
    asked = replace(entry, erase_by=decision.by, restored_by=None)
    return QueueChange(
        entries=(asked,),
        messages=(f"{mxid} is erased in the next cycle",),
        approvals=(Approval(erase_identity(mxid), decision.by, decision.now + APPROVED_FOR),),
    )


def hold(queue: Mapping[str, Queued], name: str, decision: Decision) -> QueueChange:
    """They stay locked, and are not erased before someone lets go. Raises AimError if somebody holds them, or
    they are restored."""
    entry = decision.find(queue, name)
    mxid = decision.mxid(entry)
    if entry.held_by is not None:
        raise AimError(f"{mxid} is held by {entry.held_by} already", _SEE)
    if entry.restored_by is not None:
        raise AimError(
            f"{mxid} was restored by {entry.restored_by}: there is no erasure to hold back",
            f"to have them erased after all: `aim queue erase {mxid} --yes`",
        )
    held = replace(entry, held_by=decision.by, erase_by=None, found_due_at=None)
    message = f"{mxid} stays locked, and is not erased before `aim queue release {mxid}`"
    return QueueChange(entries=(held,), messages=(message,), revoked=frozenset({erase_identity(mxid)}))


def release(queue: Mapping[str, Queued], name: str, decision: Decision) -> QueueChange:
    """Lets go of somebody who was held. Raises AimError if nobody holds them."""
    entry = decision.find(queue, name)
    mxid = decision.mxid(entry)
    if entry.held_by is None:
        raise AimError(f"{mxid} is held by nobody", _SEE)
    when = (
        f"their time was over on {_moment(entry.due_at)}: they are erased in the next cycle"
        if _is_due(entry, decision.now)
        else f"they are erased after {_moment(entry.due_at)}"
    )
    return QueueChange(entries=(replace(entry, held_by=None),), messages=(f"{mxid} is held no more; {when}",))


def reschedule(
    queue: Mapping[str, Queued], name: str | None, decision: Decision, period: timedelta
) -> QueueChange:
    """Their time, or everybody's for None, is the configured `period` from when they were queued. Raises
    AimError for one person who is restored."""
    if name is not None:
        chosen = [decision.find(queue, name)]
        if chosen[0].restored_by is not None:
            raise AimError(
                f"{decision.mxid(chosen[0])} was restored by {chosen[0].restored_by}: nothing falls due", _SEE
            )
    else:
        chosen = [entry for entry in in_order(queue.values()) if entry.restored_by is None]
    moved = [(entry, _moved(entry, period)) for entry in chosen]
    return QueueChange(
        entries=tuple(after for before, after in moved if after != before),
        messages=tuple(_told(before, after, decision) for before, after in moved),
    )


def _moved(entry: Queued, period: timedelta) -> Queued:
    due_at = after(entry.queued_at, period)
    return entry if due_at == entry.due_at else replace(entry, due_at=due_at, found_due_at=None)


def _told(before: Queued, after: Queued, decision: Decision) -> str:
    mxid, due = decision.mxid(before), _moment(after.due_at)
    if before == after:
        return f"{mxid}: due on {due}, as before"
    soon = ": erased in the next cycle" if _is_due(after, decision.now) and after.held_by is None else ""
    return f"{mxid}: due on {_moment(before.due_at)} until now, on {due} from now on{soon}"


def in_order(entries: Iterable[Queued]) -> list[Queued]:
    """By the time that they fall due, those of one moment by name."""
    return sorted(entries, key=lambda entry: (entry.due_at, entry.localpart))


def _is_due(entry: Queued, now: datetime) -> bool:
    return entry.due_at <= now


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
