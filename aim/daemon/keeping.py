"""Keeps the mirror current: begins it, begins it again when it was lost, compares it with the homeserver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from aim.daemon.mirrored import LiveMirror
from aim.errors import AimError, StoreError

_AGAIN = 30.0
"""Seconds until a mirror that is not current is begun again."""
_CALM = 5.0
"""Seconds between two looks at whether a room is to be verified."""
_ROOMS_AT_ONCE = 20
"""Rooms verified in a row at most, as far as it is their turn."""

_log = structlog.get_logger()


class Keeper:
    """Looks after one mirror until told to stop."""

    def __init__(
        self,
        mirror: LiveMirror,
        verify: timedelta,
        stopping: asyncio.Event,
        defect: Callable[[Exception], None],
        hears: Callable[[], None],
    ) -> None:
        """`defect` is told of what should not happen, `hears` whenever the mirror has become current."""
        self._mirror = mirror
        self._verify = verify
        self._stopping = stopping
        self._defect = defect
        self._hears = hears
        self._said: str | None = None
        self.tried = asyncio.Event()
        """Set once the mirror is current, or could not be made so at the first try."""

    async def keep(self) -> None:
        """Until told to stop. Raises StoreError."""
        while not self._stopping.is_set():
            try:
                if self._mirror.current:
                    for _ in range(_ROOMS_AT_ONCE):
                        await self._mirror.verify_next(self._verify)
                else:
                    await self._begin()
            except StoreError:
                raise
            except AimError as error:
                self._fell_behind(error)
            except Exception as error:  # noqa: BLE001 - without a keeper the mirror is never current again
                self._defect(error)
            finally:
                self.tried.set()
            pause = _CALM if self._mirror.current else _AGAIN
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _begin(self) -> None:
        await self._mirror.begin()
        if self._mirror.current:
            self._said = None
            _log.info("the mirror is current: events of the homeserver arrive")
            self._hears()

    def _fell_behind(self, error: AimError) -> None:
        if error.message != self._said:
            self._said = error.message
            _log.error(
                "events of the homeserver don't arrive; it is read anew for each cycle instead",
                cause=error.message,
                remedy=error.remedy,
            )
