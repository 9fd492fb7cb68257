"""The deprovisioning queue as a person changes and sees it: each rule, each refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aim.desired import queueing
from aim.desired.queueing import Decision, NotQueuedError, QueueChange, locked_anew, merged, not_queued
from aim.desired.waiting import NOT_CARRIED_OUT, Waiting, to_json, to_lines, waiting
from aim.errors import AimError
from aim.planner.actions import EraseAccount, LockAccount
from aim.world.recorded import Approval, Queued, Recorded, Seen

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
EVA = Decision("example.com", "eva", NOW)


def entry(name: str = "evan", **more: object) -> Queued:
    made = Queued(
        user_id=f"id-{name}",
        localpart=name,
        queued_at=NOW - 10 * DAY,
        due_at=NOW + 20 * DAY,
        reason="no longer in the directory",
    )
    return replace(made, **more)  # type: ignore[arg-type]  # each test names fields of its own


EVAN, OVERDUE = entry(), entry(due_at=NOW - DAY)
HELD, RESTORED = entry(held_by="root"), entry(restored_by="root")
ASKED = entry(erase_by="root")
IDENTITY = "erase_account @evan:example.com"
Change = Callable[[dict[str, Queued]], QueueChange]


def of(*entries: Queued) -> dict[str, Queued]:
    return {one.user_id: one for one in entries}


def restore(queue: dict[str, Queued], name: str = "evan") -> QueueChange:
    return queueing.restore(queue, name, EVA)


def erase(queue: dict[str, Queued]) -> QueueChange:
    return queueing.erase(queue, "evan", EVA, sure=True)


def unsure(queue: dict[str, Queued]) -> QueueChange:
    return queueing.erase(queue, "evan", EVA, sure=False)


def hold(queue: dict[str, Queued]) -> QueueChange:
    return queueing.hold(queue, "evan", EVA)


def release(queue: dict[str, Queued]) -> QueueChange:
    return queueing.release(queue, "evan", EVA, 30 * DAY)


def reschedule(
    queue: dict[str, Queued], name: str | None = "evan", days: int = 12, *, sure: bool = False
) -> QueueChange:
    return queueing.reschedule(queue, name, EVA, days * DAY, sure=sure)


def soon(queue: dict[str, Queued]) -> QueueChange:
    return reschedule(queue, days=11)


@pytest.mark.parametrize(
    ("change", "before", "after", "says"),
    [
        (restore, EVAN, entry(restored_by="eva"), "unlocked in the next cycle"),
        (restore, HELD, entry(restored_by="eva"), "neither locked nor erased"),
        (restore, ASKED, entry(restored_by="eva"), "neither locked nor erased"),
        (restore, OVERDUE, replace(OVERDUE, restored_by="eva"), "over on 2026-05-03 12:30 UTC, so look"),
        (restore, entry(ours=False), entry(ours=False, restored_by="eva"), "it was locked before aim came"),
        (erase, EVAN, entry(erase_by="eva"), "erased in the next cycle"),
        (erase, RESTORED, entry(erase_by="eva"), "erased in the next cycle"),
        (hold, EVAN, entry(held_by="eva"), "aim queue release @evan:example.com"),
        (hold, ASKED, entry(held_by="eva"), "stays locked"),
        (hold, entry(found_due_at=NOW), entry(held_by="eva"), "stays locked"),
        (release, HELD, EVAN, "erased after 2026-05-24 12:30 UTC"),
        (release, replace(OVERDUE, held_by="root"), OVERDUE, "erased in the next cycle"),
        # The whole period from now on, whatever was left of it.
        (
            release,
            RESTORED,
            entry(due_at=NOW + 30 * DAY),
            "locked in the next cycle, and erased after 2026-06-03",
        ),
        (
            release,
            replace(OVERDUE, ours=False, restored_by="root", found_due_at=NOW),
            replace(OVERDUE, ours=False, due_at=NOW + 30 * DAY),
            "still locked by whoever locked it before aim came",
        ),
        (reschedule, EVAN, entry(due_at=NOW + 2 * DAY), "on 2026-05-24 12:30 UTC until now, on 2026-05-06"),
        (reschedule, OVERDUE, entry(due_at=NOW + 2 * DAY), "on 2026-05-06 12:30 UTC from now on"),
        (
            reschedule,
            entry(found_due_at=NOW, held_by="root"),
            entry(due_at=NOW + 2 * DAY, held_by="root"),
            "2026-05-06",
        ),
    ],
)
def test_what_becomes_of_an_entry(change: Change, before: Queued, after: Queued, says: str) -> None:
    others = entry("ann"), entry("bob", held_by="root")
    made = change(of(before, *others))
    assert made.entries == (after,)
    [message] = made.messages
    assert message.startswith("@evan:example.com")
    assert says in message


@pytest.mark.parametrize(
    ("change", "before", "cause", "remedy"),
    [
        (restore, RESTORED, "restored by root already", "aim queue release @evan:example.com"),
        (erase, HELD, "held by root", "aim queue release @evan:example.com"),
        (unsure, HELD, "held by root", "aim queue release"),
        (erase, ASKED, "root has asked for the erasure", "aim apply"),
        (unsure, EVAN, "can't be undone", "--yes"),
        (unsure, ASKED, "can't be undone", "--yes"),
        (hold, HELD, "held by root already", "aim queue list"),
        (hold, RESTORED, "no erasure to hold back", "aim queue erase @evan:example.com --yes"),
        (hold, RESTORED, "no erasure to hold back", "aim queue release @evan:example.com"),
        (release, EVAN, "held by nobody, nor restored", "aim queue list"),
        (reschedule, RESTORED, "restored by root", "aim queue release @evan:example.com"),
        (soon, EVAN, "1 of those who wait would be due within a day", "--yes"),
        (soon, HELD, "can't be undone: @evan:example.com", "aim queue hold"),
    ],
)
def test_what_is_refused(change: Change, before: Queued, cause: str, remedy: str) -> None:
    with pytest.raises(AimError) as caught:
        change(of(before))
    assert cause in caught.value.message
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.message + caught.value.remedy


@pytest.mark.parametrize("change", [restore, erase, unsure, hold, release, reschedule])
def test_somebody_who_is_not_on_the_queue(change: Change) -> None:
    with pytest.raises(AimError, match="evan is not on the queue") as caught:
        change(of(entry("evam"), entry("zoe")))
    assert caught.value.remedy == "did you mean @evam:example.com?"
    with pytest.raises(AimError) as caught:
        change({})
    assert "aim queue list" in caught.value.remedy


def test_a_person_may_be_named_whole_and_on_no_other_server() -> None:
    assert restore(of(EVAN), "@evan:example.com").entries == (entry(restored_by="eva"),)
    with pytest.raises(AimError, match="another homeserver"):
        restore(of(EVAN), "@evan:example.org")


def test_an_erasure_that_is_asked_for_is_approved_as_the_plan_names_it() -> None:
    action = EraseAccount(room="", space="", reason="", person="@ev an%:example.com", user_id="", due_at=NOW)
    assert queueing.erase_identity(action.person) == action.identity
    assert erase(of(EVAN)).approvals == (Approval(IDENTITY, "eva", NOW + DAY),)


@pytest.mark.parametrize("change", [restore, hold])
def test_whoever_keeps_an_account_revokes_its_erasure(change: Change) -> None:
    made = change(of(ASKED))
    assert (made.revoked, made.approvals) == (frozenset({IDENTITY}), ())


def test_all_are_rescheduled_but_those_who_are_restored() -> None:
    soon = entry("soon", queued_at=NOW - 20 * DAY)
    same = entry("same", due_at=NOW + 2 * DAY)
    made = reschedule(of(EVAN, soon, same, entry("kept", restored_by="root")), None, sure=True)
    assert made.entries == (replace(EVAN, due_at=NOW + 2 * DAY), replace(soon, due_at=NOW - 8 * DAY))
    assert made.messages[0] == "@same:example.com: due on 2026-05-06 12:30 UTC, as before"
    assert made.messages[2].endswith("from now on: erased in the next cycle")
    assert reschedule({}, None) == QueueChange(entries=(), messages=())


def test_who_would_be_due_soon_is_named_and_nobody_else() -> None:
    late = [entry(f"late{number}", queued_at=NOW - 20 * DAY) for number in range(5)]
    # Due already, or later than before: no new danger.
    harmless = [replace(OVERDUE, localpart="over", user_id="over"), entry("zoe")]
    with pytest.raises(AimError) as caught:
        reschedule(of(*late, *harmless), None)
    names = ", ".join(f"@late{number}:example.com" for number in range(3))
    assert caught.value.message.startswith("5 of those who wait")
    assert caught.value.message.endswith(f"{names} and 2 more")
    assert len(reschedule(of(*harmless), None).entries) == 2


@pytest.mark.parametrize(
    ("change", "before", "acts"),
    [
        (restore, EVAN, True),
        (erase, EVAN, True),
        (release, RESTORED, True),
        (release, HELD, False),
        (hold, EVAN, False),
        (reschedule, EVAN, False),
    ],
)
def test_whether_the_next_cycle_has_something_to_do(change: Change, before: Queued, acts: bool) -> None:
    assert change(of(before)).acts is acts


EVAN_SEEN = Seen("id-evan", "evan", False, NOW - 90 * DAY, None)


@pytest.mark.parametrize(
    ("recorded", "cause", "remedy"),
    [
        (Recorded(seen={"id-evan": EVAN_SEEN}), "in the directory when a cycle last looked", "disable them"),
        (
            Recorded(
                seen={"id-evan": replace(EVAN_SEEN, gone_since=NOW)},
                held=frozenset({"lock_account @evan:example.com"}),
            ),
            "a guard holds the lock",
            "aim approve",
        ),
        (Recorded(seen={"id-evan": replace(EVAN_SEEN, gone_since=NOW)}), "and was locked waits", "aim queue"),
        (Recorded(), "and was locked waits", "aim queue list"),
    ],
)
def test_why_somebody_is_not_on_the_queue(recorded: Recorded, cause: str, remedy: str) -> None:
    with pytest.raises(NotQueuedError) as caught:
        restore({})
    error = not_queued(caught.value, recorded, "example.com")
    assert "evan" in error.message
    assert cause in error.message
    assert remedy in error.remedy


def test_the_lock_that_a_guard_holds_is_named_as_the_plan_names_it() -> None:
    action = LockAccount(room="", space="", reason="", person="@ev an%:example.com", user_id="", period=DAY)
    with pytest.raises(NotQueuedError) as caught:
        restore({}, "ev an%")
    held = Recorded(held=frozenset({action.identity}))
    assert "a guard holds" in not_queued(caught.value, held, "example.com").message


def test_a_period_beyond_the_calendar_is_never() -> None:
    [never] = reschedule(of(EVAN), days=999_999_999).entries
    assert never.due_at.year == 9999


@pytest.mark.parametrize(
    ("before", "new", "after"),
    [
        (None, EVAN, EVAN),
        (HELD, replace(EVAN, found_due_at=NOW), replace(HELD, found_due_at=NOW)),
        (ASKED, EVAN, ASKED),
        (RESTORED, EVAN, RESTORED),
        # What was taken back stays so, whatever the writer knew.
        (EVAN, replace(HELD, found_due_at=NOW), entry(found_due_at=NOW)),
        (EVAN, RESTORED, EVAN),
        (EVAN, ASKED, EVAN),
        (EVAN, entry(queued_at=NOW, held_by="root"), entry(queued_at=NOW)),
        (entry(due_at=NOW), EVAN, entry(due_at=NOW)),
        (HELD, entry(queued_at=NOW), entry(queued_at=NOW, held_by="root")),
        (ASKED, entry(queued_at=NOW), entry(queued_at=NOW)),
        (entry(due_at=NOW), entry(queued_at=NOW, ours=False), entry(queued_at=NOW, ours=False)),
    ],
)
def test_what_the_writer_puts_over_what_was_decided(
    before: Queued | None, new: Queued, after: Queued
) -> None:
    assert merged(before, new) == after


ANEW = entry(queued_at=NOW, due_at=NOW + 30 * DAY)
ALREADY = replace(ANEW, ours=False)
"""It was locked when we came."""


@pytest.mark.parametrize(
    ("before", "new", "queues", "after"),
    [
        (None, ANEW, True, ANEW),
        (None, ANEW, False, ANEW),
        (EVAN, ANEW, True, ANEW),
        (EVAN, ANEW, False, EVAN),
        (HELD, ANEW, True, replace(ANEW, held_by="root")),
        (ASKED, ANEW, True, ASKED),
        (ASKED, ANEW, False, ASKED),
        (replace(ASKED, ours=False), ANEW, True, ASKED),
        # Locked by us, and we did not live to remember it.
        (EVAN, ALREADY, True, ANEW),
        (EVAN, ALREADY, False, EVAN),
        (entry(ours=False), ALREADY, True, ALREADY),
        # Another account of theirs: what was said of that one is not said of this one.
        (replace(ASKED, localpart="evan.old"), ALREADY, True, ALREADY),
        (replace(HELD, localpart="evan.old"), ALREADY, False, replace(ALREADY, held_by="root")),
    ],
)
def test_what_stands_there_once_somebody_is_locked(
    before: Queued | None, new: Queued, queues: bool, after: Queued
) -> None:
    assert locked_anew(before, new, queues=queues) == after


# What is shown


def seen(*entries: Queued, within: timedelta | None = None, enabled: bool = True) -> Waiting:
    return waiting(of(*entries), NOW, server_name="example.com", is_carried_out=enabled, within=within)


def test_the_list_is_by_due_time_and_says_how_it_stands() -> None:
    lines = to_lines(
        seen(
            entry("held", held_by="root"),
            entry("back", restored_by="root"),
            entry("now", erase_by="eva", due_at=NOW + 40 * DAY),
            entry("late", due_at=NOW - DAY),
            entry("ann", due_at=NOW + DAY),
        )
    )
    assert [line.split()[0] for line in lines] == [
        "who",
        *(f"@{name}:example.com" for name in ("late", "ann", "back", "held", "now")),
    ]
    for line, state in zip(
        lines[1:],
        ("  due ", "waiting", "restored by root", "held by root", "erase asked by eva"),
        strict=True,
    ):
        assert state in line
        assert line.endswith("no longer in the directory")
    assert "2026-04-24 12:30 UTC  2026-05-05 12:30 UTC" in lines[2]
    for line in lines[3:5]:
        assert re.search("2026-04-24 12:30 UTC  - +(restored|held) by root", line)


def test_what_falls_due_is_shown_without_who_is_kept() -> None:
    entries = (
        entry("held", held_by="root", due_at=NOW),
        entry("back", restored_by="root", due_at=NOW),
        entry("asked", erase_by="root"),
        entry("seven", due_at=NOW + 7 * DAY),
        entry("eight", due_at=NOW + 8 * DAY),
    )
    names = [one.localpart for one in seen(*entries, within=7 * DAY).entries]
    assert names == ["seven", "asked"]


def test_nobody_is_said() -> None:
    assert to_lines(seen()) == ["nobody waits"]
    assert to_lines(seen(EVAN, within=timedelta.max))[1].startswith("@evan:")
    assert to_lines(seen(EVAN, within=DAY)) == ["nobody falls due within that time"]


def test_it_is_said_when_nobody_is_erased_at_all() -> None:
    assert to_lines(seen(EVAN, enabled=False))[-1] == NOT_CARRIED_OUT
    assert NOT_CARRIED_OUT not in to_lines(seen(EVAN))


def test_a_reason_can_not_steer_the_terminal() -> None:
    [_, line] = to_lines(seen(entry(reason="gone\x1b[2J\nnow")))
    assert line.endswith("gone\ufffd[2J\ufffdnow")


def test_the_list_as_json() -> None:
    found = to_json(seen(entry(held_by="root", ours=False)))
    assert json.loads(json.dumps(found)) == {
        "format_version": 1,
        "at": "2026-05-04T12:30:00Z",
        "enabled": True,
        "queue": [
            {
                "mxid": "@evan:example.com",
                "user_id": "id-evan",
                "since": "2026-04-24T12:30:00Z",
                "due": "2026-05-24T12:30:00Z",
                "reason": "no longer in the directory",
                "state": "held",
                "by": "root",
                "locked_by_us": False,
            }
        ],
    }
