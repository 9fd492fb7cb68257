"""Journey: a plan is saved, looked at, and applied: exactly that one, or nothing."""

from __future__ import annotations

import json

import pytest

from tests.e2e.kit import Stage, actions

pytestmark = pytest.mark.e2e


async def test_a_saved_plan_is_done_exactly_or_not_at_all(stage: Stage) -> None:
    await stage.register_everybody()
    file = stage.directory / "plan.json"
    as_saved = stage.organisation

    saved = await stage.aim("plan", "--out", str(file))
    stage.give(as_saved.left("mira"))
    stage.proxy.forget()
    stale = await stage.aim("apply", "--plan", str(file), "--yes")

    assert saved.code == 0
    assert "the world has moved on" in stale.error()[0]
    assert "aim plan --out" in stale.error()[1]
    assert stage.proxy.writes == []
    assert await stage.all_rooms() == []

    stage.give(as_saved)
    edited = stage.directory / "edited.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    edited.write_text(json.dumps(document | {"actions": document["actions"][1:]}), encoding="utf-8")
    refused = await stage.aim("apply", "--plan", str(edited), "--yes")

    assert "was changed after it was made" in refused.error()[0]
    assert stage.proxy.writes == []

    fresh = await stage.aim("apply", "--plan", str(file), "--yes")

    assert (fresh.code, fresh.err) == (0, "")
    assert not any(secret in json.dumps(document) for secret in stage.secrets)
    done = await stage.fetch("select type, room, target, status from aim.outcomes")
    assert {(row["type"], row["room"], row["target"]) for row in done} == set(actions(document))
    assert {row["status"] for row in done} == {"done"}
    await stage.assert_follows()
