"""Keeps what Microsoft Graph told: the ports GraphReader and GraphStore over Postgres.

Beside `scim`. In come states and changes as `bridges.msgraph` understood them, out go committed rows. Only
the one writer records (`aim run`, `aim apply`); whoever looks beside it begins with what is stored. It has
connections of its own, for a complete read takes longer to store than others should wait; a record over
another version than the one that is there is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg

from aim.ports.graph import (
    GraphBack,
    GraphChanges,
    GraphGroup,
    GraphLinks,
    GraphMoved,
    GraphState,
    GraphUser,
    GroupsLink,
)
from aim.store import schema
from aim.store.connection import BATCH
from aim.store.pool import Pool, pooled
from aim.store.pseudonyms import keyed_hash
from aim.store.queries import QUERIES

_TIMEOUT = 300
"""Seconds for all of a large tenant."""
_ROWS_AT_ONCE = 5_000
_GROUPS_AT_ONCE = 100
"""Rows that hold all members of a group each."""


class PostgresGraph:
    """GraphReader and, unless it was opened to read, GraphStore. All methods: see ports.graph."""

    def __init__(self, pool: Pool, key: str) -> None:
        self._pool = pool
        self._key = key

    async def load(self) -> GraphState | None:
        async with self._pool.snapshot(_TIMEOUT) as connection:
            row = await connection.fetchrow(QUERIES["graph_state"], self._key)
            if row is None:
                return None
            state = GraphState(
                row["name"],
                {},
                {},
                {},
                _links_of(row["links"]),
                row["read_at"],
                revision=row["revision"],
                version=row["version"],
            )
            # As `bridges.msgraph` has them: each id comes again with every group that it is in.
            async for id_, *rest in connection.cursor(QUERIES["graph_users"], prefetch=_ROWS_AT_ONCE):
                state.users[sys.intern(id_)] = GraphUser(sys.intern(id_), *rest)
            async for id_, *rest in connection.cursor(QUERIES["graph_groups"], prefetch=_ROWS_AT_ONCE):
                state.groups[sys.intern(id_)] = GraphGroup(sys.intern(id_), *rest)
            members = connection.cursor(QUERIES["graph_memberships"], prefetch=_GROUPS_AT_ONCE)
            async for group_id, ids, are_groups in members:
                inside = zip(map(sys.intern, ids), are_groups, strict=True)
                state.members[sys.intern(group_id)] = dict(inside)
        return state

    async def replace(self, state: GraphState, known: int | None) -> int:
        version = (known or 0) + 1
        begun = (self._key, version, state.revision, state.name, _text_of(state.links), state.read_at)
        async with self._pool.use(_TIMEOUT) as connection, connection.transaction():
            row = await connection.fetchrow(QUERIES["graph_lock"])
            found = row["version"] if row is not None and row["key"] == self._key else None
            if found != known:
                raise GraphMoved(f"version {found}, not {known}")
            await connection.execute(QUERIES["graph_drop"])
            if await connection.fetchval(QUERIES["graph_begin"], *begun) is None:
                raise GraphMoved("somebody else began")
            erased = await _erased_in(connection, _named_in(state))
            back = [id_ for id_ in erased if (user := state.users.get(id_)) and user.enabled is not False]
            await connection.execute(QUERIES["graph_back"], [erased.pop(id_) for id_ in back])
            await _copy(connection, state, erased)
        return version

    async def record(self, changes: GraphChanges, links: GraphLinks, revision: int, known: int) -> int:
        async with self._pool.use(_TIMEOUT) as connection, connection.transaction():
            version: int | None = await connection.fetchval(
                QUERIES["graph_follow"], self._key, known, revision, _text_of(links)
            )
            if version is None:
                raise GraphMoved(f"not version {known}")
            erased = await _erased_in(connection, _touched_by(changes))
            if any(user.id in erased and user.enabled is not False for user in changes.users):
                raise GraphBack
            await _apply(connection, _without(changes, erased) if erased else changes)
        return version


async def _erased_in(connection: asyncpg.Connection, ids: Iterator[str]) -> dict[str, bytes]:
    """Those of them who were erased, and their hashes. Within a transaction that holds the state's row."""
    hashes = {row["id_hash"] for row in await connection.fetch(QUERIES["graph_erased"])}
    if not hashes:
        return {}
    key: bytes = await connection.fetchval(QUERIES["audit_key"])
    hashed = ((id_, keyed_hash(key, id_)) for id_ in set(ids))
    return {id_: hash_ for id_, hash_ in hashed if hash_ in hashes}


