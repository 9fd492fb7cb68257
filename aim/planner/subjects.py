"""Whom and what a question is about: the names that people type, found in the world. Pure.

In: an MXID or a localpart, and a room by key, id or name. Out: the person and the place meant, or an error
with the nearest names there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from itertools import chain

from aim.desired.rooms import DesiredRoom
from aim.errors import AimError
from aim.planner.control import room_of
from aim.planner.plan import Plan
from aim.planner.world import World
from aim.world.rooms import Room

_COMPARED = 5000
"""Comparing is slow: of more names only those that begin alike are compared."""
_NAMED = 3
_LISTED = 10
_SEE_ROOMS = "name it by its key: a space's id, or `space/room` for a default room"


class PersonKind(StrEnum):
    LOCAL = "local"
    FOREIGN = "foreign"
    BOT = "bot"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a Matrix user id."""

    mxid: str
    kind: PersonKind
    number: int | None
    """By the roster; None for those of other servers, and for the bot."""

    @property
    def localpart(self) -> str:
        return self.mxid[1:].partition(":")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """A room or space: as it should be and as it is, as far as there is either."""

    key: str
    name: str
    desired: DesiredRoom | None
    room: Room | None
    room_id: str | None
    """As observed, else as recorded."""

    @property
    def is_space(self) -> bool:
        if self.desired is not None:
            return self.desired.is_space
        return self.room is not None and self.room.is_space


# -- people ----------------------------------------------------------------------------------------------


def person_of(world: World, mxid: str) -> Person:
    """The person behind an MXID, known or not."""
    suffix = f":{world.observed.server_name}"
    if mxid == world.observed.bot:
        return Person(mxid, PersonKind.BOT, None)
    if not mxid.endswith(suffix):
        return Person(mxid, PersonKind.FOREIGN, None)
    return Person(mxid, PersonKind.LOCAL, world.roster.find(mxid[1:].removesuffix(suffix)))


def find_person(world: World, name: str) -> Person:
    """Whom an MXID, or a localpart, means. Raises AimError if nobody of that name was ever seen."""
    localpart, colon, _ = name.removeprefix("@").partition(":")
    if not localpart:
        raise AimError(f"{name!r} is no Matrix user id", "write it like @evan:example.com")
    mxid = f"@{name.removeprefix('@')}" if colon else world.observed.mxid(localpart)
    person = person_of(world, mxid)
    if person.kind is PersonKind.FOREIGN:
        if not any(mxid in room.foreign | room.power_levels.foreign.keys() for room in _rooms(world)):
            near = [localpart] if world.roster.find(localpart) is not None else []
            raise _unknown(f"{mxid} is in none of the managed rooms", _mxids(world, near), _OTHER_SERVER)
    elif person.kind is PersonKind.LOCAL and person.number is None:
        near = _people_like(world, localpart)
        raise _unknown(f"nobody called {mxid} is known", _mxids(world, near), _LOOK_FOR_PEOPLE)
    return person


_OTHER_SERVER = "users of other servers are known where they are members, and nowhere else"
_LOOK_FOR_PEOPLE = "`aim directory` lists everybody in the directory, with their localparts"


def _rooms(world: World) -> Iterator[Room]:
    return chain(world.observed.rooms.values(), world.observed.unmanaged.values())


def _mxids(world: World, localparts: Iterable[str]) -> list[str]:
    return [world.observed.mxid(localpart) for localpart in localparts]


def _people_like(world: World, name: str) -> list[str]:
    """Localparts of whom that may mean: by user name, id, e-mail or display name, else by looks."""
    wanted = name.casefold()
    by_other = [
        user.localpart
        for user in world.desired.directory.users
        if wanted in _other_names(user.uid, user.id, user.display_name or "", *user.emails)
    ]
    if by_other:
        return sorted(by_other)[:_NAMED]
    return nearest(wanted, world.roster.localparts(range(len(world.roster))))


