"""The requests that reading and writing share: which rooms the bot is in, and the default room version.

Used by `observe`, `write` and `check`; goes through whatever transport they have.
"""

from __future__ import annotations

from mautrix.api import Path

from aim.matrix.parse import mapping, strings
from aim.matrix.transport import Getter


async def joined(transport: Getter) -> list[str]:
    """The ids of the rooms that the bot is in, sorted (Client-Server API, `GET /joined_rooms`).

    A bot that was never registered is in none.
    """
    answer = await transport.get(Path.v3.joined_rooms)
    return sorted(strings(mapping(answer).get("joined_rooms")))


class RoomVersions:
    """What the homeserver says of room versions (Client-Server API, `GET /capabilities`). Asks once."""

    def __init__(self, transport: Getter) -> None:
        self._transport = transport
        self._default: str | None = None
        self._available: frozenset[str] = frozenset()

    async def default(self) -> str:
        """What it makes when no version is asked for; '' if it does not say. Raises HomeserverError."""
        if self._default is None:
            answer = mapping(await self._transport.get(Path.v3.capabilities))
            versions = mapping(mapping(answer.get("capabilities")).get("m.room_versions"))
            default = versions.get("default")
            self._available = frozenset(mapping(versions.get("available")))
            self._default = default if isinstance(default, str) else ""
        return self._default

    async def available(self) -> frozenset[str]:
        """All that it can make. Raises HomeserverError."""
        await self.default()
        return self._available
