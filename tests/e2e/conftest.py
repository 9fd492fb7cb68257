"""Fixtures of the journeys: a Postgres for the session, a stage for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.e2e.kit import Stage
from tests.servers.postgres import Postgres, running_postgres
from tests.servers.proxy import NewProxy
from tests.servers.synapse import Homeserver, SharedSynapses


class NewStage(Protocol):
    """What the fixture `new_stage` gives."""

    def __call__(
        self, *, embedded: bool = False, homeserver: Homeserver | None = None, instance: str = ""
    ) -> Awaitable[Stage]:
        """A stage with a database of its own, and an appservice that nobody has used yet.

        `embedded`: with the Postgres that `aim` itself runs; `homeserver`: on that one, and if its bot has
        another stage, as another `instance`.
        """
        ...


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """One running server for all stages."""
    async with running_postgres() as server:
        yield server


@pytest.fixture
async def new_stage(
    postgres: Postgres, shared_synapses: SharedSynapses, new_proxy: NewProxy
) -> AsyncIterator[NewStage]:
    """A function that makes stages; they are removed when the test ends."""
    async with AsyncExitStack() as stack:

        async def make(
            *, embedded: bool = False, homeserver: Homeserver | None = None, instance: str = ""
        ) -> Stage:
            homeserver = homeserver or await shared_synapses.take()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aim-e2e-")))
            # The embedded Postgres may run as a user of its own, who has to get in.
            folder.chmod(0o755)
            dsn = None if embedded else await stack.enter_async_context(postgres.database())
            return Stage(folder, homeserver, await new_proxy(homeserver.base_url), dsn, instance)

        yield make


@pytest.fixture
async def live_stage(new_stage: NewStage, pushing_synapses: SharedSynapses) -> Stage:
    """A stage whose homeserver sends transactions to the daemon."""
    return await new_stage(homeserver=await pushing_synapses.take())


@pytest.fixture
async def stage(new_stage: NewStage) -> Stage:
    """A stage with a prepared, empty database."""
    return await new_stage()
