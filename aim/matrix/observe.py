"""Reads how the homeserver is: every managed room, what else is in our spaces, and who has an account.
Implements ports.HomeserverReader.

In: GET requests only, by a ReadTransport. Out: world.rooms.Observed. `parse` knows what a room's state means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mautrix.api import Path

from aim.directory.roster import NOBODY, People, Roster
from aim.matrix import parse
from aim.matrix.accounts import Accounts, AccountsWay
from aim.matrix.assemble import assemble
from aim.matrix.parallel import Progress, each
from aim.matrix.parse import Home, mapping
from aim.matrix.refusals import one_line, somebody_else
from aim.matrix.rooms import RoomVersions, joined
from aim.matrix.transport import PARALLELISM, ReadTransport
from aim.matrix.unmanaged import Unmanaged
from aim.world.rooms import Observed, Room


class Reader:
    """Observes the homeserver as the bot."""

    def __init__(
        self,
        transport: ReadTransport,
        home: Home,
        accounts: Accounts,
        *,
        admin: str | None = None,
        parallelism: int = PARALLELISM,
        progress: Progress | None = None,
    ) -> None:
        """`progress` is told (rooms read, rooms in all); `admin`: MXID to act as where it takes an admin."""
        self._transport = transport
        self._home = home
        self._accounts = accounts
        self._admin = admin
        self._parallelism = parallelism
        self._progress = progress
        self._versions = RoomVersions(transport)

    async def observe(
        self,
        roster: Roster,
        wanted: Collection[str],
        known: Mapping[str, str],
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> Observed:
        """Reads every managed room, which of the `wanted` localparts have an account, and what people put
        into our spaces.

        A room is managed if our bot sent its create event, with the marker of our instance in it, or took it
        over. `known` is key → room id as recorded: it decides between two rooms with one key; without it the
        oldest counts. `rooms` are the aliases and ids of existing rooms to look at → localparts of people who
        may be in them. Raises HomeserverError, and ConfigError if we are somebody else: never gives a part.
        """

        async def read(room_id: str) -> Room | None:
            events = await self._transport.get(Path.v3.rooms[room_id].state)
            return parse.room(room_id, events, self._home, roster)

        found = await each(read, await joined(self._transport), self._parallelism, self._progress)
        inside = [room for room in found if room is not None]
        ours = [room for room in inside if room.marker is not None]
        if not ours:
            await self._require_identity()
        others = await self._unmanaged(roster).look(inside, rooms)
        return assemble(
            self._home,
            inside,
            known,
            others,
            accounts=await self._with_accounts(roster, wanted, ours),
            default_room_version=await self._versions.default(),
            kept=frozenset(known.values()),
        )

    def _unmanaged(self, roster: Roster) -> Unmanaged:
        return Unmanaged(
            self._transport,
            self._home,
            roster,
            admin=self._admin,
            parallelism=self._parallelism,
        )

    async def _require_identity(self) -> None:
        """Raises ConfigError if the token is another user's: under a wrong name we would not know our rooms,
        and make all of them again."""
        answer = mapping(await self._transport.get(Path.v3.account.whoami))
        user = one_line(str(answer.get("user_id")))
        if user != self._home.bot:
            raise somebody_else(user, self._home.bot)

    async def accounts_way(self) -> AccountsWay:
        """How accounts are found, for `aim check`. Raises HomeserverError."""
        return await self._accounts.way()

    async def _with_accounts(self, roster: Roster, wanted: Collection[str], rooms: Sequence[Room]) -> People:
        if not wanted:
            return NOBODY
        names = set(wanted)
        listed = await self._accounts.listed(names)
        if listed is not None:
            return roster.people(listed)
        # Whoever is in a room has an account; an invite may be waiting for somebody who has none.
        inside = NOBODY.union(*(room.joined for room in rooms)) & roster.people(names)
        unknown = names.difference(roster.localparts(inside))
        return inside | roster.people(await self._accounts.asked(unknown))
