"""The one diff: world → the changes that lead from observed to desired. Pure.

Everything goes through here: a full cycle, a few keys, `aim plan`. Whole rooms are compared as sets first, so
that what agrees costs next to nothing; actions, reasons and names are made only for what differs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from aim.desired.desire import JOIN_RULES
from aim.desired.levels import base_levels
from aim.desired.mirrored import is_mirrored
from aim.desired.rooms import DesiredRoom
from aim.directory.model import Problem
from aim.directory.roster import NOBODY, People
from aim.planner.accounts import account_changes
from aim.planner.actions import (
    AddChild,
    AnyAction,
    CreateRoom,
    CreateSpace,
    Invite,
    Join,
    Kick,
    RemoveChild,
    SetPowerLevel,
    SetRoomState,
    TakeControl,
    identity_of,
)
from aim.planner.agents import agent_changes, agent_level, agent_problems, first_agents, sharing_of
from aim.planner.asking import ask_in
from aim.planner.cleanup import cleanup
from aim.planner.control import control_problems, room_of, take_control
from aim.planner.guarding import guarding_levels
from aim.planner.keys import Keys
from aim.planner.peers import accept, leave, peer_problems
from aim.planner.problems import pending, room_problems, world_problems
from aim.planner.ranks import Ranks, ranks_of
from aim.planner.reasons import Reasons
from aim.planner.registering import registrations, waiting_for
from aim.planner.replacing import replaced
from aim.planner.sizes import too_many_levels
from aim.planner.unenforceable import unenforceable
from aim.planner.wishes import may_be_asked, newly_regained
from aim.planner.world import World
from aim.world.rooms import Room

POWER_LEVELS = "m.room.power_levels"
SUGGESTED = "suggested"
"""The one recorded property that is not state of the room itself, but of its parent."""
_BY_SPACE = frozenset({"restricted", "knock_restricted"})
"""Join rules that let the members of a space in."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, before any guard has judged it."""

    actions: tuple[AnyAction, ...]
    """In plan order."""
    problems: tuple[Problem, ...]
    """Sorted, without repeats."""
    pending: People
    """Entitled people who are not invited because they have no account, and get none by this plan."""


def diff(world: World, keys: Keys | None = None) -> Difference:
    """The changes that make the homeserver follow the directory; with `keys`, those that `keys` cover.

    Problems and pending people are those of the whole world, whatever the keys.
    """
    comparison = _Comparison(world)
    # Of users of other servers, and of the bot, no set of people tells.
    bots = keys is not None and any(_is_of_no_set(world, mxid) for mxid in keys.people)
    actions: list[AnyAction] = []
    for room in world.desired.rooms.values():
        scope = _scope(world, room, keys)
        if scope is None or scope or bots:
            actions.extend(comparison.room(room, scope))
    actions.extend(cleanup(world))
    actions.extend(replaced(world))
    accounts = account_changes(world)
    actions.extend(accounts.actions)
    if registering := registrations(world):
        actions = [*registering, *waiting_for(world, actions, registering)]
    if keys is not None:
        actions = [action for action in actions if keys.cover(action)]
    actions.sort(key=lambda action: action.sort_key)
    problems = {*world.desired.problems, *world_problems(world), *accounts.problems}
    for room in world.desired.rooms.values():
        problems.update(room_problems(world, room))
        problems.update(agent_problems(world, room) if room.peer is None else peer_problems(world, room))
        problems.update(control_problems(world, room))
        problems.update(unenforceable(world, room))
    return Difference(tuple(actions), tuple(sorted(problems)), pending(world))


