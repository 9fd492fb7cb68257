"""docs/entra-graph.md: its errors are those that the bridge gives, its recipes load."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from aim.bridges.msgraph import faults
from aim.bridges.msgraph.settings import AUTHORITY, BASE_URL
from aim.config.sources import MsGraphSource

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "entra-graph.md").read_text(encoding="utf-8")
ERRORS = re.findall(r"(?m)^\| `([^`]+)` \|", TEXT.partition("## Errors")[2])
RECIPES = [block for block in re.findall(r"(?m)(?:^    .*\n)+", TEXT) if block.startswith("    source:\n")]


def texts() -> list[str]:
    """Every piece of text that the modules of the bridge write."""
    paths = sorted((ROOT / "aim" / "bridges" / "msgraph").glob("*.py"))
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_one_of_the_bridge(error: str) -> None:
    pieces = [piece for part in error.split("…") if (piece := part.strip())]
    written = texts()
    assert pieces
    assert [piece for piece in pieces if not any(piece in text for text in written)] == []


def test_there_are_errors_and_recipes() -> None:
    assert len(ERRORS) > 20
    assert len(RECIPES) == 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_well_formed(recipe: str, tmp_path: Path) -> None:
    source = YAML(typ="safe", pure=True).load(recipe)["source"]
    if source.pop("client_secret_file", None):
        source["client_secret"] = "secret"
    loaded = MsGraphSource.model_validate(source)
    assert loaded.type == "ms-graph-ad"


def test_the_least_permissions_are_those_that_errors_name() -> None:
    table = TEXT.partition("## What the app may do")[2].partition("\nThat is all")[0]
    assert re.findall(r"(?m)^\| `([^`]+)`", table) == [faults.USERS[0], faults.GROUPS[0]]


def test_the_worldwide_cloud_is_the_default() -> None:
    assert f"| worldwide | `{AUTHORITY}` | `{BASE_URL}` |" in TEXT
    defaults = MsGraphSource.model_fields
    assert (defaults["authority"].default, defaults["base_url"].default) == (AUTHORITY, BASE_URL)
