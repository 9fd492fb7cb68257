"""The store: what we remember, in Postgres. Implements the ports RecordedReader, Recorder, MirrorStore,
AccountStore, LetterStore, ScimStore and GraphStore.

    wiring ─► recorded, decisions, recorder ─► mirror, accounts, letters ─► schema, lock, connection
       │                                └────► forgetting ─► pseudonyms              └─► queries (*.sql)
       ├────► embedded ─► binaries
       ├────► scim ─► scim_pages ─► scim_filters ─► scim_rows; pool
       └────► graph ─► pool

The reader can't write; the recorder exists only for the holder of the writer's lock; decisions of a person
(`aim approve`, `aim rebind`, `aim queue`) are written beside it, and so is what SCIM clients push.
"""

from aim.store.decisions import DecisionStore
from aim.store.embedded import embedded
from aim.store.graph import PostgresGraph
from aim.store.mirror import PostgresMirror
from aim.store.recorded import RecordedStore
from aim.store.recorder import RecorderStore
from aim.store.scim import PostgresScim
from aim.store.scim_forgetting import forget_scim
from aim.store.wiring import (
    open_accounts,
    open_audit,
    open_decisions,
    open_graph,
    open_mirror,
    open_reader,
    open_scim,
    open_writer,
)

__all__ = [
    "DecisionStore",
    "PostgresGraph",
    "PostgresMirror",
    "PostgresScim",
    "RecordedStore",
    "RecorderStore",
    "embedded",
    "forget_scim",
    "open_accounts",
    "open_audit",
    "open_decisions",
    "open_graph",
    "open_mirror",
    "open_reader",
    "open_scim",
    "open_writer",
]
