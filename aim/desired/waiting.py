"""The deprovisioning queue as `aim queue list` shows it, as text and as JSON. Pure.

In: the queue, the time, and how far to look ahead. Out: lines or JSON values, by the time that falls due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aim.desired.queueing import in_order
from aim.world.recorded import Queued

FORMAT_VERSION = 1
NOT_CARRIED_OUT = (
    "userProvisioner.deprovisioning.enabled is not set: nobody is locked or erased as long as it is not"
)
_HEADINGS = ("who", "since", "due", "state", "why")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The queue at one moment."""

    server_name: str
    entries: Sequence[Queued]
    """In the order in which they fall due."""
    now: datetime
    is_carried_out: bool
    """Whether the configuration lets anybody be erased."""
    within: timedelta | None = None
    """None: everybody; else only who can be erased within that time."""


def waiting(
    queue: Mapping[str, Queued],
    now: datetime,
    *,
    server_name: str,
    is_carried_out: bool,
    within: timedelta | None,
) -> Waiting:
    """The whole queue, or what falls due `within` that time: not those who are held or restored."""
    entries = [
        entry for entry in in_order(queue.values()) if within is None or _falls_due(entry, now, within)
    ]
    return Waiting(server_name, entries, now, is_carried_out, within)


def _falls_due(entry: Queued, now: datetime, within: timedelta) -> bool:
    if entry.held_by is not None or entry.restored_by is not None:
        return False
    return entry.erase_by is not None or entry.due_at - now <= within


def to_json(found: Waiting) -> dict[str, object]:
    """The queue as JSON values; times are ISO 8601 in UTC."""
    return {
        "format_version": FORMAT_VERSION,
        "at": _iso(found.now),
        "enabled": found.is_carried_out,
        "queue": [
            {
                "mxid": f"@{entry.localpart}:{found.server_name}",
                "user_id": entry.user_id,
                "since": _iso(entry.queued_at),
                "due": _iso(entry.due_at),
                "reason": entry.reason,
                "state": state_of(entry)[0],
                "by": state_of(entry)[1],
                "locked_by_us": entry.ours,
            }
            for entry in found.entries
        ],
    }


def state_of(entry: Queued) -> tuple[str, str | None]:
    """`waiting`, `held`, `restored` or `erase`, and who said so."""
    if entry.restored_by is not None:
        return "restored", entry.restored_by
    if entry.held_by is not None:
        return "held", entry.held_by
    if entry.erase_by is not None:
        return "erase", entry.erase_by
    return "waiting", None


def to_lines(found: Waiting) -> list[str]:
    """What a person reads: a table, or one line if there is nobody."""
    lines = _table(found) if found.entries else [_nobody(found)]
    if found.entries and not found.is_carried_out:
        lines.append(NOT_CARRIED_OUT)
    return [_printable(line) for line in lines]


def _nobody(found: Waiting) -> str:
    if found.within is None:
        return "nobody waits"
    return "nobody falls due within that time"


def _table(found: Waiting) -> list[str]:
    rows = [_HEADINGS, *(_row(found, entry) for entry in found.entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _row(found: Waiting, entry: Queued) -> tuple[str, ...]:
    state, by = state_of(entry)
    words = {
        "waiting": "waiting" if entry.due_at > found.now else "due",
        "held": f"held by {by}",
        "restored": f"restored by {by}",
        "erase": f"erase asked by {by}",
    }
    who = f"@{entry.localpart}:{found.server_name}"
    # Nothing falls due as long as that was not taken back.
    due = "-" if state in {"held", "restored"} else _moment(entry.due_at)
    return who, _moment(entry.queued_at), due, words[state], entry.reason


def _printable(line: str) -> str:
    """Names and reasons come from anybody: nothing in them may steer the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line).rstrip()


def _iso(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
