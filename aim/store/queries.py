"""The SQL files as Python sees them: named queries, and the numbered migrations.

Below everything else in the store. In come the files under `sql/`, out go their texts; it never talks to a
database. A query file is a sequence of blocks, each opened by a line `-- name: <name>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_(\w+)\.sql")
_SQL = files("aim.store") / "sql"


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    """One step of the schema, from version `version - 1` to `version`."""

    version: int
    name: str
    sql: str


def parse(text: str) -> Mapping[str, str]:
    """Name → text of each query block. ValueError if two blocks share a name."""
    _, *parts = _NAME.split(text)
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError("two queries share a name")
    return MappingProxyType({name: body.strip() for name, body in zip(names, bodies, strict=True)})


def _migrations() -> tuple[Migration, ...]:
    return tuple(
        sorted(
            Migration(int(match[1]), match[2], file.read_text("utf-8"))
            for file in (_SQL / "migrations").iterdir()
            if (match := _MIGRATION.fullmatch(file.name))
        )
    )


def _queries() -> Mapping[str, str]:
    found = (file for file in _SQL.iterdir() if file.name.endswith(".sql"))
    # As one text, so that a name is taken once over all of them.
    return parse("\n".join(file.read_text("utf-8") for file in sorted(found, key=lambda file: file.name)))


QUERIES = _queries()
"""Name → SQL of every query of the store, from all files under `sql/`."""
MIGRATIONS = _migrations()
"""All steps, oldest first; the version of the last one is the one that this program knows."""
