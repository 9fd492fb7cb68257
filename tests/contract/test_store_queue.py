"""The deprovisioning queue against a real Postgres: the writer's part, and what people decide beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from aim.desired import queueing
from aim.desired.queueing import Decision, QueueChange
from aim.directory.roster import Roster
from aim.errors import AimError
from aim.ports import RecordedReader
from aim.store import DecisionStore, RecorderStore, open_reader
from aim.store.decisions import open_decision_store
from aim.store.recorder import open_recorder
from aim.world.recorded import Approval, Queued, Seen
from tests.servers.postgres import Postgres, neighbour

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
EVA = Decision("example.com", "eva", NOW)


def entry(name: str, **more: object) -> Queued:
    made = Queued(
        user_id=f"id-{name}",
        localpart=name,
        queued_at=NOW - 10 * DAY,
        due_at=NOW + 20 * DAY,
        reason="no longer in the directory",
    )
    return replace(made, **more)  # type: ignore[arg-type]  # each test names fields of its own


ANN, BOB = entry("ann"), entry("bob", ours=False)


@pytest.fixture
async def recorder(dsn: str) -> AsyncIterator[RecorderStore]:
    async with open_recorder(dsn) as store:
        yield store


@pytest.fixture
async def decisions(dsn: str, recorder: RecorderStore) -> AsyncIterator[DecisionStore]:
    async with open_decision_store(dsn) as store:
        yield store


async def queue(store: RecordedReader) -> Mapping[str, Queued]:
    return (await store.load(Roster(), NOW)).queue


async def test_who_is_queued_is_read_back_whole(recorder: RecorderStore) -> None:
    whole = entry(
        "cid", ours=False, held_by="a", erase_by="b", restored_by="c", found_due_at=NOW - DAY, due_at=NOW
    )
    await recorder.enqueue([whole, ANN])
    assert await queue(recorder) == {"id-ann": ANN, "id-cid": whole}
    assert list(await queue(recorder)) == ["id-ann", "id-cid"]
    assert await recorder.queued("id-cid") == whole
    assert await recorder.queued("id-eve") is None


async def test_whoever_waits_is_known_by_their_localpart_too(recorder: RecorderStore) -> None:
    await recorder.enqueue([ANN])
    assert [await recorder.waits(name) for name in ("ann", "bob")] == [True, False]
    await recorder.dequeue(["id-ann"])
    assert not await recorder.waits("ann")


async def test_who_is_dequeued_is_gone_and_nobody_else(recorder: RecorderStore) -> None:
    await recorder.enqueue([ANN, BOB])
    await recorder.dequeue(["id-ann", "id-never-there"])
    assert await queue(recorder) == {"id-bob": BOB}


async def test_postponing_only_makes_it_later(recorder: RecorderStore) -> None:
    late = entry("bob", due_at=NOW + 90 * DAY)
    await recorder.enqueue([ANN, late])
    await recorder.postpone_queue(NOW + 30 * DAY)
    assert await queue(recorder) == {"id-ann": replace(ANN, due_at=NOW + 30 * DAY), "id-bob": late}


async def test_the_clocks_are_read(recorder: RecorderStore) -> None:
    assert (await recorder.load(Roster(), NOW)).clock is None
    await recorder.record_clock(NOW)
    before = datetime.now(UTC)
    loaded = await recorder.load(Roster(), before)
    # The server is on this machine: its clock is ours, a moment later.
    assert timedelta() <= loaded.database_ahead <= datetime.now(UTC) - before
    assert loaded.clock == NOW
    behind = await recorder.load(Roster(), before + 3 * DAY)
    assert behind.database_ahead < -2 * DAY


async def test_the_writer_does_not_overrule_who_decided_meanwhile(
    recorder: RecorderStore, decisions: DecisionStore
) -> None:
    await recorder.enqueue([ANN])
    await decisions.change_queue(lambda known: queueing.hold(known, "ann", EVA), NOW)
    await recorder.enqueue([replace(ANN, found_due_at=NOW)])
    assert await queue(recorder) == {"id-ann": replace(ANN, held_by="eva", found_due_at=NOW)}
    # Locked anew: the time begins again, and they are held still.
    anew = replace(ANN, queued_at=NOW, due_at=NOW + 30 * DAY)
    await recorder.enqueue([anew])
    assert await queue(recorder) == {"id-ann": replace(anew, held_by="eva")}


async def test_what_was_taken_back_stays_taken_back(
    recorder: RecorderStore, decisions: DecisionStore
) -> None:
    held, asked = replace(ANN, held_by="eva"), replace(BOB, erase_by="eva")
    restored = entry("cid", restored_by="eva")
    await recorder.enqueue([held, asked, restored])
    # The writer has looked; then people change their minds; then it writes what it knew.
    await decisions.change_queue(lambda known: queueing.release(known, "ann", EVA, 30 * DAY), NOW)
    await decisions.change_queue(lambda known: queueing.hold(known, "bob", EVA), NOW)
    await decisions.change_queue(lambda known: queueing.erase(known, "cid", EVA, sure=True), NOW)
    await recorder.enqueue([replace(one, found_due_at=NOW) for one in (held, asked, restored)])
    found = await queue(recorder)
    assert found["id-ann"] == replace(ANN, found_due_at=NOW)
    assert found["id-bob"] == replace(BOB, held_by="eva", found_due_at=NOW)
    assert found["id-cid"] == entry("cid", erase_by="eva", found_due_at=NOW)


async def test_a_new_stay_begins_without_the_wish_to_erase(recorder: RecorderStore) -> None:
    await recorder.enqueue([replace(ANN, erase_by="eva")])
    anew = replace(ANN, queued_at=NOW, due_at=NOW + 30 * DAY)
    await recorder.enqueue([anew])
    assert await queue(recorder) == {"id-ann": anew}


async def test_an_entry_is_changed_as_it_is_at_this_moment(recorder: RecorderStore) -> None:
    found: list[Queued | None] = []

    def lock(before: Queued | None) -> Queued:
        found.append(before)
        return queueing.locked_anew(before, ANN, queues=True)

    assert await recorder.change_queued("id-ann", lock) == ANN
    assert await recorder.change_queued("id-ann", lock) == ANN
    assert found == [None, ANN]
    assert await queue(recorder) == {"id-ann": ANN}


async def test_an_entry_that_is_not_to_be_changed_stays(recorder: RecorderStore) -> None:
    await recorder.enqueue([ANN])

    def refuse(before: Queued | None) -> Queued:
        raise AimError(f"not {before and before.localpart}", "leave it")

    with pytest.raises(AimError, match="not ann"):
        await recorder.change_queued("id-ann", refuse)
    assert await queue(recorder) == {"id-ann": ANN}


async def test_an_erasure_that_is_asked_for_while_they_are_locked_is_not_lost(
    dsn: str, recorder: RecorderStore, decisions: DecisionStore
) -> None:
    """Whichever of the two is first: the other one waits, and sees it."""
    anew = replace(ANN, queued_at=NOW, due_at=NOW + 30 * DAY)
    for _ in range(20):
        await recorder.enqueue([ANN])
        await asyncio.gather(
            recorder.change_queued("id-ann", lambda before: queueing.locked_anew(before, anew, queues=True)),
            decisions.change_queue(lambda known: queueing.erase(known, "ann", EVA, sure=True), NOW),
        )
        assert (await queue(recorder))["id-ann"].erase_by == "eva"
        await recorder.dequeue(["id-ann"])


async def test_a_shorter_time_survives_the_writer(recorder: RecorderStore, decisions: DecisionStore) -> None:
    await recorder.enqueue([ANN])
    await decisions.change_queue(
        lambda known: queueing.reschedule(known, "ann", EVA, 12 * DAY, sure=False), NOW
    )
    await recorder.enqueue([replace(ANN, found_due_at=NOW)])
    assert (await queue(recorder))["id-ann"].due_at == NOW + 2 * DAY


async def test_a_decision_is_counted(recorder: RecorderStore, decisions: DecisionStore) -> None:
    await recorder.enqueue([ANN])
    for number, decide in enumerate(
        (
            partial(queueing.hold, name="ann", decision=EVA),
            partial(queueing.release, name="ann", decision=EVA, period=DAY),
            partial(queueing.erase, name="ann", decision=EVA, sure=True),
            partial(queueing.restore, name="ann", decision=EVA),
            partial(queueing.reschedule, name=None, decision=EVA, period=DAY, sure=True),
        ),
        start=1,
    ):
        await decisions.change_queue(decide, NOW)
        assert await recorder.decisions() == number


async def test_who_asks_for_an_erasure_approves_it_and_who_holds_ends_that(
    recorder: RecorderStore, decisions: DecisionStore
) -> None:
    await recorder.enqueue([ANN])
    await decisions.change_queue(lambda known: queueing.erase(known, "ann", EVA, sure=True), NOW)
    loaded = await recorder.load(Roster(), NOW)
    identity = "erase_account @ann:example.com"
    assert loaded.approvals == {identity: Approval(identity, "eva", NOW + DAY)}
    assert loaded.queue["id-ann"].erase_by == "eva"
    await decisions.change_queue(lambda known: queueing.hold(known, "ann", EVA), NOW + timedelta(hours=1))
    assert (await recorder.load(Roster(), NOW + timedelta(hours=1))).approvals == {}


async def test_a_decision_that_is_refused_changes_nothing(
    recorder: RecorderStore, decisions: DecisionStore
) -> None:
    await recorder.enqueue([ANN])
    for decide in (
        partial(queueing.erase, name="ann", decision=EVA, sure=False),
        partial(queueing.hold, name="nobody", decision=EVA),
    ):
        with pytest.raises(AimError):
            await decisions.change_queue(decide, NOW)
    assert (await queue(recorder), await recorder.decisions()) == ({"id-ann": ANN}, 0)


async def test_of_two_who_decide_at_once_the_second_sees_the_first(
    dsn: str, recorder: RecorderStore, decisions: DecisionStore
) -> None:
    await recorder.enqueue([ANN])

    def hold(known: Mapping[str, Queued]) -> QueueChange:
        return queueing.hold(known, "ann", EVA)

    async with open_decision_store(dsn) as other:
        results = await asyncio.gather(
            decisions.change_queue(hold, NOW), other.change_queue(hold, NOW), return_exceptions=True
        )
    refused = [result for result in results if isinstance(result, AimError)]
    assert [error.message for error in refused] == ["@ann:example.com is held by eva already"]


async def test_who_is_rebound_waits_under_the_new_id(
    recorder: RecorderStore, decisions: DecisionStore
) -> None:
    await recorder.enqueue([ANN, BOB])
    await recorder.record_seen([Seen("id-ann", "ann", False, NOW, None)], (), "ldif")
    await decisions.rebind([Seen("new-ann", "ann", False, NOW, None)], ["id-ann"], "ldap")
    loaded = await recorder.load(Roster(), NOW)
    assert loaded.queue == {"id-bob": BOB, "new-ann": replace(ANN, user_id="new-ann")}
    assert (loaded.source, set(loaded.seen)) == ("ldap", {"new-ann"})


async def test_a_new_localpart_leaves_the_queue_alone(
    recorder: RecorderStore, decisions: DecisionStore
) -> None:
    await recorder.enqueue([ANN])
    await decisions.rebind([Seen("id-ann", "anna", False, NOW, None)], ())
    assert await queue(recorder) == {"id-ann": ANN}


async def test_a_reader_without_a_database_finds_nobody(postgres: Postgres, dsn: str) -> None:
    async with open_reader(dsn, postgres.data_dir) as reader:
        assert await queue(reader) == {}


ENQUEUES = """
import asyncio, itertools, sys
from datetime import UTC, datetime
from aim.store.recorder import open_recorder
from aim.world.recorded import Queued

async def main():
    now = datetime.now(UTC)
    async with open_recorder(sys.argv[1]) as recorder:
        for number in itertools.count():
            name = f"user{number}"
            await recorder.enqueue(
                [Queued(user_id=name, localpart=name, queued_at=now, due_at=now, reason="gone")]
            )
            print(name, flush=True)

asyncio.run(main())
"""


async def test_who_was_queued_survives_a_kill(dsn: str) -> None:
    async with neighbour(ENQUEUES, dsn) as writer:
        acknowledged = {await writer.line() for _ in range(10)}
        await writer.kill()
    async with asyncio.timeout(30), open_recorder(dsn, wait=True) as recorder:
        assert acknowledged <= set(await queue(recorder))
    assert len(acknowledged) == 10
