"""What the mirror reads: at first, what is in question, slowly in the background; and about accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from aim.errors import HomeserverError, HomeserverRefused, HomeserverUnavailable
from aim.matrix.mirror.mirror import FENCE_EVERY
from aim.matrix.mirror.patience import Patience
from aim.matrix.mirror.people import WHOLE_LIST
from aim.matrix.mirror.reading import LEFT_FOR, MANY_DOUBTS, PUT_OFF, TRIES
from aim.ports import MirrorChanges, MirroredRoom
from aim.world.rooms import Observed
from tests.unit.mirroring import CONTROL, HOME, FakeMirrorStore, Server, Setting, key, local, refuse

ROOM, OTHER, THIRD = "!a:example.com", "!b:example.com", "!c:example.com"
ANN, BEN, FAR = local("ann"), local("ben"), "@far:other.example"
MEMBER, NAME = "m.room.member", "m.room.name"
DAY = timedelta(days=1)


def populated(*rooms: str) -> Server:
    """A homeserver with managed rooms that nobody was told of."""
    server = Server()
    for room_id in rooms:
        server.make(room_id, room_id)
        server.member(room_id, ANN, "join")
        server.event(room_id, NAME, "", {"name": room_id})
    server.queue.clear()
    return server


async def setting(*rooms: str) -> Setting:
    return await Setting(populated(*(rooms or (ROOM,)))).started()


def failing(room_id: str, error: HomeserverError) -> Callable[[str], None]:
    """All that is asked of this room ends with `error`."""

    def fail(path: str) -> None:
        if f"rooms/{room_id}/" in path:
            raise error

    return fail


def after_each(server: Server, act: Callable[[str], Awaitable[None]]) -> None:
    """`act` is done, with the path, after each GET was answered and before the answer arrives."""
    original = server.get

    async def get(*arguments: object, **named: object) -> object:
        before = len(server.asked)
        answer = await original(*arguments, **named)  # type: ignore[arg-type]  # handed on as they come
        await act(server.asked[before])
        return answer

    server.get = get  # type: ignore[method-assign]  # the answer comes late


class Gate:
    """Keeps the answers about one room back until it is opened."""

    def __init__(self, server: Server, room_id: str) -> None:
        self._room_id = room_id
        self._opened = asyncio.Event()
        self.reached = asyncio.Event()
        after_each(server, self._pass)

    async def _pass(self, path: str) -> None:
        if path.startswith(f"rooms/{self._room_id}/"):
            self.reached.set()
            await self._opened.wait()

    def open(self) -> None:
        self._opened.set()


def reads(server: Server) -> list[str]:
    """Requests for rooms."""
    return [name for name in server.asked if name.startswith(("rooms/", "joined_rooms"))]


# -- the whole -----------------------------------------------------------------------------------------------


async def test_the_first_start_reads_every_room_once() -> None:
    found = Setting(populated(ROOM, OTHER))
    found.server.make(THIRD)
    found.server.queue.clear()
    await found.mirror.load()
    await found.mirror.begin("aim")
    found.forget()
    assert await found.is_true(ROOM, OTHER)
    assert reads(found.server) == ["joined_rooms", *(f"rooms/{room}/state" for room in (ROOM, OTHER, THIRD))]
    assert set(found.store.rooms) == {ROOM, OTHER}
    assert found.store.facts.complete
    assert found.differences == []


async def test_a_later_start_reads_no_room() -> None:
    before = await setting(ROOM, OTHER)
    found = Setting(before.server, before.store)
    before.server.asked.clear()
    await found.mirror.load()
    await found.mirror.begin("aim")
    assert found.mirror.current
    assert await found.is_true(ROOM, OTHER)
    assert found.server.asked == [
        f"rooms/{CONTROL}/state/aim.control",
        "POST _matrix/client/v1/appservice/aim/ping",
        "capabilities",
        f"PUT rooms/{CONTROL}/state/aim.control",
        "_synapse/admin/v3/users",
    ]
    found.forget()
    writes = found.store.writes
    await found.observe()
    assert (found.server.asked, found.store.writes) == ([], writes)


async def test_a_start_that_was_interrupted_reads_everything() -> None:
    found = Setting(populated(ROOM, OTHER))
    await found.mirror.load()
    await found.mirror.begin("aim")

    def fail(path: str) -> None:
        if path == f"rooms/{OTHER}/state":
            raise HomeserverUnavailable("gone")

    found.server.before_answer = fail
    with pytest.raises(HomeserverUnavailable):
        await found.observe()
    assert not found.store.facts.complete
    found.server.before_answer = None
    after = Setting(found.server, found.store)
    found.server.member(ROOM, BEN, "join")
    found.server.queue.clear()
    await after.mirror.load()
    await after.mirror.begin("aim")
    assert await after.is_true(ROOM, OTHER)


async def reading_everything(found: Setting, room_id: str) -> tuple[Gate, asyncio.Task[Observed]]:
    """The stream is lost, and everything is being read: all but that room is."""
    found.server.mute = True
    assert not await found.mirror.barrier(0)
    found.server.mute = False
    gate = Gate(found.server, room_id)
    looking = asyncio.create_task(found.observe())
    await gate.reached.wait()
    return gate, looking


async def test_what_comes_into_question_while_everything_is_read_is_not_complete() -> None:
    found = await setting(ROOM, OTHER)
    gate, looking = await reading_everything(found, OTHER)
    # Another one of us has counted on: the database is an older one.
    found.server.event(CONTROL, "aim.control", "", {"counter": 100})
    found.server.queue.clear()
    # The keeper begins the mirror again, while ROOM is read already and OTHER is not.
    await found.mirror.begin("aim")
    gate.open()
    observed = await looking
    assert found.mirror.current
    assert set(observed.unseen) == {ROOM}, "what is told of it may be older than the stream"
    assert not found.store.facts.complete
    found.server.member(ROOM, BEN, "join")
    await found.server.deliver()
    # Killed here: what was not taken, as the room is read anyway, must not be lost.
    after = Setting(found.server, found.store)
    await after.mirror.load()
    await after.mirror.begin("aim")
    assert await after.is_true(ROOM, OTHER)
    assert await found.is_true(ROOM, OTHER)
    assert found.store.facts.complete


async def test_a_mirror_that_is_begun_again_while_everything_is_read_is_complete_afterwards() -> None:
    found = await setting(ROOM, OTHER)
    gate, looking = await reading_everything(found, OTHER)
    for _ in range(2):
        await found.mirror.begin("aim")
        found.server.member(ROOM, BEN, "join")
        found.server.member(OTHER, BEN, "join")
        await found.server.deliver()
    gate.open()
    observed = await looking
    assert (observed.unseen, found.store.facts.complete, found.mirror.current) == ({}, True, True)
    found.forget()
    assert await found.is_true(ROOM, OTHER)
    assert found.server.asked == []


async def test_a_mirror_that_is_begun_again_after_a_reading_that_failed_is_in_question() -> None:
    found = await setting(ROOM, OTHER)
    gate, looking = await reading_everything(found, OTHER)
    looking.cancel()
    await asyncio.wait([looking])
    gate.open()
    await found.mirror.begin("aim")
    found.forget()
    assert await found.is_true(ROOM, OTHER)
    assert reads(found.server) == ["joined_rooms", *(f"rooms/{room}/state" for room in (ROOM, OTHER))]


async def test_without_a_stream_each_look_reads_everything() -> None:
    found = Setting(populated(ROOM))
    await found.mirror.load()
    for name in ("A", "B"):
        found.server.event(ROOM, NAME, "", {"name": name})
        found.server.queue.clear()
        assert await found.is_true(ROOM)
    assert not found.mirror.current


async def test_only_what_is_asked_for_is_read() -> None:
    found = await setting(ROOM, OTHER)
    for room_id in (ROOM, OTHER):
        found.mirror.mark_stale(room_id)
    await found.mirror.refresh({OTHER})
    assert reads(found.server) == [f"rooms/{OTHER}/state"]
    await found.mirror.refresh()
    assert reads(found.server) == [f"rooms/{OTHER}/state", f"rooms/{ROOM}/state"]


async def test_a_room_without_our_marker_is_looked_at_if_wanted() -> None:
    found = await setting()
    found.server.make(OTHER, sender=ANN)
    found.server.member(OTHER, HOME.bot, "join")
    found.server.queue.clear()
    found.mirror.want([OTHER, THIRD])
    observed = await found.observe()
    assert observed.unmanaged == {OTHER: found.server.truth(OTHER, found.roster)}
    assert set(observed.unseen) == {THIRD}
    found.forget()
    found.server.member(OTHER, BEN, "join")
    await found.server.deliver()
    observed = await found.observe()
    assert observed.unmanaged == {OTHER: found.server.truth(OTHER, found.roster)}
    assert found.server.asked == []
    found.server.member(OTHER, HOME.bot, "leave")
    await found.server.deliver()
    assert (await found.observe()).unmanaged == {}
    assert OTHER not in found.store.rooms


async def with_a_strangers_room() -> Setting:
    """ROOM is a space of ours, and OTHER, in which the bot is not, was put into it."""
    server = Server()
    server.make(ROOM, ROOM, kind="m.space")
    server.event(ROOM, "m.space.child", OTHER, {"via": ["example.com"]}, ANN)
    server.queue.clear()
    found = Setting(server)
    await found.mirror.load()
    await found.mirror.begin("aim")
    return found


async def test_what_we_did_in_a_room_that_is_not_mirrored_is_looked_for_once() -> None:
    found = await with_a_strangers_room()
    looks: list[int] = []
    for marked in (None, None, OTHER, None, ROOM):
        found.forget()
        if marked is not None:
            found.mirror.mark_stale(marked)
        await found.observe()
        looks.append(sum(name.endswith("/hierarchy") for name in found.server.asked))
        assert f"rooms/{OTHER}/state" not in found.server.asked, "the bot is not in it"
    assert looks == [1, 0, 1, 0, 0]


async def test_what_was_done_while_it_was_looked_around_is_looked_for_again() -> None:
    found = await with_a_strangers_room()

    def act(path: str) -> None:
        if path.endswith("/hierarchy"):
            found.server.before_answer = None
            found.mirror.mark_stale(OTHER)

    found.server.before_answer = act
    await found.observe()
    found.forget()
    await found.observe()
    assert any(name.endswith("/hierarchy") for name in found.server.asked)


async def test_an_answer_that_is_no_state_is_no_empty_room() -> None:
    found = await setting()
    found.mirror.mark_stale(ROOM)
    del found.server.state[ROOM]["m.room.create", ""]
    assert set(await found.rooms()) == {ROOM}
    assert reads(found.server) == [f"rooms/{ROOM}/state", "joined_rooms"]
    assert key(ROOM, NAME) in found.store.events


@pytest.mark.parametrize(("status", "code"), [(403, "M_FORBIDDEN"), (404, "M_NOT_FOUND")])
async def test_a_room_that_is_refused_is_mirrored_no_longer(status: int, code: str) -> None:
    found = await setting()

    def fail(path: str) -> None:
        if path != "joined_rooms":
            raise refuse(status, code)

    found.server.before_answer = fail
    del found.server.state[ROOM]
    found.server.state[ROOM] = {}
    found.mirror.mark_stale(ROOM)
    assert await found.rooms() == {}
    assert (found.store.rooms, found.store.events, found.store.memberships) == ({}, {}, {})
    assert found.differences == [(ROOM, 1)]


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, None), (403, None), (404, "M_UNRECOGNIZED"), (403, "M_FORBIDDEN"), (404, "M_NOT_FOUND")],
)
@pytest.mark.parametrize("recorded", [False, True])
async def test_a_room_that_the_bot_is_in_is_not_dropped_for_one_refusal(
    status: int, code: str | None, *, recorded: bool
) -> None:
    found = await setting(ROOM, OTHER)
    known = {ROOM: ROOM} if recorded else {}
    found.server.before_answer = failing(ROOM, HomeserverRefused("no", status=status, errcode=code))
    found.now += DAY
    await found.mirror.verify_next(DAY)
    assert f"rooms/{ROOM}/state" in found.server.asked
    assert set((await found.observe(known=known)).rooms) == {ROOM, OTHER}
    assert found.differences == []
    assert set(found.store.rooms) == {ROOM, OTHER}
    found.server.before_answer = None
    found.server.member(ROOM, BEN, "join")
    await found.server.deliver()
    assert await found.is_true(ROOM)


async def test_a_doubt_that_a_proxy_answers_stays_a_doubt() -> None:
    found = await setting()
    found.server.redact(found.server.state[ROOM][NAME, ""])
    await found.server.deliver()
    found.server.before_answer = failing(ROOM, HomeserverRefused("no", status=404))
    assert (await found.rooms())[ROOM].state == {NAME: {"name": ROOM}}
    assert found.store.doubts == {key(ROOM, NAME)}
    found.server.before_answer = None
    found.now += PUT_OFF
    assert await found.is_true(ROOM)
    assert found.store.doubts == set()


async def test_another_refusal_is_an_error() -> None:
    found = await setting()

    def fail(path: str) -> None:
        raise refuse(401, "M_UNKNOWN_TOKEN")

    found.server.before_answer = fail
    found.mirror.mark_stale(ROOM)
    with pytest.raises(HomeserverRefused):
        await found.observe()
    assert ROOM in found.store.rooms


# -- rooms that are broken -----------------------------------------------------------------------------------

BROKEN = HomeserverUnavailable("500 M_UNKNOWN")


async def test_one_broken_room_keeps_nobody_up() -> None:
    found = await setting(ROOM, OTHER)
    found.server.before_answer = failing(ROOM, BROKEN)
    for room_id in (ROOM, OTHER):
        found.mirror.mark_stale(room_id)
    found.server.member(OTHER, BEN, "join")
    found.server.queue.clear()
    observed = await found.observe()
    assert set(observed.rooms) == {ROOM, OTHER}
    assert observed.rooms[OTHER] == found.server.truth(OTHER, found.roster)
    assert observed.unseen == {}, "it is believed as before"
    found.forget()
    await found.observe()
    assert reads(found.server) == []


@pytest.mark.parametrize("interval", [DAY, PUT_OFF / 5])
async def test_verification_does_not_stop_at_a_broken_room(interval: timedelta) -> None:
    found = await setting(ROOM, OTHER)
    found.server.before_answer = failing(ROOM, BROKEN)
    tried: list[str] = []
    for _ in range(4):
        found.now += interval / 2
        found.forget()
        await found.mirror.verify_next(interval)
        tried += [name[6:-6] for name in reads(found.server) if name != "joined_rooms"]
    assert tried == ([ROOM, OTHER, ROOM, OTHER] if interval == DAY else [ROOM, OTHER, OTHER, OTHER])
    found.server.before_answer = None
    found.now += PUT_OFF
    await found.mirror.verify_next(interval)
    assert found.store.rooms[ROOM] == MirroredRoom(verified_at=found.now)


async def test_a_stale_room_that_is_broken_is_told_as_it_was_and_stays_to_be_read() -> None:
    before = await setting(ROOM, OTHER)
    found = Setting(before.server, before.store)
    found.server.before_answer = failing(ROOM, BROKEN)
    await found.mirror.load()
    await found.mirror.observe(found.roster, [], {})
    observed = await found.observe()
    assert set(observed.rooms) == {ROOM, OTHER}
    assert observed.unseen == {ROOM: BROKEN.message}
    assert not found.store.facts.complete
    assert found.server.asked.count(f"rooms/{ROOM}/state") == 1
    await found.mirror.begin("aim")
    found.server.before_answer = None
    found.now += PUT_OFF
    assert (await found.observe()).unseen == {}
    assert await found.is_true(ROOM)
    assert found.store.facts.complete


async def test_a_room_of_which_something_in_doubt_cannot_be_read_is_unseen() -> None:
    found = await setting(ROOM, OTHER)
    found.server.member(ROOM, FAR, "join")
    await found.server.deliver()
    await found.observe()
    found.server.event(ROOM, "m.space.child", OTHER, {"via": ["example.com"]})
    await found.server.deliver()
    found.server.before_answer = failing(ROOM, BROKEN)
    for _ in range(2):
        observed = await found.observe()
        assert (observed.rooms[ROOM].children, observed.unseen) == ({}, {ROOM: BROKEN.message})
    found.server.before_answer = None
    found.now += PUT_OFF
    assert (await found.observe()).unseen == {}
    assert await found.is_true(ROOM)


async def test_what_a_refusal_has_put_in_question_is_read_when_the_room_can_be_read_again() -> None:
    found = await setting(ROOM, OTHER)
    found.server.event(ROOM, NAME, "", {"name": "silently"})
    found.server.queue.clear()
    found.mirror.mark_stale(ROOM)
    found.server.before_answer = failing(ROOM, BROKEN)
    assert (await found.observe()).unseen == {}
    found.server.before_answer = None
    assert not await found.is_true(ROOM), "it is left alone for a while"
    found.now += PUT_OFF
    assert await found.is_true(ROOM)
    assert found.differences == [(ROOM, 1)]


async def test_a_known_room_that_hangs_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.matrix.mirror.patience.PATIENCE", 0.05)
    found = await setting(ROOM, OTHER)
    found.server.redact(found.server.state[OTHER][NAME, ""])
    await found.server.deliver()
    found.mirror.mark_stale(ROOM)
    for room_id in (ROOM, OTHER):
        Gate(found.server, room_id)
    async with asyncio.timeout(30):
        observed = await found.observe()
    assert set(observed.rooms) == {ROOM, OTHER}
    assert observed.unseen == {OTHER: "no answer within 0 s"}


@pytest.mark.parametrize("how", ["verified", "due"])
async def test_a_room_that_is_too_large_to_be_read_in_time_is_given_more(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("aim.matrix.mirror.patience.PATIENCE", 0.05)
    found = await setting(ROOM)
    found.server.event(ROOM, NAME, "", {"name": "silently"})
    found.server.queue.clear()

    async def take_time(path: str) -> None:
        if path == f"rooms/{ROOM}/state":
            await asyncio.sleep(0.15)

    after_each(found.server, take_time)
    looks: list[bool] = []
    for _ in range(4):
        found.now += DAY
        if how == "verified":
            await found.mirror.verify_next(DAY)
        else:
            found.mirror.mark_stale(ROOM)
        looks.append(await found.is_true(ROOM))
    assert looks[0] is False
    assert looks[-1] is True, "0.05 s, 0.1 s and 0.2 s are waited"
    assert found.differences == [(ROOM, 1)]


async def test_how_long_a_room_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.matrix.mirror.patience.PATIENCE", 0.02)
    monkeypatch.setattr("aim.matrix.mirror.patience.MOST_PATIENCE", 0.1)
    patience = Patience()

    async def waited(room_id: str) -> float:
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(HomeserverUnavailable, match="no answer within"):
            await patience.for_a_room(room_id, answer)
        return clock() - began

    async def at_once() -> object:
        return "state"

    times = [await waited(ROOM) for _ in range(5)]
    least = [0.02, 0.04, 0.08, 0.1, 0.1]
    assert all(time >= bound for time, bound in zip(times, least, strict=True))
    assert patience._seconds == {ROOM: 0.1}
    assert await patience.for_a_room(ROOM, at_once()) == "state"
    assert patience._seconds == {}, "the homeserver was slow, not the room large"
    await waited(OTHER)
    patience.forget(OTHER)
    assert patience._seconds == {}


async def test_a_broken_room_that_was_never_read_is_an_error_as_long_as_the_bot_is_in_it() -> None:
    found = Setting(populated(ROOM, OTHER))
    await found.mirror.load()
    await found.mirror.begin("aim")
    found.server.before_answer = failing(ROOM, BROKEN)
    for _ in range(2):
        with pytest.raises(HomeserverUnavailable, match=f"{ROOM} was never read"):
            await found.observe()
        assert not found.store.facts.complete
    found.server.before_answer = None
    assert await found.is_true(ROOM, OTHER)
    assert found.store.facts.complete


async def test_a_broken_room_that_is_only_looked_at_is_unseen() -> None:
    found = await setting()
    found.server.before_answer = failing(THIRD, BROKEN)
    found.server._require = lambda room_id: None  # type: ignore[method-assign]  # fails before a refusal
    found.server.state[THIRD] = {}
    found.mirror.want([THIRD])
    observed = await found.observe()
    assert (set(observed.rooms), observed.unseen) == ({ROOM}, {THIRD: BROKEN.message})


async def test_a_homeserver_that_is_down_is_an_error_at_once() -> None:
    found = await setting(ROOM, OTHER, THIRD)

    def fail(path: str) -> None:
        raise BROKEN

    found.server.before_answer = fail
    for room_id in (ROOM, OTHER):
        found.mirror.mark_stale(room_id)
    with pytest.raises(HomeserverUnavailable):
        await found.observe()
    found.server.before_answer = None
    found.forget()
    await found.observe()
    assert reads(found.server) == [f"rooms/{room_id}/state" for room_id in (ROOM, OTHER)]


@pytest.mark.parametrize("broken", ["hierarchy", "everything"])
async def test_a_look_around_that_failed_is_made_again(broken: str) -> None:
    found = await with_a_strangers_room()
    await found.observe()
    found.mirror.mark_stale(OTHER)

    def fail(path: str) -> None:
        if path.endswith("/hierarchy") or broken == "everything":
            raise BROKEN

    found.server.before_answer = fail
    if broken == "everything":
        with pytest.raises(HomeserverUnavailable):
            await found.observe()
    else:
        assert (await found.observe()).unseen == {OTHER: BROKEN.message}
    found.server.before_answer = None
    looks: list[int] = []
    for _ in range(2):
        found.forget()
        assert (await found.observe()).unseen == {}
        looks.append(sum(name.endswith("/hierarchy") for name in found.server.asked))
    assert looks == [1, 0]


# -- while things happen -------------------------------------------------------------------------------------


@pytest.mark.parametrize("doubted", [False, True])
async def test_a_room_that_we_come_back_to_after_a_refusal_is_not_dropped(*, doubted: bool) -> None:
    found = await setting(ROOM, OTHER)
    if doubted:
        found.server.redact(found.server.state[ROOM][NAME, ""])
        await found.server.deliver()
    else:
        found.mirror.mark_stale(ROOM)
    found.server.member(ROOM, HOME.bot, "leave")
    found.server.queue.clear()

    async def come_back(path: str) -> None:
        if path == "joined_rooms" and not found.server._is_in(ROOM):
            found.server.member(ROOM, HOME.bot, "join")
            await found.server.deliver()

    after_each(found.server, come_back)
    await found.mirror.refresh()
    assert ROOM in found.store.rooms
    assert await found.is_true(ROOM, OTHER)


async def test_a_room_that_we_come_into_while_it_is_broken_is_not_dropped() -> None:
    found = await setting()
    found.mirror.want([THIRD])
    found.server.before_answer = failing(THIRD, BROKEN)
    found.server.make(THIRD, sender=ANN)
    found.server.queue.clear()
    found.server._require = lambda room_id: None  # type: ignore[method-assign]  # fails before a refusal

    async def come_in(path: str) -> None:
        if path == "joined_rooms" and not found.server._is_in(THIRD):
            found.server.member(THIRD, HOME.bot, "join")
            await found.server.deliver()

    after_each(found.server, come_in)
    await found.mirror.refresh()
    found.server.before_answer = None
    observed = await found.observe()
    assert observed.unmanaged == {THIRD: found.server.truth(THIRD, found.roster)}


async def test_what_happens_while_a_room_is_read_is_not_lost() -> None:
    found = await setting()
    found.mirror.mark_stale(ROOM)
    late = [BEN]

    def meanwhile(path: str) -> None:
        if path == f"rooms/{ROOM}/state" and late:
            found.server.member(ROOM, late.pop(), "join")

    found.server.before_answer = meanwhile
    refreshing = found.mirror.refresh()
    # The read answer is older than the event, which arrives before it is made use of.
    original = found.server.get

    async def get(*arguments: object, **named: object) -> object:
        answer = await original(*arguments, **named)  # type: ignore[arg-type]  # handed on as they come
        if found.server.queue:
            await found.server.deliver()
        return answer

    found.server.get = get  # type: ignore[method-assign]  # delivers at the worst moment
    await refreshing
    assert reads(found.server) == [f"rooms/{ROOM}/state"] * 2
    assert await found.is_true(ROOM)
    assert found.differences == []


async def test_a_room_that_never_rests_is_left_for_later() -> None:
    found = await setting(OTHER)
    found.server.make(ROOM, sender=ANN)
    found.server.member(ROOM, HOME.bot, "join")
    found.server.queue.clear()
    found.mirror.mark_stale(ROOM)
    found.mirror.want([ROOM])
    original = found.server.get

    async def get(*arguments: object, **named: object) -> object:
        answer = await original(*arguments, **named)  # type: ignore[arg-type]  # handed on as they come
        found.server.event(ROOM, NAME, "", {"name": "again"})
        await found.server.deliver()
        return answer

    found.server.get = get  # type: ignore[method-assign]  # something always happens
    await found.mirror.refresh()
    assert reads(found.server) == [f"rooms/{ROOM}/state"] * TRIES
    assert found.store.rooms[ROOM].stale
    with pytest.raises(HomeserverUnavailable, match="changes faster than it can be read"):
        await found.observe()
    found.server.get = original  # type: ignore[method-assign]
    assert (await found.observe()).unmanaged[ROOM] == found.server.truth(ROOM, found.roster)


async def test_a_doubt_that_comes_while_it_is_read_is_read_again() -> None:
    found = await setting()
    found.server.redact(found.server.state[ROOM][NAME, ""])
    await found.server.deliver()
    original = found.server.get
    more = ["B"]

    async def get(*arguments: object, **named: object) -> object:
        answer = await original(*arguments, **named)  # type: ignore[arg-type]  # handed on as they come
        if more:
            found.server.event(ROOM, NAME, "", {"name": more.pop()})
            await found.server.deliver()
        return answer

    found.server.get = get  # type: ignore[method-assign]  # the name changes behind the answer
    assert await found.is_true(ROOM)
    assert reads(found.server) == [f"rooms/{ROOM}/state/{NAME}/"] * 2


async def test_many_doubts_are_one_request() -> None:
    found = await setting()
    for number in range(MANY_DOUBTS):
        found.server.member(ROOM, f"@far{number}:other.example", "knock")
    await found.server.deliver()
    assert len(found.store.doubts) == MANY_DOUBTS
    assert await found.is_true(ROOM)
    assert reads(found.server) == [f"rooms/{ROOM}/state"]
    assert found.store.doubts == set()
    # They were in doubt: that they are there is no surprise.
    assert found.differences == []


async def test_a_doubt_about_the_bot_itself_reads_the_room() -> None:
    found = await setting()
    found.server.member(ROOM, HOME.bot, "join", FAR)
    await found.server.deliver()
    assert found.store.doubts == {key(ROOM, MEMBER, HOME.bot)}
    await found.mirror.refresh()
    assert reads(found.server) == [f"rooms/{ROOM}/state"]


@pytest.mark.parametrize("content_only", [False, True])
async def test_a_key_is_read_from_any_homeserver(*, content_only: bool) -> None:
    found = await setting()
    found.server.content_only = content_only
    for who in (NAME, "m.room.topic"):
        found.server.redact(found.server.event(ROOM, who, "", {"name": "x"}))
    found.server.redact(found.server.member(ROOM, BEN, "join"))
    await found.server.deliver()
    del found.server.state[ROOM]["m.room.topic", ""]
    found.server.state[ROOM][MEMBER, BEN]["content"] = {"membership": "invite"}
    room = (await found.rooms())[ROOM]
    assert (room.state, found.names(room.invited)) == ({NAME: {}}, ["ben"])
    assert found.store.doubts == set()


async def test_a_doubt_in_a_room_that_is_gone_drops_the_room() -> None:
    found = await setting()
    found.server.redact(found.server.state[ROOM][NAME, ""])
    await found.server.deliver()
    del found.server.state[ROOM]
    assert await found.rooms() == {}
    assert (found.store.rooms, found.store.doubts) == ({}, set())


# -- verification --------------------------------------------------------------------------------------------


async def test_rooms_are_verified_in_turns() -> None:
    found = await setting(ROOM, OTHER, THIRD)
    for _ in range(6):
        found.now += DAY / 3
        await found.mirror.verify_next(DAY)
    assert reads(found.server) == [f"rooms/{room}/state" for room in (ROOM, OTHER, THIRD) * 2]
    assert found.differences == []


async def test_verifying_too_often_reads_nothing() -> None:
    found = await setting(ROOM, OTHER)
    found.now += DAY / 5
    await found.mirror.verify_next(DAY)
    assert reads(found.server) == []
    await Setting().mirror.verify_next(DAY)


async def test_state_that_changed_without_an_event_is_found_and_said() -> None:
    found = await setting(ROOM, OTHER)
    found.now += DAY
    del found.server.state[ROOM][MEMBER, ANN]
    found.server.member(ROOM, BEN, "join")
    found.server.queue.clear()
    await found.mirror.verify_next(DAY)
    assert found.differences == [(ROOM, 2)]
    assert found.changed[-1] == {ROOM}
    assert await found.is_true(ROOM)


async def test_members_that_are_stored_and_not_in_memory_are_found_and_said() -> None:
    found = await setting(ROOM, OTHER)
    found.server.member(ROOM, FAR, "join")
    await found.server.deliver()
    assert await found.is_true(ROOM)
    members = found.mirror._memory.copies[ROOM].members
    members.sets["join"].clear()
    members.foreign.clear()
    found.forget()
    found.now += DAY
    await found.mirror.verify_next(DAY)
    await found.mirror.verify_next(DAY)
    assert (found.differences, found.changed) == ([(ROOM, 1)], [{ROOM}])
    assert await found.is_true(ROOM)


async def test_a_room_that_hangs_while_it_is_verified_keeps_nobody_up() -> None:
    found = await setting(ROOM, OTHER)
    found.now += DAY
    gate = Gate(found.server, ROOM)
    verifying = asyncio.create_task(found.mirror.verify_next(DAY))
    await gate.reached.wait()
    found.server.member(OTHER, BEN, "join")
    await found.server.deliver()
    async with asyncio.timeout(30):
        assert await found.is_true(ROOM, OTHER)
    gate.open()
    await verifying
    assert found.differences == []
    assert found.store.rooms[ROOM].verified_at == found.now


async def test_what_is_put_in_question_while_it_is_verified_is_read_again() -> None:
    found = await setting(ROOM)
    found.now += DAY
    gate = Gate(found.server, ROOM)
    verifying = asyncio.create_task(found.mirror.verify_next(DAY))
    await gate.reached.wait()
    found.server.event(ROOM, NAME, "", {"name": "silently"})
    found.server.queue.clear()
    found.mirror.mark_stale(ROOM)
    gate.open()
    await verifying
    assert await found.is_true(ROOM)


async def test_what_is_put_in_question_while_what_was_read_is_recorded_is_read_again() -> None:
    found = await setting(ROOM)
    found.now += DAY
    original, told = found.store.record, ["silently"]

    async def record(changes: MirrorChanges, now: datetime) -> None:
        if ROOM in changes.rooms and told:
            found.server.event(ROOM, NAME, "", {"name": told.pop()})
            found.server.queue.clear()
            found.mirror.mark_stale(ROOM)
        await original(changes, now)

    found.store.record = record  # type: ignore[method-assign]  # refused while it writes
    await found.mirror.verify_next(DAY)
    assert reads(found.server) == [f"rooms/{ROOM}/state"]
    assert await found.is_true(ROOM)
    found.forget()
    await found.observe()
    assert reads(found.server) == []


async def test_a_believed_room_that_never_rests_is_not_read_at_every_look() -> None:
    found = await setting(ROOM, OTHER)
    is_restless = True

    async def move(path: str) -> None:
        if path == f"rooms/{ROOM}/state" and is_restless:
            found.server.event(ROOM, NAME, "", {"name": "again"})
            await found.server.deliver()

    after_each(found.server, move)
    found.mirror.mark_stale(ROOM)
    for _ in range(3):
        assert (await found.observe()).unseen == {}
    assert reads(found.server) == [f"rooms/{ROOM}/state"] * TRIES
    # What is in doubt meanwhile is read all the same: one key is read in no time.
    found.server.redact(found.server.state[ROOM][NAME, ""])
    await found.server.deliver()
    assert await found.is_true(ROOM)
    is_restless = False
    found.now += LEFT_FOR
    found.forget()
    await found.observe()
    assert reads(found.server) == [f"rooms/{ROOM}/state"]
    found.mirror.mark_stale(ROOM)
    await found.observe()
    assert reads(found.server) == [f"rooms/{ROOM}/state"] * 2, "it rests: nothing is waited for"


async def test_nothing_is_remembered_of_a_room_that_is_dropped() -> None:
    found = await setting(ROOM, OTHER)
    found.server.redact(found.server.state[ROOM][NAME, ""])
    await found.server.deliver()
    found.server.before_answer = failing(ROOM, BROKEN)
    assert (await found.observe()).unseen == {ROOM: BROKEN.message}
    found.server.before_answer = None
    before = dict(found.server.state[ROOM])
    del found.server.state[ROOM]
    found.now += PUT_OFF
    assert set((await found.observe()).rooms) == {OTHER}
    assert found.mirror._reading._unread == {}
    found.server.state[ROOM] = before
    found.server.member(ROOM, HOME.bot, "join")
    await found.server.deliver()
    assert (await found.observe()).unseen == {}


async def test_a_room_that_never_rests_keeps_no_other_from_being_verified() -> None:
    found = await setting(ROOM, OTHER)
    found.now += DAY

    async def move(path: str) -> None:
        if path == f"rooms/{ROOM}/state":
            found.server.event(ROOM, NAME, "", {"name": "again"})
            await found.server.deliver()

    after_each(found.server, move)
    for _ in range(20):
        await found.mirror.verify_next(DAY)
    assert reads(found.server) == [f"rooms/{ROOM}/state"] * TRIES + [f"rooms/{OTHER}/state"]
    assert (await found.observe()).unseen == {}


async def test_an_event_under_way_is_no_difference() -> None:
    found = await setting()
    found.now += DAY
    # The homeserver has it and sends it when it comes to that: with the barrier, at the latest.
    found.server.member(ROOM, BEN, "join")
    await found.mirror.verify_next(DAY)
    assert found.differences == []
    assert await found.is_true(ROOM)


async def test_another_event_that_says_the_same_is_no_difference() -> None:
    found = await setting()
    found.now += DAY
    found.server.member(ROOM, ANN, "join")
    found.server.event(ROOM, NAME, "", {"name": ROOM})
    found.server.queue.clear()
    await found.mirror.verify_next(DAY)
    assert found.differences == []
    assert (
        found.store.memberships[key(ROOM, MEMBER, ANN)].stamp.event_id
        == (found.server.state[ROOM][MEMBER, ANN]["event_id"])
    )
    found.forget()
    found.server.member(ROOM, ANN, "leave")
    await found.server.deliver()
    assert await found.is_true(ROOM)
    assert reads(found.server) == []


async def test_verification_lets_the_counter_grow_with_what_was_told() -> None:
    found = await setting()
    sent = found.store.facts.counter_sent
    await found.mirror.verify_next(DAY)
    assert found.store.facts.counter_sent == sent
    found.server.member(ROOM, BEN, "join")
    await found.server.deliver()
    await found.mirror.verify_next(DAY)
    assert found.store.facts.counter_sent == sent, "not at once: each costs a request"
    found.now += FENCE_EVERY
    await found.mirror.verify_next(DAY)
    await found.mirror.verify_next(DAY)
    assert found.store.facts.counter_sent == sent + 1


async def test_a_stream_that_is_suspected_is_tried() -> None:
    found = await setting()
    sent = found.store.facts.counter_sent
    found.now += FENCE_EVERY
    await found.mirror.verify_next(DAY)
    assert found.store.facts.counter_sent == sent, "nothing happened"
    found.mirror.suspect()
    await found.mirror.verify_next(DAY)
    assert found.store.facts.counter_sent == sent + 1


# -- accounts ------------------------------------------------------------------------------------------------


async def test_accounts_are_read_once_and_new_ones_by_one_request() -> None:
    server = populated(ROOM)
    server.users = [local(f"user{number}") for number in range(1200)]
    found = await Setting(server).started()
    assert len(found.store.accounts) == 1200
    assert not await found.mirror.poll_accounts(["user7", "new"])
    server.users.append(local("new"))
    assert await found.mirror.poll_accounts(["user7", "new"])
    assert not await found.mirror.poll_accounts(["user7", "new"])
    assert found.names((await found.observe("user7", "new", "nobody")).accounts) == ["new", "user7"]
    # The newest of one page are all new the second time: the next page is looked at, too.
    assert len(server.asked) == 1 + 2 + 1
    server.users.append(local("unwanted"))
    assert not await found.mirror.poll_accounts(["user7", "new"])


async def test_an_account_that_somebody_saw_is_known_at_once_and_stored() -> None:
    found = await Setting(populated(ROOM)).started()
    await found.observe("new")
    found.forget()
    await found.mirror.found_account("new")
    assert found.store.accounts == {"new"}
    assert found.names((await found.observe("new")).accounts) == ["new"]
    assert found.server.asked == []
    found.server.users.append(local("new"))
    assert not await found.mirror.poll_accounts(["new"]), "no news"


async def test_once_a_day_the_whole_list_is_read() -> None:
    server = populated(ROOM)
    server.users = [local("gone"), local("ben")]
    found = await Setting(server).started()
    server.users.remove(local("gone"))
    assert not await found.mirror.poll_accounts(["gone", "ben"])
    assert found.store.accounts == {"gone", "ben"}
    found.now += WHOLE_LIST
    await found.mirror.poll_accounts(["gone", "ben"])
    assert found.store.accounts == {"ben"}
    assert found.names((await found.observe("gone", "ben")).accounts) == ["ben"]


async def test_whoever_is_in_a_room_has_an_account() -> None:
    found = await setting()
    found.server.member(ROOM, BEN, "join")
    await found.server.deliver()
    assert found.names((await found.observe("ann", "ben", "eve")).accounts) == ["ann", "ben"]


async def test_without_the_list_people_are_asked_about() -> None:
    server = populated(ROOM)
    server.is_admin = False
    server.users = [local("ben")]
    found = await Setting(server).started()
    assert found.names((await found.observe("ann", "ben", "eve")).accounts) == ["ann", "ben"]
    assert found.server.asked.count("account/whoami") == 2
    found.forget()
    await found.observe("ann", "ben", "eve")
    assert found.server.asked == []
    server.users += [local("eve"), local("new")]
    assert found.names((await found.observe("ann", "ben", "new")).accounts) == ["ann", "ben", "new"]
    assert await found.mirror.poll_accounts(["ann", "ben", "eve"])
    assert found.names((await found.observe("eve")).accounts) == ["eve"]


async def test_not_everybody_is_asked_about_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.matrix.mirror.people.MOST_QUESTIONS", 2)
    server = populated()
    server.is_admin = False
    found = await Setting(server).started()
    names = [f"p{number}" for number in range(5)]
    await found.observe(*names)
    assert server.asked.count("account/whoami") == 5
    for _ in range(2):
        server.asked.clear()
        await found.mirror.poll_accounts(names)
        assert server.asked.count("account/whoami") == 2
    server.users = [local("p4")]
    assert await found.mirror.poll_accounts(names)


async def test_what_is_stored_of_accounts_is_there_after_a_start() -> None:
    store = FakeMirrorStore()
    server = populated(ROOM)
    server.users = [BEN]
    await Setting(server, store).started()
    found = Setting(server, store)
    await found.mirror.load()
    await found.mirror.begin("aim")
    assert found.names((await found.observe("ben")).accounts) == ["ben"]
    assert store.rooms == {ROOM: MirroredRoom(verified_at=found.now)}
