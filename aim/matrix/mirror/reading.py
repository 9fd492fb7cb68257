"""Reads from the homeserver what the mirror can't tell: whole rooms, and single keys in doubt.

In: what is stale, due or doubted. Out: recorded changes. What is read is as old as the request: whatever the
stream tells of the room meanwhile makes it worthless, and it is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mautrix.api import Path

from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix.mirror.apply import RoomCopy
from aim.matrix.mirror.events import CREATE, MEMBER, content_of, rows_of, understood
from aim.matrix.mirror.keeper import Keeper
from aim.matrix.mirror.patience import Patience
from aim.matrix.parallel import Progress, each
from aim.matrix.parse import Home, mapping
from aim.matrix.rooms import joined
from aim.matrix.transport import Getter
from aim.ports import MirrorChanges, MirroredRoom, MirrorFacts, StateKey, StoredEvent, StoredMember

log = logging.getLogger("aim.mirror")

TRIES = 5
"""How often one thing is read at most if it changes again and again; then it waits for the next time."""
MANY_DOUBTS = 10
"""From so many on in one room, one request for all of it is cheaper."""
PUT_OFF = timedelta(minutes=5)
"""How long a room that can't be read at the moment is left alone, if there is something to believe of it."""
LEFT_FOR = timedelta(minutes=1)
"""How long a room that does not rest is left alone, if it is believed meanwhile."""
OUT = (403, "M_FORBIDDEN")
"""Status and code with which a homeserver says that we are not in a room."""
ABSENT = (404, "M_NOT_FOUND")
"""… that there is no such thing. Without the code it may be anybody's 404: a proxy's, say."""

Row = StoredEvent | StoredMember
OnDifference = Callable[[str, int], None]
"""Told the id of a room and how many of its keys were not as we believed."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What was read, beside what we held."""

    changed: list[Row] = field(default_factory=list)
    gone: list[StateKey] = field(default_factory=list)
    differences: int = 0
    """Keys that mean something else than we believed, those in doubt aside."""


