"""The live benchmarks: they make, count and tell what they say. The daemon itself is not needed for that."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from aim.demo.homeserver import free_port
from bench.live.bare import Job, Loop, Prepared
from bench.live.clocks import Clock, Delivery, Timed
from bench.live.correction import Corrected, Corrections, Needed
from bench.live.current import Asked
from bench.live.cycle import Decision, decide
from bench.live.measure import FULL, SMALL, Large, Reaction, Real
from bench.live.organisation import Organisation, localpart
from bench.live.provisioning import Made, Provisioning, made, prepared
from bench.live.report import live_tables
from bench.live.requests import kind_of
from bench.live.stage import Place
from bench.live.standin import StandIn
from bench.shape import Size
from bench.transactions import MESSAGES, make_mirror, message
from tests.servers.proxy import Request
from tests.servers.synapse import Appservice, make_appservice

ROOMS = "/_matrix/client/v3/rooms"


def request(method: str, path: str, body: object = None, **query: str) -> Request:
    return Request(method, path, query, json.dumps(body).encode() if body is not None else b"")


def creation(key: str) -> Request:
    content = {"creation_content": {"aim.managed": {"key": key, "instance": "aim-1"}}, "invite": ["@a:x"]}
    return request("POST", "/_matrix/client/v3/createRoom", content)


def timed(asked: Request, came: float, answer: object = None, status: int = 200) -> Timed:
    return Timed(asked, status, came, came + 0.5, json.dumps(answer or {}).encode())


# -- the organisation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("organisation", [FULL.real, FULL.large, SMALL.real, SMALL.large])
def test_everybody_is_in_a_team_its_division_and_the_company(organisation: Organisation) -> None:
    members = organisation.members()

    assert len(members) == organisation.spaces
    assert sum(map(len, members.values())) == 3 * organisation.users
    assert len(members["company"]) == organisation.users
    assert organisation.leads().keys() <= members.keys()
    assert all(lead in members[space] for space, lead in organisation.leads().items())


def test_the_fewest_requests_are_a_room_each_a_link_each_and_invites_beyond_fifty() -> None:
    least = Organisation(120, 5).least_requests()

    # The company and its one division have 120 people each, three teams have 40.
    assert least == {"createRoom": 5, "invite": 2 * 70, "m.space.child": 4}


# -- what is counted -----------------------------------------------------------------------------------------


def test_requests_are_told_apart() -> None:
    control = "!control"
    asked = {
        "createRoom": creation("team-1"),
        "invite": request("POST", f"{ROOMS}/!a/invite", {}),
        "m.space.child": request("PUT", f"{ROOMS}/!a/state/m.space.child/!b", {}),
        "GET state": request("GET", f"{ROOMS}/!a/state"),
        "GET m.room.power_levels": request("GET", f"{ROOMS}/!a/state/m.room.power_levels"),
        "control room": request("PUT", f"{ROOMS}/{control}/state/aim.control", {}),
        "GET joined_rooms": request("GET", "/_matrix/client/v3/joined_rooms"),
        "POST appservice": request("POST", "/_matrix/client/v1/appservice/aim/ping", {}),
    }

    assert [kind_of(found, control) for found in asked.values()] == list(asked)


def test_only_what_makes_rooms_is_work_and_is_prepared_for_another_bot() -> None:
    before, after = (Place("http://x", "x", make_appservice(name, name)) for name in ("aim-1", "aim-2"))
    child = request("PUT", f"{ROOMS}/!a/state/m.space.child/!b", {"via": ["x"], "by": "@aim-1:x"})
    everything = [
        timed(child, 3.0),
        timed(creation("team-1"), 1.0, {"room_id": "!a"}),
        timed(request("POST", f"{ROOMS}/!a/invite", {}), 2.0, status=403),
        timed(request("PUT", f"{ROOMS}/!control/state/aim.control", {"counter": 1}), 9.0),
        timed(request("GET", "/_matrix/client/v3/joined_rooms"), 0.5),
    ]

    found = made(everything, 7)
    first, second = prepared(everything, before, after)

    assert (found.work, found.seconds, found.total, found.polls) == (2, 2.5, 5, 7)
    assert (first.makes, second.makes) == ("!a", None)
    assert '"aim-2"' in first.body
    assert "@aim-2:x" in second.body


async def test_the_bare_loop_fills_in_the_rooms_that_it_makes() -> None:
    seen: list[str] = []

    async def answer(incoming: web.Request) -> web.Response:
        seen.append(incoming.path)
        return web.json_response({"room_id": "!today"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    requests = [Prepared("POST", "/createRoom", "{}", "!then"), Prepared("PUT", "/rooms/!then/state", "{}")]
    job = Job.from_json(Job(f"http://{host}:{port}", "token", 4, requests).to_json())

    seconds = await Loop(job).run()
    await runner.cleanup()

    assert seen == ["/createRoom", "/rooms/!today/state"]
    assert seconds > 0


# -- the stand-in and the clocks -----------------------------------------------------------------------------


async def test_the_stand_in_keeps_rooms_refuses_nonsense_and_delivers_what_happened() -> None:
    appservice = make_appservice(port=free_port())
    assert appservice.port is not None
    async with StandIn(appservice, ["ada"]) as homeserver, Delivery(appservice.port) as delivery:
        async with Clock(homeserver.base_url) as clock, _bot(appservice) as bot:
            content = {
                "creation_content": {"aim.managed": {"key": "team-0"}},
                "name": "Team 0",
                "invite": ["@ada:example.test"],
            }
            async with bot.post(f"{clock.url}/_matrix/client/v3/createRoom", json=content) as answer:
                room_id = (await answer.json())["room_id"]
            async with bot.post(
                f"{clock.url}{ROOMS}/{room_id}/invite", json={"user_id": "@ada:example.test"}
            ) as again:
                refused = again.status
            async with bot.get(
                f"{clock.url}/_synapse/admin/v3/users?limit=1&order_by=creation_ts&dir=b"
            ) as listed:
                newest = [user["name"] for user in (await listed.json())["users"]]
            await delivery.delivered(lambda event: event["state_key"] == "@ada:example.test", 10)
            assert homeserver.rooms_by_key() == {"team-0": room_id}
            assert (refused, newest) == (403, ["@ada:example.test"])
            assert (clock.polls, len(clock.asked)) == (1, 2)
            assert [one.status for one in clock.timed] == [200, 403, 200]
            async with bot.post(f"{clock.url}{ROOMS}/{room_id}/kick", json={"user": "?"}) as nonsense:
                assert nonsense.status == 400
        assert "kick" in homeserver.faults[0]
        assert homeserver.fill({"team-0": ["ada", "bo"]}, {}) == 2


def _bot(appservice: Appservice) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {appservice.as_token}"})


def test_a_decision_is_measured_in_its_parts() -> None:
    found = decide(Size(users=400, groups=60, spaces=10), 1)

    assert list(found.parts) == ["desire", "diff and guards", "remember"]
    assert all(seconds > 0 for seconds in found.parts.values())


# -- transactions --------------------------------------------------------------------------------------------


async def test_messages_go_through_the_real_mirror_which_asks_nobody() -> None:
    mirror = make_mirror(3)

    await mirror.take("1", [message(number) for number in range(MESSAGES)])
    with pytest.raises(RuntimeError, match="was to hold messages only"):
        await mirror.take("2", [{**message(1), "type": "m.room.name", "state_key": "", "content": {}}])


# -- what is shown -------------------------------------------------------------------------------------------


def found(slow: float, requests: int, organisation: Organisation) -> tuple[Real, Large]:
    least = sum(organisation.least_requests().values())
    asked = Asked({"GET state": requests} if requests else {}, polls=3, cycles=3)
    rounds = [Made({"invite": least + requests}, 4, least, slow)]
    corrections = Corrections("a change", "kick", [Corrected(0.1, 0.2, slow)], [Needed(0.1, 0.4)])
    provisioning = Provisioning(organisation, rounds, [1.0])
    decision = Decision(FULL.decision, {"desire": 0.01})
    large = Large(FULL.large, 30_000, asked, asked, [Reaction(0.2, 0.1)], decision)
    return Real(provisioning, asked, asked, [corrections]), large


@pytest.mark.parametrize(("slow", "requests", "said"), [(0.9, 0, "yes"), (1.2, 40, "NO")])
def test_the_tables_say_what_is_reached(slow: float, requests: int, said: str) -> None:
    *_, aims = live_tables(*found(slow, requests, FULL.real))

    assert {row[-1] for row in aims.rows} == {said}
    assert len(aims.rows) == 7


def test_a_toy_reaches_nothing() -> None:
    titles = [table.title for table in live_tables(*found(1.0, 0, SMALL.real))]

    assert len(titles) == 4
    assert not any("reached" in title for title in titles)


def test_medians_of_both_sides_are_compared() -> None:
    turns = [Corrected(0.0, 0.0, seconds) for seconds in (0.3, 0.2, 9.0)]
    needed = [Needed(0.05, 0.1), Needed(0.05, 0.1), Needed(5.0, 0.1)]

    assert Corrections("", "", turns, needed).times_needed == pytest.approx(2.0)


async def test_a_correction_that_does_not_come_is_given_up() -> None:
    clock = Clock("http://127.0.0.1:1")
    with pytest.raises(TimeoutError):
        await clock.accepted(lambda _: True, 0.01)
    await asyncio.wait_for(clock.calm(0.1, 1.0), 1.0)


def test_people_are_told_by_their_number() -> None:
    assert localpart(7) == "person00007"
