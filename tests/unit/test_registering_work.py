"""The work of making accounts: what becomes of each, who is told, and who waits for it in rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.resources import Username, user_of
from aim.config import Config
from aim.daemon.cycles import Cycles
from aim.daemon.queue import Queue
from aim.daemon.telling import Teller
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, StoreError
from aim.ops.metrics import Metrics
from aim.planner.plan import Plan
from aim.ports import MailEvent, NewRoom, Outcome, OutcomeStatus
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.reconciler import Senses
from aim.scim import new_only
from aim.world.accounts import Account
from tests.unit.account_fakes import FakeAccounts, FakeAnnouncer, FakeRegistrar
from tests.unit.fakes import Call, Clock, FakeRecorder, FakeWriter, Killed, Line
from tests.unit.model import BOT, INSTANCE, SERVER, ModelHomeserver, mxid
from tests.unit.test_cycles import StillMirror
from tests.unit.test_reconciler import Deployment
from tests.unit.test_registering import ANN, BOB, config, lab
from tests.unit.worlds import Scene, a_config, a_directory, a_scene, a_space, a_user

DONE, FAILED, SKIPPED = OutcomeStatus.DONE, OutcomeStatus.FAILED, OutcomeStatus.SKIPPED


@dataclass
class Office:
    """Who makes accounts, and carries out what waits for them."""

    scene: Scene
    line: Line = field(default_factory=Line)
    seen: list[str] = field(default_factory=list)
    """Accounts that the mirror was told of."""
    knows_accounts: bool = False
    """Whether accounts follow the directory, too."""

    def __post_init__(self) -> None:
        self.registrar: FakeRegistrar | None = FakeRegistrar(self.line)
        self.announcer = FakeAnnouncer(self.line)
        self.accounts = FakeAccounts(self.line)
        self.homeserver = ModelHomeserver.from_observed(self.scene.observed, self.scene.roster)
        self.recorder = FakeRecorder.of(self.scene, self.line)

    async def found(self, localpart: str) -> None:
        call = await self.line.take("found_account", localpart)
        self.seen.append(localpart)
        self.homeserver.accounts.add(localpart)
        await self.line.give(call)

    async def execute(self, plan: Plan | None = None, parallelism: int = 16) -> dict[str, Outcome]:
        tools = Tools(
            writer=FakeWriter(self.homeserver, self.line),
            recorder=self.recorder,
            now=Clock().now,
            server_name=SERVER,
            bot=BOT,
            instance=INSTANCE,
            parallelism=parallelism,
            known_accounts=self.accounts if self.knows_accounts else None,
            registrar=self.registrar,
            found_account=self.found,
            announcer=self.announcer,
        )
        plan = plan or self.scene.plan()
        outcomes = await Provisioner(tools).execute(
            plan, self.scene.desired, {}, asyncio.Event(), lambda _: None
        )
        return {outcome.action.identity: outcome for outcome in outcomes}

    def invited(self) -> list[str]:
        """MXIDs of whoever is asked into the space, by the order of asking; along with its creation first."""
        [call] = self.line.of("create_room")
        [room] = call.arguments
        assert isinstance(room, NewRoom)
        return [*room.invite, *(str(call.arguments[1]) for call in self.line.of("invite"))]


def refused_for(name: str) -> Any:
    def fail(call: Call) -> BaseException | None:
        is_it = call.name == "register" and call.arguments[0] == name
        return HomeserverRefused("no such name", status=400) if is_it else None

    return fail


async def test_an_account_is_made_its_person_welcomed_and_the_mirror_told() -> None:
    ann = replace(a_user("ann"), display_name="Ann", emails=("ann@work.example",))
    scene = a_scene(config(), a_directory([ann]), ())
    office = Office(scene)
    outcomes = await office.execute()
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert office.line.names()[:3] == ["register", "announce", "found_account"]
    [told] = office.announcer.told
    assert (told.event, told.key) == (MailEvent.REGISTERED, "registered id-ann ann")
    assert (told.localpart, told.display_name, told.emails) == ("ann", "Ann", ("ann@work.example",))
    assert office.seen == ["ann"]


async def test_what_follows_accounts_is_told_to_look_at_it() -> None:
    office = Office(lab("cid"), knows_accounts=True)
    await office.execute()
    assert office.accounts.suspected == {"ann", "bob"}


async def test_who_has_one_by_now_is_done_and_not_welcomed() -> None:
    office = Office(lab("bob", "cid"))
    assert office.registrar is not None
    office.registrar.accounts["ann"] = Account("ann", locked=True)
    outcomes = await office.execute()
    assert outcomes[f"register_account {ANN}"].status is DONE
    assert (office.announcer.told, office.seen) == ([], ["ann"])
    assert ANN in office.invited()


@pytest.mark.parametrize("deactivated", [True, False])
async def test_a_name_that_is_taken_for_good_says_so(*, deactivated: bool) -> None:
    office = Office(lab("cid"), knows_accounts=True)
    assert office.registrar is not None
    if deactivated:
        office.registrar.accounts["ann"] = Account("ann", deactivated=True)
    else:
        office.registrar.hidden.add("ann")
    outcomes = await office.execute()
    failed = outcomes[f"register_account {ANN}"]
    assert failed.status is FAILED
    assert ("was deactivated" if deactivated else "can't see") in failed.message
    assert office.seen == ["bob"]
    assert ("ann" in office.accounts.suspected) is deactivated


async def test_without_a_way_to_make_them_each_says_so() -> None:
    office = Office(lab("cid"))
    office.registrar = None
    outcomes = await office.execute()
    assert outcomes[f"register_account {ANN}"].status is FAILED


# -- what waits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [1, 16])
async def test_a_new_space_is_one_request_with_those_who_got_their_account(parallelism: int) -> None:
    office = Office(lab("cid"))
    outcomes = await asyncio.wait_for(office.execute(parallelism=parallelism), 10)
    assert {outcome.status for outcome in outcomes.values()} == {DONE}
    assert office.line.of("invite") == []
    assert office.invited() == [ANN, BOB, mxid("cid")]
    names = office.line.names()
    assert max(at for at, name in enumerate(names) if name == "register") < names.index("create_room")


async def test_who_got_none_is_neither_asked_in_nor_given_a_level() -> None:
    office = Office(lab("cid"))
    office.line.fail = refused_for("ann")
    outcomes = await office.execute()
    assert outcomes[f"register_account {ANN}"].status is FAILED
    skipped = {identity for identity, outcome in outcomes.items() if outcome.status is SKIPPED}
    assert skipped == {f"invite lab {ANN}", f"set_power_level lab {ANN} 50"}
    assert f"depends on “register_account {ANN}”, which failed" in outcomes[f"invite lab {ANN}"].message
    assert office.invited() == [BOB, mxid("cid")]
    [made] = office.homeserver.by_key("lab")
    assert mxid("ann") not in made.levels["users"]


async def test_the_first_fifty_are_those_who_can_be_asked() -> None:
    names = [f"p{number:02}" for number in range(60)]
    scene = a_scene(a_config(a_space("lab", ""), register_users="yes"), a_directory(names), ())
    office = Office(scene)
    office.line.fail = refused_for("p00")
    outcomes = await office.execute()
    [call] = office.line.of("create_room")
    room = call.arguments[0]
    assert isinstance(room, NewRoom)
    assert list(room.invite) == [mxid(name) for name in names[1:51]]
    assert len(office.line.of("invite")) == 9
    assert sum(outcome.status is DONE for outcome in outcomes.values()) == 1 + 59 * 2


async def test_where_the_registration_is_not_in_the_cycle_what_needs_it_is_left_for_later() -> None:
    scene = lab("cid")
    plan = scene.plan()
    rooms = replace(plan, actions=tuple(action for action in plan.actions if action.space))
    office = Office(scene)
    outcomes = await asyncio.wait_for(office.execute(rooms), 10)
    assert "is not done yet" in outcomes[f"invite lab {ANN}"].message
    assert office.invited() == [mxid("cid")]


async def test_what_can_not_be_recorded_ends_the_cycle() -> None:
    office = Office(lab("cid"))
    office.line.fail = lambda call: (
        StoreError("the database is gone") if call.name == "found_account" else None
    )
    with pytest.raises(StoreError):
        await office.execute()


# -- over several cycles ---------------------------------------------------------------------------------


@dataclass
class Campus(Deployment):
    """A deployment whose source is pushed to, and whose people have no accounts."""

    make: Callable[[Roster], Directory] = lambda roster: a_directory(["ann", "bob"], roster=roster)
    config: Config = field(default_factory=config)
    homeserver: ModelHomeserver = field(default_factory=ModelHomeserver)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.registrar = FakeRegistrar(self.line)

    def start(self, line: Line | None = None) -> None:
        super().start(line)
        if hasattr(self, "registrar"):
            self.registrar.line = self.line

    @property
    def tools(self) -> Tools:
        return replace(super().tools, registrar=self.registrar)

    @property
    def senses(self) -> Senses:
        # Whoever was registered can be seen, whether or not we lived to tell.
        self.homeserver.accounts.update(self.registrar.accounts)
        return super().senses


async def test_a_second_cycle_has_nothing_to_do() -> None:
    campus = Campus()
    first = await campus.cycle()
    assert {outcome.status for outcome in first.outcomes} == {DONE}
    assert campus.members("lab") == [ANN, BOB]
    campus.start()
    assert (await campus.cycle()).outcomes == ()


@pytest.mark.parametrize("after", [False, True])
async def test_killed_at_any_moment_it_ends_in_the_same_state(*, after: bool) -> None:
    whole = Campus()
    await whole.cycle()
    for moment in range(len(whole.line.calls)):
        campus = Campus()
        campus.start(Line(kill_after=moment) if after else Line(kill_before=moment))
        with suppress(Killed):
            await campus.cycle()
        assert campus.line.killed or after
        for _ in range(2):
            campus.start()
            await campus.cycle()
        assert campus.registrar.accounts.keys() == {"ann", "bob"}
        assert campus.members("lab") == [ANN, BOB]


async def test_an_account_that_was_made_is_looked_at_once_more() -> None:
    """It has no name and no addresses yet, and no event will tell of it."""
    campus, queue = Campus(), Queue()
    reconciler = campus.reconciler()
    cycles = Cycles(reconciler, queue, Teller(Metrics()), campus.clock.now, campus.stopping, StillMirror())
    await cycles.whole(await reconciler.read(), asyncio.Event())
    await cycles.finish()
    assert queue.take(campus.clock.time) == {ANN, BOB}


async def test_a_cycle_over_a_room_leaves_who_is_to_get_an_account_to_the_one_that_makes_it() -> None:
    """Else each room of somebody whose name is taken would fail, again and again."""
    campus, queue = Campus(), Queue()
    campus.line.fail = refused_for("ann")
    reconciler = campus.reconciler()
    cycles = Cycles(reconciler, queue, Teller(Metrics()), campus.clock.now, campus.stopping, StillMirror())
    reading = await reconciler.read()

    async def over(*keys: str) -> list[Outcome]:
        assert queue.occupy(keys) == set(keys)
        cycle = await cycles.rooms(frozenset(keys), reading, asyncio.Event())
        await cycles.finish()
        return list(cycle.outcomes)

    first = await cycles.whole(reading, asyncio.Event())
    await cycles.finish()
    assert {one.action.target for one in first.failed} == {ANN}
    campus.homeserver.accounts.add("bob")
    assert await over("lab") == []
    assert queue.busy == set()

    campus.line.fail = lambda _: None
    assert [(one.action.target, one.status) for one in await over(ANN)] == [(ANN, DONE)]
    campus.homeserver.accounts.add("ann")
    assert await over(ANN) == []
    assert "lab" in queue.take(campus.clock.time), "found in passing"
    queue.done("lab")
    assert [(one.action.target, one.status) for one in await over("lab")] == [(ANN, DONE)]


# -- at the door -----------------------------------------------------------------------------------------


async def test_with_yes_a_new_user_must_be_new_to_the_homeserver_or_come_back() -> None:
    registrar = FakeRegistrar(Line(), {name: Account(name) for name in ("ann", "bob")})
    registrar.accounts["dan"] = Account("dan", deactivated=True)

    async def waits(localpart: str) -> bool:
        return localpart == "bob"

    check = new_only(registrar, waits)
    username = Username("userName")
    for name in ("bob", "cid"):
        await check(user_of("1", {"userName": name}, username, 1))
    for name in ("ann", "dan"):
        with pytest.raises(ScimError, match="if-missing") as refused:
            await check(user_of("1", {"userName": name}, username, 1))
        assert (refused.value.status, refused.value.scim_type) == (409, "uniqueness")
