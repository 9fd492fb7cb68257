"""Takes out of the directory that SCIM clients push: whoever is deleted, and whoever was erased.

Below `scim`, and for `forgetting`. In come a connection in a transaction of the caller's and an id; out go
rows that are gone, and documents that name it no more.
"""

from __future__ import annotations

import json

import asyncpg

from aim.store.queries import QUERIES


async def forget_scim(connection: asyncpg.Connection, user_id: str) -> None:
    """Removes somebody who was erased, within the caller's transaction: their resource with its memberships,
    and in all other documents what names their id, as `manager` does.

    Not the resource of somebody who is active: the client has pushed them anew, after they had left.
    """
    changed_in: set[str] = set()
    # In the order in which all take them, or two could wait for each other: groups, then members, and what
    # counts changes last.
    await connection.fetch(QUERIES["scim_lock_groups_of_inactive"], user_id)
    for row in await connection.fetch(QUERIES["scim_lock_inactive"], user_id):
        await remove(connection, row["client"], user_id)
        changed_in.add(row["client"])
    needle = json.dumps(user_id)[1:-1]
    for row in await connection.fetch(QUERIES["scim_naming"], needle):
        document = json.loads(row["document"])
        changed = _without(document, user_id)
        if changed != document:
            await connection.execute(QUERIES["scim_rewrite"], row["id"], json.dumps(changed))
            changed_in.add(row["client"])
    for client in sorted(changed_in):
        await connection.execute(QUERIES["scim_changed"], client)


async def remove(connection: asyncpg.Connection, client: str, id_: str) -> None:
    """Removes a resource and its memberships; the groups that it was in have a new version."""
    await connection.execute(QUERIES["scim_touch_groups_of"], client, id_)
    await connection.execute(QUERIES["scim_delete"], client, id_)


def _without(value: object, id_: str) -> object:
    """JSON without what stands for that id: itself, or an object with it as its `value`."""

    def names(part: object) -> bool:
        return part == id_ or (isinstance(part, dict) and part.get("value") == id_)

    if isinstance(value, dict):
        return {key: _without(part, id_) for key, part in value.items() if not names(part)}
    if isinstance(value, list):
        return [_without(part, id_) for part in value if not names(part)]
    return value
