"""The version of the schema: found out by everybody, moved forward by the writer alone.

In comes a connection; out goes nothing but a database whose version is the one that this program knows, or a
StoreError that says what to do.
"""

from __future__ import annotations

import asyncpg

from aim.errors import StoreError
from aim.store.queries import MIGRATIONS, QUERIES

KNOWN = MIGRATIONS[-1].version
"""The version that this program reads and writes."""


async def version(connection: asyncpg.Connection) -> int | None:
    """The version of the database's schema, or None if there is none yet."""
    if not await connection.fetchval(QUERIES["schema_exists"]):
        return None
    found: int = await connection.fetchval(QUERIES["schema_version"])
    return found


async def is_ready(connection: asyncpg.Connection) -> bool:
    """True if the schema is ours to use, False if there is none yet. StoreError if it is older or newer."""
    found = await version(connection)
    if found is None:
        return False
    _refuse_newer(found)
    if found < KNOWN:
        raise StoreError(
            f"the database has schema version {found}, this aim needs {KNOWN}",
            "run `aim apply` or restart the daemon to migrate it",
        )
    return True


async def migrate(connection: asyncpg.Connection) -> None:
    """Brings the schema to the version KNOWN, one transaction a step. Only for the writer's lock's holder.

    Raises StoreError if the schema is newer than that.
    """
    found = await version(connection) or 0
    _refuse_newer(found)
    for step in MIGRATIONS[found:]:
        async with connection.transaction():
            await connection.execute(step.sql)
            await connection.execute(QUERIES["record_migration"], step.version, step.name)


def _refuse_newer(found: int) -> None:
    if found > KNOWN:
        raise StoreError(
            f"the database has schema version {found}, newer than this aim, which knows {KNOWN}",
            "use the release of aim that last wrote to it, or a newer one",
        )
