"""The work on one account: its actions in order, each an outcome.

What has to be known whenever we are killed is recorded first: whoever is to be locked is on the queue before
they are, so that the next cycle finds either both or neither to be completed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import assert_never

from aim.desired.queueing import locked_anew
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.planner.actions import (
    AnyAccountAction,
    EraseAccount,
    LockAccount,
    RegisterAccount,
    SetDisplayName,
    SetEmails,
    UnlockAccount,
)
from aim.planner.guards import counted_as
from aim.ports import AccountWriter, Announcement, MailEvent, Registrar, welcome
from aim.provisioner.tools import Job
from aim.provisioner.work import SkippedError, Work
from aim.world.accounts import Account
from aim.world.recorded import Queued, after


class AccountWork(Work):
    """Carries out the due actions on one account, one request at a time."""

    def __init__(self, actions: Sequence[AnyAccountAction], job: Job) -> None:
        super().__init__(job)
        self._actions = list(actions)

    async def run(self) -> None:
        """All of it. Raises only what no outcome can carry (StoreError)."""
        for action in self._actions:
            if obstacle := await self._job.settled.obstacle(action):
                self._skip([action], obstacle)
            else:
                await self._attempt([action], partial(self._do, action))

    async def _do(self, action: AnyAccountAction) -> None:
        name = counted_as(action, self._job.tools.server_name)
        match action:
            case RegisterAccount():
                await self._register(action, name)
            case SetDisplayName(display_name=display_name):
                await self._writer.set_display_name(name, display_name)
            case SetEmails(emails=emails):
                await self._writer.set_emails(name, emails)
            case LockAccount():
                await self._lock(action, name)
            case UnlockAccount():
                await self._unlock(action, name)
            case EraseAccount():
                await self._erase(action, name)
            case _:
                assert_never(action)

    @property
    def _writer(self) -> AccountWriter:
        writer = self._job.tools.accounts
        if writer is None:
            raise HomeserverUnavailable("accounts can't be changed: no way to them is configured")
        return writer

    async def _register(self, action: RegisterAccount, name: str) -> None:
        """Done too if there is a usable account of that name by now: somebody was faster, or the answer to a
        first try of ours was lost."""
        tools = self._job.tools
        if tools.registrar is None:
            raise HomeserverUnavailable("accounts can't be made: no way to that is configured")
        made = await tools.registrar.register(name)
        if made:
            await self._welcome(action)
        else:
            await self._require_usable(tools.registrar, action, name)
        await tools.found_account(name)
        if tools.known_accounts is not None:
            tools.known_accounts.appeared([name])

    async def _require_usable(self, registrar: Registrar, action: RegisterAccount, name: str) -> None:
        found, reader = await registrar.find(name), self._job.tools.known_accounts
        if found is not None and not found.deactivated:
            return
        if found is None:
            message = f"{action.person} is taken by an account that aim can't see"
            remedy = "see what the homeserver has under that name, or give the user another user name"
        else:
            message = f"{action.person} is taken by an account that was deactivated, and a name is given once"
            remedy = "reactivate the account on the homeserver, or give the user another user name"
            if reader is not None:
                # Once that is known they are not touched, and a problem says so.
                reader.suspect(name)
        raise HomeserverRefused(message, remedy, status=409, errcode="M_USER_IN_USE")

    async def _welcome(self, action: RegisterAccount) -> None:
        announcer, users = self._job.tools.announcer, self._job.desired.directory.users
        if announcer is None:
            return
        # Thousands may be new at once: they are sorted by id.
        position = bisect_left(users, action.user_id, key=lambda user: user.id)
        if position < len(users) and users[position].id == action.user_id:
            await announcer.announce(welcome(users[position]))

    async def _lock(self, action: LockAccount, name: str) -> None:
        """What the plan knew of the account may be a day old: it is asked for again, and so is the queue."""
        account = await self._current(name)
        if account.deactivated:
            raise SkippedError("the account is deactivated")
        entry = self._entry(action, name, ours=not account.locked)

        def put(before: Queued | None) -> Queued:
            if before is not None and before.restored_by is not None:
                raise SkippedError(f"{before.restored_by} has restored them meanwhile")
            return locked_anew(before, entry, queues=action.queues)

        queued = await self._job.tools.recorder.change_queued(action.user_id, put)
        if not account.locked:
            await self._writer.lock(name)
            await self._tell(MailEvent.DEACTIVATED, action.user_id, name, account, due_at=queued.due_at)

    def _entry(self, action: LockAccount, name: str, *, ours: bool) -> Queued:
        """For a stay on the queue that begins now."""
        now = self._job.tools.now()
        return Queued(
            user_id=action.user_id,
            localpart=name,
            queued_at=now,
            due_at=after(now, action.period),
            reason=action.reason,
            ours=ours,
        )

    async def _unlock(self, action: UnlockAccount, name: str) -> None:
        """Whether it is locked is asked at this moment: a lock may have been made and not remembered."""
        account = await self._read(name)
        if account is None or account.deactivated:
            raise SkippedError("there is no account any more that could be unlocked")
        if account.locked:
            await self._writer.unlock(name)
        if action.leaves_queue:
            await self._job.tools.recorder.dequeue([action.user_id])
        if account.locked:
            await self._tell(MailEvent.ACTIVATED, action.user_id, name, account)

    async def _erase(self, action: EraseAccount, name: str) -> None:
        """The one thing that can't be had back: what people decided since it was planned still counts, up to
        the last moment."""
        account = await self._current(name)
        if not (account.locked or account.deactivated):
            raise SkippedError("somebody has unlocked the account meanwhile")
        queued = await self._job.tools.recorder.queued(action.user_id)
        if queued is None or queued.localpart != name or queued.restored_by or queued.held_by:
            raise SkippedError("somebody has decided otherwise meanwhile")
        if queued.erase_by is None and self._job.tools.now() < queued.due_at:
            raise SkippedError("it is not due any more")
        # What we remember of them goes when the cycle's own record is complete.
        await self._writer.erase(name)

    async def _current(self, name: str) -> Account:
        """The account as it is at this moment, if we may lock or erase it; deactivated or not."""
        account = await self._read(name)
        if account is None:
            raise SkippedError("there is no such account any more")
        rules = self._job.desired.accounts
        if account.admin and not (rules is not None and rules.include_admins):
            raise SkippedError("the account is an administrator's by now")
        return account

    async def _read(self, name: str) -> Account | None:
        reader = self._job.tools.known_accounts
        if reader is None:
            raise HomeserverUnavailable("accounts can't be read: no way to them is configured")
        return await reader.current(name)

    async def _tell(
        self, event: MailEvent, user_id: str, name: str, account: Account, **facts: object
    ) -> None:
        """`account` is as it was read just now; the addresses may have been left out."""
        announcer = self._job.tools.announcer
        if announcer is None:
            return
        users = self._job.desired.directory.users
        # The directory does not know everybody any more.
        known = next((user for user in users if user.id == user_id), None) or self._job.accounts.get(name)
        emails = (known and known.emails) or account.emails or ()
        await announcer.announce(
            Announcement(
                event=event,
                key=f"{event} {user_id} {self._job.tools.now().isoformat()}",
                localpart=name,
                display_name=known.display_name if known else None,
                emails=emails,
                facts=facts,
            )
        )
