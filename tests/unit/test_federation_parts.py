"""The parts of federation one by one: what is parsed, requested, checked, logged and waited for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from mautrix.api import PathBuilder

from aim.check.peers import peer_finding
from aim.daemon.telling import Teller
from aim.desired.levels import base_levels
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix import parse
from aim.matrix.check import Verdict
from aim.matrix.mirror.invited import Ignored
from aim.matrix.parse import Home
from aim.matrix.peers import PeerFacts, peer_facts
from aim.matrix.transport import Transport
from aim.matrix.write import Writer
from aim.ops.metrics import Metrics
from aim.planner.actions import InviteAgent
from aim.planner.diff import diff
from aim.planner.explain import Question, explain, scope_of
from aim.planner.explained import to_lines
from aim.planner.keys import Keys
from aim.planner.plan import make_plan
from aim.ports import Outcome, OutcomeStatus
from aim.run import _Ignoring
from aim.world.audit import Audit
from aim.world.federation import EXPECTATIONS_TYPE, Expectations, ExpectedGroup, Origin, server_of
from tests.unit.federating import BERLIN, Party, settled
from tests.unit.mirroring import HOME, Json
from tests.unit.test_mirror_invited import PEER, ROOM, WITH_PEER, begun, created, join

THEIRS = Home("berlin.org", "@aim:berlin.org", "aim", frozenset({"@aim:dallas.org"}))


# -- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mxid", "server"),
    [
        ("@dave:berlin.org", "berlin.org"),
        ("@dave:localhost:8448", "localhost:8448"),
        ("@dave:[fd00::1]:8448", "[fd00::1]:8448"),
        ("@Dave:berlin.org", "berlin.org"),
        ("dave:berlin.org", ""),
        ("@dave", ""),
        ("", ""),
    ],
)
def test_the_server_of_a_user(mxid: str, server: str) -> None:
    assert server_of(mxid) == server


def test_expectations_are_read_as_they_are_written() -> None:
    said = Expectations(
        agents={"@b:x": (ExpectedGroup("", 0), ExpectedGroup("g", -5)), "@a:x": ()}, former={"@c:x": 5}
    )
    assert parse.expectations(cast("dict[str, object]", said.content)) == said
    assert list(cast("dict[str, object]", said.content["agents"])) == ["@a:x", "@b:x"]


@pytest.mark.parametrize(
    ("content", "version"),
    [
        ({}, None),
        ({"version": 0}, None),
        ({"version": True}, None),
        ({"version": 2**60}, None),
        ({"version": 3}, 3),
    ],
)
def test_versions_of_expectations(content: Json, version: int | None) -> None:
    said = parse.expectations(content)
    assert (said.version if said else None) == version
    assert said is None or not said.is_understood


def _create(sender: str, marker: object) -> Json:
    return {"type": "m.room.create", "state_key": "", "sender": sender, "content": {"aim.managed": marker}}


def test_the_origin_of_a_room() -> None:
    marker = {"version": 1, "instance": "other", "key": "shared"}
    assert parse.origin(_create("@aim:dallas.org", marker), THEIRS) == Origin("@aim:dallas.org", 1, "shared")
    # Two of us on one homeserver don't federate, nor does one with itself.
    assert parse.origin(_create("@aim2:berlin.org", marker), THEIRS) is None
    assert parse.origin(_create("@aim:berlin.org", marker), THEIRS) is None
    assert parse.origin(_create("@aim:dallas.org", {**marker, "key": 5}), THEIRS) is None
    assert parse.origin({"type": "m.room.create"}, THEIRS) is None


@pytest.mark.parametrize("agent_level", [1, 31, 51, 99])
@pytest.mark.parametrize("is_space", [True, False])
def test_an_agent_can_do_what_it_has_to_and_no_more(agent_level: int, *, is_space: bool) -> None:
    levels: dict[str, Any] = dict(base_levels(is_space=is_space, room_version="12", agent_level=agent_level))
    events = levels["events"]
    assert max(levels["invite"], levels["kick"], events["m.room.power_levels"]) <= agent_level
    usual: dict[str, Any] = dict(base_levels(is_space=is_space, room_version="12"))
    assert {**events, "m.room.power_levels": 100} == usual["events"]
    assert not is_space or levels["redact"] > agent_level
    assert is_space or levels["redact"] == usual["redact"]


# -- requests ----------------------------------------------------------------------------------------------


class Requests:
    """Notes what is sent, and answers."""

    def __init__(self, answer: object = None, error: Exception | None = None) -> None:
        self.sent: list[tuple[str, object]] = []
        self.answer, self.error = answer, error
        self.hangs = False

    async def post(self, path: PathBuilder, body: Mapping[str, object], **more: object) -> object:
        self.sent.append((f"POST {path}", more.get("query")))
        if self.hangs and "invite" in str(path):
            await asyncio.Event().wait()
        if self.error is not None and "leave" not in str(path):
            raise self.error
        return {}

    async def get(self, path: PathBuilder, query: object = None, **_: object) -> object:
        self.sent.append((f"GET {path}", query))
        return self.answer


def writer(requests: Requests) -> Writer:
    return Writer(cast("Transport", requests), THEIRS)


async def test_the_bot_comes_in_by_way_of_the_inviter() -> None:
    requests = Requests(_create("@aim:dallas.org", {"version": 1, "instance": "aim", "key": "shared"}))
    await writer(requests).accept("!theirs", "@aim:dallas.org")
    (joined, query), (read, _) = requests.sent
    assert joined == "POST _matrix/client/v3/join/%21theirs"
    assert query == {"server_name": "dallas.org"}
    assert read.startswith("GET")


@pytest.mark.parametrize(
    "create",
    [
        _create("@mallory:dallas.org", {"version": 1, "instance": "aim", "key": "shared"}),
        _create("@aim:dallas.org", None),
        {},
    ],
)
async def test_it_leaves_what_is_not_as_was_said(create: Json) -> None:
    requests = Requests(create)
    with pytest.raises(HomeserverRefused, match="is not what @aim:dallas"):
        await writer(requests).accept("!theirs", "@aim:dallas.org")
    assert requests.sent[-1][0] == "POST _matrix/client/v3/rooms/%21theirs/leave"


async def test_an_agent_whose_server_is_away_is_tried_once() -> None:
    requests = Requests(error=HomeserverUnavailable("502 M_UNKNOWN", ""))
    with pytest.raises(HomeserverUnavailable, match="can't be asked in: 502") as raised:
        await writer(requests).invite_agent("!ours", "@aim:x.org")
    assert len(requests.sent) == 1
    assert "rc_invites" in raised.value.remedy


async def test_an_agent_whose_server_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.matrix.write.AGENT_PATIENCE", 0.01)
    requests = Requests()
    requests.hangs = True
    with pytest.raises(HomeserverUnavailable, match="no answer from the server of"):
        await writer(requests).invite_agent("!ours", "@aim:x.org")


# -- what is told ------------------------------------------------------------------------------------------


def test_an_ignored_inviter_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("aim.run.logs.warning", said.append)
    metrics = Metrics()
    ignoring = _Ignoring(metrics)
    for _ in range(3):
        ignoring("@mallory:x.org", Ignored.STRANGER)
    assert len(said) == 1
    assert "@mallory:x.org is ignored" in said[0]
    count = metrics.registry.get_sample_value("aim_federation_ignored_invites_total", {"reason": "stranger"})
    assert count == 3
    for number in range(5000):
        ignoring(f"@m{number}:x.org", Ignored.STRANGER)
    assert len(said) == _Ignoring._MOST


def test_a_server_that_is_away_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("aim.daemon.telling._log.warning", lambda text, **_: said.append(text))
    teller = Teller(Metrics())
    action = InviteAgent(room="shared", space="shared", reason="because", agent="@aim:x.org")
    failed = Outcome(action, OutcomeStatus.FAILED, "502")
    for _ in range(3):
        teller.outcome(failed)
    assert said == ["invite_agent"]
    teller.outcome(Outcome(action, OutcomeStatus.DONE))
    teller.outcome(failed)
    assert said == ["invite_agent"] * 2


def test_the_end_of_the_grace_wakes() -> None:
    story = settled()
    assert story.dallas.plan().wakes_at is None
    story.federated_groups()
    story.dallas.cycle()
    at = story.dallas.plan().wakes_at
    assert at is not None
    assert at - story.network.clock.time == story.dallas.config.provisioner.federation.grace
    story.pass_time(days=1)
    assert story.dallas.plan().wakes_at is None
    assert len(story.dallas.plan().due) == 4


def test_a_bot_that_never_came_has_its_invite_taken_back() -> None:
    story = settled(change=lambda story: story.berlin.provisioner["federation"].update(federates_with=[]))
    assert story.members("invite") == {story.berlin.bot}
    story.federated_groups()
    story.settle()
    assert story.members("invite") == set()
    assert story.berlin.bot not in story.levels()
    assert story.expectations["former"] == {}


# -- aim explain -------------------------------------------------------------------------------------------


def _answers(party: Party, person: str | None, room: str | None) -> str:
    world = asyncio.run(party.reconciler.world())
    plan = make_plan(world)
    scope = scope_of(world, plan, Question(person, room, everybody=True))
    return "\n".join(to_lines(explain(world, plan, scope, Audit())))


def test_why_somebody_is_in_a_shared_space() -> None:
    story = settled()
    dallas, berlin = story.dallas, story.berlin
    assert "the agent for the people of berlin" in _answers(dallas, berlin.bot, "shared")
    assert f"looked after by {berlin.bot}" in _answers(dallas, berlin.mxid("dave"), "shared")
    told = _answers(berlin, "dave", story.room_id)
    assert f"as {dallas.bot} expects" in told
    assert "level 50" in told
    assert f"looked after by {dallas.bot}" in _answers(berlin, dallas.mxid("alice"), "Federated space")
    assert f"made by {dallas.bot}, where we look after our own people" in _answers(
        berlin, None, story.room_id
    )
    story.federated_groups()
    dallas.did()
    story.pass_time(days=1)
    told = _answers(dallas, berlin.mxid("dave"), "shared")
    assert "kick" in told
    assert "never touched" not in told
    story.network.deliver_all()
    assert "to be left with all our people" in _answers(berlin, None, story.room_id)


# -- aim check ---------------------------------------------------------------------------------------------


def facts(**more: Any) -> PeerFacts:
    given: dict[str, Any] = {
        "bot": f"@groupsync:{BERLIN}",
        "joined": 1,
        "invited": 0,
        "shared": 2,
        "asked_into": 0,
        "last_seen": datetime(2030, 1, 1, 12, tzinfo=UTC),
        "newer": False,
        "silent": 0,
    }
    return PeerFacts(**{**given, **more})


@pytest.mark.parametrize(
    ("more", "verdict", "said"),
    [
        ({}, Verdict.OK, "last seen at 2030-01-01 12:00 UTC; its version is understood"),
        ({"shared": 0, "last_seen": None}, Verdict.OK, "never seen"),
        ({"invited": 1}, Verdict.WARN, "asked into 1 more"),
        ({"newer": True}, Verdict.WARN, "it is a newer aim"),
        ({"silent": 1}, Verdict.WARN, "in 1 spaces it has not said"),
    ],
)
def test_how_it_stands_with_a_peer(more: dict[str, Any], verdict: Verdict, said: str) -> None:
    finding = peer_finding(facts(**more), "@aim:dallas.org")
    assert finding.verdict is verdict
    assert said in finding.message
    assert f"@groupsync:{BERLIN}" in finding.message


async def test_the_facts_of_a_peer() -> None:
    setting = await begun()
    server = setting.server
    server.make("!ours", key="shared", kind="m.space")
    server.member("!ours", PEER, "invite", sender=HOME.bot)
    server.invite_from(ROOM, PEER, created())
    await server.deliver()
    await setting.observe()
    [found] = await peer_facts(setting.store, WITH_PEER, [PEER])
    assert (found.joined, found.invited, found.shared, found.asked_into) == (0, 1, 0, 1)
    server.member("!ours", PEER, "join")
    join(server)
    server.event(ROOM, EXPECTATIONS_TYPE, PEER, {"version": 9}, PEER)
    server.member("!ours", PEER, "join")
    await server.deliver()
    await setting.observe()
    [found] = await peer_facts(setting.store, WITH_PEER, [PEER])
    assert (found.joined, found.invited, found.shared, found.asked_into) == (1, 0, 1, 0)
    assert found.newer
    assert found.last_seen is not None
    [other] = await peer_facts(setting.store, WITH_PEER, ["@aim:nobody.org"])
    assert (other.joined, other.shared, other.last_seen) == (0, 0, None)


# -- one diff ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_part_of_the_diff_is_the_diff_of_that_part(seed: int) -> None:
    """Whatever room or person a cycle is about, also where spaces are shared."""
    chance = random.Random(seed)
    story = settled(change=lambda story: story.dallas.provisioner.update(default_rooms=[{"id": "talk"}]))
    story.berlin.people = chance.sample([*story.berlin.people, "greta"], 3)
    story.dallas.people = chance.sample([*story.dallas.people, "dora"], 3)
    story.federated_groups(*chance.sample([story.everyone, story.managers], chance.randint(0, 2)))
    story.dallas.provisioner["federation"]["max_power_level"] = chance.choice([30, 50])
    story.dallas.cycle()
    story.network.deliver_all()
    story.pass_time(days=chance.choice([0, 2]))
    for party in (story.dallas, story.berlin):
        world = asyncio.run(party.reconciler.world())
        whole = diff(world)
        assert whole == diff(world)
        people = [party.mxid(name) for name in (*party.people, "dave", "alice")]
        for keys in [
            *(Keys(rooms=frozenset({key})) for key in world.observed.rooms),
            *(Keys(people=frozenset({mxid})) for mxid in (*people, story.berlin.bot)),
        ]:
            wanted = tuple(action for action in whole.actions if keys.cover(action))
            assert diff(world, keys).actions == wanted
