"""The one diff: world → the changes that lead from observed to desired. Pure.

Everything goes through here: a full cycle, a few keys, `aim plan`. Whole rooms are compared as sets first, so
that what agrees costs next to nothing; actions, reasons and names are made only for what differs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from aim.desired.levels import base_levels
from aim.desired.mirrored import is_mirrored
from aim.desired.rooms import DesiredRoom
from aim.directory.model import Problem
from aim.directory.roster import People
from aim.planner.actions import (
    AddChild,
    AnyAction,
    CreateRoom,
    CreateSpace,
    Invite,
    Kick,
    RemoveChild,
    SetPowerLevel,
    SetRoomState,
    identity_of,
)
from aim.planner.keys import Keys
from aim.planner.problems import pending, room_problems, world_problems
from aim.planner.reasons import Reasons
from aim.planner.world import World
from aim.world.rooms import Room

POWER_LEVELS = "m.room.power_levels"
SUGGESTED = "suggested"
"""The one recorded property that is not state of the room itself, but of its parent."""
ASK_AGAIN_MS = 24 * 3600 * 1000
"""Who left a space by their own wish is asked again after a day; in rooms their wish stands."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, before any guard has judged it."""

    actions: tuple[AnyAction, ...]
    """In plan order."""
    problems: tuple[Problem, ...]
    """Sorted, without repeats."""
    pending: People
    """Entitled people who are not invited because they have no account yet."""


def diff(world: World, keys: Keys | None = None) -> Difference:
    """The changes that make the homeserver follow the directory; with `keys`, those that `keys` cover.

    Problems and pending people are those of the whole world, whatever the keys.
    """
    comparison = _Comparison(world)
    actions: list[AnyAction] = []
    for room in world.desired.rooms.values():
        scope = _scope(world, room, keys)
        if scope is None or scope:
            actions.extend(comparison.room(room, scope))
    if keys is not None:
        actions = [action for action in actions if keys.cover(action)]
    actions.sort(key=lambda action: action.sort_key)
    problems = {*world.desired.problems, *world_problems(world)}
    for room in world.desired.rooms.values():
        problems.update(room_problems(world, room))
    return Difference(tuple(actions), tuple(sorted(problems)), pending(world))


def _scope(world: World, room: DesiredRoom, keys: Keys | None) -> People | None:
    """Whom to compare in this room: None for everybody and the room itself, else only these people."""
    if keys is None or room.key in keys.rooms:
        return None
    suffix = f":{world.observed.server_name}"
    found = (world.roster.find(mxid[1:].removesuffix(suffix)) for mxid in keys.people)
    return People(person for person in found if person is not None)


