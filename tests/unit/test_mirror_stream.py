"""The control room, the ping and the barrier: when the mirror is current, and when it says that it is not."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from aim.errors import ConfigError, HomeserverRefused, HomeserverUnavailable, StoreError
from aim.matrix.mirror.sift import counter_of
from aim.ports import MirrorChanges, MirrorFacts
from aim.world.rooms import MARKER_TYPE
from tests.unit.mirroring import CONTROL, HOME, FakeMirrorStore, Json, Server, Setting, local, refuse

ROOM = "!a:example.com"
PUT = f"PUT rooms/{CONTROL}/state/aim.control"


async def begun(server: Server | None = None, store: FakeMirrorStore | None = None) -> Setting:
    found = Setting(server, store)
    await found.mirror.load()
    await found.mirror.begin("aim")
    return found


def counter(server: Server) -> int:
    return counter_of(server.state[CONTROL]["aim.control", ""]["content"])


async def test_a_first_start_makes_the_control_room() -> None:
    found = await begun()
    assert found.mirror.current
    create = found.server.state[CONTROL]["m.room.create", ""]["content"]
    assert create == {
        "room_version": "12",
        "m.federate": False,
        MARKER_TYPE: {"version": 1, "instance": "aim", "control": True},
    }
    assert (found.store.facts.control_room, counter(found.server)) == (CONTROL, 1)
    assert found.store.facts.default_room_version == "12"
    assert await found.rooms() == {}


async def test_a_later_start_uses_the_one_that_is_there() -> None:
    first = await begun()
    found = await begun(first.server, first.store)
    assert (list(found.server.state), counter(found.server)) == ([CONTROL], 2)


async def test_a_lost_database_finds_the_control_room_and_goes_on_counting() -> None:
    first = await begun()
    first.server.make("!other:example.com", sender=local("ann"))
    first.server.member("!other:example.com", HOME.bot, "join")
    first.server.make(ROOM, "a")
    found = await begun(first.server)
    assert (found.store.facts.control_room, counter(found.server)) == (CONTROL, 2)
    assert found.server.asked.count("POST _matrix/client/v3/createRoom") == 1


async def test_what_a_proxy_answers_does_not_lose_the_control_room() -> None:
    first = await begun()
    found = Setting(first.server, first.store)
    await found.mirror.load()
    for status in (403, 404):

        def fail(path: str, status: int = status) -> None:
            raise HomeserverRefused("no", status=status)

        found.server.before_answer = fail
        with pytest.raises(HomeserverUnavailable):
            await found.mirror.begin("aim")
    assert found.store.facts.control_room == CONTROL
    assert found.server.asked.count("POST _matrix/client/v3/createRoom") == 1


@pytest.mark.parametrize(
    ("sender", "content"),
    [
        (local("ann"), {"version": 1, "instance": "aim", "control": True}),
        (HOME.bot, {"version": 1, "instance": "other", "control": True}),
        (HOME.bot, {"version": 1, "instance": "aim", "control": "yes"}),
        (HOME.bot, {"version": 1, "instance": "aim", "key": "a"}),
    ],
)
async def test_a_room_that_only_looks_like_it_is_not_taken(sender: str, content: Json) -> None:
    server = Server()
    server.event(ROOM, "m.room.create", "", {MARKER_TYPE: content}, sender)
    server.member(ROOM, HOME.bot, "join")
    found = await begun(server)
    assert found.store.facts.control_room == CONTROL


async def test_the_control_room_is_no_room_of_ours() -> None:
    found = await begun()
    await found.observe()
    found.forget()
    found.server.make("!second:example.com", None)
    found.server.state["!second:example.com"].clear()
    found.server.queue.clear()
    found.server._create("!second:example.com", {MARKER_TYPE: {"instance": "aim", "control": True}})
    found.server.queue, late = found.server.queue[:1], found.server.queue[1:]
    await found.server.deliver()
    found.server.queue = late
    await found.server.deliver()
    await found.observe()
    assert (found.changed, found.server.asked) == ([], [])


async def test_the_wrong_token_makes_no_room() -> None:
    server = Server()
    server.bot = local("other")
    with pytest.raises(ConfigError, match=r"belongs to @other:example\.com"):
        await begun(server)
    assert server.state == {}


async def test_a_restored_backup_is_told_by_the_counter_and_everything_is_read() -> None:
    first = Setting()
    first.server.make(ROOM, "a")
    await first.started()
    backup = first.store.copy()
    first.server.member(ROOM, local("ann"), "join")
    await first.server.deliver()
    assert await first.mirror.barrier()
    found = await begun(first.server, backup)
    assert not backup.facts.complete
    assert (await found.is_true(ROOM), found.store.facts.complete) == (True, True)
    assert counter(found.server) == backup.facts.counter_sent == first.store.facts.counter_sent + 1


@pytest.mark.parametrize("lost", ["counter", "control room"])
async def test_what_a_restored_backup_lacks_is_known_even_if_we_are_killed_at_once(lost: str) -> None:
    first = Setting()
    first.server.make(ROOM, "a")
    await first.started()
    backup = first.store.copy()
    if lost == "control room":
        del first.server.state[CONTROL]
    else:
        assert await first.mirror.barrier()
    first.server.member(ROOM, local("ann"), "join")
    await first.server.deliver()
    found = Setting(first.server, backup)
    await found.mirror.load()
    original, written = backup.record, list[MirrorChanges]()

    async def record(changes: MirrorChanges, now: datetime) -> None:
        if written:
            raise StoreError("killed")
        written.append(changes)
        await original(changes, now)

    backup.record = record  # type: ignore[method-assign]  # nothing but the first write is done
    with pytest.raises(StoreError, match="killed"):
        await found.mirror.begin("aim")
    assert written[0].facts.counter_sent is not None
    backup.record = original  # type: ignore[method-assign]
    assert await (await begun(first.server, backup)).is_true(ROOM)


async def test_a_control_room_that_is_lost_puts_everything_in_question() -> None:
    first = Setting()
    first.server.make(ROOM, "a")
    await first.started()
    first.server.member(CONTROL, HOME.bot, "leave")
    first.server.queue.clear()
    found = Setting(first.server, first.store)
    await found.mirror.load()
    del found.server.state[CONTROL]
    found.server.member(ROOM, local("ann"), "join")
    found.server.queue.clear()
    await found.mirror.begin("aim")
    assert found.mirror.current
    assert await found.is_true(ROOM)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("M_CONNECTION_FAILED", "listen"),
        ("M_CONNECTION_TIMEOUT", "listen"),
        ("M_BAD_STATUS", "hs_token"),
        ("M_URL_NOT_SET", "url"),
    ],
)
@pytest.mark.parametrize("kind", [HomeserverRefused, HomeserverUnavailable])
async def test_a_homeserver_that_can_not_reach_us_is_said(code: str, said: str, kind: type) -> None:
    found = Setting()
    await found.mirror.load()

    async def post(*arguments: object, **named: object) -> object:
        if str(arguments[0]).endswith("/ping"):
            text = f"POST /ping: failed with 502 {code}: no"
            raise HomeserverUnavailable(text) if kind is HomeserverUnavailable else refuse(400, code)
        return await original(*arguments, **named)  # type: ignore[arg-type]  # handed on as they come

    original = found.server.post
    found.server.post = post  # type: ignore[method-assign]  # the ping fails
    with pytest.raises(HomeserverRefused) as caught:
        await found.mirror.begin("aim")
    assert caught.value.errcode == code
    assert said in caught.value.remedy
    assert not found.mirror.current


async def test_another_failure_of_the_ping_is_what_it_is() -> None:
    found = Setting()
    await found.mirror.load()
    found.server.ping_code = "M_FORBIDDEN"
    with pytest.raises(HomeserverRefused, match="M_FORBIDDEN"):
        await found.mirror.begin("aim")


# -- the barrier ---------------------------------------------------------------------------------------------


async def test_a_barrier_that_does_not_come_back_says_so() -> None:
    found = await begun()
    found.server.mute = True
    assert not await found.mirror.barrier(timeout=0.01)
    assert not found.mirror.current
    found.server.mute = False
    assert await found.mirror.barrier()
    assert found.mirror.current


async def test_the_number_is_recorded_before_it_is_sent() -> None:
    found = await begun()
    sent: list[tuple[int, object]] = []
    original = found.server.put

    async def put(path: object, body: Json, user_id: str | None = None) -> object:
        sent.append((found.store.facts.counter_sent, body["counter"]))
        return await original(path, body, user_id)  # type: ignore[arg-type]  # handed on as it comes

    found.server.put = put  # type: ignore[method-assign,assignment]  # looks what is recorded
    await found.mirror.barrier()
    assert sent == [(2, 2)]


async def test_those_who_wait_together_share_the_one_that_started_after_they_came() -> None:
    found = await begun()
    found.forget()
    found.server.mute = True
    first = asyncio.create_task(found.mirror.barrier())
    await found.server.counted.wait()
    others = [asyncio.create_task(found.mirror.barrier()) for _ in range(5)]
    await asyncio.sleep(0)
    found.server.mute = False
    await found.server.deliver()
    assert await asyncio.gather(first, *others) == [True] * 6
    assert found.server.asked == [PUT, PUT]


async def test_whoever_goes_away_leaves_it_to_the_others() -> None:
    found = await begun()
    found.server.mute = True
    impatient, patient = (asyncio.create_task(found.mirror.barrier()) for _ in range(2))
    await found.server.counted.wait()
    impatient.cancel()
    await found.server.deliver()
    assert await patient
    assert impatient.cancelled()


@pytest.mark.parametrize(
    "error", [refuse(403, "M_FORBIDDEN"), HomeserverUnavailable("gone"), StoreError("no")]
)
async def test_a_barrier_that_fails_leaves_the_mirror_behind(error: Exception) -> None:
    found = await begun()

    async def put(*arguments: object) -> object:
        raise error

    found.server.put = put  # type: ignore[method-assign,assignment]  # nothing can be sent
    with pytest.raises(type(error)):
        await found.mirror.barrier()
    assert not found.mirror.current


async def test_a_barrier_alone_does_not_make_it_current() -> None:
    found = Setting()
    found.store.facts = MirrorFacts(control_room=CONTROL, complete=True)
    await found.mirror.load()
    assert await found.mirror.barrier()
    assert not found.mirror.current


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ({"counter": 5}, 5),
        ({"counter": True}, 0),
        ({"counter": -1}, 0),
        ({"counter": 2**70}, 0),
        ([], 0),
        ({}, 0),
    ],
)
def test_the_number_in_an_event(content: object, number: int) -> None:
    assert counter_of(content) == number
