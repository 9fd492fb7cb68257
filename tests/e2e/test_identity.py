"""Journey: somebody has a new id, somebody a new user name. Only a person can tell who is who."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Stage, actions
from tests.e2e.organisation import PLATFORM

pytestmark = pytest.mark.e2e


async def test_nobody_is_touched_until_rebind_says_who_they_are(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    before = stage.organisation
    await stage.homeserver.register("hana.berg")
    # Both move too: that is what must not be done yet.
    changed = before.replaced("ivan").moved("ivan", PLATFORM).moved("hana", "engineering")
    stage.give(changed.renamed("hana", "hana.berg"))
    stage.proxy.forget()

    plan = await stage.plan()
    await stage.apply()

    assert plan["actions"] == []
    problems = {problem["subject"]: problem["message"] for problem in plan["problems"]}
    assert set(problems) == stage.mxids("ivan", "hana.berg")
    old, new = before.people["ivan"].id, changed.people["ivan"].id
    assert f"aim rebind {old} {new}" in problems[stage.mxid("ivan")]
    names = stage.mxid("hana"), stage.mxid("hana.berg")
    assert f"aim rebind {names[0]} {names[1]}" in problems[stage.mxid("hana.berg")]
    assert stage.proxy.writes == []
    await stage.assert_follows(before)

    assert (await stage.aim("rebind", old, new)).code == 0
    assert (await stage.aim("rebind", *names)).code == 0
    found = actions(await stage.plan())
    await stage.apply()

    assert ("invite", "platform", stage.mxid("ivan")) in found
    assert {("kick", "company", names[0]), ("invite", "company", names[1])} <= set(found)
    await stage.assert_follows()
    assert (await stage.plan())["problems"] == []
