"""The ports RecordedReader and Recorder against a real Postgres: what is written is what is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from aim.directory.roster import Roster
from aim.errors import StoreError
from aim.planner.actions import AnyAction, CreateSpace, Invite, Kick
from aim.ports import Outcome, OutcomeStatus, RecordedReader, Recorder
from aim.store import DecisionStore, RecordedStore, RecorderStore, recorded
from aim.store.recorded import NothingRecorded, open_recorded
from aim.store.recorder import open_recorder
from aim.world.recorded import Approval, Done, Recorded, RecordedRoom, Seen
from tests.servers.postgres import neighbour

NOW = datetime(2026, 5, 4, 12, 30, 15, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ROOM = RecordedRoom(
    "engineering", "!a:example.com", {"name": "Engineering", "suggested": True, "order": [1, None]}
)
SEEN = Seen("id-1", "ann", weak_id=False, first_seen=NOW, gone_since=None)


@pytest.fixture
async def recorder(dsn: str) -> AsyncIterator[RecorderStore]:
    async with open_recorder(dsn) as store:
        yield store


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain look at the tables, as whoever audits them has it."""
    plain = await asyncpg.connect(dsn)
    yield plain
    await plain.close()


async def load(store: RecordedReader, now: datetime = NOW) -> Recorded:
    """What is recorded, but for the database's clock, which does not stand still."""
    return replace(await store.load(Roster(), now), database_ahead=timedelta())


def done(identity: str, at: datetime) -> Done:
    return Done(identity, "kicks", "engineering", "evan", at)


def kick(person: str) -> Kick:
    return Kick(
        room="engineering", space="engineering", reason=f"no longer in ou=eng: {person}", person=person
    )


async def test_a_migrated_database_that_nobody_wrote_to_is_fresh(recorder: RecorderStore) -> None:
    assert await load(recorder) == Recorded()


async def test_the_reader_sees_what_the_recorder_wrote(dsn: str, recorder: RecorderStore) -> None:
    await recorder.record_room(ROOM, NOW)
    async with open_recorded(dsn) as reader:
        assert await load(reader) == await load(recorder) != Recorded()


async def test_rooms_keep_their_properties(recorder: RecorderStore) -> None:
    adopted = RecordedRoom("sales", "!b:example.com", None)
    empty = RecordedRoom("sales/lounge", "!c:example.com", {})
    for room in (adopted, ROOM, empty):
        await recorder.record_room(room, NOW)
    assert await load(recorder) == Recorded(
        fresh=False, rooms={"engineering": ROOM, "sales": adopted, "sales/lounge": empty}
    )


async def test_a_room_recorded_again_replaces_itself(recorder: RecorderStore) -> None:
    await recorder.record_room(ROOM, NOW)
    changed = RecordedRoom(ROOM.key, "!z:example.com", {"name": "R&D"})
    await recorder.record_room(changed, NOW + MINUTE)
    assert (await load(recorder)).rooms == {ROOM.key: changed}


async def test_an_intent_is_open_until_its_room_is_recorded(recorder: RecorderStore) -> None:
    await recorder.intend_room(ROOM.key, NOW)
    await recorder.intend_room("sales", NOW)
    await recorder.intend_room("sales", NOW + MINUTE)
    assert await recorder.open_intents() == {ROOM.key: NOW, "sales": NOW + MINUTE}
    await recorder.record_room(ROOM, NOW)
    assert await recorder.open_intents() == {"sales": NOW + MINUTE}
    await recorder.close_intents(["sales", "never intended"])
    assert await recorder.open_intents() == {}


async def test_seen_users_are_inserted_updated_and_forgotten(recorder: RecorderStore) -> None:
    bob = Seen("id-2", "bob", weak_id=True, first_seen=NOW, gone_since=NOW + MINUTE)
    await recorder.record_seen([SEEN, bob], [], "ldif")
    moved = Seen("id-1", "anna", weak_id=False, first_seen=NOW - MINUTE, gone_since=NOW)
    await recorder.record_seen([moved], ["id-2", "never-there"], "ldap")
    assert await load(recorder) == Recorded(fresh=False, source="ldap", seen={"id-1": moved})


