"""Fights: the same correction again and again becomes slower, and nobody else's does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from aim.planner.actions import AnyAction, CreateRoom, Kick, SetDisplayName, SetPowerLevel, SetRoomState
from aim.planner.fights import MOST, SLOW, WINDOW, correction, postponed, remembered
from tests.unit.worlds import NOW

SECOND = timedelta(seconds=1)
EVE = Kick(room="all", space="all", room_id="!r", person="@eve:x", reason="not in all")
FAY = Kick(room="all", space="all", room_id="!r", person="@fay:x", reason="not in all")
NAME = SetRoomState(
    room="all", space="all", event_type="m.room.name", content={"name": "All"}, reason="renamed"
)


def level(level: int) -> SetPowerLevel:
    return SetPowerLevel(
        room="all", space="all", room_id="!r", person="@eve:x", level=level, was=100, reason="no level"
    )


def history(action: AnyAction, times: int) -> dict[str, tuple[object, ...]]:
    made: dict[str, tuple[object, ...]] = {}
    for second in range(times):
        made = remembered(made, [action], NOW + second * SECOND)  # type: ignore[arg-type,assignment]
    return made


def waits(actions: list[AnyAction], made: object, after: timedelta) -> dict[str, timedelta]:
    found = postponed(actions, made, NOW + after)  # type: ignore[arg-type]
    return {identity: until - NOW for identity, until in found.items()}


def test_up_to_the_limit_corrections_are_made_at_once() -> None:
    assert waits([EVE], history(EVE, MOST), 10 * SECOND) == {}


def test_beyond_it_one_a_minute_and_never_none() -> None:
    made = history(EVE, MOST + 1)
    assert waits([EVE], made, 10 * SECOND) == {EVE.identity: MOST * SECOND + SLOW}
    assert waits([EVE], made, MOST * SECOND + SLOW) == {}


def test_one_fight_slows_down_nobody_else_and_nothing_else() -> None:
    assert waits([FAY, level(0), NAME], history(EVE, 20), 30 * SECOND) == {}


def test_levels_are_one_correction_whatever_the_level() -> None:
    made = history(level(0), MOST + 1)
    assert list(waits([level(50)], made, 10 * SECOND)) == [level(50).identity]
    assert correction(level(0)) == correction(level(50))


def test_names_wait_until_the_window_is_calmer() -> None:
    made = history(NAME, MOST + 1)
    assert waits([NAME], made, timedelta(minutes=5)) == {NAME.identity: WINDOW}
    assert waits([NAME], made, WINDOW) == {}


def test_a_persons_name_waits_too() -> None:
    name = SetDisplayName(
        room="@eve:x", space="", person="@eve:x", display_name="Eve", was="Evil", reason="differs"
    )
    made = history(name, MOST + 1)
    assert list(made) == [name.identity]
    assert waits([name], made, timedelta(minutes=5)) == {name.identity: WINDOW}


def test_rooms_are_made_whatever_happened() -> None:
    creation = CreateRoom(room="all/talk", space="all", name="Talk", parent="all", reason="default room")
    assert waits([creation], history(creation, 20), 30 * SECOND) == {}


@pytest.mark.parametrize("after", [WINDOW, WINDOW + SECOND])
def test_what_is_old_is_forgotten(after: timedelta) -> None:
    made = history(EVE, 1)
    assert remembered(made, [], NOW + after) == {}  # type: ignore[arg-type]
