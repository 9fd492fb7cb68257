"""What the daemon counts, and how it is asked for."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from prometheus_client import generate_latest

from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import SourceUnavailable
from aim.ops.metrics import Metrics
from aim.ops.watched import WatchedSource
from aim.planner.actions import Kick
from aim.ports import Outcome, OutcomeStatus
from tests.unit.fakes import FakeSource
from tests.unit.worlds import a_directory

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_complete_and_failed_reads_are_counted_and_the_last_one_has_its_time() -> None:
    metrics = Metrics()
    good = WatchedSource(FakeSource(lambda roster: a_directory(["ann"], roster=roster)), metrics, lambda: NOW)
    assert len((await good.read(Roster())).users) == 1

    def broken(_: Roster) -> Directory:
        raise SourceUnavailable("no answer")

    bad = WatchedSource(FakeSource(broken), metrics, lambda: NOW)
    with pytest.raises(SourceUnavailable):
        await bad.read(Roster())
    assert value(metrics, "aim_source_reads_total", outcome="complete") == 1
    assert value(metrics, "aim_source_reads_total", outcome="failed") == 1
    assert value(metrics, "aim_source_last_complete_read_timestamp_seconds") == NOW.timestamp()


class Deaf(FakeSource):
    async def fingerprint(self) -> str:
        raise SourceUnavailable("no answer")


async def test_looks_are_no_reads() -> None:
    metrics = Metrics()
    for source in (FakeSource, Deaf, Deaf):
        watched = WatchedSource(source(lambda roster: a_directory([], roster=roster)), metrics, lambda: NOW)
        with suppress(SourceUnavailable):
            await watched.fingerprint()
    assert value(metrics, "aim_source_looks_total", outcome="answered") == 1
    assert value(metrics, "aim_source_looks_total", outcome="failed") == 2
    assert value(metrics, "aim_source_reads_total", outcome="complete") is None
    assert value(metrics, "aim_source_reads_total", outcome="failed") is None
    assert value(metrics, "aim_source_last_complete_read_timestamp_seconds") == 0


def test_cycles_and_actions_are_counted() -> None:
    metrics = Metrics()
    metrics.cycle(failed=False, held=3, pending=2)
    metrics.cycle(failed=True, held=1, pending=0)
    metrics.cycle_failed()
    kick = Kick(room="all", space="all", reason="gone", person="@ann:example.com")
    metrics.outcome(Outcome(kick, OutcomeStatus.DONE))
    assert value(metrics, "aim_cycles_total", outcome="done") == 1
    assert value(metrics, "aim_cycles_total", outcome="failed") == 2
    assert value(metrics, "aim_actions_total", type="kick", outcome="done") == 1
    assert value(metrics, "aim_held_actions") == 1
    assert value(metrics, "aim_pending_users") == 0


def test_they_are_shown_without_a_name_in_them() -> None:
    metrics = Metrics()
    metrics.outcome(
        Outcome(Kick(room="all", space="all", reason="gone", person="@ann:example.com"), OutcomeStatus.FAILED)
    )
    text = generate_latest(metrics.registry).decode()
    assert 'aim_actions_total{outcome="failed",type="kick"} 1.0' in text
    assert "ann" not in text
