"""`aim scim token new`: what it prints lets somebody in. `aim scim ready`: asks before it says so.
`aim plan`: warns of localparts that are not up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from aim import errands
from aim.cli import commands
from aim.cli.main import app
from aim.config.sources import ScimGrant
from aim.errors import AimError
from aim.ports.scim import ScimGrowth
from tests.unit.worlds import a_config


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


def test_ready_without_a_terminal_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bool] = []

    async def growth(_: object) -> ScimGrowth:
        return ScimGrowth(users=2, active=1, groups=0, memberships=0, last_write=None, ready_since=None)

    async def set_ready(_: object, *, ready: bool) -> None:
        said.append(ready)

    monkeypatch.setattr(commands, "load", lambda _: None)
    monkeypatch.setattr(errands, "scim_growth", growth)
    monkeypatch.setattr(errands, "set_scim_ready", set_ready)
    found = CliRunner().invoke(app, ["scim", "ready"])
    assert isinstance(found.exception, AimError)
    assert (found.exception.message, found.exception.remedy) == (
        "there is no terminal to ask on",
        "add --yes",
    )
    assert said == []
    assert CliRunner().invoke(app, ["scim", "ready", "--yes"]).exit_code == 0
    assert said == [True]


@pytest.mark.parametrize("warning", [None, "localparts are still made from userName"])
async def test_plan_says_what_is_not_applied_yet(
    warning: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Observer:
        async def plan(self) -> str:
            return "the plan"

    @asynccontextmanager
    async def observing(*_: object, fresh: bool) -> AsyncIterator[Observer]:
        yield Observer()

    async def unapplied(_: object) -> str | None:
        return warning

    monkeypatch.setattr("aim.app.observing", observing)
    monkeypatch.setattr(commands, "unapplied", unapplied)
    assert await commands._plan(a_config()) == "the plan"  # type: ignore[comparison-overlap]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert (warning in shown.err) if warning else ("warning" not in shown.err)
