"""The mirror: how the homeserver is, without asking it. Implements ports.HomeserverReader.

    transactions ─► sift ─► judge ─► keeper ─► store, memory ─► Observed
    homeserver ───► reading, people ───┘

Transactions keep it; what they can't tell is read. It is *current* once an event of ours has come back
through the stream: until then whoever observes gets everything read anew, which is as good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aim.directory.roster import Roster
from aim.errors import HomeserverError, HomeserverUnavailable, StoreError
from aim.matrix.accounts import Accounts
from aim.matrix.assemble import assemble
from aim.matrix.mirror.around import Around
from aim.matrix.mirror.events import MEMBER
from aim.matrix.mirror.invited import Ignored, within_bounds
from aim.matrix.mirror.judge import Judge
from aim.matrix.mirror.keeper import Keeper, OnChange
from aim.matrix.mirror.memory import Memory
from aim.matrix.mirror.people import KnownAccounts
from aim.matrix.mirror.reading import OnDifference, Reading
from aim.matrix.mirror.sift import Sift, Sifted, digest, plain_id
from aim.matrix.mirror.stream import Sender, Stream
from aim.matrix.parallel import Progress
from aim.matrix.parse import Home
from aim.matrix.rooms import RoomVersions
from aim.matrix.transport import PARALLELISM
from aim.matrix.unmanaged import Unmanaged
from aim.ports import MirrorChanges, MirrorFacts, MirrorStore, StateKey
from aim.world.rooms import Observed

log = logging.getLogger("aim.mirror")

BARRIER_TIMEOUT = 60.0
"""Seconds: what a homeserver has to send after a busy hour takes its time."""
ASK_AGAIN = (1.0, 4.0)
"""Seconds before each further look at an invite that was told before it was there."""
FENCE_EVERY = timedelta(minutes=1)
"""How old what we were told may get before the counter tells of it."""


def _nobody(*_: object) -> None:
    """Nobody wants to know."""


async def _nothing() -> None:
    """Nothing is to be done about it."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Whom the mirror tells what. None of them may raise but where it says so."""

    progress: Progress | None = None
    """Rooms read, rooms in all, while everything is read."""
    on_change: OnChange = _nobody
    """Ids of the rooms of which something changed or came into doubt; the store has it already."""
    on_names: Callable[[Mapping[str, str | None]], None] = _nobody
    """Localpart → display name, as members of our rooms show it now."""
    on_old_database: Callable[[], Awaitable[None]] = _nothing
    """The database is older than the homeserver. May raise StoreError."""
    on_ignored: Callable[[str, Ignored], None] = _nobody
    """Told who of another server invited the bot, and why that is ignored."""
    on_difference: OnDifference = _nobody
    """A room that was not as its events had told, and in how many keys."""


