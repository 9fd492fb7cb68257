"""Accounts follow people: what is to be locked, unlocked, erased or set. Pure.

In: a world. Out: actions, problems, and what to remember of the queue. Who left is known from
`desired.leaving`; what their account is like from `observed`; since when they wait from `recorded`. Nothing
is done where accounts can't be managed, and nothing at all where the configuration asks for nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from aim.desired.leaving import AccountRules, Left, usable
from aim.directory.model import Problem, Severity
from aim.planner.actions import AnyAccountAction, EraseAccount, LockAccount, UnlockAccount, account_key
from aim.planner.attributes import attributes
from aim.planner.due import Due, clock_reading, due, noticed
from aim.planner.world import World
from aim.world.accounts import Account, KnownAccounts
from aim.world.recorded import Queued

SUBJECT = "deprovisioning"
_NAMED = 5


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """What differs, before any guard has judged it."""

    actions: tuple[AnyAccountAction, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueMemory:
    """What to remember of the queue and the clock."""

    enqueue: tuple[Queued, ...] = ()
    dequeue: tuple[str, ...] = ()
    """User ids."""
    clock: datetime | None = None


def account_changes(world: World) -> AccountChanges:
    """All that is to be done about accounts."""
    rules, observed = world.desired.accounts, world.observed.known_accounts
    if rules is None or observed is None:
        return AccountChanges()
    if observed.refused:
        return AccountChanges((), (Problem(Severity.ERROR, "accounts", observed.refused),))
    set_, problems = attributes(world, rules, observed)
    queue = _Queue(world, rules, observed)
    actions: list[AnyAccountAction] = [*set_, *queue.returning()]
    if rules.deprovisions:
        actions.extend(queue.leaving())
    return AccountChanges(tuple(actions), (*problems, *queue.problems()))


def queue_memory(world: World) -> QueueMemory:
    """What to record before anything is done."""
    rules, known = world.desired.accounts, usable(world.observed.known_accounts)
    if rules is None:
        return QueueMemory()
    if known is None or not world.recorded.queue:
        return QueueMemory(clock=clock_reading(world))
    queue = _Queue(world, rules, known)
    off = queue.done_with()
    kept = [queued for user_id, queued in sorted(world.recorded.queue.items()) if user_id not in off]
    changed = tuple(noticed(world, kept, queue.unsure()))
    return QueueMemory(changed, tuple(sorted(off)), clock_reading(world))


class _Queue:
    """Those who left and those who are on the queue, one by one. They are few."""

    def __init__(self, world: World, rules: AccountRules, known: KnownAccounts) -> None:
        self._world = world
        self._rules = rules
        self._known = known
        self._leaving = world.desired.leaving
        self._queue = world.recorded.queue

    # -- who left ------------------------------------------------------------------------------------------

    def leaving(self) -> Iterator[LockAccount | EraseAccount]:
        for left in self._leaving.left.values():
            queued, account = self._entry(left), self._known.accounts[left.localpart]
            if queued is None or not account.locked:
                yield self._lock(left, queued, account)
            elif self._may_be_erased(queued) and due(self._world, queued) is Due.YES:
                yield self._erase(queued)
        for queued in self._broken_off():
            if due(self._world, queued) is Due.YES:
                yield self._erase(queued)

    def unsure(self) -> frozenset[str]:
        """User ids of those who would be erased, were the clock to be believed."""
        if not self._rules.deprovisions:
            return frozenset()
        entries = [*self._broken_off(), *self._waiting()]
        return frozenset(
            queued.user_id
            for queued in entries
            if self._may_be_erased(queued) and due(self._world, queued) is Due.UNSURE
        )

    def _waiting(self) -> Iterator[Queued]:
        """Entries of those who left and are locked."""
        for left in self._leaving.left.values():
            queued = self._entry(left)
            if queued is not None and self._known.accounts[left.localpart].locked:
                yield queued

    def _entry(self, left: Left) -> Queued | None:
        queued = self._queue.get(left.user_id)
        return queued if queued is not None and queued.localpart == left.localpart else None

    def _may_be_erased(self, queued: Queued) -> bool:
        return queued.held_by is None and queued.restored_by is None

    def _broken_off(self) -> Iterator[Queued]:
        """Who waits and is deactivated already: by hand, or by an erasure of ours whose end was lost."""
        for queued in self._queue.values():
            account = self._known.accounts.get(queued.localpart)
            gone = queued.user_id not in self._leaving.back and queued.localpart not in self._leaving.left
            protected = account is None or (account.admin and not self._rules.include_admins)
            if gone and account and account.deactivated and not protected and self._is_theirs(queued):
                yield queued

    def _is_theirs(self, queued: Queued) -> bool:
        """Whether the account of that name is still that of the one who left."""
        world = self._world
        person = world.roster.find(queued.localpart)
        mxid = f"@{queued.localpart}:{world.observed.server_name}"
        if any(pattern.fullmatch(mxid) for pattern in world.allowed_users):
            return False
        taken = person is not None and person in world.desired.in_doubt | world.desired.directory.everyone
        return self._may_be_erased(queued) and not taken

    def _lock(self, left: Left, queued: Queued | None, account: Account) -> LockAccount:
        mxid = self._mxid(left.localpart)
        return LockAccount(
            room=account_key(mxid),
            space="",
            person=mxid,
            user_id=left.user_id,
            period=self._rules.period,
            # A person's word that they be erased, once they are locked, must not go with the old entry.
            queues=queued is None or queued.erase_by is None or not queued.ours,
            ours=not account.locked,
            in_spaces=self._spaces(left.localpart),
            reason=left.reason,
        )

    def _erase(self, queued: Queued) -> EraseAccount:
        mxid = self._mxid(queued.localpart)
        since = f"{queued.reason} since {queued.queued_at:%Y-%m-%d}"
        over = f"{queued.due_at:%Y-%m-%d} was the end of the grace period"
        return EraseAccount(
            room=account_key(mxid),
            space="",
            person=mxid,
            user_id=queued.user_id,
            due_at=queued.due_at,
            in_spaces=self._spaces(queued.localpart),
            reason=f"{since}; {f'{queued.erase_by} had it erased' if queued.erase_by else over}",
        )

    # -- who is back ---------------------------------------------------------------------------------------

    def returning(self) -> Iterator[UnlockAccount]:
        for queued in self._queue.values():
            account = self._known.accounts.get(queued.localpart)
            if not (queued.ours and account and account.locked and not account.deactivated):
                continue
            if self._is_back(queued):
                yield self._unlock(queued, "active in the directory again", leaves_queue=True)
            elif queued.restored_by is not None and self._is_restored(queued):
                yield self._unlock(queued, f"restored by {queued.restored_by}", leaves_queue=False)

    def done_with(self) -> frozenset[str]:
        """User ids of those who are back and whose account is not locked, or not by us."""
        return frozenset(queued.user_id for queued in self._queue.values() if self._is_done(queued))

    def _is_done(self, queued: Queued) -> bool:
        account = self._known.accounts.get(queued.localpart)
        locked = account is not None and account.locked and not account.deactivated
        return self._is_back(queued) and not (queued.ours and locked)

    def _is_back(self, queued: Queued) -> bool:
        """Whether they are in the directory again, and nobody has to say first who they are."""
        return queued.user_id in self._leaving.back and not self._is_in_conflict(queued)

    def _is_restored(self, queued: Queued) -> bool:
        return queued.user_id not in self._leaving.back and not self._is_in_conflict(queued)

    def _is_in_conflict(self, queued: Queued) -> bool:
        world = self._world
        if world.desired.switched:
            return True
        account = self._known.accounts.get(queued.localpart)
        if account is not None and account.deactivated:
            # Nobody is to say who they are: whoever it is, there is nothing to unlock.
            return False
        names = {queued.localpart, self._leaving.back.get(queued.user_id, queued.localpart)}
        return not world.desired.in_doubt.isdisjoint(world.roster.people(sorted(names)))

    def _unlock(self, queued: Queued, reason: str, *, leaves_queue: bool) -> UnlockAccount:
        mxid = self._mxid(queued.localpart)
        return UnlockAccount(
            room=account_key(mxid),
            space="",
            person=mxid,
            user_id=queued.user_id,
            leaves_queue=leaves_queue,
            reason=reason,
        )

    # -- problems ------------------------------------------------------------------------------------------

    def problems(self) -> Iterator[Problem]:
        for queued in self._queue.values():
            account = self._known.accounts.get(queued.localpart)
            if self._is_done(queued) and account is not None and account.locked and not account.deactivated:
                text = "is in the directory again; it was not us who locked the account, so it stays locked"
                yield Problem(Severity.INFO, self._mxid(queued.localpart), text)
        if not self._rules.deprovisions:
            yield from self._switched_off()
        elif unsure := self.unsure():
            yield Problem(
                Severity.WARNING,
                SUBJECT,
                "the clock jumped, the database's clock says something else, or aim was away for long: "
                f"{len(unsure)} erasures that are due wait for a second reading, in an hour",
            )

    def _switched_off(self) -> Iterator[Problem]:
        names = sorted(
            self._mxid(left.localpart)
            for left in self._leaving.left.values()
            if left.user_id not in self._queue and not self._known.accounts[left.localpart].locked
        )
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield Problem(
                Severity.INFO,
                SUBJECT,
                f"{len(names)} accounts of people who left would be locked with "
                f"user_provisioner.deprovisioning.enabled: {', '.join(names[:_NAMED])}{more}",
            )
        if self._queue:
            text = f"is off: {len(self._queue)} people wait in the queue, and none of them is erased"
            yield Problem(Severity.INFO, SUBJECT, text)

    # -- names and places ----------------------------------------------------------------------------------

    def _mxid(self, localpart: str) -> str:
        return f"@{localpart}:{self._world.observed.server_name}"

    def _spaces(self, localpart: str) -> tuple[str, ...]:
        """Keys of the managed spaces that they are in or invited to."""
        person = self._world.roster.find(localpart)
        return tuple(
            key
            for key, room in sorted(self._world.observed.rooms.items())
            if room.is_space and person is not None and (person in room.joined or person in room.invited)
        )
