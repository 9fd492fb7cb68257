"""Fixtures of the contract tests: a Postgres for the session, a database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.servers.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """One running server for all tests."""
    async with running_postgres() as server:
        yield server


@pytest.fixture
async def dsn(postgres: Postgres) -> AsyncIterator[str]:
    """A database of the test's own, empty."""
    async with postgres.database() as fresh:
        yield fresh
