"""What the daemon asks of the mirror. Implemented by `matrix.mirror`, wired in `app`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Protocol


class LiveMirror(Protocol):
    """The observed state, kept by the homeserver's transactions."""

    @property
    def current(self) -> bool:
        """An event of our own has come back since the start, and nothing has failed since."""
        ...

    @property
    def has_to_look_around(self) -> bool:
        """Rooms in our spaces that are not ours were not looked at for long; a cycle does it."""
        ...

    async def begin(self) -> None:
        """Wakes the stream and waits for an event of our own to come back. Raises AimError."""
        ...

    async def barrier(self) -> bool:
        """True once everything that happened before this call has arrived. Raises AimError."""
        ...

    async def verify_next(self, interval: timedelta) -> None:
        """Reads the room again that was not read for longest, if it is its turn. Raises AimError."""
        ...

    async def poll_accounts(self, wanted: Collection[str]) -> bool:
        """Whether somebody has an account now who had none; `wanted` are localparts. Raises AimError."""
        ...

    def mark_stale(self, room_id: str) -> None:
        """This room is read again before anything is decided about it."""
        ...

    def key_of(self, room_id: str) -> str | None:
        """Our key of a managed room, or None."""
        ...
