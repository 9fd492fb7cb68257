"""What `aim check` says of the deprovisioning queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aim.check.running import queue_findings
from aim.config.root import Config
from aim.matrix.check import Verdict
from aim.world.recorded import Queued, Recorded
from tests.unit.worlds import a_config, a_space

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
EVAN = Queued(
    user_id="1", localpart="evan", queued_at=NOW - DAY, due_at=NOW + 2 * DAY, reason="no longer there"
)
HELD = replace(EVAN, user_id="2", localpart="held", due_at=NOW + DAY, held_by="root")
RESTORED = replace(EVAN, user_id="3", localpart="kept", due_at=NOW - DAY, restored_by="root")


def configured(enabled: bool | None) -> Config:
    """None: accounts are left alone."""
    more = {} if enabled is None else {"user_provisioner": {"deprovisioning": {"enabled": enabled}}}
    return a_config(a_space("all", ""), **more)


def told(enabled: bool | None, *queue: Queued) -> list[tuple[Verdict, str]]:
    recorded = Recorded(queue={entry.user_id: entry for entry in queue})
    found = list(queue_findings(recorded, configured(enabled), NOW))
    assert {finding.name for finding in found} <= {"queue"}
    assert all(finding.remedy for finding in found if finding.verdict is Verdict.WARN)
    return [(finding.verdict, finding.message) for finding in found]


@pytest.mark.parametrize(
    ("queue", "text"),
    [
        ([], "nobody waits"),
        ([EVAN], "1 person waits; the first is due on 2026-05-06 12:30 UTC"),
        ([EVAN, HELD, RESTORED], "2 people wait, 1 restored; the first is due on 2026-05-06 12:30 UTC"),
        ([replace(EVAN, due_at=NOW)], "1 person waits; the first was due on 2026-05-04 12:30 UTC"),
        ([HELD], "1 person waits"),
        ([RESTORED], "nobody waits, 1 restored"),
    ],
)
def test_who_waits_and_what_falls_due_next(queue: list[Queued], text: str) -> None:
    assert told(True, *queue) == [(Verdict.OK, text)]


def test_people_who_wait_for_nothing_are_warned_of() -> None:
    off = "1 person waits, locked, and deprovisioning is off: nobody is erased"
    assert told(False, EVAN, RESTORED) == [(Verdict.WARN, off)]
    absent = "2 people wait, locked, and without `userProvisioner` nobody is unlocked or erased"
    assert told(None, EVAN, HELD) == [(Verdict.WARN, absent)]


@pytest.mark.parametrize("enabled", [False, None])
def test_an_empty_queue_is_nothing_to_tell_where_it_is_not_used(enabled: bool | None) -> None:
    assert told(enabled, RESTORED) == []
