"""One writer at a time; readers and decisions beside it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from aim.directory.roster import Roster
from aim.errors import StoreBusy, StoreError
from aim.store.connection import connected
from aim.store.decisions import open_decision_store
from aim.store.lock import holder_name, writers_lock
from aim.store.recorded import open_recorded
from aim.store.recorder import open_recorder
from aim.world.recorded import Approval, RecordedRoom, Seen
from tests.servers.postgres import Postgres, neighbour

NOW = datetime(2026, 5, 4, tzinfo=UTC)

HOLDS_THE_LOCK = """
import asyncio, sys
from aim.store.recorder import open_recorder

async def main():
    async with open_recorder(sys.argv[1], name="aim run"):
        print("holding", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


async def test_a_second_writer_is_refused_and_told_who_is_the_first(dsn: str) -> None:
    async with neighbour(HOLDS_THE_LOCK, dsn) as holder:
        assert await holder.line() == "holding"
        with pytest.raises(StoreBusy, match=f"aim run, pid {holder.pid} on ") as caught:
            async with open_recorder(dsn):
                pass
        assert caught.value.remedy
        assert await holder.let_go() == 0
    async with open_recorder(dsn):
        pass


async def test_the_lock_is_let_go_before_the_connection_is(dsn: str) -> None:
    async with connected(dsn, read_only=False) as session:
        async with writers_lock(session, wait=False):
            with pytest.raises(StoreBusy):
                async with open_recorder(dsn):
                    pass
        async with open_recorder(dsn):
            pass


async def test_a_killed_writer_holds_nothing(dsn: str) -> None:
    async with neighbour(HOLDS_THE_LOCK, dsn) as holder:
        assert await holder.line() == "holding"
        await holder.kill()
    async with asyncio.timeout(30), open_recorder(dsn, wait=True) as recorder:
        await recorder.intend_room("sales", NOW)


async def test_a_writer_may_wait_for_the_other(dsn: str) -> None:
    order = []

    async def second() -> None:
        async with open_recorder(dsn, wait=True):
            order.append("second")

    async with open_recorder(dsn):
        waiting = asyncio.create_task(second())
        connection = await asyncpg.connect(dsn)
        async with asyncio.timeout(30):
            while not await connection.fetchval("select true from pg_locks where not granted limit 1"):
                assert not waiting.done()
        await connection.close()
        order.append("first")
    await waiting
    assert order == ["first", "second"]


async def test_writers_of_two_databases_do_not_meet(dsn: str, postgres: Postgres) -> None:
    async with postgres.database() as other, open_recorder(dsn), open_recorder(other) as recorder:
        await recorder.intend_room("sales", NOW)


async def test_the_lock_is_free_again_after_an_error(dsn: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_recorder(dsn):
            raise ZeroDivisionError
    async with open_recorder(dsn):
        pass


async def test_a_recorder_whose_connection_was_lost_never_writes_again(dsn: str) -> None:
    async with open_recorder(dsn) as recorder:
        admin = await asyncpg.connect(dsn)
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and datname = current_database()"
        )
        for _ in range(2):
            with pytest.raises(StoreError, match="was lost"):
                await recorder.record_room(RecordedRoom("sales", "!s:example.com", None), NOW)
        async with asyncio.timeout(30), open_recorder(dsn, wait=True) as following:
            assert (await following.load(Roster(), NOW)).rooms == {}
        await admin.close()


async def test_decisions_are_written_beside_a_writer(dsn: str) -> None:
    async with open_recorder(dsn) as recorder, open_decision_store(dsn) as decisions:
        old = Seen("old", "ann", weak_id=False, first_seen=NOW, gone_since=NOW)
        await recorder.record_seen([old], [], "ldif")
        approval = Approval("kick a @x", "root", NOW + timedelta(hours=24))
        assert await recorder.decisions() == 0
        await decisions.approve([approval], "sha256:1", NOW)
        assert await recorder.decisions() == 1
        new = Seen("new", "ann", weak_id=False, first_seen=NOW, gone_since=None)
        await decisions.rebind([new], ["old"])
        assert await recorder.decisions() == 2
        recorded = await recorder.load(Roster(), NOW)
        assert recorded.approvals == {"kick a @x": approval}
        assert recorded.seen == {"new": new}
        assert recorded.source == "ldif"
        loaded = await decisions.load(Roster(), NOW)
        assert replace(loaded, database_ahead=recorded.database_ahead) == recorded


async def test_a_reader_can_not_write(dsn: str) -> None:
    async with open_recorder(dsn) as recorder, open_recorded(dsn) as reader:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await reader._session.connection.execute("insert into aim.held (identity) values ('x')")
        with pytest.raises(StoreError, match="read-only"):
            async with reader._session.transaction() as connection:
                await connection.execute("insert into aim.held (identity) values ('x')")
        assert (await recorder.load(Roster(), NOW)).held == frozenset()


def test_the_holders_name_fits_postgres() -> None:
    assert holder_name("aim run").startswith(f"aim run, pid {os.getpid()} on ")
    assert len(holder_name("ü" * 100).encode()) == 63
