"""The benchmark of SCIM at a toy size: both servers are filled, asked everything, their answers checked."""

from __future__ import annotations

import asyncio

from bench.scim import CLIENTS, TOY, measure_scim, scim_tables
from bench.scim_operations import Operation
from bench.scim_servers import Which


async def test_everything_is_asked_of_both() -> None:
    # It starts a loop of its own, as nobody runs it from within one.
    found = await asyncio.to_thread(measure_scim, small=True)

    assert list(found.asked) == list(Operation)
    for turns in found.asked.values():
        assert {which: [len(one.run.seconds) for one in asked] for which, asked in turns.items()} == {
            Which.OURS: [CLIENTS],
            Which.REFERENCE: [CLIENTS],
        }
    assert all(found.times(operation) > 0 for operation in Operation)
    assert all(megabytes > 10 for both in found.memory.values() for megabytes in both)
    assert found.sizes == TOY
    assert len(list(scim_tables(found))) == 2
