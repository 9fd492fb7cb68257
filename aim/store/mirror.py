"""Keeps the mirror: the port MirrorStore over Postgres, for the holder of the writer's lock.

In come changes that `matrix.mirror` decided on, out go committed rows: what a transaction of the homeserver
changes is kept together with the transaction's id, or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg

from aim.ports import (
    MemberKind,
    MirrorChanges,
    MirrorContents,
    MirroredRoom,
    MirrorFacts,
    MirrorRecord,
    Stamp,
    StateKey,
    StoredEvent,
    StoredMember,
    StoredMembers,
)
from aim.store import schema
from aim.store.connection import BATCH, Session, connected
from aim.store.pseudonyms import Forgotten
from aim.store.queries import QUERIES

DAEMON = "aim run"
"""The writer that keeps the mirror; see lock.holder_name."""
MEMBER = "m.room.member"
KEEP_TRANSACTIONS = timedelta(days=7)
"""A homeserver repeats the transaction that was not answered, never one before it."""
PRUNE_EVERY = 500
"""Transactions between two looks for old ones."""
_GROUPS_AT_ONCE = 50
"""Rows that a cursor fetches: each may hold all members of a room."""


@asynccontextmanager
async def open_live_mirror(dsn: str) -> AsyncIterator[PostgresMirror | None]:
    """The mirror that a running daemon keeps, to read; None if no daemon runs. Raises StoreError."""
    async with connected(dsn, name="aim mirror reader", read_only=True) as session:
        async with session.snapshot() as connection:
            holder = await connection.fetchrow(QUERIES["lock_holder"])
            is_kept = holder is not None and str(holder["application_name"]).startswith(f"{DAEMON},")
            is_kept = is_kept and await schema.is_ready(connection)
        yield PostgresMirror(session) if is_kept else None


class PostgresMirror:
    """MirrorStore over the session that holds the writer's lock, or one that can only read. All methods: see
    ports.MirrorStore."""

    def __init__(self, session: Session, forgotten: Forgotten | None = None) -> None:
        self._session = session
        self._forgotten = forgotten or Forgotten()
        self._transactions = 0

    async def load(self) -> MirrorContents:
        async with self._session.snapshot() as connection:
            facts = await connection.fetchrow(QUERIES["mirror_facts"])
            assert facts is not None, "the row of aim.mirror is made with the table and never deleted"
            return MirrorContents(
                facts=MirrorFacts(**dict(facts)),
                rooms={
                    row["room_id"]: MirroredRoom(row["stale"], row["verified_at"])
                    for row in await connection.fetch(QUERIES["mirror_rooms"])
                },
                events=[
                    StoredEvent(StateKey(room_id, kind, key), Stamp(event_id, sent), sender, content)
                    for room_id, kind, key, sender, sent, event_id, content in await connection.fetch(
                        QUERIES["mirror_state"]
                    )
                ],
                doubts=frozenset(StateKey(*row) for row in await connection.fetch(QUERIES["mirror_doubts"])),
                accounts=[row["localpart"] for row in await connection.fetch(QUERIES["mirror_accounts"])],
            )

    async def members(self, server_name: str, bot: str) -> AsyncIterator[StoredMembers]:
        async with self._session.snapshot() as connection:
            # A cursor, so that the members of a few rooms are in memory at a time.
            cursor = connection.cursor(QUERIES["mirror_members"], server_name, bot, prefetch=_GROUPS_AT_ONCE)
            async for room_id, membership, kind, names, sent in cursor:
                yield StoredMembers(room_id, membership, MemberKind(kind), names, sent or ())

    async def members_of(self, room_id: str) -> Mapping[StateKey, StoredMember]:
        async with self._session.snapshot() as connection:
            rows = await connection.fetch(QUERIES["mirror_members_of"], room_id)
        return {
            (key := StateKey(room_id, MEMBER, user_id)): StoredMember(
                key, Stamp(event_id, sent), membership, own
            )
            for user_id, membership, own, sent, event_id in rows
        }

    async def compare(
        self, txn_id: str, members: Collection[StateKey], redacted: Collection[str]
    ) -> MirrorRecord:
        async with self._session.snapshot() as connection:
            digest: str | None = await connection.fetchval(QUERIES["transaction_digest"], txn_id)
            stamps: dict[StateKey, Stamp] = {}
            if members:
                rooms, users = [key.room_id for key in members], [key.state_key for key in members]
                for room_id, user_id, event_id, sent in await connection.fetch(
                    QUERIES["mirror_stamps"], rooms, users
                ):
                    stamps[StateKey(room_id, MEMBER, user_id)] = Stamp(event_id, sent)
            found: set[StateKey] = set()
            if redacted:
                rows = await connection.fetch(QUERIES["mirror_by_event"], list(redacted))
                found = {StateKey(room_id, MEMBER, user_id) for room_id, user_id in rows}
        return MirrorRecord(digest, stamps, found)

    async def record(self, changes: MirrorChanges, now: datetime) -> None:
        async with self._session.transaction() as connection:
            if changes.transaction is not None:
                await self._record_transaction(connection, changes.transaction, now)
            if changes.dropped:
                await _drop(connection, list(changes.dropped))
            if changes.rooms:
                await _put_rooms(connection, changes.rooms)
            if changes.gone:
                await _remove(connection, changes.gone)
            if changes.events:
                await _put_events(connection, changes.events)
            members = [row for row in changes.members if not self._is_forgotten(row)]
            for start in range(0, len(members), BATCH):
                await _put_members(connection, members[start : start + BATCH])
            if changes.settled:
                await connection.execute(QUERIES["mirror_settle"], *_columns(changes.settled))
            if changes.doubts:
                await connection.execute(QUERIES["mirror_doubt"], *_columns(changes.doubts))
            await _put_accounts(connection, list(changes.accounts), only=changes.only_these_accounts)
            if changes.facts != MirrorFacts():
                await _put_facts(connection, changes.facts)

    def _is_forgotten(self, member: StoredMember) -> bool:
        """True for what is told of somebody after their account was erased: that they left their rooms."""
        return member.membership == "leave" and member.key.state_key in self._forgotten

    async def _record_transaction(
        self, connection: asyncpg.Connection, transaction: tuple[str, str], now: datetime
    ) -> None:
        if self._transactions % PRUNE_EVERY == 0:
            await connection.execute(QUERIES["prune_transactions"], now - KEEP_TRANSACTIONS)
        self._transactions += 1
        await connection.execute(QUERIES["record_transaction"], *transaction, now)


def _columns(keys: Collection[StateKey]) -> tuple[list[str], list[str], list[str]]:
    return [key.room_id for key in keys], [key.type for key in keys], [key.state_key for key in keys]


async def _drop(connection: asyncpg.Connection, room_ids: list[str]) -> None:
    await connection.execute(QUERIES["mirror_drop_state"], room_ids)
    await connection.execute(QUERIES["mirror_drop_members"], room_ids)
    await connection.execute(QUERIES["mirror_drop_doubts"], room_ids)
    await connection.execute(QUERIES["mirror_drop_rooms"], room_ids)


async def _put_rooms(connection: asyncpg.Connection, rooms: Mapping[str, MirroredRoom]) -> None:
    await connection.execute(
        QUERIES["mirror_put_rooms"],
        list(rooms),
        [room.stale for room in rooms.values()],
        [room.verified_at for room in rooms.values()],
    )


async def _remove(connection: asyncpg.Connection, keys: Collection[StateKey]) -> None:
    members = [key for key in keys if key.type == MEMBER]
    others = [key for key in keys if key.type != MEMBER]
    if members:
        rooms, _, users = _columns(members)
        await connection.execute(QUERIES["mirror_remove_members"], rooms, users)
    if others:
        await connection.execute(QUERIES["mirror_remove_state"], *_columns(others))


async def _put_events(connection: asyncpg.Connection, events: Sequence[StoredEvent]) -> None:
    await connection.execute(
        QUERIES["mirror_put_state"],
        *_columns([event.key for event in events]),
        [event.sender for event in events],
        [event.stamp.sent for event in events],
        [event.stamp.event_id for event in events],
        [event.content for event in events],
    )


async def _put_members(connection: asyncpg.Connection, members: Sequence[StoredMember]) -> None:
    await connection.execute(
        QUERIES["mirror_put_members"],
        [member.key.room_id for member in members],
        [member.key.state_key for member in members],
        [member.membership for member in members],
        [member.own for member in members],
        [member.stamp.sent for member in members],
        [member.stamp.event_id for member in members],
    )


async def _put_accounts(connection: asyncpg.Connection, localparts: list[str], *, only: bool) -> None:
    if only:
        await connection.execute(QUERIES["mirror_forget_accounts"], localparts)
    for start in range(0, len(localparts), BATCH):
        await connection.execute(QUERIES["mirror_add_accounts"], localparts[start : start + BATCH])


async def _put_facts(connection: asyncpg.Connection, facts: MirrorFacts) -> None:
    await connection.execute(
        QUERIES["mirror_put_facts"],
        facts.control_room,
        facts.counter_sent,
        facts.counter_seen,
        facts.complete,
        facts.is_current,
        facts.accounts_read_at,
        facts.default_room_version,
    )
