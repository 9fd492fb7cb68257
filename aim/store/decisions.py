"""What a person decides: approvals, and who is the same person. Written beside a running daemon.

`aim approve` and `aim rebind` need no writer's lock: each is one transaction on rows that the daemon reads at
the beginning of its next cycle. The recorder approves through the same function.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg

from aim.errors import StoreError
from aim.store import schema
from aim.store.connection import BATCH, Session, connected
from aim.store.queries import QUERIES
from aim.store.recorded import RecordedStore
from aim.world.recorded import Approval, Seen


class DecisionStore(RecordedStore):
    """Reads everything, writes what a person decided and nothing else."""

    async def approve(self, approvals: Sequence[Approval], digest: str, now: datetime) -> None:
        """Records that these held actions of the plan with that digest may go. Raises StoreError."""
        async with self._session.transaction() as connection:
            await insert_approvals(connection, approvals, digest, now)

    async def rebind(self, seen: Seen, forget: Collection[str]) -> None:
        """Records `seen` and drops the ids in `forget`, which were the same person. Raises StoreError."""
        async with self._session.transaction() as connection:
            await replace_seen(connection, [seen], forget)
            await connection.execute(QUERIES["count_decision"])


@asynccontextmanager
async def open_decision_store(dsn: str) -> AsyncIterator[DecisionStore]:
    """A place for decisions in the database behind `dsn`. StoreError if it has no schema, or not ours."""
    async with connected(dsn, name="aim decisions", read_only=False) as session:
        await _require_schema(session)
        yield DecisionStore(session)


def nothing_to_decide() -> StoreError:
    """The error for a database that no cycle has written to."""
    return StoreError("the database is empty: there is nothing to decide on yet", "run `aim apply` first")


async def insert_approvals(
    connection: asyncpg.Connection,
    approvals: Sequence[Approval],
    digest: str,
    now: datetime,
) -> None:
    """Inserts approvals, within the caller's transaction."""
    await connection.execute(
        QUERIES["approve"],
        [approval.identity for approval in approvals],
        [approval.approved_by for approval in approvals],
        [approval.until for approval in approvals],
        now,
        digest,
    )
    await connection.execute(QUERIES["count_decision"])


async def replace_seen(connection: asyncpg.Connection, seen: Sequence[Seen], forget: Collection[str]) -> None:
    """Drops the ids in `forget`, then inserts or updates `seen`, within the caller's transaction."""
    await connection.execute(QUERIES["forget_seen"], list(forget))
    for start in range(0, len(seen), BATCH):
        batch = seen[start : start + BATCH]
        await connection.execute(
            QUERIES["record_seen"],
            [user.id for user in batch],
            [user.localpart for user in batch],
            [user.weak_id for user in batch],
            [user.first_seen for user in batch],
            [user.gone_since for user in batch],
        )


async def _require_schema(session: Session) -> None:
    async with session.snapshot() as connection:
        if not await schema.is_ready(connection):
            raise nothing_to_decide()
