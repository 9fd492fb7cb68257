"""Many things at once, and what is not broken off."""

from __future__ import annotations

import asyncio

import pytest

from aim.errors import StoreError
from aim.matrix.parallel import each, to_the_end


async def test_the_first_error_cancels_the_others_and_waits_for_what_goes_to_its_end() -> None:
    begun, done = asyncio.Event(), list[str]()

    async def record() -> None:
        begun.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.append("recorded")

    async def work(item: str) -> None:
        if item == "fails":
            await begun.wait()
            raise StoreError("no")
        await to_the_end(record())
        done.append("went on")

    with pytest.raises(StoreError):
        await each(work, ["records", "fails", "never begun"], 2)
    assert done == ["recorded"]


async def test_who_is_not_cancelled_gets_the_result_or_the_error() -> None:
    async def work(result: int) -> int:
        await asyncio.sleep(0)
        if not result:
            raise StoreError("nothing")
        return result

    assert await to_the_end(work(7)) == 7
    with pytest.raises(StoreError):
        await to_the_end(work(0))


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_ends_as_cancelled_after_the_work(*, fails: bool) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    done = list[str]()

    async def work() -> None:
        begun.set()
        await go.wait()
        done.append("done")
        if fails:
            raise StoreError("no")

    task = asyncio.create_task(to_the_end(work()))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["done"]


async def test_whoever_insists_does_not_wait() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go.wait()

    task = asyncio.create_task(to_the_end(work()))
    await begun.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert task.cancelled()
    go.set()
