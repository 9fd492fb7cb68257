"""Keeps what SCIM clients push: the port ScimStore over Postgres.

Beside `recorder`, and without the writer's lock: requests are answered at any time, many at once. In come
resources and memberships as `bridges.scim` understood them, out go committed rows.

Two processes may serve the same client at once, behind a balancer or while one takes over from the other. All
that must hold between requests (a `userName` is unique, a version is the expected one, no change is lost) is
for the database to keep, and each reads what the other committed. Only the cycle that follows is for one
alone, the holder of the writer's lock; it hears of changes whoever made them (`watch`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from aim.errors import StoreError
from aim.ports.scim import (
    ScimChanged,
    ScimGrowth,
    ScimKind,
    ScimMember,
    ScimPage,
    ScimQuery,
    ScimResource,
    ScimSnapshot,
    ScimTaken,
)
from aim.store import schema
from aim.store.pool import Pool, pooled
from aim.store.queries import QUERIES
from aim.store.scim_forgetting import remove
from aim.store.scim_listening import Teller, listen
from aim.store.scim_pages import Search
from aim.store.scim_rows import differ, members_of, outline_of, resource_of, shown_of, storable, values

_BREATH = 200
"""Resources after which a long scan lets others have the processor."""
_ROWS_AT_ONCE = 2_000
_SNAPSHOT_TIMEOUT = 300
_SETTLING_TIMEOUT = 900
_WITH_GROUPS = QUERIES["scim_with_groups"]
_GET = QUERIES["scim_get"].format(with_groups=_WITH_GROUPS)

LocalpartOf = Callable[[Mapping[str, object]], str | None]
"""The localpart that a user's document gives, if any."""


def _and_changed(query: str, and_tell: str = "") -> str:
    return QUERIES["scim_and_changed"].format(
        statement=query.rstrip(";"), and_tell=and_tell, with_groups=_WITH_GROUPS
    )


def _replace(provided: str = "") -> str:
    return QUERIES["scim_replace"].format(provided=provided)


_CREATE, _REPLACE_VERSION = map(
    _and_changed, (QUERIES["scim_create"], _replace(QUERIES["scim_if_it_differs"]))
)
"""Each is all of a transaction, and told of after it."""
_REPLACE, _TOUCH = (
    _and_changed(query, QUERIES["scim_and_tell"]) for query in (_replace(), QUERIES["scim_touch"])
)
"""Each is the last statement of a transaction."""


