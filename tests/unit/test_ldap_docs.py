"""docs/ldap.md: its errors are those that the bridge gives, its recipes load, its lists are complete."""

from __future__ import annotations

import re

import pytest
from ruamel.yaml import YAML

from aim.config.keys import shown
from aim.config.sources import LdapAttributes, LdapSource
from aim.directory.entries import Rules
from tests.unit.documented import errors_in, page, pieces_of, recipes_in, unwritten

TEXT = page("ldap.md")
ERRORS = errors_in(TEXT)
RECIPES = recipes_in(TEXT, "    source:\n      type: ldap\n")


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_one_of_the_bridge(error: str) -> None:
    pieces = pieces_of(error)
    assert pieces
    assert unwritten(pieces, "aim/bridges/ldap") == []


def test_there_are_errors_and_recipes() -> None:
    assert len(ERRORS) > 20
    assert len(RECIPES) == 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_well_formed(recipe: str) -> None:
    source = YAML(typ="safe", pure=True).load(recipe)["source"]
    assert source.pop("bind_password_file")
    loaded = LdapSource.model_validate({**source, "bind_password": "secret"})
    assert all(uri.startswith("ldaps://") for uri in loaded.uri)


def test_every_option_is_there() -> None:
    table = TEXT.partition("## Options")[2].partition("\n## ")[0]
    given = set(re.findall(r"`(source\.[a-z_.]+)`", table))
    keys = {f"source.{shown(name)}" for name in LdapSource.model_fields} - {
        "source.type",
        "source.attributes",
    }
    keys |= {f"source.attributes.{shown(name)}" for name in LdapAttributes.model_fields}
    assert given == keys


def test_every_attribute_that_is_read_is_there() -> None:
    paragraph = TEXT.partition("Attributes that are asked for:")[2].partition("\n\n")[0]
    named = {name.lower() for name in re.findall(r"`([A-Za-z]+)`", paragraph)} - {"attributes"}
    assert named == set(Rules(uid=(), name=(), mail=()).attributes)
