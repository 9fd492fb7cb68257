"""Days on which what is known of accounts is old: whole cycles over the real book of accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from aim.config.root import Config
from aim.matrix.account_server import Attribute
from aim.matrix.book import Book, BookedWriter, Keeping
from aim.provisioner.tools import Tools
from aim.reconciler import Senses
from aim.world.recorded import Queued
from tests.unit.fakes import Killed
from tests.unit.test_account_book import Server, Store, Writer
from tests.unit.test_reconciler import STAFF, Deployment, staff
from tests.unit.worlds import a_config, a_space

LEFT = [name for name in STAFF if name != "fay"]


class DyingWriter(Writer):
    """Locks, and does not live to tell."""

    async def lock(self, localpart: str) -> None:
        await super().lock(localpart)
        raise Killed


@dataclass
class Office(Deployment):
    """A deployment whose accounts are known from a book that is up to a day old."""

    config: Config = field(
        default_factory=lambda: a_config(
            a_space("all", ""), user_provisioner={"deprovisioning": {"enabled": True}}
        )
    )
    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        for name in STAFF:
            self.server.add(name, f"{name}@example.com")
        self.writer = Writer(self.server)
        super().__post_init__()

    def start(self, *arguments: object) -> None:
        """A new process, which knows what was stored."""
        super().start()
        keeping = Keeping(attributes=frozenset(Attribute), verify_interval=timedelta(days=1), records=True)
        self.book = Book(self.server, keeping, now=self.clock.now, store=self.store)

    @property
    def senses(self) -> Senses:
        return replace(super().senses, accounts=self.book)

    @property
    def tools(self) -> Tools:
        writer = BookedWriter(self.writer, self.book)
        return replace(super().tools, accounts=writer, known_accounts=self.book)

    @property
    def waiting(self) -> Mapping[str, Queued]:
        return self.recorder.recorded.queue

    def is_locked(self, name: str) -> bool:
        return self.server.people[name].locked


@pytest.fixture
async def office() -> Office:
    """After two cycles; everybody is in, three hours ago."""
    made = Office()
    await made.cycle()
    made.homeserver.accept_invites()
    made.start()
    await made.cycle()
    made.clock.time += timedelta(hours=3)
    return made


async def test_whom_an_administrator_locked_today_stays_locked_when_they_are_back(office: Office) -> None:
    office.server.change("fay", locked=True)
    office.make = staff(LEFT)
    await office.cycle()
    assert office.waiting["id-fay"].ours is False
    office.make = staff()
    await office.cycle()
    assert office.is_locked("fay")
    assert not office.waiting


async def test_who_was_made_an_administrator_today_is_not_locked(office: Office) -> None:
    office.server.change("fay", admin=True)
    office.make = staff(LEFT)
    await office.cycle()
    assert not office.is_locked("fay")
    await office.cycle()
    assert not office.waiting


@pytest.mark.parametrize("hours", [0, 30])
async def test_killed_between_the_lock_and_remembering_it_they_are_unlocked_when_they_are_back(
    office: Office, hours: int
) -> None:
    office.writer = DyingWriter(office.server)
    office.make = staff(LEFT)
    with pytest.raises(Killed):
        await office.cycle()
    assert office.is_locked("fay")
    office.writer = Writer(office.server)
    office.start()
    await office.cycle()
    assert office.waiting["id-fay"].ours
    office.clock.time += timedelta(hours=hours)
    office.make = staff()
    await office.cycle()
    assert not office.is_locked("fay")
    assert not office.waiting


async def test_a_book_that_is_a_day_old_lists_nobody_to_lock_one(office: Office) -> None:
    office.server.answered()
    office.make = staff(LEFT)
    await office.cycle()
    assert office.server.answered() == ["account fay"]
    assert office.is_locked("fay")
