"""Bots of other servers in rooms that we made: asked in, told what is expected of them, and, when they are no
longer configured, given time to go. Pure.

In: one room, desired and observed. Out: actions and problems. Their people are theirs to look after; only
when a bot had its time, and did not, are they removed by us.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aim.desired.rooms import DesiredRoom
from aim.directory.model import Problem, Severity
from aim.planner.actions import AnyAction, InviteAgent, Kick, SetExpectations, SetPowerLevel
from aim.planner.ranks import Ranks, above_us
from aim.planner.world import World
from aim.world.federation import Expectations, server_of
from aim.world.rooms import Room


@dataclass(frozen=True, slots=True)
class Sharing:
    """With whom a space and its rooms are shared."""

    agents: frozenset[str]
    """MXIDs of bots that look after their people."""
    former: Mapping[str, int | None]
    """MXIDs of bots that are to remove theirs and to go → since when, milliseconds; None: from now on."""

    def __bool__(self) -> bool:
        return bool(self.agents or self.former)

    @property
    def servers(self) -> frozenset[str]:
        """Whose people are no strangers."""
        return frozenset(map(server_of, (*self.agents, *self.former)))


def sharing_of(world: World, desired: DesiredRoom) -> Sharing:
    """With whom the space that this room belongs to is shared."""
    agents = frozenset(desired.agents)
    space = world.observed.rooms.get(desired.space)
    said = space.expectations if space is not None and space.origin is None else None
    if said is None or not said.is_understood:
        return Sharing(agents, {})
    known: dict[str, int | None] = {**dict.fromkeys(said.agents), **said.former}
    kept = {agent: since for agent, since in known.items() if agent not in agents}
    if not kept:
        return Sharing(agents, {})
    rooms = _rooms(world, desired.space)
    others = frozenset(map(server_of, agents))
    return Sharing(agents, {agent: since for agent, since in kept.items() if _is_there(agent, rooms, others)})


def _rooms(world: World, space: str) -> list[Room]:
    """A space and its rooms, as far as we manage them."""
    keys = (key for key, room in world.desired.rooms.items() if room.space == space and room.peer is None)
    rooms = (world.observed.rooms.get(key) for key in keys)
    return [room for room in rooms if room is not None]


def _is_there(agent: str, rooms: Iterable[Room], others: frozenset[str]) -> bool:
    """Whether something of the bot is left in these rooms: itself, its level, or, unless its server is among
    `others`, one of its people."""
    server = server_of(agent)
    return any(
        agent in room.foreign
        or room.power_levels.foreign.get(agent, 0) != 0
        or (server not in others and server in map(server_of, room.foreign))
        for room in rooms
    )


def agent_level(world: World, sharing: Sharing) -> int | None:
    """The level that bots of other servers have there; None where there are none."""
    return world.desired.federation.agent_level if sharing else None


# -- a room that is made -----------------------------------------------------------------------------------


def first_agents(world: World, desired: DesiredRoom, creation: str) -> Iterator[AnyAction]:
    """What comes with the making of a room: `creation` is the identity of that action."""
    yield from _welcome(world, desired, None, frozenset(desired.agents), creation)


# -- a room that exists ------------------------------------------------------------------------------------


def agent_changes(world: World, desired: DesiredRoom, room: Room, ranks: Ranks) -> Iterator[AnyAction]:
    """All that is to be done about bots of other servers, and their people, in a room that we manage."""
    if not _is_understood(world, desired):
        return
    sharing = sharing_of(world, desired)
    yield from _welcome(world, desired, room, sharing.agents)
    yield from _farewell(world, desired, room, sharing, ranks)
    if sharing.agents and world.desired.federation.kick_foreign:
        yield from _strangers(world, desired, room, sharing, ranks)


def _is_understood(world: World, desired: DesiredRoom) -> bool:
    space = world.observed.rooms.get(desired.space)
    return space is None or space.expectations is None or space.expectations.is_understood


def _welcome(
    world: World, desired: DesiredRoom, room: Room | None, agents: frozenset[str], creation: str | None = None
) -> Iterator[AnyAction]:
    """Levels, what is expected, and invites, each after what it rests on."""
    before = () if creation is None else (creation,)
    level = world.desired.federation.agent_level
    levels = {agent: _level(desired, room, agent, level, before) for agent in sorted(agents)}
    yield from (action for action in levels.values() if action is not None)
    expects = _expects(world, desired, room, before)
    if expects is not None:
        yield expects
    for agent, raised in levels.items():
        if room is None or agent not in room.foreign:
            needs = {action.identity for action in (raised, expects) if action is not None}
            yield InviteAgent(
                room=desired.key,
                space=desired.space,
                room_id=room.room_id if room else None,
                agent=agent,
                reason=f"looks after the people of {server_of(agent)} here, as configured",
                after=tuple(sorted(needs.union(before))),
            )


def _level(
    desired: DesiredRoom,
    room: Room | None,
    agent: str,
    level: int,
    before: tuple[str, ...] = (),
) -> SetPowerLevel | None:
    was = 0 if room is None else room.power_levels.foreign.get(agent, 0)
    if was == level:
        return None
    return SetPowerLevel(
        room=desired.key,
        space=desired.space,
        room_id=room.room_id if room else None,
        person=agent,
        level=level,
        was=was,
        reason=f"one level above provisioner.federation.max_power_level, for the people of {server_of(agent)}"
        if level
        else "looks after nobody here any more",
        after=before,
    )


def _expects(
    world: World, desired: DesiredRoom, room: Room | None, before: tuple[str, ...]
) -> SetExpectations | None:
    """Of a space: what it does not say yet, or says too much."""
    if not desired.is_space:
        return None
    said = room.expectations if room is not None else None
    former = sharing_of(world, desired).former if room is not None else {}
    if said is None and not desired.agents:
        return None
    if said is not None and dict(said.agents) == dict(desired.agents) and dict(said.former) == dict(former):
        return None
    changed = [
        agent for agent in desired.agents if said is None or said.agents.get(agent) != desired.agents[agent]
    ]
    gone = [agent for agent in (said.agents if said else ()) if agent not in desired.agents]
    if changed:
        reason = f"tells {', '.join(changed)} whom it is to bring in, as configured"
    elif gone:
        reason = f"{', '.join(gone)} is no longer configured: is to remove its people, and to leave"
    else:
        reason = "nobody is left of those who were to go"
    return SetExpectations(
        room=desired.key,
        space=desired.space,
        room_id=room.room_id if room else None,
        agents=desired.agents,
        former=former,
        reason=reason,
        after=before,
    )


# -- those who are to go -----------------------------------------------------------------------------------


def _farewell(
    world: World, desired: DesiredRoom, room: Room, sharing: Sharing, ranks: Ranks
) -> Iterator[AnyAction]:
    """Of bots that are not in any more the level is taken; of those whose time is over, all people."""
    for agent in _once_here(world, desired, sharing):
        if agent not in room.foreign:
            level = _level(desired, room, agent, 0)
            if level is not None:
                yield level
    going: dict[str, str] = {}
    for agent, since in sharing.former.items():
        if since is not None and (due := due_at(world, since)) is not None and due <= world.now:
            reason = f"{agent} is no longer configured, and its time to remove its people is over"
            going |= dict.fromkeys(_people_of(room, agent, sharing), reason)
        elif _people_of(room, agent, sharing) == [agent] and agent in room.foreign_invited:
            # It never came, or is gone with its people: only its invite is taken back.
            going[agent] = f"{agent} is no longer configured, and has not come"
    bots = sharing.former.keys()
    kicks = {
        mxid: Kick(
            room=desired.key,
            space=desired.space,
            room_id=room.room_id,
            person=mxid,
            reason=going[mxid],
            # What a guard counts are people.
            guarded=mxid not in bots,
            last=mxid in bots,
        )
        for mxid in sorted(going.keys() - above_us(room, ranks))
    }
    for mxid, kick in kicks.items():
        theirs = [kicks[one] for one in kicks if one not in bots and server_of(one) == server_of(mxid)]
        before = theirs if kick.last else []
        yield replace(kick, after=tuple(sorted(other.identity for other in before)))


def _once_here(world: World, desired: DesiredRoom, sharing: Sharing) -> list[str]:
    """Bots that the space names, and that are not configured in it."""
    space = world.observed.rooms.get(desired.space)
    said = space.expectations if space is not None else None
    named = {*said.agents, *said.former} if said is not None else set()
    return sorted((named | sharing.former.keys()) - sharing.agents)


def due_at(world: World, since: int) -> datetime | None:
    """When the time of a bot is over that is to go since then (milliseconds); None: never."""
    grace = world.desired.federation.grace
    if not grace:
        return None
    try:
        return datetime.fromtimestamp(since / 1000, UTC) + grace
    except (OverflowError, ValueError, OSError):
        return None


def next_removal(world: World) -> datetime | None:
    """When the next time of a bot is over that is to go; None if there is none. UTC."""
    spaces = (room for room in world.desired.rooms.values() if room.is_space and room.peer is None)
    times = [since for space in spaces for since in sharing_of(world, space).former.values()]
    due = (due_at(world, since) for since in times if since is not None)
    return min((at for at in due if at is not None and at > world.now), default=None)


def _people_of(room: Room, agent: str, sharing: Sharing) -> list[str]:
    """Who goes with a bot: everybody of its server, unless another bot looks after them."""
    server = server_of(agent)
    if server in map(server_of, sharing.agents):
        return [agent] if agent in room.foreign else []
    return sorted(mxid for mxid in room.foreign if server_of(mxid) == server)


def _strangers(
    world: World, desired: DesiredRoom, room: Room, sharing: Sharing, ranks: Ranks
) -> Iterator[Kick]:
    """People of servers that no bot stands for."""
    strangers = (mxid for mxid in room.foreign if server_of(mxid) not in sharing.servers)
    for mxid in sorted(frozenset(strangers) - above_us(room, ranks)):
        if not any(pattern.fullmatch(mxid) for pattern in world.allowed_users):
            yield Kick(
                room=desired.key,
                space=desired.space,
                room_id=room.room_id,
                person=mxid,
                reason=f"no agent stands for {server_of(mxid)} here (provisioner.federation.kick_foreign)",
                # They never had a right to be in it.
                guarded=False,
            )


# -- problems ----------------------------------------------------------------------------------------------


def agent_problems(world: World, desired: DesiredRoom) -> Iterator[Problem]:
    """Who has not come yet, and who will be removed, beforehand."""
    room = world.observed.rooms.get(desired.key)
    if room is None or not desired.is_space or desired.peer is not None:
        return
    if not _is_understood(world, desired):
        text = f"a newer aim says in {room.room_id} what it expects of other servers; upgrade this one"
        yield Problem(Severity.ERROR, desired.key, text)
        return
    sharing = sharing_of(world, desired)
    for agent in sorted(sharing.agents & room.foreign_invited):
        text = f"{agent} is asked in and has not come yet: it has to have us among its federates_with"
        yield Problem(Severity.INFO, desired.key, text)
    for agent, since in sorted(sharing.former.items()):
        if agent in room.foreign or _people_of(room, agent, sharing):
            # Not whom: it would be said anew with each of them who goes.
            text = f"{agent} is no longer configured: it is to remove its people, and to leave"
            yield Problem(Severity.WARNING, desired.key, f"{text}; {_then(world, since)}")


def _then(world: World, since: int | None) -> str:
    if not world.desired.federation.grace:
        return "provisioner.federation.grace is 0, so nobody else removes them"
    due = None if since is None else due_at(world, since)
    when = "after provisioner.federation.grace" if due is None else f"from {due:%Y-%m-%d %H:%M} UTC on"
    return f"{when} whoever of its server is still in is removed by us"


def expectations_at(action: SetExpectations, now: datetime) -> Expectations:
    """What is written at that time: whoever is to go from now on has their time from then on. UTC."""
    moment = int(now.timestamp() * 1000)
    former = {agent: moment if since is None else since for agent, since in action.former.items()}
    return Expectations(agents=action.agents, former=former)
