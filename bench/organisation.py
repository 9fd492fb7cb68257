"""A generated organisation as the core gets it: directory, observed rooms and what is recorded.

Two steps, so that what turning names into numbers costs can be measured apart:

    Shape ─► Rows (localparts, as sources and databases speak) ─► intern ─► Inputs (what the core takes)

The homeserver shows exactly what the directory asked for, as long as nothing has changed: all spaces with
their names, children and power levels; everyone in their spaces, one in fifty still invited, but for one
person in two hundred who has no account yet. Recorded are everyone seen so far and, for each space, who was
ever entitled to it.
"""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from aim.config.root import Config
from aim.desired.levels import base_levels
from aim.directory.flatten import key_of
from aim.directory.model import Directory, Group, GroupKind, User
from aim.directory.roster import Roster
from aim.world.recorded import Recorded, RecordedRoom, Seen
from aim.world.rooms import MARKER_VERSION, Child, Marker, Observed, PowerLevels, Room
from bench.shape import SEED, Shape, Size, Space, change, make_shape

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
ROOM_VERSION = "11"
SERVER = "example.com"
_GIVEN = "ada ben cleo dan eva finn greta hal ida jon kim lea max nora otto pia quinn rosa sam tess".split()
_FAMILY = "abel brandt castro dietz ekholm fuchs gruber hansen ivers jansen keller lindqvist moreau".split()


