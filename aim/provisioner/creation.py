"""Making one room: a single request that is never repeated blindly.

A `createRoom` whose answer was lost may have made the room, or be still at it. The intent is recorded
first; then the room is looked for by its marker until it is found or can't be under way any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aim.errors import HomeserverError, HomeserverUnavailable
from aim.planner.actions import CreateRoom, CreateSpace
from aim.ports import NewRoom
from aim.provisioner.state import parent_content, with_room_ids
from aim.provisioner.tools import Job, Tools

_FIRST_LOOK = 0.25
_LONGEST_WAIT = 5.0


async def create(
    action: CreateRoom,
    parent_id: str | None,
    levels: Mapping[str, int],
    people: Sequence[str],
    job: Job,
) -> tuple[str, bool]:
    """Makes the room. Gives its id, and whether the answer was seen (if not, invites may be missing).

    Raises HomeserverError if there is no such room in the end.
    """
    tools = job.tools
    state = [
        {"type": event_type, "state_key": state_key, "content": content}
        for event_type, state_key, content in await _state_of(action, parent_id, job)
    ]
    room = NewRoom(
        key=action.room,
        is_space=isinstance(action, CreateSpace),
        name=action.name,
        room_version=action.room_version,
        state=state,
        power_levels={**action.power_levels, "users": dict(levels)},
        invite=people,
        predecessor=action.predecessor,
    )
    await tools.recorder.intend_room(action.room, tools.now())
    try:
        return await tools.writer.create_room(room), True
    except HomeserverUnavailable as error:
        if not error.maybe_done:
            # Nothing is under way: the next cycle has nothing to wait for.
            await tools.recorder.close_intents([action.room])
            raise
        # The request may still be under way.
        found = await look_for(action.room, job.rooms.known(), tools, tools.settle)
        if found is None:
            raise
    except HomeserverError:
        # An invite that is refused leaves the room behind, without the invites that would have followed.
        found = await look_for(action.room, job.rooms.known(), tools, 0)
        if found is None:
            await tools.recorder.close_intents([action.room])
            raise
    return found, False


async def complete(
    action: CreateRoom, room_id: str, parent_id: str | None, levels: Mapping[str, int], job: Job
) -> None:
    """Writes what a room should have been made with: one whose making was broken off may lack any of it.

    The homeserver makes no new event of state that is there already. Raises HomeserverError.
    """
    writer = job.tools.writer
    await writer.change_power_levels(room_id, action.power_levels, levels)
    await writer.put_state(room_id, "m.room.name", "", {"name": action.name})
    for event_type, state_key, content in await _state_of(action, parent_id, job):
        await writer.put_state(room_id, event_type, state_key, content)


async def _state_of(
    action: CreateRoom, parent_id: str | None, job: Job
) -> list[tuple[str, str, Mapping[str, object]]]:
    """Type, key and content of the room's first state events."""
    state: list[tuple[str, str, Mapping[str, object]]] = [
        (event_type, "", await with_room_ids(content, job.rooms))
        for event_type, content in sorted(action.state.items())
    ]
    if parent_id is not None:
        state.append(("m.space.parent", parent_id, parent_content(job.tools.server_name)))
    return state


async def look_for(key: str, known: frozenset[str], tools: Tools, patience: float) -> str | None:
    """The id of the room marked with `key`, or None if it does not appear within `patience` seconds."""
    waited, pause = 0.0, _FIRST_LOOK
    while True:
        found = await tools.writer.find_by_marker(key, known)
        if found is not None or waited >= patience:
            return found
        await tools.sleep(pause)
        waited += pause
        pause = min(pause * 2, _LONGEST_WAIT)
