"""The herald: who is welcomed, what admins are told of, and that each is told once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from aim.directory.model import User
from aim.errors import StoreError
from aim.herald import Herald
from aim.planner.document import digest
from aim.planner.memory import Memory, remember
from aim.planner.plan import Plan
from aim.ports import MailEvent
from tests.unit.account_fakes import FakeAccounts, FakeAnnouncer
from tests.unit.fakes import Line
from tests.unit.worlds import Scene, a_config, a_directory, a_space, a_user, provisioned

PEOPLE = ["anna", "bob", "cid", "dan", "eve", "fay"]
CONFIG = a_config(a_space("all", ""))


@dataclass
class Town:
    """A herald, whom he tells, and what happens there."""

    line: Line = field(default_factory=Line)
    scene: Scene = field(default_factory=lambda: provisioned(CONFIG, a_directory(PEOPLE)))

    def __post_init__(self) -> None:
        self.announcer = FakeAnnouncer(self.line)
        self.accounts = FakeAccounts.of(self.line, *PEOPLE)
        self.herald = Herald(self.announcer, self.accounts)

    def leaving(self, *stay: str | User) -> Town:
        """Only these are in the directory now."""
        self.scene = replace(self.scene, directory=a_directory(stay, roster=self.scene.roster))
        return self

    async def tell(self, memory: Memory | None = None) -> Plan:
        """Tells what a cycle over that world would, and remembers what is held."""
        plan = self.scene.plan()
        found = memory or remember(self.scene.world, plan)
        await self.herald.tell(plan, found, self.scene.world)
        if found.held is not None:
            self.scene = self.scene.recording(held=found.held)
        return plan

    def told(self) -> list[tuple[MailEvent, str | None]]:
        return self.announcer.events


# -- welcome ----------------------------------------------------------------------------------------------


async def test_who_has_an_account_now_is_welcomed_where_the_directory_knows_them() -> None:
    anna = replace(a_user("anna"), display_name="Anna", emails=("anna@work.example",))
    town = Town(scene=provisioned(CONFIG, a_directory([anna, "bob"])))
    town.accounts.unannounced = ["anna"]
    await town.tell()
    [told] = town.announcer.told
    assert (told.event, told.localpart) == (MailEvent.REGISTERED, "anna")
    assert (told.display_name, told.emails) == ("Anna", ("anna@work.example",))
    assert town.accounts.unannounced == []


async def test_they_are_told_before_it_is_noted_and_once_though_killed_in_between() -> None:
    town = Town()
    town.accounts.unannounced = ["anna", "bob"]
    town.line.fail = lambda call: (
        StoreError("the database is gone") if call.name == "mark_announced" else None
    )
    with pytest.raises(StoreError):
        await town.tell()
    assert town.line.names() == ["announce", "announce", "mark_announced"]
    town.line.fail = lambda _: None
    await town.tell()
    assert town.announcer.asked == 4
    assert town.told() == [(MailEvent.REGISTERED, "anna"), (MailEvent.REGISTERED, "bob")]


async def test_who_is_not_in_the_directory_or_disabled_there_is_not_welcomed_later_either() -> None:
    town = Town().leaving("anna", a_user("bob", active=False), "cid", "dan", "eve", "fay")
    town.accounts.unannounced = ["guest", "bob"]
    await town.tell()
    assert town.told() == []
    assert town.accounts.unannounced == []


async def test_somebody_new_under_an_old_name_is_welcomed_too() -> None:
    town = Town()
    for id_ in ("id-old", "id-new"):
        town.leaving(a_user("anna", id_), *PEOPLE[1:])
        town.accounts.unannounced = ["anna"]
        await town.tell()
    assert town.told() == [(MailEvent.REGISTERED, "anna")] * 2


async def test_without_a_mailer_it_is_noted_all_the_same_for_a_later_one_must_not_welcome_everybody() -> None:
    town = Town()
    town.accounts.unannounced = ["anna"]
    plan = town.scene.plan()
    await Herald(None, town.accounts).tell(plan, Memory(), town.scene.world)
    assert town.accounts.unannounced == []


async def test_where_nothing_is_asked_for_of_accounts_nobody_is_welcomed() -> None:
    town = Town()
    await Herald(town.announcer, None).tell(town.scene.plan(), Memory(), town.scene.world)
    assert town.line.calls == []


async def test_when_nobody_is_new_nothing_is_written() -> None:
    town = Town()
    await town.tell()
    assert town.line.calls == []


# -- what is held -----------------------------------------------------------------------------------------


def held(town: Town) -> Iterable[MailEvent]:
    return [event for event, _ in town.told()]


async def test_admins_are_told_what_is_held_and_how_to_let_it_go() -> None:
    town = Town().leaving("anna")
    plan = await town.tell()
    [told] = town.announcer.told
    assert (told.event, told.localpart, told.emails) == (MailEvent.HELD, None, ())
    assert told.facts == {"held": [trip.message for trip in plan.trips], "digest": digest(plan)}
    assert plan.trips


async def test_they_are_told_once_however_often_it_is_looked_at() -> None:
    town = Town().leaving("anna")
    for _ in range(3):
        await town.tell()
        town.scene = town.scene.later(minutes=1)
    assert town.announcer.asked == 1


async def test_more_that_is_held_is_told_anew() -> None:
    town = Town().leaving("anna", "bob")
    await town.tell()
    await town.leaving("anna").tell()
    assert held(town) == [MailEvent.HELD] * 2


async def test_the_same_incident_on_another_day_is_told_again() -> None:
    town = Town().leaving("anna")
    first = await town.tell()
    await town.leaving(*PEOPLE).tell()
    town.scene = town.scene.later(days=3)
    second = await town.leaving("anna").tell()
    assert digest(first) == digest(second)
    assert held(town) == [MailEvent.HELD] * 2


async def test_a_directory_that_comes_and_goes_does_not_fill_the_mailbox() -> None:
    town = Town()
    for _ in range(5):
        await town.leaving("anna").tell()
        await town.leaving(*PEOPLE).tell()
        town.scene = town.scene.later(minutes=1)
    assert held(town) == [MailEvent.HELD]


async def test_when_nothing_is_held_any_more_nobody_is_told() -> None:
    town = Town().leaving("anna")
    await town.tell()
    await town.leaving(*PEOPLE).tell()
    assert held(town) == [MailEvent.HELD]
