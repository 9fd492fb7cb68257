"""What is in our spaces without being ours: no event tells of it, so it is looked at again now and then.

In: the rooms as mirrored. Out: what `unmanaged` found, from memory unless something changed in a space of
ours or the time has come. Where our spaces hold nothing but our rooms nothing is ever asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from aim.matrix.unmanaged import Found, Unmanaged
from aim.world.rooms import Room

EVERY = timedelta(minutes=10)
"""A private room that becomes joinable is seen after this time at the latest."""

Wanted = Mapping[str, Sequence[str]]
"""Alias or room id → localparts of people who may be in it."""


class Around:
    """Remembers what was found."""

    def __init__(self, unmanaged: Unmanaged, now: Callable[[], datetime]) -> None:
        self._unmanaged = unmanaged
        self._now = now
        self._found = Found()
        self._looked_for: frozenset[tuple[str, ...]] = frozenset()
        self._looked_at: datetime | None = None
        self._is_forgotten = False

    def forget(self) -> None:
        """Something was done there, of which no event tells: what was found is not to be believed."""
        self._is_forgotten = True

    async def found(self, rooms: Collection[Room], wanted: Wanted | None, *, anew: bool) -> Found:
        """What is there now, `anew` if nothing remembered is to be believed. Raises HomeserverUnavailable."""
        looked_for = _strangers(rooms, wanted)
        if anew or self._is_forgotten or looked_for != self._looked_for or self.is_due:
            # Before it looks: what is done meanwhile may come too late for it.
            self._is_forgotten = False
            try:
                found = await self._unmanaged.look(rooms, wanted) if looked_for else Found()
            except BaseException:
                self._is_forgotten = True
                raise
            # What failed is looked for again by the next; what was forgotten meanwhile stays so.
            self._is_forgotten |= bool(found.failed)
            self._found = found.completed_by(self._found)
            self._looked_for, self._looked_at = looked_for, self._now()
        return self._found

    @property
    def is_due(self) -> bool:
        """Whether there is something to look at, and it was not looked at for long."""
        if self._looked_at is None or not self._looked_for:
            return False
        return self._now() - self._looked_at >= EVERY


def _strangers(rooms: Collection[Room], wanted: Wanted | None) -> frozenset[tuple[str, ...]]:
    """All that would be looked for: what changes here changes what can be found."""
    known = {room.room_id for room in rooms}
    looked_for: set[tuple[str, ...]] = {("wanted", name, *people) for name, people in (wanted or {}).items()}
    for room in rooms:
        if room.marker is None:
            continue
        looked_for.update(
            (room.room_id, child.room_id, child.sender, str(child.suggested), child.order or "")
            for child in room.children.values()
            if room.is_space and child.room_id not in known
        )
        if room.replacement and room.replacement not in known and room.marker.is_taken_over:
            looked_for.add((room.room_id, room.replacement))
    return frozenset(looked_for)
