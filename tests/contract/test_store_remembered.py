"""The remembering recorder against a real Postgres: what it remembers is always what a fresh load gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from aim.directory.roster import Roster
from aim.errors import StoreError
from aim.planner.actions import Kick
from aim.ports import Outcome, OutcomeStatus, RecordedReader
from aim.store.decisions import open_decision_store
from aim.store.recorded import open_recorded
from aim.store.recorder import RecorderStore, open_recorder
from aim.store.remembered import RememberingRecorder
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
Step = Callable[[RememberingRecorder, datetime], Awaitable[Any]]


def seen(name: str, gone: datetime | None = None) -> Seen:
    return Seen(f"id-{name}", name, weak_id=False, first_seen=NOW, gone_since=gone)


def queued(name: str, at: datetime, found_due_at: datetime | None = None) -> Queued:
    return Queued(
        user_id=f"id-{name}",
        localpart=name,
        queued_at=at,
        due_at=at + 24 * HOUR,
        reason="no longer in the directory",
        found_due_at=found_due_at,
    )


KICK = Kick(room="lab", space="lab", room_id="!lab", person="@cid:x", reason="gone")
UNTOUCHED = [Outcome(KICK, OutcomeStatus.HELD)] * 2

STEPS: list[Step] = [
    lambda made, now: made.record_recovery(now),
    lambda made, now: made.begin_cycle("{}", "sha256:1", now),
    lambda made, now: made.record_room(RecordedRoom("lab", "!lab", {"suggested": True}), now),
    lambda made, now: made.record_room(RecordedRoom("all", "!all", None), now),
    lambda made, now: made.record_room(RecordedRoom("lab", "!lab2", {"suggested": False}), now),
    lambda made, now: made.forget_room("all"),
    lambda made, now: made.record_seen([seen("ann"), seen("bob")], (), "ldif"),
    lambda made, now: made.record_seen([seen("bob", now)], ["id-ann"], "ldif"),
    lambda made, now: made.record_entitled({"lab": ["ann", "bob"], "all": ["ann"]}, now),
    lambda made, now: made.record_entitled({"lab": ["cid"]}, now),
    lambda made, now: made.record_lapsed({"lab": ["ann", "bob"], "all": ["ann"]}, {}, now),
    lambda made, now: made.record_lapsed({}, {"lab": ["ann"]}, now),
    lambda made, now: made.record_lapsed({"lab": ["ann"]}, {"lab": ["bob"], "all": ["ann"]}, now),
    lambda made, now: made.record_caused("!lab", "ann"),
    lambda made, now: made.record_caused("!lab", "bob"),
    lambda made, now: made.forget_caused({"!lab": ["ann"]}),
    lambda made, now: made.forget_caused({"!lab": ["bob"]}),
    lambda made, now: made.record_done(Done("kick lab @ann:x", "kicks", "lab", "ann", now)),
    lambda made, now: made.record_held(["kick lab @bob:x"]),
    lambda made, now: made.approve([Approval("kick lab @bob:x", "eva", now + HOUR)], "sha256:1", now),
    lambda made, now: made.approve([Approval(KICK.identity, "eva", now + 48 * HOUR)], "sha256:1", now),
    lambda made, now: made.record_outcomes(1, {0: Outcome(KICK, OutcomeStatus.FAILED, "no")}, now),
    lambda made, now: made.record_outcomes(1, {1: Outcome(KICK, OutcomeStatus.DONE)}, now),
    lambda made, now: made.approve([Approval(KICK.identity, "eva", now + 48 * HOUR)], "sha256:2", now),
    lambda made, now: made.end_cycle(1, [*UNTOUCHED, Outcome(KICK, OutcomeStatus.DONE)], now),
    lambda made, now: made.record_held([]),
    lambda made, now: made.record_recovery(None),
    lambda made, now: made.record_clock(now),
    lambda made, now: made.enqueue([queued("bob", NOW), queued("ann", NOW)]),
    # The same stay, then a new one.
    lambda made, now: made.enqueue([replace(queued("bob", NOW, now), due_at=now, held_by="eva")]),
    lambda made, now: made.enqueue([queued("bob", now)]),
    lambda made, now: made.enqueue([replace(queued("bob", now), held_by="eva")]),
    lambda made, now: made.change_queued("id-dan", lambda _: queued("dan", now)),
    lambda made, now: made.change_queued("id-bob", lambda _: queued("bob", now)),
    lambda made, now: made.postpone_queue(now + 48 * HOUR),
    lambda made, now: made.enqueue([queued("cid", now)]),
    lambda made, now: made.dequeue(["id-ann", "id-never-there"]),
    lambda made, now: made.forget_person("id-bob", "@bob:x"),
]
"""Whatever changes what is remembered, in an order that makes each of them matter."""


@pytest.fixture
async def recorder(dsn: str) -> AsyncIterator[RecorderStore]:
    async with open_recorder(dsn) as store:
        yield store


async def recorded(store: RecordedReader, roster: Roster, now: datetime) -> Recorded:
    """What is recorded, but for the database's clock, which does not stand still."""
    return replace(await store.load(roster, now), database_ahead=timedelta())


