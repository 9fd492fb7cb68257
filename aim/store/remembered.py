"""A recorder that remembers: what was loaded once is kept up to date by what is recorded through it.

For the daemon, which asks for everything before each decision and is the only writer. What a person decides
beside us (`aim approve`, `aim rebind`, `aim queue`) is seen by the number of decisions, and everything is
loaded again; so it is after a failure that leaves open whether something was written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from aim.desired.queueing import merged
from aim.directory.roster import NOBODY, People, Roster
from aim.ports import Outcome, Recorder
from aim.store.decisions import carried_out
from aim.store.recorded import GUARD_WINDOW
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen


class RememberingRecorder:
    """Recorder over another one. All methods: see ports.Recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._recorded: Recorded | None = None
        self._roster = Roster()
        self._decisions = -1

    async def load(self, roster: Roster, now: datetime) -> Recorded:
        # Before the load: a decision between the two is seen the next time.
        decisions = await self._recorder.decisions()
        known = self._recorded
        # Erasures hang on two clocks that agree. Asked first: meanwhile somebody may be forgotten.
        ahead = await self._recorder.database_clock() - now if known is not None and known.queue else None
        if self._recorded is None or roster is not self._roster or decisions != self._decisions:
            self._roster, self._decisions = roster, decisions
            self._recorded = await self._recorder.load(roster, now)
        elif ahead is not None:
            self._recorded = replace(self._recorded, database_ahead=ahead)
        self._recorded = _without_the_old(self._recorded, now)
        return self._recorded

    async def plan_by_digest(self, digest: str) -> str | None:
        return await self._recorder.plan_by_digest(digest)

    async def begin_cycle(self, plan_json: str, digest: str, now: datetime) -> int:
        async with self._remembering(lambda known: replace(known, fresh=False)):
            return await self._recorder.begin_cycle(plan_json, digest, now)

    async def record_outcomes(self, cycle: int, outcomes: Mapping[int, Outcome], now: datetime) -> None:
        async with self._remembering(lambda known: _used_up(known, outcomes.values())):
            await self._recorder.record_outcomes(cycle, outcomes, now)

    async def end_cycle(self, cycle: int, outcomes: Sequence[Outcome], now: datetime) -> None:
        async with self._remembering(lambda known: _used_up(known, outcomes)):
            await self._recorder.end_cycle(cycle, outcomes, now)

    async def intend_room(self, key: str, now: datetime) -> None:
        await self._recorder.intend_room(key, now)

    async def open_intents(self) -> Mapping[str, datetime]:
        return await self._recorder.open_intents()

    async def close_intents(self, keys: Collection[str]) -> None:
        await self._recorder.close_intents(keys)

    async def decisions(self) -> int:
        return await self._recorder.decisions()

    async def database_clock(self) -> datetime:
        return await self._recorder.database_clock()

    async def record_room(self, room: RecordedRoom, now: datetime) -> None:
        def with_room(known: Recorded) -> Recorded:
            return replace(known, fresh=False, rooms=dict(sorted({**known.rooms, room.key: room}.items())))

        async with self._remembering(with_room):
            await self._recorder.record_room(room, now)

    async def forget_room(self, key: str) -> None:
        def without_room(known: Recorded) -> Recorded:
            return replace(known, rooms={k: room for k, room in known.rooms.items() if k != key})

        async with self._remembering(without_room):
            await self._recorder.forget_room(key)

    async def record_done(self, done: Done) -> None:
        async with self._remembering(lambda known: replace(known, done=(*known.done, done))):
            await self._recorder.record_done(done)

    async def record_caused(self, room_id: str, localpart: str) -> None:
        def with_caused(known: Recorded) -> Recorded:
            person = self._roster.people([localpart])
            people = known.caused.get(room_id, NOBODY) | person
            return replace(known, caused={**known.caused, room_id: people})

        async with self._remembering(with_caused):
            await self._recorder.record_caused(room_id, localpart)

    async def forget_caused(self, returned: Mapping[str, Collection[str]]) -> None:
        def without_caused(known: Recorded) -> Recorded:
            return replace(known, caused=_less(known.caused, self._people(returned)))

        async with self._remembering(without_caused):
            await self._recorder.forget_caused(returned)

    async def record_lapsed(
        self, lapsed: Mapping[str, Collection[str]], regained: Mapping[str, Collection[str]], now: datetime
    ) -> None:
        gone, back = self._people(lapsed), self._people(regained)

        def with_lapsed(known: Recorded) -> Recorded:
            since = {key: dict(people) for key, people in known.regained.items()}
            for key, people in gone.items():
                for person in people & People(since.get(key, ())):
                    del since[key][person]
            for key, people in back.items():
                since.setdefault(key, {}).update(dict.fromkeys(people, now))
            return replace(
                known,
                lapsed=_less(_more(known.lapsed, gone), back),
                regained={key: people for key, people in since.items() if people},
            )

        async with self._remembering(with_lapsed):
            await self._recorder.record_lapsed(lapsed, regained, now)

    async def record_seen(self, seen: Sequence[Seen], forget: Collection[str], source: str) -> None:
        def with_seen(known: Recorded) -> Recorded:
            kept = {id_: user for id_, user in known.seen.items() if id_ not in forget}
            return replace(
                known, fresh=False, source=source, seen={**kept, **{user.id: user for user in seen}}
            )

        async with self._remembering(with_seen):
            await self._recorder.record_seen(seen, forget, source)

    async def record_entitled(self, new: Mapping[str, Collection[str]], now: datetime) -> None:
        def with_entitled(known: Recorded) -> Recorded:
            return replace(known, entitled=_more(known.entitled, self._people(new)))

        async with self._remembering(with_entitled):
            await self._recorder.record_entitled(new, now)

    async def record_held(self, identities: Collection[str]) -> None:
        async with self._remembering(lambda known: replace(known, held=frozenset(identities))):
            await self._recorder.record_held(identities)

    async def record_recovery(self, since: datetime | None) -> None:
        async with self._remembering(lambda known: replace(known, recovery_since=since)):
            await self._recorder.record_recovery(since)

    async def approve(self, approvals: Sequence[Approval], digest: str, now: datetime) -> None:
        # Counted as a decision: the next load sees it.
        await self._recorder.approve(approvals, digest, now)

    async def enqueue(self, queued: Sequence[Queued]) -> None:
        def with_queued(known: Recorded) -> Recorded:
            new = {entry.user_id: merged(known.queue.get(entry.user_id), entry) for entry in queued}
            return replace(known, queue=dict(sorted({**known.queue, **new}.items())))

        async with self._remembering(with_queued):
            await self._recorder.enqueue(queued)

    async def change_queued(self, user_id: str, change: Callable[[Queued | None], Queued]) -> Queued:
        def with_entry(known: Recorded) -> Recorded:
            return replace(known, queue=dict(sorted({**known.queue, user_id: entry}.items())))

        async with self._remembering(with_entry):
            entry = await self._recorder.change_queued(user_id, change)
        return entry

    async def queued(self, user_id: str) -> Queued | None:
        # Of this moment: what is remembered may lack what a person said since.
        return await self._recorder.queued(user_id)

    async def waits(self, localpart: str) -> bool:
        return await self._recorder.waits(localpart)

    async def dequeue(self, user_ids: Collection[str]) -> None:
        def without_them(known: Recorded) -> Recorded:
            return replace(known, queue={id_: e for id_, e in known.queue.items() if id_ not in user_ids})

        async with self._remembering(without_them):
            await self._recorder.dequeue(user_ids)

    async def postpone_queue(self, until: datetime) -> None:
        def postponed(known: Recorded) -> Recorded:
            queue = {id_: replace(e, due_at=max(e.due_at, until)) for id_, e in known.queue.items()}
            return replace(known, queue=queue)

        async with self._remembering(postponed):
            await self._recorder.postpone_queue(until)

    async def record_clock(self, now: datetime) -> None:
        async with self._remembering(lambda known: replace(known, clock=now)):
            await self._recorder.record_clock(now)

    async def forget_person(self, user_id: str, mxid: str, emails: Collection[str] = ()) -> None:
        try:
            await self._recorder.forget_person(user_id, mxid, emails)
        finally:
            # It changes a little of nearly everything: the next load reads that.
            self._recorded = None

    @asynccontextmanager
    async def _remembering(self, change: Callable[[Recorded], Recorded]) -> AsyncIterator[None]:
        """Makes the same change to what is remembered as the body does to the database."""
        try:
            yield
        except BaseException:
            self._recorded = None
            raise
        if self._recorded is not None:
            self._recorded = change(self._recorded)

    def _people(self, names: Mapping[str, Collection[str]]) -> dict[str, People]:
        return {key: self._roster.people(localparts) for key, localparts in names.items()}


def _more(known: Mapping[str, People], new: Mapping[str, People]) -> dict[str, People]:
    return {**known, **{key: known.get(key, NOBODY) | people for key, people in new.items()}}


def _less(known: Mapping[str, People], old: Mapping[str, People]) -> dict[str, People]:
    return {key: left for key, people in known.items() if (left := people - old.get(key, NOBODY))}


def _used_up(known: Recorded, outcomes: Iterable[Outcome]) -> Recorded:
    """Without the approvals of what was carried out."""
    if not known.approvals:
        return known
    done = set(carried_out(outcomes))
    left = {identity: given for identity, given in known.approvals.items() if identity not in done}
    return replace(known, approvals=left) if len(left) < len(known.approvals) else known


def _without_the_old(known: Recorded, now: datetime) -> Recorded:
    done = tuple(done for done in known.done if now - done.at <= GUARD_WINDOW)
    approvals = {identity: given for identity, given in known.approvals.items() if given.until > now}
    if len(done) == len(known.done) and len(approvals) == len(known.approvals):
        return known
    return replace(known, done=done, approvals=approvals)
