"""What is worth remembering of a cycle: before it starts, and, of properties, when it is over. Pure.

In: the world and its plan. Out: plain records for the store. Only what is new or changed is in them: in a
world without changes there is nothing to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from aim.desired.leaving import usable
from aim.desired.rooms import DesiredRoom
from aim.directory.model import User
from aim.directory.roster import NOBODY, People
from aim.planner.actions import AddChild, AnyAction, CreateRoom, Kick, SetRoomState, TakeControl
from aim.planner.control import room_of
from aim.planner.diff import SUGGESTED, applied_properties, pending_properties
from aim.planner.plan import Plan
from aim.planner.queue_memory import queue_memory
from aim.planner.wishes import ever_entitled, newly_lapsed, newly_regained
from aim.planner.world import World
from aim.world.recorded import Queued, RecordedRoom, Seen


@dataclass(frozen=True, slots=True)
class Memory:
    """Changes to what is recorded."""

    rooms: tuple[RecordedRoom, ...] = ()
    """Rooms found by their marker, or whose applied properties are known better now."""
    seen: tuple[Seen, ...] = ()
    entitled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Room key → localparts entitled (or, where nothing was known, present) for the first time."""
    lapsed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Room key → localparts who are not entitled any more."""
    regained: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Room key → localparts who are entitled again: an earlier wish to be out does not count any more."""
    returned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Room id → localparts who are in again after a leave that we caused: the next one is their own."""
    held: frozenset[str] | None = None
    """The new set of held identities, or None if it is the same."""
    recovery_since: datetime | None = None
    recovery_changed: bool = False
    enqueue: tuple[Queued, ...] = ()
    """Entries of the queue that changed: found due by a clock in doubt, or gone over to a new id."""
    dequeue: tuple[str, ...] = ()
    """User ids that leave the queue, as there is nothing to unlock; before `enqueue`."""
    forget: tuple[tuple[str, str], ...] = ()
    """User id and MXID of those on the queue who have no account any more: nothing is remembered of them."""
    clock: datetime | None = None
    """The reading of the clock to record, or None if the last one will do."""

    def __bool__(self) -> bool:
        people = self.seen or self.entitled or self.lapsed or self.regained or self.returned
        accounts = self.enqueue or self.dequeue or self.forget or self.clock is not None
        return bool(self.rooms or people or accounts or self.held is not None or self.recovery_changed)


def properties_of(desired: DesiredRoom) -> Mapping[str, object]:
    """What is remembered as applied once a room is made or changed as configured."""
    return {**desired.state, SUGGESTED: desired.suggested}


def remember(world: World, plan: Plan, *, people_known: bool = False) -> Memory:
    """What a cycle with this plan has to record before it does anything.

    `people_known`: the same directory was remembered before, and nobody decided anything about people since.
    """
    recovery = (world.recorded.recovery_since or world.now) if world.recovering and plan.holding else None
    queue = queue_memory(world)
    # What waits for the source to be complete waits for that alone, and is not held by time.
    holding = plan.holding & world.recorded.held if world.filling else plan.holding
    return Memory(
        rooms=tuple(_rooms(world, plan)),
        seen=() if people_known else tuple(_seen(world)),
        entitled=dict(_entitled(world)),
        lapsed=_by_room(world, newly_lapsed),
        regained=_by_room(world, newly_regained),
        returned=dict(_returned(world, plan)),
        held=None if holding == world.recorded.held else holding,
        recovery_since=recovery,
        recovery_changed=recovery != world.recorded.recovery_since,
        enqueue=queue.enqueue,
        dequeue=queue.dequeue,
        forget=tuple((queued.user_id, world.observed.mxid(queued.localpart)) for queued in queue.forget),
        clock=queue.clock,
    )


def _rooms(world: World, plan: Plan) -> Iterator[RecordedRoom]:
    """Rooms that exist, with their properties as applied: all but those that are yet to be changed, by this
    plan or as soon as the bot is let."""
    due = _applied_by(plan.actions)
    for key, desired in world.desired.rooms.items():
        observed = world.observed.rooms.get(key)
        if observed is None or desired.accepts:
            continue
        recorded = world.recorded.rooms.get(key)
        before = applied_properties(world, key)
        wanted = properties_of(desired)
        if before is not None and before != wanted:
            pending = due.get(key, set()) | pending_properties(world, desired, observed)
            wanted = {
                **{name: value for name, value in wanted.items() if name not in pending},
                **{name: value for name, value in before.items() if name in pending},
            }
        room = RecordedRoom(key, observed.room_id, wanted)
        if room != recorded:
            yield room


def applied(
    world: World, plan: Plan, remembered: Memory, done: Iterable[AnyAction]
) -> Iterator[RecordedRoom]:
    """Rooms with the properties that a cycle has applied, once it is over.

    `plan` is that of the whole world, `remembered` what was recorded before, `done` what was done of the
    plan: a cycle over a few rooms, or a failure, leaves the rest as it was. Rooms that were made are known.
    """
    done = list(done)
    rooms = {**world.recorded.rooms, **{room.key: room for room in remembered.rooms}}
    for action in done:
        if isinstance(action, CreateRoom):
            rooms.pop(action.room, None)
    taken = dict(_taken(world, plan, rooms, done))
    rooms |= taken
    names = _applied_by(done)
    for key in {**taken, **names}:
        desired, room = world.desired.rooms.get(key), rooms.get(key)
        if desired is not None and room is not None and room.properties is not None:
            wanted = properties_of(desired)
            new = {name: wanted[name] for name in names.get(key, ()) if name in wanted}
            if new or key in taken:
                yield replace(room, properties={**room.properties, **new})


def _taken(
    world: World, plan: Plan, rooms: Mapping[str, RecordedRoom], done: Iterable[AnyAction]
) -> Iterator[tuple[str, RecordedRoom]]:
    """Rooms that were taken over just now, which is recorded at once, with nothing known of them: with what
    was known before, or else with what is as it should be already. By key."""
    pending = _applied_by(plan.actions)
    for action in done:
        desired = world.desired.rooms.get(action.room) if isinstance(action, TakeControl) else None
        observed = room_of(world, desired) if desired is not None else None
        if desired is None or observed is None:
            continue
        known = rooms.get(desired.key)
        if known is None or known.properties is None or known.room_id != observed.room_id:
            left = pending.get(desired.key, set()) | pending_properties(world, desired, observed)
            wanted = properties_of(desired)
            so_already = {name: value for name, value in wanted.items() if name not in left}
            known = RecordedRoom(desired.key, observed.room_id, so_already)
        yield desired.key, known


def _applied_by(actions: Iterable[AnyAction]) -> dict[str, set[str]]:
    """Room → names of the properties that these actions apply to it."""
    found: dict[str, set[str]] = {}
    for action in actions:
        if isinstance(action, SetRoomState) and action.acting_as is None:
            found.setdefault(action.room, set()).add(action.event_type)
        elif isinstance(action, AddChild):
            found.setdefault(action.child, set()).add(SUGGESTED)
    return found


def _seen(world: World) -> Iterator[Seen]:
    """People new in the directory, back in it, or gone from it. Those in doubt stay as they are, and so does
    everybody while a switch of source is not settled."""
    if world.desired.switched:
        return
    seen, in_doubt = world.recorded.seen, world.desired.in_doubt
    find = world.roster.find
    present: set[str] = set()
    for user in world.desired.directory.users:
        present.add(user.id)
        known = seen.get(user.id)
        number = find(user.localpart)
        if number is not None and number in in_doubt:
            continue
        if known is None:
            if not _may_be_erased(world, user):
                yield Seen(user.id, user.localpart, user.weak_id, world.now, None)
        elif known.gone_since is not None or known.weak_id != user.weak_id:
            yield replace(known, gone_since=None, weak_id=user.weak_id)
    unresolved = world.desired.directory.unresolved
    for known in seen.values():
        if known.gone_since is None and known.id not in present and known.id not in unresolved:
            yield replace(known, gone_since=world.now)


def _may_be_erased(world: World, user: User) -> bool:
    """Whether it may be that we erased and forgot them, while the directory still has them as disabled."""
    if user.active or world.desired.accounts is None:
        return False
    known = usable(world.observed.known_accounts)
    account = known.accounts.get(user.localpart) if known is not None else None
    return known is None or (account is not None and account.deactivated)


def _entitled(world: World) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where nothing is known of a room, whoever is in it counts when it comes to kicks."""
    for key, desired in world.desired.rooms.items():
        new = ever_entitled(world, desired) - world.recorded.entitled.get(key, NOBODY)
        if new:
            yield key, tuple(world.roster.localparts(new))


def _by_room(world: World, which: Callable[[World, DesiredRoom], People]) -> Mapping[str, tuple[str, ...]]:
    found = ((key, which(world, desired)) for key, desired in world.desired.rooms.items())
    return {key: tuple(world.roster.localparts(people)) for key, people in found if people}


def _returned(world: World, plan: Plan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Who is about to be removed is not back: another cycle may have recorded that a moment ago."""
    if not world.recorded.caused:
        return
    leaving = {(action.room_id, action.person) for action in plan.actions if isinstance(action, Kick)}
    for room in world.observed.rooms.values():
        caused = world.recorded.caused.get(room.room_id, NOBODY)
        back = [
            person
            for person in caused & (room.joined | room.invited)
            if (room.room_id, world.mxid(person)) not in leaving
        ]
        if back:
            yield room.room_id, tuple(world.roster.localparts(back))
