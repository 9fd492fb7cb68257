"""Before an account is locked, unlocked or erased it is asked for once more, and so is the queue: what was
known of both may be old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from aim.planner.actions import AnyAccountAction
from aim.ports import MailEvent
from aim.world.accounts import Account
from aim.world.recorded import Queued
from tests.unit.account_fakes import ACCOUNT_WRITES
from tests.unit.fakes import Call, Killed
from tests.unit.test_account_work import (
    DONE,
    PERIOD,
    SKIPPED,
    Office,
    a_lock,
    an_erasure,
    an_unlock,
)
from tests.unit.worlds import NOW, a_config, a_queued, a_space

ADMINS_TOO = a_config(
    a_space("all", ""), user_provisioner={"deprovisioning": {"enabled": True, "include_admins": True}}
)
Deed = Callable[[str], AnyAccountAction]


def really(office: Office, **is_: bool) -> Office:
    """What evan's account is like, and nobody told us."""
    before = office.accounts.accounts["evan"]
    office.accounts.accounts["evan"] = replace(before, **is_)  # type: ignore[arg-type]  # flags of Account
    return office


def while_it_is_read(office: Office, *entries: Queued) -> Office:
    """What stands on the queue once the account was asked for: somebody decided just then."""

    def decide(call: Call) -> BaseException | None:
        if call.name == "current_account":
            office.queue(*entries)
        return None

    office.line.fail = decide
    return office


async def refused(office: Office, action: AnyAccountAction) -> str:
    """Why nothing was done; the queue is as it was."""
    before = office.waiting
    [outcome] = await office.do(action)
    assert outcome.status is SKIPPED
    assert office.waiting == before
    assert office.line.of(*ACCOUNT_WRITES, "announce") == []
    return outcome.message


# -- locking ----------------------------------------------------------------------------------------------


async def test_what_an_administrator_locked_today_is_not_ours() -> None:
    office = really(Office(), locked=True)
    assert await office.statuses(a_lock("evan", ours=True)) == [DONE]
    assert office.waiting["id-evan"].ours is False
    assert office.line.of(*ACCOUNT_WRITES) == []
    assert office.said() == []


async def test_what_an_administrator_unlocked_today_is_ours() -> None:
    office = really(Office().locked("evan"), locked=False)
    assert await office.statuses(a_lock("evan", ours=False)) == [DONE]
    assert office.waiting["id-evan"].ours is True
    assert office.accounts.accounts["evan"].locked
    assert office.said() == [(MailEvent.DEACTIVATED, "evan")]


@pytest.mark.parametrize("queues", [True, False])
async def test_what_we_locked_before_we_were_killed_is_ours(queues: bool) -> None:
    office = Office()
    await locked_and_killed(office)
    assert await office.statuses(a_lock("evan", queues=queues)) == [DONE]
    assert office.waiting["id-evan"].ours is True
    assert office.line.of("lock") == [], "it is locked"
    assert await office.statuses(an_unlock("evan")) == [DONE]
    assert not office.accounts.accounts["evan"].locked


async def locked_and_killed(office: Office) -> None:
    """The lock was made; that it was, nobody lived to remember."""
    office.line.lose = lambda call: Killed() if call.name == "lock" else None
    with pytest.raises(Killed):
        await office.do(a_lock("evan"))
    assert office.accounts.accounts["evan"].locked
    office.accounts.believed["evan"] = Account("evan")
    office.line.lose = lambda _: None
    office.line.calls.clear()


async def test_the_entry_of_another_account_says_nothing_about_this_one() -> None:
    office = really(Office(), locked=True).queue(replace(a_queued("evan"), localpart="evan.old"))
    assert await office.statuses(a_lock("evan")) == [DONE]
    assert (office.waiting["id-evan"].localpart, office.waiting["id-evan"].ours) == ("evan", False)


@pytest.mark.parametrize("make", [a_lock, an_erasure])
async def test_who_became_an_administrator_is_left_alone(make: Deed) -> None:
    office = really(Office().queue(a_queued("evan", days_left=-1)), admin=True, locked=make is an_erasure)
    assert "administrator" in await refused(office, make("evan"))