@dataclass(frozen=True, slots=True)
class GroupRow:
    id: str
    name: str
    members: Iterable[str]


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A space on the homeserver, and what is recorded of it."""

    key: str
    children: tuple[str, ...]
    joined: Iterable[str]
    invited: Iterable[str]
    levels: Mapping[str, int]
    entitled: Iterable[str]


@dataclass(frozen=True, slots=True)
class Rows:
    """An organisation in which people are localparts."""

    config: Config
    users: tuple[User, ...]
    everyone: Iterable[str]
    accounts: Iterable[str]
    groups: Iterable[GroupRow]
    """Sorted by id."""
    rooms: Iterable[RoomRow]
    seen: Mapping[str, Seen]


@dataclass(frozen=True, slots=True)
class Inputs:
    """An organisation as `desire` takes it."""

    config: Config
    directory: Directory
    observed: Observed
    recorded: Recorded


Gather = Callable[[Iterable[str]], Iterable[str]]
"""Makes of localparts that are given one by one what a row holds: frozenset, list, or itself to stay lazy."""


def make_rows(size: Size, *, changed: bool, gather: Gather = iter) -> Rows:
    """The rows of an organisation; `changed`: the directory is ahead of the homeserver.

    Groups and rooms are made one at a time, while they are read: see `held`.
    """
    before = make_shape(size)
    after = change(before) if changed else before
    people = _People(len(after.team_of))
    return Rows(
        config=_config(before),
        users=people.users(after),
        everyone=people.named(after.everyone),
        accounts=people.named(person for person in range(len(after.team_of)) if _has_account(person)),
        groups=_group_rows(after, people, gather),
        rooms=_room_rows(before, people, gather),
        seen=people.seen(size.users),
    )


def held(rows: Rows) -> Rows:
    """The same rows, all in memory: each set of people a plain `frozenset` of localparts."""
    return Rows(
        config=rows.config,
        users=rows.users,
        everyone=frozenset(rows.everyone),
        accounts=frozenset(rows.accounts),
        groups=tuple(rows.groups),
        rooms=tuple(rows.rooms),
        seen=rows.seen,
    )


def intern(rows: Rows) -> Inputs:
    """Turns localparts into numbers of a roster, and sets of them into bitmaps."""
    roster = Roster()
    for user in rows.users:
        roster.number(user.localpart)
    groups = tuple(
        Group(row.id, GroupKind.GROUP, row.name, roster.people(row.members)) for row in rows.groups
    )
    directory = Directory(
        source="ldif",
        name="Example",
        roster=roster,
        users=rows.users,
        groups=groups,
        everyone=roster.people(rows.everyone),
        keys={key_of(group.id): (position,) for position, group in enumerate(groups)},
        key_of=key_of,
    )
    rooms: dict[str, Room] = {}
    entitled = {}
    for row in rows.rooms:
        rooms[row.key] = _room(row, roster)
        entitled[row.key] = roster.people(row.entitled)
    observed = Observed(
        rooms=rooms,
        accounts=roster.people(rows.accounts),
        server_name=SERVER,
        bot=f"@aim:{SERVER}",
        default_room_version=ROOM_VERSION,
    )
    recorded = Recorded(
        fresh=False,
        source="ldif",
        rooms={key: _recorded_room(key) for key in rooms},
        seen=rows.seen,
        entitled=entitled,
    )
    return Inputs(rows.config, directory, observed, recorded)


def make_inputs(size: Size, *, changed: bool) -> Inputs:
    """An organisation as the core gets it. No plain set of localparts outlives its own conversion."""
    return intern(make_rows(size, changed=changed))


class _People:
    """Names for the people of a shape."""

    def __init__(self, count: int) -> None:
        rng = random.Random(SEED + 2)
        # Compact: what the generator needs itself counts in the memory that is measured.
        self._ids = array("Q", (rng.getrandbits(64) for _ in range(2 * count)))
        self._localparts = [localpart_of_person(person) for person in range(count)]

    def named(self, people: Iterable[int]) -> Iterator[str]:
        localparts = self._localparts
        return (localparts[person] for person in people)

    def _id(self, person: int) -> str:
        return str(UUID(int=self._ids[2 * person] << 64 | self._ids[2 * person + 1]))

    def users(self, shape: Shape) -> tuple[User, ...]:
        """Everybody in the directory: sorted by id, but made in another order, as a bridge reads them."""
        active = shape.everyone
        present = (person for person in range(len(shape.team_of)) if person not in shape.left)
        return tuple(sorted((self._user(person, person in active) for person in present), key=_id_of))

    def _user(self, person: int, active: bool) -> User:
        localpart = self._localparts[person]
        given, _, family = localpart.partition(".")
        return User(
            id=self._id(person),
            uid=localpart_of_person(person),
            localpart=localpart,
            display_name=f"{given.title()} {family.title()}",
            emails=(f"{localpart}@{SERVER}",),
            active=active,
            dn=f"uid={localpart},ou=people,dc=example,dc=com",
        )

    def seen(self, count: int) -> dict[str, Seen]:
        """The first `count` people by id, in that order; no string is shared with a User: as the database
        gives them."""
        found = {}
        for person in sorted(range(count), key=self._id):
            row = Seen(
                id=self._id(person),
                localpart=localpart_of_person(person),
                weak_id=False,
                first_seen=NOW - timedelta(seconds=person),
                gone_since=None,
            )
            found[row.id] = row
        return found


def _id_of(user: User) -> str:
    return user.id


def localpart_of_person(person: int) -> str:
    rest, given = divmod(person, len(_GIVEN))
    return f"{_GIVEN[given]}.{_FAMILY[rest % len(_FAMILY)]}{person}"


def _has_account(person: int) -> bool:
    return person % 200 != 0


def _is_invited(person: int) -> bool:
    return person % 50 == 1


def _group_id(name: str) -> str:
    return f"cn={name},ou=groups,dc=example,dc=com"


def _config(shape: Shape) -> Config:
    blocks: dict[str, dict[str, object]] = {}
    below: dict[str, list[dict[str, object]]] = {space.key: [] for space in shape.spaces}
    for space in shape.spaces:
        blocks[space.key] = {
            "id": space.key,
            "name": space.key.title(),
            "groups": [
                {"external_id": _group_id(group) if group else "", "power_level": level}
                for group, level in space.groups
            ],
            "subspaces": below[space.key],
        }
        if space.parent is not None:
            below[space.parent].append(blocks[space.key])
    return Config.model_validate(
        {
            "homeserver": {"url": f"https://{SERVER}", "server_name": SERVER},
            "appservice": {"as_token": "an-invented-token", "hs_token": "another-invented-token"},
            "source": {"type": "ldif", "path": "directory.ldif"},
            "spaces": [blocks[space.key] for space in shape.spaces if space.parent is None],
        }
    )


def _group_rows(shape: Shape, people: _People, gather: Gather) -> Iterator[GroupRow]:
    for name, members in sorted(shape.groups(), key=lambda group: _group_id(group[0])):
        yield GroupRow(_group_id(name), name, gather(people.named(members)))


def _room_rows(shape: Shape, people: _People, gather: Gather) -> Iterator[RoomRow]:
    members, levels = shape.members(), shape.levels()
    children = _children(shape.spaces)
    for space in shape.spaces:
        present = [person for person in members[space.key] if _has_account(person)]
        holders = {person: level for person, level in levels[space.key].items() if _has_account(person)}
        yield RoomRow(
            key=space.key,
            children=children[space.key],
            joined=gather(people.named(person for person in present if not _is_invited(person))),
            invited=gather(people.named(person for person in present if _is_invited(person))),
            levels=dict(zip(people.named(holders), holders.values(), strict=True)),
            entitled=gather(people.named(members[space.key])),
        )


def _children(spaces: Iterable[Space]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {space.key: [] for space in spaces}
    for space in spaces:
        if space.parent is not None:
            found[space.parent].append(space.key)
    return {key: tuple(keys) for key, keys in found.items()}


_BASE = json.dumps(dict(base_levels(is_space=True, room_version=ROOM_VERSION)))


def _room(row: RoomRow, roster: Roster) -> Room:
    return Room(
        room_id=_room_id(row.key),
        marker=Marker(MARKER_VERSION, "aim", row.key),
        version=ROOM_VERSION,
        created_ts=1_700_000_000_000,
        is_space=True,
        joined=roster.people(row.joined),
        invited=roster.people(row.invited),
        power_levels=PowerLevels(
            people={roster.number(localpart): level for localpart, level in row.levels.items()},
            foreign={f"@aim:{SERVER}": 100},
            # Parsed anew for each room, as it comes from a homeserver.
            base=json.loads(_BASE),
        ),
        children={_room_id(child): Child(_room_id(child)) for child in row.children},
        state={"m.room.name": {"name": row.key.title()}},
    )


def _room_id(key: str) -> str:
    return f"!{key}:{SERVER}"


def _recorded_room(key: str) -> RecordedRoom:
    return RecordedRoom(key, _room_id(key), {"m.room.name": {"name": key.title()}, "suggested": False})
