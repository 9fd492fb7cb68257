"""Metrics of the daemon, for Prometheus, in the words of the glossary. Counts and times only, never names.

`listening` shows them at `/metrics`; without `listen` everything is counted all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge

from aim.ports import Outcome


class Metrics:
    """What the daemon counts. One registry each, so that two of them never meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reads = Counter(
            "aim_source_reads",
            "Complete reads of the source that were begun, by outcome: complete or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self._looks = Counter(
            "aim_source_looks",
            "Cheap looks at whether the source has changed, by outcome: answered or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self._last_read = Gauge(
            "aim_source_last_complete_read_timestamp_seconds",
            "When the source was last read completely. It is read after a change, and otherwise an hour after"
            " the last cycle or sooner. The one number to alert on is its age.",
            registry=self.registry,
        )
        self._cycles = Counter(
            "aim_cycles", "Cycles by outcome: done or failed.", ["outcome"], registry=self.registry
        )
        self._actions = Counter(
            "aim_actions", "Actions by type and outcome.", ["type", "outcome"], registry=self.registry
        )
        self._held = Gauge("aim_held_actions", "Actions that a guard holds.", registry=self.registry)
        self._fights = Gauge(
            "aim_fights",
            "Corrections made again and again of late because somebody changes the same thing back.",
            registry=self.registry,
        )
        self._differences = Counter(
            "aim_mirror_differences",
            "Pieces of state that were not as the homeserver's events had told.",
            registry=self.registry,
        )
        self._current = Gauge(
            "aim_mirror_current",
            "1 while events of the homeserver arrive; 0 while it is read anew for each cycle.",
            registry=self.registry,
        )
        self._refused = Counter(
            "aim_scim_refused",
            "SCIM requests that were refused, by reason: missing, wrong or forbidden.",
            ["reason"],
            registry=self.registry,
        )
        self._ignored = Counter(
            "aim_federation_ignored_invites",
            "Invites of the bot by users of other servers that were ignored, by reason: stranger, not_theirs"
            " or too_many.",
            ["reason"],
            registry=self.registry,
        )
        self._pending = Gauge(
            "aim_pending_users", "Entitled users who have no account yet.", registry=self.registry
        )

    def read(self, at: datetime) -> None:
        """The source was read completely."""
        self._reads.labels("complete").inc()
        self._last_read.set(at.timestamp())

    def read_failed(self) -> None:
        """A read was begun and gave no complete directory; the last good one stays in force."""
        self._reads.labels("failed").inc()

    def scim_refused(self, reason: str) -> None:
        """A SCIM request came without a token, with a wrong one, or asked for what that may not."""
        self._refused.labels(reason).inc()

    def invite_ignored(self, reason: str) -> None:
        """Somebody of another server asked the bot into a room, and we do not come."""
        self._ignored.labels(reason).inc()

    def look(self, *, failed: bool) -> None:
        """The source was asked whether it has changed."""
        self._looks.labels("failed" if failed else "answered").inc()

    def cycle(self, *, failed: bool, held: int, pending: int) -> None:
        """A cycle came to its end."""
        self._cycles.labels("failed" if failed else "done").inc()
        self._held.set(held)
        self._pending.set(pending)

    def room_cycle(self, *, failed: bool) -> None:
        """A cycle over the rooms that events touched came to its end."""
        self._cycles.labels("failed" if failed else "done").inc()

    def differences(self, number: int) -> None:
        """A room was read again, and in so many places it was not as its events had told."""
        self._differences.inc(number)

    def watch_mirror(self, current: Callable[[], bool]) -> None:
        """Whether the mirror is current is asked whenever somebody looks."""
        self._current.set_function(lambda: float(current()))

    def fights(self, number: int) -> None:
        """So many corrections are made again and again."""
        self._fights.set(number)

    def cycle_failed(self) -> None:
        """A cycle ended with an error before it could do all it had to."""
        self._cycles.labels("failed").inc()

    def outcome(self, outcome: Outcome) -> None:
        """One action more."""
        self._actions.labels(str(outcome.action.type), str(outcome.status)).inc()
