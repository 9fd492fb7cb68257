"""The work on one room: its actions in order, each an outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from aim.desired.rooms import DesiredRoom
from aim.planner.actions import (
    AddChild,
    AnyRoomAction,
    CreateRoom,
    Invite,
    Join,
    SetPowerLevel,
    SetRoomState,
    TakeControl,
)
from aim.planner.diff import POWER_LEVELS
from aim.planner.memory import properties_of
from aim.ports import OutcomeStatus
from aim.provisioner.calls import Calls
from aim.provisioner.creation import complete, create
from aim.provisioner.tools import Job
from aim.provisioner.work import Work
from aim.world.recorded import RecordedRoom

A = TypeVar("A", bound=AnyRoomAction)

FIRST_INVITES = 50
"""So many invites go with a createRoom: it does them one after the other before it answers."""


class RoomWork(Work):
    """Carries out the due actions of one room, one request at a time."""

    def __init__(self, key: str, actions: Sequence[AnyRoomAction], job: Job) -> None:
        super().__init__(job)
        self._key = key
        self._actions = list(actions)
        self._room_id = ""
        self._invited: frozenset[str] = frozenset()
        """Whose invites went along with the creation."""

    async def run(self) -> None:
        """All of it. Raises only what no outcome can carry (StoreError)."""
        actions = self._actions
        if isinstance(actions[0], CreateRoom):
            await self._create(actions[0])
            settled = {outcome.action.identity for outcome in self.outcomes}
            actions = [action for action in actions if action.identity not in settled]
        else:
            self._room_id = await self._job.rooms.id_of(self._key) or ""
        if not self._room_id:
            self._skip(actions, f"depends on the room {self._key}, which does not exist")
            return
        if actions and isinstance(actions[0], TakeControl):
            await self._attempt(actions[:1], self._call(actions[0]))
            actions = actions[1:]
        await self._set_levels([action for action in actions if _is_in_merged_write(action)])
        for action in actions:
            if not _is_in_merged_write(action):
                await self._one(action)

    async def _one(self, action: AnyRoomAction) -> None:
        # Nobody waits with a place at the gate: what is waited for needs one too.
        if isinstance(action, AddChild):
            await self._job.rooms.id_of(action.child)
        if obstacle := await self._job.settled.obstacle(action):
            self._skip([action], obstacle)
        else:
            await self._attempt([action], self._call(action))

    def _call(self, action: AnyRoomAction) -> Callable[[], Awaitable[None]]:
        return partial(Calls(self._room_id, self._invited, self._job).do, action)

    # -- power levels ----------------------------------------------------------------------------------------

    async def _set_levels(self, wanted: Sequence[AnyRoomAction]) -> None:
        """One write for all of them."""
        actions = []
        for action in wanted:
            if obstacle := await self._job.settled.obstacle(action):
                self._skip([action], obstacle)
            else:
                actions.append(action)
        if not actions:
            return
        base = next((action.content for action in actions if isinstance(action, SetRoomState)), None)
        await self._attempt(
            actions,
            lambda: self._job.tools.writer.change_power_levels(self._room_id, base, _levels(actions)),
        )

    # -- creation ----------------------------------------------------------------------------------------

    async def _create(self, action: CreateRoom) -> None:
        """One createRoom with the levels and the first invites; settles these actions if it was done."""
        try:
            parent_id = await self._job.rooms.id_of(action.parent) if action.parent else None
            levels = await self._possible(
                [other for other in self._actions if isinstance(other, SetPowerLevel)], len(self._actions)
            )
            invited = await self._possible(filter(_is_invited, self._actions), FIRST_INVITES)
            if obstacle := await self._job.settled.obstacle(action):
                self._skip([action], obstacle)
            elif action.parent and parent_id is None:
                self._skip([action], f"depends on the space {action.parent}, which does not exist")
            elif await self._attempt([action], lambda: self._create_now(action, parent_id, levels, invited)):
                self._settle(levels, OutcomeStatus.DONE)
                done = [invite for invite in invited if isinstance(invite, Invite)]
                self._settle(
                    [invite for invite in done if invite.person in self._invited], OutcomeStatus.DONE
                )
        finally:
            self._job.rooms.settle(self._key, self._room_id or None)

    async def _possible(self, actions: Iterable[A], most: int) -> list[A]:
        """The first of them that can go along with the creation, once what they depend on elsewhere (accounts
        that are made) is over. The others are told what is in their way when their turn comes."""
        found: list[A] = []
        for action in actions:
            if len(found) == most:
                break
            if await self._job.settled.obstacle(action) is None:
                found.append(action)
        return found

    async def _create_now(
        self,
        action: CreateRoom,
        parent_id: str | None,
        levels: Sequence[SetPowerLevel],
        invited: Sequence[AnyRoomAction],
    ) -> None:
        people = [action.target for action in invited if action.target is not None]
        room_id, certain = await create(action, parent_id, _levels(levels), people, self._job)
        if not certain:
            await complete(action, room_id, parent_id, _levels(levels), self._job)
        await self._job.tools.recorder.record_room(
            RecordedRoom(self._key, room_id, properties_of(self._desired)), self._job.tools.now()
        )
        self._room_id = room_id
        self._invited = frozenset(people if certain else ())

    @property
    def _desired(self) -> DesiredRoom:
        return self._job.desired.rooms[self._key]


def _is_in_merged_write(action: AnyRoomAction) -> bool:
    """Whether it is part of the one write of power levels: not so what people do to their own level."""
    if isinstance(action, SetPowerLevel):
        return not action.as_themselves
    return isinstance(action, SetRoomState) and action.event_type == POWER_LEVELS


def _is_invited(action: AnyRoomAction) -> bool:
    return isinstance(action, Invite) or (isinstance(action, Join) and action.needs_invite)


def _levels(actions: Sequence[AnyRoomAction]) -> Mapping[str, int]:
    return {action.person: action.level for action in actions if isinstance(action, SetPowerLevel)}