async def test_times_come_back_as_utc(recorder: RecorderStore) -> None:
    await recorder.record_seen([SEEN], [], "ldif")
    assert (await load(recorder)).seen["id-1"].first_seen.utcoffset() == timedelta(0)


async def test_entitled_people_add_up(recorder: RecorderStore) -> None:
    await recorder.record_entitled({"engineering": ["ann", "bob"], "sales": ["ann"]}, NOW)
    await recorder.record_entitled({"engineering": ["bob", "eve"]}, NOW + MINUTE)
    roster = Roster()
    entitled = (await recorder.load(roster, NOW)).entitled
    assert {key: roster.localparts(people) for key, people in entitled.items()} == {
        "engineering": ["ann", "bob", "eve"],
        "sales": ["ann"],
    }


async def test_who_lapsed_and_who_regained_comes_back_and_the_rest_is_not_loaded(
    recorder: RecorderStore,
) -> None:
    await recorder.record_entitled({"engineering": ["ann", "bob", "eve"], "sales": ["ann"]}, NOW)
    await recorder.record_lapsed({"engineering": ["ann", "bob"], "sales": ["ann"]}, {}, NOW + MINUTE)
    await recorder.record_lapsed({}, {"engineering": ["bob"]}, NOW + 2 * MINUTE)
    roster = Roster()
    loaded = await recorder.load(roster, NOW)
    assert {key: roster.localparts(people) for key, people in loaded.lapsed.items()} == {
        "engineering": ["ann"],
        "sales": ["ann"],
    }
    assert loaded.regained == {"engineering": {roster.number("bob"): NOW + 2 * MINUTE}}
    await recorder.record_lapsed({"engineering": ["bob"]}, {"sales": ["ann"]}, NOW + 3 * MINUTE)
    loaded = await recorder.load(roster, NOW)
    assert roster.localparts(loaded.lapsed["engineering"]) == ["ann", "bob"]
    assert loaded.regained == {"sales": {roster.number("ann"): NOW + 3 * MINUTE}}


async def test_leaves_that_we_cause_are_remembered_until_they_are_back(recorder: RecorderStore) -> None:
    for name in ("ann", "bob", "ann"):
        await recorder.record_caused("!one", name)
    await recorder.record_caused("!two", "ann")
    roster = Roster()
    caused = (await recorder.load(roster, NOW)).caused
    assert {room_id: roster.localparts(people) for room_id, people in caused.items()} == {
        "!one": ["ann", "bob"],
        "!two": ["ann"],
    }
    await recorder.forget_caused({"!one": ["ann", "never-there"], "!two": ["ann"]})
    caused = (await recorder.load(roster, NOW)).caused
    assert {room_id: roster.localparts(people) for room_id, people in caused.items()} == {"!one": ["bob"]}


async def test_a_hundred_thousand_entitlements_take_seconds(recorder: RecorderStore) -> None:
    rooms = {f"space-{room}": [f"user{number:06}" for number in range(20_000)] for room in range(5)}
    begin = time.monotonic()
    await recorder.record_entitled(rooms, NOW)
    roster = Roster()
    entitled = (await recorder.load(roster, NOW)).entitled
    assert time.monotonic() - begin < 30
    assert {key: roster.localparts(people) for key, people in entitled.items()} == rooms


