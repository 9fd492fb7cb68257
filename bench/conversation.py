"""A server in a process of its own, which is talked to by its standard input and output.

It answers each line by one of JSON, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_BUFFER = 1 << 20
"""Longest line that is read, in bytes; counts are much shorter."""


# -- the process that answers --------------------------------------------------------------------------------


async def heard() -> str:
    """The next line; empty when there is none any more."""
    return await asyncio.to_thread(sys.stdin.readline)


def say(content: Mapping[str, Any]) -> None:
    """The answer to the line that was heard last."""
    print(json.dumps(content), flush=True)


# -- the side that asks --------------------------------------------------------------------------------------


class Talk:
    """What is said to the running process, and what it answers. Made by `talking`."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    async def told(self, line: str) -> dict[str, Any]:
        """What it answers to that. Raises RuntimeError if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()
        answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._name} has ended by itself: what it says is above")
        return dict(json.loads(answer))


@asynccontextmanager
async def talking(module: str, name: str) -> AsyncIterator[Talk]:
    """To a process that runs this module; it ends with the context. `name` is for messages."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_BUFFER,
        cwd=Path(__file__).parent.parent,
    )
    try:
        yield Talk(process, name)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
