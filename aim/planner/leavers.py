"""Those who left and those who wait on the queue, one by one: what is to be done about each. Pure.

In: a world in which accounts are known. Out: who is to be locked, erased, unlocked, taken off the queue or
forgotten; and what is said of those who wait. Used by `planner.accounts` and `planner.queue_memory`.
"""

from __future__ import annotations

from collections.abc import Iterator

from aim.desired.leaving import AccountRules, Left
from aim.directory.model import Problem, Severity
from aim.planner.actions import EraseAccount, LockAccount, UnlockAccount, account_key
from aim.planner.due import LONGEST_GAP, Due, due
from aim.planner.world import World
from aim.world.accounts import Account, KnownAccounts
from aim.world.recorded import Queued

SUBJECT = "deprovisioning"
_NAMED = 5


def listed(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


class Leavers:
    """Those who left and those who are on the queue, one by one. They are few."""

    def __init__(self, world: World, rules: AccountRules, known: KnownAccounts) -> None:
        self._world = world
        self._rules = rules
        self._known = known
        self._leaving = world.desired.leaving
        self._queue = world.recorded.queue

    # -- who left ------------------------------------------------------------------------------------------

    def leaving(self) -> Iterator[LockAccount | EraseAccount]:
        """Locks, and the erasures that are due."""
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
        return self._that_are(Due.UNSURE)

    def _that_are(self, answer: Due) -> frozenset[str]:
        """User ids of those who would be erased, were it not for this."""
        if not self._rules.deprovisions:
            return frozenset()
        entries = [*self._broken_off(), *self._waiting(), *self._without_account()]
        return frozenset(
            queued.user_id
            for queued in entries
            if self._may_be_erased(queued) and due(self._world, queued) is answer
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

    def vanished(self) -> Iterator[Queued]:
        """Who has no account any more, and may be erased now: what is left is that we forget them."""
        if not self._rules.deprovisions or self._world.removes_nobody or self._world.desired.switched:
            return
        for queued in self._without_account():
            if due(self._world, queued) is Due.YES:
                yield queued

    def _without_account(self) -> Iterator[Queued]:
        """Whose time is over, and who is not in the directory, disabled or not, and has no account."""
        gone = [
            queued
            for queued in self._queue.values()
            if queued.localpart not in self._known.accounts
            and due(self._world, queued) is not Due.NO
            and self._is_theirs(queued)
        ]
        if gone:
            # A look at everybody: only for who is to be forgotten soon.
            directory = self._world.desired.directory
            present = directory.unresolved.union(user.id for user in directory.users)
            yield from (queued for queued in gone if queued.user_id not in present)

    def _is_theirs(self, queued: Queued) -> bool:
        """Whether the account of that name is still that of the one who left, and may be erased."""
        world = self._world
        person = world.roster.find(queued.localpart)
        mxid = world.observed.mxid(queued.localpart)
        protected = queued.localpart in self._rules.protected
        if protected or any(pattern.fullmatch(mxid) for pattern in world.allowed_users):
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
        """Of those who are back, or restored."""
        for queued in self._queue.values():
            account = self._known.accounts.get(queued.localpart)
            if not queued.ours or account is None or account.deactivated:
                continue
            if self._is_back(queued):
                # Locked or not, as far as we know: a lock may be under way, or was made and not remembered.
                # Whoever unlocks reads the account first.
                yield self._unlock(queued, "active in the directory again", leaves_queue=True)
            elif account.locked and queued.restored_by is not None and self._is_restored(queued):
                yield self._unlock(queued, f"restored by {queued.restored_by}", leaves_queue=False)

    def done_with(self) -> frozenset[str]:
        """User ids of those who are back, and whose account is gone or was not locked by us."""
        return frozenset(queued.user_id for queued in self._queue.values() if self._is_done(queued))

    def _is_done(self, queued: Queued) -> bool:
        account = self._known.accounts.get(queued.localpart)
        exists = account is not None and not account.deactivated
        return self._is_back(queued) and not (queued.ours and exists)

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
        """What a person should know of those who wait."""
        for queued in self._queue.values():
            account = self._known.accounts.get(queued.localpart)
            if self._is_done(queued) and account is not None and account.locked and not account.deactivated:
                text = "is in the directory again; it was not us who locked the account, so it stays locked"
                yield Problem(Severity.INFO, self._mxid(queued.localpart), text)
        if not self._rules.deprovisions:
            yield from self._switched_off()
        else:
            yield from self._waits()

    def _waits(self) -> Iterator[Problem]:
        """Erasures that are due, and wait."""
        if unsure := self.unsure():
            yield Problem(
                Severity.WARNING,
                SUBJECT,
                "the clock jumped, the database's clock says something else, or aim was away for long: "
                f"{len(unsure)} erasures that are due wait for a second reading, in an hour",
            )
        at = self._world.directory_at
        if self._world.now - at > LONGEST_GAP and (unread := self._that_are(Due.UNREAD)):
            yield Problem(
                Severity.WARNING,
                SUBJECT,
                f"the directory was last read at {at:%Y-%m-%d %H:%M} UTC: {len(unread)} erasures that are "
                "due wait until it is read again; see why it can't be read",
            )

    def _switched_off(self) -> Iterator[Problem]:
        names = sorted(
            self._mxid(left.localpart)
            for left in self._leaving.left.values()
            if left.user_id not in self._queue and not self._known.accounts[left.localpart].locked
        )
        if names:
            yield Problem(
                Severity.INFO,
                SUBJECT,
                f"{len(names)} accounts of people who left would be locked with "
                f"user_provisioner.deprovisioning.enabled: {listed(names)}",
            )
        if self._queue:
            text = f"is off: {len(self._queue)} people wait in the queue, and none of them is erased"
            yield Problem(Severity.INFO, SUBJECT, text)

    # -- names and places ----------------------------------------------------------------------------------

    def _mxid(self, localpart: str) -> str:
        return self._world.observed.mxid(localpart)

    def _spaces(self, localpart: str) -> tuple[str, ...]:
        """Keys of the managed spaces that they are in or invited to."""
        person = self._world.roster.find(localpart)
        return tuple(
            key
            for key, room in sorted(self._world.observed.rooms.items())
            if room.is_space and person is not None and (person in room.joined or person in room.invited)
        )
