"""Opens the store by configuration: `database.url` if given, else the embedded Postgres under `data_dir`.

The top of the store, for `app` to call. Out go the ports' implementations, good inside their contexts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aim.ports import AccountStore, AuditReader, MirrorStore, RecordedReader
from aim.store.accounts import open_stored_accounts
from aim.store.audit import NothingAudited, open_audit_store
from aim.store.decisions import DecisionStore, nothing_to_decide, open_decision_store
from aim.store.embedded import embedded
from aim.store.graph import PostgresGraph, open_graph_store
from aim.store.mirror import open_live_mirror
from aim.store.recorded import NothingRecorded, open_recorded
from aim.store.recorder import RecorderStore, open_recorder
from aim.store.scim import PostgresScim, nothing_pushed, open_scim_store


@asynccontextmanager
async def open_reader(database_url: str | None, data_dir: Path) -> AsyncIterator[RecordedReader]:
    """What we remember, to read. Makes no database and no file where there are none. Raises StoreError."""
    async with _dsn(database_url, data_dir, create=False) as dsn:
        if dsn is None:
            yield NothingRecorded()
            return
        async with open_recorded(dsn) as reader:
            yield reader


@asynccontextmanager
async def open_audit(database_url: str | None, data_dir: Path) -> AsyncIterator[AuditReader]:
    """What became of earlier actions, to read. Makes no database where there is none. Raises StoreError."""
    async with _dsn(database_url, data_dir, create=False) as dsn:
        if dsn is None:
            yield NothingAudited()
            return
        async with open_audit_store(dsn) as reader:
            yield reader


@asynccontextmanager
async def open_mirror(database_url: str | None, data_dir: Path) -> AsyncIterator[MirrorStore | None]:
    """The mirror that a running daemon keeps, to read; None if none runs. Raises StoreError."""
    async with _dsn(database_url, data_dir, create=False) as dsn:
        if dsn is None:
            yield None
            return
        async with open_live_mirror(dsn) as store:
            yield store


@asynccontextmanager
async def open_accounts(database_url: str | None, data_dir: Path) -> AsyncIterator[AccountStore | None]:
    """Accounts as they were last read, to load only; None if nothing was ever recorded. Raises StoreError."""
    async with _dsn(database_url, data_dir, create=False) as dsn:
        if dsn is None:
            yield None
            return
        async with open_stored_accounts(dsn) as store:
            yield store


@asynccontextmanager
async def open_writer(
    database_url: str | None, data_dir: Path, *, name: str = "aim", wait: bool = False
) -> AsyncIterator[RecorderStore]:
    """What we remember, to read and write, for as long as we are the one writer; migrated. The port
    MirrorStore is its `mirror`, AccountStore its `accounts`, LetterStore its `letters`.

    `name` is the command (`aim run`), told to others who want to write. Raises StoreBusy if there is another
    writer, unless told to `wait` until it leaves; raises StoreError.
    """
    async with _dsn(database_url, data_dir, create=True) as dsn:
        assert dsn is not None, "create=True makes what is missing"
        async with open_recorder(dsn, name=name, wait=wait) as recorder:
            yield recorder


@asynccontextmanager
async def open_decisions(database_url: str | None, data_dir: Path) -> AsyncIterator[DecisionStore]:
    """What we remember, to read, and to write a person's decisions beside a running writer.

    Raises StoreError, also if nothing was ever written.
    """
    async with _dsn(database_url, data_dir, create=False) as dsn:
        if dsn is None:
            raise nothing_to_decide()
        async with open_decision_store(dsn) as decisions:
            yield decisions


@asynccontextmanager
async def open_scim(
    database_url: str | None, data_dir: Path, client: str, *, read_only: bool = False
) -> AsyncIterator[PostgresScim]:
    """The directory that the SCIM client with that `client.id` pushes: the port ScimStore, and `watch`.

    It has a few connections of its own, for many requests at once, and needs no writer's lock: whoever serves
    SCIM writes. Two that serve at once do no harm, as `aim.store.scim` says. What migrates is the writer: it
    is opened first, and one that served an older schema meanwhile has to be started again. Raises StoreError,
    also if there is no database yet.
    """
    async with _dsn(database_url, data_dir, create=False) as dsn:
        if dsn is None:
            raise nothing_pushed()
        async with open_scim_store(dsn, client, read_only=read_only) as store:
            yield store


@asynccontextmanager
async def open_graph(
    database_url: str | None, data_dir: Path, key: str, *, read_only: bool
) -> AsyncIterator[PostgresGraph | None]:
    """What Microsoft Graph told, read in the way that `key` stands for: the port GraphReader, and for the one
    writer, who is opened first, GraphStore. None if nothing was ever recorded. Raises StoreError."""
    async with _dsn(database_url, data_dir, create=False) as dsn:
        if dsn is None:
            yield None
            return
        async with open_graph_store(dsn, key, read_only=read_only) as store:
            yield store


@asynccontextmanager
async def _dsn(database_url: str | None, data_dir: Path, *, create: bool) -> AsyncIterator[str | None]:
    if database_url is not None:
        yield database_url
        return
    async with embedded(data_dir, create=create) as dsn:
        yield dsn
