"""The mirror of a running daemon, for whoever only looks: `aim plan`, `aim explain`.

In: what the daemon has stored. Out: Observed, as the daemon has it; implements ports.HomeserverReader. What
the daemon itself would have to read first is read anew, all of it, by another reader.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from aim.directory.roster import Roster
from aim.matrix.assemble import assemble
from aim.matrix.mirror.memory import Memory
from aim.matrix.parse import Home
from aim.matrix.transport import ReadTransport
from aim.matrix.unmanaged import Unmanaged
from aim.ports import HomeserverReader, MirrorStore
from aim.world.rooms import Observed


class StoredMirror:
    """Reads the database, and the homeserver only for rooms that are not ours."""

    def __init__(
        self,
        store: MirrorStore,
        home: Home,
        transport: ReadTransport,
        anew: HomeserverReader,
        admin: str | None = None,
    ) -> None:
        """`anew` reads the homeserver, where the stored mirror will not do."""
        self._store = store
        self._home = home
        self._transport = transport
        self._anew = anew
        self._admin = admin

    async def observe(
        self,
        roster: Roster,
        wanted: Collection[str],
        known: Mapping[str, str],
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> Observed:
        """See ports.HomeserverReader. Raises StoreError, too."""
        memory = Memory(self._home, roster)
        await memory.load(self._store)
        facts = memory.facts
        if not (facts.is_current and facts.complete) or memory.to_read() or memory.doubts:
            return await self._anew.observe(roster, wanted, known, rooms)
        mirrored = memory.rooms()
        others = await Unmanaged(self._transport, self._home, roster, admin=self._admin).look(mirrored, rooms)
        return assemble(
            self._home,
            mirrored,
            known,
            others,
            accounts=memory.present() & roster.people(wanted),
            default_room_version=facts.default_room_version or "",
            kept=frozenset(known.values()),
        )