class _Comparison:
    """Compares one room at a time. Holds what all rooms share."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._reasons = Reasons(world)
        observed = world.observed
        # In an unchanged world this is what makes a room of ten thousand cost a few microseconds.
        self._invitable = None if world.desired.invite_before_login else observed.accounts
        self._room_ids = {key: room.room_id for key, room in observed.rooms.items()}
        self._children_by_parent: dict[str | None, list[DesiredRoom]] = defaultdict(list)
        for room in world.desired.rooms.values():
            self._children_by_parent[room.parent].append(room)
        self._keys_by_id = {room_id: key for key, room_id in self._room_ids.items()}

    def room(self, desired: DesiredRoom, scope: People | None) -> Iterator[AnyAction]:
        """All that differs in one room; if `scope` is given, only what concerns these people."""
        world = self._world
        observed = world.observed.rooms.get(desired.key)
        if observed is not None:
            if scope is None:
                yield from self._state(desired, observed)
                yield from self._children(desired, observed)
            yield from self._levels(desired, observed, scope)
            yield from self._memberships(desired, observed, scope)
        elif self.is_new(desired.key):
            yield from self._creation(desired, scope)

    def is_new(self, key: str) -> bool:
        """Whether the room is to be made. One that we made before and that is gone is never made again."""
        world = self._world
        room = world.desired.rooms.get(key)
        if room is None or key in world.observed.rooms:
            return False
        if key in world.observed.newer or key in world.recorded.rooms:
            return False
        # Nobody could find or join a default room whose space is lost.
        return room.is_space or room.parent is None or self._will_exist(room.parent)

    # -- a room that does not exist yet ------------------------------------------------------------------

    def _creation(self, desired: DesiredRoom, scope: People | None) -> Iterator[AnyAction]:
        parent = desired.parent if desired.parent and self._will_exist(desired.parent) else None
        creation = _creation_of(desired, parent, self._world.observed.default_room_version)
        if parent and self.is_new(parent):
            creation = replace(creation, after=(_creation_identity(self._world.desired.rooms[parent]),))
        if scope is None:
            yield creation
            yield from self._new_children(desired)
        people = desired.members - self._world.desired.hands_off
        if self._invitable is not None:
            people &= self._invitable
        if scope is not None:
            people &= scope
        for level, holders in desired.levels.items():
            for person in holders & people:
                yield SetPowerLevel(
                    room=desired.key,
                    space=desired.space,
                    person=self._world.mxid(person),
                    level=level,
                    was=0,
                    reason=self._reasons.level(desired, person, level),
                    after=(creation.identity,),
                )
        if desired.invites:
            for person in people:
                yield self._invite(desired, person, None, (creation.identity,))

    def _will_exist(self, key: str) -> bool:
        return key in self._world.observed.rooms or self.is_new(key)

    def _new_children(self, desired: DesiredRoom) -> Iterator[AnyAction]:
        if desired.is_space:
            for child in self._children_of(desired.key):
                yield self._add_child(desired, child, None)

    def _children_of(self, key: str) -> list[DesiredRoom]:
        return [room for room in self._children_by_parent[key] if self._will_exist(room.key)]

    def _add_child(self, parent: DesiredRoom, child: DesiredRoom, parent_id: str | None) -> AddChild:
        after = [_creation_identity(room) for room in (parent, child) if self.is_new(room.key)]
        return AddChild(
            room=parent.key,
            space=parent.space,
            room_id=parent_id,
            child=child.key,
            child_id=self._room_ids.get(child.key),
            suggested=child.suggested,
            reason=f"belongs to {self._reasons.named(parent.key)}",
            after=tuple(sorted(after)),
        )

    # -- a room that exists ------------------------------------------------------------------------------

    def _state(self, desired: DesiredRoom, observed: Room) -> Iterator[AnyAction]:
        for event_type, content in _changed_state(self._world, desired, observed):
            enforced = event_type in desired.enforced
            where = "directory" if desired.is_space and is_mirrored(desired.key) else "configuration"
            yield SetRoomState(
                room=desired.key,
                space=desired.space,
                room_id=observed.room_id,
                event_type=event_type,
                content=content,
                reason=f"differs from the {where}" if enforced else f"changed in the {where}",
            )
        wanted = base_levels(is_space=desired.is_space, room_version=observed.version)
        if not _includes(observed.power_levels.base, wanted):
            yield SetRoomState(
                room=desired.key,
                space=desired.space,
                room_id=observed.room_id,
                event_type=POWER_LEVELS,
                content=wanted,
                reason="the levels that guard the room were changed",
            )

    def _children(self, desired: DesiredRoom, observed: Room) -> Iterator[AnyAction]:
        if not desired.is_space:
            return
        for child in self._children_of(desired.key):
            child_id = self._room_ids.get(child.key)
            present = observed.children.get(child_id) if child_id else None
            if present is None or (
                present.suggested != child.suggested and _suggestion_changed(self._world, child)
            ):
                yield self._add_child(desired, child, observed.room_id)
        for child_id in observed.children:
            key = self._keys_by_id.get(child_id)
            moved = self._world.desired.rooms.get(key) if key else None
            if moved is not None and moved.parent != desired.key:
                yield RemoveChild(
                    room=desired.key,
                    space=desired.space,
                    room_id=observed.room_id,
                    child=moved.key,
                    child_id=child_id,
                    reason=f"belongs to {self._reasons.named(moved.parent)}"
                    if moved.parent
                    else "stands at the top",
                )

    def _levels(self, desired: DesiredRoom, observed: Room, scope: People | None) -> Iterator[AnyAction]:
        holders, wanted = observed.power_levels.people, desired.levels_by_person()
        if holders == wanted:
            return
        concerned = People(holders) | People(wanted)
        if scope is not None:
            concerned &= scope
        for person in concerned - self._world.desired.hands_off:
            # Who is not named has 0: another default is put back by the same write (see _state).
            was, level = holders.get(person, 0), wanted.get(person, 0)
            if was == level or ((level > was or person not in holders) and self._is_pending(person)):
                continue
            mxid = self._world.mxid(person)
            if level < was and (person in desired.spared or self._is_exempt(mxid)):
                continue
            yield SetPowerLevel(
                room=desired.key,
                space=desired.space,
                room_id=observed.room_id,
                person=mxid,
                level=level,
                was=was,
                reason=self._reasons.level(desired, person, level),
            )

    def _memberships(self, desired: DesiredRoom, observed: Room, scope: People | None) -> Iterator[AnyAction]:
        present = observed.joined | observed.invited
        if present == desired.members:
            return
        hands_off = self._world.desired.hands_off
        missing = desired.members - present - observed.banned - hands_off
        surplus = present - desired.members - desired.spared - hands_off
        if self._invitable is not None:
            missing &= self._invitable
        if scope is not None:
            missing, surplus = missing & scope, surplus & scope
        for person in surplus:
            mxid = self._world.mxid(person)
            if not self._is_exempt(mxid):
                yield self._kick(desired, observed, person, mxid)
        # Nobody has to be asked who knocks.
        for person in missing if desired.invites else missing & observed.knocking:
            if self._may_be_asked(observed, person):
                yield self._invite(desired, person, observed.room_id)

    def _kick(self, desired: DesiredRoom, observed: Room, person: int, mxid: str) -> Kick:
        entitled = self._world.recorded.entitled.get(desired.key)
        return Kick(
            room=desired.key,
            space=desired.space,
            room_id=observed.room_id,
            person=mxid,
            reason=self._reasons.lost(desired, person),
            # Without a record of who was entitled, everybody counts.
            guarded=entitled is None or person in entitled,
        )

    def _invite(
        self, desired: DesiredRoom, person: int, room_id: str | None, after: tuple[str, ...] = ()
    ) -> Invite:
        return Invite(
            room=desired.key,
            space=desired.space,
            room_id=room_id,
            person=self._world.mxid(person),
            reason=self._reasons.entitled(desired, person),
            after=after,
        )

    def _is_pending(self, person: int) -> bool:
        return self._invitable is not None and person not in self._invitable

    def _is_exempt(self, mxid: str) -> bool:
        return any(pattern.fullmatch(mxid) for pattern in self._world.allowed_users)

    def _may_be_asked(self, observed: Room, person: int) -> bool:
        left = observed.left.get(person)
        if left is None:
            return True
        return observed.is_space and self._world.now.timestamp() * 1000 - left >= ASK_AGAIN_MS


def _creation_identity(room: DesiredRoom) -> str:
    return identity_of((CreateSpace if room.is_space else CreateRoom).type, room.key)


def _creation_of(desired: DesiredRoom, parent: str | None, default_version: str) -> CreateRoom:
    made = CreateSpace if desired.is_space else CreateRoom
    return made(
        room=desired.key,
        space=desired.space,
        name=desired.name,
        parent=parent,
        room_version=desired.room_version,
        state=desired.state,
        power_levels=base_levels(
            is_space=desired.is_space, room_version=desired.room_version or default_version
        ),
        reason=_reason_to_be(desired),
    )


def _reason_to_be(desired: DesiredRoom) -> str:
    if not desired.is_space:
        return "default room of its space"
    return "unit in the directory" if is_mirrored(desired.key) else "space in the configuration"


def _changed_state(
    world: World, desired: DesiredRoom, observed: Room
) -> Iterable[tuple[str, Mapping[str, object]]]:
    """State that is enforced and differs, or whose configuration changed since it was last applied."""
    applied = applied_properties(world, desired.key)
    for event_type, content in sorted(desired.state.items()):
        if _same_state(world, observed.state.get(event_type), content):
            continue
        if event_type in desired.enforced or (applied is not None and applied.get(event_type) != content):
            yield event_type, content


def applied_properties(world: World, key: str) -> Mapping[str, object] | None:
    """The properties last applied to a room; None if that is not known, as after the loss of the database.

    A room that we made without recording it was broken off in the making: nothing counts as applied.
    """
    recorded = world.recorded.rooms.get(key)
    if recorded is not None:
        return recorded.properties
    return None if world.recovering else {}


def _same_state(world: World, present: Mapping[str, object] | None, wanted: Mapping[str, object]) -> bool:
    if present is None:
        return False
    return all(present.get(key) == value for key, value in resolve_spaces(world, wanted).items())


def resolve_spaces(world: World, content: Mapping[str, object]) -> Mapping[str, object]:
    """The content with our space keys in `allow` replaced by room ids, as far as they exist."""
    allow = content.get("allow")
    if not isinstance(allow, list):
        return content
    resolved = []
    for rule in allow:
        room = world.observed.rooms.get(rule["space"])
        resolved.append({"type": rule["type"], "room_id": room.room_id if room else None})
    return {**content, "allow": resolved}


def _suggestion_changed(world: World, child: DesiredRoom) -> bool:
    recorded = world.recorded.rooms.get(child.key)
    return (
        recorded is not None
        and recorded.properties is not None
        and recorded.properties.get(SUGGESTED) != child.suggested
    )


def _includes(present: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Whether every key of `wanted` is in `present` with that value, one level down too."""
    for key, value in wanted.items():
        found = present.get(key)
        if found == value:
            continue
        if not (isinstance(found, Mapping) and isinstance(value, Mapping) and _includes(found, value)):
            return False
    return True
