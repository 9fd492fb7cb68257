"""What we ourselves remember: what we last did, own, and whom we have seen. Plain frozen data.

Kept in Postgres by `store`; read by the planner, never written by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aim.directory.roster import People

_NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""Not `datetime.max`, which a database takes for infinity, and gives back without a time zone."""


def after(at: datetime, period: timedelta) -> datetime:
    """When a period that began then is over, in UTC. One of thousands of years is a way to say never."""
    try:
        return min(at + period, _NEVER)
    except OverflowError:
        return _NEVER


@dataclass(frozen=True, slots=True)
class Seen:
    """A user who was in a complete directory at some time."""

    id: str
    localpart: str
    weak_id: bool
    first_seen: datetime
    gone_since: datetime | None
    """None while in the directory; else when they were first missed. UTC."""


@dataclass(frozen=True, slots=True)
class RecordedRoom:
    """A room or space that we made or took over."""

    key: str
    room_id: str
    properties: Mapping[str, object] | None
    """The configured properties last applied (desired.rooms), or None if that is not known (adopted)."""


@dataclass(frozen=True, slots=True)
class Done:
    """A destructive action that was begun: counts against the guards for an hour, whatever came of it."""

    identity: str
    """Identity of the action (planner.actions.identity_of)."""
    kind: str
    """planner.guards.Kind: kicks, demotions, …"""
    space: str
    """Key of the space it happened in."""
    person: str
    """Localpart."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A person let this one held action go, until `until`, and once: what was carried out has used it up."""

    identity: str
    approved_by: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Somebody who left the directory: locked, and waiting for the erasure of their account."""

    user_id: str
    localpart: str
    queued_at: datetime
    """When we were about to lock the account. Times are in UTC."""
    due_at: datetime
    """Not before that is it erased, whatever the configuration says by then."""
    reason: str
    ours: bool = True
    """True if the account was not locked when we came: only then do we unlock it."""
    held_by: str | None = None
    """Who said that it is not to be erased before they let go (`aim queue hold`)."""
    erase_by: str | None = None
    """Who said that it is to be erased at once (`aim queue erase`)."""
    restored_by: str | None = None
    """Who said that the account is to stay although its user left (`aim queue restore`): neither locked nor
    erased until the user was in the directory again."""
    found_due_at: datetime | None = None
    """When it was found due at a time at which the clock could not be trusted: a second reading has to say
    the same."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Everything remembered, as one snapshot."""

    fresh: bool = True
    """The database has never been written to: no cycle, no room, nobody seen."""
    recovery_since: datetime | None = None
    """A fresh database met markers of ours then: nothing destructive until approved, or nothing is held."""
    source: str | None = None
    """Identity of the source that `seen` belongs to (its type, and where the spec gives one, its id)."""
    rooms: Mapping[str, RecordedRoom] = field(default_factory=dict)
    """By key; rooms since given up included."""
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """By user id."""
    entitled: Mapping[str, People] = field(default_factory=dict)
    """Room key → everyone who was ever entitled to be in it: kicking them counts against the guards."""
    lapsed: Mapping[str, People] = field(default_factory=dict)
    """Room key → those of `entitled` who were not entitled any more when we last looked."""
    regained: Mapping[str, Mapping[int, datetime]] = field(default_factory=dict)
    """Room key → person → when they became entitled again (or were at last, having left before): a wish to be
    out that is older than that does not count any more. UTC."""
    caused: Mapping[str, People] = field(default_factory=dict)
    """Room id → people whose last leave was our doing, acting as them: not their own wish."""
    done: tuple[Done, ...] = ()
    """Destructive actions of the last hour."""
    held: frozenset[str] = frozenset()
    """Identities that a guard holds: time does not release them."""
    approvals: Mapping[str, Approval] = field(default_factory=dict)
    """By identity of the action; unexpired ones."""
    queue: Mapping[str, Queued] = field(default_factory=dict)
    """By user id: the deprovisioning queue."""
    clock: datetime | None = None
    """The time that was last recorded: tells a clock that jumped."""
    database_ahead: timedelta = timedelta()
    """The database's clock minus ours, when this was loaded."""
