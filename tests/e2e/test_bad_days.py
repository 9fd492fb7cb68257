"""Bad days of the live mirror, on a real Synapse: nothing is lost, and nobody is removed by mistake."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from aim.errors import HomeserverRefused
from tests.e2e.kit import Command, Stage, until
from tests.e2e.test_usage_scenarios import following, follows, is_
from tests.servers.postgres import copied
from tests.servers.proxy import Request

pytestmark = pytest.mark.e2e

SOON = 30.0
KILLS = 20


async def sent(stage: Stage, txn_id: str, body: object, token: str | None = None) -> int:
    """The status of a transaction that is sent as if by the homeserver; with another token, or none ('')."""
    token = stage.homeserver.hs_token if token is None else token
    url = f"http://127.0.0.1:{stage.homeserver.appservice.port}/_matrix/app/v1/transactions/{quote(txn_id)}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.put(url, data=io.BytesIO(json.dumps(body).encode()), headers=headers) as response,
    ):
        return response.status


def member(stage: Stage, key: str, localpart: str, membership: str, event_id: str, at: int) -> dict[str, Any]:
    return {
        "type": "m.room.member",
        "room_id": key,
        "state_key": stage.mxid(localpart),
        "sender": stage.mxid(localpart),
        "content": {"membership": membership},
        "origin_server_ts": at,
        "event_id": event_id,
    }


async def test_transactions_as_they_should_not_be(live_stage: Stage) -> None:
    """Repeated, out of order, empty, huge, of unknown kinds, from strangers: nobody is removed for it."""
    stage = live_stage
    async with following(stage) as daemon:
        sales = (await stage.rooms())["sales"].room_id
        # An old event comes late: hana's invite, after she has joined; and one that never was, long ago.
        old = member(stage, sales, "hana", "leave", "$never", 1)
        huge = {"type": "m.room.message", "room_id": sales, "content": {"body": "x" * 8_000_000}}
        odd: list[Any] = [None, 7, "x", [], {}, {"type": 5}, {"type": "m.room.member"}, {"room_id": sales}]
        odd.append({**old, "content": 5})
        odd.append({**old, "state_key": ["x"]})
        odd.append({**old, "origin_server_ts": "soon", "event_id": None})
        odd.append({"type": "org.example.unknown", "room_id": sales, "state_key": "", "content": {"a": 1}})
        stage.proxy.forget()

        assert [await sent(stage, "a1", {"events": [old]}) for _ in range(3)] == [200, 200, 200]
        assert await sent(stage, "a0", {"events": []}) == 200
        assert await sent(stage, "z9999", {"events": [huge]}) == 200
        assert await sent(stage, "a2", {"events": odd}) == 200
        assert await sent(stage, "a3", {"events": [old]}, token="wrong") == 403
        assert await sent(stage, "a4", {"events": [old]}, token="") == 401
        assert await sent(stage, "a5", "no transaction") == 400

        # What is true is read, and what is done is nothing.
        await until(lambda: bool(stage.proxy.matching(lambda request: "state" in request.path)), "it is read")
        assert [str(request) for request in stage.proxy.writes if "aim.control" not in request.path] == []
        assert await stage.membership("sales", "hana") == "join"
        # The stream goes on.
        await stage.homeserver.client("gero").invite(sales, stage.mxid("bela"))
        await until(is_(stage, "bela", "sales", "leave"), "bela's invite is taken back", SOON)
        assert "Traceback" not in daemon.err


async def test_a_homeserver_that_fails_one_call_in_five(live_stage: Stage) -> None:
    stage = live_stage
    chance = random.Random(5)

    creations: list[Request] = []

    def unlucky(request: Request) -> bool:
        if chance.random() >= 0.2:
            return False
        if request.path.endswith("/createRoom"):
            # Each takes a minute in which its room is looked for: once is enough.
            creations.append(request)
            return len(creations) == 1
        return True

    limited, failing, lost = (
        stage.proxy.limit(_third(0, unlucky), times=None),
        stage.proxy.fail(_third(1, unlucky), times=None, status=502),
        stage.proxy.lose_answers(_third(2, unlucky), times=None),
    )
    await stage.register_everybody()
    async with stage.daemon():
        await follows(stage, 180)
        await stage.join_all()
        stage.give(stage.organisation.moved("bela", "sales").left("cleo"))
        await follows(stage, 60)
        assert min(fault.struck for fault in (limited, failing, lost)) > 0
    stage.proxy.behave()
    assert len(await stage.all_rooms()) == len(await stage.rooms()), "no room was made twice"


def _third(number: int, unlucky: Any) -> Any:
    """Strikes at each third of the unlucky requests."""
    turn = itertools.count()
    return lambda request: unlucky(request) and next(turn) % 3 == number


async def test_a_homeserver_that_is_down_in_the_middle_of_a_cycle(live_stage: Stage) -> None:
    stage = live_stage
    async with following(stage) as daemon:
        held = stage.proxy.hold(lambda request: request.path.endswith("/kick"))
        stage.give(stage.organisation.left("cleo").moved("hana", "engineering"))
        await until(held.reached.is_set, "the cycle is under way", SOON)
        down = stage.proxy.lose_requests(times=None)
        held.release.set()
        # As long as it takes until it has given up on something.
        await until(lambda: "tried again" in daemon.err or "cycle failed" in daemon.err, "it gives up", 90)
        assert down.struck > 0
        stage.proxy.behave()
        await follows(stage, 60)


async def test_a_database_that_is_restarted_in_the_middle_of_a_cycle(live_stage: Stage) -> None:
    stage = live_stage
    async with following(stage) as daemon:
        held = stage.proxy.hold(lambda request: request.path.endswith("/kick"))
        stage.give(stage.organisation.left("cleo"))
        await until(held.reached.is_set, "the cycle is under way", SOON)
        await stage.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        held.release.set()
        await daemon.says("the database is gone")
        await follows(stage, SOON)
        assert await stage.membership("sales", "hana") == "join"


async def test_a_database_restored_from_yesterday(live_stage: Stage) -> None:
    """Found by the counter: everything is read again, and nothing is decided before."""
    stage = live_stage
    async with following(stage):
        pass
    assert stage.database is not None
    async with copied(stage.database) as yesterday:
        async with stage.daemon() as daemon:
            await daemon.says("the mirror is current")
            stage.give(stage.organisation.joined("nele.restored", "sales"))
            await stage.homeserver.register("nele.restored")
            await until(is_(stage, "nele.restored", "sales", "invite"), "nele is invited", SOON)
            await stage.join_all("nele.restored")
            await daemon.terminate()
        today, stage.database = stage.database, yesterday
        stage.configure(database={"url": yesterday})
        stage.proxy.forget()
        async with stage.daemon() as daemon:
            await daemon.says("the database is older than what it was told last")
            await daemon.says("the mirror is current")
            await daemon.says("cycle done")
            await follows(stage, SOON)
            kicks = stage.proxy.matching(lambda request: request.path.endswith(("/kick", "/invite")))
            assert kicks == [], "everything was as it should be"
            await daemon.terminate()
        stage.database = today


async def test_state_that_changed_without_an_event(live_stage: Stage) -> None:
    stage = live_stage
    provisioner = stage.config["provisioner"] | {"verify_interval": "20s"}
    stage.configure(provisioner=provisioner)
    async with following(stage):
        room_id = (await stage.rooms())["sales"].room_id
        # What is still under way would tell the truth by itself.
        await until(lambda: _is_told(stage, room_id, "hana"), "the mirror knows that hana has joined")
    # As if hana had been made to leave sales, and nobody had told us.
    changed = await stage.fetch(
        "update aim.mirror_members set membership = 'leave', own = false "
        "where room_id = $1 and user_id = $2 returning 1",
        room_id,
        stage.mxid("hana"),
    )
    assert len(changed) == 1
    stage.give(stage.organisation.demoted("gero", "sales-moderators"))
    async with stage.daemon() as daemon:
        await daemon.says("was not as its events had told")
        await follows(stage, SOON)
        assert await stage.membership("sales", "hana") == "join"
        await daemon.terminate()


async def _is_told(stage: Stage, room_id: str, localpart: str) -> bool:
    """Whether the mirror knows that they have joined."""
    rows = await stage.fetch(
        "select membership from aim.mirror_members where room_id = $1 and user_id = $2",
        room_id,
        stage.mxid(localpart),
    )
    return [row["membership"] for row in rows] == ["join"]


async def test_killed_at_many_moments_of_a_busy_stream(live_stage: Stage) -> None:
    """SIGKILL again and again, while people and the directory change things: in the end all is well."""
    stage = live_stage
    chance = random.Random(4)
    async with following(stage):
        pass
    stop = asyncio.Event()
    stir = asyncio.create_task(_stir(stage, chance, stop))
    changes = _changes(stage)
    for _ in range(KILLS):
        next(changes)
        async with stage.daemon() as daemon:
            writes = len(stage.proxy.writes) + chance.randrange(6)
            seconds = 1.5 + chance.random() * 2
            await _moment(stage, daemon, writes, seconds)
            await daemon.kill()
    stop.set()
    await stir
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        try:
            await follows(stage, 30)
        except AssertionError:
            print(daemon.err[-6000:])
            await stage.assert_follows()
        assert len(await stage.all_rooms()) == len(await stage.rooms()), "no room was made twice"
        await daemon.terminate()
    assert (await stage.plan())["actions"] == []


async def _moment(stage: Stage, daemon: Command, writes: int, seconds: float) -> None:
    """So many writes, or seconds, whichever comes first."""
    try:
        async with asyncio.timeout(seconds):
            await until(lambda: len(stage.proxy.writes) >= writes and "current" in daemon.err, "writes")
    except TimeoutError:
        return


def _changes(stage: Stage) -> Any:
    """Changes of the directory, one after the other, none of which trips a guard."""
    people: Sequence[str] = ("hana", "ivan", "jule")
    for number in itertools.count():
        uid = people[number % len(people)]
        unit = ("engineering", "sales")[number // len(people) % 2]
        stage.give(stage.organisation.moved(uid, unit))
        yield


async def _stir(stage: Stage, chance: random.Random, stop: asyncio.Event) -> None:
    """People come and go where they should not, until told to stop."""
    bot = stage.homeserver.bot_client()
    rooms = await stage.rooms()
    while not stop.is_set():
        key = chance.choice(["sales", "platform", "engineering/general"])
        try:
            await bot.set_power_levels(rooms[key].room_id, {stage.mxid("mira"): chance.choice([30, 50])})
            await bot.invite(rooms["platform"].room_id, stage.mxid("lino"))
        except HomeserverRefused as error:
            # Somebody was quicker.
            if error.status != 403:
                raise
        await asyncio.sleep(0)
