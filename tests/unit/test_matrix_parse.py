"""What the state of a room means, and that nothing anybody puts into a room can stop us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.directory.roster import Roster
from aim.matrix import mxid, parse
from aim.matrix.parse import Home
from aim.world.rooms import MARKER_TYPE, Child, Marker, PowerLevels, Room

HOME = Home("localhost:8448", "@aim:localhost:8448", "aim")
MARKER = {"version": 1, "instance": "aim", "key": "engineering"}


def event(kind: object, content: object, key: object = "", sender: object = HOME.bot) -> dict[str, object]:
    return {"type": kind, "state_key": key, "content": content, "sender": sender, "origin_server_ts": 5}


def create(marker: object = MARKER, sender: object = HOME.bot, **content: object) -> dict[str, object]:
    return event("m.room.create", {MARKER_TYPE: marker, "room_version": "12", **content}, sender=sender)


def member(localpart: str, membership: object, server: str = HOME.server_name) -> dict[str, object]:
    return event("m.room.member", {"membership": membership}, f"@{localpart}:{server}")


def read(*events: object, roster: Roster | None = None) -> Room:
    room = parse.room("!r", [create(), *events], HOME, roster or Roster())
    assert room is not None
    return room


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("@ann:example.com", ("ann", "example.com")),
        ("@ann:localhost:8448", ("ann", "localhost:8448")),
        ("@ann:[::1]:8448", ("ann", "[::1]:8448")),
        ("@a/b=c:x", ("a/b=c", "x")),
        ("ann:example.com", None),
        ("@ann", None),
        ("@:example.com", None),
        ("@ann:", None),
        ("", None),
        ("@", None),
    ],
)
def test_user_ids(text: str, parts: tuple[str, str] | None) -> None:
    assert mxid.split(text) == parts
    if parts:
        assert mxid.make(*parts) == text


def test_a_room() -> None:
    roster = Roster()
    room = read(
        create(type="m.space"),
        member("aim", "join"),
        member("ann", "join"),
        member("ben", "invite"),
        member("cem", "knock"),
        member("dan", "ban"),
        member("eva", "leave"),
        member("fay", "join", "example.com"),
        member("gus", "invite", "example.com:8448"),
        member("hal", "leave", "example.com"),
        event("m.room.name", {"name": "Engineering"}),
        event("m.room.topic", {"topic": "x"}, key="not empty"),
        event("org.example.other", {"a": 1}),
        roster=roster,
    )
    assert room == Room(
        room_id="!r",
        marker=Marker(1, "aim", "engineering"),
        version="12",
        created_ts=5,
        creators=frozenset({HOME.bot}),
        is_space=False,
        joined=roster.people(["ann"]),
        invited=roster.people(["ben"]),
        knocking=roster.people(["cem"]),
        banned=roster.people(["dan"]),
        foreign=frozenset({"@fay:example.com", "@gus:example.com:8448"}),
        foreign_invited=frozenset({"@gus:example.com:8448"}),
        state={"m.room.name": {"name": "Engineering"}},
    )
    assert roster.find("aim") is None


@pytest.mark.parametrize("kind", ["m.space", None, "org.example.list", 7])
def test_what_is_a_space(kind: object) -> None:
    room = parse.room("!r", [create(type=kind)], HOME, Roster())
    assert room is not None
    assert room.is_space is (kind == "m.space")


@pytest.mark.parametrize(
    "event",
    [
        create(sender="@eve:localhost:8448"),
        create(sender=None),
        create(marker=None),
        create(marker={}),
        create(marker={**MARKER, "instance": "another"}),
        create(marker={**MARKER, "version": "1"}),
        create(marker={**MARKER, "version": True}),
        create(marker={**MARKER, "version": 0}),
        create(marker={**MARKER, "key": 7}),
        event("m.room.create", None),
        event("m.room.create", {MARKER_TYPE: MARKER}, key="x"),
        event(MARKER_TYPE, MARKER, key=HOME.bot),
    ],
)
def test_a_room_that_is_not_ours(event: dict[str, object]) -> None:
    room = parse.room("!r", [event, member("ann", "join")], HOME, Roster())
    assert room is None or room.marker is None


@pytest.mark.parametrize("level", [100, None])
def test_a_room_that_was_taken_over(level: int | None) -> None:
    content = {**MARKER, "key": "!r", "creator": "@eve:localhost:8448", "creator_level": level}
    room = parse.room(
        "!r",
        [
            create(sender="@eve:localhost:8448", marker=None),
            event(MARKER_TYPE, content, key=HOME.bot, sender=HOME.bot),
        ],
        HOME,
        Roster(),
    )
    assert room is not None
    assert room.marker == Marker(1, "aim", "!r", "@eve:localhost:8448", level)
    assert room.marker.is_taken_over
    assert room.creators == {"@eve:localhost:8448"}


@pytest.mark.parametrize(
    ("key", "sender", "content"),
    [
        (HOME.bot, "@eve:localhost:8448", {}),
        ("", HOME.bot, {}),
        (HOME.bot, HOME.bot, {"creator": None}),
        (HOME.bot, HOME.bot, {"instance": "another"}),
        (HOME.bot, HOME.bot, {"key": None}),
    ],
)
def test_a_room_with_a_forged_or_broken_marker(key: str, sender: str, content: dict[str, object]) -> None:
    marked = {**MARKER, "creator": "@eve:localhost:8448", **content}
    room = parse.room(
        "!r",
        [
            create(sender="@eve:localhost:8448", marker=None),
            event(MARKER_TYPE, marked, key=key, sender=sender),
        ],
        HOME,
        Roster(),
    )
    assert room is not None
    assert room.marker is None


def test_what_ties_rooms_together() -> None:
    room = parse.room(
        "!r",
        [
            create(additional_creators=["@ann:example.com", 7], predecessor={"room_id": "!old"}),
            event("m.space.parent", {"via": ["x"]}, "!space"),
            event("m.space.parent", {"via": []}, "!withdrawn"),
            event("m.room.tombstone", {"replacement_room": "!new"}),
        ],
        HOME,
        Roster(),
    )
    assert room is not None
    assert room.creators == {HOME.bot, "@ann:example.com"}
    assert room.parents == {"!space"}
    assert (room.predecessor, room.replacement) == ("!old", "!new")


def test_a_newer_marker_is_ours_and_known_as_newer() -> None:
    room = parse.room("!r", [create(marker={**MARKER, "version": 2, "more": 1})], HOME, Roster())
    assert room is not None
    assert room.marker == Marker(2, "aim", "engineering")


def test_the_version_of_a_room_that_names_none() -> None:
    room = parse.room("!r", [event("m.room.create", {MARKER_TYPE: MARKER})], HOME, Roster())
    assert room is not None
    assert room.version == "1"


def test_power_levels() -> None:
    roster = Roster()
    content: Mapping[str, Any] = {
        "users": {
            HOME.bot: 100,
            "@ann:localhost:8448": 50,
            "@ben:localhost:8448": " +40 ",
            "@cem:localhost:8448": "1_000",
            "@dan:localhost:8448": True,
            "@eva:localhost:8448": None,
            "@fay:example.com": "7",
            "nobody": 3,
        },
        "users_default": "10",
        "ban": 50,
        "events": {"m.room.name": 50},
    }
    room = read(event("m.room.power_levels", content), roster=roster)
    ann, ben = roster.number("ann"), roster.number("ben")
    assert room.power_levels == PowerLevels(
        people={ann: 50, ben: 40},
        foreign={HOME.bot: 100, "@fay:example.com": 7, "nobody": 3},
        base={"users_default": 10, "ban": 50, "events": {"m.room.name": 50}},
    )
    assert room.power_levels.users_default == 10


@pytest.mark.parametrize("value", [True, None, "ten", 1.5, [], "9" * 5000])
def test_a_default_level_that_is_none_is_absent(value: object) -> None:
    assert (
        "users_default" not in read(event("m.room.power_levels", {"users_default": value})).power_levels.base
    )


def test_children() -> None:
    room = read(
        event("m.space.child", {"via": ["x"], "suggested": True, "order": "a"}, "!a"),
        event("m.space.child", {"via": ["x"], "suggested": "yes", "order": 1}, "!b"),
        event("m.space.child", {"via": []}, "!c"),
        event("m.space.child", {}, "!d"),
        event("m.space.child", {"via": "x"}, "!e"),
        event("m.space.child", {"via": [1]}, "!f"),
    )
    assert room.children == {
        "!a": Child("!a", True, "a", sender=HOME.bot),
        "!b": Child("!b", sender=HOME.bot),
    }


def test_who_left_by_themselves() -> None:
    def gone(localpart: str, sender: str, server: str = HOME.server_name) -> dict[str, object]:
        user = f"@{localpart}:{server}"
        return event("m.room.member", {"membership": "leave"}, user, sender or user)

    roster = Roster()
    room = read(
        gone("left", ""),
        gone("kicked", HOME.bot),
        gone("far", "", "elsewhere.example"),
        gone(HOME.bot[1:].partition(":")[0], HOME.bot),
        roster=roster,
    )
    assert room.left == {roster.number("left"): 5}


def test_somebody_has_one_membership() -> None:
    room = read(member("ann", "join"), member("ann", "ban"))
    assert len(room.joined | room.banned) == len(room.joined) + len(room.banned) == 1


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
words = st.sampled_from(
    ["m.room.create", "m.room.member", "m.room.power_levels", "m.space.child", *parse.CONFIGURABLE]
)
user_ids = st.sampled_from(["", HOME.bot, "@ann:localhost:8448", "@ann:example.com", "@", "@:", "!x"])
known_keys = st.sampled_from(
    ["users", "users_default", "events", "membership", "via", "order", "suggested", "type", MARKER_TYPE]
)
contents = st.dictionaries(known_keys, json | st.dictionaries(user_ids, json) | st.just(MARKER)) | json
hostile = (
    st.lists(
        st.builds(event, words | json, contents, user_ids | json, user_ids | json)
        | st.fixed_dictionaries({}, optional={"type": words | json, "state_key": json, "content": contents})
        | json,
        max_size=10,
    )
    | json
)


@given(hostile, st.booleans())
def test_hostile_state_never_raises_and_always_has_the_right_types(events: object, ours: bool) -> None:
    roster = Roster()
    if ours and isinstance(events, list):
        events = [create(), *events]
    room = parse.room("!r", events, HOME, roster)
    if room is None:
        return
    for people in (room.joined, room.invited, room.knocking, room.banned):
        assert all(roster.localpart(number) for number in people)
        assert HOME.bot not in roster.localparts(people)
    assert not room.joined & (room.invited | room.knocking | room.banned)
    assert all(mxid.split(user) for user in room.foreign)
    assert all(type(level) is int for level in room.power_levels.people.values())
    assert all(type(level) is int for level in room.power_levels.foreign.values())
    assert type(room.power_levels.users_default) is int
    assert "users" not in room.power_levels.base
    assert all(isinstance(content, dict) for content in room.state.values())
    assert all(room_id == child.room_id for room_id, child in room.children.items())
    assert (type(room.version), type(room.created_ts)) == (str, int)


@given(hostile)
def test_hostile_create_events_never_raise(event: object) -> None:
    parse.marker(parse.mapping(event), HOME)
    parse.create_event(event)
