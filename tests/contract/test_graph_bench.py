"""The benchmark of Microsoft Graph at a toy size: it counts what it says, and tells what is reached."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from bench.graph import ANEW, FIRST, TEN, TOY, UNCHANGED, Look, Measured, graph_tables, measure_graph


async def test_a_tenant_is_followed() -> None:
    # It starts a loop of its own, as nobody runs it from within one.
    found = await asyncio.to_thread(measure_graph, small=True)
    first, unchanged = found.looks[FIRST], found.looks[UNCHANGED]
    assert found.tenant == TOY
    assert first.requests["users/delta"] + first.requests["groups/delta"] + 1 == first.of_graph == found.least
    assert unchanged.requests == {"users/delta": 1, "groups/delta": 1}
    assert found.looks[TEN].total == 2
    assert all(
        look.processor > 0 and look.seconds > 0 and look.megabytes > 10 for look in found.looks.values()
    )


def look(requests: int) -> Look:
    return Look({"users/delta": requests, "token": 3}, 1.0, 0.5, 0.01, 100.0)


def test_it_tells_what_is_reached() -> None:
    found = Measured(
        TOY, 100, {FIRST: look(105), ANEW: look(106), UNCHANGED: look(2), TEN: replace(look(5), seconds=2)}
    )
    looks, reached = graph_tables(found)
    assert [row[1] for row in looks.rows] == ["108", "109", "5", "8"]
    assert [row[1:] for row in reached.rows] == [
        ("105", "105", "yes"),
        ("106", "105", "NO"),
        ("2", "2", "yes"),
        ("5", "4", "NO"),
    ]
