"""`aim scim token new`: what it prints lets somebody in."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from aim.cli.main import app
from aim.config.sources import ScimGrant
from aim.errors import AimError


@pytest.mark.parametrize("roles", [[], ["*:*"], ["read:users", "write:groups"]])
def test_its_line_is_a_grant_of_the_configuration(roles: list[str]) -> None:
    words = [word for role in roles for word in ("--roles", role)]
    found = CliRunner().invoke(app, ["scim", "token", "new", *words])
    assert found.exit_code == 0
    [printed] = YAML(typ="safe", pure=True).load(found.output.partition("\n")[2])
    assert list(ScimGrant.model_validate(printed).roles) == (roles or ["*:*"])


@pytest.mark.parametrize("role", ["", "read", "read:user", "Read:Users", "*:*,read:users"])
def test_what_is_no_role_is_refused(role: str) -> None:
    found = CliRunner().invoke(app, ["scim", "token", "new", "--roles", "*:*", "--roles", role])
    assert isinstance(found.exception, AimError)
    assert "write:groups" in found.exception.remedy
    assert "token:" not in found.output
