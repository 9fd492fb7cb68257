"""Transactions: what is believed, what is asked about, and that each counts once."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.errors import StoreError
from aim.matrix.mirror.memory import Memory
from aim.ports import MirrorChanges, MirroredRoom
from aim.world.rooms import MARKER_TYPE
from tests.unit.mirroring import CONTROL, HOME, Json, Server, Setting, key, local
from tests.unit.strategies import examples

ROOM, OTHER = "!a:example.com", "!b:example.com"
ANN, BEN, FAR = local("ann"), local("ben"), "@far:other.example"
MEMBER, NAME = "m.room.member", "m.room.name"


async def setting(*, room: bool = True) -> Setting:
    """A mirror in force, with one managed room in it that Ann is in."""
    found = await Setting().started()
    if room:
        found.server.make(ROOM, "a")
        found.server.member(ROOM, ANN, "invite", HOME.bot)
        found.server.member(ROOM, ANN, "join")
        found.server.event(ROOM, NAME, "", {"name": "A"})
        await found.server.deliver()
    found.forget()
    return found


def requests_for_rooms(server: Server) -> list[str]:
    return [name for name in server.asked if name.startswith(("rooms/", "joined_rooms"))]


async def test_a_room_of_ours_is_mirrored_from_its_birth_without_a_request() -> None:
    found = await setting()
    assert await found.is_true(ROOM)
    assert (found.server.asked, found.store.rooms) == ([], {ROOM: MirroredRoom(verified_at=found.now)})
    room = (await found.rooms())[ROOM]
    assert (room.key, room.bot, found.names(room.joined)) == ("a", "join", ["ann"])


async def test_what_happens_is_told_once_it_is_stored() -> None:
    found = await setting()
    found.server.member(ROOM, BEN, "invite", HOME.bot)
    await found.server.deliver()
    assert found.changed == [{ROOM}]
    assert found.store.memberships[key(ROOM, MEMBER, BEN)].membership == "invite"
    assert found.names((await found.rooms())[ROOM].invited) == ["ben"]
    assert requests_for_rooms(found.server) == []


async def test_a_repeated_transaction_changes_nothing() -> None:
    found = await setting()
    # Alone, the first of them would look like one that came late.
    events = [found.server.member(ROOM, ANN, "leave"), found.server.member(ROOM, ANN, "join")]
    await found.server.deliver(txn_id="9")
    writes = found.store.writes
    found.changed.clear()
    await found.mirror.take("9", events)
    assert (found.store.writes, found.changed, found.store.doubts) == (writes, [], set())
    assert await found.is_true(ROOM)


async def test_a_homeserver_that_counts_anew_is_heard() -> None:
    found = await setting()
    found.server.member(ROOM, BEN, "join")
    await found.server.deliver(txn_id="1")
    found.server.member(ROOM, BEN, "leave")
    await found.server.deliver(txn_id="1")
    assert await found.is_true(ROOM)
    assert requests_for_rooms(found.server) == []


async def test_what_is_known_already_changes_nothing() -> None:
    found = await setting()
    writes = found.store.writes
    again = list(found.server.state[ROOM].values())
    await found.mirror.take("again", again)
    assert (found.store.writes, found.changed, found.store.doubts) == (writes, [], set())


async def test_messages_and_the_rooms_of_others_are_dropped() -> None:
    found = await setting()
    writes = found.store.writes
    server = found.server
    server.make(OTHER, sender=ANN)
    server.event(OTHER, NAME, "", {"name": "Private"}, ANN)
    server.event(ROOM, "m.room.server_acl", "", {"allow": ["*"]})
    server.queue.append({"room_id": ROOM, "type": "m.room.message", "content": {"body": "hello"}})
    await server.deliver()
    assert (found.store.writes, found.changed) == (writes, [])
    assert set(found.store.rooms) == {ROOM}


@pytest.mark.parametrize("sender", [ANN, HOME.bot])
async def test_only_our_own_marker_makes_a_room_ours(sender: str) -> None:
    found = await setting(room=False)
    found.server.make(ROOM, "a", sender)
    await found.server.deliver()
    assert (ROOM in await found.rooms()) is (sender == HOME.bot)


async def test_an_event_that_does_not_follow_is_asked_about() -> None:
    found = await setting()
    found.server.event(ROOM, NAME, "", {"name": "lost on the way"})
    found.server.queue.clear()
    found.server.event(ROOM, NAME, "", {"name": "C"})
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, NAME)}
    assert found.changed == [{ROOM}]
    assert await found.is_true(ROOM)
    assert found.server.asked == [f"rooms/{ROOM}/state/{NAME}/"]
    assert found.store.doubts == set()


async def test_an_older_event_that_comes_late_is_not_believed() -> None:
    found = await setting()
    late = found.server.member(ROOM, BEN, "invite", HOME.bot)
    found.server.queue.clear()
    found.server.member(ROOM, BEN, "join")
    found.server.queue[0].pop("unsigned")
    await found.server.deliver()
    found.server.queue = [late]
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, MEMBER, BEN)}
    assert found.store.memberships[key(ROOM, MEMBER, BEN)].membership == "join"
    assert await found.is_true(ROOM)


async def test_what_is_in_doubt_stays_in_doubt_until_it_is_read() -> None:
    found = await setting()
    first = found.server.event(ROOM, NAME, "", {"name": "B"})
    await found.server.deliver()
    found.server.redact(first)
    await found.server.deliver()
    found.server.event(ROOM, NAME, "", {"name": "C"})
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, NAME)}
    assert found.store.events[key(ROOM, NAME)].content == '{"name":"B"}'
    assert await found.is_true(ROOM)


async def test_a_redacted_state_is_read_again_and_a_redacted_message_is_not() -> None:
    found = await setting()
    found.server.redact({"room_id": ROOM, "event_id": "$message"})
    await found.server.deliver()
    assert found.store.doubts == set()
    for redacted in (found.server.state[ROOM][NAME, ""], found.server.state[ROOM][MEMBER, ANN]):
        found.server.redact(redacted)
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, NAME), key(ROOM, MEMBER, ANN)}
    assert await found.is_true(ROOM)


async def test_a_state_event_redacted_in_the_same_transaction_is_read_again() -> None:
    found = await setting()
    found.server.redact(found.server.event(ROOM, "m.room.topic", "", {"topic": "rude"}))
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, "m.room.topic")}
    assert await found.is_true(ROOM)


async def test_with_members_of_other_servers_nothing_is_believed_unasked() -> None:
    found = await setting()
    found.server.member(ROOM, FAR, "invite", HOME.bot)
    found.server.member(ROOM, BEN, "join")
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, MEMBER, BEN)}
    found.server.member(ROOM, FAR, "join")
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, MEMBER, BEN), key(ROOM, MEMBER, FAR)}
    # State resolution took Ben's join back, and tells nobody.
    del found.server.state[ROOM][MEMBER, BEN]
    assert await found.is_true(ROOM)
    assert (await found.rooms())[ROOM].foreign == {FAR}
    found.server.member(ROOM, FAR, "leave", HOME.bot)
    await found.server.deliver()
    assert await found.is_true(ROOM)
    found.forget()
    found.server.member(ROOM, BEN, "join")
    await found.server.deliver()
    assert await found.is_true(ROOM)
    assert found.server.asked == []


async def test_what_somebody_of_another_server_does_is_asked_about() -> None:
    found = await setting()
    found.server.member(ROOM, FAR, "knock")
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, MEMBER, FAR)}


async def test_a_room_that_the_bot_joins_is_read_and_forgotten_if_it_is_none_of_ours() -> None:
    found = await setting()
    found.server.make(OTHER, sender=ANN)
    found.server.queue.clear()
    found.server.member(OTHER, HOME.bot, "join")
    await found.server.deliver()
    assert found.store.rooms[OTHER] == MirroredRoom(stale=True)
    assert found.changed == [{OTHER}]
    assert set(await found.rooms()) == {ROOM}
    assert found.server.asked == [f"rooms/{OTHER}/state"]
    assert set(found.store.rooms) == {ROOM}
    found.forget()
    found.server.event(OTHER, NAME, "", {"name": "Private"}, ANN)
    await found.server.deliver()
    assert (found.changed, found.server.asked) == ([], [])


async def test_a_room_that_the_bot_takes_over_becomes_ours() -> None:
    found = await setting()
    found.server.make(OTHER, sender=ANN)
    found.server.member(OTHER, HOME.bot, "join")
    await found.server.deliver()
    await found.rooms()
    content: Json = {"version": 1, "instance": "aim", "key": OTHER, "creator": ANN}
    marker = found.server.event(OTHER, MARKER_TYPE, HOME.bot, content)
    await found.server.deliver()
    assert (await found.rooms())[OTHER].marker is not None
    assert await found.is_true(OTHER)
    # Once ours, it stays in sight when the marker is redacted: it is to be written again.
    found.server.redact(marker)
    await found.server.deliver()
    observed = await found.observe(known={OTHER: OTHER})
    assert (set(observed.rooms), set(observed.unmanaged)) == ({"a"}, {OTHER})
    found.mirror.mark_stale(OTHER)
    assert set((await found.observe(known={OTHER: OTHER})).unmanaged) == {OTHER}


async def test_a_room_that_we_were_kicked_from_stays_as_we_last_saw_it() -> None:
    found = await setting()
    found.server.member(ROOM, HOME.bot, "leave", ANN)
    await found.server.deliver()
    [before] = (await found.observe(known={"any": ROOM})).rooms.values()
    assert before.bot == "leave"
    found.mirror.mark_stale(ROOM)
    [room] = (await found.observe(known={"any": ROOM})).rooms.values()
    assert (room.bot, found.names(room.joined)) == ("leave", ["ann"])


async def test_a_room_that_we_left_and_do_not_remember_is_no_longer_ours() -> None:
    found = await setting()
    found.server.member(ROOM, HOME.bot, "leave")
    await found.server.deliver()
    assert (await found.observe()).rooms == {}


async def test_a_room_that_the_bot_comes_back_to_is_read() -> None:
    found = await setting()
    found.server.member(ROOM, HOME.bot, "leave", ANN)
    await found.server.deliver()
    found.server.member(ROOM, BEN, "join")
    found.server.queue.clear()
    found.server.member(ROOM, HOME.bot, "invite", ANN)
    found.server.member(ROOM, HOME.bot, "join")
    await found.server.deliver()
    assert found.store.rooms[ROOM].stale
    assert await found.is_true(ROOM)
    assert found.server.asked == [f"rooms/{ROOM}/state"]


async def test_events_that_make_no_sense_are_skipped_and_the_others_taken() -> None:
    found = await setting()
    good = found.server.event(ROOM, NAME, "", {"name": "B"})
    odd: list[Json] = [{"content": 5}, {"event_id": None}, {"state_key": 7}, {"room_id": []}]
    await found.mirror.take("odd", [None, 5, [], "x", *({**good, **change} for change in odd), good])
    assert await found.is_true(ROOM)
    none_at_all: list[object] = [None, 5, {}, "text", [[]]]
    for events in none_at_all:
        await found.mirror.take("odd", events)


async def test_events_that_make_no_sense_are_logged_without_what_is_in_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = await setting()
    with caplog.at_level("WARNING", "aim.mirror"):
        await found.mirror.take("odd", [{"secret": "hello", "state_key": "", "room_id": 5}, "hello"])
    assert [record.getMessage() for record in caplog.records] == [
        "2 events of a transaction can't be understood and are skipped"
    ]


async def test_a_transaction_that_can_not_be_stored_was_not_taken() -> None:
    found = await setting()
    found.store.failing = True
    event = found.server.event(ROOM, NAME, "", {"name": "B"})
    with pytest.raises(StoreError):
        await found.server.deliver(txn_id="9")
    assert (found.mirror.current, found.changed) == (False, [])
    found.store.failing = False
    await found.mirror.take("9", [event])
    assert await found.mirror.barrier()
    assert (found.mirror.current, found.changed) == (True, [{ROOM}])
    assert await found.is_true(ROOM)


async def test_what_is_stored_is_what_is_in_memory() -> None:
    found = await setting()
    found.server.member(ROOM, FAR, "invite", HOME.bot)
    found.server.member(ROOM, BEN, "leave")
    found.server.member(ROOM, local("eve"), "ban", HOME.bot)
    await found.server.deliver()
    told = await found.rooms()
    other = Setting(found.server, found.store)
    other.roster = found.roster
    memory = Memory(HOME, found.roster)
    await memory.load(found.store)
    assert {room.room_id: room for room in memory.rooms()} == told
    assert memory.facts == found.store.facts


async def test_the_counter_comes_back_only_from_our_own_hand() -> None:
    found = await setting()
    seen = found.store.facts.counter_seen
    for sender, room_id in ((ANN, CONTROL), (HOME.bot, ROOM)):
        found.server.event(room_id, "aim.control", "", {"counter": seen + 5}, sender)
    await found.server.deliver()
    assert found.store.facts.counter_seen == seen
    found.server.event(CONTROL, "aim.control", "", {"counter": seen + 1})
    await found.server.deliver()
    assert found.store.facts.counter_seen == seen + 1


# -- whatever the stream does --------------------------------------------------------------------------------

happenings = st.tuples(
    st.sampled_from([ROOM, OTHER]),
    st.sampled_from([ANN, BEN, FAR, NAME, "m.room.topic"]),
    st.sampled_from(["join", "invite", "leave", "ban"]),
)


@examples(150)
@given(
    st.lists(happenings, max_size=14),
    st.lists(st.integers(0, 40), max_size=20),
    st.randoms(use_true_random=False),
    st.booleans(),
)
async def test_repeated_and_disordered_transactions_come_to_the_truth(
    what: list[tuple[str, str, str]], repeated: list[int], order: object, replaces: bool
) -> None:
    found = await Setting().started()
    server = found.server
    server.make(ROOM, "a")
    server.make(OTHER, "b")
    await server.deliver()
    for room_id, who, how in what:
        if who.startswith("@"):
            server.member(room_id, who, how, who if how in {"join", "leave"} else HOME.bot)
        else:
            server.event(room_id, who, "", {"name": how, "topic": how})
    events, server.queue = server.queue, []
    events += [events[number] for number in repeated if number < len(events)]
    order.shuffle(events)  # type: ignore[attr-defined]  # a random.Random, which this package may not import
    for number, event in enumerate(events):
        shown = event if replaces else {name: value for name, value in event.items() if name != "unsigned"}
        await found.mirror.take(f"t{number}", [shown])
    assert await found.is_true(ROOM, OTHER)
    assert found.store.doubts == set()


async def test_a_room_that_is_read_and_as_it_was_is_nothing_to_look_at() -> None:
    """Else whoever looks at what changed would read it again, for ever."""
    found = await setting()
    found.changed.clear()
    found.mirror.mark_stale(ROOM)
    await found.mirror.refresh()
    assert found.server.asked != []
    assert found.changed == []


@pytest.mark.parametrize("asked", ["compare", "record", "members_of"])
async def test_what_is_asked_of_the_store_goes_on_when_who_asks_is_cancelled(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await setting()
    original, begun, ended = getattr(found.store, asked), asyncio.Event(), list[str]()

    async def slow(*arguments: object) -> object:
        begun.set()
        for _ in range(5):
            await asyncio.sleep(0)
        answer = await original(*arguments)
        ended.append(asked)
        return answer

    monkeypatch.setattr(found.store, asked, slow)
    task: asyncio.Task[object]
    if asked == "members_of":
        found.mirror.mark_stale(ROOM)
        task = asyncio.create_task(found.mirror.refresh())
    else:
        found.server.member(ROOM, BEN, "join")
        task = asyncio.create_task(found.server.deliver(txn_id="9"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [asked]
    # What is stored is in memory, too; what is not is sent again.
    stored = found.store.memberships.get(key(ROOM, MEMBER, BEN))
    told = found.names((await found.rooms())[ROOM].joined)
    assert ("ben" in told) == (stored is not None) == (asked == "record")


async def test_names_are_told_even_if_who_takes_them_is_cancelled() -> None:
    found = await setting()
    names: dict[str, str | None] = {}
    found.mirror._on_names = names.update
    original, begun = found.store.record, asyncio.Event()

    async def record(changes: MirrorChanges, now: datetime) -> None:
        begun.set()
        await original(changes, now)

    found.store.record = record  # type: ignore[method-assign]  # it tells when it has begun
    content: Json = {"membership": "join", "displayname": "Benjamin"}
    found.server.event(ROOM, MEMBER, BEN, content, BEN)
    taking = asyncio.create_task(found.server.deliver())
    await begun.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert key(ROOM, MEMBER, BEN) in found.store.memberships, "it is not sent again"
    assert names == {"ben": "Benjamin"}
