"""Finds ids that are used twice. Works on the raw blocks of a whole file; gives faults to the root model.

Every room we manage is known by a key: a space by its id, a default room by `<space id>/<room id>`. Two
rooms with one key could not be told apart, so no two ids may lead to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from aim.config.document import Block
from aim.config.faults import Fault, Place


def unique_ids(root: Block) -> Iterator[Fault]:
    """A fault for each id that is taken: by a space, by a default room, or by the room both make together."""
    spaces = list(_ids(root.get("spaces"), "subspaces"))
    provisioner = root.get("provisioner")
    found = provisioner if isinstance(provisioner, dict) else {}
    rooms = list(_ids(found.get("default_rooms") or found.get("defaultRooms")))
    yield from _twice(spaces, "space")
    yield from _twice(rooms, "default room")
    yield from _collisions(_first(spaces), _first(rooms))


def _ids(value: object, inner: str | None = None) -> Iterator[tuple[str, Place]]:
    """The ids of the items of a list, and of the lists in them under `inner`, in the order of the file."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            identifier = item.get("id")
            if isinstance(identifier, str) and identifier:
                yield identifier, item.place_of("id") if isinstance(item, Block) else Place(0)
            if inner is not None:
                yield from _ids(item.get(inner), inner)


def _first(ids: Iterable[tuple[str, Place]]) -> dict[str, Place]:
    """Where each id is given first."""
    first: dict[str, Place] = {}
    for identifier, place in ids:
        first.setdefault(identifier, place)
    return first


def _twice(ids: Iterable[tuple[str, Place]], what: str) -> Iterator[Fault]:
    first: dict[str, Place] = {}
    for identifier, place in ids:
        if identifier in first:
            text = f'is the id of a {what} already, in line {first[identifier].line}: "{identifier}"'
            yield Fault.at(place, text)
        first.setdefault(identifier, place)


def _collisions(spaces: Mapping[str, Place], rooms: Iterable[str]) -> Iterator[Fault]:
    """Spaces whose id, or the key of whose default room, is the key of another default room."""
    owners: dict[str, str] = {}
    for space, place in spaces.items():
        for room in rooms:
            key = f"{space}/{room}"
            what = f'the default room "{room}" of the space "{space}"'
            if key in spaces:
                yield Fault.at(spaces[key], f'collides with {what}: both would be "{key}"')
            if key in owners:
                text = f'its default room "{room}" collides with {owners[key]}: both would be "{key}"'
                yield Fault.at(place, text)
            owners.setdefault(key, what)
