"""Hostile requests down to a real Postgres: it answers as the store in memory does, and none upsets it.

See `tests/unit/scim_grammar.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim.ports.scim import ScimStore
from aim.store import PostgresScim
from tests.contract.scim import scim_store
from tests.unit.scim_client import service
from tests.unit.scim_grammar import REQUESTS, Sent, assert_harmless, assert_usable, send
from tests.unit.scim_store import MemoryScim

FEW = settings(
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

_examples = itertools.count()

NewStore = Callable[[], ScimStore]


@pytest.fixture
async def new_store(dsn: str) -> AsyncIterator[NewStore]:
    """A function that gives an empty store: the directory of another client, in one database."""
    numbers = itertools.count()
    async with scim_store(dsn) as first:
        yield lambda: PostgresScim(first._pool, f"client {next(numbers)}", dsn)


async def _answers(store: ScimStore, example: int, requests: Sequence[Sent]) -> list[object]:
    """What comes back for these. Ids are the same in all stores: requests may have them anywhere."""
    scim = service(store)
    numbers = itertools.count()
    scim.app._endpoints._writing._new_id = lambda: f"resource-{example}-{next(numbers)}"
    user = await scim.user("ann", emails=[{"value": "a@example.com", "type": "work"}])
    group = await scim.group("staff", [user["id"]])
    ids = {"user": user["id"], "group": group["id"]}
    found: list[object] = []
    for sent in requests:
        answered = await send(scim.app, sent, ids)
        assert_harmless(answered)
        said = answered.json if answered.body else {}
        found.append((answered.status, said.get("scimType"), said.get("totalResults")))
    await assert_usable(scim.app, ids)
    return found


@FEW
@given(st.lists(REQUESTS, min_size=1, max_size=4))
async def test_any_requests(new_store: NewStore, requests: list[Sent]) -> None:
    example = next(_examples)
    real = await _answers(new_store(), example, requests)
    assert real == await _answers(MemoryScim(), example, requests)
