"""What the audit tells of people and rooms: since when, and what was done about them last. Plain frozen data.

Kept in Postgres by `store`; read by `aim explain` alone. No plan depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The right of one person to be in one room, as recorded. Times in UTC."""

    since: datetime
    """When they were first recorded as entitled (or, where nothing was known yet, as present)."""
    lapsed_at: datetime | None = None
    """When they were seen to be entitled no more; None while they are."""
    regained_at: datetime | None = None
    """When they were seen to be entitled again; None if they never ceased to be."""


@dataclass(frozen=True, slots=True)
class Happened:
    """What became of one action of an earlier cycle."""

    type: str
    """planner.actions.ActionType."""
    status: str
    """ports.OutcomeStatus."""
    reason: str
    """Why it was to be done."""
    message: str
    """Empty for done; else the cause."""
    at: datetime
    """UTC."""
    cycle: int
    digest: str
    """Of the plan that it was a part of."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """A correction that was made more often than it should take."""

    type: str
    room: str
    """Our stable key."""
    target: str
    times: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What is recorded of a few people in a few rooms. Empty where nothing is recorded."""

    entitlements: Mapping[tuple[str, str], Entitlement] = field(default_factory=dict)
    """(Room key, localpart) → their right to be there."""
    last: Mapping[tuple[str, str | None], Happened] = field(default_factory=dict)
    """(Room key, MXID) → what was last done about that person there; with None: about the room itself."""