async def test_what_it_remembers_is_what_a_fresh_load_gives(dsn: str, recorder: RecorderStore) -> None:
    made, roster, now = RememberingRecorder(recorder), Roster(), NOW
    await made.load(roster, now)
    async with open_recorded(dsn) as reader:
        for step in STEPS:
            await step(made, now)
            assert await recorded(made, roster, now) == await recorded(reader, roster, now)
            now += timedelta(minutes=7)
        for _ in range(12):
            assert await recorded(made, roster, now) == await recorded(reader, roster, now)
            now += timedelta(minutes=7)


async def test_it_loads_once(dsn: str, recorder: RecorderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made, roster = RememberingRecorder(recorder), Roster()
    first = await made.load(roster, NOW)
    monkeypatch.setattr(recorder, "load", None)
    assert await made.load(roster, NOW) is first


async def test_what_a_person_decides_beside_it_is_seen(dsn: str, recorder: RecorderStore) -> None:
    made, roster = RememberingRecorder(recorder), Roster()
    await made.record_seen([seen("ann")], (), "ldif")
    assert set((await made.load(roster, NOW)).seen) == {"id-ann"}
    async with open_decision_store(dsn) as decisions:
        await decisions.rebind([Seen("id-new", "ann", False, NOW, None)], ["id-ann"])
    assert set((await made.load(roster, NOW)).seen) == {"id-new"}


async def test_after_a_failure_it_believes_the_database(dsn: str, recorder: RecorderStore) -> None:
    made, roster = RememberingRecorder(recorder), Roster()
    await made.load(roster, NOW)
    plain = await asyncpg.connect(dsn)
    try:
        await plain.execute("alter table aim.held rename to held_elsewhere")
        with pytest.raises(StoreError):
            await made.record_held(["kick lab @ann:x"])
        await plain.execute("alter table aim.held_elsewhere rename to held")
    finally:
        await plain.close()
    assert (await made.load(roster, NOW)).held == frozenset()


async def test_somebody_is_forgotten_while_the_database_is_asked_for_the_time(dsn: str) -> None:
    async with open_recorder(dsn) as recorder:
        made, roster = RememberingRecorder(recorder), Roster()
        await made.load(roster, NOW)
        await made.enqueue([queued("ann", NOW), queued("bob", NOW)])
        asked = recorder.database_clock

        async def and_forget() -> datetime:
            await made.forget_person("id-ann", "@ann:x")
            return await asked()

        recorder.database_clock = and_forget  # type: ignore[method-assign]
        found = await made.load(roster, NOW)
        assert found.queue.keys() == {"id-bob"}
