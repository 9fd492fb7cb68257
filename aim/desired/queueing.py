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
from aim.world.recorded import Approval, Queued, Recorded, after

APPROVED_FOR = timedelta(hours=24)
"""How long the guards let an erasure go that a person asked for."""
_SEE = "see `aim queue list`"
_NAMED = 3
_SOON = timedelta(days=1)
"""Whom a new period makes due within that time may be lost before anybody looks again."""


class NotQueuedError(AimError):
    """Somebody is meant who is not on the queue."""

    def __init__(self, name: str, localpart: str, remedy: str) -> None:
        super().__init__(
            f"{name} is not on the queue: only who left the directory and was locked waits there", remedy
        )
        self.name = name
        self.localpart = localpart


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
    acts: bool = False
    """Whether the next cycle has something to do because of it."""


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
        """The entry of `name`, an MXID or a localpart. Raises NotQueuedError, with the names that are near;
        AimError for a name of another homeserver."""
        wanted = self._localpart(name)
        for entry in queue.values():
            if entry.localpart == wanted:
                return entry
        names = sorted(entry.localpart for entry in queue.values())
        near = get_close_matches(wanted, names, n=_NAMED, cutoff=0.6)
        shown = " or ".join(f"@{localpart}:{self.server_name}" for localpart in near)
        raise NotQueuedError(name, wanted, f"did you mean {shown}?" if shown else _SEE)

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
    return _identity("erase_account", mxid)


def _identity(type_: str, mxid: str) -> str:
    return f"{type_} {mxid.replace('%', '%25').replace(' ', '%20')}"


def not_queued(error: NotQueuedError, recorded: Recorded, server_name: str) -> AimError:
    """The error for somebody who is not on the queue, with the reason where what is recorded tells it."""
    mxid = f"@{error.localpart}:{server_name}"
    if _identity("lock_account", mxid) in recorded.held:
        return AimError(
            f"{mxid} is not on the queue: they left the directory, and a guard holds the lock",
            "look at `aim plan`; if it is right, approve it with `aim approve DIGEST`",
        )
    if any(s.localpart == error.localpart and s.gone_since is None for s in recorded.seen.values()):
        return AimError(
            f"{mxid} is not on the queue: they were in the directory when a cycle last looked",
            "only who left it waits there; take them out of the directory, or disable them, first",
        )
    return error


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
        raise AimError(f"{mxid} was restored by {entry.restored_by} already", _take_back(mxid))
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
    return QueueChange(
        entries=(kept,), messages=(message,), revoked=frozenset({erase_identity(mxid)}), acts=True
    )


def _take_back(mxid: str) -> str:
    return f"`aim queue release {mxid}` takes that back: locked, with a whole period from then on"


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
        acts=True,
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
            f"{_take_back(mxid)}; `aim queue erase {mxid} --yes` has them erased after all",
        )
    held = replace(entry, held_by=decision.by, erase_by=None, found_due_at=None)
    message = f"{mxid} stays locked, and is not erased before `aim queue release {mxid}`"
    return QueueChange(entries=(held,), messages=(message,), revoked=frozenset({erase_identity(mxid)}))


def release(queue: Mapping[str, Queued], name: str, decision: Decision, period: timedelta) -> QueueChange:
    """Lets go of somebody who was held: their time counts again. Of somebody who was restored: they are
    locked, and wait for the whole `period`. Raises AimError if neither was said of them."""
    entry = decision.find(queue, name)
    mxid = decision.mxid(entry)
    if entry.restored_by is not None:
        return _waits_again(entry, decision, period)
    if entry.held_by is None:
        raise AimError(f"{mxid} is held by nobody, nor restored", _SEE)
    when = (
        f"their time was over on {_moment(entry.due_at)}: they are erased in the next cycle"
        if _is_due(entry, decision.now)
        else f"they are erased after {_moment(entry.due_at)}"
    )
    return QueueChange(entries=(replace(entry, held_by=None),), messages=(f"{mxid} is held no more; {when}",))


def _waits_again(entry: Queued, decision: Decision, period: timedelta) -> QueueChange:
    due_at = after(decision.now, period)
    again = replace(entry, restored_by=None, due_at=due_at, found_due_at=None)
    how = "locked in the next cycle" if entry.ours else "still locked by whoever locked it before aim came"
    message = (
        f"{decision.mxid(entry)} is restored no more: {how}, and erased after {_moment(due_at)} unless they "
        "are back in the directory"
    )
    return QueueChange(entries=(again,), messages=(message,), acts=True)


def reschedule(
    queue: Mapping[str, Queued], name: str | None, decision: Decision, period: timedelta, *, sure: bool
) -> QueueChange:
    """Their time, or everybody's for None, is the configured `period` from when they were queued.

    Raises AimError for one person who is restored, and, unless the person is `sure`, where that makes anybody
    due within a day.
    """
    if name is not None:
        chosen = [decision.find(queue, name)]
        if chosen[0].restored_by is not None:
            mxid = decision.mxid(chosen[0])
            raise AimError(
                f"{mxid} was restored by {chosen[0].restored_by}: nothing falls due", _take_back(mxid)
            )
    else:
        chosen = [entry for entry in in_order(queue.values()) if entry.restored_by is None]
    moved = [(entry, _moved(entry, period)) for entry in chosen]
    soon = [
        decision.mxid(after)
        for before, after in moved
        if after.due_at < before.due_at and after.due_at - decision.now <= _SOON
    ]
    if soon and not sure:
        more = f" and {len(soon) - _NAMED} more" if len(soon) > _NAMED else ""
        raise AimError(
            f"{len(soon)} of those who wait would be due within a day, and an erasure can't be undone: "
            f"{', '.join(soon[:_NAMED])}{more}",
            "add --yes if that is meant; `aim queue hold` keeps somebody whatever the day says",
        )
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