class PostgresScim:
    """ScimStore of one client's directory. All methods: see ports.scim.ScimStore."""

    def __init__(self, pool: Pool, client: str, dsn: str, teller: Teller | None = None) -> None:
        self._pool = pool
        self._client = storable(client)
        self._dsn = dsn
        self._teller = teller or Teller(pool)

    # Reading

    async def get(self, kind: ScimKind, id_: str) -> ScimResource | None:
        async with self._pool.use() as connection:
            row = await connection.fetchrow(_GET, self._client, kind.value, storable(id_))
        return None if row is None else shown_of(row)

    async def search(self, query: ScimQuery) -> ScimPage:
        search = Search(query, self._client)
        async with self._pool.use() as connection:
            return search.page(await connection.fetch(search.sql, *search.arguments))

    async def scan(self, kinds: Sequence[ScimKind], at_most: int) -> AsyncIterator[ScimResource]:
        wanted = [kind.value for kind in kinds]
        async with self._pool.use() as connection:
            rows = await connection.fetch(QUERIES["scim_scan"], self._client, wanted, max(at_most, 0))
        for number, row in enumerate(rows):
            if number % _BREATH == 0:
                await asyncio.sleep(0)
            yield resource_of(row)

    async def members(
        self, group_ids: Collection[str], at_most: int | None = None
    ) -> Mapping[str, Sequence[ScimMember]]:
        return await self._related(QUERIES["scim_members"], group_ids, at_most)

    async def sizes(self, group_ids: Collection[str], at_most: int) -> Mapping[str, int]:
        ids = _ids(group_ids)
        async with self._pool.use() as connection:
            rows = await connection.fetch(QUERIES["scim_sizes"], self._client, ids, max(at_most, 0))
        return {**dict.fromkeys(ids, 0), **{row["id"]: row["size"] for row in rows}}

    async def groups_of(self, ids: Collection[str]) -> Mapping[str, Sequence[ScimMember]]:
        return await self._related(QUERIES["scim_groups_of"], ids)

    async def _related(
        self, query: str, ids: Collection[str], *more: int | None
    ) -> Mapping[str, Sequence[ScimMember]]:
        async with self._pool.use() as connection:
            rows = await connection.fetch(query, self._client, _ids(ids), *more)
        found = {row["owner"]: members_of(row) for row in rows}
        return {id_: found.get(id_, ()) for id_ in ids}

    async def snapshot(self) -> ScimSnapshot:
        found: dict[ScimKind, list[ScimResource]] = {kind: [] for kind in ScimKind}
        async with self._pool.snapshot(_SNAPSHOT_TIMEOUT) as connection:
            cursor = connection.cursor(QUERIES["scim_snapshot"], self._client, prefetch=_ROWS_AT_ONCE)
            async for row in cursor:
                found[ScimKind(row["kind"])].append(outline_of(row))
            rows = await connection.fetch(QUERIES["scim_snapshot_members"], self._client)
            return ScimSnapshot(
                users=_by_id(found[ScimKind.USER]),
                groups=_by_id(found[ScimKind.GROUP]),
                members={row["group_id"]: tuple(row["member_ids"]) for row in rows},
                revision=await connection.fetchval(QUERIES["scim_revision"], self._client),
                ready_since=await connection.fetchval(QUERIES["scim_ready_since"], self._client),
            )

    async def growth(self) -> ScimGrowth:
        async with self._pool.use() as connection:
            row = await connection.fetchrow(QUERIES["scim_growth"], self._client)
        return ScimGrowth(**dict(row))

    async def revision(self) -> int:
        async with self._pool.use() as connection:
            revision: int = await connection.fetchval(QUERIES["scim_revision"], self._client)
            return revision

    async def mapping(self) -> str | None:
        """The `attributeMapping.username` under which the localparts were made; None: not known."""
        async with self._pool.use() as connection:
            mapping: str | None = await connection.fetchval(QUERIES["scim_mapping"], self._client)
            return mapping

    async def watch(self, heard: Callable[[], None]) -> None:
        """Calls `heard` at once, and within moments after each change that anybody made to any client's
        directory, until it is cancelled. What is changed while the database is away is heard when it is back.

        Never raises StoreError.
        """
        await listen(self._dsn, heard)

    # Writing

    async def create(self, resource: ScimResource, members: Sequence[str] = ()) -> ScimResource:
        stored = values(resource)
        if not members:
            async with self._pool.use() as connection:
                row = await self._put(connection, _CREATE, resource, stored)
            self._teller.tell()
            return shown_of(row)

        async def work(connection: asyncpg.Connection) -> ScimResource:
            row = await self._put(connection, QUERIES["scim_create"], resource, stored)
            await self._add(connection, row["id"], members)
            await self._changed(connection)
            return resource_of(row)

        return await self._pool.write(work)

    async def replace(
        self,
        resource: ScimResource,
        members: Sequence[str] | None = None,
        expected: int | None = None,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
    ) -> ScimResource | None:
        stored = values(resource)
        if members is None and expected is not None and not (add or remove):
            # As a rule it is that version: then one statement does. If not, what is there has to be told.
            async with self._pool.use() as connection:
                row = await self._put(connection, _REPLACE_VERSION, resource, [*stored, expected])
            if row is not None:
                self._teller.tell()
                return shown_of(row)

        async def work(connection: asyncpg.Connection) -> ScimResource | None:
            before = await self._lock(connection, resource.kind, resource.id, expected)
            if before is None:
                return None
            if members is None:
                moved = await self._move(connection, before.id, add, remove)
            else:
                removed = await connection.fetchval(QUERIES["scim_keep_members"], before.id, _ids(members))
                moved = removed + await self._add(connection, before.id, members)
            if not moved and not differ(resource, before):
                return before
            return shown_of(await self._put(connection, _REPLACE, resource, stored))

        return await self._pool.write(work)

    async def change_members(
        self,
        group_id: str,
        add: Collection[str] = (),
        remove: Collection[str] = (),
        expected: int | None = None,
    ) -> ScimResource | None:
        async def work(connection: asyncpg.Connection) -> ScimResource | None:
            before = await self._lock(connection, ScimKind.GROUP, group_id, expected)
            if before is None:
                return None
            if not await self._move(connection, before.id, add, remove):
                return before
            return shown_of(await connection.fetchrow(_TOUCH, self._client, before.id))

        return await self._pool.write(work)

    async def delete(self, kind: ScimKind, id_: str, expected: int | None = None) -> bool:
        async def work(connection: asyncpg.Connection) -> bool:
            await connection.fetch(QUERIES["scim_lock_groups_of"], self._client, storable(id_))
            if await self._lock(connection, kind, id_, expected) is None:
                return False
            await remove(connection, self._client, id_)
            await self._changed(connection)
            return True

        return await self._pool.write(work)

    async def set_ready(self, since: datetime | None) -> None:
        async def work(connection: asyncpg.Connection) -> None:
            if since is None:
                await connection.execute(QUERIES["scim_set_filling"], self._client)
            else:
                await connection.execute(QUERIES["scim_set_ready"], self._client, since)
            await connection.execute(QUERIES["scim_said_ready"], self._client)

        await self._pool.write(work)

    async def settle_localparts(self, mapping: str, localpart_of: LocalpartOf) -> int:
        """Makes the localparts of all users anew from their documents, all of them or none, and keeps that
        `mapping` is what they were made under. How many changed; what clients see stays as it is."""
        async with self._pool.use(_SETTLING_TIMEOUT) as connection, connection.transaction():
            changed, last = 0, ""
            while rows := await connection.fetch(
                QUERIES["scim_lock_users"], self._client, last, _ROWS_AT_ONCE
            ):
                # A selection such as `emails[type eq "work"]` takes its time.
                made = await asyncio.to_thread(_other_localparts, rows, localpart_of)
                await connection.execute(
                    QUERIES["scim_set_localparts"], self._client, list(made), list(made.values())
                )
                changed, last = changed + len(made), rows[-1]["id"]
            await connection.execute(QUERIES["scim_set_mapping"], self._client, storable(mapping))
            if changed:
                await connection.execute(QUERIES["scim_said_ready"], self._client)
            return changed

    async def _lock(
        self, connection: asyncpg.Connection, kind: ScimKind, id_: str, expected: int | None
    ) -> ScimResource | None:
        row = await connection.fetchrow(QUERIES["scim_lock"], self._client, kind.value, storable(id_))
        if row is None:
            return None
        if expected is not None and row["version"] != expected:
            raise ScimChanged(f"version {row['version']}, not {expected}")
        return resource_of(row)

    async def _put(
        self, connection: asyncpg.Connection, query: str, resource: ScimResource, stored: list[object]
    ) -> Any:
        """The row; None if the query does nothing without one. Raises ScimTaken."""
        try:
            return await connection.fetchrow(
                query, self._client, resource.kind.value, storable(resource.id), *stored
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == "scim_user_name":
                raise ScimTaken("another user has this userName") from None
            raise

    async def _move(
        self, connection: asyncpg.Connection, group_id: str, add: Collection[str], remove: Collection[str]
    ) -> int:
        """How many came or went."""
        moved = 0
        if gone := set(remove).difference(add):
            moved += await connection.fetchval(QUERIES["scim_remove_members"], group_id, _ids(gone))
        if add:
            moved += await self._add(connection, group_id, add)
        return moved

    async def _add(self, connection: asyncpg.Connection, group_id: str, members: Collection[str]) -> int:
        added: int = await connection.fetchval(
            QUERIES["scim_add_members"], self._client, group_id, _ids(members)
        )
        return added

    async def _changed(self, connection: asyncpg.Connection) -> None:
        await connection.execute(QUERIES["scim_changed"], self._client)


@asynccontextmanager
async def open_scim_store(dsn: str, client: str, *, read_only: bool) -> AsyncIterator[PostgresScim]:
    """The directory of `client` in the database behind `dsn`. Raises StoreError, also if the schema is not
    there or is an older one: making it is the writer's."""
    async with pooled(dsn, name="aim scim", read_only=read_only) as pool:
        async with pool.use() as connection:
            if not await schema.is_ready(connection):
                raise nothing_pushed()
        teller = Teller(pool)
        try:
            yield PostgresScim(pool, client, dsn, teller)
        finally:
            await teller.close()


def nothing_pushed() -> StoreError:
    """For whoever asks for a directory before there was a database for it."""
    return StoreError(
        "nothing was pushed by SCIM yet: the database is empty", "start `aim run`, and let the client push"
    )


def _other_localparts(rows: Sequence[Any], localpart_of: LocalpartOf) -> dict[str, str | None]:
    """Id → localpart of those rows that have another one."""
    made = ((row, localpart_of(json.loads(row["document"]))) for row in rows)
    return {row["id"]: localpart for row, localpart in made if localpart != row["localpart"]}


def _by_id(resources: list[ScimResource]) -> list[ScimResource]:
    return sorted(resources, key=lambda resource: resource.id)


def _ids(ids: Collection[str]) -> list[str]:
    """Sorted, so that rows are locked in the same order by all."""
    return sorted({storable(id_) for id_ in ids})