def _is_of_no_set(world: World, mxid: str) -> bool:
    return mxid == world.observed.bot or not mxid.endswith(f":{world.observed.server_name}")


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
        self._reachable = world.reachable
        self._invitable = None if world.desired.invite_before_login else self._reachable
        self._taken = dict(_spaces_to_take(world))
        self._room_ids = {
            **{key: control.room_id for key, control in self._taken.items() if control.room_id},
            **{key: room.room_id for key, room in observed.rooms.items()},
        }
        self._children_by_parent: dict[str | None, list[DesiredRoom]] = defaultdict(list)
        for room in world.desired.rooms.values():
            for parent in (room.parent, *room.also_in):
                self._children_by_parent[parent].append(room)
        self._keys_by_id = {room_id: key for key, room_id in self._room_ids.items()}
        self._joining: dict[str, People] = {}

    def room(self, desired: DesiredRoom, scope: People | None) -> Iterator[AnyAction]:
        """All that differs in one room; if `scope` is given, only what concerns these people."""
        observed = room_of(self._world, desired)
        if observed is None:
            if self.is_new(desired.key):
                yield from self._creation(desired, scope)
            return
        if desired.peer is not None:
            yield from self._of_a_peer(desired, observed, scope)
            return
        if desired.only_invites:
            yield from ask_in(self._world, desired, observed, scope, self._reasons)
            return
        ranks = ranks_of(observed, self._world.observed, self._world.roster)
        control = take_control(self._world, desired, observed)
        if control is not None:
            if scope is None:
                yield control
            for action in self.existing(desired, observed, scope, ranks.in_control()):
                yield replace(action, after=tuple(sorted({*action.after, control.identity})))
        elif desired.key in self._world.observed.rooms and observed.bot == "join":
            # Where the bot is not, and nobody can let it in, each try would be refused: see control_problems.
            yield from self.existing(desired, observed, scope, ranks)

    def _of_a_peer(self, desired: DesiredRoom, observed: Room, scope: People | None) -> Iterator[AnyAction]:
        """In a room that another server's `aim` made nothing is ours but our own people."""
        ranks = ranks_of(observed, self._world.observed, self._world.roster)
        if desired.accepts:
            yield accept(self._world, desired, observed)
            return
        if ranks.can_write_levels:
            yield from self._levels(desired, observed, scope, ranks)
        if desired.leaves is None:
            yield from self._memberships(desired, observed, scope, ranks)
        else:
            yield from leave(self._world, desired, observed, ranks)

    def existing(
        self, desired: DesiredRoom, observed: Room, scope: People | None, ranks: Ranks
    ) -> Iterator[AnyAction]:
        """All that differs in a room that exists, as far as the bot's rank there lets it be done."""
        if ranks.can_set_levels:
            if scope is None:
                yield from self._state(desired, observed, ranks)
                yield from self._children(desired, observed)
            yield from self._levels(desired, observed, scope, ranks)
            yield from agent_changes(self._world, desired, observed, ranks)
        yield from self._memberships(desired, observed, scope, ranks)

    def is_new(self, key: str) -> bool:
        """Whether the room is to be made. One that we made before and that is gone is never made again."""
        world = self._world
        room = world.desired.rooms.get(key)
        if room is None or room.takes_over is not None or key in world.observed.rooms:
            return False
        if key in world.observed.newer or key in world.recorded.rooms:
            return False
        # Nobody could find or join a default room whose space is lost.
        return room.is_space or room.parent is None or self._will_exist(room.parent)

    # -- a room that does not exist yet ------------------------------------------------------------------

    def _creation(self, desired: DesiredRoom, scope: People | None) -> Iterator[AnyAction]:
        parent = desired.parent if desired.parent and self._will_exist(desired.parent) else None
        creation = _creation_of(self._world, desired, parent)
        if parent and (before := self._before(parent)):
            creation = replace(creation, after=(before,))
        if scope is None:
            yield creation
            yield from self._new_children(desired)
        yield from first_agents(self._world, desired, creation.identity)
        people = desired.members - self._world.desired.hands_off
        if self._invitable is not None:
            people &= self._invitable
        if scope is not None:
            people &= scope
        levels = {} if too_many_levels(self._world, desired) else desired.levels
        for level, holders in levels.items():
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
        for person in people if desired.invites else people & desired.moving:
            yield self._bring_in(desired, None, person, after=(creation.identity,))

    def _will_exist(self, key: str) -> bool:
        return key in self._room_ids or self.is_new(key)

    def _before(self, key: str) -> str | None:
        """What has to be done before others can rely on that room, if it is not ours yet."""
        if key in self._taken:
            return self._taken[key].identity
        return _creation_identity(self._world.desired.rooms[key]) if self.is_new(key) else None

    def _new_children(self, desired: DesiredRoom) -> Iterator[AnyAction]:
        if desired.is_space:
            for child in self._children_of(desired.key):
                yield self._add_child(desired, child, None)

    def _children_of(self, key: str) -> list[DesiredRoom]:
        return [room for room in self._children_by_parent[key] if self._will_exist(room.key)]

    def _add_child(self, parent: DesiredRoom, child: DesiredRoom, parent_id: str | None) -> AddChild:
        after = [before for room in (parent, child) if (before := self._before(room.key))]
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

    def _state(self, desired: DesiredRoom, observed: Room, ranks: Ranks) -> Iterator[AnyAction]:
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
        for_agents = agent_level(self._world, sharing_of(self._world, desired))
        wanted = guarding_levels(observed, ranks, for_agents)
        if wanted is not None:
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
            if (
                key is not None
                and moved is not None
                and moved.parent != desired.key
                and not moved.is_of_people
            ):
                before = self._before(key)
                yield RemoveChild(
                    room=desired.key,
                    space=desired.space,
                    room_id=observed.room_id,
                    child=moved.key,
                    child_id=child_id,
                    reason=f"belongs to {self._reasons.named(moved.parent)}"
                    if moved.parent
                    else "stands at the top",
                    after=() if before is None else (before,),
                )

    def _levels(
        self, desired: DesiredRoom, observed: Room, scope: People | None, ranks: Ranks
    ) -> Iterator[AnyAction]:
        holders, wanted = observed.power_levels.people, desired.levels_by_person()
        if holders == wanted:
            return
        concerned = People(holders) | People(wanted)
        if scope is not None:
            concerned &= scope
        too_many = too_many_levels(self._world, desired)
        # Creators can't be named in the levels of a room in which they stand above them.
        for person in concerned - self._world.desired.hands_off - ranks.creators:
            # Who is not named has 0: another default is put back by the same write (see _state).
            was, level = holders.get(person, 0), wanted.get(person, 0)
            if was == level or ((level > was or person not in holders) and self._is_pending(person)):
                continue
            mxid = self._world.mxid(person)
            if level < was and (person in desired.spared or self._is_exempt(mxid)):
                continue
            if too_many and (level > was or person not in holders):
                continue
            as_themselves = was >= ranks.bot
            if as_themselves and person not in observed.joined:
                # Only they themselves could lower it, and only from inside: see unenforceable.
                continue
            yield SetPowerLevel(
                room=desired.key,
                space=desired.space,
                room_id=observed.room_id,
                person=mxid,
                level=level,
                was=was,
                as_themselves=as_themselves,
                reason=self._reasons.level(desired, person, level),
            )

    def _memberships(
        self, desired: DesiredRoom, observed: Room, scope: People | None, ranks: Ranks
    ) -> Iterator[AnyAction]:
        present = observed.joined | observed.invited
        if present == desired.members and not (self._world.joins and observed.invited):
            return
        surplus = present - desired.members - desired.spared - self._world.desired.hands_off
        if scope is not None:
            surplus &= scope
        for person in surplus:
            mxid = self._world.mxid(person)
            if not self._is_exempt(mxid):
                yield self._kick(desired, observed, person, ranks)
        if ranks.can_invite:
            missing = self._missing(desired, observed)
            for person in missing if scope is None else missing & scope:
                yield self._bring_in(desired, observed, person, writes=ranks.can_set_levels)

    def _kick(self, desired: DesiredRoom, observed: Room, person: int, ranks: Ranks) -> Kick:
        entitled = self._world.recorded.entitled.get(desired.key)
        return Kick(
            room=desired.key,
            space=desired.space,
            room_id=observed.room_id,
            person=self._world.mxid(person),
            reason=self._reasons.lost(desired, person),
            # Without a record of who was entitled, or in a room that is yet to be ours, everybody counts.
            guarded=entitled is None or person in entitled or desired.key not in self._world.observed.rooms,
            as_themselves=not ranks.can_kick(person),
        )

    # -- bringing people in ------------------------------------------------------------------------------

    def _missing(self, desired: DesiredRoom, observed: Room) -> People:
        """Whoever is to be invited, or joined, in a room that exists."""
        missing = desired.members - observed.joined - observed.invited
        if not desired.invites:
            # Nobody has to be asked who knocks.
            missing &= observed.knocking | desired.moving
        if self._invitable is not None:
            missing &= self._invitable
        if self._world.joins:
            missing |= desired.members & observed.invited & self._reachable
        missing -= observed.banned | self._world.desired.hands_off
        if not missing or not observed.left or missing.isdisjoint(People(observed.left)):
            return missing
        regained = newly_regained(self._world, desired)
        return People(
            person for person in missing if may_be_asked(self._world, desired, observed, person, regained)
        )

    def _bring_in(
        self,
        desired: DesiredRoom,
        observed: Room | None,
        person: int,
        *,
        writes: bool = True,
        after: tuple[str, ...] = (),
    ) -> Invite | Join:
        """`writes`: this plan changes the state of the room as far as it differs."""
        room_id = observed.room_id if observed else None
        reason = self._reasons.entitled(desired, person)
        mxid = self._world.mxid(person)
        if not self._is_joined_by_us(person):
            return Invite(
                room=desired.key,
                space=desired.space,
                room_id=room_id,
                person=mxid,
                reason=reason,
                after=after,
            )
        rules = self._join_rules(desired, observed, writes=writes)
        needs_invite, way = self._way_in(desired, observed, person, rules)
        return Join(
            room=desired.key,
            space=desired.space,
            room_id=room_id,
            person=mxid,
            needs_invite=needs_invite,
            reason=reason,
            after=tuple(sorted({*after, *way})),
        )

    def _is_joined_by_us(self, person: int) -> bool:
        return self._world.joins and person in self._reachable

    def _way_in(
        self, desired: DesiredRoom, observed: Room | None, person: int, rules: Mapping[str, object]
    ) -> tuple[bool, tuple[str, ...]]:
        """Whether the person needs an invite to join, and the join elsewhere that this one rests on."""
        if observed is not None and person in observed.invited:
            return False, ()
        rule = rules.get("join_rule")
        if rule == "public":
            return False, ()
        allow = rules.get("allow")
        if rule in _BY_SPACE and isinstance(allow, list):
            keys = [key for condition in allow if (key := self._space_in(condition)) is not None]
            if any(self._is_inside(key, person) for key in keys):
                return False, ()
            for key in keys:
                if self._may_wait_for(desired, key) and person in self._to_be_joined(key):
                    return False, (identity_of(Join.type, key, self._world.mxid(person)),)
        return True, ()

    def _may_wait_for(self, desired: DesiredRoom, key: str) -> bool:
        """Only rooms wait, and only for spaces: two that let in each other's members would wait for ever."""
        other = self._world.desired.rooms.get(key)
        return not desired.is_space and other is not None and other.is_space

    def _join_rules(
        self, desired: DesiredRoom, observed: Room | None, *, writes: bool
    ) -> Mapping[str, object]:
        """As they will be when people join."""
        if observed is None:
            return desired.state.get(JOIN_RULES, {})
        changed = dict(_changed_state(self._world, desired, observed)) if writes else {}
        return changed.get(JOIN_RULES, observed.state.get(JOIN_RULES, {}))

    def _space_in(self, condition: object) -> str | None:
        """Key of the room whose members a join rule lets in; the room's id if it has none."""
        if not isinstance(condition, Mapping):
            return None
        room_id = condition.get("room_id")
        key = condition.get("space") or self._keys_by_id.get(str(room_id), room_id)
        return key if isinstance(key, str) else None

    def _is_inside(self, key: str, person: int) -> bool:
        observed = self._world.observed
        room = observed.rooms.get(key) or observed.unmanaged.get(key)
        return room is not None and person in room.joined

    def _to_be_joined(self, key: str) -> People:
        """Whom this plan joins to a room or space."""
        if key not in self._joining:
            self._joining[key] = self._find_joining(key)
        return self._joining[key]

    def _find_joining(self, key: str) -> People:
        desired = self._world.desired.rooms.get(key)
        if desired is None or not self._world.joins:
            return NOBODY
        observed = self._world.observed.rooms.get(key)
        if observed is not None:
            ranks = ranks_of(observed, self._world.observed, self._world.roster)
            if take_control(self._world, desired, observed) is not None:
                ranks = ranks.in_control()
            elif observed.bot != "join":
                return NOBODY
            return self._missing(desired, observed) & self._reachable if ranks.can_invite else NOBODY
        if not self.is_new(key):
            return NOBODY
        people = desired.members if desired.invites else desired.moving
        return (people - self._world.desired.hands_off) & self._reachable

    def _is_pending(self, person: int) -> bool:
        return self._invitable is not None and person not in self._invitable

    def _is_exempt(self, mxid: str) -> bool:
        return any(pattern.fullmatch(mxid) for pattern in self._world.allowed_users)


