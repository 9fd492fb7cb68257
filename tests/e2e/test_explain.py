"""`aim explain` after a few cycles: one person, one room, both; as text and as JSON."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.e2e.kit import Stage

pytestmark = pytest.mark.e2e

MINUTE = r"\d{4}-\d\d-\d\dT\d\d:\d\dZ"


async def test_why_somebody_is_there_or_not(stage: Stage) -> None:
    ada, bela, emil = map(stage.mxid, ("ada", "bela", "emil"))
    before = await stage.aim("explain", ada, "engineering")
    assert (before.code, before.err) == (0, "")
    assert "is not in Engineering (engineering), and should be" in before.out
    assert "nothing is recorded yet" in before.out

    await stage.provision()
    await stage.join_all()
    await stage.homeserver.client("bela").leave((await stage.rooms())["engineering"].room_id)
    stage.give(stage.organisation.moved("emil", "sales"))
    await stage.apply()
    writes = len(stage.proxy.writes)

    both, person, room, moved = await asyncio.gather(
        stage.aim("explain", "engineering", ada),
        stage.aim("explain", "--user", "bela"),
        stage.aim("explain", "Engineering"),
        stage.aim("explain", emil, "engineering", "--json"),
    )

    assert {result.code for result in (both, person, room, moved)} == {0}
    lines = both.out.splitlines()
    assert lines[0] == f"{ada} is in Engineering (engineering), level 50"
    assert any(re.fullmatch(rf"  since +{MINUTE}", line) for line in lines)
    assert any(re.fullmatch(rf"  last +\w+ done at {MINUTE} \(.*engineering.*\)", line) for line in lines)
    assert person.out.startswith(f"{bela} is in 3 of 4 spaces and rooms of theirs\n")
    assert re.search(rf"(?m)^engineering +left .*left by themselves at {MINUTE}: asked again at", person.out)
    assert room.out.startswith("Engineering (engineering) is a space, managed: ")
    assert re.search(rf"(?m)^{re.escape(bela)} +left ", room.out)
    assert ada not in room.out, "nothing differs about ada"
    [standing] = moved.json["standings"]
    assert (standing["membership"], standing["entitled"], standing["next"]) == (None, False, [])
    assert (standing["last"]["type"], standing["last"]["status"]) == ("kick", "done")
    assert len(stage.proxy.writes) == writes, "nothing is changed"


async def test_what_is_not_known_is_an_error_with_a_near_miss(stage: Stage) -> None:
    wrong = [
        ("explain", "@adda:example.test"),
        ("explain", "enginering"),
        ("explain",),
        ("explain", "a", "b"),
    ]
    nobody, nowhere, nothing, two = await asyncio.gather(*(stage.aim(*words) for words in wrong))

    assert stage.mxid("ada") in nobody.error()[1]
    assert "engineering" in nowhere.error()[1]
    for result in (nothing, two):
        assert "aim explain @evan:example.com engineering" in result.error()[1]
    assert stage.proxy.writes == []
