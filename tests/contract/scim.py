"""What the tests of the SCIM store share: stores on a database of the test, and resources to put there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aim.ports.scim import ScimKind, ScimQuery, ScimResource
from aim.store import PostgresScim
from aim.store.recorder import open_recorder
from aim.store.scim import open_scim_store

_numbers = itertools.count(1)


@asynccontextmanager
async def scim_store(dsn: str, client: str = "corp") -> AsyncIterator[PostgresScim]:
    """A store of that client's directory; the schema is made if it is missing."""
    async with open_recorder(dsn, wait=True):
        pass
    async with open_scim_store(dsn, client, read_only=False) as store:
        yield store


def user(name: str, id_: str = "", **fields: object) -> ScimResource:
    """A user of that name, with an id of their own."""
    made = ScimResource(kind=ScimKind.USER, id=id_ or f"user-{next(_numbers):06}", name=name)
    return replace(made, **fields)  # type: ignore[arg-type]  # whichever fields the test is about


def group(name: str, id_: str = "", **fields: object) -> ScimResource:
    """A group of that name, with an id of its own."""
    return replace(user(name, id_ or f"group-{next(_numbers):06}", **fields), kind=ScimKind.GROUP)


async def warm(*stores: PostgresScim) -> None:
    """Has all connections of these stores opened: what is begun at once is done at once then."""
    await asyncio.gather(*(store.revision() for store in stores for _ in range(50)))


async def names(store: PostgresScim, kind: ScimKind = ScimKind.USER) -> list[str]:
    """The names of all of a kind, in the order of their creation."""
    return [found.name for found in (await store.search(ScimQuery(kinds=[kind], count=1_000))).resources]
