"""The herald: has people told of what a cycle decided about them. Used by the reconciler.

In: a plan, what is remembered of it, and its world. Out: announcements, each once. Whose account is made,
locked or unlocked is told by whoever does that (provisioner.account).
"""

from __future__ import annotations

from datetime import datetime

from aim.planner.document import digest
from aim.planner.memory import Memory
from aim.planner.plan import Plan
from aim.planner.world import World
from aim.ports import AccountReader, Announcement, Announcer, MailEvent, welcome


class Herald:
    """Welcomes who has an account now, and tells admins what is held. All raises StoreError."""

    def __init__(self, announcer: Announcer | None, accounts: AccountReader | None) -> None:
        """None: nobody is told anything; no accounts are asked for."""
        self._announcer = announcer
        self._accounts = accounts

    async def tell(self, plan: Plan, memory: Memory, world: World) -> None:
        """Tells what is new of the plan for the whole world."""
        if memory.held and plan.trips:
            await self._tell_held(plan, world.now)
        new = self._accounts.take_unannounced() if self._accounts is not None else ()
        if self._accounts is not None and new:
            await self._welcome(frozenset(new), world)
            await self._accounts.mark_announced(new)

    async def _tell_held(self, plan: Plan, now: datetime) -> None:
        if self._announcer is None:
            return
        found = digest(plan)
        # The same may be held again months later; a source that comes and goes is told once a day.
        await self._announcer.announce(
            Announcement(
                event=MailEvent.HELD,
                key=f"{MailEvent.HELD} {found} {now:%Y-%m-%d}",
                facts={"held": [trip.message for trip in plan.trips], "digest": found},
            )
        )

    async def _welcome(self, localparts: frozenset[str], world: World) -> None:
        if self._announcer is None:
            return
        for user in world.desired.directory.users:
            if user.localpart in localparts and user.active:
                await self._announcer.announce(welcome(user))
