"""docs/entra-graph.md: its errors are those that the bridge gives, its recipes load."""

from __future__ import annotations

import re

import pytest
from ruamel.yaml import YAML

from aim.bridges.msgraph import faults
from aim.bridges.msgraph.settings import AUTHORITY, BASE_URL
from aim.config.sources import MsGraphSource
from tests.unit.documented import errors_in, page, pieces_of, recipes_in, unwritten

TEXT = page("entra-graph.md")
ERRORS = errors_in(TEXT)
RECIPES = recipes_in(TEXT, "    source:\n")


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_one_of_the_bridge(error: str) -> None:
    pieces = pieces_of(error)
    assert pieces
    assert unwritten(pieces, "aim/bridges/msgraph") == []


def test_there_are_errors_and_recipes() -> None:
    assert len(ERRORS) > 20
    assert len(RECIPES) == 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_well_formed(recipe: str) -> None:
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
