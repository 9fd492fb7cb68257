"""What a person decides: approvals, who is the same person, who is erased or not. Written beside a daemon.

`aim approve`, `aim rebind` and `aim queue` need no writer's lock: each is one transaction on rows that the
daemon reads at the beginning of its next cycle. The recorder approves through the same function.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg

from aim.desired.queueing import QueueChange
from aim.errors import StoreError
from aim.ports import Outcome, OutcomeStatus
from aim.store import schema
from aim.store.connection import BATCH, Session, connected
from aim.store.queries import QUERIES
from aim.store.recorded import RecordedStore, queued
from aim.world.recorded import Approval, Queued, Seen

_ASKED_FOR = "aim queue erase"
"""What stands in an approval where others have the digest of a plan."""


class DecisionStore(RecordedStore):
    """Reads everything, writes what a person decided and nothing else."""

    async def approve(self, approvals: Sequence[Approval], digest: str, now: datetime) -> None:
        """Records that these held actions of the plan with that digest may go. Raises StoreError."""
        async with self._session.transaction() as connection:
            await insert_approvals(connection, approvals, digest, now)

    async def rebind(self, seen: Sequence[Seen], forget: Collection[str], source: str | None = None) -> None:
        """Records `seen` and drops the ids in `forget`, which were the same people; `source` is the type of
        the one that they are in now, if it is another one. Who waits in the queue does so by their new id.

        Raises StoreError.
        """
        async with self._session.transaction() as connection:
            await replace_seen(connection, seen, forget)
            ids, localparts = [user.id for user in seen], [user.localpart for user in seen]
            await connection.execute(QUERIES["rebind_queue"], ids, localparts, list(forget))
            if source is not None:
                await connection.execute(QUERIES["record_source"], source)
            await connection.execute(QUERIES["count_decision"])

    async def change_queue(
        self, decide: Callable[[Mapping[str, Queued]], QueueChange], now: datetime
    ) -> QueueChange:
        """Records what `decide` makes of the queue, which nobody else changes meanwhile. Gives it back.

        Raises what `decide` raises, and StoreError; nothing is changed then.
        """
        async with self._session.transaction() as connection:
            change = decide(queued(await connection.fetch(QUERIES["lock_queue"])))
            await _put_decisions(connection, change.entries)
            await connection.execute(QUERIES["revoke_approvals"], list(change.revoked), now)
            if change.approvals:
                await insert_approvals(connection, change.approvals, _ASKED_FOR, now)
            else:
                await connection.execute(QUERIES["count_decision"])
        return change


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


def carried_out(outcomes: Iterable[Outcome]) -> list[str]:
    """Identities of the actions that were done."""
    return [outcome.action.identity for outcome in outcomes if outcome.status is OutcomeStatus.DONE]


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


async def _put_decisions(connection: asyncpg.Connection, entries: Sequence[Queued]) -> None:
    await connection.execute(
        QUERIES["decide_queue"],
        [entry.user_id for entry in entries],
        [entry.due_at for entry in entries],
        [entry.found_due_at for entry in entries],
        [entry.held_by for entry in entries],
        [entry.erase_by for entry in entries],
        [entry.restored_by for entry in entries],
    )


async def _require_schema(session: Session) -> None:
    async with session.snapshot() as connection:
        if not await schema.is_ready(connection):
            raise nothing_to_decide()
