"""Rooms that people made in our spaces: which of them become ours to manage, and by whose consent. Pure.

In: the spaces as they should be, and what is observed in them. Out: desired rooms, for `desire` to add to
those of the configuration. A space's moderators can add anybody's room to it, so that alone counts for
nothing: the room itself has to agree, or whoever may do everything in the space has to vouch for it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import IntEnum

from aim.desired.grants import merged_levels
from aim.desired.levels import ADMIN, has_privileged_creators
from aim.desired.replacing import Replacing, in_place_of, instead_of, is_replaced_by
from aim.desired.rooms import DesiredRoom
from aim.directory.roster import NOBODY, People, Roster, union
from aim.world.rooms import MARKER_VERSION, Child, Observed, Room

NAME = "m.room.name"
JOIN_RULES = "m.room.join_rules"
PRIVATE = frozenset({"invite", "knock", "private"})
"""Join rules that let nobody in by themselves."""
_BY_MEMBERSHIP = frozenset({"restricted", "knock_restricted"})


class Consent(IntEnum):
    """What a room of people lets a space do with it."""

    NONE = 0
    INVITES = 1
    """Its doors are open: the space's people may be asked in, and that is all."""
    FULL = 2
    """Levels and memberships may follow the space."""


def consent(room: Room, space_id: str, *, vouched: bool) -> Consent:
    """What `room`, a child of the space with that room id, consents to.

    `vouched`: whoever made it a child may do everything in the space. A room that we made needs no consent:
    it is ours unless it was made private.
    """
    if room.is_space or room.replacement is not None:
        return Consent.NONE
    rule = join_rule(room)
    if room.marker is not None and not room.marker.is_taken_over:
        return Consent.NONE if rule in PRIVATE else Consent.FULL
    if rule in _BY_MEMBERSHIP:
        return Consent.FULL if space_id in allowed(room) else Consent.NONE
    if rule == "public":
        return Consent.FULL if vouched or space_id in room.parents else Consent.INVITES
    return Consent.NONE


def join_rule(room: Room) -> str | None:
    """The room's join rule; None if it has none, which lets nobody in either."""
    rule = room.state.get(JOIN_RULES, {}).get("join_rule")
    return rule if isinstance(rule, str) else None


def allowed(room: Room) -> frozenset[str]:
    """Room ids of the rooms and spaces whose members a restricted room lets in (Client-Server API,
    m.room.join_rules)."""
    rules = room.state.get(JOIN_RULES, {}).get("allow")
    found = rules if isinstance(rules, list) else ()
    return frozenset(
        str(rule.get("room_id"))
        for rule in found
        if isinstance(rule, Mapping) and rule.get("type") == "m.room_membership"
    )


def is_made_private(room: Room, desired: DesiredRoom, applied: Mapping[str, object] | None) -> bool:
    """Whether people closed a room that we made; `applied` are the properties that it was given last.

    A rule that the configuration asks for, or that its change is about to replace, is not people's doing.
    """
    wanted = desired.state.get(JOIN_RULES)
    if wanted is None or applied is None or applied.get(JOIN_RULES) != wanted:
        return False
    return wanted.get("join_rule") not in PRIVATE and join_rule(room) in PRIVATE


def is_let_in_again(room: Room, desired: DesiredRoom, observed: Observed) -> bool:
    """Whether a room that we made and left is back, open, where the configuration has it."""
    if room.marker is None or room.marker.is_taken_over or room.key != desired.key or room.bot == "join":
        return False
    space = observed.rooms.get(desired.space)
    return (
        space is not None
        and room.room_id in space.children
        and consent(room, space.room_id, vouched=False) is Consent.FULL
    )


def rooms_of_people(
    spaces: Mapping[str, DesiredRoom],
    observed: Observed,
    roster: Roster,
    is_exempt: Callable[[str], bool],
    *,
    invites: bool,
    replacing: Replacing | None = None,
    spared: People = NOBODY,
) -> Iterator[DesiredRoom]:
    """The rooms that people put into these spaces and that are to be managed, asked into, or replaced.

    `spaces` is everything desired so far, by key, in the order of the configuration; `is_exempt` tells MXIDs
    of people whose level the directory does not rule. With `invites` false nobody is asked into a room.
    `spared` may belong to any of these rooms, by a space that can't be seen: see DesiredRoom.spared.
    """
    search = _Search(spaces, observed, roster, is_exempt)
    rooms: dict[str, DesiredRoom] = {}
    for managed in _managed(search, spaces, observed, invites=invites):
        room = replace(managed, spared=managed.spared | spared)
        old, found = search.superseded.get(room.key), search.rooms[room.key]
        if old is not None:
            rooms[room.key] = in_place_of(old[0], room, old[1])
        elif replacing is not None and not room.only_invites and replacing.concerns(found, room):
            consents = search.found[room.key]
            new = instead_of(found, room, [key for key, given in consents.items() if given is Consent.FULL])
            rooms[new.key] = new
        else:
            # The room of ours that is there already says less than the one in whose place it is.
            rooms.setdefault(room.key, room)
    yield from rooms.values()


def _managed(
    search: _Search, spaces: Mapping[str, DesiredRoom], observed: Observed, *, invites: bool
) -> Iterator[DesiredRoom]:
    for key in sorted(search.found):
        room, consents = search.rooms[key], search.found[key]
        by_old_copy = not all(map(observed.sees, consents))
        most = max(consents.values())
        ours = key in observed.rooms
        if most is Consent.NONE or (most is Consent.INVITES and (ours or not invites)):
            continue
        parts = [spaces[space] for space, given in consents.items() if given is most]
        desired = _desired(room, parts, invites=invites, only_invites=most is Consent.INVITES)
        yield sparing_those_in(room, desired) if by_old_copy else desired


