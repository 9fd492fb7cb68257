"""The executor: due actions → calls of the homeserver port → outcomes.

In: a plan, the rooms that exist. Out: one outcome for each action. Rooms are worked on side by side, the
actions of one room in their order. What can be merged is: a new room is one request with its state, levels
and first invites, the levels of a room are one write. One failure never stops the others; what depends on
it is skipped and says so.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime

from aim.desired.rooms import Desired
from aim.planner.actions import AccountAction, AnyAction, CreateRoom
from aim.planner.plan import Plan
from aim.ports import Outcome, OutcomeStatus
from aim.provisioner.account import AccountWork
from aim.provisioner.creation import look_for
from aim.provisioner.room import RoomWork
from aim.provisioner.rooms import Rooms
from aim.provisioner.settled import Settled
from aim.provisioner.tools import Job, Tools
from aim.world.accounts import Account


class Provisioner:
    """Implements ports.Executor over the homeserver's writer and the recorder."""

    def __init__(self, tools: Tools, prepare: Callable[[], Awaitable[None]] | None = None) -> None:
        """`prepare` is done before the first action of a plan; it may raise HomeserverError."""
        self._tools = tools
        self._prepare = prepare

    async def settle(self, intents: Mapping[str, datetime], known: Collection[str]) -> None:
        """See ports.Executor: nothing is found is no error here, the room is then simply made."""
        for key, since in intents.items():
            age = (self._tools.now() - since).total_seconds()
            patience = max(0.0, self._tools.settle - age)
            if patience > 0:
                self._tools.notice(
                    f"the room {key} was being made when aim ended; looking for it, at most {patience:.0f} s"
                )
            await look_for(key, frozenset(known), self._tools, patience)

    async def execute(
        self,
        plan: Plan,
        desired: Desired,
        room_ids: Mapping[str, str],
        stopping: asyncio.Event,
        progress: Callable[[Outcome], None],
        accounts: Mapping[str, Account] | None = None,
    ) -> list[Outcome]:
        """Does what is due and says what became of every action of the plan, in plan order.

        `room_ids` are the managed rooms that exist. When `stopping` is set, requests under way are finished
        and the rest is skipped. Raises StoreError at once if something could not be recorded, and
        HomeserverError if not even the first step is possible.
        """
        if plan.due and self._prepare is not None:
            await self._prepare()
        created = [action.room for action in plan.due if isinstance(action, CreateRoom)]
        # Rooms that are taken over now, or that people are only asked into, are not among the managed ones.
        named = {action.room: action.room_id for action in plan.due if action.room_id is not None}
        job = Job(
            rooms=Rooms({**named, **room_ids}, created),
            settled=Settled(plan.due, plan.held),
            desired=desired,
            accounts=accounts or {},
            tools=self._tools,
            gate=asyncio.Semaphore(self._tools.parallelism),
            stopping=stopping,
            progress=progress,
        )
        works = [_work(key, actions, job) for key, actions in _by_room(plan.due).items()]
        try:
            async with asyncio.TaskGroup() as group:
                for work in works:
                    group.create_task(work.run())
        except BaseExceptionGroup as failures:
            # Only what no action can carry gets here (the database, a defect): the first one tells the cause.
            raise failures.exceptions[0] from failures
        outcomes = {outcome.action.identity: outcome for work in works for outcome in work.outcomes}
        for action in plan.held:
            outcomes[action.identity] = Outcome(action, OutcomeStatus.HELD, "held by a guard")
        return [outcomes[action.identity] for action in plan.actions]


def _work(key: str, actions: Sequence[AnyAction], job: Job) -> RoomWork | AccountWork:
    """An account's key is nobody else's: either all are of a room, or all of an account."""
    of_account = [action for action in actions if isinstance(action, AccountAction)]
    if of_account:
        return AccountWork(of_account, job)
    return RoomWork(key, [action for action in actions if not isinstance(action, AccountAction)], job)


def _by_room(actions: Sequence[AnyAction]) -> Mapping[str, list[AnyAction]]:
    by_room: dict[str, list[AnyAction]] = defaultdict(list)
    for action in actions:
        by_room[action.room].append(action)
    return by_room
