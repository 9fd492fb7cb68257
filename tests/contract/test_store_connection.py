"""Connections that fail: the cause and the remedy are said, the password never is."""

from __future__ import annotations

import socket
import traceback

import pytest

from aim.errors import StoreError
from aim.store.connection import connected, describe
from tests.servers.postgres import Postgres

SECRET = "hunter2"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def failure(dsn: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        async with connected(dsn, read_only=True):
            pass
    return caught.value


async def test_nobody_listens() -> None:
    port = closed_port()
    error = await failure(f"postgresql://aim:{SECRET}@127.0.0.1:{port}/people")
    assert f'database "people" at 127.0.0.1:{port}' in error.message
    assert error.remedy
    assert SECRET not in "".join(traceback.format_exception(error))


async def test_there_is_no_such_database(postgres: Postgres) -> None:
    error = await failure(postgres.dsn_of("nowhere", f"aim:{SECRET}"))
    assert 'database "nowhere"' in error.message
    assert "does not exist" in error.message
    assert "createdb" in error.remedy
    assert SECRET not in "".join(traceback.format_exception(error))


async def test_there_is_no_such_user(postgres: Postgres) -> None:
    error = await failure(postgres.dsn_of("aim", f"stranger:{SECRET}"))
    assert "refused the login" in error.message
    assert "user and password" in error.remedy
    assert SECRET not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "dsn",
    [
        f"mysql://aim:{SECRET}@db/people",
        f"aim:{SECRET}@db/people",
        f"postgresql://aim:{SECRET}",
        f"postgresql://aim:{SECRET}/people",
        f"postgresql://aim:x/{SECRET}@127.0.0.1/people",
        f"postgresql://aim:x#{SECRET}@127.0.0.1/people",
        f"postgresql://aim:x?{SECRET}@127.0.0.1/people",
        f"postgresql://aim:[{SECRET}@127.0.0.1/people",
        f"postgresql://aim@127.0.0.1:{SECRET}/people",
        f"host=127.0.0.1 port=1 user=aim password={SECRET}",
    ],
)
async def test_a_malformed_dsn_shows_no_password(dsn: str) -> None:
    error = await failure(dsn)
    assert error.remedy
    assert SECRET not in "".join((*traceback.format_exception(error), error.message, error.remedy))


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://aim:pw@db.example.com/people", 'database "people" at db.example.com'),
        ("postgres://aim:pw@db.example.com:5433/people", 'database "people" at db.example.com:5433'),
        ("postgresql://aim@/people?host=/run/postgresql", 'database "people" at /run/postgresql'),
        ("postgresql:///people", 'database "people"'),
        ("postgresql://aim:p@w@db/people", "the database that database.url names"),
        ("postgresql://aim:p/w@db/people", "the database that database.url names"),
    ],
)
def test_a_database_is_described(dsn: str, said: str) -> None:
    assert describe(dsn) == said
