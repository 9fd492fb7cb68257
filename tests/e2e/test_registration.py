"""Journey: a homeserver gets the registrations that `aim registration` writes, and lets the bot work."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.e2e.conftest import NewStage
from tests.e2e.kit import Result, start_aim
from tests.servers.synapse import SERVER_NAME, Appservice, NewSynapse, make_appservice

pytestmark = pytest.mark.e2e


async def _registration(folder: Path, appservice: Appservice, *arguments: str) -> Result:
    """`aim registration` with nothing there but a configuration."""
    tokens = {"as_token": appservice.as_token, "hs_token": appservice.hs_token}
    if appservice.actor_token != appservice.as_token:
        tokens["actor_token"] = appservice.actor_token
    config = folder / "config.yaml"
    document = {
        "homeserver": {"url": "http://127.0.0.1:1", "server_name": SERVER_NAME},
        "appservice": tokens,
        "source": {"type": "ldif", "path": "directory.ldif"},
    }
    config.write_text(json.dumps(document), encoding="utf-8")
    command = await start_aim(
        config, list(tokens.values()), ["registration", "--out", str(folder), *arguments], {}
    )
    return await command.end()


@pytest.mark.parametrize("single", [False, True])
async def test_a_homeserver_with_our_registrations_lets_us_work(
    tmp_path: Path, new_synapse: NewSynapse, new_stage: NewStage, single: bool
) -> None:
    appservice = make_appservice()
    if single:
        appservice = Appservice(
            id="aim",
            sender_localpart="aim",
            as_token=appservice.as_token,
            hs_token=appservice.hs_token,
            actor_token=appservice.as_token,
        )
    names = ["aim.yaml"] if single else ["aim-listener.yaml", "aim-actor.yaml"]
    arguments = ["--single"] if single else []

    written = await _registration(tmp_path, appservice, *arguments)
    again = await _registration(tmp_path, appservice, *arguments)

    assert (written.code, written.err) == (0, "")
    files = [tmp_path / name for name in names]
    assert {path.name for path in tmp_path.iterdir()} == {*names, "config.yaml"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert "exists already" in again.error()[0]

    stage = await new_stage(homeserver=await new_synapse(appservice=appservice, registrations=files))
    if single:
        del stage.config["appservice"]["actor_token"]
        stage.configure()
    await stage.provision()
    await stage.assert_follows()


async def test_two_registrations_need_two_tokens(tmp_path: Path) -> None:
    token = make_appservice()
    one = Appservice(
        id="aim",
        sender_localpart="aim",
        as_token=token.as_token,
        hs_token=token.hs_token,
        actor_token=token.as_token,
    )

    cause, remedy = (await _registration(tmp_path, one)).error()

    assert "actor_token is not set" in cause
    assert "--single" in remedy
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
