"""Rooms on the homeserver. Implemented by `matrix`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aim.directory.roster import Roster
from aim.world.rooms import Observed


class HomeserverReader(Protocol):
    """Reads rooms and accounts. Has no way to change anything."""

    async def observe(
        self,
        roster: Roster,
        wanted: Collection[str],
        known: Mapping[str, str],
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> Observed:
        """Reads every managed room, which of the `wanted` localparts have an account, and what people put
        into our spaces.

        `known` is key → room id as recorded: it decides between two rooms with one key. `rooms` are aliases
        and ids of existing rooms to look at → localparts of people who may be in them.
        Raises HomeserverError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoom:
    """Everything one `createRoom` carries. Room ids are real by now."""

    key: str
    is_space: bool
    name: str
    room_version: str | None
    state: Sequence[Mapping[str, object]]
    """`initial_state`: events with type, state_key, content."""
    power_levels: Mapping[str, object]
    """Complete content, `users` included."""
    invite: Sequence[str]
    """MXIDs, at most 50, local users with accounts."""
    predecessor: str | None = None
    """Id of the room that it replaces."""


class HomeserverWriter(Protocol):
    """Changes rooms, acting as the bot, or as a local user where a method says so. Each method is as few
    requests as it can be, retried while that is safe.

    All raise HomeserverRefused or HomeserverUnavailable.
    """

    async def create_room(self, room: NewRoom) -> str:
        """The id of a new room. HomeserverUnavailable with `maybe_done` if the answer was lost."""
        ...

    async def find_by_marker(self, key: str, ignoring: Collection[str]) -> str | None:
        """The id of a room of ours with that key which is not among `ignoring`, or None."""
        ...

    async def invite(
        self, room_id: str, mxid: str, reason: str | None = None, acting_as: str | None = None
    ) -> None:
        """As the bot, or acting as this member. Done too if they are already in or invited."""
        ...

    async def kick(self, room_id: str, mxid: str, reason: str) -> None:
        """Done too if they are already out."""
        ...

    async def join(self, room_id: str, mxid: str) -> None:
        """Acting as this user. Done too if they are already in."""
        ...

    async def leave(self, room_id: str, mxid: str | None = None, reason: str | None = None) -> None:
        """Acting as this user, or as the bot. Done too if they are already out."""
        ...

    async def lower_own_level(self, room_id: str, mxid: str, level: int) -> None:
        """Acting as this user: reads the power levels, changes only theirs, writes if that made a
        difference."""
        ...

    async def invite_agent(self, room_id: str, mxid: str) -> None:
        """Asks the bot of another server in; tried once and not for long, as that server may be away. Done
        too if it is already in or invited."""
        ...

    async def accept(self, room_id: str, inviter: str) -> None:
        """The bot itself joins where this user of another server has asked it in, and leaves at once, with
        HomeserverRefused, what turns out not to be made by their `aim`."""
        ...

    async def take_control(self, room_id: str, acting_as: str | None, *, invites: bool) -> None:
        """Acting as this user lets the bot in (with `invites`) and gives it level 100; each step only if it
        is not so already. With None the bot joins by itself."""
        ...

    async def put_state(
        self,
        room_id: str,
        event_type: str,
        state_key: str,
        content: Mapping[str, object],
        acting_as: str | None = None,
    ) -> None:
        """As the bot, or acting as this member."""
        ...

    async def change_power_levels(
        self, room_id: str, base: Mapping[str, object] | None, levels: Mapping[str, int]
    ) -> None:
        """Reads the power levels, changes only these people's (the default level removes the entry) and, if
        given, the keys of `base`, and writes them if that made a difference."""
        ...