@pytest.mark.parametrize("make", [a_lock, an_erasure])
async def test_unless_administrators_leave_like_others(make: Deed) -> None:
    office = Office(config=ADMINS_TOO).queue(a_queued("evan", days_left=-1))
    really(office, admin=True, locked=make is an_erasure)
    assert await office.statuses(make("evan")) == [DONE]


async def test_whose_account_is_deactivated_or_gone_is_not_put_on_the_queue() -> None:
    assert "deactivated" in await refused(really(Office(), deactivated=True), a_lock("evan"))
    office = Office()
    del office.accounts.accounts["evan"]
    assert "no such account" in await refused(office, a_lock("evan"))


async def test_who_is_restored_at_this_moment_is_not_locked() -> None:
    office = while_it_is_read(Office(), a_queued("evan", restored_by="boss"))
    [outcome] = await office.do(a_lock("evan"))
    assert (outcome.status, "boss has restored them" in outcome.message) == (SKIPPED, True)
    assert office.line.of(*ACCOUNT_WRITES) == []
    assert office.waiting == {"id-evan": a_queued("evan", restored_by="boss")}


async def test_an_erasure_that_is_asked_for_at_this_moment_counts() -> None:
    asked = a_queued("evan", days_left=5, erase_by="boss")
    office = while_it_is_read(Office().queue(a_queued("evan", days_left=5)), asked)
    assert await office.statuses(a_lock("evan")) == [DONE]
    assert office.waiting == {"id-evan": asked}
    assert office.accounts.accounts["evan"].locked


async def test_a_new_stay_begins_with_the_whole_period_and_who_holds_them() -> None:
    office = Office().queue(a_queued("evan", days_left=5, held_by="boss"))
    assert await office.statuses(a_lock("evan")) == [DONE]
    found = office.waiting["id-evan"]
    assert (found.queued_at, found.due_at, found.held_by) == (NOW, NOW + PERIOD, "boss")


async def test_who_is_taken_off_the_queue_meanwhile_is_put_on_it_before_they_are_locked() -> None:
    office = Office()
    assert await office.statuses(a_lock("evan", queues=False)) == [DONE]
    assert office.waiting["id-evan"].due_at == NOW + PERIOD


# -- unlocking --------------------------------------------------------------------------------------------


async def test_who_is_not_locked_after_all_leaves_the_queue_and_is_told_nothing() -> None:
    office = really(Office().locked("evan").queue(a_queued("evan")), locked=False)
    assert await office.statuses(an_unlock("evan")) == [DONE]
    assert office.waiting == {}
    assert office.line.of("unlock", "announce") == []


async def test_whose_lock_was_not_remembered_is_unlocked() -> None:
    office = really(Office().queue(a_queued("evan")), locked=True)
    assert await office.statuses(an_unlock("evan")) == [DONE]
    assert not office.accounts.accounts["evan"].locked
    assert office.said() == [(MailEvent.ACTIVATED, "evan")]


async def test_an_account_that_was_deactivated_meanwhile_cannot_be_unlocked() -> None:
    office = really(Office().locked("evan").queue(a_queued("evan")), deactivated=True)
    assert "no account any more" in await refused(office, an_unlock("evan"))


# -- erasing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        a_queued("evan", days_left=-1, held_by="boss"),
        a_queued("evan", days_left=-1, restored_by="boss"),
        a_queued("evan", days_left=1),
        replace(a_queued("evan", days_left=-1), localpart="another"),
    ],
    ids=["held", "restored", "later", "another"],
)
async def test_what_is_decided_while_the_homeserver_is_asked_counts(said: Queued) -> None:
    office = Office().locked("evan").queue(a_queued("evan", days_left=-1))
    while_it_is_read(office, said)
    [outcome] = await office.do(an_erasure("evan"))
    assert outcome.status is SKIPPED
    assert office.line.of(*ACCOUNT_WRITES) == []


# -- who is told ------------------------------------------------------------------------------------------


async def test_addresses_that_nobody_keeps_are_those_of_the_account_now() -> None:
    office = Office()
    office.accounts.accounts["evan"] = Account("evan", emails=("evan@home.example",))
    office.clock.time += timedelta(hours=1)
    await office.do(a_lock("evan"))
    assert office.announcer is not None
    [told] = office.announcer.told
    assert told.emails == ("evan@home.example",)
    assert told.facts == {"due_at": NOW + timedelta(hours=1) + PERIOD}