def _other_names(*names: str) -> set[str]:
    return {name.casefold() for name in names} | {name.casefold().partition("@")[0] for name in names}


# -- rooms -----------------------------------------------------------------------------------------------


def place_of(world: World, key: str) -> Place:
    """The room or space with that key."""
    desired = world.desired.rooms.get(key)
    room = world.observed.rooms.get(key)
    if room is None:
        room = world.observed.unmanaged.get(key) if desired is None else room_of(world, desired)
    recorded = world.recorded.rooms.get(key)
    room_id = room.room_id if room else recorded.room_id if recorded else None
    return Place(key, desired.name if desired else _name(room) or key, desired, room, room_id)


def _name(room: Room | None) -> str:
    """What the room calls itself, on one line."""
    return " ".join(str(room.state.get("m.room.name", {}).get("name", "")).split()) if room else ""


def find_place(world: World, plan: Plan, text: str) -> Place:
    """The room that a key, a room id or a name means. Raises AimError for none, or several of that name."""
    if text in _keys(world):
        return place_of(world, text)
    if text.startswith(("!", "#")):
        return place_of(world, _key_by_id(world, text))
    wanted = _comparable(text)
    found = [key for key in _keys(world) if wanted in _names(world, plan, key)]
    if len(found) == 1:
        return place_of(world, found[0])
    if found:
        listed = ", ".join(found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise AimError(
            f"{len(found)} rooms are called {text!r}: {listed}{more}", "name one of them by its key"
        )
    names = {name: key for key in _keys(world) for name in (*_names(world, plan, key), key)}
    near = dict.fromkeys(names[name] for name in nearest(wanted, names))
    raise _unknown(f"no space or room is called {text!r}", list(near), _SEE_ROOMS)


def _keys(world: World) -> dict[str, None]:
    """All that we know of, in the order of the configuration."""
    known = (world.desired.rooms, world.observed.rooms, world.recorded.rooms, world.observed.newer)
    return dict.fromkeys(chain(*known))


def _names(world: World, plan: Plan, key: str) -> set[str]:
    place = place_of(world, key)
    return {_comparable(name) for name in (place.name, _name(place.room), plan.named(key)) if name}


def _comparable(name: str) -> str:
    return " ".join(name.split()).casefold()


def _key_by_id(world: World, text: str) -> str:
    """The key of the room with that id, or alias as far as the configuration names it."""
    observed = world.observed
    room_id = observed.aliases.get(text, "") if text.startswith("#") else text
    ids = {room.room_id: key for key, room in world.recorded.rooms.items()}
    ids |= {room_id: room_id for room_id in observed.unmanaged}
    ids |= {room.takes_over: key for key, room in world.desired.rooms.items() if room.takes_over}
    ids |= {room_id: key for key, room_id in observed.newer.items()}
    ids |= {room.room_id: key for key, room in observed.rooms.items()}
    if room_id in ids:
        return ids[room_id]
    for key, others in observed.duplicates.items():
        if room_id in others:
            raise AimError(f"{text} is a second room with the marker of {key}", f"ask about {key}")
    if room_id in observed.unseen:
        raise AimError(f"{text} can't be looked into: {observed.unseen[room_id]}", _SEE_ROOMS)
    raise AimError(f"{text} is neither managed nor in a managed space", _SEE_ROOMS)


# -- near misses -----------------------------------------------------------------------------------------


def nearest(wanted: str, names: Iterable[str]) -> list[str]:
    """Up to three names that look like `wanted`, the nearest first."""
    candidates = list(names)
    if len(candidates) > _COMPARED:
        candidates = [name for name in candidates if name[:3] == wanted[:3]][:_COMPARED]
    return get_close_matches(wanted, candidates, n=_NAMED, cutoff=0.6)


def _unknown(message: str, near: list[str], otherwise: str) -> AimError:
    return AimError(message, f"did you mean {' or '.join(near)}?" if near else otherwise)
