"""Accounts follow people: who is locked, unlocked and erased, and above all who is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aim.config import Config
from aim.desired.leaving import asked_about
from aim.directory.model import User
from aim.directory.roster import Roster
from aim.planner.actions import EraseAccount, Kick, LockAccount, UnlockAccount
from aim.planner.document import read_saved, to_document, to_text
from aim.planner.keys import Keys
from aim.planner.memory import remember
from aim.world.accounts import Account
from aim.world.recorded import Queued
from tests.unit.model import BOT, mxid
from tests.unit.worlds import (
    NO_LIMITS,
    NOW,
    Scene,
    a_config,
    a_directory,
    a_queued,
    a_room,
    a_scene,
    a_seen,
    a_space,
    a_user,
    an_observed,
    apply_plan,
    cycle,
    identities,
    provisioned,
)

ON = {"deprovisioning": {"enabled": True}}
OFF: dict[str, Any] = {}
CLOCK = NOW - timedelta(minutes=1)
STAFF = ["anna", "evan", "bob"]


def config(user_provisioner: dict[str, Any] | None = None, **provisioner: Any) -> Config:
    given = ON if user_provisioner is None else user_provisioner
    return a_config(a_space("root", ("", 0), ("boss", 50)), user_provisioner=given, **provisioner)


def scene(
    users: Iterable[str | User] = ("anna", "bob"),
    *,
    members: Iterable[str] = STAFF,
    given: Config | None = None,
    **more: Any,
) -> Scene:
    """These members (`evan` and `p0` moderate) were seen and are in the space; `users` are left of them."""
    roster = Roster()
    bosses = [name for name in members if name in {"evan", "p0"}]
    directory = a_directory(users, {"boss": bosses}, roster=roster, **more)
    room = a_room(roster, "root", members, levels=dict.fromkeys(bosses, 50))
    made = Scene(given or config(), directory, an_observed(roster, members, room))
    known = [a_seen(name) for name in members]
    return (
        made.with_accounts(*members)
        .with_seen(*known)
        .recording(source="ldif", clock=CLOCK, entitled={"root": roster.people(members)})
    )


def on_accounts(made: Scene) -> list[str]:
    return [action.identity for action in made.plan().actions if action.space == ""]


def messages(made: Scene, subject: str) -> list[str]:
    return [problem.message for problem in made.plan().problems if problem.subject == subject]


# -- leaving ----------------------------------------------------------------------------------------------


def test_who_is_gone_is_locked_and_stays_where_they_are_with_their_level() -> None:
    plan = scene().plan()
    [lock] = plan.actions
    assert isinstance(lock, LockAccount)
    assert (lock.person, lock.user_id, lock.ours, lock.queues) == (mxid("evan"), "id-evan", True, True)
    assert lock.reason == "no longer in the directory"
    assert lock.period == timedelta(days=30)
    assert lock.in_spaces == ("root",)


def test_who_is_disabled_is_locked_too() -> None:
    made = scene(["anna", "bob", a_user("evan", active=False)])
    [lock] = made.plan().actions
    assert (lock.identity, lock.reason) == ("lock_account @evan:example.com", "disabled in the directory")


def test_the_period_is_the_configured_one_under_either_name() -> None:
    given = config({"deprovisioning": {"enabled": True, "soft_delete_period": "3d"}})
    [lock] = scene(given=given).plan().actions
    assert isinstance(lock, LockAccount)
    assert lock.period == timedelta(days=3)


def gone(made: Scene, **changes: Any) -> Scene:
    return made.with_seen(a_seen("anna"), a_seen("bob"), replace(a_seen("evan"), **changes))


def without_seen(made: Scene) -> Scene:
    return made.with_seen("anna", "bob")


def in_allowed_users(made: Scene) -> Scene:
    return replace(made, config=config(allowed_users=["@evan:.*"]))


def of_the_bot(made: Scene) -> Scene:
    return replace(made, observed=replace(made.observed, bot=mxid("evan")))


NEVER: dict[str, Callable[[Scene], Scene]] = {
    "weak id": lambda made: gone(made, weak_id=True),
    "never seen before": without_seen,
    "no account": lambda made: made.with_accounts("anna", "bob"),
    "deactivated": lambda made: made.with_account("evan", deactivated=True),
    "admin": lambda made: made.with_account("evan", admin=True),
    "allowed": in_allowed_users,
    "the bot": of_the_bot,
    "unresolved": lambda made: replace(
        made, directory=replace(made.directory, unresolved=frozenset({"id-evan"}))
    ),
    "contested": lambda made: replace(
        made, directory=replace(made.directory, contested=made.roster.people(["evan"]))
    ),
    "accounts refused": lambda made: made.with_accounts(*STAFF, refused="no"),
    "restored": lambda made: made.with_queue(a_queued("evan", restored_by="root")),
    "two of that name": lambda made: made.with_seen("anna", "bob", "evan", a_seen("evan", "other")),
    "weak id of the disabled": lambda made: with_users(
        made, "anna", "bob", a_user("evan", active=False, weak_id=True)
    ),
}


def with_users(made: Scene, *users: str | User) -> Scene:
    groups = {"boss": ["evan"]}
    return replace(made, directory=a_directory(users, groups, roster=made.roster))


@pytest.mark.parametrize("change", NEVER.values(), ids=NEVER.keys())
def test_who_is_never_locked(change: Callable[[Scene], Scene]) -> None:
    assert on_accounts(scene()) == ["lock_account @evan:example.com"]
    assert on_accounts(change(scene())) == []


def test_admins_are_locked_if_that_is_asked_for() -> None:
    given = config({"deprovisioning": {"enabled": True, "include_admins": True}})
    assert on_accounts(scene(given=given).with_account("evan", admin=True)) != []


def test_who_is_not_locked_for_want_of_an_account_or_an_id_is_kicked() -> None:
    for change in ("weak id", "never seen before", "no account"):
        plan = NEVER[change](scene()).plan()
        assert "kick root @evan:example.com" in identities(plan.actions), change


def test_a_localpart_that_another_user_has_now_is_nobodys_to_lock() -> None:
    made = scene(["anna", "bob", a_user("evan", "id-new")])
    assert on_accounts(made) == []
    assert "kick root @evan:example.com" not in identities(made.plan().actions)
    assert messages(made, mxid("evan")) != []


def test_who_married_keeps_both_accounts_untouched() -> None:
    made = scene(["anna", "bob", a_user("evans", "id-evan")]).with_accounts(*STAFF, "evans")
    assert identities(made.plan().actions) == []
    assert messages(made, mxid("evans")) != []


def test_nothing_of_accounts_happens_unless_it_is_asked_for() -> None:
    made = replace(scene(), config=a_config(a_space("root", "")))
    assert on_accounts(made) == []
    assert "kick root @evan:example.com" in identities(made.plan().actions)
    memory = remember(replace(made, recorded=replace(made.recorded, clock=None)).world, made.plan())
    assert memory.clock is None


def test_a_fresh_database_locks_nobody() -> None:
    made = a_scene(config(), a_directory(["anna", a_user("evan", active=False)]), STAFF).with_accounts(*STAFF)
    assert on_accounts(made) == []


def test_who_left_is_remembered_as_gone_and_who_is_disabled_as_seen() -> None:
    made = scene(["anna", "bob", a_user("new", active=False)])
    memory = remember(made.world, made.plan())
    assert {(one.id, one.gone_since) for one in memory.seen} == {("id-evan", NOW), ("id-new", None)}
    assert memory.lapsed == {}


def test_switched_off_the_plan_tells_who_would_be_locked_and_the_rights_go() -> None:
    plan = (made := scene(given=config(OFF))).plan()
    assert on_accounts(made) == []
    assert "kick root @evan:example.com" in identities(plan.actions)
    [message] = messages(made, "deprovisioning")
    assert message.startswith("1 accounts of people who left would be locked")
    assert mxid("evan") in message


def test_while_accounts_are_refused_who_would_be_locked_is_not_kicked_instead() -> None:
    made = scene().with_accounts(*STAFF, refused="the rights were taken away")
    assert identities(made.plan().actions) == []
    [message] = messages(made, "deprovisioning")
    assert message.startswith("1 of those known left the directory")
    assert message.endswith(f"as accounts can't be managed: {mxid('evan')}")
    off = replace(made, config=config(OFF))
    assert messages(off, "deprovisioning") == []
    assert "kick root @evan:example.com" in identities(off.plan().actions)
    # Nor is somebody kept who could never be locked.
    for change in ("weak id", "never seen before"):
        plan = NEVER[change](made).plan()
        assert "kick root @evan:example.com" in identities(plan.actions), change


def test_while_accounts_are_refused_who_is_locked_already_is_not_counted() -> None:
    made = waiting_scene(["anna", "bob"]).with_accounts(*STAFF, refused="the rights were taken away")
    assert messages(made, "deprovisioning") == []


def test_without_the_section_who_waits_stays_and_a_problem_says_that_nobody_unlocks_them() -> None:
    made = waiting_scene(["anna", "bob"], days_left=-1)
    made = replace(made, config=a_config(a_space("root", "")))
    assert identities(made.plan().actions) == []
    [problem] = [each for each in made.plan().problems if each.subject == "deprovisioning"]
    assert problem.severity == "warning"
    assert problem.message.startswith("1 accounts are locked by aim")
    assert mxid("evan") in problem.message
    assert "Put it back" in problem.message
    assert messages(made.with_queue(a_queued("evan", ours=False)), "deprovisioning") == []
    assert identities(made.with_queue(a_queued("evan", ours=False)).plan().actions) == []


def test_without_the_section_who_is_back_meanwhile_has_a_whole_period_when_it_is_back() -> None:
    made = replace(waiting_scene(days_left=1), config=a_config(a_space("root", "")))
    assert len(messages(made, "deprovisioning")) == 1
    [entry] = renewed(made)
    assert entry.due_at >= NOW + PERIOD
    for hours in (0, 1, 23):
        assert renewed(made.with_queue(entry).later(hours=hours)) == []


def test_switched_off_the_queue_waits_and_who_is_back_is_unlocked() -> None:
    made = scene(given=config(OFF)).with_account("evan", locked=True)
    waiting = made.with_queue(a_queued("evan", days_left=-1))
    assert identities(waiting.plan().actions) == []
    assert "1 people wait in the queue" in messages(waiting, "deprovisioning")[0]
    back = replace(waiting, directory=a_directory(STAFF, {"boss": ["evan"]}, roster=waiting.roster))
    assert on_accounts(back) == ["unlock_account @evan:example.com"]


# -- locks, again ------------------------------------------------------------------------------------------


def test_an_account_that_somebody_else_locked_is_queued_and_never_unlocked() -> None:
    made = scene().with_account("evan", locked=True)
    [lock] = made.plan().actions
    assert isinstance(lock, LockAccount)
    assert not lock.ours
    after = cycle(made)
    assert not after.recorded.queue["id-evan"].ours
    back = with_users(after, *STAFF)
    assert on_accounts(back) == []
    assert "stays locked" in messages(back, mxid("evan"))[0]
    assert remember(back.world, back.plan()).dequeue == ("id-evan",)
    assert cycle(back).recorded.queue == {}


def test_who_was_unlocked_by_hand_is_locked_again_and_waits_from_the_start() -> None:
    made = scene().with_queue(a_queued("evan", days_left=-1))
    assert on_accounts(made) == ["lock_account @evan:example.com"]
    assert cycle(made).recorded.queue["id-evan"].due_at == NOW + timedelta(days=30)


def test_a_second_cycle_has_nothing_to_do() -> None:
    after = cycle(scene())
    assert after.observed.known_accounts is not None
    assert after.observed.known_accounts.accounts["evan"].locked
    assert identities(after.plan().actions) == []
    assert not remember(after.world, after.plan())


# -- coming back -------------------------------------------------------------------------------------------


def waiting_scene(users: Iterable[str | User] = STAFF, **queued: Any) -> Scene:
    """`evan` was locked by us ten days ago."""
    made = scene(users).with_account("evan", locked=True)
    return made.with_queue(a_queued("evan", **queued))


def test_who_is_back_is_unlocked_and_everything_is_as_before() -> None:
    [unlock] = waiting_scene().plan().actions
    assert isinstance(unlock, UnlockAccount)
    assert (unlock.user_id, unlock.leaves_queue) == ("id-evan", True)
    after = cycle(waiting_scene())
    assert after.recorded.queue == {}
    assert identities(after.plan().actions) == []


def test_who_is_back_is_unlocked_whatever_we_believe_of_their_account() -> None:
    """A lock of ours may be under way, or was made and not remembered: only the homeserver knows."""
    made = waiting_scene().with_account("evan", locked=False)
    assert identities(made.plan().actions) == ["unlock_account @evan:example.com"]
    assert remember(made.world, made.plan()).dequeue == ()
    assert cycle(made).recorded.queue == {}


@pytest.mark.parametrize("change", [{"deactivated": True}, None], ids=["deactivated", "none"])
def test_who_is_back_and_has_no_account_to_unlock_leaves_the_queue_by_memory(
    change: dict[str, Any] | None,
) -> None:
    made = waiting_scene()
    made = made.with_accounts("anna", "bob") if change is None else made.with_account("evan", **change)
    assert on_accounts(made) == []
    assert remember(made.world, made.plan()).dequeue == ("id-evan",)


def test_who_was_restored_and_is_not_locked_has_nothing_to_be_done() -> None:
    made = waiting_scene(["anna", "bob"], restored_by="root").with_account("evan", locked=False)
    assert identities(made.plan().actions) == []


# -- a new stay on the queue -------------------------------------------------------------------------------

PERIOD = timedelta(days=30)


def renewed(made: Scene) -> list[Queued]:
    return list(remember(made.world, made.plan()).enqueue)


def test_who_is_back_and_cannot_be_unlocked_has_a_new_period_before_them_when_they_leave_again() -> None:
    made = waiting_scene(days_left=10, found_due_at=NOW, erase_by="root")
    [entry] = renewed(made)
    assert (entry.queued_at, entry.erase_by, entry.found_due_at) == (NOW, None, None)
    refused = apply_plan(made, made.plan(), only=lambda _: False)
    for hours in range(0, 19 * 24, 5):
        made = refused.later(hours=hours)
        refused = replace(apply_plan(made, made.plan(), only=lambda _: False), now=NOW)
    back_last = made.now
    left = with_users(replace(refused, now=back_last), "anna", "bob")
    assert left.recorded.queue["id-evan"].due_at >= back_last + PERIOD
    for later in (timedelta(0), PERIOD - timedelta(seconds=1)):
        then = replace(left, now=back_last + later)
        assert on_accounts(then.recording(clock=then.now)) == []
    late = replace(left, now=back_last + PERIOD + timedelta(days=1))
    assert on_accounts(late.recording(clock=late.now)) == ["erase_account @evan:example.com"]


def test_a_new_stay_is_recorded_once_a_day_at_most() -> None:
    refused = apply_plan(made := waiting_scene(), made.plan(), only=lambda _: False)
    again = []
    for hour in range(1, 73):
        then = refused.later(hours=hour)
        then = then.recording(clock=then.now)
        if entries := renewed(then):
            again.append(hour)
            queue = {entry.user_id: entry for entry in entries}
            refused = refused.recording(queue=queue)
    assert again == [25, 50]


BACK_UNDER_DOUBT: dict[str, Callable[[Scene], Scene]] = {
    "a new localpart": lambda made: with_users(made, "anna", "bob", a_user("evans", "id-evan")),
    "a new id": lambda made: with_users(made, "anna", "bob", a_user("evan", "id-new")),
    "unresolved": NEVER["unresolved"],
    "contested": NEVER["contested"],
}


@pytest.mark.parametrize("change", BACK_UNDER_DOUBT.values(), ids=BACK_UNDER_DOUBT.keys())
def test_who_may_be_back_and_leaves_before_anybody_said_who_that_is_waits_from_the_start(
    change: Callable[[Scene], Scene],
) -> None:
    away = waiting_scene(["anna", "bob"], days_left=20)
    assert renewed(away) == []
    there = change(away)
    assert on_accounts(there) == []
    [entry] = renewed(there)
    assert entry.due_at >= NOW + PERIOD
    left = away.with_queue(entry).later(days=25)
    assert on_accounts(left.recording(clock=left.now)) == []


def test_a_time_that_lasts_longer_than_the_period_now_is_not_shortened() -> None:
    given = config({"deprovisioning": {"enabled": True, "soft_delete_period": "3d"}})
    assert renewed(replace(waiting_scene(days_left=20), config=given)) == []
    # And one beyond the end of all time is not counted on.
    forever = config({"deprovisioning": {"enabled": True, "soft_delete_period": "9000000d"}})
    [entry] = renewed(replace(waiting_scene(), config=forever))
    assert entry.due_at.year == 9999
    assert renewed(replace(waiting_scene(), config=forever).with_queue(entry)) == []


def test_who_is_back_under_a_new_id_is_neither_unlocked_nor_erased() -> None:
    made = waiting_scene(["anna", "bob", a_user("evan", "id-new")], days_left=-1)
    assert identities(made.plan().actions) == []
    assert not remember(made.world, made.plan()).dequeue


def test_who_is_back_and_disabled_waits_on() -> None:
    assert identities(waiting_scene(["anna", "bob", a_user("evan", active=False)]).plan().actions) == []


def test_who_was_restored_is_unlocked_and_stays_known_until_they_are_back() -> None:
    made = waiting_scene(["anna", "bob"], restored_by="root", days_left=-1)
    [unlock] = made.plan().actions
    assert isinstance(unlock, UnlockAccount)
    assert not unlock.leaves_queue
    after = cycle(made)
    assert identities(after.plan().actions) == []
    assert after.recorded.queue.keys() == {"id-evan"}
    back = with_users(after, *STAFF)
    assert cycle(back).recorded.queue == {}


def test_who_was_restored_and_locked_by_somebody_else_stays_locked() -> None:
    made = waiting_scene(["anna", "bob"], restored_by="root", ours=False)
    assert identities(made.plan().actions) == []


def test_an_erased_account_that_is_back_is_a_problem_and_never_invited() -> None:
    made = scene(STAFF, members=["anna", "bob"]).with_accounts(
        "anna", "bob", Account("evan", deactivated=True, display_name="old", emails=())
    )
    evan = a_user("evan", display_name="Evan", emails=("e@example.com",))
    made = with_users(made, "anna", "bob", evan)
    made = replace(made, observed=replace(made.observed, accounts=made.roster.people(STAFF)))
    assert identities(made.plan().actions) == []
    [message] = messages(made, mxid("evan"))
    assert message.startswith("was deactivated or erased and is in the directory again")


# -- erasure -----------------------------------------------------------------------------------------------


def due_scene(**queued: Any) -> Scene:
    return waiting_scene(["anna", "bob"], **{"days_left": 0, **queued})


def test_who_waited_long_enough_is_erased() -> None:
    [erase] = due_scene().plan().actions
    assert isinstance(erase, EraseAccount)
    assert (erase.user_id, erase.due_at, erase.in_spaces) == ("id-evan", NOW, ("root",))
    assert erase.reason == (
        "no longer in the directory since 2029-12-22; 2030-01-01 was the end of the grace period"
    )


def test_nobody_is_erased_a_second_too_early() -> None:
    early = due_scene(days_left=1 / 86400)
    assert identities(early.plan().actions) == []


def test_whoever_we_act_as_is_never_locked_or_erased_whatever_is_asked_for() -> None:
    def acting_as(name: str) -> Config:
        given = config({"deprovisioning": {"enabled": True, "include_admins": True}})
        return given.model_copy(
            update={"homeserver": given.homeserver.model_copy(update={"admin_user": name})}
        )

    assert on_accounts(replace(scene(), config=acting_as("bob"))) == ["lock_account @evan:example.com"]
    assert on_accounts(replace(scene(), config=acting_as("evan"))) == []
    for account in ({}, {"deactivated": True}):
        made = due_scene().with_account("evan", **account)
        assert on_accounts(replace(made, config=acting_as("bob"))) == ["erase_account @evan:example.com"]
        assert on_accounts(replace(made, config=acting_as("evan"))) == []


def unread(made: Scene, **age: float) -> Scene:
    """The directory in force was read so long ago."""
    return replace(made, directory_age=timedelta(**age))


def test_a_directory_that_was_read_before_the_time_was_over_erases_nobody() -> None:
    made = due_scene(days_left=-1)
    assert on_accounts(unread(made, hours=24)) == ["erase_account @evan:example.com"]
    assert on_accounts(unread(made, hours=24, seconds=1)) == []
    assert on_accounts(unread(made, days=9)) == []
    # Nor does one that was read by a clock that was ahead.
    assert on_accounts(unread(made, seconds=-60)) != []
    assert on_accounts(unread(made, hours=-1)) == []
    deactivated = unread(made.with_account("evan", deactivated=True), days=9)
    assert on_accounts(deactivated) == []


def test_what_a_person_asked_for_waits_for_no_reading() -> None:
    made = unread(due_scene(days_left=20, erase_by="root"), days=9)
    assert on_accounts(made) == ["erase_account @evan:example.com"]


def test_that_erasures_wait_for_a_directory_is_said_once_it_takes_long() -> None:
    made = due_scene(days_left=-0.01)
    assert messages(unread(made, hours=2), "deprovisioning") == []
    assert on_accounts(unread(made, hours=2)) == []
    [message] = messages(unread(made, hours=3), "deprovisioning")
    assert message.startswith("the directory was last read at 2030-01-01 09:00 UTC: 1 erasures that are due")
    assert messages(unread(due_scene(days_left=1), hours=3), "deprovisioning") == []
    old = unread(made, hours=3)
    assert remember(old.world, old.plan()).enqueue == (), "the clock is in no doubt"


# -- an account that is gone -------------------------------------------------------------------------------


def vanished(made: Scene) -> Scene:
    return made.with_accounts("anna", "bob")


def forgotten(made: Scene) -> tuple[tuple[str, str], ...]:
    return remember(made.world, made.plan()).forget


def test_whose_account_is_gone_is_forgotten_when_their_time_is_over() -> None:
    made = vanished(due_scene())
    assert identities(made.plan().actions) == []
    assert forgotten(made) == (("id-evan", mxid("evan")),)
    after = cycle(made)
    assert after.recorded.queue == {}
    assert "id-evan" not in after.recorded.seen
    assert remember(after.world, after.plan()).forget == ()


NOT_FORGOTTEN: dict[str, Scene] = {
    "not due": vanished(due_scene(days_left=1)),
    "held": vanished(due_scene(held_by="root")),
    "restored": vanished(due_scene(restored_by="root")),
    "a clock in doubt": vanished(due_scene()).recording(clock=NOW - timedelta(days=3)),
    "a directory of yesterday": replace(vanished(due_scene()), directory_age=timedelta(days=1)),
    "switched off": replace(vanished(due_scene()), config=config(OFF)),
    "refused": due_scene().with_accounts("anna", "bob", refused="no"),
    "recovering": vanished(due_scene()).recording(recovery_since=NOW),
    "disabled": with_users(vanished(due_scene()), "anna", "bob", a_user("evan", active=False)),
    "back": with_users(vanished(due_scene()), *STAFF),
    "unresolved": NEVER["unresolved"](vanished(due_scene())),
    "an account": due_scene(),
}


@pytest.mark.parametrize("made", NOT_FORGOTTEN.values(), ids=NOT_FORGOTTEN.keys())
def test_who_is_not_forgotten(made: Scene) -> None:
    assert forgotten(made) == ()


def test_who_was_erased_while_disabled_is_not_recorded_again() -> None:
    made = due_scene()
    made = with_users(made, "anna", "bob", a_user("evan", active=False))
    after = cycle(made)
    assert "id-evan" not in after.recorded.seen
    for then in (after, after.with_accounts(*STAFF, refused="no")):
        assert remember(then.world, then.plan()).seen == ()


NOT_ERASED: dict[str, Scene] = {
    "held": due_scene(held_by="root"),
    "restored": due_scene(restored_by="root", ours=False),
    "a localpart of another user now": with_users(due_scene(), "anna", "bob", a_user("evan", "id-new")),
    "an admin": due_scene().with_account("evan", admin=True),
    "allowed": in_allowed_users(due_scene()),
    "switched off": replace(due_scene(), config=config(OFF)),
    "refused": due_scene().with_accounts(*STAFF, refused="no"),
    "unresolved": NEVER["unresolved"](due_scene()),
    "deactivated, but held": due_scene(held_by="root").with_account("evan", deactivated=True),
}


@pytest.mark.parametrize("made", NOT_ERASED.values(), ids=NOT_ERASED.keys())
def test_who_is_not_erased_and_not_kicked_either(made: Scene) -> None:
    found = identities(made.plan().actions)
    assert "erase_account @evan:example.com" not in found
    assert "kick root @evan:example.com" not in found


def test_a_persons_word_erases_at_once_whatever_the_clock_says() -> None:
    made = due_scene(days_left=20, erase_by="root").recording(clock=None)
    [erase] = made.plan().actions
    assert erase.reason.endswith("root had it erased")
    assert on_accounts(due_scene(days_left=20, erase_by="root", held_by="ann")) == []


def test_who_is_to_be_erased_by_a_persons_word_and_is_not_locked_is_locked_first() -> None:
    made = due_scene(days_left=20, erase_by="root").with_account("evan", locked=False)
    after = cycle(made)
    assert on_accounts(after) == ["erase_account @evan:example.com"]


def test_an_erasure_that_was_broken_off_is_completed() -> None:
    made = due_scene().with_account("evan", deactivated=True)
    assert on_accounts(made) == ["erase_account @evan:example.com"]
    assert cycle(made).recorded.queue == {}
    assert on_accounts(due_scene(days_left=1).with_account("evan", deactivated=True)) == []


# -- clocks ------------------------------------------------------------------------------------------------


def at(made: Scene, *, last: timedelta | None, ahead: timedelta = timedelta()) -> Scene:
    """`last`: how long ago the clock was read."""
    clock = None if last is None else NOW - last
    return made.recording(clock=clock, database_ahead=ahead)


CLOCKS = [
    (timedelta(0), timedelta(0), True),
    (timedelta(hours=2), timedelta(0), True),
    (timedelta(hours=2, seconds=1), timedelta(0), False),
    (timedelta(seconds=-60), timedelta(0), True),
    (timedelta(seconds=-61), timedelta(0), False),
    (None, timedelta(0), False),
    (timedelta(0), timedelta(minutes=5), True),
    (timedelta(0), timedelta(minutes=-6), False),
    (timedelta(0), timedelta(minutes=6), False),
]


@pytest.mark.parametrize(("last", "ahead", "trusted"), CLOCKS)
def test_who_is_due_is_erased_only_by_a_clock_to_be_trusted(
    last: timedelta | None, ahead: timedelta, trusted: bool
) -> None:
    made = at(due_scene(), last=last, ahead=ahead)
    plan = made.plan()
    memory = remember(made.world, plan)
    assert bool(plan.actions) is trusted
    assert [queued.found_due_at for queued in memory.enqueue] == ([] if trusted else [NOW])
    warned = [message for message in messages(made, "deprovisioning") if "1 erasures" in message]
    assert len(warned) == (0 if trusted else 1)


def test_a_second_reading_an_hour_later_is_believed_even_after_another_gap() -> None:
    first = cycle(at(due_scene(), last=timedelta(days=3)))
    assert first.recorded.clock == NOW
    for minutes, erased in ((1, False), (59, False), (60, True), (600, True)):
        assert bool(first.later(minutes=minutes).plan().actions) is erased, minutes
    apart = first.later(hours=3).recording(database_ahead=timedelta(hours=1))
    assert apart.plan().actions == ()


def test_what_a_clock_said_that_was_put_right_counts_for_nothing() -> None:
    jumped = cycle(due_scene(days_left=20).later(days=40))
    assert jumped.recorded.queue["id-evan"].found_due_at == NOW + timedelta(days=40)
    right = cycle(replace(jumped, now=NOW + timedelta(minutes=5)))
    assert right.recorded.queue["id-evan"].found_due_at is None
    assert right.recorded.clock == NOW + timedelta(minutes=5)
    again = right.later(days=50)
    assert again.plan().actions == ()
    late = replace(jumped, now=NOW + timedelta(days=21)).recording(clock=NOW + timedelta(days=21))
    assert late.plan().actions == ()
    assert remember(late.world, late.plan()).enqueue[0].found_due_at == late.now


@pytest.mark.parametrize(
    ("last", "recorded"),
    [
        (None, True),
        (timedelta(minutes=15), False),
        (timedelta(minutes=16), True),
        (timedelta(seconds=-30), False),
        (timedelta(seconds=-90), True),
    ],
)
def test_the_clock_is_read_now_and_then(last: timedelta | None, recorded: bool) -> None:
    made = at(scene(STAFF), last=last)
    memory = remember(made.world, made.plan())
    assert memory.clock == (NOW if recorded else None)
    assert bool(replace(memory, rooms=())) is recorded


# -- guards ------------------------------------------------------------------------------------------------

MANY = [f"p{number}" for number in range(20)]


def many(users: Iterable[str | User], given: Config | None = None) -> Scene:
    return scene(users, members=MANY, given=given)


@pytest.mark.parametrize(
    "users",
    [
        MANY[:10],
        [a_user(name, active=False) for name in MANY],
        [a_user(name, active=False) for name in MANY[:9]],
    ],
    ids=["halved", "all disabled", "nine disabled, the rest gone"],
)
def test_a_bad_read_locks_nobody_and_kicks_nobody(users: list[str | User]) -> None:
    plan = many(users).plan()
    assert {type(action) for action in plan.actions} == {LockAccount}
    assert plan.due == ()
    assert {trip.scope for trip in plan.trips} == {"root", "organisation"}
    assert {trip.kind for trip in plan.trips} == {"locks"}


def test_a_few_locks_pass_and_those_of_the_last_hour_count() -> None:
    made = many(MANY[3:])
    assert len(made.plan().due) == 3
    after = replace(cycle(made), directory=a_directory(MANY[4:], {"boss": []}, roster=made.roster))
    assert identities(after.plan().held) == ["lock_account @p3:example.com"]
    assert identities(after.later(minutes=61).recording(held=frozenset()).plan().due) != []


def test_people_in_no_space_count_in_the_organisation_alone() -> None:
    made = many(MANY[4:]).with_room("root", joined=[])
    trips = made.plan().trips
    assert [(trip.kind, trip.scope) for trip in trips] == [("locks", "organisation")]


def test_erasures_have_a_guard_of_their_own() -> None:
    made = many(MANY[4:])
    for name in MANY[:4]:
        made = made.with_account(name, locked=True)
    made = made.with_queue(*(a_queued(name, days_left=-1) for name in MANY[:4]))
    plan = made.plan()
    assert {type(action) for action in plan.held} == {EraseAccount}
    assert plan.due == ()
    assert len(made.approve(plan).plan().due) == 4


def test_in_recovery_nobody_is_locked_or_erased_and_who_is_back_is_unlocked() -> None:
    for made in (scene(), due_scene()):
        plan = made.recording(recovery_since=NOW).plan()
        assert plan.due == ()
        assert [trip.scope for trip in plan.trips] == ["recovery"]
    assert len(waiting_scene().recording(recovery_since=NOW).plan().due) == 1


def test_limits_are_configured_by_kind() -> None:
    assert many(MANY[10:], config(guards=NO_LIMITS)).plan().held == ()


# -- a switch of source ------------------------------------------------------------------------------------


def test_a_switch_of_source_is_one_problem_and_touches_nobody_known() -> None:
    renamed = [a_user(name, f"new-{name}") for name in MANY[2:]]
    made = many([*renamed, a_user("other")]).recording(source="ldap")
    plan = made.plan()
    assert [action.target for action in plan.actions] == []
    [message] = messages(made, "source")
    assert "20 users are known" in message
    assert "18 of them" in message
    assert "aim rebind --by-localpart" in message
    errors = [problem.subject for problem in plan.problems if problem.severity == "error"]
    assert errors == ["source"]
    assert remember(made.world, plan).seen == ()


def test_newcomers_of_a_switched_source_are_invited() -> None:
    renamed = [a_user(name, f"new-{name}") for name in MANY]
    made = many([*renamed, a_user("other")]).recording(source="ldap")
    made = replace(made, observed=replace(made.observed, accounts=made.roster.people([*MANY, "other"])))
    assert identities(made.plan().actions) == ["invite root @other:example.com"]


def test_a_source_that_has_the_same_ids_is_no_switch() -> None:
    made = many(MANY[1:]).recording(source="ldap")
    assert identities(made.plan().actions) == ["lock_account @p0:example.com"]
    assert [one.id for one in remember(made.world, made.plan()).seen] == ["id-p0"]


# -- keys, documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys", [Keys(rooms=frozenset({mxid("evan")})), Keys(people=frozenset({mxid("evan")}))]
)
def test_keys_of_an_account_cover_it(keys: Keys) -> None:
    assert identities(scene().plan(keys).actions) == ["lock_account @evan:example.com"]
    assert scene().plan(Keys(rooms=frozenset({"root"}))).actions == ()


def test_an_action_on_an_account_is_in_no_room() -> None:
    plan = many(MANY[10:]).plan()
    document = to_document(plan)
    actions: Any = document["actions"]
    assert actions[0] == {
        "type": "lock_account",
        "target": mxid("p0"),
        "room": None,
        "room_id": None,
        "reason": "no longer in the directory",
        "held": True,
        "after": [],
        "details": {"user_id": "id-p0", "erased_after_seconds": 30 * 86400},
    }
    assert set(read_saved(to_text(document)).held) == plan.holding


def test_whoever_may_be_locked_has_to_be_asked_about() -> None:
    made = scene([a_user("anna", emails=("a@example.com",))]).with_queue(a_queued("old"))
    wanted = asked_about(made.directory, made.recorded)
    assert wanted == {"anna": ("a@example.com",), "bob": (), "evan": (), "old": ()}


def test_refused_accounts_are_one_problem() -> None:
    made = scene().with_accounts(*STAFF, refused="the bot is no admin")
    assert messages(made, "accounts") == ["the bot is no admin"]


def test_a_whole_story() -> None:
    people = ["anna", "bob", "evan"]
    directory = a_directory(people)
    made = provisioned(config(), directory).with_accounts(*people)
    made = cycle(made)
    gone_ = cycle(with_users(made, "anna", "bob").later(minutes=5))
    queued: Queued = gone_.recorded.queue["id-evan"]
    assert "evan" in gone_.members("root")
    back = cycle(with_users(gone_, *people).later(minutes=10))
    assert back.recorded.queue == {}
    assert back.members("root") == people
    again = cycle(with_users(back, "anna", "bob").later(minutes=15))
    assert again.recorded.queue["id-evan"].due_at > queued.due_at
    steady = again.later(days=31)
    erased = cycle(steady.recording(clock=steady.now))
    assert "id-evan" not in erased.recorded.queue
    assert not any(isinstance(action, Kick) for action in again.plan().actions)
    assert BOT not in on_accounts(erased)
