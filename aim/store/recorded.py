"""Reads what we remember: the port RecordedReader over Postgres.

Between the database and `world.recorded`. Every read is one snapshot in a transaction that can't write;
nothing here migrates. A database without our schema is a fresh one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg

from aim.directory.roster import People, Roster
from aim.store import schema
from aim.store.connection import Session, connected
from aim.store.queries import QUERIES
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen

GUARD_WINDOW = timedelta(hours=1)
"""How long a destructive action counts against the guards."""


class RecordedStore:
    """RecordedReader over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def load(self, roster: Roster, now: datetime) -> Recorded:
        """See ports.RecordedReader."""
        async with self._session.snapshot() as connection:
            if not await schema.is_ready(connection):
                return Recorded()
            state = await connection.fetchrow(QUERIES["load_state"])
            assert state is not None, "the row of aim.state is made with the table and never deleted"
            lapsed, regained = await _changed(connection, roster)
            return Recorded(
                fresh=state["fresh"],
                recovery_since=state["recovery_since"],
                source=state["source"],
                rooms=await _rooms(connection),
                seen={row["user_id"]: Seen(*row) for row in await connection.fetch(QUERIES["load_seen"])},
                entitled=await _entitled(connection, roster),
                lapsed=lapsed,
                regained=regained,
                caused={
                    row["room_id"]: roster.people(row["localparts"])
                    for row in await connection.fetch(QUERIES["load_caused"])
                },
                done=tuple(
                    Done(*row) for row in await connection.fetch(QUERIES["load_done"], now - GUARD_WINDOW)
                ),
                held=frozenset(row["identity"] for row in await connection.fetch(QUERIES["load_held"])),
                approvals={
                    row["identity"]: Approval(*row)
                    for row in await connection.fetch(QUERIES["load_approvals"], now)
                },
                queue=queued(await connection.fetch(QUERIES["load_queue"])),
                clock=state["clock"],
                database_ahead=state["database_clock"] - now,
            )

    async def plan_by_digest(self, digest: str) -> str | None:
        """See ports.RecordedReader."""
        async with self._session.snapshot() as connection:
            if not await schema.is_ready(connection):
                return None
            plan: str | None = await connection.fetchval(QUERIES["plan_by_digest"], digest)
            return plan


class NothingRecorded:
    """RecordedReader where there is no database yet."""

    async def load(self, roster: Roster, now: datetime) -> Recorded:  # noqa: ARG002 (the port's signature)
        """See ports.RecordedReader."""
        return Recorded()

    async def plan_by_digest(self, digest: str) -> str | None:  # noqa: ARG002 (the port's signature)
        """See ports.RecordedReader."""
        return None


@asynccontextmanager
async def open_recorded(dsn: str) -> AsyncIterator[RecordedStore]:
    """A reader of the database behind `dsn`, in a session that can't write. Raises StoreError."""
    async with connected(dsn, name="aim reader", read_only=True) as session:
        yield RecordedStore(session)


def queued(rows: Iterable[asyncpg.Record]) -> dict[str, Queued]:
    """User id → entry of the deprovisioning queue, from rows of `aim.queue`."""
    return {row["user_id"]: Queued(**dict(row)) for row in rows}


async def _rooms(connection: asyncpg.Connection) -> Mapping[str, RecordedRoom]:
    rooms = {}
    for key, room_id, properties in await connection.fetch(QUERIES["load_rooms"]):
        rooms[key] = RecordedRoom(key, room_id, None if properties is None else json.loads(properties))
    return rooms


async def _entitled(connection: asyncpg.Connection, roster: Roster) -> Mapping[str, People]:
    # A cursor, so that the localparts of one room are in memory at a time.
    return {
        room_key: roster.people(localparts)
        async for room_key, localparts in connection.cursor(QUERIES["load_entitled"], prefetch=50)
    }


async def _changed(
    connection: asyncpg.Connection, roster: Roster
) -> tuple[Mapping[str, People], Mapping[str, Mapping[int, datetime]]]:
    """Room key → who is entitled no more; room key → who is again, and since when."""
    lapsed: dict[str, list[int]] = defaultdict(list)
    regained: dict[str, dict[int, datetime]] = defaultdict(dict)
    for row in await connection.fetch(QUERIES["load_changed"]):
        person = roster.number(row["localpart"])
        if row["lapsed_at"] is not None:
            lapsed[row["room_key"]].append(person)
        else:
            regained[row["room_key"]][person] = row["regained_at"]
    return {key: People(people) for key, people in lapsed.items()}, dict(regained)
