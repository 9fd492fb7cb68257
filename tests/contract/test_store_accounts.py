"""The port AccountStore against a real Postgres: what is recorded is what is loaded."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aim.errors import StoreError
from aim.ports import AccountStore, StoredAccount, StoredAccounts
from aim.store import RecorderStore, open_accounts
from aim.store.accounts import PostgresAccounts
from aim.store.recorder import open_recorder
from aim.world.accounts import Account
from tests.servers.postgres import Postgres

NOW = datetime(2026, 5, 4, 12, 30, 15, 123456, tzinfo=UTC)
ANN = StoredAccount(
    Account("ann", "Ann “A” Berg\\", ("a,b@example.com", 'q"{x}@example.com'), True, False, True),
    emails_read_at=NOW,
    announced=False,
)
BOB = StoredAccount(Account("bob", None, (), locked=False, deactivated=True))
CID = StoredAccount(Account("cid", "", None))


@pytest.fixture
async def recorder(dsn: str) -> AsyncIterator[RecorderStore]:
    async with open_recorder(dsn) as store:
        yield store


async def test_nothing_is_known_at_first(recorder: RecorderStore) -> None:
    assert await recorder.accounts.load() == StoredAccounts()


async def test_accounts_are_read_back_whole(recorder: RecorderStore) -> None:
    await recorder.accounts.record([ANN, BOB, CID], listed_at=NOW)
    assert await recorder.accounts.load() == StoredAccounts({"ann": ANN, "bob": BOB, "cid": CID}, NOW)


async def test_they_are_replaced_and_dropped(recorder: RecorderStore) -> None:
    await recorder.accounts.record([ANN, BOB], listed_at=NOW)
    named = replace(CID, account=Account("bob", "Bob", ("b@example.com",)))
    await recorder.accounts.record([named], gone=["ann", "never-there"])
    assert await recorder.accounts.load() == StoredAccounts({"bob": named}, NOW)
    later = NOW + timedelta(days=1)
    await recorder.accounts.record([], listed_at=later)
    assert await recorder.accounts.load() == StoredAccounts({"bob": named}, later)


async def test_who_is_gone_and_there_again_is_there(recorder: RecorderStore) -> None:
    await recorder.accounts.record([ANN])
    await recorder.accounts.record([replace(ANN, announced=True)], gone=["ann"])
    assert (await recorder.accounts.load()).accounts == {"ann": replace(ANN, announced=True)}


async def test_a_name_that_postgres_can_not_hold_keeps_nobody_else_out(recorder: RecorderStore) -> None:
    odd = StoredAccount(Account("odd", "a\x00b\ud800", ("c\x00@example.com",)))
    await recorder.accounts.record([odd, BOB])
    loaded = (await recorder.accounts.load()).accounts
    assert loaded["bob"] == BOB
    assert loaded["odd"].account == Account("odd", "a\ufffdb?", ("c\ufffd@example.com",))


async def test_a_hundred_thousand_take_seconds(recorder: RecorderStore) -> None:
    many = [
        StoredAccount(Account(f"user{n:06}", f"User {n}", (f"user{n}@example.com",)), NOW)
        for n in range(100_000)
    ]
    begin = time.monotonic()
    await recorder.accounts.record(many)
    loaded = await recorder.accounts.load()
    assert time.monotonic() - begin < 60
    assert loaded.accounts == {stored.account.localpart: stored for stored in many}


async def test_a_reader_loads_and_can_not_record(
    postgres: Postgres, dsn: str, recorder: RecorderStore
) -> None:
    await recorder.accounts.record([ANN], listed_at=NOW)
    async with open_accounts(dsn, postgres.data_dir) as reader:
        assert reader is not None
        assert await reader.load() == await recorder.accounts.load()
        with pytest.raises(StoreError):
            await reader.record([BOB])
    assert set((await recorder.accounts.load()).accounts) == {"ann"}


async def test_without_a_database_there_is_none_to_read(postgres: Postgres, dsn: str) -> None:
    async with open_accounts(dsn, postgres.data_dir) as reader:
        assert reader is None


def test_the_store_offers_its_port_and_nothing_else() -> None:
    def methods(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert methods(PostgresAccounts) == methods(AccountStore)
