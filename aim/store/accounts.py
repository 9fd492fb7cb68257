"""Remembers accounts: the port AccountStore over Postgres.

Beside `mirror`, which keeps what events tell; no event tells of an account's name, addresses or lock. In come
accounts as `matrix.book` read them, out go committed rows.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg

from aim.ports import StoredAccount, StoredAccounts
from aim.store import schema
from aim.store.connection import BATCH, Session, connected
from aim.store.queries import QUERIES
from aim.world.accounts import Account

_ROWS_AT_ONCE = 5_000


class PostgresAccounts:
    """AccountStore over the session that holds the writer's lock, or one that can only read. All methods: see
    ports.AccountStore."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def load(self) -> StoredAccounts:
        async with self._session.snapshot() as connection:
            cursor = connection.cursor(QUERIES["load_accounts"], prefetch=_ROWS_AT_ONCE)
            return StoredAccounts(
                accounts={row["localpart"]: _stored(row) async for row in cursor},
                listed_at=await connection.fetchval(QUERIES["accounts_listed_at"]),
            )

    async def record(
        self,
        changed: Sequence[StoredAccount],
        gone: Collection[str] = (),
        listed_at: datetime | None = None,
    ) -> None:
        async with self._session.transaction() as connection:
            if gone:
                await connection.execute(QUERIES["drop_accounts"], list(gone))
            for start in range(0, len(changed), BATCH):
                await _put(connection, changed[start : start + BATCH])
            if listed_at is not None:
                await connection.execute(QUERIES["record_listing"], listed_at)


@asynccontextmanager
async def open_stored_accounts(dsn: str) -> AsyncIterator[PostgresAccounts | None]:
    """Accounts in the database behind `dsn`, to read; None if nothing was ever written. Raises StoreError."""
    async with connected(dsn, name="aim accounts reader", read_only=True) as session:
        async with session.snapshot() as connection:
            is_there = await schema.is_ready(connection)
        yield PostgresAccounts(session) if is_there else None


def _stored(row: asyncpg.Record) -> StoredAccount:
    localpart, display_name, emails, locked, deactivated, admin, emails_read_at, announced = row
    account = Account(
        localpart=localpart,
        display_name=display_name,
        emails=None if emails is None else tuple(emails),
        locked=locked,
        deactivated=deactivated,
        admin=admin,
    )
    return StoredAccount(account, emails_read_at, announced)


async def _put(connection: asyncpg.Connection, changed: Sequence[StoredAccount]) -> None:
    accounts = [stored.account for stored in changed]
    await connection.execute(
        QUERIES["record_accounts"],
        [account.localpart for account in accounts],
        [None if account.display_name is None else _storable(account.display_name) for account in accounts],
        [_addresses(account) for account in accounts],
        [account.locked for account in accounts],
        [account.deactivated for account in accounts],
        [account.admin for account in accounts],
        [stored.emails_read_at for stored in changed],
        [stored.announced for stored in changed],
    )


def _addresses(account: Account) -> str | None:
    if account.emails is None:
        return None
    return json.dumps([_storable(address) for address in account.emails], ensure_ascii=False)


def _storable(text: str) -> str:
    """Users choose their names: one that Postgres can't hold must not keep all others from being recorded."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()
