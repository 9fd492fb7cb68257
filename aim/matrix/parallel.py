"""Does one thing to many items, a few at a time; and what must not be broken off to its end. Knows nothing of
what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

Progress = Callable[[int, int], None]
"""Told (done, total) after each item."""

Item = TypeVar("Item")
Result = TypeVar("Result")


async def each(
    work: Callable[[Item], Awaitable[Result]],
    items: Sequence[Item],
    limit: int,
    progress: Progress | None = None,
) -> list[Result]:
    """The results of `work` in the order of `items`, at most `limit` at a time.

    The first error ends it: what is under way is cancelled, the rest is never begun.
    """
    results: dict[int, Result] = {}
    pending = iter(enumerate(items))

    async def worker() -> None:
        for position, item in pending:
            results[position] = await work(item)
            if progress is not None:
                progress(len(results), len(items))

    workers = [asyncio.create_task(worker()) for _ in range(min(limit, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[position] for position in range(len(items))]


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`; who is cancelled meanwhile ends only after it. Raises what `work` raises."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # A second time it waits no longer: somebody insists.
        await asyncio.wait([task])
        if not task.cancelled():
            # Told to nobody: who is cancelled ends as cancelled.
            task.exception()
        raise
