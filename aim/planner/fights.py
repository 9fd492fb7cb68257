"""Fights: the same correction, made again and again because somebody changes the same thing back. Pure.

In: what is due, and when which corrections were made of late. Out: which wait, and until when. Kicks and
demotions become slower, and never stop; names and topics, people's
names too, wait until the last ten minutes are calmer. One person's fight slows down nobody else's correction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from aim.planner.actions import (
    AccountAction,
    AnyAction,
    CreateRoom,
    SetDisplayName,
    SetRoomState,
    identity_of,
)
from aim.planner.diff import POWER_LEVELS

WINDOW = timedelta(minutes=10)
MOST = 5
"""So often within WINDOW a correction is made at full speed."""
SLOW = timedelta(minutes=1)
"""The time between two of them from then on."""

History = Mapping[str, Sequence[datetime]]
"""Correction (see `correction`) → when it was made, oldest first, UTC."""


def correction(action: AnyAction) -> str:
    """What is corrected: room, person or key, and kind, whatever level or content it is set to."""
    room = "" if isinstance(action, AccountAction) else action.room
    return identity_of(action.type, room, action.target)


def remembered(history: History, made: Iterable[AnyAction], now: datetime) -> dict[str, tuple[datetime, ...]]:
    """The history with what was just made, without what is older than the window."""
    recent = {key: tuple(at for at in times if now - at < WINDOW) for key, times in history.items()}
    for action in made:
        key = correction(action)
        recent[key] = (*recent.get(key, ()), now)
    return {key: times for key, times in recent.items() if times}


def is_fight(times: Sequence[datetime], now: datetime) -> bool:
    """Whether a correction made at these times is made too often."""
    return sum(now - at < WINDOW for at in times) > MOST


def postponed(actions: Iterable[AnyAction], history: History, now: datetime) -> dict[str, datetime]:
    """Identity → not before, of those actions that wait."""
    waiting: dict[str, datetime] = {}
    for action in actions:
        times = history.get(correction(action), ())
        if isinstance(action, CreateRoom) or not is_fight(times, now):
            continue
        recent = [at for at in times if now - at < WINDOW]
        # A name can wait for calm; a person who must not be there, or what guards the room, can't.
        until = recent[-MOST - 1] + WINDOW if _can_wait(action) else recent[-1] + SLOW
        if until > now:
            waiting[action.identity] = until
    return waiting


def _can_wait(action: AnyAction) -> bool:
    if isinstance(action, SetDisplayName):
        return True
    return isinstance(action, SetRoomState) and action.event_type != POWER_LEVELS
