"""How long an answer about a room is waited for, if there is something to believe of it meanwhile.

One that hangs must not keep all others up for as long as the transport tries again; a very large room takes
its time, and is to be read all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from aim.errors import HomeserverUnavailable

PATIENCE = 60.0
"""Seconds that is waited at first, and for whatever is small."""
MOST_PATIENCE = 600.0
"""Seconds that is waited for the whole of a room at most."""


class Patience:
    """Learns how long the whole of each room takes."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        """Rooms that did not come in time → what they are given the next time."""

    async def for_a_key(self, answer: Awaitable[object]) -> object:
        """The answer. Raises HomeserverUnavailable, too, if it does not come in time."""
        return await _within(PATIENCE, answer)

    async def for_a_room(self, room_id: str, answer: Awaitable[object]) -> object:
        """The answer, for which twice as long is waited each time that it does not come. Raises
        HomeserverUnavailable, too, if it does not come in time."""
        seconds, clock = self._seconds.get(room_id, PATIENCE), asyncio.get_running_loop().time
        began = clock()
        try:
            found = await _within(seconds, answer)
        except _TooLate:
            self._seconds[room_id] = min(2 * seconds, MOST_PATIENCE)
            raise
        if clock() - began < PATIENCE:
            # It was the homeserver that was slow, and not the room that is large.
            self._seconds.pop(room_id, None)
        return found

    def forget(self, room_id: str) -> None:
        """The room is no business of ours any more."""
        self._seconds.pop(room_id, None)


class _TooLate(HomeserverUnavailable):
    """We have stopped waiting."""


async def _within(seconds: float, answer: Awaitable[object]) -> object:
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as error:
        raise _TooLate(f"no answer within {seconds:.0f} s") from error
