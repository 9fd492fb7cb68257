"""What every command prints, and with which code it ends: errors, the directory, the check, a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.e2e.kit import AIM, Json, Result, Stage, start_aim
from tests.e2e.organisation import SUFFIX

pytestmark = pytest.mark.e2e

NOWHERE = "http://127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A command that can't work, and what it says about that."""

    arguments: str
    cause: str
    """A regular expression."""
    remedy: str
    change: Mapping[str, Json] = field(default_factory=dict)
    """What is different in the configuration."""


MISTAKES = [
    # First, because it tries for some seconds.
    Mistake("plan", "no connection to the homeserver at", "is up", {"homeserver": {"url": NOWHERE}}),
    Mistake("plan -c nowhere.yaml", "nowhere.yaml: there is no such file", "--config"),
    Mistake(
        "plan", 'yaml:1: provisoner: unknown key; did you mean "provisioner"', "docs", {"provisoner": {}}
    ),
    Mistake("plan", "M_UNKNOWN_TOKEN", "registration", {"appservice": {"as_token": "another"}}),
    Mistake(
        "plan",
        "belongs to @.*:example.test, the configuration says @.*:example.org",
        "server_name",
        {"homeserver": {"server_name": "example.org"}},
    ),
    Mistake("plan", "says @other:", "sender_localpart", {"appservice": {"sender_localpart": "other"}}),
    Mistake(
        "apply --yes", "can't be reached", "Postgres", {"database": {"url": "postgresql://a@127.0.0.1:1/a"}}
    ),
    Mistake("directory", "nowhere.ldif can't be read", "source.path", {"source": {"path": "nowhere.ldif"}}),
    Mistake("apply", "no terminal", "--yes"),
    Mistake("apply --plan nowhere.json", "nowhere.json can't be read", "--out"),
    Mistake("plan --out nowhere/plan.json", "nowhere/plan.json can't be written", "--out"),
    Mistake("plan --detailed-exitcod", "No such option", "--help"),
    Mistake("approve", "Missing argument", "--help"),
    Mistake("aply", "No such command", "--help"),
]


async def test_every_mistake_is_a_line_of_cause_and_a_line_of_remedy(stage: Stage) -> None:
    limit = asyncio.Semaphore(4)

    async def check(number: int, mistake: Mistake) -> None:
        config = {**stage.config}
        for section, change in mistake.change.items():
            config[section] = {**config.get(section, {}), **change}
        file = stage.directory / f"mistake-{number}.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        secrets = [*stage.secrets, config["appservice"]["as_token"]]
        async with limit:
            result = await (await start_aim(file, secrets, mistake.arguments.split(), {})).end()
        if result.out:
            # The plan was shown before nobody could be asked about it.
            assert mistake.arguments == "apply"
        cause, remedy = result.error()
        assert re.search(mistake.cause, cause), (mistake, cause)
        assert mistake.remedy in remedy, (mistake, remedy)

    async with asyncio.TaskGroup() as group:
        for number, mistake in enumerate(MISTAKES):
            group.create_task(check(number, mistake))
    assert stage.proxy.writes == []


async def test_approve_and_rebind_say_when_there_is_nothing_like_that(stage: Stage) -> None:
    for result in await asyncio.gather(
        stage.aim("approve", "sha256:0123456789ab"), stage.aim("rebind", stage.mxid("ada"), "an-id")
    ):
        assert "nothing to decide on yet" in result.error()[0]
        assert "aim apply" in result.error()[1]
    await stage.provision()
    digest = (await stage.plan())["digest"]

    other, nothing, nobody = await asyncio.gather(
        stage.aim("approve", f"sha256:{'0' * 64}"),
        stage.aim("approve", digest),
        stage.aim("rebind", stage.mxid("ada"), stage.mxid("ben")),
    )

    assert f"the plan's digest is {digest}" in other.error()[0]
    assert "holds nothing" in nothing.error()[0]
    assert "not the two sides of a change" in nobody.error()[0]


async def test_the_directory_as_the_bridge_sees_it(stage: Stage) -> None:
    plain, as_json = await asyncio.gather(stage.aim("directory"), stage.aim("directory", "--json"))

    assert (plain.code, plain.err, as_json.code, as_json.err) == (0, "", 0, "")
    assert stage.proxy.requests == [], "the homeserver is not asked"
    for uid in stage.organisation.people:
        assert uid in plain.out
    document = as_json.json
    assert set(document) == {"users", "groups", "problems"}
    ada = stage.organisation.people["ada"]
    users = {user["uid"]: user for user in document["users"]}
    assert users["ada"] == {
        "id": ada.id,
        "uid": "ada",
        "localpart": "ada",
        "display_name": "Ada",
        "emails": [],
        "active": True,
        "dn": ada.dn,
    }
    groups = {group["id"]: group for group in document["groups"]}
    assert groups[f"ou=engineering,{SUFFIX}"] == {
        "id": f"ou=engineering,{SUFFIX}",
        "kind": "ou",
        "name": "engineering",
        "members": ["ada", "bela", "cleo", "emil", "fina"],
    }
    assert groups[f"cn=leads,{SUFFIX}"]["kind"] == "group"
    assert groups[SUFFIX]["kind"] == "domain"


async def test_the_check_finds_everything_in_place(stage: Stage) -> None:
    result = await stage.aim("check")

    assert (result.code, result.err) == (0, "")
    assert {line.split()[0] for line in result.out.splitlines()} == {"ok"}
    for question in ("config", "source", "homeserver", "as_token", "acting", "accounts", "registration"):
        assert f"ok    {question}" in result.out, question
    assert stage.proxy.writes == []


# -- at a terminal ---------------------------------------------------------------------------------------


async def _at_a_terminal(stage: Stage, arguments: str, *typed: str, colour: bool = True) -> Result:
    """Runs a command at a terminal, with all that it prints as `out`, and answers its questions."""
    ours, its = pty.openpty()
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environ |= {"AIM_CONFIG": str(stage.config_file), "TERM": "xterm-256color"}
    if not colour:
        environ["NO_COLOR"] = "1"
    process = await asyncio.create_subprocess_exec(
        *AIM, *arguments.split(), env=environ, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    if typed:
        os.write(ours, "".join(f"{line}\n" for line in typed).encode())
    out = await asyncio.to_thread(_read_all, ours)
    os.close(ours)
    return Result(await process.wait(), out, "")


def _read_all(terminal: int) -> str:
    said = b""
    while True:
        try:
            more = os.read(terminal, 65536)
        except OSError:
            # How Linux says that nobody has the other side open any more.
            more = b""
        if not more:
            return said.decode()
        said += more


async def test_a_terminal_is_asked_and_has_colours_unless_told_otherwise(stage: Stage) -> None:
    await stage.register_everybody()

    coloured, plain = await asyncio.gather(
        _at_a_terminal(stage, "plan"), _at_a_terminal(stage, "plan", colour=False)
    )
    declined = await _at_a_terminal(stage, "apply", "n")

    colours = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert (coloured.code, plain.code) == (0, 0)
    assert colours.search(coloured.out)
    assert not colours.search(plain.out)
    assert declined.code == 0
    assert "nothing was changed" in declined.out
    assert stage.proxy.writes == []

    agreed = await _at_a_terminal(stage, "apply", "y")

    assert agreed.code == 0, agreed
    assert re.search(r"Carry out these \d+ actions", agreed.out)
    await stage.assert_follows()