def _spaces_to_take(world: World) -> Iterator[tuple[str, TakeControl]]:
    """Key → how the bot gets into each existing space that is to be ours: then rooms can be made in it."""
    for key, desired in world.desired.rooms.items():
        room = room_of(world, desired) if desired.is_space and desired.takes_over else None
        if room is None or key in world.observed.rooms:
            continue
        control = take_control(world, desired, room)
        if control is not None:
            yield key, control


def _creation_identity(room: DesiredRoom) -> str:
    return identity_of((CreateSpace if room.is_space else CreateRoom).type, room.key)


def _creation_of(world: World, desired: DesiredRoom, parent: str | None) -> CreateRoom:
    made = CreateSpace if desired.is_space else CreateRoom
    return made(
        room=desired.key,
        space=desired.space,
        name=desired.name,
        parent=parent,
        room_version=desired.room_version,
        state=desired.state,
        predecessor=desired.replaces,
        power_levels=base_levels(
            is_space=desired.is_space,
            room_version=desired.room_version or world.observed.default_room_version,
            agent_level=agent_level(world, sharing_of(world, desired)),
        ),
        reason=_reason_to_be(desired),
    )


def _reason_to_be(desired: DesiredRoom) -> str:
    if desired.replaces is not None:
        return f"replaces {desired.replaces}, whose creator stands above every level"
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


def pending_properties(world: World, desired: DesiredRoom, observed: Room) -> set[str]:
    """Names of the properties that are not as they should be, whether this plan can change them or not."""
    names = {event_type for event_type, _ in _changed_state(world, desired, observed)}
    if _suggestion_changed(world, desired) and not _is_suggested_so(world, desired, observed.room_id):
        names.add(SUGGESTED)
    return names


def _is_suggested_so(world: World, child: DesiredRoom, child_id: str) -> bool:
    """Whether the spaces that it is to be in show it as configured."""
    parents = child.also_in if child.parent is None else (child.parent, *child.also_in)
    spaces = (world.observed.rooms.get(key) for key in parents)
    places = (space.children.get(child_id) if space is not None else None for space in spaces)
    return all(place is not None and place.suggested == child.suggested for place in places)


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
        if "space" not in rule:
            resolved.append(rule)
            continue
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
