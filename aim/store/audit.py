"""Reads the audit: the port AuditReader over Postgres.

Beside `recorded`, which loads everything that a plan depends on; here a few rows are asked for, of the people
and rooms that somebody wants explained. Every read is one snapshot in a transaction that can't write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from aim.store import schema
from aim.store.connection import Session, connected
from aim.store.queries import QUERIES
from aim.world.audit import Audit, Entitlement, Happened, Repeated


class AuditStore:
    """AuditReader over one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def about(self, rooms: Collection[str], people: Collection[str]) -> Audit:
        """See ports.AuditReader."""
        keys, mxids = list(rooms), list(people)
        localparts = [mxid[1:].partition(":")[0] for mxid in mxids]
        async with self._session.snapshot() as connection:
            if not await schema.is_ready(connection):
                return Audit()
            entitled = await connection.fetch(QUERIES["audit_entitlements"], keys, localparts)
            done = await connection.fetch(QUERIES["audit_people"], keys, mxids)
            # One room, where a person's rooms are asked for nobody wants to know of each.
            done += await connection.fetch(QUERIES["audit_room"], keys[0]) if len(keys) == 1 else []
        return Audit(
            entitlements={(key, name): Entitlement(*times) for key, name, *times in entitled},
            last={(key, target): Happened(*what) for key, target, *what in done},
        )

    async def repeated(self, since: datetime, more_than: int) -> Sequence[Repeated]:
        """See ports.AuditReader."""
        async with self._session.snapshot() as connection:
            if not await schema.is_ready(connection):
                return []
            return [
                Repeated(*row) for row in await connection.fetch(QUERIES["audit_repeated"], since, more_than)
            ]


class NothingAudited:
    """AuditReader where there is no database yet."""

    async def about(self, rooms: Collection[str], people: Collection[str]) -> Audit:  # noqa: ARG002 (the port's signature)
        """See ports.AuditReader."""
        return Audit()

    async def repeated(self, since: datetime, more_than: int) -> Sequence[Repeated]:  # noqa: ARG002
        """See ports.AuditReader."""
        return []


@asynccontextmanager
async def open_audit_store(dsn: str) -> AsyncIterator[AuditStore]:
    """A reader of the database behind `dsn`, in a session that can't write. Raises StoreError."""
    async with connected(dsn, name="aim reader", read_only=True) as session:
        yield AuditStore(session)
