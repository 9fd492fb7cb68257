"""The work on accounts: what is recorded before what is done, what is asked once more, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aim.config.root import Config
from aim.directory.model import Directory
from aim.errors import HomeserverRefused, HomeserverUnavailable, StoreError
from aim.planner.actions import (
    AnyAccountAction,
    EraseAccount,
    LockAccount,
    SetDisplayName,
    SetEmails,
    UnlockAccount,
)
from aim.planner.plan import Plan, SourceCount
from aim.ports import MailEvent, Outcome, OutcomeStatus
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.world.accounts import Account
from aim.world.recorded import Queued
from tests.unit.account_fakes import ACCOUNT_WRITES, FakeAccounts, FakeAnnouncer
from tests.unit.fakes import Call, Clock, FakeRecorder, FakeWriter, Killed, Line
from tests.unit.model import SERVER, ModelHomeserver, mxid
from tests.unit.worlds import NOW, a_config, a_directory, a_queued, a_scene, a_space, a_user

DONE, FAILED = OutcomeStatus.DONE, OutcomeStatus.FAILED
SKIPPED, HELD = OutcomeStatus.SKIPPED, OutcomeStatus.HELD
PERIOD = timedelta(days=30)
DAY = timedelta(days=1)


def about(name: str) -> dict[str, Any]:
    """What all actions on that account have in common."""
    return {"room": mxid(name), "space": "", "person": mxid(name), "reason": "no longer in the directory"}


def a_lock(name: str, **more: Any) -> LockAccount:
    return LockAccount(**{**about(name), "user_id": f"id-{name}", "period": PERIOD, **more})


def an_unlock(name: str, **more: Any) -> UnlockAccount:
    return UnlockAccount(**{**about(name), "user_id": f"id-{name}", **more})


def an_erasure(name: str, **more: Any) -> EraseAccount:
    return EraseAccount(**{**about(name), "user_id": f"id-{name}", "due_at": NOW - DAY, **more})


@dataclass
class Office:
    """Accounts, a queue, and who carries actions out on them."""

    line: Line = field(default_factory=Line)
    clock: Clock = field(default_factory=Clock)
    directory: Directory = field(default_factory=lambda: a_directory(["anna"]))
    config: Config = field(default_factory=lambda: a_config(a_space("all", "")))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    reads: bool = True
    """Whether accounts can be read."""
    writes: bool = True

    def __post_init__(self) -> None:
        self.accounts = FakeAccounts.of(self.line, "anna", "evan", "bob")
        self.recorder = FakeRecorder(self.line)
        self.announcer: FakeAnnouncer | None = FakeAnnouncer(self.line)

    def locked(self, *names: str) -> Office:
        for name in names:
            account = replace(self.accounts.accounts[name], locked=True)
            self.accounts.accounts[name] = self.accounts.believed[name] = account
        return self

    def queue(self, *queued: Queued) -> Office:
        entries = {entry.user_id: entry for entry in queued}
        self.recorder.recorded = replace(self.recorder.recorded, queue=entries)
        return self

    @property
    def waiting(self) -> Mapping[str, Queued]:
        return self.recorder.recorded.queue

    async def do(self, *actions: AnyAccountAction) -> list[Outcome]:
        desired = a_scene(self.config, self.directory).desired
        tools = Tools(
            writer=FakeWriter(ModelHomeserver(), self.line),
            recorder=self.recorder,
            now=self.clock.now,
            server_name=SERVER,
            accounts=self.accounts if self.writes else None,
            known_accounts=self.accounts if self.reads else None,
            announcer=self.announcer,
        )
        known = dict(self.accounts.believed)
        plan = Plan(SourceCount("ldif", 1, 0), actions)
        return await Provisioner(tools).execute(plan, desired, {}, self.stopping, lambda _: None, known)

    async def statuses(self, *actions: AnyAccountAction) -> list[OutcomeStatus]:
        return [outcome.status for outcome in await self.do(*actions)]

    def said(self) -> list[tuple[MailEvent, str | None]]:
        assert self.announcer is not None
        return self.announcer.events


def only(
    name: str, what: BaseException, localpart: str | None = None
) -> Callable[[Call], BaseException | None]:
    """That call fails, of one person or of everybody."""
    return lambda call: what if call.name == name and localpart in (None, call.arguments[0]) else None


REFUSED = HomeserverRefused("not this one", status=403, errcode="M_FORBIDDEN")


# -- locking ----------------------------------------------------------------------------------------------


async def test_who_is_locked_is_counted_and_on_the_queue_before() -> None:
    office = Office()
    assert await office.statuses(a_lock("evan", in_spaces=("all",))) == [DONE]
    assert office.line.names() == ["record_done", "current_account", "change_queued", "lock", "announce"]
    assert office.waiting == {
        "id-evan": Queued(
            user_id="id-evan",
            localpart="evan",
            queued_at=NOW,
            due_at=NOW + PERIOD,
            reason="no longer in the directory",
        )
    }


async def test_the_period_begins_when_the_account_is_about_to_be_locked() -> None:
    """Not when it was planned: somebody may have looked at the plan for long."""
    office = Office()
    office.clock.time += timedelta(hours=3)
    await office.do(a_lock("evan"))
    assert office.waiting["id-evan"].due_at == NOW + timedelta(hours=3) + PERIOD


async def test_a_period_of_thousands_of_years_is_a_way_to_say_never() -> None:
    office = Office()
    assert await office.statuses(a_lock("evan", period=timedelta(days=999_999_999))) == [DONE]
    assert office.waiting["id-evan"].due_at == datetime(9999, 12, 31, tzinfo=UTC)
    assert office.accounts.accounts["evan"].locked


@pytest.mark.parametrize("moment", range(6))
async def test_killed_anywhere_in_locking_nobody_is_locked_who_is_not_on_the_queue(moment: int) -> None:
    office = Office()
    office.line.kill_before = moment
    if moment < 5:
        with pytest.raises(Killed):
            await office.do(a_lock("evan", in_spaces=("all",)))
    else:
        await office.do(a_lock("evan", in_spaces=("all",)))
    assert office.accounts.accounts["evan"].locked == (moment > 3)
    assert ("id-evan" in office.waiting) == (moment > 2)
    assert bool(office.recorder.recorded.done) == (moment > 0), "the guards know of it"


async def test_what_cannot_be_recorded_is_not_done() -> None:
    office = Office()
    office.line.fail = only("change_queued", StoreError("the database is gone"))
    with pytest.raises(StoreError):
        await office.do(a_lock("evan"))
    assert office.line.of(*ACCOUNT_WRITES) == []


async def test_refused_for_one_person_the_others_go_on() -> None:
    office = Office()
    office.line.fail = only("lock", REFUSED, "evan")
    outcomes = await office.do(a_lock("anna"), a_lock("bob"), a_lock("evan"))
    assert [(outcome.status, outcome.message) for outcome in outcomes] == [
        (DONE, ""),
        (DONE, ""),
        (FAILED, "not this one"),
    ]
    locked = {name for name, account in office.accounts.accounts.items() if account.locked}
    assert locked == {"anna", "bob"}
    assert sorted(office.said()) == [(MailEvent.DEACTIVATED, "anna"), (MailEvent.DEACTIVATED, "bob")]


async def test_an_account_that_went_away_meanwhile_is_never_made() -> None:
    office = Office()
    del office.accounts.accounts["evan"]
    assert await office.statuses(a_lock("evan")) == [SKIPPED]
    assert office.line.of(*ACCOUNT_WRITES) == []
    assert "evan" not in office.accounts.accounts


async def test_who_is_on_the_queue_already_stays_there_as_they_are() -> None:
    entry = a_queued("evan", days_left=5, erase_by="boss")
    office = Office().queue(entry)
    assert await office.statuses(a_lock("evan", queues=False)) == [DONE]
    assert office.waiting == {"id-evan": entry}
    assert office.accounts.accounts["evan"].locked


async def test_an_account_that_somebody_else_locked_is_only_put_on_the_queue() -> None:
    office = Office().locked("evan")
    assert await office.statuses(a_lock("evan", ours=False)) == [DONE]
    assert office.waiting["id-evan"].ours is False
    assert office.line.of(*ACCOUNT_WRITES) == []
    assert office.said() == [], "nothing has changed for them"


async def test_who_is_in_several_spaces_is_counted_in_each_and_who_is_in_none_too() -> None:
    office = Office()
    await office.do(a_lock("bob"), a_lock("evan", in_spaces=("all", "lab")))
    counted = [(done.kind, done.space, done.person, done.at) for done in office.recorder.recorded.done]
    assert sorted(counted) == [
        ("locks", "", "bob", NOW),
        ("locks", "all", "evan", NOW),
        ("locks", "lab", "evan", NOW),
    ]
    identities = {done.identity for done in office.recorder.recorded.done}
    assert identities == {f"lock_account {mxid('bob')}", f"lock_account {mxid('evan')}"}


async def test_asked_to_stop_nothing_is_begun_or_counted() -> None:
    office = Office()
    office.stopping.set()
    assert await office.statuses(a_lock("evan"), an_erasure("bob")) == [SKIPPED, SKIPPED]
    assert office.line.calls == []


async def test_what_a_guard_holds_is_not_done() -> None:
    office = Office().locked("evan").queue(a_queued("evan", days_left=-1))
    assert await office.statuses(an_erasure("evan").hold()) == [HELD]
    assert office.line.calls == []


async def test_without_a_way_to_accounts_it_is_a_failure_that_says_so() -> None:
    office = Office(writes=False)
    [outcome] = await office.do(SetDisplayName(**about("anna"), display_name="Anna", was=None))
    assert (outcome.status, "no way to them" in outcome.message) == (FAILED, True)


# -- names and addresses ----------------------------------------------------------------------------------


async def test_names_and_addresses_are_set_and_count_against_no_guard() -> None:
    office = Office()
    set_name = SetDisplayName(**about("anna"), display_name="Anna A.", was="anna")
    set_emails = SetEmails(**about("anna"), emails=("a@example.com",), was=())
    assert await office.statuses(set_name, set_emails) == [DONE, DONE]
    assert office.line.names() == ["set_display_name", "set_emails"]
    found = office.accounts.accounts["anna"]
    assert (found.display_name, found.emails) == ("Anna A.", ("a@example.com",))


async def test_one_that_fails_does_not_keep_back_the_next_of_the_same_person() -> None:
    office = Office()
    office.line.fail = only("set_display_name", HomeserverUnavailable("away"))
    set_name = SetDisplayName(**about("anna"), display_name="Anna A.", was="anna")
    set_emails = SetEmails(**about("anna"), emails=("a@example.com",), was=())
    assert await office.statuses(set_name, set_emails) == [FAILED, DONE]


# -- unlocking --------------------------------------------------------------------------------------------


async def test_who_is_back_is_unlocked_first_and_taken_off_the_queue_then() -> None:
    office = Office().locked("evan").queue(a_queued("evan"), a_queued("bob"))
    assert await office.statuses(an_unlock("evan")) == [DONE]
    assert office.line.names() == ["current_account", "unlock", "dequeue", "announce"]
    assert set(office.waiting) == {"id-bob"}
    assert office.said() == [(MailEvent.ACTIVATED, "evan")]
    assert office.recorder.recorded.done == (), "nothing that a guard counts"


async def test_who_could_not_be_unlocked_stays_on_the_queue() -> None:
    office = Office().locked("evan").queue(a_queued("evan"))
    office.line.fail = only("unlock", REFUSED)
    assert await office.statuses(an_unlock("evan")) == [FAILED]
    assert set(office.waiting) == {"id-evan"}
    assert office.said() == []


async def test_killed_between_unlocking_and_the_queue_the_entry_is_left_for_the_next_cycle() -> None:
    office = Office().locked("evan").queue(a_queued("evan"))
    office.line.kill_before = 2
    with pytest.raises(Killed):
        await office.do(an_unlock("evan"))
    assert not office.accounts.accounts["evan"].locked
    assert set(office.waiting) == {"id-evan"}


async def test_who_is_restored_stays_on_the_queue() -> None:
    entry = a_queued("evan", restored_by="boss")
    office = Office().locked("evan").queue(entry)
    assert await office.statuses(an_unlock("evan", leaves_queue=False)) == [DONE]
    assert office.waiting == {"id-evan": entry}


# -- erasing ----------------------------------------------------------------------------------------------


async def test_the_queue_and_the_lock_are_looked_at_once_more_before_an_erasure() -> None:
    office = Office().locked("evan").queue(a_queued("evan", days_left=-1))
    assert await office.statuses(an_erasure("evan", in_spaces=("all",))) == [DONE]
    assert office.line.names() == ["record_done", "current_account", "queued", "erase"]
    assert office.accounts.accounts["evan"].deactivated
    assert set(office.waiting) == {"id-evan"}, "forgotten when the cycle's own record is complete"
    assert office.said() == [], "there is nobody left to be told"


NOT_NOW: Mapping[str, Queued | None] = {
    "off the queue": None,
    "held": a_queued("evan", days_left=-1, held_by="boss"),
    "restored": a_queued("evan", days_left=-1, restored_by="boss"),
    "both": a_queued("evan", days_left=-1, erase_by="one", restored_by="another"),
    "later": a_queued("evan", days_left=1),
}


@pytest.mark.parametrize("case", NOT_NOW)
async def test_what_a_person_decided_since_it_was_planned_still_counts(case: str) -> None:
    office, entry = Office().locked("evan"), NOT_NOW[case]
    office.queue(*([] if entry is None else [entry]))
    [outcome] = await office.do(an_erasure("evan"))
    assert outcome.status is SKIPPED
    assert outcome.message
    assert office.line.of(*ACCOUNT_WRITES) == []


async def test_who_is_to_be_erased_at_once_does_not_wait_for_their_time() -> None:
    office = Office().locked("evan").queue(a_queued("evan", days_left=20, erase_by="boss"))
    assert await office.statuses(an_erasure("evan")) == [DONE]


async def test_who_was_unlocked_by_hand_meanwhile_is_not_erased() -> None:
    office = Office().locked("evan").queue(a_queued("evan", days_left=-1))
    # Nobody told us: what is believed is that they are locked.
    office.accounts.accounts["evan"] = Account("evan")
    [outcome] = await office.do(an_erasure("evan"))
    assert (outcome.status, "unlocked" in outcome.message) == (SKIPPED, True)
    assert office.line.of(*ACCOUNT_WRITES) == []


async def test_whose_account_is_gone_or_cannot_be_read_is_not_erased() -> None:
    office = Office(reads=False).locked("evan").queue(a_queued("evan", days_left=-1))
    assert await office.statuses(an_erasure("evan")) == [FAILED]
    office = Office().queue(a_queued("nora", days_left=-1))
    assert await office.statuses(an_erasure("nora")) == [SKIPPED]
    office = Office().locked("evan").queue(a_queued("evan", days_left=-1))
    office.line.fail = only("current_account", HomeserverUnavailable("away"))
    assert await office.statuses(an_erasure("evan")) == [FAILED]
    assert office.line.of(*ACCOUNT_WRITES) == []


async def test_who_is_deactivated_already_is_finished() -> None:
    """An erasure whose end was lost: what is left is that we forget them."""
    office = Office().queue(a_queued("evan", days_left=-1))
    gone = Account("evan", deactivated=True)
    office.accounts.accounts["evan"] = office.accounts.believed["evan"] = gone
    assert await office.statuses(an_erasure("evan")) == [DONE]


async def test_an_erasure_refused_for_one_person_leaves_the_others() -> None:
    office = Office().locked("evan", "bob")
    office.queue(a_queued("evan", days_left=-1), a_queued("bob", days_left=-1))
    office.line.fail = only("erase", REFUSED, "bob")
    assert await office.statuses(an_erasure("bob"), an_erasure("evan")) == [FAILED, DONE]


# -- who is told ------------------------------------------------------------------------------------------


async def test_who_is_gone_is_told_where_the_homeserver_knows_them_until_when_they_can_come_back() -> None:
    office = Office()
    office.accounts.believed["evan"] = Account("evan", "Evan E.", emails=("evan@home.example",))
    await office.do(a_lock("evan"))
    assert office.announcer is not None
    [told] = office.announcer.told
    assert (told.localpart, told.display_name, told.emails) == ("evan", "Evan E.", ("evan@home.example",))
    assert told.facts == {"due_at": NOW + PERIOD}


async def test_who_is_known_to_the_directory_is_told_there() -> None:
    user = replace(a_user("evan", active=False), display_name="Evan", emails=("evan@work.example",))
    office = Office(directory=a_directory(["anna", user]))
    office.accounts.believed["evan"] = Account("evan", "other", emails=("evan@home.example",))
    await office.do(a_lock("evan"))
    assert office.announcer is not None
    [told] = office.announcer.told
    assert (told.display_name, told.emails) == ("Evan", ("evan@work.example",))


async def test_another_user_of_that_name_is_not_told_about_it() -> None:
    """The localpart came back under a new id: the mail is about the one who left."""
    other = replace(a_user("evan", "id-new"), emails=("new@work.example",))
    office = Office(directory=a_directory(["anna", other]))
    await office.do(a_lock("evan"))
    assert office.announcer is not None
    [told] = office.announcer.told
    assert told.emails == ()


async def test_each_time_that_somebody_leaves_is_told_of() -> None:
    office = Office()
    await office.do(a_lock("evan"))
    office.clock.time += DAY
    await office.do(an_unlock("evan"))
    office.clock.time += DAY
    await office.do(a_lock("evan"))
    assert [event for event, _ in office.said()] == [
        MailEvent.DEACTIVATED,
        MailEvent.ACTIVATED,
        MailEvent.DEACTIVATED,
    ]


async def test_without_a_mailer_nobody_is_told() -> None:
    office = Office()
    office.announcer = None
    assert await office.statuses(a_lock("evan"), an_unlock("bob")) == [DONE, DONE]