class Mirror:
    """The observed state of the managed rooms."""

    def __init__(
        self,
        transport: Sender,
        home: Home,
        roster: Roster,
        store: MirrorStore,
        accounts: Accounts,
        *,
        now: Callable[[], datetime],
        hooks: Hooks | None = None,
        parallelism: int = PARALLELISM,
    ) -> None:
        """All numbers of people are those of `roster`. To be loaded before anything else is asked of it."""
        hooks = hooks or Hooks()
        self._home = home
        self._roster = roster
        self._memory = Memory(home, roster)
        self._keeper = Keeper(self._memory, store, now, hooks.on_change)
        self._stream = Stream(transport, home, self._keeper, hooks.on_old_database, parallelism)
        self._reading = Reading(
            transport,
            home,
            self._keeper,
            self._fence,
            parallelism=parallelism,
            progress=hooks.progress,
            on_difference=hooks.on_difference,
        )
        self._people = KnownAccounts(accounts, self._keeper)
        self._around = Around(
            Unmanaged(transport, home, roster, admin=accounts.admin, parallelism=parallelism), now
        )
        self._versions = RoomVersions(transport)
        self._control_rooms: set[str] = set()
        self._on_names = hooks.on_names
        self._on_ignored = hooks.on_ignored
        self._asking: set[asyncio.Task[None]] = set()
        self._begun = False
        self._current = False
        self._fenced_at = now()
        self._moved = False
        """True if rooms changed since the stream was last tried."""

    # -- the stream ------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Takes over what is stored. Raises StoreError."""
        await self._keeper.load()
        await self._keeper.note(MirrorFacts(is_current=False))

    async def take(self, txn_id: str, events: object) -> None:
        """Takes a transaction of the homeserver: its id, and the decoded list of its events.

        A repeated one changes nothing; what can't be understood is skipped. Raises StoreError: then nothing
        of it was taken, and the homeserver has to send it again.
        """
        async with self._keeper.turn:
            try:
                await self._take(txn_id, events)
            except StoreError:
                self._current = False
                raise

    async def _take(self, txn_id: str, events: object) -> None:
        memory = self._memory
        sifted = Sift(self._home, memory.copies, memory.facts.control_room, self._control_rooms).take(events)
        self._control_rooms |= sifted.control_rooms
        if sifted.invites:
            self._judge_invites(sifted)
        if sifted.malformed:
            log.warning("%d events of a transaction can't be understood and are skipped", sifted.malformed)
        if not sifted:
            return
        self._count(sifted)
        members = [event.key for event in sifted.events if event.key.type == MEMBER]
        redacted = [event_id for _, event_id in sifted.redactions]
        transaction = plain_id(txn_id), digest(events)
        record = await self._keeper.compare(transaction[0], members, redacted)
        if record.digest == transaction[1]:
            return
        judge = Judge(self._home, memory.copies, memory.doubts, record, self._keeper.now())
        changes = judge.judge(sifted)
        self._moved = self._moved or bool(changes)
        facts = MirrorFacts(counter_seen=sifted.counter)
        try:
            await self._keeper.record(replace(changes, transaction=transaction, facts=facts))
        finally:
            # Whoever is cancelled here may have recorded it all the same.
            if sifted.counter:
                self._stream.came_back()
            if sifted.names:
                self._on_names(sifted.names)
        if judge.early:
            task = asyncio.create_task(self._ask_again(judge.early))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_again(self, keys: Collection[StateKey]) -> None:
        """An invite over federation comes twice, and is told when it is not in the room's state yet."""
        for pause in ASK_AGAIN:
            await asyncio.sleep(pause)
            async with self._keeper.turn:
                known = {key for key in keys if key.room_id in self._memory.copies}
                with suppress(StoreError):
                    await self._keeper.record(MirrorChanges(doubts=known))

    def _judge_invites(self, sifted: Sifted) -> None:
        """Keeps those that are of concern, and tells of the others."""
        for one in within_bounds(sifted.invites.values(), self._memory.rooms(), self._home):
            sifted.invites[one.room_id] = one
            if one.ignored is not None:
                self._on_ignored(one.inviter, one.ignored)

    def _count(self, sifted: Sifted) -> None:
        """What is being read at the moment is out of date."""
        for room_id in sifted.rooms():
            if room_id in self._memory.copies:
                self._memory.copies[room_id].changes += 1

    async def begin(self, appservice_id: str) -> None:
        """Finds out how far the mirror can be believed, wakes the stream and waits for it: see `current`.

        The bot must have an account, and the homeserver must be able to reach us. Raises HomeserverError (a
        refusal that says what to do if it can't reach us), ConfigError if the token is another user's,
        StoreError.
        """
        self._begun = True
        await self._set_current(False)
        is_sound = await self._stream.open()
        # If all is being read just now, it was in question before: begun again and again, it would never end.
        if not is_sound or not (self._memory.facts.complete or self._reading.reads_everything):
            await self._reading.question_everything()
        await self._stream.ping(appservice_id)
        version = await self._versions.default()
        if version and version != self._memory.facts.default_room_version:
            await self._keeper.note(MirrorFacts(default_room_version=version))
        await self.barrier()

    async def barrier(self, timeout: float = BARRIER_TIMEOUT) -> bool:  # noqa: ASYNC109 (it is shared)
        """True once everything that the homeserver sent before this call has come; False after `timeout`
        seconds. Raises HomeserverError, StoreError."""
        try:
            self._moved, self._fenced_at = False, self._keeper.now()
            passed = await self._stream.barrier(timeout)
        except HomeserverError:
            await self._set_current(False)
            raise
        except StoreError:
            self._current = False
            raise
        await self._set_current(passed and self._begun)
        return passed

    async def _set_current(self, current: bool) -> None:
        self._current = current
        if current != self._memory.facts.is_current:
            await self._keeper.note(MirrorFacts(is_current=current))

    def suspect(self) -> None:
        """Somebody was refused who may have been the homeserver: within a minute the stream is tried."""
        self._moved = True

    async def _fence(self) -> bool:
        return await self.barrier() if self._begun else False

    @property
    def current(self) -> bool:
        """True if the stream was heard since `begin`, and nothing failed since."""
        return self._current

    # -- what is read ----------------------------------------------------------------------------------------

    def want(self, room_ids: Collection[str]) -> None:
        """These rooms are looked at although they carry no marker, as long as the bot is in them."""
        self._reading.want(room_ids)

    def mark_stale(self, room_id: str) -> None:
        """The next refresh reads this room again: the homeserver has contradicted what we believe of it.

        Of a room that is not mirrored no event tells what we did: the next look around looks anew.
        """
        copy = self._memory.copies.get(room_id)
        if copy is not None and copy.is_invitation:
            return
        if copy is not None:
            self._memory.due.add(room_id)
            # Not by an answer that is under way just now.
            copy.changes += 1
        else:
            self._around.forget()

    async def refresh(self, rooms: Collection[str] | None = None) -> int:
        """Reads what is stale or in doubt, of these rooms or of all; requests nothing if nothing is.

        Gives the number of keys that were not as we believed. Raises HomeserverError, StoreError.
        """
        return await self._reading.refresh(rooms)

    async def verify_next(self, interval: timedelta) -> None:
        """Reads the room again that was verified the longest ago. To be called as often as there are rooms in
        each `interval`; a call much earlier than that does nothing. One that can't be read, or does not
        rest, has had its turn: the next is read next. Raises HomeserverError, StoreError.
        """
        if self._current and self._moved and self._keeper.now() - self._fenced_at >= FENCE_EVERY:
            # An older database is told by the number: it has to grow with what we were told.
            await self.barrier()
        known = self._memory.copies.values()
        copies = [copy for copy in known if not (copy.condition.stale or copy.is_invitation)]
        ready = [copy for copy in copies if self._reading.may_try(copy.room_id)]
        oldest = min(ready, key=lambda copy: _age(self._reading.tried_at(copy)), default=None)
        if oldest is None:
            return
        tried_at, share = self._reading.tried_at(oldest), interval / len(copies)
        if tried_at is None or self._keeper.now() - tried_at >= share / 2:
            await self._reading.verify(oldest.room_id)

    async def poll_accounts(self, wanted: Collection[str]) -> bool:
        """Looks for new accounts, with one request as a rule. True if one of the `wanted` localparts has one
        now that had none. Raises HomeserverError, StoreError."""
        return await self._people.poll(wanted)

    async def found_account(self, localpart: str) -> None:
        """Somebody saw that this one has an account: no poll has to find it. Raises StoreError."""
        await self._people.found(localpart)

    async def forget_account(self, localpart: str) -> None:
        """Somebody was erased; the store has forgotten them already."""
        await self._keeper.forget(localpart)

    def key_of(self, room_id: str) -> str | None:
        """Our key of a managed room, or of one of another server's `aim`; else None."""
        copy = self._memory.copies.get(room_id)
        room = copy.room() if copy is not None else None
        return room.key if room is not None and (room.marker or room.origin) is not None else None

    # -- what it tells ---------------------------------------------------------------------------------------

    @property
    def has_to_look_around(self) -> bool:
        """Whether rooms in our spaces that are not ours were not looked at for long: `observe` does it."""
        return self._around.is_due

    async def observe(
        self,
        roster: Roster,
        wanted: Collection[str],
        known: Mapping[str, str],
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> Observed:
        """See ports.HomeserverReader; `roster` must be the mirror's own. Raises StoreError, too.

        A room that can't be read at the moment is told as it was last; HomeserverUnavailable only if that is
        not known: it might be one that would then be made a second time.
        """
        assert roster is self._roster, "people are numbered by one roster"
        self._reading.recorded = frozenset(known.values())
        anew = not self._current
        if anew:
            await self._reading.question_everything()
        await self._reading.refresh(None)
        for room_id, why in self._reading.unknown.items():
            raise _unknown(room_id, why)
        await self._people.make_sure(wanted)
        mirrored = self._memory.rooms()
        others = await self._around.found(mirrored, rooms, anew=anew)
        observed = assemble(
            self._home,
            mirrored,
            known,
            others,
            accounts=self._people.present() & roster.people(wanted),
            default_room_version=self._memory.facts.default_room_version or await self._versions.default(),
            kept=self._reading.wanted | self._reading.recorded,
        )
        unseen = {**self._reading.unseen, **self._reading.unread, **others.unseen}
        return replace(observed, unseen=unseen)


def _unknown(room_id: str, why: str) -> HomeserverUnavailable:
    return HomeserverUnavailable(
        f"room {room_id} was never read, so it can't be told which rooms there are: {why}",
        "it is tried again with the next cycle; if it stays so, look for the room in the homeserver's log",
    )


def _age(tried_at: datetime | None) -> tuple[bool, float]:
    """Sorts what was never read first."""
    return tried_at is not None, 0.0 if tried_at is None else tried_at.timestamp()