class Reading:
    """Reads rooms again: one refresh at a time, and verifies single ones beside it."""

    def __init__(
        self,
        transport: Getter,
        home: Home,
        keeper: Keeper,
        barrier: Callable[[], Awaitable[bool]],
        *,
        parallelism: int,
        progress: Progress | None,
        on_difference: OnDifference,
    ) -> None:
        """`barrier` waits until what the homeserver has sent already has come."""
        self._transport = transport
        self._home = home
        self._keeper = keeper
        self._memory = keeper.memory
        self._barrier = barrier
        self._parallelism = parallelism
        self._progress = progress
        self._on_difference = on_difference
        self._turn = asyncio.Lock()
        self.wanted: frozenset[str] = frozenset()
        """Rooms that are looked at without our marker."""
        self.recorded: frozenset[str] = frozenset()
        """Rooms that we remember as managed: they stay in sight if their marker is lost."""
        self.unseen: dict[str, str] = {}
        """Of these, what can't be read → why."""
        self._unread: dict[str, str] = {}
        """Rooms that could not be read when that was last tried → why."""
        self._failed_at: dict[str, datetime] = {}
        """Rooms that are broken → when that was seen last."""
        self._left_at: dict[str, datetime] = {}
        """Rooms that changed faster than they could be read → when that was last."""
        self._patience = Patience()
        self._everything: int | None = None
        """While everything is read: what `_questions` was at the beginning."""
        self._questions = 0
        """Grows whenever everything comes into question."""

    def want(self, room_ids: Collection[str]) -> None:
        """These are looked at, too, from the next refresh on."""
        for room_id in set(room_ids) - self.wanted:
            self.unseen.pop(room_id, None)
            if room_id not in self._memory.copies:
                self._memory.copy_of(room_id)
        self.wanted = frozenset(room_ids)

    async def question_everything(self) -> None:
        """Whatever we hold may be wrong, and what is being read just now, too. Raises StoreError."""
        # Twice: a reading that begins while this is being recorded is as old as one that is under way.
        self._questions += 1
        await self._keeper.note(MirrorFacts(complete=False))
        self._memory.question_everything()
        self._questions += 1

    @property
    def reads_everything(self) -> bool:
        """Whether all rooms are being read just now, and came into question before, and not since."""
        return self._questions > 0 and self._everything == self._questions

    async def refresh(self, rooms: Collection[str] | None) -> int:
        """Reads what is to be read; sends nothing if that is nothing. Gives the number of differences.

        One room that can't be read keeps nobody up: it stays as it was, see `unread`. Raises HomeserverError
        if that is the homeserver's state and not the room's, and StoreError; what was read by then is kept.
        """
        async with self._turn:
            asked = self._questions
            whole = rooms is None and not self._memory.facts.complete
            self._everything = asked if whole else None
            try:
                differences = await self._read(rooms, whole=whole)
            finally:
                self._everything = None
            if asked != self._questions:
                self._leave_stale()
            elif whole and not self.unread:
                # That those are stale is not recorded.
                await self._keeper.note(MirrorFacts(complete=True))
            return differences

    async def _read(self, rooms: Collection[str] | None, *, whole: bool) -> int:
        if whole:
            await self._discover()
        self._gather_doubts()
        due = {room_id for room_id in self._memory.to_read() if not self._is_invitation(room_id)}
        chosen = sorted(filter(self.may_try, due if rooms is None else due.intersection(rooms)))
        differences = sum(
            await each(self._try_room, chosen, self._parallelism, self._progress if whole else None)
        )
        keys = [
            key
            for key in self._memory.doubts
            if (rooms is None or key.room_id in rooms) and not self._is_invitation(key.room_id)
        ]
        await each(self._try_key, sorted(keys), self._parallelism)
        return differences

    def _is_invitation(self, room_id: str) -> bool:
        """Whether nothing can be read of it but how it was when we left."""
        copy = self._memory.copies.get(room_id)
        return copy is not None and copy.is_invitation

    async def verify(self, room_id: str) -> None:
        """Reads a room again that is believed, beside whatever else is read. Raises what `refresh` does."""
        await self._try_room(room_id)

    def _leave_stale(self) -> None:
        """What was read before everything came into question is read again by the next refresh."""
        for room_id, copy in self._memory.copies.items():
            if copy.condition.stale and copy.is_known:
                self._unread.setdefault(room_id, "the homeserver's events were lost while it was read")

    # -- what can't be read ----------------------------------------------------------------------------------

    def may_try(self, room_id: str) -> bool:
        """False if this room was broken, or did not rest, a short while ago, and we have something to
        believe of it."""
        copy, left_at = self._memory.copies.get(room_id), self._left_at.get(room_id)
        if left_at is not None and copy is not None and copy.is_known and not copy.condition.stale:
            rests = self._keeper.now() - left_at >= LEFT_FOR
        else:
            rests = True
        return rests and not self._is_put_off(room_id)

    def _is_put_off(self, room_id: str) -> bool:
        copy, failed_at = self._memory.copies.get(room_id), self._failed_at.get(room_id)
        if failed_at is None or copy is None or not copy.is_known:
            return False
        return self._keeper.now() - failed_at < PUT_OFF

    def tried_at(self, copy: RoomCopy) -> datetime | None:
        """When this room was read last, or could not be; None if never."""
        room_id = copy.room_id
        times = (copy.condition.verified_at, self._failed_at.get(room_id), self._left_at.get(room_id))
        return max((time for time in times if time is not None), default=None)

    @property
    def unread(self) -> dict[str, str]:
        """Rooms that have to be read before they are believed, and can't be at the moment → why."""
        copies, doubted = self._memory.copies, {key.room_id for key in self._memory.doubts}
        return {
            room_id: why
            for room_id, why in self._unread.items()
            if room_id in doubted or (room_id in copies and copies[room_id].condition.stale)
        }

    @property
    def unknown(self) -> dict[str, str]:
        """Of these, those of which nothing was ever read: nobody can tell whether they are ours."""
        known = {room_id for room_id, copy in self._memory.copies.items() if copy.is_known}
        return {room_id: why for room_id, why in self.unread.items() if room_id not in known}

    async def _try_room(self, room_id: str) -> int:
        try:
            differences = await self._room(room_id)
        except HomeserverUnavailable as error:
            await self._put_off(room_id, error)
            return 0
        self._failed_at.pop(room_id, None)
        return differences

    async def _try_key(self, key: StateKey) -> None:
        # One key is read in no time, however restless the room is.
        if not self._is_put_off(key.room_id):
            try:
                await self._key(key)
            except HomeserverUnavailable as error:
                await self._put_off(key.room_id, error)

    async def _ask_for_state(self, copy: RoomCopy) -> object:
        answer = self._transport.get(Path.v3.rooms[copy.room_id].state)
        return await (self._patience.for_a_room(copy.room_id, answer) if copy.is_known else answer)

    async def _ask_for_key(self, copy: RoomCopy, key: StateKey) -> object:
        path = Path.v3.rooms[key.room_id].state[key.type][key.state_key]
        answer = self._transport.get(path, {"format": "event"})
        return await (self._patience.for_a_key(answer) if copy.is_known else answer)

    async def _put_off(self, room_id: str, error: HomeserverUnavailable) -> None:
        """Leaves a room as it is for now. Raises HomeserverError if nothing else can be read either."""
        before = self._memory.copies.get(room_id)
        changes = 0 if before is None else before.changes
        inside = room_id in await joined(self._transport)
        log.warning("room %s can't be read, and stays as it was: %s", room_id, error.message)
        self._failed_at[room_id] = self._keeper.now()
        self._unread[room_id] = error.message
        async with self._keeper.turn:
            if before is None or before.is_known or inside or not self._is_still(before, changes):
                return
            # One that is only looked at: it is no business of ours.
            if room_id in self.wanted:
                self.unseen[room_id] = error.message
            await self._drop(before)

    async def _discover(self) -> None:
        for room_id in await joined(self._transport):
            if room_id != self._memory.facts.control_room:
                # Before it is read: from now on its events are seen.
                copy = self._memory.copy_of(room_id)
                if copy.is_invitation:
                    # We are in by now, and were not told.
                    copy.condition = replace(copy.condition, stale=True)

    def _gather_doubts(self) -> None:
        doubted: dict[str, int] = {}
        for key in self._memory.doubts:
            doubted[key.room_id] = doubted.get(key.room_id, 0) + 1
            if key.type == MEMBER and key.state_key == self._home.bot:
                # Where we may have been away, anything may have happened.
                self._memory.due.add(key.room_id)
        self._memory.due.update(room_id for room_id, count in doubted.items() if count >= MANY_DOUBTS)

    # -- whole rooms -----------------------------------------------------------------------------------------

    async def _room(self, room_id: str) -> int:
        """Gives the number of differences to what was believed."""
        fenced = False
        for _ in range(TRIES):
            copy = self._memory.copy_of(room_id)
            before, believed = copy.changes, copy.is_known and not copy.condition.stale
            try:
                events = await self._ask_for_state(copy)
            except HomeserverRefused as error:
                differences = await self._refused(copy, error, before, believed=believed)
                if differences is None:
                    continue
                return differences
            rows = {
                row.key: row
                for row in rows_of(room_id, events, self._home)
                if not self._memory.is_trace(row, erased=False)
            }
            if copy.is_known and StateKey(room_id, CREATE, "") not in rows:
                raise _not_a_state(room_id)
            async with self._keeper.turn:
                if not self._is_still(copy, before):
                    continue
                comparison = await self._compare(copy, rows)
                surprised = believed and comparison.differences > 0
                if not surprised or fenced:
                    corrected = await self._keep(copy, rows, comparison, before)
                    return self._tell(room_id, (comparison.differences if surprised else 0) + corrected)
            # The events that tell it may be under way.
            await self._barrier()
            fenced = True
        log.info("room %s changes faster than it can be read: left for later", room_id)
        self._unread[room_id] = f"room {room_id} changes faster than it can be read"
        self._left_at[room_id] = self._keeper.now()
        if not self._memory.copy_of(room_id).is_recorded:
            await self._keeper.record(MirrorChanges(rooms={room_id: MirroredRoom(stale=True)}))
        return 0

    def _is_still(self, copy: RoomCopy, changes: int) -> bool:
        """Whether nothing was told of that room since the copy had so many changes."""
        return self._memory.copies.get(copy.room_id) is copy and copy.changes == changes

    def _tell(self, room_id: str, differences: int) -> int:
        if differences:
            log.warning("room %s was not as its events had told: %d differences", room_id, differences)
            self._on_difference(room_id, differences)
        return differences

    async def _refused(
        self, copy: RoomCopy, error: HomeserverRefused, changes: int, *, believed: bool
    ) -> int | None:
        """The homeserver does not show us the room. None: by now it may, as it has told of the room since the
        copy had so many changes. Raises HomeserverUnavailable if it may be a mistake."""
        if error.status == 401:
            raise error
        room_id = copy.room_id
        if (error.status, error.errcode) not in {OUT, ABSENT}:
            raise unconvincing(error)
        ours = copy.is_managed or copy.is_federated or room_id in self.recorded
        if ours and room_id in await joined(self._transport):
            # What we manage is not given up because of one answer.
            raise unconvincing(error)
        async with self._keeper.turn:
            if not self._is_still(copy, changes):
                return None
            if error.status == 403 and copy.is_managed and copy.members.bot not in {None, "join"}:
                # We were put out. What we saw last is all that there is.
                await self._settle(copy, _Comparison(), changes)
                return 0
            if room_id in self.wanted:
                self.unseen[room_id] = error.message
            await self._drop(copy)
        return self._tell(room_id, 1 if believed else 0)

    async def _compare(self, copy: RoomCopy, rows: Mapping[StateKey, Row]) -> _Comparison:
        held: dict[StateKey, Row] = {row.key: row for row in copy.state}
        if copy.is_recorded:
            held.update(await self._keeper.members_of(copy.room_id))
        changed = [row for key, row in rows.items() if held.get(key) != row]
        gone = [key for key in held if key not in rows]
        differing = {row.key for row in changed if not _means_the_same(held.get(row.key), row)}
        return _Comparison(changed, gone, len(differing.union(gone).difference(self._memory.doubts)))

    async def _keep(
        self, copy: RoomCopy, rows: Mapping[StateKey, Row], comparison: _Comparison, changes: int
    ) -> int:
        """Records what was read when the copy had so many changes; or drops the copy, if the room is no
        business of ours. Gives 1 if memory did not even have its members as they are stored, else 0."""
        self.unseen.pop(copy.room_id, None)
        asked_for = copy.room_id in self.wanted or copy.room_id in self.recorded
        if asked_for or copy.is_managed or self._is_ours(copy, rows):
            is_new = not copy.is_recorded
            await self._settle(copy, comparison, changes)
            return 0 if is_new else int(self._keeper.correct(copy, rows.values()))
        await self._drop(copy)
        return 0

    def _is_ours(self, copy: RoomCopy, rows: Mapping[StateKey, Row]) -> bool:
        fresh = copy.empty()
        for row in rows.values():
            if isinstance(row, StoredEvent):
                fresh.put(row)
        return fresh.is_managed or fresh.is_federated

    async def _settle(self, copy: RoomCopy, comparison: _Comparison, changes: int) -> None:
        room_id = copy.room_id
        changed = comparison.changed
        await self._keeper.record(
            MirrorChanges(
                rooms={room_id: MirroredRoom(verified_at=self._keeper.now())},
                gone=comparison.gone,
                events=[row for row in changed if isinstance(row, StoredEvent)],
                members=[row for row in changed if isinstance(row, StoredMember)],
                settled=self._memory.doubts_of(room_id),
            )
        )
        self._unread.pop(room_id, None)
        self._left_at.pop(room_id, None)
        if copy.changes == changes:
            self._memory.due.discard(room_id)
        else:
            # It came into question while it was recorded.
            self._memory.due.add(room_id)

    async def _drop(self, copy: RoomCopy) -> None:
        self._unread.pop(copy.room_id, None)
        self._patience.forget(copy.room_id)
        if copy.is_recorded:
            await self._keeper.record(MirrorChanges(dropped=[copy.room_id]))
        else:
            self._memory.forget(copy.room_id)

    # -- single keys -----------------------------------------------------------------------------------------

    async def _key(self, key: StateKey) -> None:
        for _ in range(TRIES):
            number, copy = self._memory.doubts.get(key), self._memory.copies.get(key.room_id)
            if number is None or copy is None:
                return
            before = copy.changes
            try:
                answer = await self._ask_for_key(copy, key)
            except HomeserverRefused as error:
                if (error.status, error.errcode) != ABSENT:
                    if await self._refused(copy, error, before, believed=True) is None:
                        continue
                    return
                answer = None
            async with self._keeper.turn:
                if self._memory.doubts.get(key) == number:
                    await self._keeper.record(_answered(key, self._row(key, answer)))
                    return
        self._unread[key.room_id] = f"{key.type} of room {key.room_id} changes faster than it can be read"

    def _row(self, key: StateKey, answer: object) -> Row | None:
        """A homeserver that does not know the parameter gives the content alone."""
        event = dict(mapping(answer))
        if not isinstance(event.get("content"), dict) or event.get("type") != key.type:
            # Only who it is about may send state with such a key; of a membership we can't tell.
            sender = key.state_key if key.type != MEMBER and key.state_key.startswith("@") else ""
            event = {"content": answer, "sender": sender}
        found = understood(key.room_id, {**event, "type": key.type, "state_key": key.state_key}, self._home)
        return None if found is None else found.row


def unconvincing(error: HomeserverRefused) -> HomeserverUnavailable:
    """The error for a refusal that does not prove what it seems to say."""
    return HomeserverUnavailable(
        error.message,
        error.remedy
        or "look into the homeserver's log, and whether a proxy in front of it answers in its place",
    )


def _not_a_state(room_id: str) -> HomeserverUnavailable:
    return HomeserverUnavailable(
        f"the homeserver gave a state of room {room_id} without its beginning",
        "look into the homeserver's log, and whether a proxy in front of it changes answers",
    )


def _answered(key: StateKey, row: Row | None) -> MirrorChanges:
    match row:
        case None:
            return MirrorChanges(gone=[key], settled=[key])
        case StoredMember():
            return MirrorChanges(members=[row], settled=[key])
        case StoredEvent():
            return MirrorChanges(events=[row], settled=[key])


def _means_the_same(held: Row | None, read: Row) -> bool:
    """True if the two differ in nothing but the event that they come from."""
    if isinstance(held, StoredMember) and isinstance(read, StoredMember):
        return (held.membership, held.own) == (read.membership, read.own)
    if isinstance(held, StoredEvent) and isinstance(read, StoredEvent):
        return held.sender == read.sender and content_of(held) == content_of(read)
    return False
