"""docs/scim.md and those of the providers: the errors are those that the service gives, the recipe loads."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from scim2_models import Path as ScimPath

from aim.bridges.scim.core import (
    LARGEST_PAGE,
    LONGEST_PATH,
    LONGEST_SEARCH,
    MOST_CHANGES,
    MOST_OPERATIONS,
    MOST_VALUES,
    PAGE,
)
from aim.bridges.scim.endpoints import SMALL
from aim.bridges.scim.filters import MOST_PARTS
from aim.bridges.scim.patching import MOST_SELECTIONS
from aim.bridges.scim.resources import USER_MODEL
from aim.bridges.scim.server import BODY_WITHIN, LARGEST
from aim.bridges.scim.storage import MOST_MEMBERS, MOST_SCANNED
from aim.config.sources import ScimSource

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "scim.md").read_text(encoding="utf-8")
ROWS = re.findall(r"(?m)^\| (`.+`) \| [1-5]", TEXT.partition("## Errors")[2])
ERRORS = [error for row in ROWS for error in re.findall(r"`([^`]+)`", row)]


def texts() -> list[str]:
    """Every piece of text that the service, its wiring and its store write."""
    paths = sorted(chain(*map((ROOT / "aim").glob, ("bridges/scim/*.py", "scim.py", "store/scim*.py"))))
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_one_of_the_service(error: str) -> None:
    pieces = [piece for part in error.split("…") if (piece := part.strip())]
    written = texts()
    assert pieces
    assert [piece for piece in pieces if not any(piece in text for text in written)] == []


def test_there_are_errors() -> None:
    assert len(ERRORS) > 20


def test_the_recipe_is_well_formed() -> None:
    (recipe,) = [
        block for block in re.findall(r"(?m)(?:^    .*\n)+", TEXT) if block.startswith("    source:\n")
    ]
    source = YAML(typ="safe", pure=True).load(recipe)["source"]
    (grant,) = source["client"]["rbac"]
    assert grant.pop("token_file")
    grant["token"] = "a" * 32
    loaded = ScimSource.model_validate(source)
    assert loaded.base_url in TEXT.partition("location ")[2]
    assert str(loaded.port) in TEXT.partition("proxy_pass ")[2]


def test_the_limits_are_those_that_hold() -> None:
    limits = TEXT.partition("## Limits")[2].partition("\n## ")[0].replace(",", "")
    assert LARGEST == 2 * 1024 * 1024
    for limit in (
        "2 MB",
        f"{BODY_WITHIN:g} seconds",
        f"{MOST_OPERATIONS} operations",
        f"{LARGEST_PAGE} resources ({PAGE} if",
        f"{MOST_MEMBERS} members",
        f"{MOST_VALUES} values",
        f"{MOST_CHANGES} operations",
        f"{LONGEST_PATH} characters",
        f"{MOST_SELECTIONS} of its operations",
        f"{LONGEST_SEARCH} characters",
        f"{MOST_SCANNED} resources",
        f"{MOST_PARTS} comparisons",
        f"{SMALL} members",
    ):
        assert limit in " ".join(limits.split())


@pytest.mark.parametrize("provider", ["entra", "okta"])
def test_every_attribute_of_the_mappings_is_known(provider: str) -> None:
    mappings = (ROOT / "docs" / f"scim-{provider}.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"(?m)^\| .+ \| (.+) \| .+ \|$", mappings.partition("## Mappings")[2].partition("## ")[0]
    )
    paths = {path for cell in rows for path in re.findall(r"`([^`]+)`", cell)} - {"members"}
    assert {"userName", "active", "displayName", "externalId"} <= paths
    for path in paths:
        # That it is kept is no promise that a localpart can be made from the whole of it.
        assert ScimPath[USER_MODEL](path).resolve() is not None
