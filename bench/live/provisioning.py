"""Everything is made for the first time: how many requests, and how fast beside a bare loop.

The loop sends the requests that made the rooms, as recorded at the proxy, over such a proxy to the same
Synapse, as many at a time: a fresh bot makes fresh rooms, and its events are delivered to somebody who drops
them. It knows everything beforehand, reads nothing and records nothing.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import quote

from bench.live.bare import Job, Prepared
from bench.live.clocks import Clock, Delivery, Timed, is_poll
from bench.live.organisation import Organisation
from bench.live.requests import control_room, is_creation, kinds, work
from bench.live.stage import PARALLELISM, Daemon, Place, Stage

MOST_TIMES_LEAST, LEAST_THROUGHPUT = 1.05, 0.9


@dataclass(frozen=True, slots=True)
class Made:
    """One first provisioning."""

    requests: Mapping[str, int]
    """What aim asked from its start to the end of the cycle, by kind; the declared polls left out."""
    polls: int
    work: int
    """How many of them make the rooms and what is in them."""
    seconds: float
    """From the first of these to the answer of the last."""

    @property
    def total(self) -> int:
        return sum(self.requests.values())


@dataclass(frozen=True, slots=True)
class Provisioning:
    """All rounds; the loop has one for each of aim's."""

    organisation: Organisation
    rounds: Sequence[Made]
    bare: Sequence[float]
    """Seconds of the loop."""

    @property
    def least(self) -> int:
        return sum(self.organisation.least_requests().values())

    @property
    def is_complete(self) -> bool:
        """Whether everything was made in each round."""
        return all(made.work >= self.least for made in self.rounds)

    @property
    def times_least(self) -> float:
        """All requests of the worst round, beside the fewest that can do it."""
        return max(made.total for made in self.rounds) / self.least

    @property
    def throughput(self) -> float:
        """aim's, beside the loop's: the same requests in more or less time."""
        return median(self.bare) / median(made.seconds for made in self.rounds)


def made(timed: Sequence[Timed], polls: int) -> Made:
    """What was asked, from everything that passed the proxy. `polls` are left out of `timed` already."""
    done = work(timed)
    return Made(
        requests=kinds((one.request for one in timed), control_room(timed)),
        polls=polls,
        work=len(done),
        seconds=max(one.answered for one in done) - done[0].came,
    )


def prepared(timed: Sequence[Timed], before: Place, after: Place) -> list[Prepared]:
    """The work of `before`, to be done again by another bot."""
    return [_prepared(one, before, after) for one in work(timed)]


def _prepared(timed: Timed, before: Place, after: Place) -> Prepared:
    request = timed.request
    makes = str(json.loads(timed.answer)["room_id"]) if is_creation(request) else None
    body = request.body.decode().replace(before.bot, after.bot)
    body = body.replace(f'"{before.appservice.id}"', f'"{after.appservice.id}"')
    # Rooms stay as they were called, to be filled in when they are made.
    return Prepared(request.method, quote(request.path, safe="/!:"), body, makes)


async def run_bare(requests: Sequence[Prepared], place: Place) -> float:
    """Seconds that the loop took, in a process of its own."""
    port = place.appservice.port
    assert port is not None, "delivering is a part of what it costs"
    async with Clock(place.base_url) as clock, Delivery(port):
        job = Job(clock.url, place.appservice.as_token, PARALLELISM, requests)
        with tempfile.TemporaryDirectory(prefix="aim-bench-") as folder:
            file = Path(folder) / "job.json"
            file.write_text(job.to_json(), encoding="utf-8")
            command = [sys.executable, "-m", "bench.live.bare", str(file)]
            done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout))


async def first_provisioning(stage: Stage, daemon: Daemon) -> tuple[Made, list[Timed]]:
    """Waits until the daemon, which has just begun, has made everything; also gives what passed the proxy."""
    await daemon.says(r"cycle done .*done=[1-9]")
    timed = [one for one in stage.clock.timed if not is_poll(one.request)]
    return made(timed, stage.clock.polls), timed
