"""All copies, held in memory as they are stored: changed by exactly what was recorded, and only after that.

In: the stored mirror at the start, then each MirrorChanges once the store has it. Out: Rooms, and what has to
be read from the homeserver. No I/O but loading.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import chain

from pyroaring import BitMap

from aim.directory.roster import NOBODY, People, Roster
from aim.matrix import mxid
from aim.matrix.mirror.apply import RoomCopy
from aim.matrix.parse import Home
from aim.ports import (
    MirrorChanges,
    MirroredRoom,
    MirrorFacts,
    MirrorStore,
    StateKey,
    StoredEvent,
    StoredMember,
)
from aim.world.rooms import Room


class Memory:
    """The mirror but for its I/O."""

    def __init__(self, home: Home, roster: Roster) -> None:
        self._home = home
        self.roster = roster
        self.facts = MirrorFacts()
        self.copies: dict[str, RoomCopy] = {}
        self.doubts: dict[StateKey, int] = {}
        """Key → a number that changes whenever it is doubted anew."""
        self.due: set[str] = set()
        """Rooms to be read again although they are believed, and their events with them."""
        self.erased: set[str] = set()
        """Localparts of accounts that were erased since we began."""
        self._accounts = BitMap()
        self._doubted = 0

    async def load(self, store: MirrorStore) -> None:
        """Takes over what is stored. Raises StoreError."""
        contents = await store.load()
        self.apply(
            MirrorChanges(
                rooms=contents.rooms,
                events=[event for event in contents.events if event.key.room_id in contents.rooms],
                doubts=contents.doubts,
                accounts=contents.accounts,
                facts=contents.facts,
            )
        )
        async for group in store.members(self._home.server_name, self._home.bot):
            copy = self.copies.get(group.room_id)
            if copy is not None:
                copy.put_members(group)

    def apply(self, changes: MirrorChanges) -> set[str]:
        """Follows what was recorded. Gives the ids of the rooms of which something is not as it was, or has
        come into doubt; that it was read again, and is as it was, is nothing to look at."""
        for room_id in changes.dropped:
            self._drop(room_id)
        stale: set[str] = set()
        for room_id, condition in changes.rooms.items():
            known = self.copies.get(room_id)
            if condition.stale and (known is None or not known.condition.stale):
                stale.add(room_id)
            copy = self.copy_of(room_id)
            copy.condition, copy.is_recorded = condition, True
        for key in changes.gone:
            if key.room_id in self.copies:
                self.copies[key.room_id].remove(key)
        rows: list[StoredEvent | StoredMember] = [*changes.events, *changes.members]
        for row in rows:
            self.copy_of(row.key.room_id).put(row)
        for key in changes.settled:
            self.doubts.pop(key, None)
        for key in changes.doubts:
            self._doubted += 1
            self.doubts[key] = self._doubted
        self._know(changes.accounts, only=changes.only_these_accounts)
        self.facts = self.facts.changed_by(changes.facts)
        keys = chain(changes.gone, changes.doubts, (row.key for row in rows))
        return {*changes.dropped, *stale, *(key.room_id for key in keys)}

    def copy_of(self, room_id: str) -> RoomCopy:
        """The copy of that room, an empty stale one if there was none."""
        copy = self.copies.get(room_id)
        if copy is None:
            copy = RoomCopy(room_id, self._home, self.roster, MirroredRoom(stale=True))
            self.copies[room_id] = copy
        return copy

    def forget(self, room_id: str) -> None:
        """Drops a copy of which nothing was ever recorded."""
        self._drop(room_id)

    def to_read(self) -> set[str]:
        """Ids of the rooms to be read as a whole."""
        return self.due | {room_id for room_id, copy in self.copies.items() if copy.condition.stale}

    def question_everything(self) -> None:
        """Makes all rooms stale, and out of date what is being read of them. That is not recorded here: that
        they are not `complete` is to be, before."""
        for copy in self.copies.values():
            if not copy.is_invitation:
                copy.condition = replace(copy.condition, stale=True)
                copy.changes += 1

    def doubts_of(self, room_id: str) -> set[StateKey]:
        """What of that room is in doubt."""
        return {key for key in self.doubts if key.room_id == room_id}

    def rooms(self) -> list[Room]:
        """All rooms as they are now, as far as they are known."""
        found = (copy.room() for copy in self.copies.values())
        return [room for room in found if room is not None]

    @property
    def accounts(self) -> People:
        """Local users of whom we know that they have an account."""
        return People(self._accounts)

    def present(self) -> People:
        """These, and whoever is in a room: an invite may wait for somebody who has none, a seat does not."""
        joined = [copy.members.sets["join"] for copy in self.copies.values()]
        return self.accounts | (NOBODY.union(*joined) if joined else NOBODY)

    def has_account(self, localpart: str) -> bool:
        number = self.roster.find(localpart)
        return number is not None and number in self._accounts

    def is_trace(self, row: StoredEvent | StoredMember, *, erased: bool) -> bool:
        """Whether it is the leave of a local user who has no account any more; with `erased`, of one whom we
        saw erased."""
        if not isinstance(row, StoredMember) or row.membership != "leave":
            return False
        parts = mxid.split(row.key.state_key)
        if parts is None or parts[1] != self._home.server_name or row.key.state_key == self._home.bot:
            return False
        if erased or parts[0] in self.erased:
            return parts[0] in self.erased
        return self.facts.accounts_read_at is not None and not self.has_account(parts[0])

    def forget_account(self, localpart: str) -> None:
        """They are erased, and leave every room."""
        self.erased.add(localpart)
        number = self.roster.find(localpart)
        if number is None:
            return
        self._accounts.discard(number)
        for copy in self.copies.values():
            copy.forget(localpart)

    def _know(self, localparts: Collection[str], *, only: bool) -> None:
        self.erased.difference_update(localparts)
        if only:
            self._accounts = BitMap(self.roster.people(localparts))
        elif localparts:
            self._accounts.update(self.roster.people(localparts))

    def _drop(self, room_id: str) -> None:
        self.copies.pop(room_id, None)
        self.due.discard(room_id)
        for key in self.doubts_of(room_id):
            del self.doubts[key]
