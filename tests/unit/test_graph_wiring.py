"""How patient the way to Microsoft Graph is: as a daemon has to be, or as somebody is who waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aim import app, run
from aim.bridges.msgraph import describe, transport
from aim.bridges.msgraph.throttle import AWAITED, Retries
from aim.check.graph import found_of_graph
from aim.config.root import Config
from aim.config.sources import MsGraphSource
from aim.errors import SourceUnavailable
from tests.unit.worlds import a_config, a_space

SOURCE = MsGraphSource.model_validate(
    {
        "type": "ms-graph-ad",
        "tenant_id": "b9355cb3-feed-dead-beef-9cc325f0335b",
        "client_id": "5c955b66-18b3-42de-bb5a-13b5a202d4fc",
        "client_secret": "secret",
    }
)


@pytest.fixture
def config() -> Config:
    return a_config(a_space("all", "")).model_copy(update={"source": SOURCE})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Retries]:
    """With what patience ways to Graph were opened; nothing can be asked by them."""
    found: list[Retries] = []

    @asynccontextmanager
    async def open_transport(_: object, *, retries: Retries) -> AsyncIterator[None]:
        found.append(retries)
        yield

    async def look(*_: object) -> None:
        raise SourceUnavailable("nobody is asked")

    @asynccontextmanager
    async def open_graph(*_: object, read_only: bool) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(transport, "open_transport", open_transport)
    monkeypatch.setattr(describe, "open_transport", open_transport)
    monkeypatch.setattr(describe, "look", look)
    monkeypatch.setattr(app, "open_graph", open_graph)
    return found


@pytest.mark.parametrize("records", [False, True], ids=["aim plan", "aim apply"])
async def test_a_command_has_the_patience_of_who_waits(
    config: Config, opened: list[Retries], records: bool
) -> None:
    async with app.opened_source(config, records=records):
        pass
    assert opened == [AWAITED]


async def test_so_has_a_check(opened: list[Retries]) -> None:
    await found_of_graph(SOURCE)
    assert opened == [AWAITED]


async def test_the_daemon_has_its_own(config: Config, opened: list[Retries]) -> None:
    async with run._graph(config, SOURCE, lambda: None):
        pass
    assert opened == [Retries()]
