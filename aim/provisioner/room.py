"""The work on one room: its actions in order, each an outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import assert_never

from aim.desired.rooms import DesiredRoom
from aim.errors import HomeserverError
from aim.planner.actions import (
    AddChild,
    AnyAction,
    CreateRoom,
    Invite,
    Kick,
    RemoveChild,
    SetPowerLevel,
    SetRoomState,
)
from aim.planner.diff import POWER_LEVELS
from aim.planner.guards import is_counted, kind_of
from aim.planner.memory import properties_of
from aim.ports import Outcome, OutcomeStatus
from aim.provisioner.creation import complete, create
from aim.provisioner.state import child_content, parent_content, with_room_ids
from aim.provisioner.tools import Job
from aim.world.recorded import Done, RecordedRoom

FIRST_INVITES = 50
"""So many invites go with a createRoom: it does them one after the other before it answers."""


class RoomWork:
    """Carries out the due actions of one room, one request at a time."""

    def __init__(self, key: str, actions: Sequence[AnyAction], job: Job) -> None:
        self._key = key
        self._actions = list(actions)
        self._job = job
        self._room_id = ""
        self._invites_went_along = False
        self.outcomes: list[Outcome] = []

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
        await self._set_levels([action for action in actions if _is_about_levels(action)])
        for action in actions:
            if not _is_about_levels(action):
                if isinstance(action, AddChild):
                    # Not with a place at the gate: the child's creation needs one too.
                    await self._job.rooms.id_of(action.child)
                await self._attempt([action], self._call(action))

    # -- one step ----------------------------------------------------------------------------------------

    async def _attempt(self, actions: Sequence[AnyAction], call: Callable[[], Awaitable[None]]) -> bool:
        """Makes one call for these actions; true if it was done."""
        if self._job.stopping.is_set():
            self._skip(actions, "asked to stop")
            return False
        await self._count(actions)
        try:
            async with self._job.gate:
                await call()
        except _Skipped as skipped:
            self._skip(actions, str(skipped))
            return False
        except HomeserverError as error:
            self._settle(actions, OutcomeStatus.FAILED, error.message)
            return False
        self._settle(actions, OutcomeStatus.DONE)
        return True

    async def _count(self, actions: Sequence[AnyAction]) -> None:
        """Records what counts against a guard before it is tried, so that being killed can't hide it."""
        suffix = f":{self._job.tools.server_name}"
        for action in actions:
            kind = kind_of(action)
            if kind is not None and is_counted(action):
                person = (action.target or "")[1:].removesuffix(suffix)
                now = self._job.tools.now()
                await self._job.tools.recorder.record_done(
                    Done(action.identity, kind, action.space, person, now)
                )

    def _settle(self, actions: Sequence[AnyAction], status: OutcomeStatus, message: str = "") -> None:
        for action in actions:
            outcome = Outcome(action, status, message)
            self.outcomes.append(outcome)
            self._job.progress(outcome)

    def _skip(self, actions: Sequence[AnyAction], message: str) -> None:
        self._settle(actions, OutcomeStatus.SKIPPED, message)

    # -- what each action asks of the homeserver ---------------------------------------------------------

    def _call(self, action: AnyAction) -> Callable[[], Awaitable[None]]:
        writer = self._job.tools.writer
        room_id = self._room_id
        match action:
            case SetRoomState(event_type=event_type, content=content):
                return lambda: self._put_state(event_type, content)
            case Kick(person=person, reason=reason):
                return lambda: writer.kick(room_id, person, reason)
            case Invite(person=person):
                return lambda: writer.invite(room_id, person)
            case AddChild():
                return lambda: self._add_child(action)
            case RemoveChild(child_id=child_id):
                return lambda: self._remove_child(child_id)
            case CreateRoom() | SetPowerLevel():
                raise AssertionError(f"{action.identity} is never a call of its own")
            case _:
                assert_never(action)

    async def _put_state(self, event_type: str, content: Mapping[str, object]) -> None:
        resolved = await with_room_ids(content, self._job.rooms)
        await self._job.tools.writer.put_state(self._room_id, event_type, "", resolved)

    async def _add_child(self, action: AddChild) -> None:
        child_id = await self._job.rooms.id_of(action.child)
        if child_id is None:
            raise _Skipped(f"depends on the room {action.child}, which does not exist")
        content = child_content(self._job.tools.server_name, suggested=action.suggested)
        writer = self._job.tools.writer
        if action.child_id is not None:
            # A room that existed before has no m.space.parent of this space yet. It comes first: were it
            # broken off between the two, the missing m.space.child would show.
            await writer.put_state(
                child_id, "m.space.parent", self._room_id, parent_content(self._job.tools.server_name)
            )
        await writer.put_state(self._room_id, "m.space.child", child_id, content)

    async def _remove_child(self, child_id: str) -> None:
        writer = self._job.tools.writer
        await writer.put_state(child_id, "m.space.parent", self._room_id, {})
        await writer.put_state(self._room_id, "m.space.child", child_id, {})

    async def _set_levels(self, actions: Sequence[AnyAction]) -> None:
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
        levels = [other for other in self._actions if isinstance(other, SetPowerLevel)]
        invites = [other for other in self._actions if isinstance(other, Invite)][:FIRST_INVITES]
        try:
            parent_id = await self._job.rooms.id_of(action.parent) if action.parent else None
            if action.parent and parent_id is None:
                self._skip([action], f"depends on the space {action.parent}, which does not exist")
            elif await self._attempt([action], lambda: self._create_now(action, parent_id, levels, invites)):
                self._settle(levels, OutcomeStatus.DONE)
                if self._invites_went_along:
                    self._settle(invites, OutcomeStatus.DONE)
        finally:
            self._job.rooms.settle(self._key, self._room_id or None)

    async def _create_now(
        self,
        action: CreateRoom,
        parent_id: str | None,
        levels: Sequence[SetPowerLevel],
        invites: Sequence[Invite],
    ) -> None:
        people = [invite.person for invite in invites]
        room_id, certain = await create(action, parent_id, _levels(levels), people, self._job)
        if not certain:
            await complete(action, room_id, parent_id, _levels(levels), self._job)
        await self._job.tools.recorder.record_room(
            RecordedRoom(self._key, room_id, properties_of(self._desired)), self._job.tools.now()
        )
        self._room_id, self._invites_went_along = room_id, certain

    @property
    def _desired(self) -> DesiredRoom:
        return self._job.desired.rooms[self._key]


class _Skipped(Exception):
    """An action turned out to depend on something that failed."""


def _is_about_levels(action: AnyAction) -> bool:
    return isinstance(action, SetPowerLevel) or (
        isinstance(action, SetRoomState) and action.event_type == POWER_LEVELS
    )


def _levels(actions: Sequence[AnyAction]) -> Mapping[str, int]:
    return {action.person: action.level for action in actions if isinstance(action, SetPowerLevel)}
