"""The SQL files: every query is named once and used, every migration has the next number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import aim.store
from aim.store.queries import MIGRATIONS, QUERIES, parse


def test_queries_are_told_apart_by_their_names() -> None:
    parsed = parse("-- heading\n\n-- name: one\n-- Why.\nselect 1;\n\n-- name: two\nselect 2;\n")
    assert dict(parsed) == {"one": "-- Why.\nselect 1;", "two": "select 2;"}


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="share a name"):
        parse("-- name: one\nselect 1;\n-- name: one\nselect 2;\n")


def test_every_query_is_used_and_every_use_has_its_query() -> None:
    sources = [file.read_text() for file in Path(str(aim.store.__file__)).parent.glob("*.py")]
    used = set(re.findall(r'QUERIES\[\s*"(\w+)"\s*\]', "".join(sources)))
    assert used == set(QUERIES)


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [step.version for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