class _Search:
    """Goes through the children of all our spaces."""

    def __init__(
        self,
        spaces: Mapping[str, DesiredRoom],
        observed: Observed,
        roster: Roster,
        is_exempt: Callable[[str], bool],
    ) -> None:
        self._observed = observed
        self._roster = roster
        self._is_exempt = is_exempt
        managed = (room for room in observed.rooms.values() if room.origin is None)
        self._by_id = {room.room_id: room for room in (*_unmanaged(observed), *managed)}
        self.rooms: dict[str, Room] = {}
        self.found: dict[str, dict[str, Consent]] = defaultdict(dict)
        """Key of the room → key of each space it is a child of → what it consents to there."""
        self.superseded: dict[str, tuple[str, list[str]]] = {}
        """Key of a room of ours that replaces one of people → the old one's id, and the keys of the spaces
        which that one is still in, having consented to them."""
        for space in spaces.values():
            seen = observed.rooms.get(space.key) if space.is_space else None
            for child in seen.children.values() if seen is not None else ():
                room = self._followed(child.room_id)
                if seen is not None and room is not None and room.key not in spaces:
                    self._add(space, seen, room, child)

    def _add(self, space: DesiredRoom, seen: Room, room: Room, child: Child) -> None:
        """A room that `child` of that space stands for."""
        self.rooms[room.key] = room
        if not is_replaced_by(child.room_id, room):
            vouched = self._vouches(space, seen, room, child)
            self.found[room.key][space.key] = consent(room, seen.room_id, vouched=vouched)
            return
        # A room that we made needs nobody's consent: what the old one consented to is what counts.
        old = replace(self._by_id[child.room_id], replacement=None)
        vouched = self._vouches(space, seen, old, child)
        left = self.superseded.setdefault(room.key, (child.room_id, []))[1]
        if consent(old, seen.room_id, vouched=vouched) is Consent.FULL:
            self.found[room.key][space.key] = Consent.FULL
            left.append(space.key)

    def _followed(self, room_id: str) -> Room | None:
        """The room, or the one that people replaced it with: if that points back, and if it was theirs."""
        room = self._by_id.get(room_id)
        passed = set()
        while room is not None and room.replacement and room.room_id not in passed:
            passed.add(room.room_id)
            following = self._by_id.get(room.replacement)
            if following is None or following.predecessor != room.room_id or _is_made_by_us(room):
                return room
            room = following
        return room

    def _vouches(self, space: DesiredRoom, seen: Room, room: Room, child: Child) -> bool:
        """Whether who made the room a child of the space may do everything there, as the directory says.

        In a room that we manage already, what somebody did who has left the space since still holds.
        """
        if self._level(space, seen, child.sender) >= ADMIN:
            return True
        managed = self._observed.rooms.get(room.key) == room
        person = self._local(child.sender)
        return managed and (person is None or person not in seen.joined)

    def _level(self, space: DesiredRoom, seen: Room, mxid: str) -> float:
        """What somebody may do in a space: as the directory says, where it rules their level."""
        if mxid == self._observed.bot or (has_privileged_creators(seen.version) and mxid in seen.creators):
            return math.inf
        person = self._local(mxid)
        levels = seen.power_levels
        if person is None:
            return levels.foreign.get(mxid, levels.users_default)
        if self._is_exempt(mxid):
            return levels.people.get(person, levels.users_default)
        return max((level for level, people in space.levels.items() if person in people), default=0)

    def _local(self, mxid: str) -> int | None:
        suffix = f":{self._observed.server_name}"
        return self._roster.find(mxid[1:].removesuffix(suffix)) if mxid.endswith(suffix) else None


def _unmanaged(observed: Observed) -> Iterator[Room]:
    """Without those that a newer version of us marked, those whose place another room has, and those that
    the `aim` of another server made."""
    for room in observed.unmanaged.values():
        if room.origin is not None:
            continue
        if room.marker is None or (
            room.marker.version <= MARKER_VERSION
            and room.key not in observed.rooms
            and room.key not in observed.newer
        ):
            yield room


def _is_made_by_us(room: Room) -> bool:
    return room.marker is not None and not room.marker.is_taken_over


def _desired(room: Room, spaces: list[DesiredRoom], *, invites: bool, only_invites: bool) -> DesiredRoom:
    """A room of these spaces: the people of all of them, each with the highest of their levels."""
    name = room.state.get(NAME, {}).get("name")
    return DesiredRoom(
        key=room.key,
        space=spaces[0].key,
        parent=None,
        is_space=False,
        name=name if isinstance(name, str) and name else room.room_id,
        members=union(space.members for space in spaces),
        spared=union(space.spared for space in spaces),
        levels={} if only_invites else merged_levels(spaces),
        grants=tuple(grant for space in spaces for grant in space.grants),
        subspaces=tuple(dict.fromkeys(key for space in spaces for key in space.subspaces)),
        invites=invites,
        takes_over=room.room_id,
        only_invites=only_invites,
    )


def sparing_those_in(room: Room, desired: DesiredRoom) -> DesiredRoom:
    """The desired room, with nobody removed or demoted who is in it: what tells whether it is ours is an old
    copy, and by now it may be somebody else's."""
    return replace(desired, spared=desired.spared | room.joined | room.invited)


def let_in_again(desired: DesiredRoom, observed: Observed) -> DesiredRoom:
    """The desired default room; if we made and left it, and it is open again, told to be that very room."""
    if desired.is_space or desired.key in observed.rooms:
        return desired
    for room in _unmanaged(observed):
        if is_let_in_again(room, desired, observed):
            return replace(desired, takes_over=room.room_id)
    return desired
