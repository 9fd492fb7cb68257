"""Single events: what is kept of them, and what a room is after them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.directory.roster import Roster
from aim.matrix import parse
from aim.matrix.mirror.apply import RoomCopy
from aim.matrix.mirror.events import as_event, is_kept, is_plain, redacted, rows_of, understood
from aim.matrix.mirror.sift import Sift, digest, plain_id
from aim.ports import MemberKind, MirroredRoom, StateKey, StoredEvent, StoredMember, StoredMembers
from aim.world.rooms import MARKER_TYPE
from tests.unit.mirroring import HOME, Json, key, local
from tests.unit.strategies import examples

ROOM = "!a:example.com"
ANN, FAR = local("ann"), "@far:other.example:8448"


def event(kind: str, state_key: str, content: object, sender: str = HOME.bot, **more: object) -> Json:
    return {
        "room_id": ROOM,
        "type": kind,
        "state_key": state_key,
        "content": content,
        "sender": sender,
        "event_id": "$1",
        "origin_server_ts": 7,
        **more,
    }


# -- what is kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "state_key", "kept"),
    [
        ("m.room.name", "", True),
        ("m.room.name", "other", False),
        ("m.room.member", ANN, True),
        ("m.space.child", "!x:example.com", True),
        ("m.space.parent", "!x:example.com", True),
        (MARKER_TYPE, HOME.bot, True),
        (MARKER_TYPE, "", False),
        ("m.room.server_acl", "", False),
        ("m.room.guest_access", "", False),
        (7, "", False),
        ("m.room.name", None, False),
    ],
)
def test_only_state_that_matters_is_kept(kind: object, state_key: object, *, kept: bool) -> None:
    assert is_kept(kind, state_key, HOME) is kept


def test_an_event_becomes_a_row() -> None:
    found = understood(ROOM, event("m.room.name", "", {"name": "\0 \ud800 ü"}), HOME)
    assert found is not None
    assert isinstance(found.row, StoredEvent)
    assert found.row.content.isascii()
    assert json.loads(found.row.content) == {"name": "\0 \ud800 ü"}
    assert (found.row.key, found.row.stamp, found.sender) == (key(ROOM, "m.room.name"), ("$1", 7), HOME.bot)


def test_who_sent_a_membership_tells_whether_it_is_their_own() -> None:
    own, kick = (
        understood(ROOM, event("m.room.member", ANN, {"membership": "leave"}, sender), HOME)
        for sender in (ANN, HOME.bot)
    )
    assert own is not None
    assert kick is not None
    assert isinstance(own.row, StoredMember)
    assert isinstance(kick.row, StoredMember)
    assert (own.row.own, kick.row.own) == (True, False)


@pytest.mark.parametrize(
    "broken",
    [
        event("m.room.name", "", None),
        event("m.room.name", "", {"name": "x"}, event_id=5),
        event("m.room.name", "", {"name": "x"}, event_id="$" + "x" * 300),
        event("m.room.name", "", {"name": "x"}, sender="@nul\0:example.com"),
        event("m.room.member", "@half\ud800:example.com", {"membership": "join"}),
        event("m.room.member", "nobody", {"membership": "join"}),
    ],
)
def test_what_is_malformed_is_not_kept(broken: Json) -> None:
    assert understood(ROOM, broken, HOME) is None


def test_content_without_end_is_not_kept() -> None:
    content: dict[str, object] = {}
    for _ in range(100_000):
        content = {"a": content}
    assert understood(ROOM, event("m.room.name", "", content), HOME) is None


@pytest.mark.parametrize(("sent", "kept"), [(True, 0), ("7", 0), (None, 0), (2**70, 2**63 - 1), (-5, -5)])
def test_any_time_can_be_stored(sent: object, kept: int) -> None:
    found = understood(ROOM, event("m.room.name", "", {}, origin_server_ts=sent), HOME)
    assert found is not None
    assert found.row.stamp.sent == kept


@pytest.mark.parametrize(
    ("more", "replaces"),
    [
        ({"unsigned": {"replaces_state": "$0"}, "replaces_state": "$x"}, "$0"),
        ({"replaces_state": "$0"}, "$0"),
        ({"unsigned": {"replaces_state": 5}}, None),
        ({"unsigned": []}, None),
    ],
)
def test_the_event_that_was_replaced(more: Json, replaces: str | None) -> None:
    found = understood(ROOM, {**event("m.room.name", "", {}), **more}, HOME)
    assert found is not None
    assert found.replaces == replaces


def test_a_redaction_names_its_target_in_two_places() -> None:
    assert redacted({"redacts": "$1", "content": {}}) == "$1"
    assert redacted({"content": {"redacts": "$1"}}) == "$1"
    assert redacted({"content": []}) is None
    assert redacted({"redacts": "$\0"}) is None


@pytest.mark.parametrize(
    ("text", "plain"), [("a", True), ("ü" * 255, True), ("a" * 256, False), (None, False)]
)
def test_plain_texts(text: object, *, plain: bool) -> None:
    assert is_plain(text) is plain


def test_a_transactions_id_can_be_anything() -> None:
    assert plain_id("17") == "17"
    assert is_plain(plain_id("\ud800" * 300))
    assert plain_id("\0") != plain_id("\0\0")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KINDS = [
    "m.room.create",
    "m.room.member",
    "m.room.name",
    "m.room.redaction",
    MARKER_TYPE,
    "m.space.child",
    "x",
]
hostile = st.fixed_dictionaries(
    {},
    optional={
        "room_id": st.sampled_from([ROOM, "!new:example.com"]) | json_values,
        "type": st.sampled_from(KINDS) | json_values,
        "state_key": st.sampled_from(["", HOME.bot, ANN, FAR]) | json_values,
        "sender": st.sampled_from([HOME.bot, ANN, FAR]) | json_values,
        "event_id": st.just("$1") | json_values,
        "origin_server_ts": json_values,
        "content": st.just({"membership": "join"}) | json_values,
        "unsigned": st.just({"replaces_state": "$0"}) | json_values,
        "redacts": json_values,
    },
)


@examples(300)
@given(st.lists(hostile | json_values, max_size=6) | json_values)
def test_nothing_that_comes_in_can_make_it_fail(events: object) -> None:
    sifted = Sift(HOME, {ROOM}, "!control:example.com", set()).take(events)
    digest(events)
    copy = RoomCopy(ROOM, HOME, Roster(), MirroredRoom())
    for found in sifted.events:
        copy.put(found.row)
    copy.room()
    list(rows_of(ROOM, events, HOME))


# -- what a room is ------------------------------------------------------------------------------------------

people = st.sampled_from([ANN, local("ben"), local("eve"), HOME.bot, FAR, "@gus:other.example"])
contents = st.sampled_from(
    [
        {},
        {"name": "A"},
        {"topic": "B"},
        {"via": ["example.com"]},
        {"join_rule": "invite"},
        {"users": {ANN: 50}},
    ]
)
others = st.tuples(
    st.sampled_from(
        ["m.room.name", "m.room.power_levels", "m.room.join_rules", "m.room.tombstone", "m.unknown"]
    ),
    st.sampled_from(["", "", "other"]),
    contents,
    people,
)
links = st.tuples(
    st.sampled_from(["m.space.child", "m.space.parent"]), st.sampled_from(["!x", "!y"]), contents, people
)
kinds_of_membership = st.sampled_from(
    [{}, *({"membership": kind} for kind in "join invite leave leave ban knock odd".split())]
)
memberships = st.tuples(st.just("m.room.member"), people, kinds_of_membership, people) | st.tuples(
    people, kinds_of_membership
).map(lambda own: ("m.room.member", own[0], own[1], own[0]))
markers = st.tuples(
    st.just(MARKER_TYPE),
    st.sampled_from([HOME.bot, HOME.bot, ""]),
    st.sampled_from(
        [{}, {"version": 1, "instance": "aim", "key": "k", "creator": ANN, "creator_level": 100}]
    ),
    st.sampled_from([HOME.bot, HOME.bot, ANN]),
)
creations = st.tuples(
    st.just("m.room.create"),
    st.just(""),
    st.sampled_from([{"room_version": "12"}, {MARKER_TYPE: {"version": 1, "instance": "aim", "key": "a"}}]),
    st.sampled_from([HOME.bot, ANN]),
)


def put_all(copy: RoomCopy, events: list[Json]) -> None:
    for each in events:
        found = understood(ROOM, each, HOME)
        if found is not None:
            copy.put(found.row)


def told(draws: list[tuple[str, str, Json, str]]) -> list[Json]:
    return [
        event(kind, state_key, content, sender, origin_server_ts=number, event_id=f"${number}")
        for number, (kind, state_key, content, sender) in enumerate(draws)
    ]


@examples(400)
@given(
    creations.map(lambda one: [one]) | st.just([]),
    st.lists(memberships | memberships | others | links | markers | creations, max_size=25),
    st.integers(0, 25),
)
def test_events_one_by_one_come_to_the_same_as_their_state(
    first: list[tuple[str, str, Json, str]], then: list[tuple[str, str, Json, str]], look_after: int
) -> None:
    events = told([*first, *then])
    roster = Roster()
    copy = RoomCopy(ROOM, HOME, roster, MirroredRoom())
    put_all(copy, events[:look_after])
    halfway = copy.room()
    put_all(copy, events[look_after:])

    def state(those: list[Json]) -> list[Json]:
        return list({(one["type"], one["state_key"]): one for one in those}.values())

    assert copy.room() == parse.room(ROOM, state(events), HOME, roster)
    # What was told before stays what it was.
    assert halfway == parse.room(ROOM, state(events[:look_after]), HOME, roster)


def test_what_is_removed_is_as_if_it_never_was() -> None:
    roster = Roster()
    copy, plain = (RoomCopy(ROOM, HOME, roster, MirroredRoom()) for _ in range(2))
    kept = told([("m.room.create", "", {}, HOME.bot)])
    more = told(
        [
            ("m.room.create", "", {}, HOME.bot),
            ("m.room.name", "", {"name": "A"}, HOME.bot),
            ("m.room.member", ANN, {"membership": "join"}, ANN),
            ("m.room.member", FAR, {"membership": "join"}, FAR),
            ("m.room.member", HOME.bot, {"membership": "join"}, HOME.bot),
        ]
    )
    put_all(plain, kept)
    put_all(copy, more)
    assert copy.room() != plain.room()
    for one in more[1:]:
        copy.remove(StateKey(ROOM, str(one["type"]), str(one["state_key"])))
    assert copy.room() == plain.room()


def test_what_was_told_stays_as_it_was_told() -> None:
    copy = RoomCopy(ROOM, HOME, Roster(), MirroredRoom())
    before = told(
        [
            ("m.room.create", "", {}, HOME.bot),
            ("m.room.member", ANN, {"membership": "leave"}, ANN),
            ("m.room.member", FAR, {"membership": "join"}, FAR),
            ("m.room.member", local("ben"), {"membership": "join"}, local("ben")),
        ]
    )
    put_all(copy, before)
    first = copy.room()
    assert first is not None
    held = (dict(first.left), first.foreign, first.joined)
    put_all(copy, told([("m.room.member", user, {"membership": "ban"}, HOME.bot) for user in (ANN, FAR)]))
    put_all(copy, told([("m.room.member", local("ben"), {"membership": "leave"}, local("ben"))]))
    assert (dict(first.left), first.foreign, first.joined) == held
    assert copy.room() != first


def test_the_room_is_made_once_for_each_change() -> None:
    copy = RoomCopy(ROOM, HOME, Roster(), MirroredRoom())
    assert (copy.room(), copy.is_known, copy.is_managed) == (None, False, False)
    put_all(copy, told([("m.room.create", "", {}, HOME.bot)]))
    assert copy.room() is copy.room() is not None


def test_members_by_the_group_are_members() -> None:
    roster = Roster()
    copy, single = (RoomCopy(ROOM, HOME, roster, MirroredRoom()) for _ in range(2))
    draws: list[tuple[str, str, Json, str]] = [
        ("m.room.create", "", {}, HOME.bot),
        ("m.room.member", ANN, {"membership": "join"}, HOME.bot),
        ("m.room.member", local("ben"), {"membership": "leave"}, local("ben")),
        ("m.room.member", FAR, {"membership": "invite"}, HOME.bot),
        ("m.room.member", "@gone:other.example", {"membership": "ban"}, HOME.bot),
        ("m.room.member", HOME.bot, {"membership": "leave"}, ANN),
    ]
    put_all(single, told(draws))
    put_all(copy, told(draws[:1]))
    for group in (
        StoredMembers(ROOM, "join", MemberKind.LOCAL, ["ann"], []),
        StoredMembers(ROOM, "leave", MemberKind.LOCAL, ["ben"], [2]),
        StoredMembers(ROOM, "invite", MemberKind.FOREIGN, [FAR], []),
        StoredMembers(ROOM, "ban", MemberKind.FOREIGN, ["@gone:other.example"], []),
        StoredMembers(ROOM, "leave", MemberKind.BOT, [HOME.bot], [5]),
        StoredMembers(ROOM, "odd", MemberKind.LOCAL, ["eve"], []),
    ):
        copy.put_members(group)
    assert copy.room() == single.room()


def test_a_stored_event_is_the_event_again() -> None:
    found = understood(ROOM, event("m.room.name", "", {"name": "A"}), HOME)
    assert found is not None
    assert isinstance(found.row, StoredEvent)
    assert as_event(found.row) == {
        name: value
        for name, value in event("m.room.name", "", {"name": "A"}).items()
        if name not in {"room_id", "event_id"}
    }
