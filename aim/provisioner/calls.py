"""What each action on a room that exists asks of the homeserver, and of our own records before that."""

from __future__ import annotations

from typing import assert_never

from aim.planner.actions import (
    AbandonSpace,
    Accept,
    AddChild,
    AnyRoomAction,
    CreateRoom,
    Invite,
    InviteAgent,
    Join,
    Kick,
    ReleaseRoom,
    RemoveChild,
    SetExpectations,
    SetPowerLevel,
    SetRoomState,
    TakeControl,
)
from aim.planner.agents import expectations_at
from aim.planner.guards import counted_as
from aim.provisioner.state import child_content, marker_content, parent_content, with_room_ids
from aim.provisioner.tools import Job
from aim.provisioner.work import SkippedError
from aim.world.federation import EXPECTATIONS_TYPE
from aim.world.recorded import RecordedRoom
from aim.world.rooms import MARKER_TYPE


class Calls:
    """Does one action after the other in one room. All raises HomeserverError and StoreError."""

    def __init__(self, room_id: str, invited: frozenset[str], job: Job) -> None:
        """`invited` are MXIDs whose invites went along with the room's creation."""
        self._room_id = room_id
        self._invited = invited
        self._job = job

    async def do(self, action: AnyRoomAction) -> None:
        """Raises SkippedError if it depends on something that is not there."""
        if isinstance(action, Invite | Join | Kick | SetPowerLevel):
            await self._on_person(action)
        else:
            await self._on_room(action)

    async def _on_person(self, action: Invite | Join | Kick | SetPowerLevel) -> None:
        writer = self._job.tools.writer
        match action:
            case Invite(person=person, acting_as=acting_as):
                await writer.invite(self._room_id, person, acting_as=acting_as)
            case Accept(inviter=inviter):
                await writer.accept(self._room_id, inviter)
            case Join():
                await self._join(action)
            case Kick():
                await self._kick(action)
            case SetPowerLevel(person=person, level=level):
                assert action.as_themselves, "the others are part of one write"
                await writer.lower_own_level(self._room_id, person, level)
            case _:
                assert_never(action)

    async def _on_room(
        self,
        action: CreateRoom
        | TakeControl
        | SetRoomState
        | SetExpectations
        | InviteAgent
        | AddChild
        | RemoveChild
        | ReleaseRoom
        | AbandonSpace,
    ) -> None:
        match action:
            case SetRoomState():
                await self._put_state(action)
            case SetExpectations():
                content = expectations_at(action, self._job.tools.now()).content
                await self._job.tools.writer.put_state(
                    self._room_id, EXPECTATIONS_TYPE, self._job.tools.bot, content
                )
            case InviteAgent(agent=agent):
                await self._job.tools.writer.invite_agent(self._room_id, agent)
            case AddChild():
                await self._add_child(action)
            case RemoveChild():
                await self._remove_child(action)
            case TakeControl():
                await self._take_control(action)
            case ReleaseRoom():
                await self._release(action)
            case AbandonSpace():
                # First: as long as the bot is in it, the space is there to be abandoned again.
                await self._job.tools.recorder.forget_room(action.room)
                await self._job.tools.writer.leave(self._room_id)
            case CreateRoom():
                raise AssertionError(f"{action.identity} is never a call of its own")
            case _:
                assert_never(action)

    async def _join(self, action: Join) -> None:
        writer = self._job.tools.writer
        if action.needs_invite and action.person not in self._invited:
            await writer.invite(self._room_id, action.person)
        await writer.join(self._room_id, action.person)

    async def _kick(self, action: Kick) -> None:
        tools = self._job.tools
        if not action.as_themselves:
            await tools.writer.kick(self._room_id, action.person, action.reason)
            return
        # First of all: afterwards it looks like a wish of their own.
        await tools.recorder.record_caused(self._room_id, counted_as(action, tools.server_name))
        await tools.writer.leave(self._room_id, action.person, action.reason)

    async def _take_control(self, action: TakeControl) -> None:
        tools = self._job.tools
        if action.acting_as is not None or action.invites:
            await tools.writer.take_control(self._room_id, action.acting_as, invites=action.invites)
        marker = marker_content(tools.instance, action)
        await tools.writer.put_state(self._room_id, MARKER_TYPE, tools.bot, marker)
        # What of the configuration was ever applied to it is not known.
        await tools.recorder.record_room(RecordedRoom(action.room, self._room_id, None), tools.now())

    async def _release(self, action: ReleaseRoom) -> None:
        """Each step can be done again, and leaving, after which nothing can be done there, comes last."""
        tools = self._job.tools
        lowered = action.tombstone_level
        if action.restore or lowered is not None:
            base = None if lowered is None else {"events": {"m.room.tombstone": lowered}}
            await tools.writer.change_power_levels(self._room_id, base, action.restore)
        await tools.writer.put_state(self._room_id, MARKER_TYPE, tools.bot, {})
        if action.leaves and action.room == self._room_id:
            # People made it, and its marker is gone: while the bot is in it, the record alone tells of it.
            await tools.writer.leave(self._room_id)
            await self._forget(action)
        elif action.leaves:
            await self._forget(action)
            await tools.writer.leave(self._room_id)

    async def _forget(self, action: ReleaseRoom) -> None:
        """If its space is given up, too: a new one of that id gets a room of its own."""
        if action.space not in self._job.desired.rooms:
            await self._job.tools.recorder.forget_room(action.room)

    async def _put_state(self, action: SetRoomState) -> None:
        content = await with_room_ids(action.content, self._job.rooms)
        if content.get("replacement_room", "") is None:
            missing = action.content["replacement_room"]
            raise SkippedError(f"depends on the room {missing}, which does not exist")
        await self._job.tools.writer.put_state(
            self._room_id, action.event_type, "", content, acting_as=action.acting_as
        )

    async def _add_child(self, action: AddChild) -> None:
        child_id = await self._job.rooms.id_of(action.child)
        if child_id is None:
            raise SkippedError(f"depends on the room {action.child}, which does not exist")
        content = child_content(self._job.tools.server_name, suggested=action.suggested)
        writer = self._job.tools.writer
        if action.child_id is not None:
            # A room that existed before has no m.space.parent of this space yet. It comes first: were it
            # broken off between the two, the missing m.space.child would show.
            await writer.put_state(
                child_id, "m.space.parent", self._room_id, parent_content(self._job.tools.server_name)
            )
        await writer.put_state(self._room_id, "m.space.child", child_id, content)

    async def _remove_child(self, action: RemoveChild) -> None:
        writer = self._job.tools.writer
        if action.is_ours:
            await writer.put_state(action.child_id, "m.space.parent", self._room_id, {})
        await writer.put_state(self._room_id, "m.space.child", action.child_id, {})
