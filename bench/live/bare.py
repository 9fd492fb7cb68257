"""A bare loop that sends prepared requests: what the homeserver can do for anybody. A process of its own.

`python -m bench.live.bare FILE`: FILE is a Job as JSON; says the seconds that it took, as JSON.

Rooms in the requests are called by the names that the recorded ones had. A `createRoom` tells which of these
it makes, and whatever names a room waits until it is made.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from yarl import URL


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request."""

    method: str
    path: str
    body: str
    makes: str | None = None
    """The room that a `createRoom` made when it was recorded."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to send, where, and how many at a time."""

    url: str
    token: str
    parallelism: int
    requests: Sequence[Prepared]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        content = json.loads(text)
        return cls(**{**content, "requests": [Prepared(**one) for one in content["requests"]]})


class Loop:
    """Sends one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rooms: Mapping[str, asyncio.Future[str]] = {
            one.makes: asyncio.get_running_loop().create_future() for one in job.requests if one.makes
        }
        self._named = re.compile("|".join(map(re.escape, self._rooms)) or r"(?!)")

    async def run(self) -> float:
        """Seconds from the first request to the last answer. Raises RuntimeError if one is refused."""
        connector = aiohttp.TCPConnector(limit=self._job.parallelism)
        headers = {"Authorization": f"Bearer {self._job.token}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            started, waiting = time.perf_counter(), iter(self._job.requests)
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._job.parallelism):
                    workers.create_task(self._work(session, waiting))
            return time.perf_counter() - started

    async def _work(self, session: aiohttp.ClientSession, waiting: Iterator[Prepared]) -> None:
        for prepared in waiting:
            url = URL(self._job.url + await self._filled_in(prepared.path), encoded=True)
            body = await self._filled_in(prepared.body)
            async with session.request(prepared.method, url, data=body.encode()) as answer:
                content = await answer.json()
            if answer.status != 200:
                raise RuntimeError(f"{prepared.method} {prepared.path}: {answer.status} {content}")
            if prepared.makes is not None:
                self._rooms[prepared.makes].set_result(content["room_id"])

    async def _filled_in(self, text: str) -> str:
        """The text with the rooms of today, once they are made."""
        made = {name: await self._rooms[name] for name in set(self._named.findall(text))}
        return self._named.sub(lambda found: made[found[0]], text)


async def main() -> None:
    """Sends the job, and says how long it took."""
    job = Job.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(await Loop(job).run()))


if __name__ == "__main__":
    asyncio.run(main())
