"""Looking at rooms that are not ours over canned answers: as whom they are looked at, and what that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from mautrix.api import PathBuilder

from aim.directory.roster import Roster
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix.parse import Home
from aim.matrix.transport import ReadTransport
from aim.matrix.unmanaged import Found, Unmanaged
from aim.world.rooms import Child, Marker, Room
from tests.unit.model import mxid
from tests.unit.worlds import a_room

HOME = Home("example.com", "@aim:example.com", "aim")
Query = Mapping[str, str]


class Canned:
    """A homeserver made of the hierarchies of spaces, and of rooms with those who are in them."""

    def __init__(self) -> None:
        self.roster = Roster()
        self.listed: dict[str, list[dict[str, object]]] = {}
        """Space → its children as the bot sees them."""
        self.inside: dict[str, Sequence[str]] = {}
        """Room → MXIDs of who may look into it."""
        self.events: dict[str, object] = {}
        self.aliases: dict[str, object] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.page = 50
        self.admin: str | None = None

    async def fetch(self, path: PathBuilder, query: Query | None, user_id: str | None) -> object:
        name = unquote(str(path))
        self.asked.append((name, user_id))
        await asyncio.sleep(0)
        match name.split("/"):
            case ["_matrix", "client", "v1", "rooms", space, "hierarchy"]:
                assert user_id is None
                assert query is not None
                return self._hierarchy(space, query)
            case ["_matrix", "client", "v3", "rooms", room, "state"]:
                if user_id in self.inside.get(room, ()):
                    return self.events.get(room, state(room))
                return _refuse(403)
            case ["_synapse", "admin", "v1", "rooms", room, "state"]:
                if self.admin is not None and user_id == self.admin:
                    return {"state": self.events.get(room, state(room))}
                return _refuse(403)
            case ["_matrix", "client", "v3", "directory", "room", alias] if alias in self.aliases:
                return self.aliases[alias]
        return _refuse(404)

    def _hierarchy(self, space: str, query: Query) -> object:
        assert query["max_depth"] == "1"
        if space not in self.listed:
            return _refuse(403)
        rooms = [{"room_id": space, "room_type": "m.space", "join_rule": "invite"}, *self.listed[space]]
        start = int(query.get("from", 0))
        rest = {"next_batch": str(start + self.page)} if start + self.page < len(rooms) else {}
        return {"rooms": rooms[start : start + self.page], **rest}

    async def look(self, *read: Room, wanted: Mapping[str, Sequence[str]] | None = None) -> Found:
        unmanaged = Unmanaged(ReadTransport(self.fetch), HOME, self.roster, admin=self.admin)
        return await unmanaged.look(read, wanted)

    def acted(self) -> list[str | None]:
        """As whom rooms were looked into, in order."""
        return [user for path, user in self.asked if path.endswith("/state")]

    def space(self, children: Mapping[str, str], key: str = "top", **more: Any) -> Room:
        """A managed space with bob (50) and ann (100) in it; `children`: room id to who put it there."""
        room = a_room(self.roster, key, ["ann", "bob", "cid"], levels={"bob": 50, "ann": 100, "gone": 100})
        added = {child: Child(child, sender=sender) for child, sender in children.items()}
        return replace(room, children=added, **more)


def state(room_id: str, *, room_type: str | None = None) -> list[dict[str, object]]:
    kind = {} if room_type is None else {"type": room_type}
    return [
        {
            "type": "m.room.create",
            "state_key": "",
            "sender": mxid("eve"),
            "content": {"room_version": "11", **kind},
        },
        {"type": "m.room.name", "state_key": "", "content": {"name": room_id}},
    ]


def entry(room_id: str, rule: str = "restricted", room_type: str | None = None) -> dict[str, object]:
    kind = {} if room_type is None else {"room_type": room_type}
    return {"room_id": room_id, "join_rule": rule, **kind}


def _refuse(status: int) -> object:
    raise HomeserverRefused("the homeserver refused it", "", status=status, errcode="M_FORBIDDEN")


async def test_what_can_be_joined_is_looked_into_as_who_put_it_there() -> None:
    homeserver = Canned()
    homeserver.listed = {
        "!top:example.com": [entry("!a"), entry("!b", "public"), entry("!c", "knock_restricted")]
    }
    homeserver.inside = {key: [mxid("eve")] for key in ("!a", "!b", "!c")}
    found = await homeserver.look(homeserver.space(dict.fromkeys(("!a", "!b", "!c"), mxid("eve"))))
    assert set(found.rooms) == {"!a", "!b", "!c"}
    assert (found.unseen, found.aliases) == ({}, {})
    room = found.rooms["!a"]
    assert (room.marker, room.bot, room.creators) == (None, None, frozenset({mxid("eve")}))
    assert homeserver.acted() == [mxid("eve")] * 3


async def test_private_children_and_subspaces_cost_one_request_for_each_space() -> None:
    homeserver = Canned()
    homeserver.listed = {
        "!top:example.com": [
            entry("!a", "invite"),
            entry("!b", "knock"),
            entry("!c", "public", "m.space"),
            {"room_id": "!d"},
            # No child of the space, whatever the homeserver says.
            entry("!stranger", "public"),
        ],
        "!lab:example.com": [],
    }
    top = homeserver.space(dict.fromkeys(("!a", "!b", "!c", "!d", "!hidden"), mxid("eve")))
    found = await homeserver.look(top, homeserver.space({"!e": mxid("eve")}, "lab"))
    assert (found.rooms, found.unseen) == ({}, {})
    assert [path.rpartition("/")[2] for path, _ in homeserver.asked] == ["hierarchy"] * 2


async def test_spaces_that_hold_nothing_but_ours_cost_nothing() -> None:
    homeserver = Canned()
    talk = a_room(homeserver.roster, "top/talk")
    await homeserver.look(homeserver.space({talk.room_id: HOME.bot}), talk, homeserver.space({}, "lab"))
    await homeserver.look(homeserver.space({"!a": mxid("eve")}, marker=None))
    assert homeserver.asked == []


async def test_a_room_that_the_bot_is_in_is_told_if_it_is_in_a_space_of_ours() -> None:
    homeserver = Canned()
    near, far = (replace(a_room(homeserver.roster, "x/y", room_id=id_), marker=None) for id_ in ("!a", "!b"))
    found = await homeserver.look(homeserver.space({"!a": mxid("eve")}), near, far)
    assert found.rooms == {"!a": near}
    assert homeserver.asked == []
    assert set((await homeserver.look(near, far, wanted={"!b": []})).rooms) == {"!b"}


@pytest.mark.parametrize(
    ("sender", "acted"),
    [
        (mxid("cid"), ["cid", "ann", "bob"]),
        (mxid("bob"), ["bob", "ann"]),
        # Neither the bot nor somebody of another server is acted as.
        (HOME.bot, ["ann", "bob"]),
        ("@zoe:example.org", ["ann", "bob"]),
    ],
)
async def test_after_who_put_it_there_the_moderators_are_asked(sender: str, acted: list[str]) -> None:
    homeserver = Canned()
    homeserver.listed = {"!top:example.com": [entry("!a")]}
    found = await homeserver.look(homeserver.space({"!a": sender}))
    assert homeserver.acted() == [mxid(name) for name in acted]
    assert found.rooms == {}
    assert found.unseen == {"!a": "neither who put it there nor the space's moderators are in it"}


async def test_not_everybody_is_asked() -> None:
    homeserver = Canned()
    homeserver.listed = {"!top:example.com": [entry("!a")]}
    many = {f"mod{number:02}": 50 for number in range(40)}
    space = homeserver.space({"!a": mxid("eve")})
    joined = homeserver.roster.people(many)
    levels = replace(space.power_levels, people={homeserver.roster.number(name): 50 for name in many})
    await homeserver.look(replace(space, joined=joined, power_levels=levels))
    assert homeserver.acted() == [mxid(name) for name in ("eve", "mod00", "mod01", "mod02", "mod03")]


async def test_a_long_hierarchy_is_read_to_its_end_and_one_in_a_circle_ends() -> None:
    homeserver = Canned()
    rooms = [f"!{number}" for number in range(7)]
    homeserver.listed = {"!top:example.com": [entry(room) for room in rooms]}
    homeserver.inside = {key: [mxid("eve")] for key in rooms}
    homeserver.page = 3
    found = await homeserver.look(homeserver.space(dict.fromkeys(rooms, mxid("eve"))))
    assert set(found.rooms) == set(rooms)

    async def circle(path: PathBuilder, query: Query | None, user_id: str | None) -> object:
        return {"rooms": "none", "next_batch": "again"}

    unmanaged = Unmanaged(ReadTransport(circle), HOME, homeserver.roster)
    space = homeserver.space({"!a": mxid("eve")})
    assert (await asyncio.wait_for(unmanaged.look([space]), 5)).rooms == {}


async def test_a_refused_hierarchy_is_told_and_an_unavailable_homeserver_is_an_error() -> None:
    homeserver = Canned()
    space = homeserver.space({"!a": mxid("eve"), "!b": mxid("eve")})
    found = await homeserver.look(space)
    assert found.unseen == dict.fromkeys(("!a", "!b"), "the homeserver refused it")

    async def away(path: PathBuilder, query: Query | None, user_id: str | None) -> object:
        raise HomeserverUnavailable("gone")

    with pytest.raises(HomeserverUnavailable):
        await Unmanaged(ReadTransport(away), HOME, homeserver.roster).look([space])


async def test_a_failure_of_one_thing_leaves_the_last_finding_of_it() -> None:
    homeserver = Canned()
    homeserver.listed = {"!top:example.com": [entry("!a")], "!lab:example.com": [entry("!b"), entry("!c")]}
    homeserver.inside = {key: [mxid("eve")] for key in ("!a", "!b", "!c", "!old")}
    homeserver.inside["!old"] = [mxid("ann")]
    homeserver.aliases = {ALIAS: {"room_id": "!old"}}
    spaces = [
        homeserver.space({"!a": mxid("eve")}),
        homeserver.space(dict.fromkeys(("!b", "!c"), mxid("eve")), "lab"),
    ]
    last = await homeserver.look(*spaces, wanted={ALIAS: ["ann"]})
    assert (set(last.rooms), last.failed) == ({"!a", "!b", "!c", "!old"}, frozenset())
    broken = ("!top:example.com/hierarchy", "!b/state", ALIAS)

    async def fetch(path: PathBuilder, query: Query | None, user_id: str | None) -> object:
        if unquote(str(path)).endswith(broken):
            raise HomeserverUnavailable("500")
        if str(path).endswith("joined_rooms"):
            return {"joined_rooms": []}
        return await homeserver.fetch(path, query, user_id)

    unmanaged = Unmanaged(ReadTransport(fetch), HOME, homeserver.roster)
    found = await unmanaged.look(spaces, {ALIAS: ["ann"]})
    assert set(found.rooms) == {"!c"}
    assert found.unseen == dict.fromkeys(("!a", "!b", ALIAS), "500")
    completed = found.completed_by(last)
    assert (completed.rooms, completed.aliases, completed.unseen) == (last.rooms, last.aliases, {})
    assert found.completed_by(Found()) == found


async def test_what_is_no_state_is_told() -> None:
    homeserver = Canned()
    homeserver.listed = {"!top:example.com": [entry("!a")]}
    homeserver.inside = {"!a": [mxid("eve")]}
    answers: tuple[object, ...] = ([], {}, "x", state("!a")[1:])
    for nothing in answers:
        homeserver.events = {"!a": nothing}
        found = await homeserver.look(homeserver.space({"!a": mxid("eve")}))
        assert (found.rooms, found.unseen) == ({}, {"!a": "the homeserver's answer is no state of a room"})


async def test_a_room_of_ours_that_the_bot_left_is_known_by_its_marker() -> None:
    homeserver = Canned()
    homeserver.listed = {"!top:example.com": [entry("!a")]}
    homeserver.inside = {"!a": [mxid("eve")]}
    marker = {"version": 1, "instance": "aim", "key": "gone/talk"}
    create = {
        "type": "m.room.create",
        "state_key": "",
        "sender": HOME.bot,
        "content": {"room_version": "12", "aim.managed": marker},
    }
    member = {
        "type": "m.room.member",
        "state_key": HOME.bot,
        "sender": HOME.bot,
        "content": {"membership": "leave"},
    }
    homeserver.events = {"!a": [create, member]}
    room = (await homeserver.look(homeserver.space({"!a": mxid("eve")}))).rooms["!a"]
    assert (room.marker, room.bot) == (Marker(1, "aim", "gone/talk"), "leave")


async def test_what_people_replaced_a_room_with_is_looked_into() -> None:
    homeserver = Canned()
    homeserver.inside = {"!new": [mxid("ann")]}
    old = replace(
        a_room(homeserver.roster, "!old", ["ann", "bob"], creator=mxid("eve"), taken_over=True),
        replacement="!new",
        is_space=False,
    )
    found = await homeserver.look(old)
    assert set(found.rooms) == {"!new"}
    assert homeserver.acted() == [mxid("eve"), mxid("ann")]
    # Not so where there is nothing to follow, or what we made ourselves was replaced.
    homeserver.asked.clear()
    for other in (replace(old, replacement=""), replace(old, marker=Marker(1, "aim", "x"))):
        await homeserver.look(other)
    assert homeserver.asked == []


# -- what the configuration names -------------------------------------------------------------------

ALIAS = "#old:example.com"


async def test_an_alias_leads_to_its_room() -> None:
    homeserver = Canned()
    homeserver.aliases = {ALIAS: {"room_id": "!old"}, "#odd:example.com": {"room_id": 7}}
    homeserver.inside = {"!old": [mxid("bob")]}
    homeserver.events = {"!old": state("!old", room_type="m.space")}
    wanted = {ALIAS: ["ann", "bob", "cid"], "#none:example.com": ["ann"], "#odd:example.com": ["ann"]}
    found = await homeserver.look(wanted=wanted)
    assert found.aliases == {ALIAS: "!old"}
    assert found.rooms["!old"].is_space
    assert homeserver.acted() == [mxid("ann"), mxid("bob")]
    assert found.unseen == {
        "#none:example.com": "the homeserver refused it",
        "#odd:example.com": "the homeserver's answer names no room",
    }


async def test_a_room_that_we_are_in_is_not_asked_for() -> None:
    homeserver = Canned()
    homeserver.aliases = {ALIAS: {"room_id": "!old"}}
    ours = replace(a_room(homeserver.roster, "top", room_id="!old"), children={})
    found = await homeserver.look(ours, wanted={ALIAS: ["ann"]})
    assert (found.rooms, found.aliases, found.unseen) == ({}, {ALIAS: "!old"}, {})
    assert homeserver.acted() == []


@pytest.mark.parametrize("admin", [None, "@root:example.com"])
async def test_where_nobody_is_known_to_be_inside_an_admin_looks(admin: str | None) -> None:
    homeserver = Canned()
    homeserver.admin = admin
    found = await homeserver.look(wanted={"!old": ["ann"]})
    assert homeserver.acted() == [mxid("ann"), admin]
    if admin is None:
        assert found.rooms == {}
        assert "none of those who should have rights in it is in it" in found.unseen["!old"]
    else:
        assert set(found.rooms) == {"!old"}
