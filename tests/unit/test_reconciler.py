"""The reconciler over fakes: what is read, recorded and done, in which order, and being killed anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aim.config import Config
from aim.directory.model import Directory, User
from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, HomeserverUnavailable, PlanError, SourceInvalid, StoreError
from aim.planner.plan import Plan
from aim.ports import MailEvent, OutcomeStatus
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.reconciler import Cycle, Hooks, Observer, Reconciler, Senses
from aim.world.accounts import Account
from aim.world.recorded import Approval
from tests.unit.account_fakes import FakeAccounts, FakeAnnouncer
from tests.unit.fakes import (
    RECORDS,
    WRITES,
    Call,
    Clock,
    FakeReader,
    FakeRecorder,
    FakeSource,
    FakeWriter,
    Killed,
    Line,
)
from tests.unit.model import BOT, INSTANCE, SERVER, ModelHomeserver, mxid
from tests.unit.strategies import examples, scenes
from tests.unit.worlds import Scene, a_config, a_directory, a_space, a_user, identities

STAFF = ["ann", "bob", "cid", "dan", "eve", "fay"]
CONFIG = a_config(
    a_space("all", "", ("mods", 50), subspaces=[a_space("lab", "lab")]), default_rooms=[{"id": "talk"}]
)


def staff(names: Iterable[str | User] = STAFF, **groups: Iterable[str]) -> Callable[[Roster], Directory]:
    """Makes the directory of these people; unless given, ann is a moderator and bob works in the lab."""
    named: Mapping[str, Iterable[str]] = {"mods": ["ann"], "lab": ["bob"], **groups}
    return lambda roster: a_directory(names, named, roster=roster)


@dataclass
class Deployment:
    """A homeserver, a database and a source, which outlive every process of ours."""

    make: Callable[[Roster], Directory] = field(default_factory=staff)
    config: Config = CONFIG
    clock: Clock = field(default_factory=Clock)
    homeserver: ModelHomeserver = field(default_factory=lambda: ModelHomeserver(STAFF))

    def __post_init__(self) -> None:
        self.start()
        self.recorder = FakeRecorder(self.line)

    def start(self, line: Line | None = None) -> None:
        """A new process."""
        self.line = line or Line()
        self.stopping = asyncio.Event()
        if hasattr(self, "recorder"):
            self.recorder._line = self.line

    def lose_database(self) -> None:
        self.recorder = FakeRecorder(self.line)

    @property
    def senses(self) -> Senses:
        return Senses(
            config=self.config,
            # Not `self.make` itself: it may be another one by the time that the directory is read.
            source=FakeSource(lambda roster: self.make(roster)),  # noqa: PLW0108
            homeserver=FakeReader(self.homeserver, self.line),
            recorded=self.recorder,
            now=self.clock.now,
        )

    @property
    def tools(self) -> Tools:
        return Tools(
            writer=FakeWriter(self.homeserver, self.line),
            recorder=self.recorder,
            now=self.clock.now,
            server_name=SERVER,
            bot=BOT,
            instance=INSTANCE,
            sleep=self.clock.sleep,
        )

    def reconciler(self) -> Reconciler:
        return Reconciler(self.senses, self.recorder, Provisioner(self.tools))

    async def cycle(self) -> Cycle:
        reconciler = self.reconciler()
        await reconciler.settle()
        return await reconciler.cycle(self.stopping)

    def written(self) -> list[str]:
        """What was written anywhere since the start, in order."""
        return [call.name for call in self.line.of(*WRITES, *RECORDS)]

    def members(self, key: str) -> list[str]:
        [room] = self.homeserver.by_key(key)
        return sorted(room.who("join", "invite"))

    def approve(self, plan: Plan) -> None:
        approved = {
            action.identity: Approval(action.identity, "admin", self.clock.time + timedelta(hours=24))
            for action in plan.held
        }
        self.recorder.recorded = replace(self.recorder.recorded, approvals=approved)


async def settled() -> Deployment:
    """After a first cycle; everybody is in."""
    made = Deployment()
    await made.cycle()
    made.homeserver.accept_invites()
    made.start()
    return made


# -- one cycle ------------------------------------------------------------------------------------


async def test_a_first_cycle_makes_everything() -> None:
    deployment = Deployment()
    cycle = await deployment.cycle()
    assert {outcome.status for outcome in cycle.outcomes} == {OutcomeStatus.DONE}
    assert deployment.members("all") == deployment.members("all/talk") == [mxid(name) for name in STAFF]
    assert deployment.members("lab") == [mxid("bob")]
    assert deployment.recorder.cycles[0][0] == "done"
    assert deployment.recorder.outcomes == list(cycle.outcomes)


async def test_a_second_cycle_writes_nothing_anywhere() -> None:
    deployment = await settled()
    cycle = await deployment.cycle()
    assert cycle.plan.actions == ()
    assert deployment.written() == []
    assert deployment.line.names() == ["open_intents", "load", "observe"]


async def test_the_cycle_and_who_is_entitled_are_recorded_before_anything_is_done() -> None:
    deployment = Deployment()
    await deployment.cycle()
    names = deployment.written()
    first = min(names.index(name) for name in WRITES if name in names)
    for name in ("begin_cycle", "record_seen", "record_entitled"):
        assert names.index(name) < first
    assert names[-1] == "end_cycle"
    assert names.count("begin_cycle") == names.count("end_cycle") == 1


async def test_a_declined_plan_writes_nothing() -> None:
    deployment = Deployment()
    shown: list[Plan] = []

    async def no(plan: Plan) -> bool:
        shown.append(plan)
        return False

    cycle = await deployment.reconciler().cycle(deployment.stopping, Hooks(agree=no))
    assert not cycle.agreed
    assert shown == [cycle.plan]
    assert deployment.written() == []


async def test_a_saved_plan_that_is_no_longer_true_writes_nothing() -> None:
    deployment = Deployment()

    async def stale(_: Plan) -> bool:
        raise PlanError("the world has moved on")

    with pytest.raises(PlanError):
        await deployment.reconciler().cycle(deployment.stopping, Hooks(agree=stale))
    assert deployment.written() == []


async def test_an_answer_that_came_late_is_good_only_for_the_same_plan() -> None:
    deployment = Deployment()

    async def after_lunch(_: Plan) -> bool:
        deployment.clock.time += timedelta(hours=1)
        return True

    cycle = await deployment.reconciler().cycle(deployment.stopping, Hooks(agree=after_lunch))
    assert not cycle.failed

    async def somebody_left_meanwhile(plan: Plan) -> bool:
        deployment.make = staff(STAFF[:-1], lab=["cid"])
        return await after_lunch(plan)

    deployment.start()
    deployment.make = staff(lab=["cid"])
    with pytest.raises(PlanError, match="moved on"):
        await deployment.reconciler().cycle(deployment.stopping, Hooks(agree=somebody_left_meanwhile))
    assert deployment.written() == []


async def test_observing_writes_nothing() -> None:
    deployment = Deployment()
    plan = await Observer(deployment.senses).plan()
    assert len(plan.actions) > 0
    assert deployment.written() == []


async def test_what_is_only_worth_remembering_is_remembered_without_a_cycle() -> None:
    deployment = await settled()
    # Somebody without an account, who is in nothing yet.
    deployment.make = staff([*STAFF, "gus"])
    await deployment.cycle()
    assert deployment.written() == ["record_seen", "record_entitled"]
    assert len(deployment.recorder.cycles) == 1


# -- properties that were applied -----------------------------------------------------------------


def properties(deployment: Deployment, key: str) -> Mapping[str, object]:
    found = deployment.recorder.recorded.rooms[key].properties
    assert found is not None
    return found


async def with_properties(**changed: object) -> Deployment:
    """A space with one room in it, of which these properties were changed in the configuration."""

    def config(**more: object) -> Config:
        return a_config(a_space("a", ""), default_rooms=[{"id": "r", "properties": {"name": "Old", **more}}])

    deployment = Deployment(config=config())
    await deployment.cycle()
    deployment.homeserver.accept_invites()
    deployment.config = config(**changed)
    deployment.start()
    return deployment


async def test_suggesting_is_remembered_when_it_is_done_and_only_then() -> None:
    deployment = await with_properties(suggested=True)
    deployment.line.fail = lambda call: HomeserverUnavailable("away") if call.name == "put_state" else None
    await deployment.cycle()
    assert properties(deployment, "a/r")["suggested"] is False
    deployment.line.fail = lambda _: None
    await deployment.cycle()
    assert properties(deployment, "a/r")["suggested"] is True
    deployment.start()
    await deployment.cycle()
    assert deployment.written() == []


async def test_one_property_that_fails_leaves_the_others_applied() -> None:
    deployment = await with_properties(name="New", topic="Hello", suggested=True)

    def fail(call: Call) -> BaseException | None:
        is_it = call.name == "put_state" and "m.room.topic" in call.arguments
        return HomeserverRefused("no", status=403) if is_it else None

    deployment.line.fail = fail
    await deployment.cycle()
    found = properties(deployment, "a/r")
    assert (found["m.room.name"], found["suggested"]) == ({"name": "New"}, True)
    assert "m.room.topic" not in found


@pytest.mark.parametrize(
    ("room", "left"), [("a", "set_room_state a/r m.room.name"), ("a/r", "add_child a a/r")]
)
async def test_a_cycle_over_one_room_remembers_nothing_as_applied_that_is_left_to_another(
    room: str, left: str
) -> None:
    deployment = await with_properties(name="New", suggested=True)

    def claim(plan: Plan) -> Plan:
        return replace(plan, actions=tuple(action for action in plan.actions if action.room == room))

    await deployment.reconciler().cycle(deployment.stopping, Hooks(claim=claim))
    assert identities((await deployment.reconciler().plan()).due) == [left]


async def test_failed_and_skipped_actions_are_told_apart_from_done_ones() -> None:
    deployment = Deployment()
    deployment.line.fail = lambda call: (
        HomeserverRefused("no", status=403) if call.name == "create_room" else None
    )
    cycle = await deployment.cycle()
    assert cycle.failed == cycle.outcomes
    assert {outcome.status for outcome in cycle.failed} == {OutcomeStatus.FAILED, OutcomeStatus.SKIPPED}
    assert deployment.recorder.cycles[0][0] == "done"


async def test_a_cycle_that_is_asked_to_stop_is_recorded_and_completed_by_the_next() -> None:
    deployment = Deployment()
    deployment.line.fail = lambda call: deployment.stopping.set() if call.name == "create_room" else None
    cycle = await deployment.cycle()
    assert OutcomeStatus.SKIPPED in {outcome.status for outcome in cycle.outcomes}
    assert deployment.recorder.outcomes == list(cycle.outcomes)
    deployment.start()
    await deployment.cycle()
    assert deployment.members("lab") == [mxid("bob")]
    assert len(deployment.homeserver.rooms) == 4


# -- bad reads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SourceInvalid("truncated"), HomeserverUnavailable("away"), StoreError("gone")]
)
async def test_what_cannot_be_read_ends_the_cycle_before_any_write(error: Exception) -> None:
    deployment = await settled()

    def broken(_: Roster) -> Directory:
        raise error

    if isinstance(error, SourceInvalid):
        deployment.make = broken
    name = "observe" if isinstance(error, HomeserverUnavailable) else "load"
    deployment.line.fail = lambda call: error if call.name == name else None
    with pytest.raises(type(error)):
        await deployment.cycle()
    assert deployment.written() == []


async def test_an_empty_directory_where_users_were_known_is_an_error_and_nothing_is_written() -> None:
    deployment = await settled()
    deployment.make = staff([])
    with pytest.raises(SourceInvalid, match="6 users were known"):
        await deployment.cycle()
    assert deployment.written() == []


async def test_an_empty_directory_is_an_error_with_a_lost_database_too() -> None:
    deployment = await settled()
    deployment.lose_database()
    deployment.make = staff([])
    with pytest.raises(SourceInvalid):
        await deployment.cycle()
    assert deployment.written() == []


async def test_an_empty_directory_is_an_error_even_if_users_were_never_recorded() -> None:
    # Killed in its first cycle after the loss: rooms are recorded, users are not.
    deployment = await settled()
    deployment.lose_database()
    deployment.line.kill_before = len(deployment.line.calls) + 5
    with pytest.raises(Killed):
        await deployment.cycle()
    deployment.start()
    assert deployment.recorder.recorded.seen == {}
    assert not (await deployment.recorder.load(Roster(), deployment.clock.time)).fresh
    deployment.make = staff([])
    with pytest.raises(SourceInvalid):
        await deployment.cycle()
    assert not any(room.who("leave") for room in deployment.homeserver.rooms.values())


async def test_an_empty_directory_that_is_pushed_is_to_be_pushed_anew() -> None:
    deployment = await settled()
    deployment.make = lambda roster: replace(staff([])(roster), filling=True)
    with pytest.raises(SourceInvalid, match="6 users were known") as told:
        await deployment.cycle()
    assert "push everything from the beginning" in told.value.remedy
    assert deployment.written() == []


async def test_a_directory_that_nobody_has_pushed_anything_to_yet_is_no_error_and_removes_nobody() -> None:
    deployment = await settled()
    before = shape(deployment)
    deployment.lose_database()
    deployment.make = lambda roster: replace(staff([])(roster), filling=True)
    for _ in range(3):
        cycle = await deployment.cycle()
        assert cycle.plan.held
        deployment.start()
    assert shape(deployment) == before
    first = Deployment(make=deployment.make)
    for _ in range(3):
        await first.cycle()
    assert first.members("all") == []


async def test_an_empty_directory_at_a_first_start_is_fine() -> None:
    deployment = Deployment(make=staff([]))
    await deployment.cycle()
    assert deployment.members("all") == []


# -- guards and approval --------------------------------------------------------------------------


async def test_above_the_limit_nobody_is_removed_until_somebody_approves() -> None:
    deployment = await settled()
    deployment.make = staff(["ann", "bob"])
    cycle = await deployment.cycle()
    held = {action.identity for action in cycle.plan.held}
    assert len(held) == 8  # four people, in the space and its room
    written = ["begin_cycle", "record_seen", "record_lapsed", "record_held", "end_cycle"]
    assert deployment.written() == written
    assert deployment.recorder.recorded.held == held

    deployment.start()
    deployment.clock.time += timedelta(hours=30)
    assert (await deployment.cycle()).plan.held != ()
    assert deployment.written() == []

    deployment.approve(cycle.plan)
    await deployment.cycle()
    assert deployment.members("all") == deployment.members("all/talk") == [mxid("ann"), mxid("bob")]
    assert deployment.recorder.recorded.held == frozenset()


async def test_approval_runs_out() -> None:
    deployment = await settled()
    deployment.make = staff(["ann", "bob"])
    deployment.approve((await deployment.cycle()).plan)
    deployment.clock.time += timedelta(hours=25)
    await deployment.cycle()
    assert len(deployment.members("all")) == 6


# -- recovery -------------------------------------------------------------------------------------


async def test_a_lost_database_is_rebuilt_from_the_markers_and_removes_nobody() -> None:
    deployment = await settled()
    deployment.lose_database()
    deployment.make = staff(["ann", "bob", "cid", "dan", "eve", "gus"])
    deployment.homeserver.accounts.add("gus")
    cycle = await deployment.cycle()
    assert [action.identity for action in cycle.plan.held] == [
        f"kick all {mxid('fay')}",
        f"kick all/talk {mxid('fay')}",
    ]
    assert deployment.recorder.recorded.recovery_since == deployment.clock.time
    assert deployment.recorder.recorded.rooms.keys() == {"all", "all/talk", "lab", "lab/talk"}
    assert mxid("gus") in deployment.members("all")

    # It stays so: time alone ends no recovery.
    deployment.clock.time += timedelta(days=2)
    deployment.start()
    assert len((await deployment.cycle()).plan.held) == 2
    deployment.approve(cycle.plan)
    await deployment.cycle()
    assert mxid("fay") not in deployment.members("all")
    assert deployment.recorder.recorded.recovery_since is None


async def test_recovery_with_nothing_to_remove_is_over_at_once() -> None:
    deployment = await settled()
    deployment.lose_database()
    cycle = await deployment.cycle()
    assert cycle.plan.actions == ()
    assert deployment.recorder.recorded.recovery_since is None
    deployment.start()
    deployment.make = staff(STAFF[:-1])
    await deployment.cycle()
    assert mxid("fay") not in deployment.members("all")


@pytest.mark.parametrize("moment", range(14))
async def test_what_people_changed_outlives_the_loss_of_the_database_and_being_killed(moment: int) -> None:
    deployment = await settled()
    rooms = deployment.homeserver.by_key("all/talk") + deployment.homeserver.by_key("lab/talk")
    for room in rooms:
        room.state["m.room.name", ""] = {"name": "Our own name"}
    deployment.lose_database()
    deployment.line.kill_before = len(deployment.line.calls) + moment
    for _ in range(2):
        with suppress(Killed):
            await deployment.cycle()
        deployment.start()
    await deployment.cycle()
    assert [room.state["m.room.name", ""] for room in rooms] == [{"name": "Our own name"}] * 2
    assert deployment.recorder.recorded.recovery_since is None


@pytest.mark.parametrize("moment", range(14))
async def test_killed_in_recovery_it_is_in_recovery_still(moment: int) -> None:
    deployment = await settled()
    deployment.lose_database()
    deployment.make = staff(STAFF[:-1])
    deployment.line.kill_before = len(deployment.line.calls) + moment
    # The next process, too, is killed or does its work: in neither case may anybody be removed.
    for _ in range(2):
        with suppress(Killed):
            await deployment.cycle()
        deployment.start()
    await deployment.cycle()
    assert mxid("fay") in deployment.members("all")
    assert deployment.recorder.recorded.recovery_since is not None


# -- killed at any moment -------------------------------------------------------------------------


def changed() -> Callable[[Roster], Directory]:
    """bob leaves the lab, cid comes; dan is a moderator and ann no more; fay leaves."""
    return staff(STAFF[:-1], mods=["dan"], lab=["cid"])


def shape(deployment: Deployment) -> dict[str, object]:
    """How the homeserver is, by keys."""
    found: dict[str, object] = {}
    for room in deployment.homeserver.rooms.values():
        assert room.key not in found, f"{room.key} was made twice"
        rooms = deployment.homeserver.rooms
        children = sorted(rooms[child].key if child in rooms else child for child in room.children())
        found[room.key] = (deployment.members(room.key), dict(room.levels.get("users", {})), children)
    return found


async def _killed(deployment: Deployment, line: Line) -> bool:
    """One process: true if it was killed on the way."""
    deployment.start(line)
    try:
        await deployment.cycle()
    except Killed:
        return True
    return False


async def _converge(deployment: Deployment) -> None:
    """New processes until nothing is left to do; two are enough."""
    for _ in range(2):
        deployment.start()
        deployment.clock.time += timedelta(seconds=1)
        await deployment.cycle()
        deployment.homeserver.accept_invites()
    deployment.start()
    assert (await deployment.cycle()).plan.actions == ()
    assert deployment.written() == []
    assert deployment.recorder.intents == {}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_any_call_of_the_first_cycle_it_ends_in_the_same_state(*, after: bool) -> None:
    whole = Deployment()
    await whole.cycle()
    calls = len(whole.line.calls)
    whole.homeserver.accept_invites()
    for moment in range(calls):
        deployment = Deployment()
        line = Line(kill_after=moment) if after else Line(kill_before=moment)
        was_killed = await _killed(deployment, line)
        assert was_killed or after
        await _converge(deployment)
        assert shape(deployment) == shape(whole), f"killed at call {moment}"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_any_call_of_a_later_cycle_it_ends_in_the_same_state(*, after: bool) -> None:
    whole = await settled()
    whole.make = changed()
    await whole.cycle()
    calls = len(whole.line.calls)
    whole.homeserver.accept_invites()
    for moment in range(calls):
        deployment = await settled()
        deployment.make = changed()
        line = Line(kill_after=moment) if after else Line(kill_before=moment)
        was_killed = await _killed(deployment, line)
        assert was_killed or after
        await _converge(deployment)
        assert shape(deployment) == shape(whole), f"killed at call {moment}"


async def test_killed_again_and_again_the_guards_count_what_was_begun() -> None:
    deployment = await settled()
    for leaver in range(1, 6):
        # One person fewer each time, and killed right after each kick.
        deployment.make = staff(STAFF[:-leaver])
        line = Line()

        def after_kick(call: Call, line: Line = line) -> BaseException | None:
            line.killed = line.killed or call.name == "kick"
            return Killed() if line.killed else None

        line.lose = after_kick
        await _killed(deployment, line)
    gone = {user for room in deployment.homeserver.rooms.values() for user in room.who("leave")}
    assert len(gone) <= 3


async def test_a_room_in_the_making_when_the_process_was_killed_is_waited_for_and_adopted() -> None:
    deployment = Deployment()
    line = Line()
    pending: list[Callable[[], object]] = []

    def killed_while_it_is_made(call: Call) -> BaseException | None:
        if call.name == "create_room":
            # The homeserver has the request; nobody will read its answer.
            pending.append(lambda: deployment.homeserver.create_room(call.arguments[0]))  # type: ignore[arg-type] # a NewRoom
            line.killed = True
            return Killed()
        return None

    line.fail = killed_while_it_is_made
    assert await _killed(deployment, line)
    deployment.start()

    def arrives(call: Call) -> None:
        if call.name == "find_by_marker" and pending:
            pending.pop()()

    deployment.line.fail = arrives
    await deployment.cycle()
    await _converge(deployment)
    assert len(deployment.homeserver.rooms) == 4


def of(scene: Scene) -> Deployment:
    """A deployment that looks like the scene."""
    names, before = scene.roster.localparts, scene.directory
    made = Deployment(
        make=lambda roster: a_directory(
            before.users,
            {group.id: names(group.members) for group in before.groups},
            roster=roster,
            contested=names(before.contested),
            unresolved=before.unresolved,
        ),
        config=scene.config,
        homeserver=ModelHomeserver.from_observed(scene.observed, scene.roster),
    )
    made.recorder = FakeRecorder.of(scene, made.line)
    return made


async def _finish(deployment: Deployment) -> dict[str, object]:
    """Cycles, each held plan approved, until one finds nothing to do."""
    for _ in range(4):
        deployment.start()
        cycle = await deployment.cycle()
        if not cycle.plan.actions:
            return shape(deployment)
        deployment.approve(cycle.plan)
    raise AssertionError("it does not come to rest")


@examples(150)
@given(scenes(limits=True), st.integers(0, 60), st.booleans())
async def test_whatever_the_world_being_killed_changes_nothing_in_the_end(
    scene: Scene, moment: int, after: bool
) -> None:
    assume(scene.directory.users)
    whole = await _finish(of(scene))
    deployment = of(scene)
    await _killed(deployment, Line(kill_after=moment) if after else Line(kill_before=moment))
    assert await _finish(deployment) == whole


# -- accounts -------------------------------------------------------------------------------------

LEAVING = {"deprovisioning": {"enabled": True, "soft_delete_period": "30d"}}
STAYED = STAFF[:-1]
"""Everybody but fay."""


@dataclass
class Firm(Deployment):
    """A deployment where accounts follow people, and people are told by mail."""

    config: Config = field(
        default_factory=lambda: a_config(
            a_space("all", "", ("mods", 50), subspaces=[a_space("lab", "lab")]), user_provisioner=LEAVING
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.accounts = FakeAccounts.of(self.line, *STAFF)
        self.announcer = FakeAnnouncer(self.line)

    def start(self, line: Line | None = None) -> None:
        super().start(line)
        if hasattr(self, "accounts"):
            self.accounts.line = self.announcer.line = self.line

    async def forgotten(self, localpart: str) -> None:
        call = await self.line.take("forgotten", localpart)
        await self.line.give(call)

    @property
    def senses(self) -> Senses:
        return replace(super().senses, accounts=self.accounts)

    @property
    def tools(self) -> Tools:
        accounts = self.accounts
        return replace(super().tools, accounts=accounts, known_accounts=accounts, announcer=self.announcer)

    def reconciler(self) -> Reconciler:
        executor = Provisioner(self.tools)
        return Reconciler(self.senses, self.recorder, executor, self.announcer, self.forgotten)

    async def pass_(self, **time: float) -> None:
        """Time goes on, with a cycle each hour: a clock that nobody read for long is not believed."""
        until = self.clock.time + timedelta(**time)
        while self.clock.time < until:
            self.clock.time = min(until, self.clock.time + timedelta(hours=1))
            await self.cycle()

    def account(self, name: str) -> str:
        """In a word."""
        found = self.accounts.accounts[name]
        return "erased" if found.deactivated else "locked" if found.locked else "active"

    def told(self) -> list[tuple[MailEvent, str | None]]:
        return self.announcer.events


async def settled_firm(period: str = "30d") -> Firm:
    """After a first cycle; everybody is in."""
    made = Firm()
    deprovisioning = {"enabled": True, "soft_delete_period": period}
    made.config = a_config(
        a_space("all", "", ("mods", 50), subspaces=[a_space("lab", "lab")]),
        user_provisioner={"deprovisioning": deprovisioning},
    )
    await made.cycle()
    made.homeserver.accept_invites()
    made.start()
    return made


async def test_who_left_is_known_to_be_gone_and_queued_before_they_are_locked() -> None:
    firm = await settled_firm()
    firm.make = staff(STAYED)
    await firm.cycle()
    names = [call.name for call in firm.line.of(*RECORDS, "lock", "announce")]
    assert names == [
        "begin_cycle",
        "record_seen",
        "record_done",
        "change_queued",
        "lock",
        "announce",
        "end_cycle",
    ]
    assert firm.account("fay") == "locked"
    assert firm.members("all") == [mxid(name) for name in STAFF]
    assert firm.told() == [(MailEvent.DEACTIVATED, "fay")]
    firm.start()
    await firm.cycle()
    assert firm.written() == []


async def test_who_was_erased_is_forgotten_when_the_record_of_the_cycle_is_complete() -> None:
    firm = await settled_firm("2h")
    firm.make = staff(STAYED)
    await firm.cycle()
    await firm.pass_(hours=1)
    firm.start()
    await firm.pass_(hours=1)
    assert firm.account("fay") == "erased"
    order = [call.name for call in firm.line.of("erase", "end_cycle", "forgotten", "forget_person")]
    assert order[:4] == ["erase", "end_cycle", "forgotten", "forget_person"]
    [forgotten] = firm.line.of("forgotten")
    [forget] = firm.line.of("forget_person")
    assert (forgotten.arguments, forget.arguments[:2]) == (("fay",), ("id-fay", mxid("fay")))
    assert "id-fay" not in firm.recorder.recorded.seen
    assert not firm.recorder.recorded.queue


@pytest.mark.parametrize("status", [OutcomeStatus.FAILED, OutcomeStatus.SKIPPED])
async def test_whose_erasure_did_not_come_about_is_not_forgotten(status: OutcomeStatus) -> None:
    firm = await settled_firm("1h")
    firm.make = staff(STAYED)
    await firm.cycle()
    firm.clock.time += timedelta(hours=1)

    def goes_wrong(call: Call) -> BaseException | None:
        if call.name == "erase":
            return HomeserverRefused("no", status=403)
        if call.name == "current_account" and status is OutcomeStatus.SKIPPED:
            # Somebody unlocks them at the last moment.
            firm.accounts.accounts["fay"] = Account("fay")
        return None

    firm.line.fail = goes_wrong
    [outcome] = (await firm.cycle()).outcomes
    assert outcome.status is status
    assert firm.line.of("forgotten", "forget_person") == []
    assert firm.recorder.recorded.queue.keys() == {"id-fay"}


async def test_nobody_is_erased_before_the_time_is_over_however_often_it_is_looked_at() -> None:
    firm = await settled_firm("1d")
    firm.make = staff(STAYED)
    await firm.cycle()
    await firm.pass_(hours=23, minutes=59)
    assert firm.account("fay") == "locked"
    await firm.pass_(minutes=1)
    assert firm.account("fay") == "erased"


async def test_a_directory_that_was_read_before_the_time_was_over_does_not_count() -> None:
    firm = await settled_firm("1h")
    firm.make = staff(STAYED)
    await firm.cycle()
    reconciler = firm.reconciler()
    old = await reconciler.read()
    assert old.at == firm.clock.time
    firm.clock.time += timedelta(hours=1)
    await reconciler.cycle(firm.stopping, reading=old)
    assert firm.account("fay") == "locked"
    await reconciler.cycle(firm.stopping, reading=await reconciler.read())
    assert firm.account("fay") == "erased"


async def test_a_directory_is_as_old_as_the_beginning_of_its_reading() -> None:
    firm = await settled_firm("1h")
    firm.make = staff(STAYED)
    await firm.cycle()
    made = firm.make

    def slowly(roster: Roster) -> Directory:
        firm.clock.time += timedelta(hours=1)
        return made(roster)

    firm.make = slowly
    assert (await firm.cycle()).plan.actions == ()
    assert firm.account("fay") == "locked"


async def test_whose_account_is_gone_is_forgotten_when_their_time_is_over() -> None:
    firm = await settled_firm("1h")
    firm.make = staff(STAYED)
    await firm.cycle()
    del firm.accounts.accounts["fay"], firm.accounts.believed["fay"]
    firm.start()
    await firm.pass_(minutes=59)
    assert firm.line.of("forgotten", "forget_person") == []
    await firm.pass_(minutes=1)
    names = [(call.name, call.arguments[0]) for call in firm.line.of("forgotten", "forget_person")]
    assert names == [("forgotten", "fay"), ("forget_person", "id-fay")]
    assert not firm.recorder.recorded.queue
    assert "id-fay" not in firm.recorder.recorded.seen
    await firm.cycle()
    assert firm.members("all") == [mxid(name) for name in STAYED], "nobody's account stays in a room"
    firm.start()
    await firm.cycle()
    assert firm.written() == []


async def test_who_could_not_be_unlocked_is_unlocked_later_and_has_a_new_time_when_they_leave_again() -> None:
    firm = await settled_firm("30d")
    firm.make = staff(STAYED)
    await firm.cycle()
    firm.make = staff()
    refused = HomeserverRefused("no", status=403)
    firm.line.fail = lambda call: refused if call.name == "unlock" else None
    await firm.pass_(days=20)
    firm.line.fail = lambda _: None
    firm.make = staff(STAYED)
    left = firm.clock.time
    await firm.pass_(days=29)
    assert firm.account("fay") == "locked"
    [entry] = firm.recorder.recorded.queue.values()
    assert timedelta(days=30) <= entry.due_at - left <= timedelta(days=31)
    firm.make = staff()
    await firm.cycle()
    assert (firm.account("fay"), firm.recorder.recorded.queue) == ("active", {})


async def test_after_a_long_silence_a_second_reading_has_to_say_that_the_time_is_over() -> None:
    firm = await settled_firm("1d")
    firm.make = staff(STAYED)
    await firm.cycle()
    firm.clock.time += timedelta(days=40)
    await firm.cycle()
    assert firm.account("fay") == "locked"
    await firm.pass_(minutes=59)
    assert firm.account("fay") == "locked"
    await firm.pass_(minutes=1)
    assert firm.account("fay") == "erased"


async def test_whoever_falls_due_is_a_reason_for_a_cycle_once() -> None:
    firm = await settled_firm("1h")
    firm.make = staff(STAYED)
    await firm.cycle()
    reconciler, start = firm.reconciler(), firm.clock.time
    assert not await reconciler.fell_due(start)
    firm.clock.time += timedelta(hours=1)
    assert await reconciler.fell_due(start)
    assert not await reconciler.fell_due(firm.clock.time)


async def test_a_new_account_is_read_before_it_is_decided_about_and_its_user_welcomed_once() -> None:
    firm = await settled_firm()
    firm.make = staff([*STAFF, "gus"])
    await firm.cycle()
    firm.homeserver.accounts.add("gus")
    firm.accounts.accounts["gus"] = Account("gus")
    firm.start()
    await firm.cycle()
    assert firm.line.names().count("observe_accounts") == 2
    assert mxid("gus") in firm.members("all")
    assert firm.told() == [(MailEvent.REGISTERED, "gus")]
    for _ in range(2):
        firm.start()
        await firm.cycle()
    assert firm.announcer.asked == 1


async def test_accounts_that_we_may_not_see_are_not_asked_about_again_and_again() -> None:
    firm = await settled_firm()
    firm.accounts.refused = "no admin; make the bot one"
    firm.homeserver.accounts.add("gus")
    firm.start()
    firm.make = staff([*STAYED, "gus"])
    plan = (await firm.cycle()).plan
    assert firm.line.names().count("observe_accounts") == 1
    assert [problem.subject for problem in plan.problems] == ["accounts", "deprovisioning"]
    assert plan.problems[0].message == "no admin; make the bot one"
    assert firm.account("fay") == "active"


async def test_a_declined_plan_tells_nobody() -> None:
    firm = await settled_firm()
    firm.make = staff(["ann", "bob"])
    firm.accounts.unannounced = ["ann"]

    async def no(_: Plan) -> bool:
        return False

    await firm.reconciler().cycle(firm.stopping, Hooks(agree=no))
    assert (firm.told(), firm.written()) == ([], [])


async def test_admins_are_told_once_that_locks_are_held_and_nobody_is_locked_meanwhile() -> None:
    firm = await settled_firm()
    firm.make = staff(["ann", "bob"])
    for _ in range(3):
        firm.start()
        cycle = await firm.cycle()
        firm.clock.time += timedelta(minutes=1)
    assert {action.type for action in cycle.plan.held} == {"lock_account"}
    assert firm.told() == [(MailEvent.HELD, None)]
    assert {firm.account(name) for name in STAFF} == {"active"}
    assert firm.members("all") == [mxid(name) for name in STAFF]

    firm.approve(cycle.plan)
    await firm.cycle()
    assert [firm.account(name) for name in STAFF] == ["active", "active", *["locked"] * 4]
    assert firm.told().count((MailEvent.HELD, None)) == 1


async def test_disabled_one_and_all_nobody_is_locked() -> None:
    firm = await settled_firm()
    firm.make = staff([a_user(name, active=False) for name in STAFF], mods=[], lab=[])
    cycle = await firm.cycle()
    assert len(cycle.plan.held) == len(cycle.plan.actions)
    assert {firm.account(name) for name in STAFF} == {"active"}
    assert firm.told() == [(MailEvent.HELD, None)]


def people(firm: Firm) -> object:
    """Everything that stays of people, whenever we were killed."""
    queue = [(entry.localpart, entry.ours) for entry in firm.recorder.recorded.queue.values()]
    return {name: firm.account(name) for name in STAFF}, queue, shape(firm)


async def leave(firm: Firm) -> None:
    firm.make = staff(STAYED)


async def leave_and_be_back(firm: Firm) -> None:
    await leave(firm)
    await firm.cycle()
    firm.make = staff()


async def leave_for_good(firm: Firm) -> None:
    await leave(firm)
    await firm.cycle()
    await firm.pass_(hours=1)
    firm.clock.time += timedelta(hours=1)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("change", [leave, leave_and_be_back, leave_for_good])
async def test_killed_at_any_call_of_a_cycle_accounts_end_in_the_same_state(
    change: Callable[[Firm], Awaitable[None]], *, after: bool
) -> None:
    async def changed_firm() -> Firm:
        firm = await settled_firm("2h")
        await change(firm)
        firm.start()
        return firm

    async def ended(firm: Firm) -> object:
        for _ in range(2):
            firm.start()
            await firm.cycle()
        firm.start()
        assert (await firm.cycle()).plan.actions == ()
        assert firm.written() == []
        return people(firm)

    whole = await changed_firm()
    await whole.cycle()
    calls = len(whole.line.calls)
    wanted = await ended(whole)
    for moment in range(calls):
        firm = await changed_firm()
        was_killed = await _killed(firm, Line(kill_after=moment) if after else Line(kill_before=moment))
        assert was_killed or after
        locked = {name for name in STAFF if firm.account(name) == "locked"}
        queued = {entry.localpart for entry in firm.recorder.recorded.queue.values()}
        assert locked <= queued, f"killed at call {moment}"
        assert await ended(firm) == wanted, f"killed at call {moment}"


async def test_killed_anywhere_admins_are_told_of_what_is_held_in_the_end() -> None:
    async def held_firm() -> Firm:
        firm = await settled_firm()
        firm.make = staff(["ann", "bob"])
        firm.start()
        return firm

    whole = await held_firm()
    await whole.cycle()
    for moment in range(len(whole.line.calls)):
        firm = await held_firm()
        await _killed(firm, Line(kill_before=moment))
        for _ in range(2):
            firm.start()
            await firm.cycle()
        assert firm.told() == [(MailEvent.HELD, None)], moment


async def test_who_has_no_room_is_welcomed_too() -> None:
    firm = Firm(config=a_config(a_space("lab", "lab"), user_provisioner=LEAVING))
    firm.make = staff([*STAFF, "gus"])
    await firm.cycle()
    firm.homeserver.accept_invites()
    firm.homeserver.accounts.add("gus")
    firm.accounts.accounts["gus"] = Account("gus")
    firm.start()
    await firm.cycle()
    assert firm.told() == [(MailEvent.REGISTERED, "gus")]
