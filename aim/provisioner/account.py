"""The work on one account: its actions in order, each an outcome.

What has to be known whenever we are killed is recorded first: whoever is to be locked is on the queue before
they are, so that the next cycle finds either both or neither to be completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import assert_never

from aim.errors import HomeserverUnavailable
from aim.planner.actions import (
    AnyAccountAction,
    EraseAccount,
    LockAccount,
    SetDisplayName,
    SetEmails,
    UnlockAccount,
)
from aim.planner.guards import counted_as
from aim.ports import AccountWriter, Announcement, MailEvent
from aim.provisioner.tools import Job
from aim.provisioner.work import SkippedError, Work
from aim.world.recorded import Queued


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

    async def _lock(self, action: LockAccount, name: str) -> None:
        tools, now = self._job.tools, self._job.tools.now()
        due_at = _after(now, action.period)
        if action.queues:
            queued = Queued(
                user_id=action.user_id,
                localpart=name,
                queued_at=now,
                due_at=due_at,
                reason=action.reason,
                ours=action.ours,
            )
            await tools.recorder.enqueue([queued])
        if action.ours:
            await self._writer.lock(name)
            await self._tell(MailEvent.DEACTIVATED, action.user_id, name, due_at=due_at)

    async def _unlock(self, action: UnlockAccount, name: str) -> None:
        await self._writer.unlock(name)
        if action.leaves_queue:
            await self._job.tools.recorder.dequeue([action.user_id])
        await self._tell(MailEvent.ACTIVATED, action.user_id, name)

    async def _erase(self, action: EraseAccount, name: str) -> None:
        """The one thing that can't be had back: what people decided since it was planned still counts."""
        queued = await self._job.tools.recorder.queued(action.user_id)
        if queued is None or queued.restored_by is not None or queued.held_by is not None:
            raise SkippedError("somebody has decided otherwise meanwhile")
        if queued.erase_by is None and self._job.tools.now() < queued.due_at:
            raise SkippedError("it is not due any more")
        if not await self._is_still_locked(name):
            raise SkippedError("somebody has unlocked the account meanwhile")
        # What we remember of them goes when the cycle's own record is complete.
        await self._writer.erase(name)

    async def _is_still_locked(self, name: str) -> bool:
        """Asked at this moment; so is what was deactivated already, and is only to be forgotten."""
        reader = self._job.tools.known_accounts
        if reader is None:
            return False
        reader.suspect(name)
        account = (await reader.observe({name: ()})).accounts.get(name)
        return account is not None and (account.locked or account.deactivated)

    async def _tell(self, event: MailEvent, user_id: str, name: str, **facts: object) -> None:
        announcer = self._job.tools.announcer
        if announcer is None:
            return
        users = self._job.desired.directory.users
        # The directory does not know everybody any more.
        known = next((user for user in users if user.id == user_id), None) or self._job.accounts.get(name)
        await announcer.announce(
            Announcement(
                event=event,
                key=f"{event} {user_id} {self._job.tools.now().isoformat()}",
                localpart=name,
                display_name=known.display_name if known else None,
                emails=known.emails or () if known else (),
                facts=facts,
            )
        )


def _after(now: datetime, period: timedelta) -> datetime:
    try:
        return now + period
    except OverflowError:
        # A period of thousands of years is a way to say never.
        return datetime.max.replace(tzinfo=UTC)
