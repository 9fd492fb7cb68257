"""The port MirrorStore: the real one over Postgres, and the fake that the unit tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from aim.directory.roster import Roster
from aim.errors import StoreError
from aim.matrix.mirror.keeper import Keeper
from aim.matrix.mirror.memory import Memory
from aim.ports import (
    MemberKind,
    MirrorChanges,
    MirroredRoom,
    MirrorFacts,
    MirrorRecord,
    MirrorStore,
    Stamp,
    StateKey,
    StoredEvent,
    StoredMember,
    StoredMembers,
)
from aim.store import open_writer
from aim.store.mirror import KEEP_TRANSACTIONS
from aim.store.recorder import open_recorder
from tests.unit.mirroring import HOME, HOUR, NOW, FakeMirrorStore

ROOM, OTHER = "!a:example.com", "!b:example.com"
BOT = "@aim:example.com"
NAME = StateKey(ROOM, "m.room.name", "")


def member(user: str, membership: str, *, own: bool = False, room: str = ROOM, sent: int = 5) -> StoredMember:
    key = StateKey(room, "m.room.member", user)
    return StoredMember(key, Stamp(f"${room}{user}{membership}", sent), membership, own)


def event(content: str = "{}", key: StateKey = NAME) -> StoredEvent:
    return StoredEvent(key, Stamp("$e", 2**62), BOT, content)


@pytest.fixture(params=["postgres", "fake"])
async def store(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[MirrorStore]:
    if request.param == "fake":
        yield FakeMirrorStore()
        return
    async with open_recorder(dsn) as recorder:
        yield recorder.mirror


async def groups(store: MirrorStore) -> list[StoredMembers]:
    """All groups, in an order of their own."""
    found = []
    async for group in store.members("example.com", BOT):
        pairs = sorted(zip(group.names, group.sent or [0] * len(group.names), strict=True))
        names, sent = [name for name, _ in pairs], [time for _, time in pairs]
        found.append(StoredMembers(group.room_id, group.membership, group.kind, names, sent))
    return sorted(found, key=lambda group: (group.room_id, group.membership, group.kind))


async def test_a_new_mirror_is_empty(store: MirrorStore) -> None:
    contents = await store.load()
    assert contents.facts == MirrorFacts(complete=False, is_current=False)
    assert (contents.rooms, list(contents.events), list(contents.doubts)) == ({}, [], [])
    assert (list(contents.accounts), await groups(store)) == ([], [])


async def test_what_is_recorded_is_loaded(store: MirrorStore) -> None:
    rooms = {ROOM: MirroredRoom(stale=True), OTHER: MirroredRoom(verified_at=NOW)}
    hostile = event('{"name":"\\u0000 \\ud800 \\u00fc"}')
    doubts = [StateKey(ROOM, "m.room.topic", ""), StateKey(OTHER, "m.room.member", "@ü:example.com")]
    await store.record(
        MirrorChanges(rooms=rooms, events=[hostile], doubts=doubts, accounts=["ann", "ben"]), NOW
    )
    contents = await store.load()
    assert contents.rooms == rooms
    assert list(contents.events) == [hostile]
    assert set(contents.doubts) == set(doubts)
    assert sorted(contents.accounts) == ["ann", "ben"]


async def test_members_come_in_groups(store: MirrorStore) -> None:
    members = [
        member("@ann:example.com", "join"),
        member("@ben:example.com", "join", own=True),
        member("@ann:example.com", "invite", room=OTHER),
        member("@eve:example.com", "leave", own=True, sent=7),
        member("@max:example.com", "leave"),
        member("@far:example.com:8448", "join", own=True),
        member(BOT, "leave", room=OTHER),
        member(BOT, "join", own=True),
    ]
    await store.record(MirrorChanges(members=members), NOW)
    assert await groups(store) == [
        StoredMembers(ROOM, "join", MemberKind.BOT, [BOT], [0]),
        StoredMembers(ROOM, "join", MemberKind.FOREIGN, ["@far:example.com:8448"], [0]),
        StoredMembers(ROOM, "join", MemberKind.LOCAL, ["ann", "ben"], [0, 0]),
        StoredMembers(ROOM, "leave", MemberKind.LOCAL, ["eve"], [7]),
        StoredMembers(OTHER, "invite", MemberKind.LOCAL, ["ann"], [0]),
        StoredMembers(OTHER, "leave", MemberKind.BOT, [BOT], [5]),
    ]
    assert await store.members_of(OTHER) == {found.key: found for found in (members[2], members[6])}


async def test_what_comes_later_replaces_what_was(store: MirrorStore) -> None:
    before, after = member("@ann:example.com", "invite"), member("@ann:example.com", "join", own=True, sent=9)
    await store.record(MirrorChanges(rooms={ROOM: MirroredRoom(stale=True)}, events=[event()]), NOW)
    await store.record(MirrorChanges(members=[before]), NOW)
    changed = event('{"name":"B"}')
    rooms = {ROOM: MirroredRoom(verified_at=NOW)}
    await store.record(MirrorChanges(rooms=rooms, events=[changed], members=[after]), NOW)
    contents = await store.load()
    assert (contents.rooms, list(contents.events)) == (rooms, [changed])
    assert await store.members_of(ROOM) == {after.key: after}


async def test_single_keys_go(store: MirrorStore) -> None:
    ann, ben = member("@ann:example.com", "join"), member("@ben:example.com", "join")
    topic = event(key=StateKey(ROOM, "m.room.topic", ""))
    await store.record(MirrorChanges(events=[event(), topic], members=[ann, ben]), NOW)
    never = StateKey(OTHER, "m.room.name", "")
    await store.record(MirrorChanges(gone=[NAME, ann.key, never]), NOW)
    assert list((await store.load()).events) == [topic]
    assert await store.members_of(ROOM) == {ben.key: ben}


async def test_doubts_are_settled_before_new_ones_are_kept(store: MirrorStore) -> None:
    topic = StateKey(ROOM, "m.room.topic", "")
    await store.record(MirrorChanges(doubts=[NAME, topic]), NOW)
    await store.record(MirrorChanges(settled=[NAME, topic], doubts=[NAME]), NOW)
    await store.record(MirrorChanges(doubts=[NAME]), NOW)
    assert list((await store.load()).doubts) == [NAME]


async def test_a_dropped_room_leaves_nothing(store: MirrorStore) -> None:
    ann = member("@ann:example.com", "join", room=OTHER)
    rooms = {ROOM: MirroredRoom(), OTHER: MirroredRoom()}
    members = [member("@ann:example.com", "join"), ann]
    await store.record(MirrorChanges(rooms=rooms, events=[event()], members=members, doubts=[NAME]), NOW)
    await store.record(MirrorChanges(dropped=[ROOM]), NOW)
    contents = await store.load()
    assert contents.rooms == {OTHER: MirroredRoom()}
    assert (list(contents.events), list(contents.doubts)) == ([], [])
    assert await store.members_of(ROOM) == {}
    assert await store.members_of(OTHER) == {ann.key: ann}


async def test_accounts_add_up_or_are_replaced(store: MirrorStore) -> None:
    await store.record(MirrorChanges(accounts=["ann", "ben"]), NOW)
    await store.record(MirrorChanges(accounts=["ben", "eve"]), NOW)
    assert sorted((await store.load()).accounts) == ["ann", "ben", "eve"]
    await store.record(MirrorChanges(accounts=["eve", "max"], only_these_accounts=True), NOW)
    assert sorted((await store.load()).accounts) == ["eve", "max"]


async def test_facts_stay_until_others_are_told_and_counters_only_grow(store: MirrorStore) -> None:
    first = MirrorFacts(
        control_room="!c:example.com",
        counter_sent=5,
        counter_seen=4,
        complete=True,
        is_current=True,
        accounts_read_at=NOW,
        default_room_version="12",
    )
    await store.record(MirrorChanges(facts=first), NOW)
    await store.record(MirrorChanges(facts=MirrorFacts(counter_sent=3, counter_seen=5)), NOW)
    facts = (await store.load()).facts
    assert facts == first.changed_by(MirrorFacts(counter_seen=5))
    assert (facts.counter_sent, facts.counter_seen, facts.control_room) == (5, 5, "!c:example.com")
    await store.record(MirrorChanges(facts=MirrorFacts(complete=False)), NOW)
    assert (await store.load()).facts.complete is False


async def test_a_transaction_is_compared_with_what_is_stored(store: MirrorStore) -> None:
    ann, ben = member("@ann:example.com", "join"), member("@ben:example.com", "join", sent=8)
    assert await store.compare("1", [ann.key], ["$x"]) == MirrorRecord(None, {}, set())
    await store.record(MirrorChanges(transaction=("1", "abc"), members=[ann, ben]), NOW)
    record = await store.compare("1", [ann.key, StateKey(OTHER, ann.key.type, ann.key.state_key)], [])
    assert record == MirrorRecord("abc", {ann.key: ann.stamp}, set())
    record = await store.compare("2", [], [ben.stamp.event_id, "$message"])
    assert (record.digest, set(record.redacted)) == (None, {ben.key})
    await store.record(MirrorChanges(transaction=("1", "def"), doubts=[NAME]), NOW)
    assert (await store.compare("1", [], [])).digest == "def"


@pytest.fixture
async def plain(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def test_changes_are_recorded_together_or_not_at_all(dsn: str, plain: asyncpg.Connection) -> None:
    async with open_recorder(dsn) as recorder:
        impossible = member("@nul\x00:example.com", "join")
        with pytest.raises(StoreError):
            await recorder.mirror.record(
                MirrorChanges(transaction=("1", "abc"), events=[event()], members=[impossible]), NOW
            )
        assert list((await recorder.mirror.load()).events) == []
        assert await plain.fetchval("select count(*) from aim.transactions") == 0


async def test_old_transactions_are_forgotten(dsn: str, plain: asyncpg.Connection) -> None:
    async with open_recorder(dsn) as recorder:
        await recorder.mirror.record(MirrorChanges(transaction=("1", "a"), doubts=[NAME]), NOW)
        await recorder.mirror.record(MirrorChanges(transaction=("2", "b"), doubts=[NAME]), NOW + HOUR)
    later = NOW + KEEP_TRANSACTIONS + timedelta(minutes=1)
    async with open_recorder(dsn) as recorder:
        await recorder.mirror.record(MirrorChanges(transaction=("3", "c"), doubts=[NAME]), later)
    rows = await plain.fetch("select txn_id from aim.transactions order by txn_id")
    assert [row["txn_id"] for row in rows] == ["2", "3"]


async def test_whoever_writes_has_it(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_writer(dsn, tmp_path_factory.mktemp("data")) as recorder:
        await recorder.mirror.record(MirrorChanges(accounts=["ann"]), NOW)
        assert list((await recorder.mirror.load()).accounts) == ["ann"]


async def test_a_room_of_a_hundred_thousand_is_kept_and_loaded(dsn: str) -> None:
    names = [f"user{number:06}" for number in range(100_000)]
    async with open_recorder(dsn) as recorder:
        members = [member(f"@{name}:example.com", "join") for name in names]
        await recorder.mirror.record(MirrorChanges(members=members), NOW)
        found = await groups(recorder.mirror)
    assert [group.names for group in found] == [names]


async def test_who_is_cancelled_takes_neither_the_connection_nor_what_is_stored_along(dsn: str) -> None:
    async with open_recorder(dsn) as recorder:
        memory = Memory(HOME, Roster())
        keeper = Keeper(memory, recorder.mirror, lambda: NOW, lambda _: None)
        await keeper.load()
        await keeper.record(MirrorChanges(rooms={ROOM: MirroredRoom(verified_at=NOW)}))

        for turns in range(60):
            joins = MirrorChanges(members=[member(f"@p{turns}:example.com", "join")])
            task = asyncio.create_task(keeper.record(joins))
            for _ in range(turns // 2):
                # At every other moment there is, and where the database has just answered.
                await asyncio.sleep(0 if turns % 2 else 0.0002)
            task.cancel()
            await asyncio.wait([task])
        stored = {key.state_key for key in await recorder.mirror.members_of(ROOM)}
    joined = memory.roster.localparts(memory.copies[ROOM].members.sets["join"])
    assert {f"@{name}:example.com" for name in joined} == stored