async def test_many_rows_fit_through_several_statements(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    count = 50_001
    users = [
        Seen(f"id-{n}", f"user{n}", weak_id=False, first_seen=NOW, gone_since=None) for n in range(count)
    ]
    await recorder.record_seen(users, [], "ldif")
    assert (await load(recorder)).seen == {user.id: user for user in users}
    cycle = await recorder.begin_cycle("{}", "sha256:1", NOW)
    await recorder.end_cycle(cycle, [Outcome(kick(f"@{n}"), OutcomeStatus.DONE) for n in range(count)], NOW)
    targets = await connection.fetch("select target from aim.outcomes order by position")
    assert [row["target"] for row in targets] == [f"@{n}" for n in range(count)]


async def test_what_was_done_counts_for_an_hour(recorder: RecorderStore) -> None:
    just, again = done("kick engineering @a", NOW - 60 * MINUTE), done("kick engineering @a", NOW)
    for item in (done("kick engineering @old", NOW - 60 * MINUTE - timedelta(seconds=1)), just, again):
        await recorder.record_done(item)
    assert (await load(recorder)).done == (just, again)


async def test_what_was_done_long_ago_is_dropped(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    old, new = done("kick engineering @old", NOW - timedelta(days=2)), done("kick engineering @new", NOW)
    await recorder.record_done(old)
    await recorder.record_done(new)
    await recorder.begin_cycle("{}", "sha256:1", NOW)
    assert [row["identity"] for row in await connection.fetch("select identity from aim.done")] == [
        new.identity
    ]


async def test_held_identities_are_replaced_and_keep_their_time(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    await recorder.record_held({"kick a @x", "kick a @y"})
    since = await connection.fetchval("select since from aim.held where identity = 'kick a @y'")
    await recorder.record_held({"kick a @y", "kick a @z"})
    assert (await load(recorder)).held == {"kick a @y", "kick a @z"}
    assert await connection.fetchval("select since from aim.held where identity = 'kick a @y'") == since
    await recorder.record_held([])
    assert (await load(recorder)).held == frozenset()


async def test_recovery_is_set_and_lifted(recorder: RecorderStore) -> None:
    await recorder.record_recovery(NOW)
    assert (await load(recorder)).recovery_since == NOW
    await recorder.record_recovery(None)
    assert (await load(recorder)).recovery_since is None


async def test_approvals_hold_until_they_expire(recorder: RecorderStore) -> None:
    longer = Approval("kick a @x", "root", NOW + 20 * MINUTE)
    await recorder.approve([longer, Approval("kick a @y", "root", NOW + MINUTE)], "sha256:1", NOW)
    await recorder.approve([Approval("kick a @x", "ann", NOW + 10 * MINUTE)], "sha256:2", NOW)
    assert set((await load(recorder)).approvals) == {"kick a @x", "kick a @y"}
    assert (await load(recorder, NOW + MINUTE)).approvals == {"kick a @x": longer}
    assert (await load(recorder, NOW + 20 * MINUTE)).approvals == {}


async def test_what_was_carried_out_has_used_its_approval_up(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    kicks = {name: kick(f"@{name}:example.com") for name in ("ann", "bob", "cid", "dan")}
    given = [Approval(action.identity, "root", NOW + 20 * MINUTE) for action in kicks.values()]
    await recorder.approve(given, "sha256:1", NOW)
    cycle = await recorder.begin_cycle("{}", "sha256:1", NOW)
    await recorder.record_outcomes(cycle, {0: Outcome(kicks["ann"], OutcomeStatus.DONE)}, NOW + MINUTE)
    ended = [
        Outcome(kicks["bob"], OutcomeStatus.DONE),
        Outcome(kicks["cid"], OutcomeStatus.FAILED, "M_FORBIDDEN"),
        Outcome(kicks["dan"], OutcomeStatus.SKIPPED),
    ]
    await recorder.end_cycle(await recorder.begin_cycle("{}", "sha256:2", NOW), ended, NOW + MINUTE)
    left = {kicks["cid"].identity, kicks["dan"].identity}
    assert set((await load(recorder, NOW + MINUTE)).approvals) == left
    # They stay for the audit, as expired.
    assert await connection.fetchval("select count(*) from aim.approvals") == 4


async def test_who_approved_what_stays_for_the_audit(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    await recorder.approve([Approval("kick a @x", "root", NOW + MINUTE)], "sha256:1", NOW)
    row = await connection.fetchrow(
        "select identity, approved_by, approved_at, until, digest from aim.approvals"
    )
    assert row is not None
    assert tuple(row) == ("kick a @x", "root", NOW, NOW + MINUTE, "sha256:1")


async def test_the_newest_plan_of_a_digest_is_found_as_it_was_written(recorder: RecorderStore) -> None:
    text = '{"b": 1,  "a": [2.0, "\\u0000 ü"]}\n'
    assert await recorder.plan_by_digest("sha256:1") is None
    await recorder.begin_cycle("{}", "sha256:1", NOW)
    await recorder.begin_cycle(text, "sha256:1", NOW)
    await recorder.begin_cycle("[]", "sha256:2", NOW)
    assert await recorder.plan_by_digest("sha256:1") == text
    assert (await load(recorder)) == Recorded(fresh=False)


async def test_a_cycle_ends_with_its_outcomes(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    space = CreateSpace(room="sales", space="sales", reason="configured", name="Sales", parent=None)
    invite = Invite(room="sales", space="sales", reason="in ou=sales", person="@bob:example.com")
    outcomes: list[tuple[AnyAction, OutcomeStatus, str]] = [
        (space, OutcomeStatus.FAILED, "M_FORBIDDEN: no\x00"),
        (invite, OutcomeStatus.SKIPPED, "its space was not created"),
        (kick("@eve:example.com"), OutcomeStatus.HELD, "above the limit"),
        (kick("@evan:example.com"), OutcomeStatus.DONE, ""),
    ]
    cycle = await recorder.begin_cycle("{}", "sha256:1", NOW)
    await recorder.end_cycle(cycle, [Outcome(*outcome) for outcome in outcomes], NOW + MINUTE)
    rows = await connection.fetch(
        "select type, room, target, reason, status, message, at from aim.outcomes"
        " where cycle = $1 order by position",
        cycle,
    )
    assert [tuple(row) for row in rows] == [
        ("create_space", "sales", None, "configured", "failed", "M_FORBIDDEN: no\ufffd", NOW + MINUTE),
        ("invite", "sales", "@bob:example.com", "in ou=sales", "skipped", outcomes[1][2], NOW + MINUTE),
        (
            "kick",
            "engineering",
            "@eve:example.com",
            outcomes[2][0].reason,
            "held",
            "above the limit",
            NOW + MINUTE,
        ),
        ("kick", "engineering", "@evan:example.com", outcomes[3][0].reason, "done", "", NOW + MINUTE),
    ]
    row = await connection.fetchrow("select started_at, ended_at, status from aim.cycles")
    assert row is not None
    assert tuple(row) == (NOW, NOW + MINUTE, "failed")


async def test_outcomes_are_recorded_while_the_cycle_goes_on(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    early = Outcome(kick("@eve:example.com"), OutcomeStatus.DONE)
    late = Outcome(kick("@bob:example.com"), OutcomeStatus.DONE)
    cycle = await recorder.begin_cycle("{}", "sha256:1", NOW)
    await recorder.record_outcomes(cycle, {1: early}, NOW)
    query = "select position, target, at from aim.outcomes order by position"
    assert [tuple(row) for row in await connection.fetch(query)] == [(1, "@eve:example.com", NOW)]
    await recorder.end_cycle(cycle, [late, early], NOW + MINUTE)
    assert [tuple(row) for row in await connection.fetch(query)] == [
        (0, "@bob:example.com", NOW + MINUTE),
        (1, "@eve:example.com", NOW),
    ]


async def test_a_cycle_without_failures_is_done(
    recorder: RecorderStore, connection: asyncpg.Connection
) -> None:
    cycle = await recorder.begin_cycle("{}", "sha256:1", NOW)
    await recorder.end_cycle(cycle, [Outcome(kick("@eve:example.com"), OutcomeStatus.HELD, "limit")], NOW)
    assert await connection.fetchval("select status from aim.cycles") == "done"


async def test_a_cycle_that_never_ended_was_interrupted(dsn: str, connection: asyncpg.Connection) -> None:
    async with open_recorder(dsn) as killed:
        lost = await killed.begin_cycle("{}", "sha256:1", NOW)
    async with open_recorder(dsn) as recorder:
        await recorder.begin_cycle("{}", "sha256:2", NOW)
        statuses = await connection.fetch("select status from aim.cycles order by id")
        assert [row["status"] for row in statuses] == ["interrupted", "running"]
        with pytest.raises(StoreError, match="not running"):
            await recorder.end_cycle(lost, [Outcome(kick("@eve:example.com"), OutcomeStatus.DONE)], NOW)
    assert await connection.fetchval("select count(*) from aim.outcomes") == 0


async def test_cycles_run_side_by_side(recorder: RecorderStore, connection: asyncpg.Connection) -> None:
    first = await recorder.begin_cycle("{}", "sha256:1", NOW)
    second = await recorder.begin_cycle("{}", "sha256:2", NOW)
    for cycle in (second, first):
        await recorder.end_cycle(cycle, [Outcome(kick("@eve:example.com"), OutcomeStatus.DONE)], NOW)
    statuses = await connection.fetch("select status from aim.cycles")
    assert [row["status"] for row in statuses] == ["done", "done"]


async def test_a_write_that_fails_leaves_nothing(recorder: RecorderStore) -> None:
    with pytest.raises(StoreError):
        await recorder.record_entitled({"engineering": ["ann"], "sales": ["nul\x00"]}, NOW)
    assert (await load(recorder)).entitled == {}


async def test_many_tasks_share_one_recorder(recorder: RecorderStore) -> None:
    await asyncio.gather(*(recorder.intend_room(f"room-{number}", NOW) for number in range(50)))
    assert len(await recorder.open_intents()) == 50


async def test_a_load_sees_one_moment(
    dsn: str, recorder: RecorderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recorder.record_room(ROOM, NOW)
    read_entitled = recorded._entitled

    async def meanwhile(connection: asyncpg.Connection, roster: Roster) -> object:
        await recorder.record_entitled({"engineering": ["ann"]}, NOW)
        await recorder.record_held(["kick engineering @x"])
        return await read_entitled(connection, roster)

    async with open_recorded(dsn) as reader:
        monkeypatch.setattr(recorded, "_entitled", meanwhile)
        assert await load(reader) == Recorded(fresh=False, rooms={"engineering": ROOM})
        monkeypatch.undo()
        after = await load(reader)
    assert set(after.entitled) == {"engineering"}
    assert after.held == {"kick engineering @x"}


WRITES_ROOMS = """
import asyncio, itertools, sys
from datetime import UTC, datetime
from aim.store.recorder import open_recorder
from aim.world.recorded import RecordedRoom

async def main():
    async with open_recorder(sys.argv[1]) as recorder:
        for number in itertools.count():
            room = RecordedRoom(f"room-{number}", "!r:example.com", None)
            await recorder.record_room(room, datetime.now(UTC))
            print(room.key, flush=True)

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill(dsn: str) -> None:
    async with neighbour(WRITES_ROOMS, dsn) as writer:
        acknowledged = {await writer.line() for _ in range(25)}
        await writer.kill()
    async with asyncio.timeout(30), open_recorder(dsn, wait=True) as recorder:
        assert acknowledged <= set((await load(recorder)).rooms)
    assert len(acknowledged) == 25


def methods(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def test_each_store_offers_its_port_and_nothing_else() -> None:
    assert methods(RecordedStore) == methods(NothingRecorded) == methods(RecordedReader)
    assert methods(RecorderStore) == methods(Recorder)
    assert methods(DecisionStore) == methods(RecordedReader) | {"approve", "rebind", "change_queue"}
