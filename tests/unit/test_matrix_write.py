"""What the writer sends, as plain data: the body of createRoom, and merged power levels."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mautrix.api import PathBuilder

from aim.errors import HomeserverRefused
from aim.matrix.parse import Home
from aim.matrix.transport import Transport
from aim.matrix.write import MAX_CONTENT, Writer, creation, merged_power_levels
from aim.ports import NewRoom
from aim.world.rooms import MARKER_TYPE

HOME = Home("example.com", "@aim:example.com", "aim")


def new_room(**changes: Any) -> NewRoom:
    given: dict[str, Any] = {
        "key": "engineering",
        "is_space": True,
        "name": "Engineering",
        "room_version": None,
        "state": [],
        "power_levels": {"users_default": 0, "users": {"@ann:example.com": 50}},
        "invite": ["@ann:example.com"],
    }
    return NewRoom(**{**given, **changes})


def initial_state(body: dict[str, Any]) -> dict[str, Any]:
    return {event["type"]: event["content"] for event in body["initial_state"]}


def test_one_request_carries_everything() -> None:
    topic = {"type": "m.room.topic", "state_key": "", "content": {"topic": "x"}}
    body: dict[str, Any] = creation(new_room(state=[topic]), "12", HOME)
    assert body.pop("initial_state")[1] == topic
    assert body == {
        "visibility": "private",
        "preset": "private_chat",
        "name": "Engineering",
        "room_version": "12",
        "creation_content": {
            "type": "m.space",
            MARKER_TYPE: {"version": 1, "instance": "aim", "key": "engineering"},
        },
        "invite": ["@ann:example.com"],
    }


@pytest.mark.parametrize(
    ("version", "bot_is_listed"), [("1", True), ("10", True), ("11", True), ("12", False), ("", True)]
)
def test_the_bot_has_100_where_creators_are_not_above_all(version: str, bot_is_listed: bool) -> None:
    levels = initial_state(creation(new_room(), version, HOME))["m.room.power_levels"]
    assert levels == {
        "users_default": 0,
        "users": {"@ann:example.com": 50, **({HOME.bot: 100} if bot_is_listed else {})},
    }


def test_the_bot_is_left_out_from_version_12_on_even_if_given() -> None:
    room = new_room(power_levels={"users": {HOME.bot: 100}})
    assert initial_state(creation(room, "12", HOME))["m.room.power_levels"] == {"users": {}}


def test_what_nobody_knows_is_not_sent() -> None:
    body = creation(new_room(name="", is_space=False), "", HOME)
    assert not {"name", "room_version"} & set(body)
    assert "type" not in body["creation_content"]  # type: ignore[operator]  # an object of JSON


def test_guests_stay_out_unless_asked_for() -> None:
    assert initial_state(creation(new_room(), "12", HOME))["m.room.guest_access"] == {
        "guest_access": "forbidden"
    }
    asked = {"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}
    body = creation(new_room(state=[asked]), "12", HOME)
    assert initial_state(body)["m.room.guest_access"] == {"guest_access": "can_join"}


@pytest.mark.parametrize(
    ("join_rule", "preset"), [("public", "public_chat"), ("restricted", "private_chat"), (7, "private_chat")]
)
def test_a_public_room_does_not_get_the_preset_of_private_ones(join_rule: object, preset: str) -> None:
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": join_rule}}
    body = creation(new_room(state=[rule]), "12", HOME)
    assert (body["preset"], body["visibility"]) == (preset, "private")


def test_too_large_is_refused_before_a_room_is_half_made() -> None:
    users = {f"@user{number}:example.com": 50 for number in range(2500)}
    with pytest.raises(HomeserverRefused, match=str(MAX_CONTENT)) as caught:
        creation(new_room(power_levels={"users": users}), "12", HOME)
    assert (caught.value.status, caught.value.errcode) == (413, "M_TOO_LARGE")
    assert "fewer people" in caught.value.remedy
    topic = {"type": "m.room.topic", "state_key": "", "content": {"topic": "ü" * (MAX_CONTENT // 2)}}
    with pytest.raises(HomeserverRefused, match=r"m\.room\.topic"):
        creation(new_room(state=[topic]), "12", HOME)


def test_only_our_keys_change() -> None:
    current = {
        "users": {"@ann:x": 50, "@ben:x": 50, "@fay:y": 7, "@aim:x": 100},
        "users_default": 0,
        "ban": 60,
        "notifications": {"room": 20},
    }
    assert merged_power_levels(current, None, {"@ann:x": 0, "@cem:x": 50}) == {
        **current,
        "users": {"@ben:x": 50, "@fay:y": 7, "@aim:x": 100, "@cem:x": 50},
    }
    assert merged_power_levels(current, {"ban": 50, "kick": 50, "users": {}}, {}) == {
        **current,
        "ban": 50,
        "kick": 50,
    }


def test_the_default_that_counts_is_the_new_one() -> None:
    current = {"users": {"@ann:x": 50}, "users_default": 0}
    assert merged_power_levels(current, {"users_default": 50}, {"@ann:x": 50}) == {
        "users": {},
        "users_default": 50,
    }


@pytest.mark.parametrize("users", [None, {}, {"@ann:x": "50"}])
def test_what_is_so_already_makes_no_difference(users: object) -> None:
    current = {"ban": 50} if users is None else {"ban": 50, "users": users}
    levels = {"@ann:x": 50} if users else {"@ann:x": 0}
    assert merged_power_levels(current, {"ban": 50}, levels) == current


class Levelless:
    """A room without power levels, or what answers in its place."""

    def __init__(self, errcode: str | None) -> None:
        self.errcode = errcode
        self.written: list[object] = []

    async def get(self, path: PathBuilder, **_: object) -> object:
        if "power_levels" in str(path):
            raise HomeserverRefused("none", status=404, errcode=self.errcode)
        return {"room_version": "11"}

    async def put(self, path: PathBuilder, body: object, **_: object) -> object:
        self.written.append(body)
        return {}


async def test_missing_power_levels_are_written_and_anothers_404_overwrites_nothing() -> None:
    room = Levelless("M_NOT_FOUND")
    await Writer(cast("Transport", room), HOME).change_power_levels("!a", {"ban": 50}, {"@ann:x": 50})
    assert room.written == [{"ban": 50, "users": {HOME.bot: 100, "@ann:x": 50}}]
    for errcode in (None, "M_UNRECOGNIZED"):
        room = Levelless(errcode)
        with pytest.raises(HomeserverRefused):
            await Writer(cast("Transport", room), HOME).change_power_levels("!a", {"ban": 50}, {})
        assert room.written == []


names = st.sampled_from(["@ann:x", "@ben:x", "@cem:x", "@fay:y"])


@given(
    users=st.dictionaries(names, st.integers(-5, 5)),
    default=st.none() | st.integers(-5, 5),
    levels=st.dictionaries(names, st.integers(-5, 5)),
)
def test_merging_gives_the_levels_and_is_idempotent(
    users: dict[str, int], default: int | None, levels: dict[str, int]
) -> None:
    current: dict[str, object] = {"users": users, "ban": 3}
    if default is not None:
        current["users_default"] = default
    before = repr(current)
    content = merged_power_levels(current, None, levels)
    got = content["users"]
    assert isinstance(got, dict)
    for name, wanted in levels.items():
        assert got.get(name, default or 0) == wanted
        assert got.get(name) != (default or 0)
    assert {name: level for name, level in got.items() if name not in levels} == {
        name: level for name, level in users.items() if name not in levels
    }
    assert merged_power_levels(content, None, levels) == content
    assert repr(current) == before
