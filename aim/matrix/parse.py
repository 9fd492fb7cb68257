"""From the state of a room, as the homeserver gives it, to a Room. Pure, and never raises.

Comes from `observe` (`GET /rooms/{id}/state`); goes into the world. Anybody in a room can put anything into
most of its state: what has not the type that the Matrix specification gives it counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from aim.directory.roster import People, Roster
from aim.matrix import mxid
from aim.world.federation import (
    EXPECTATIONS_TYPE,
    EXPECTATIONS_VERSION,
    Expectations,
    ExpectedGroup,
    Origin,
)
from aim.world.rooms import MARKER_TYPE, Child, Marker, PowerLevels, Room

Content = Mapping[str, object]
State = Mapping[tuple[str, str], Content]
"""(event type, state key) → content."""

CONFIGURABLE = (
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.encryption",
)
"""What Room.state holds."""

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,16}\s*", re.ASCII)
_PRESENT = frozenset({"join", "invite"})
_LARGEST = 2**53
"""No integer in JSON is as large (Appendices, Canonical JSON)."""


@dataclass(frozen=True, slots=True)
class Home:
    """Who we are: decides what is local and what is ours."""

    server_name: str
    bot: str
    """Our own MXID."""
    instance: str
    peers: frozenset[str] = frozenset()
    """MXIDs of the bots of other servers that we share spaces with (`federates_with`)."""


def mapping(value: object) -> Content:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def strings(value: object) -> list[str]:
    """The strings of a JSON array; none if it is no array."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def level(value: object) -> int | None:
    """A power level: an integer, or up to room version 9 a string that holds one; else None."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def marker(create: Content, home: Home) -> Marker | None:
    """The marker in a complete `m.room.create` event, if we ourselves sent it; perhaps of a newer version."""
    if create.get("sender") != home.bot:
        return None
    return _marker(mapping(mapping(create.get("content")).get(MARKER_TYPE)), home)


def taken_over_marker(event: Content, home: Home) -> Marker | None:
    """The marker in a state event of a room that we took over, if we ourselves sent it."""
    if event.get("sender") != home.bot or event.get("state_key") != home.bot:
        return None
    content = mapping(event.get("content"))
    found = _marker(content, home)
    creator = content.get("creator")
    if found is None or not isinstance(creator, str):
        return None
    return replace(found, creator=creator, creator_level=level(content.get("creator_level")))


def _marker(content: Content, home: Home) -> Marker | None:
    version, key = content.get("version"), content.get("key")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return None
    if content.get("instance") != home.instance or not isinstance(key, str):
        return None
    return Marker(version, home.instance, key)


def origin(create: Content, home: Home) -> Origin | None:
    """Of another server whose `aim` sent this complete `m.room.create` event; None for our own rooms, and for
    those that people made. Whether we share spaces with it is not asked here."""
    sender = create.get("sender")
    parts = mxid.split(sender) if isinstance(sender, str) else None
    if not isinstance(sender, str) or parts is None or parts[1] == home.server_name:
        return None
    content = mapping(mapping(create.get("content")).get(MARKER_TYPE))
    version, key = content.get("version"), content.get("key")
    if not _is_integer(version) or version < 1 or not isinstance(key, str):
        return None
    return Origin(sender, version, key)


def expectations(content: Content) -> Expectations | None:
    """What the content of an expectations event says; None unless all of it can be understood."""
    version = content.get("version")
    if not _is_integer(version) or version < 1:
        return None
    if version > EXPECTATIONS_VERSION:
        return Expectations(version)
    agents, former = content.get("agents"), content.get("former", {})
    if not isinstance(agents, dict) or not isinstance(former, dict):
        return None
    groups = {agent: _groups(mapping(entry).get("groups")) for agent, entry in agents.items()}
    since = {agent: mapping(entry).get("since") for agent, entry in former.items()}
    read = {agent: found for agent, found in groups.items() if found is not None}
    times = {agent: time for agent, time in since.items() if _is_integer(time)}
    if len(read) < len(groups) or len(times) < len(since):
        return None
    return Expectations(version, read, times)


def _groups(value: object) -> tuple[ExpectedGroup, ...] | None:
    found: list[ExpectedGroup] = []
    for item in value if isinstance(value, list) else [None]:
        external_id, level = mapping(item).get("external_id"), mapping(item).get("power_level", 0)
        if not isinstance(external_id, str) or not _is_integer(level):
            return None
        found.append(ExpectedGroup(external_id, level))
    return tuple(found)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def room(room_id: str, events: object, home: Home, roster: Roster) -> Room | None:
    """The room as its state events tell, with or without our marker; None if its create event is missing."""
    found = described(room_id, events, home, roster)
    if found is None:
        return None
    state = _state(events)
    members, foreign = _members(state, home, roster)
    return replace(
        found,
        bot=membership_of(state.get(("m.room.member", home.bot), {})),
        joined=People(members["join"]),
        invited=People(members["invite"]),
        knocking=People(members["knock"]),
        banned=People(members["ban"]),
        left=_left(events, home, roster),
        foreign=frozenset(foreign),
        foreign_invited=frozenset(user for user, membership in foreign.items() if membership == "invite"),
    )


def described(room_id: str, events: object, home: Home, roster: Roster) -> Room | None:
    """The same without any membership, from everything but the m.room.member events."""
    create = create_event(events)
    if not create:
        return None
    state = _state(events)
    content = mapping(create.get("content"))
    version, created = content.get("room_version"), create.get("origin_server_ts")
    return Room(
        room_id=room_id,
        marker=marker(create, home) or _marker_among(events, home),
        # The specification's default for an event that names none.
        version=version if isinstance(version, str) else "1",
        created_ts=created if isinstance(created, int) and not isinstance(created, bool) else 0,
        creators=frozenset(strings([create.get("sender")]) + strings(content.get("additional_creators"))),
        bot=None,
        is_space=content.get("type") == "m.space",
        power_levels=power_levels(state.get(("m.room.power_levels", ""), {}), home, roster),
        children=_children(events),
        parents=frozenset(
            key
            for (kind, key), parent in state.items()
            if kind == "m.space.parent" and strings(parent.get("via"))
        ),
        predecessor=_text(mapping(content.get("predecessor")).get("room_id")),
        replacement=_replacement(state),
        state={kind: state[kind, ""] for kind in CONFIGURABLE if (kind, "") in state},
        origin=origin(create, home),
        expectations=_expectations(create, state),
    )


def _expectations(create: Content, state: State) -> Expectations | None:
    """Of whoever sent the create event: nobody else can set state with their name as its key."""
    content = state.get((EXPECTATIONS_TYPE, str(create.get("sender"))))
    return None if content is None else expectations(content)


def _marker_among(events: object, home: Home) -> Marker | None:
    found = (taken_over_marker(event, home) for event in _events(events) if event.get("type") == MARKER_TYPE)
    return next((marked for marked in found if marked is not None), None)


def _replacement(state: State) -> str | None:
    tombstone = state.get(("m.room.tombstone", ""))
    return None if not tombstone else _text(tombstone.get("replacement_room")) or ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def membership_of(content: Content) -> str | None:
    """The membership that the content of an m.room.member event gives; None if it gives none."""
    return _text(content.get("membership"))


def create_event(events: object) -> Content:
    """The `m.room.create` event among the state events of a room; empty if there is none."""
    return next(
        (e for e in _events(events) if e.get("type") == "m.room.create" and e.get("state_key") == ""), {}
    )


def power_levels(content: Content, home: Home, roster: Roster) -> PowerLevels:
    """The content of `m.room.power_levels`, local people apart from the rest."""
    people: dict[int, int] = {}
    foreign: dict[str, int] = {}
    for user, value in mapping(content.get("users")).items():
        number = level(value)
        if number is None:
            continue
        localpart = _person(user, home)
        if localpart is None:
            foreign[user] = number
        else:
            people[roster.number(localpart)] = number
    base = {key: value for key, value in content.items() if key != "users"}
    default = level(base.pop("users_default", None))
    if default is not None:
        base["users_default"] = default
    return PowerLevels(people, foreign, base)


def _person(user: str, home: Home) -> str | None:
    """The localpart of a user of our homeserver; None for anybody else, and for the bot."""
    parts = mxid.split(user)
    return parts[0] if parts is not None and parts[1] == home.server_name and user != home.bot else None


def _events(events: object) -> Iterator[Content]:
    return (event for event in events if isinstance(event, dict)) if isinstance(events, list) else iter(())


def _state(events: object) -> State:
    state: dict[tuple[str, str], Content] = {}
    for event in _events(events):
        kind, key, content = event.get("type"), event.get("state_key"), event.get("content")
        if isinstance(kind, str) and isinstance(key, str) and isinstance(content, dict):
            state[kind, key] = content
    return state


def _members(state: State, home: Home, roster: Roster) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Membership → local people by number; users of other servers who are in or invited → which of both."""
    members: dict[str, list[int]] = {"join": [], "invite": [], "knock": [], "ban": []}
    foreign: dict[str, str] = {}
    for (kind, user), content in state.items():
        if kind != "m.room.member" or user == home.bot:
            continue
        membership, parts = content.get("membership"), mxid.split(user)
        if parts is None or not isinstance(membership, str):
            continue
        if parts[1] != home.server_name:
            if membership in _PRESENT:
                foreign[user] = membership
        elif membership in members:
            members[membership].append(roster.number(parts[0]))
    return members, foreign


def _left(events: object, home: Home, roster: Roster) -> dict[int, int]:
    """Local people who left by themselves → when: the sender of such an event is its subject."""
    left: dict[int, int] = {}
    for event in _events(events):
        user, sent = event.get("state_key"), event.get("origin_server_ts")
        if event.get("type") != "m.room.member" or not isinstance(user, str) or event.get("sender") != user:
            continue
        localpart = _person(user, home)
        if localpart is not None and mapping(event.get("content")).get("membership") == "leave":
            left[roster.number(localpart)] = sent if isinstance(sent, int) else 0
    return left


def _children(events: object) -> dict[str, Child]:
    children: dict[str, Child] = {}
    for event in _events(events):
        room_id, content = event.get("state_key"), mapping(event.get("content"))
        if event.get("type") == "m.space.child" and isinstance(room_id, str):
            children.pop(room_id, None)
            if strings(content.get("via")):
                children[room_id] = Child(
                    room_id,
                    suggested=content.get("suggested") is True,
                    order=_text(content.get("order")),
                    sender=str(event.get("sender", "")),
                )
    return children
