"""The schema: made and moved forward by a writer, refused when it is not the one this program knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import asyncpg
import pytest

from aim.directory.roster import Roster
from aim.errors import StoreError
from aim.store import schema
from aim.store.decisions import open_decision_store
from aim.store.queries import MIGRATIONS, Migration
from aim.store.recorded import open_recorded
from aim.store.recorder import open_recorder
from aim.world.recorded import Recorded

NOW = datetime(2026, 5, 4, tzinfo=UTC)


async def execute(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def open_and_close(opened: AbstractAsyncContextManager[object]) -> None:
    async with opened:
        pass


async def test_a_reader_of_an_empty_database_finds_nothing_and_makes_nothing(dsn: str) -> None:
    async with open_recorded(dsn) as reader:
        assert await reader.load(Roster(), NOW) == Recorded()
        assert await reader.plan_by_digest("sha256:1") is None
    assert await execute(dsn, "select to_regnamespace('aim') is null")


async def test_decisions_need_a_schema(dsn: str) -> None:
    with pytest.raises(StoreError) as caught:
        await open_and_close(open_decision_store(dsn))
    assert "aim apply" in caught.value.remedy
    assert await execute(dsn, "select to_regnamespace('aim') is null")


async def test_a_second_start_migrates_nothing(dsn: str) -> None:
    await open_and_close(open_recorder(dsn))
    applied = await execute(dsn, "select array_agg(applied_at) from aim.schema_version")
    await open_and_close(open_recorder(dsn))
    assert await execute(dsn, "select array_agg(applied_at) from aim.schema_version") == applied
    assert await execute(dsn, "select count(*) from aim.schema_version") == len(MIGRATIONS)


async def test_writers_that_start_together_migrate_once(dsn: str) -> None:
    await asyncio.gather(*(open_and_close(open_recorder(dsn, wait=True)) for _ in range(4)))
    assert await execute(dsn, "select count(*) from aim.schema_version") == len(MIGRATIONS)


async def test_a_schema_that_was_made_beforehand_is_used(dsn: str) -> None:
    await execute(dsn, "create schema aim")
    await open_and_close(open_recorder(dsn))
    assert await execute(dsn, "select count(*) from aim.schema_version") == len(MIGRATIONS)


async def test_an_older_schema_is_not_read_but_migrated(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await open_and_close(open_recorder(dsn))
    following = Migration(
        schema.KNOWN + 1, "next", "create table aim.next (); insert into aim.next default values;"
    )
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, following))
    monkeypatch.setattr(schema, "KNOWN", following.version)
    async with open_recorded(dsn) as reader:
        with pytest.raises(StoreError) as caught:
            await reader.load(Roster(), NOW)
    assert "aim apply" in caught.value.remedy
    with pytest.raises(StoreError, match="schema version"):
        await open_and_close(open_decision_store(dsn))
    await open_and_close(open_recorder(dsn))
    async with open_recorded(dsn) as reader:
        loaded = await reader.load(Roster(), NOW)
    assert loaded == Recorded(database_ahead=loaded.database_ahead)
    assert await execute(dsn, "select count(*) from aim.next") == 1


async def test_a_migration_that_fails_leaves_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await open_and_close(open_recorder(dsn))
    broken = Migration(schema.KNOWN + 1, "broken", "create table aim.half (); select 1 / 0;")
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, broken))
    monkeypatch.setattr(schema, "KNOWN", broken.version)
    with pytest.raises(StoreError, match="division by zero"):
        await open_and_close(open_recorder(dsn))
    assert await execute(dsn, "select to_regclass('aim.half') is null")
    assert await execute(dsn, "select max(version) from aim.schema_version") == len(MIGRATIONS)


async def load(dsn: str) -> None:
    async with open_recorded(dsn) as reader:
        await reader.load(Roster(), NOW)


async def find_plan(dsn: str) -> None:
    async with open_recorded(dsn) as reader:
        await reader.plan_by_digest("sha256:1")


@pytest.mark.parametrize(
    "use",
    [
        load,
        find_plan,
        lambda dsn: open_and_close(open_recorder(dsn)),
        lambda dsn: open_and_close(open_decision_store(dsn)),
    ],
    ids=["load", "plan_by_digest", "recorder", "decisions"],
)
async def test_a_newer_schema_is_left_alone(dsn: str, use: Callable[[str], object]) -> None:
    await open_and_close(open_recorder(dsn))
    await execute(dsn, "insert into aim.schema_version (version, name) values (999, 'future')")
    with pytest.raises(StoreError, match="999, newer") as caught:
        await use(dsn)  # type: ignore[misc]  # each of them is a coroutine function
    assert "newer" in caught.value.remedy
