"""A thousand histories: whoever follows the changes ends with exactly the Directory of a complete read."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest

from aim.bridges.msgraph.memory import differences
from aim.bridges.msgraph.polling import Poller
from aim.bridges.msgraph.settings import GraphSettings
from aim.errors import SourceError, SourceInvalid, SourceUnavailable
from aim.ports.graph import GraphState
from tests.servers.graph_delta import Habits
from tests.servers.graph_history import History
from tests.servers.graph_tenant import GROUPS, USERS, Tenant
from tests.unit.graph_world import SETTINGS, Tenancy, directory_of, shown

HISTORIES = 1_000
PARTS = 20
"""Histories of one test, so that a failure names a few seeds."""
STEPS = 25


class Administrator:
    """Does by chance what may be done, and what brings people and groups into each other's way."""

    def __init__(self, tenant: Tenant, seed: int) -> None:
        self._tenant = tenant
        self._history = History(tenant, seed)
        self._chance = random.Random(seed)

    def acts(self) -> None:
        users, groups = self._tenant.all(USERS), self._tenant.all(GROUPS)
        what = self._chance.random()
        if what < 0.05 and users:
            name = f"same{self._chance.randrange(2)}@{self._chance.choice('abc')}.example"
            self._tenant.change(self._chance.choice(users).id, userPrincipalName=name)
        elif what < 0.1 and groups:
            name = f"Group {self._chance.randrange(3)}"
            self._tenant.change(self._chance.choice(groups).id, displayName=name)
        else:
            self._history.step()


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


async def lives_through(seed: int) -> None:
    chance, tenancy = random.Random(seed), Tenancy(seed)
    tenancy.settings = some_settings(chance, tenancy.tenant)
    tenancy.model.deltas.habits = Habits.wild(chance)
    lags = tenancy.model.deltas.habits.lag > 0
    tenancy.store.fails = lambda: chance.random() < 0.1
    administrator = Administrator(tenancy.tenant, seed)

    def meanwhile(_: str) -> None:
        """Things happen between any two requests of one read."""
        if chance.random() < 0.1:
            administrator.acts()

    tenancy.graph.before = meanwhile
    poller = tenancy.poller(tenancy.store)
    for _ in range(STEPS):
        for _ in range(chance.randrange(4)):
            administrator.acts()
        match chance.randrange(12):
            case 0:
                # Killed, and started again.
                poller = tenancy.poller(tenancy.store)
            case 1:
                tenancy.model.deltas.expire(chance.choice([None, USERS, GROUPS]))
            case 2:
                tenancy.later(hours=chance.choice([1, 30]))
            case _:
                await tries(poller)
    tenancy.graph.before = lambda _: None
    tenancy.store.fails = lambda: False
    tenancy.model.deltas.habits = Habits()
    followed = await poller.poll()
    whole = await tenancy.whole()
    assert outcome(followed, tenancy.settings) == outcome(whole, tenancy.settings), seed
    assert differences(followed, whole) == 0, seed
    stored = await tenancy.store.load()
    assert stored is not None
    assert outcome(stored, tenancy.settings) == outcome(whole, tenancy.settings), seed
    assert tenancy.model.refusals == [], seed
    # What is not shown yet in the changes is in a complete read.
    assert tenancy.warnings == [] or lags, seed


async def tries(poller: Poller) -> None:
    """Nothing but the database fails."""
    with suppress(SourceUnavailable):
        await poller.poll()


@pytest.mark.parametrize("part", range(PARTS))
def test_changes_lead_to_what_a_complete_read_gives(part: int) -> None:
    async def run() -> None:
        for seed in range(part * HISTORIES // PARTS, (part + 1) * HISTORIES // PARTS):
            await lives_through(seed)

    asyncio.run(run())


def test_a_history_is_worth_its_name() -> None:
    """What the histories are made of does happen in them."""

    async def run() -> None:
        for seed in range(30):
            tenancy = Tenancy(seed)
            administrator = Administrator(tenancy.tenant, seed)
            for _ in range(60):
                administrator.acts()
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
