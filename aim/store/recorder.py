"""Writes what we remember: the port Recorder over Postgres, for the holder of the writer's lock.

In come the port's calls, out go committed rows: each method is one transaction, and what it acknowledged
survives a crash.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg

from aim.errors import StoreError
from aim.ports import Outcome, OutcomeStatus
from aim.store import schema
from aim.store.accounts import PostgresAccounts
from aim.store.connection import BATCH, Session, connected
from aim.store.decisions import carried_out, insert_approvals, replace_seen
from aim.store.forgetting import forget
from aim.store.letters import PostgresLetters
from aim.store.lock import holder_name, writers_lock
from aim.store.mirror import PostgresMirror
from aim.store.pseudonyms import Forgotten, audit_key
from aim.store.queries import QUERIES
from aim.store.recorded import RecordedStore, queued
from aim.world.recorded import Approval, Done, Queued, RecordedRoom, Seen

_KEEP_DONE = timedelta(days=1)
"""Well beyond the hour in which they count; the audit keeps the outcomes."""


class RecorderStore(RecordedStore):
    """Recorder over the session that holds the writer's lock. All methods: see ports.Recorder."""

    def __init__(self, session: Session, forgotten: Forgotten | None = None) -> None:
        super().__init__(session)
        self._forgotten = forgotten or Forgotten()
        self.mirror = PostgresMirror(session, self._forgotten)
        """The mirror's store, through the same session: whoever lost the lock can't write it either."""
        self.accounts = PostgresAccounts(session)
        """The accounts' store, likewise."""
        self.letters = PostgresLetters(session)
        """The mail queue, likewise."""

    async def begin_cycle(self, plan_json: str, digest: str, now: datetime) -> int:
        """Several may run side by side, each on rooms of its own."""
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["prune_done"], now - _KEEP_DONE)
            self._forgotten.notice(_people_in(plan_json))
            plan = self._forgotten.in_plan(plan_json)
            cycle: int = await connection.fetchval(QUERIES["begin_cycle"], now, digest, plan)
            return cycle

    async def end_cycle(self, cycle: int, outcomes: Sequence[Outcome], now: datetime) -> None:
        """The cycle failed if any of its outcomes did. StoreError for a cycle that is not running."""
        failed = any(outcome.status is OutcomeStatus.FAILED for outcome in outcomes)
        async with self._session.transaction() as connection:
            ended = await connection.fetchval(
                QUERIES["end_cycle"], cycle, now, "failed" if failed else "done"
            )
            if ended is None:
                raise StoreError(f"cycle {cycle} is not running", "please report this")
            await self._insert_outcomes(connection, cycle, dict(enumerate(outcomes)), now)

    async def record_outcomes(self, cycle: int, outcomes: Mapping[int, Outcome], now: datetime) -> None:
        async with self._session.transaction() as connection:
            await self._insert_outcomes(connection, cycle, outcomes, now)

    async def intend_room(self, key: str, now: datetime) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["intend_room"], key, now)

    async def open_intents(self) -> Mapping[str, datetime]:
        async with self._session.snapshot() as connection:
            return {row["key"]: row["intended_at"] for row in await connection.fetch(QUERIES["open_intents"])}

    async def close_intents(self, keys: Collection[str]) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["close_intents"], list(keys))

    async def decisions(self) -> int:
        async with self._session.snapshot() as connection:
            count: int = await connection.fetchval(QUERIES["decisions"])
            return count

    async def database_clock(self) -> datetime:
        async with self._session.snapshot() as connection:
            time: datetime = await connection.fetchval(QUERIES["database_clock"])
            return time

    async def record_room(self, room: RecordedRoom, now: datetime) -> None:
        properties = None if room.properties is None else json.dumps(dict(room.properties))
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["record_room"], room.key, room.room_id, properties, now)
            await connection.execute(QUERIES["close_intents"], [room.key])

    async def forget_room(self, key: str) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["forget_room"], key)

    async def record_done(self, done: Done) -> None:
        done = self._forgotten.in_done(done)
        async with self._session.transaction() as connection:
            await connection.execute(
                QUERIES["record_done"], done.identity, done.kind, done.space, done.person, done.at
            )

    async def record_seen(self, seen: Sequence[Seen], forget: Collection[str], source: str) -> None:
        back = self._forgotten.are_back({user.localpart for user in seen})
        async with self._session.transaction() as connection:
            await replace_seen(connection, seen, forget)
            await connection.execute(QUERIES["record_source"], source)
            if back:
                await connection.execute(QUERIES["forget_erased"], back)

    async def record_entitled(self, new: Mapping[str, Collection[str]], now: datetime) -> None:
        async with self._session.transaction() as connection:
            await connection.executemany(
                QUERIES["record_entitled"], [(key, list(localparts), now) for key, localparts in new.items()]
            )

    async def record_lapsed(
        self, lapsed: Mapping[str, Collection[str]], regained: Mapping[str, Collection[str]], now: datetime
    ) -> None:
        """Those of `record_entitled` only."""
        async with self._session.transaction() as connection:
            await connection.executemany(
                QUERIES["record_lapsed"], [(key, list(names), now) for key, names in lapsed.items()]
            )
            await connection.executemany(
                QUERIES["record_regained"], [(key, list(names), now) for key, names in regained.items()]
            )

    async def record_caused(self, room_id: str, localpart: str) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["record_caused"], room_id, localpart)

    async def forget_caused(self, returned: Mapping[str, Collection[str]]) -> None:
        async with self._session.transaction() as connection:
            await connection.executemany(
                QUERIES["forget_caused"],
                [(room_id, list(localparts)) for room_id, localparts in returned.items()],
            )

    async def record_held(self, identities: Collection[str]) -> None:
        """Those that were held before keep the time since when."""
        held = list(identities)
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["release_held"], held)
            await connection.execute(QUERIES["record_held"], held)

    async def record_recovery(self, since: datetime | None) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["record_recovery"], since)

    async def approve(self, approvals: Sequence[Approval], digest: str, now: datetime) -> None:
        async with self._session.transaction() as connection:
            await insert_approvals(connection, approvals, digest, now)

    async def enqueue(self, queued: Sequence[Queued]) -> None:
        """What a person decided meanwhile stays: see desired.queueing.merged."""
        async with self._session.transaction() as connection:
            await _enqueue(connection, queued)

    async def change_queued(self, user_id: str, change: Callable[[Queued | None], Queued]) -> Queued:
        async with self._session.transaction() as connection:
            entry = change(queued(await connection.fetch(QUERIES["lock_queued"], user_id)).get(user_id))
            await _enqueue(connection, [entry])
        return entry

    async def queued(self, user_id: str) -> Queued | None:
        async with self._session.snapshot() as connection:
            return queued(await connection.fetch(QUERIES["load_queued"], user_id)).get(user_id)

    async def waits(self, localpart: str) -> bool:
        async with self._session.snapshot() as connection:
            return bool(await connection.fetchval(QUERIES["is_name_queued"], localpart))

    async def dequeue(self, user_ids: Collection[str]) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["dequeue"], list(user_ids))

    async def postpone_queue(self, until: datetime) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["postpone_queue"], until)

    async def record_clock(self, now: datetime) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["record_clock"], now)

    async def forget_person(self, user_id: str, mxid: str, emails: Collection[str] = ()) -> None:
        """What is recorded of them later in this session, the outcome of their erasure say, has the same
        pseudonym."""
        async with self._session.transaction() as connection:
            person = await forget(connection, user_id, mxid, emails)
            key = await audit_key(connection)
        self._forgotten.add(person, key)

    async def _insert_outcomes(
        self, connection: asyncpg.Connection, cycle: int, outcomes: Mapping[int, Outcome], now: datetime
    ) -> None:
        """What was carried out has used its approval up: the next time it takes another one."""
        # Of whom this very cycle erased, nothing but a pseudonym is written down.
        public = self._forgotten.in_text
        done = [public(identity) for identity in carried_out(outcomes.values())]
        if done:
            await connection.execute(QUERIES["revoke_approvals"], done, now)
        positions = list(outcomes)
        for start in range(0, len(positions), BATCH):
            chosen = positions[start : start + BATCH]
            batch = [outcomes[position] for position in chosen]
            targets = [outcome.action.target for outcome in batch]
            await connection.execute(
                QUERIES["insert_outcomes"],
                cycle,
                chosen,
                [outcome.action.type.value for outcome in batch],
                [public(outcome.action.room) for outcome in batch],
                [None if target is None else public(target) for target in targets],
                [public(outcome.action.reason) for outcome in batch],
                [outcome.status.value for outcome in batch],
                # A homeserver may send any character back; Postgres keeps all but this one.
                [public(outcome.message).replace("\x00", "\ufffd") for outcome in batch],
                now,
            )


