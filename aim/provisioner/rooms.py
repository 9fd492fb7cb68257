"""Which rooms exist while a plan is carried out: lets a room's work wait for another room's creation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping


class Rooms:
    """Room ids by key: of those that exist, and, once made, of those this plan creates."""

    def __init__(self, existing: Mapping[str, str], to_create: Iterable[str]) -> None:
        self._ids = dict(existing)
        self._awaited: dict[str, asyncio.Event] = {key: asyncio.Event() for key in to_create}

    def known(self) -> frozenset[str]:
        """Ids of all rooms known by now."""
        return frozenset(self._ids.values())

    async def id_of(self, key: str) -> str | None:
        """The room's id; waits for its creation if that is planned. None if there is none, or it failed."""
        if key in self._awaited:
            await self._awaited[key].wait()
        return self._ids.get(key)

    def settle(self, key: str, room_id: str | None) -> None:
        """The creation of the room is over: `room_id`, or None if it failed."""
        if room_id is not None:
            self._ids[key] = room_id
        if key in self._awaited:
            self._awaited[key].set()