def _named_in(state: GraphState) -> Iterator[str]:
    yield from state.users
    for inside in state.members.values():
        yield from inside


def _touched_by(changes: GraphChanges) -> Iterator[str]:
    yield from (user.id for user in changes.users)
    for inside in changes.added.values():
        yield from inside


def _without(changes: GraphChanges, erased: Collection[str]) -> GraphChanges:
    """The changes but for what they say of those."""
    return replace(
        changes,
        users=[user for user in changes.users if user.id not in erased],
        added={
            group: {id_: is_group for id_, is_group in inside.items() if id_ not in erased}
            for group, inside in changes.added.items()
        },
    )


async def _copy(connection: asyncpg.Connection, state: GraphState, erased: Collection[str]) -> None:
    """Stores all of it but for those who were erased."""
    await connection.copy_records_to_table(
        "graph_users",
        schema_name="aim",
        columns=GraphUser._fields,
        records=(user for user in state.users.values() if user.id not in erased),
    )
    await connection.copy_records_to_table(
        "graph_groups", schema_name="aim", columns=GraphGroup._fields, records=state.groups.values()
    )
    await connection.copy_records_to_table(
        "graph_memberships",
        schema_name="aim",
        columns=("group_id", "member_id", "is_group"),
        records=(
            (group, member, is_group)
            for group, inside in state.members.items()
            for member, is_group in inside.items()
            if member not in erased
        ),
    )


async def _apply(connection: asyncpg.Connection, changes: GraphChanges) -> None:
    for users in _batches(changes.users):
        await connection.execute(QUERIES["graph_put_users"], *_columns(users))
    for groups in _batches(changes.groups):
        await connection.execute(QUERIES["graph_put_groups"], *_columns(groups))
    if changes.users_gone:
        await connection.execute(QUERIES["graph_drop_users"], changes.users_gone)
    if changes.groups_gone:
        await connection.execute(QUERIES["graph_drop_groups"], changes.groups_gone)
    for group, gone in changes.removed.items():
        await connection.execute(QUERIES["graph_remove_members"], group, gone)
    for group, added in changes.added.items():
        await connection.execute(
            QUERIES["graph_add_members"], group, list(added.keys()), list(added.values())
        )


def _batches(rows: Sequence[tuple[object, ...]]) -> list[Sequence[tuple[object, ...]]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _text_of(links: GraphLinks) -> str:
    groups = [{"link": groups.link, "ids": groups.ids} for groups in links.groups]
    return json.dumps({"users": links.users, "groups": groups})


def _links_of(text: str) -> GraphLinks:
    found = json.loads(text)
    groups = (GroupsLink(groups["link"], tuple(groups["ids"])) for groups in found["groups"])
    return GraphLinks(found["users"], tuple(groups))


@asynccontextmanager
async def open_graph_store(dsn: str, key: str, *, read_only: bool) -> AsyncIterator[PostgresGraph | None]:
    """What is stored under `key` in the database behind `dsn`; None if there is no schema yet, which the
    writer makes. Raises StoreError, also if the schema is an older one."""
    async with pooled(dsn, name="aim graph", read_only=read_only) as pool:
        async with pool.use() as connection:
            is_there = await schema.is_ready(connection)
        yield PostgresGraph(pool, key) if is_there else None


async def forget_graph(connection: asyncpg.Connection, key: bytes, user_id: str) -> None:
    """Removes somebody who was erased, within the caller's transaction: their row, and their memberships.
    They are not stored again as long as they are disabled in Graph; who is enabled there has come back. `key`
    is that of the hashes."""
    # Whoever stores something at the moment is waited for: they may not know yet whom to leave out.
    if await connection.fetchrow(QUERIES["graph_lock"]) is None:
        return
    if not await connection.fetchval(QUERIES["graph_is_back"], user_id):
        await connection.execute(QUERIES["graph_forget"], user_id, keyed_hash(key, user_id))