def _people_in(plan_json: str) -> Iterator[str]:
    """MXIDs that the actions of a plan are about."""
    for action in json.loads(plan_json).get("actions", ()):
        target = action.get("target")
        if isinstance(target, str) and target.startswith("@"):
            yield target


async def _enqueue(connection: asyncpg.Connection, entries: Sequence[Queued]) -> None:
    # In the order in which `aim queue` locks them, so that neither waits for the other for ever.
    entries = sorted(entries, key=lambda entry: entry.user_id)
    await connection.execute(
        QUERIES["enqueue"],
        [entry.user_id for entry in entries],
        [entry.localpart for entry in entries],
        [entry.queued_at for entry in entries],
        [entry.due_at for entry in entries],
        [entry.reason for entry in entries],
        [entry.ours for entry in entries],
        [entry.found_due_at for entry in entries],
        [entry.held_by for entry in entries],
        [entry.erase_by for entry in entries],
        [entry.restored_by for entry in entries],
    )


@asynccontextmanager
async def open_recorder(dsn: str, *, name: str = "aim", wait: bool = False) -> AsyncIterator[RecorderStore]:
    """The recorder of the database behind `dsn`, migrated, for as long as we hold the writer's lock.

    `name` (`aim run`, say) is told to whoever finds the lock taken. With `wait` it waits for the lock, else
    raises StoreBusy. Raises StoreError; a recorder whose connection was lost raises it from then on.
    """
    async with (
        connected(dsn, name=holder_name(name), read_only=False) as session,
        writers_lock(session, wait=wait),
    ):
        async with session.use() as connection:
            await schema.migrate(connection)
            # There is one writer, and it has just come: whatever still seems to run was killed.
            await connection.execute(QUERIES["interrupt_cycles"])
            key = await connection.fetchval(QUERIES["audit_key"])
            hashes = [row["localpart_hash"] for row in await connection.fetch(QUERIES["load_erased"])]
        yield RecorderStore(session, Forgotten(key or b"", hashes))
