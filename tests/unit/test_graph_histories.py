"""A thousand histories: whoever follows the changes ends with exactly the Directory of a complete read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from aim.bridges.msgraph.memory import differing
from aim.bridges.msgraph.settings import GraphSettings
from aim.errors import SourceError, SourceInvalid, SourceUnavailable
from aim.ports.graph import GraphState
from tests.servers.graph_delta import Habits
from tests.servers.graph_history import History
from tests.servers.graph_tenant import GROUPS, USERS, Tenant
from tests.unit.graph_world import SETTINGS, Tenancy, directory_of, shown, without

HISTORIES = 1_000
STEPS = 25
SEEDS = st.integers(0, 2**32 - 1)


class Administrator:
    """Does by chance what may be done, and what brings people and groups into each other's way."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._history = History(tenant, 0)

    def acts(self, seed: int) -> None:
        chance = random.Random(seed)
        users, groups = self._tenant.all(USERS), self._tenant.all(GROUPS)
        what = chance.random()
        if what < 0.05 and users:
            name = f"same{chance.randrange(2)}@{chance.choice('abc')}.example"
            self._tenant.change(chance.choice(users).id, userPrincipalName=name)
        elif what < 0.1 and groups:
            self._tenant.change(chance.choice(groups).id, displayName=f"Group {chance.randrange(3)}")
        else:
            self._history.step(chance.getrandbits(32))


def some_settings(chance: random.Random, tenant: Tenant) -> GraphSettings:
    """Everything, or a part of it."""
    groups: tuple[str, ...] = ()
    only = None
    if chance.random() < 0.3:
        groups = tuple(tenant.add_group(f"Root {number}", groupTypes=["Unified"]) for number in range(2))
    elif chance.random() < 0.2:
        only = "accountEnabled eq true and not(startswith(jobTitle,'Title 1'))"
    return replace(
        SETTINGS,
        include_guests=chance.random() < 0.3,
        transitive=chance.random() < 0.8,
        page_size=chance.randint(1, 9),
        groups=groups,
        filter=only,
    )


def outcome(state: GraphState, settings: GraphSettings) -> object:
    """The Directory, or why there is none."""
    try:
        return shown(directory_of(state, settings))
    except SourceInvalid as error:
        return error.message


class Life(RuleBasedStateMachine):
    """A tenant, and one process after the other that follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    @initialize(seed=SEEDS)
    def begins(self, seed: int) -> None:
        chance = random.Random(seed)
        self.tenancy = Tenancy(seed)
        self.tenancy.settings = some_settings(chance, self.tenancy.tenant)
        self.tenancy.model.deltas.habits = Habits.wild(chance)
        self.lags = self.tenancy.model.deltas.habits.lag > 0
        self.administrator = Administrator(self.tenancy.tenant)
        self.poller = self.tenancy.poller(self.tenancy.store)

    @rule(seeds=st.lists(SEEDS, min_size=1, max_size=6))
    def things_happen(self, seeds: list[int]) -> None:
        for seed in seeds:
            self.administrator.acts(seed)

    @rule(meanwhile=st.lists(st.one_of(st.none(), SEEDS), max_size=4), is_lost=st.booleans())
    def looks(self, meanwhile: Sequence[int | None], is_lost: bool) -> None:
        """`meanwhile` happens between the requests. Nothing but the database fails."""
        left = list(meanwhile)

        def before(_: str) -> None:
            if left and (seed := left.pop()) is not None:
                self.administrator.acts(seed)

        failures = [True] if is_lost else []
        self.tenancy.graph.before = before
        self.tenancy.store.fails = lambda: bool(failures and failures.pop())
        with suppress(SourceUnavailable):
            self.runner.run(self.poller.poll())
        self.tenancy.graph.before = lambda _: None
        self.tenancy.store.fails = lambda: False

    @rule()
    def starts_again(self) -> None:
        """Killed at any moment before."""
        self.poller = self.tenancy.poller(self.tenancy.store)

    @rule(collection=st.sampled_from([None, USERS, GROUPS]))
    def graph_forgets(self, collection: str | None) -> None:
        self.tenancy.model.deltas.expire(collection)

    @rule(hours=st.sampled_from([0.5, 1, 30]))
    def time_goes_by(self, hours: float) -> None:
        self.tenancy.later(hours=hours)

    @rule(number=st.integers(0, 20))
    def somebody_is_erased(self, number: int) -> None:
        """Who is disabled, or deleted."""
        tenant = self.tenancy.tenant
        disabled = [user for user in tenant.all(USERS) if user.properties["accountEnabled"] is False]
        if leavers := [*disabled, *tenant.deleted(USERS)]:
            self.tenancy.store.erase(leavers[number % len(leavers)].id)

    def teardown(self) -> None:
        with self.runner:
            if hasattr(self, "poller"):
                self.runner.run(self._ends())

    async def _ends(self) -> None:
        tenancy = self.tenancy
        tenancy.model.deltas.habits = Habits()
        followed = await self.poller.poll()
        whole = await tenancy.whole()
        stored = await tenancy.store.load()
        assert stored is not None
        erased = tenancy.store.erased
        assert stored.users.keys().isdisjoint(erased)
        there = without(whole, erased)
        for state in (without(followed, erased), stored):
            assert outcome(state, tenancy.settings) == outcome(there, tenancy.settings)
            assert differing(state, there) == set()
        assert tenancy.model.refusals == []
        # What is not shown yet in the changes is in a complete read.
        assert tenancy.warnings == [] or self.lags


def test_changes_lead_to_what_a_complete_read_gives() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_history_is_worth_its_name() -> None:
    """What the histories are made of does happen in them."""

    async def run() -> None:
        for seed in range(30):
            tenancy, chance = Tenancy(seed), random.Random(seed)
            administrator = Administrator(tenancy.tenant)
            for _ in range(60):
                administrator.acts(chance.getrandbits(32))
            directory = directory_of(await tenancy.whole())
            seen["users"] += len(directory.users)
            seen["contested"] += len(directory.contested)
            seen["nested"] += sum(len(group.members) > 0 for group in directory.groups)
            seen["deleted"] += len(tenancy.tenant.deleted(USERS)) + len(tenancy.tenant.deleted(GROUPS))

    seen = dict.fromkeys(("users", "contested", "nested", "deleted"), 0)
    asyncio.run(run())
    assert all(count > 3 for count in seen.values()), seen


def test_an_error_is_no_smaller_directory() -> None:
    async def run() -> None:
        tenancy = Tenancy()
        tenancy.tenant.fill(users=30, groups=5, members=10)
        tenancy.settings = replace(SETTINGS, page_size=4)
        whole = shown(tenancy.directory(await tenancy.whole()))
        total = len(tenancy.graph.requests)
        for broken in range(total):
            tenancy.graph.requests.clear()
            tenancy.store.stored = None

            def fail(_: str, broken: int = broken) -> None:
                if len(tenancy.graph.requests) == broken + 1:
                    raise SourceUnavailable("cut off")

            tenancy.graph.before = fail
            poller = tenancy.poller(tenancy.store)
            with pytest.raises(SourceError, match="cut off"):
                await poller.poll()
            assert tenancy.store.stored is None
            tenancy.graph.before = lambda _: None
            assert shown(tenancy.directory(await poller.poll())) == whole

    asyncio.run(run())
