"""Journeys: killed at any instant and started again, it ends in the same state, with no second room."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import pytest

from tests.e2e.conftest import NewStage
from tests.e2e.kit import MARKER, Command, Stage, ends_with, number, until
from tests.servers.proxy import Predicate, every_write

pytestmark = pytest.mark.e2e


class Fate(StrEnum):
    """What becomes of the request in whose middle the kill comes."""

    LOST = "lost"
    """The homeserver never gets it."""
    DONE = "done"
    """It is carried out, and nobody hears the answer."""
    LATE = "late"
    """It is still under way when the next command looks."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The instant of a kill: within the n-th of some writes."""

    write: int
    fate: Fate
    of: Predicate = every_write

    def __str__(self) -> str:
        return f"{self.write}-{self.fate}"


CREATION = ends_with("/createRoom")


def _spread(seed: int, writes: int, count: int) -> list[int]:
    """Numbers of writes, one by chance in each stretch of all of them."""
    chance = random.Random(seed)
    stretch = writes / count
    return [chance.randint(int(part * stretch) + 1, int((part + 1) * stretch)) for part in range(count)]


@pytest.mark.parametrize("fate", Fate)
async def test_killed_in_the_first_provisioning(stage: Stage, new_stage: NewStage, fate: Fate) -> None:
    """Registering the bot, making rooms (in one case certainly), tying them together: side by side."""
    await stage.register_everybody()
    numbers = _spread(seed=list(Fate).index(fate), writes=15, count=2)
    moments = [*(Moment(number, fate) for number in numbers), Moment(4, fate, CREATION)]

    async def one(moment: Moment) -> None:
        beside = await new_stage(homeserver=stage.homeserver, instance=f"aim-{moment}")
        await _killed_and_repeated(beside, await beside.start("apply", "--yes"), moment)

    async with asyncio.TaskGroup() as group:
        for moment in moments:
            group.create_task(one(moment), name=str(moment))


async def test_killed_while_it_follows_changes(stage: Stage) -> None:
    """Kicks, invites, levels and new rooms: each round another change and another moment."""
    await stage.provision()
    await stage.join_all()
    for round_, write in enumerate(_spread(seed=7, writes=18, count=3)):
        moment = Moment(write, list(Fate)[round_])
        unit, other = ("engineering", "sales") if round_ % 2 == 0 else ("sales", "engineering")
        changed = stage.organisation.moved("hana", unit).moved("bela", other)
        change = changed.promoted if round_ % 2 == 0 else changed.demoted
        stage.give(change("ivan", "sales-moderators"))
        rooms = stage.config["provisioner"]["default_rooms"]
        stage.configure(provisioner={"default_rooms": [*rooms, {"id": f"room-{round_}"}]})
        await _killed_and_repeated(stage, await stage.start("apply", "--yes"), moment)


async def test_a_killed_daemon_is_started_again(stage: Stage) -> None:
    await stage.register_everybody()
    async with stage.daemon() as daemon:
        with _kills(stage, Moment(4, Fate.DONE, CREATION)) as kill:
            await kill(daemon)
            await _later(stage)
    async with stage.daemon() as daemon:
        await daemon.says("cycle done")
        await _assert_settled(stage)
        assert (await daemon.terminate()).code == 0
    assert (await stage.plan())["actions"] == []


async def _killed_and_repeated(stage: Stage, command: Command, moment: Moment) -> None:
    with _kills(stage, moment) as kill:
        await kill(command)
        await _later(stage)
        repeated = await stage.start("apply", "--yes")
        if moment.fate is Fate.LATE:
            before = len(stage.proxy.requests)
            await until(lambda: len(stage.proxy.requests) > before, "the next run looks at the homeserver")
    assert (await repeated.end()).code == 0
    await _assert_settled(stage)


async def _later(stage: Stage) -> None:
    """As if the next run came an hour later, for all rooms whose creation is not under way any more: it would
    wait for them, until it can be sure of that."""
    under_way = [
        json.loads(request.body)["creation_content"][MARKER]["key"]
        for request in stage.proxy.requests
        if CREATION(request) and request.status is None
    ]
    query = "update aim.room_intents set intended_at = intended_at - interval '1 hour' where key <> all($1)"
    await stage.fetch(query, under_way)


class _Kills:
    """Kills a command within a request."""

    def __init__(self, stage: Stage, moment: Moment) -> None:
        self._stage = stage
        self._moment = moment
        self._held = stage.proxy.hold(number(moment.write, moment.of))
        self._target = stage.proxy.target

    async def __call__(self, command: Command) -> None:
        proxy = self._stage.proxy
        await until(lambda: self._held.reached.is_set() or not command.is_running, "the moment has come")
        assert self._held.reached.is_set(), await command.end()
        await command.kill()
        # What was sent before the kill has arrived when something sent after it was answered.
        async with self._stage.homeserver.session.get(f"{proxy.url}/_matrix/client/versions"):
            pass
        if self._moment.fate is not Fate.LATE:
            await self.release(lost=self._moment.fate is Fate.LOST)

    async def release(self, *, lost: bool) -> None:
        """The request goes on, to its end or into nothing."""
        held = [request for request in self._stage.proxy.requests if request.status is None]
        if lost:
            self._stage.proxy.target = "http://127.0.0.1:1"
        self._held.release.set()
        await until(lambda: all(request.status is not None for request in held), "the request has ended")
        self._stage.proxy.target = self._target


@contextmanager
def _kills(stage: Stage, moment: Moment) -> Iterator[_Kills]:
    kills = _Kills(stage, moment)
    try:
        yield kills
    finally:
        stage.proxy.behave()


async def _assert_settled(stage: Stage) -> None:
    """All is as configured, no room is there twice, and the database knows exactly that."""
    rooms = await stage.assert_follows()
    recorded = await stage.fetch("select key, room_id from aim.rooms")
    assert {row["key"]: row["room_id"] for row in recorded} == {k: room.room_id for k, room in rooms.items()}
    assert await stage.fetch("select key from aim.room_intents") == []
    assert set(await stage.cycles()) <= {"interrupted", "done"}
