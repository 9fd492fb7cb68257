"""What became of each action so far: lets an action wait for those in other rooms that it depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aim.planner.actions import ActionType, AnyAction
from aim.ports import OutcomeStatus

_CREATIONS = (f"{ActionType.CREATE_SPACE} ", f"{ActionType.CREATE_ROOM} ")
_WORDS = {
    OutcomeStatus.FAILED: "failed",
    OutcomeStatus.SKIPPED: "was skipped",
    OutcomeStatus.HELD: "is held by a guard",
}


class Settled:
    """Outcomes by identity. Whether a room exists is not asked here: see Rooms."""

    def __init__(self, due: Iterable[AnyAction], held: Iterable[AnyAction]) -> None:
        self._status = dict.fromkeys((action.identity for action in held), OutcomeStatus.HELD)
        self._rooms: dict[str, str] = {}
        self._awaited: dict[str, asyncio.Event] = {}
        self._waiting: dict[str, str] = {}
        """Room → the action elsewhere that its work stands still for: one at a time, its own are in order."""
        for action in due:
            self._rooms[action.identity] = action.room
            self._awaited[action.identity] = asyncio.Event()

    def settle(self, action: AnyAction, status: OutcomeStatus) -> None:
        self._status[action.identity] = status
        self._awaited[action.identity].set()

    async def obstacle(self, action: AnyAction) -> str | None:
        """Why the action can't be done, in words, once all that it depends on is over; None if it can."""
        for identity in action.after:
            if identity.startswith(_CREATIONS):
                continue
            # The actions of one room are done in their order: to wait for a later one would be for ever.
            if self._rooms.get(identity, action.room) != action.room:
                if self._is_held_up_by(identity, action.room):
                    return f"depends on “{identity}”, which can't be done before it either"
                await self._wait(identity, action.room)
            status = self._status.get(identity)
            if status is not OutcomeStatus.DONE:
                word = _WORDS[status] if status else "is not done yet"
                return f"depends on “{identity}”, which {word}"
        return None

    def _is_held_up_by(self, identity: str, room: str) -> bool:
        """Whether an action elsewhere is not over, and can't be before the work on `room` goes on."""
        awaited: str | None = identity
        # Who waited for what is over by now goes on by itself.
        while awaited is not None and not self._awaited[awaited].is_set():
            if self._rooms[awaited] == room:
                return True
            awaited = self._waiting.get(self._rooms[awaited])
        return False

    async def _wait(self, identity: str, room: str) -> None:
        self._waiting[room] = identity
        try:
            await self._awaited[identity].wait()
        finally:
            del self._waiting[room]
