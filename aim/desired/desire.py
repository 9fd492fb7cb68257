"""(configuration, directory, observed, recorded) → desired. Pure: the spec's Space Mapping and default rooms.

The members of a space are those of its groups and of all its subspaces; the highest level wins and goes to
the space and its default rooms, never to a subspace. Every default room is joinable by its space's members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aim.config.provisioner import DefaultRoomConfig
from aim.config.root import Config
from aim.config.sources import LdapSource, LdifSource
from aim.config.spaces import SpaceConfig
from aim.desired.adopting import adopted
from aim.desired.agents import Agents, agent_problems, agents_of
from aim.desired.federated import Federated
from aim.desired.grants import levels_of
from aim.desired.identity import Conflict, conflicts, hands_off, has_switched, switched_problem
from aim.desired.leaving import account_rules, gone_for_good, leaving
from aim.desired.mirrored import mirrored_spaces
from aim.desired.replacing import Replacing
from aim.desired.rooms import Desired, DesiredRoom, Grant
from aim.desired.taken_over import JOIN_RULES as _JOIN_RULES
from aim.desired.taken_over import NAME as _NAME
from aim.desired.taken_over import (
    PRIVATE,
    is_made_private,
    join_rule,
    let_in_again,
    rooms_of_people,
    sparing_those_in,
)
from aim.desired.unknown import unknown_group
from aim.directory.model import Directory, Problem, Severity
from aim.directory.roster import NOBODY, People, union
from aim.world.recorded import Recorded
from aim.world.rooms import Observed, Room

EVERYONE_SPACE = "everyone"
"""Id of the one space that stands for the whole organisation when no `spaces` are configured."""

EVERYONE = "everyone"
"""How reasons name the group `''`."""

NAME = _NAME
JOIN_RULES = _JOIN_RULES
ENCRYPTION = "m.room.encryption"
ENCRYPTION_CONTENT: Mapping[str, object] = {"algorithm": "m.megolm.v1.aes-sha2"}


def desire(
    config: Config,
    directory: Directory,
    observed: Observed,
    recorded: Recorded,
    found: tuple[Conflict, ...] | None = None,
) -> Desired:
    """How the homeserver should be. Never raises: what can't be followed is a problem.

    `found` are the conflicts between the directory and whom we have seen, if somebody knows them already.
    """
    if found is None:
        found = conflicts(directory.users, recorded.seen)
    switched = has_switched(directory, recorded, found)
    # One problem of the source, not one of each person.
    of_source = switched_problem(directory, recorded, found) if switched else None
    if switched:
        found = ()
    rules = account_rules(config)
    mapping = _Mapping(config, directory, observed, recorded)
    mapping.add_spaces()
    ourselves = _ourselves(directory, observed)
    known = directory.roster.people(seen.localpart for seen in recorded.seen.values()) if switched else NOBODY
    lost = NOBODY if rules is None else gone_for_good(directory, observed) - ourselves
    untouched = hands_off(directory, recorded, found) | ourselves | known | lost
    leavers = leaving(config, directory, observed, recorded, untouched)
    untouched |= leavers.stays
    mapping.add_rooms_of_people(untouched)
    mapping.add_rooms_of_others()
    return Desired(
        directory=directory,
        rooms=mapping.rooms,
        hands_off=untouched,
        invite_before_login=config.provisioner.invite_before_first_login,
        cleans_up=config.provisioner.gc.enabled,
        problems=(
            *directory.problems,
            *([of_source] if of_source is not None else ()),
            *(conflict.problem(observed.server_name) for conflict in found),
            *([_bot_in_directory(observed.bot)] if ourselves & directory.everyone else ()),
            *(_lost_account(name, observed.server_name) for name in directory.roster.localparts(lost)),
            *mapping.problems,
        ),
        accounts=rules,
        registers=config.registers_users,
        leaving=leavers,
        federation=config.provisioner.federation,
        switched=switched,
    )


def _lost_account(localpart: str, server_name: str) -> Problem:
    return Problem(
        Severity.ERROR,
        f"@{localpart}:{server_name}",
        "was deactivated or erased and is in the directory again; the account is not touched, nor invited by "
        "itself: reactivate it on the homeserver, or give that user another user name",
    )


def _ourselves(directory: Directory, observed: Observed) -> People:
    """Our own account, if the directory (or anything else) speaks of somebody of that name."""
    bot = directory.roster.find(observed.localpart(observed.bot))
    return NOBODY if bot is None else People([bot])


def _bot_in_directory(bot: str) -> Problem:
    return Problem(
        Severity.ERROR,
        bot,
        "is our own account, and a user of the directory comes to it too; that user is not touched: keep "
        "them out of the source, or choose another appservice.sender_localpart",
    )


@dataclass(frozen=True, slots=True)
class _Membership:
    """Who is in one configured space, and why."""

    grants: tuple[Grant, ...]
    below: People
    """Members of the subspaces."""
    all: People
    spared: People
    """Those in the directory, if a group of the space or of one below it names nothing."""


class _Mapping:
    """Walks the configured tree twice: upwards to gather members, downwards to lay out the rooms."""

    def __init__(self, config: Config, directory: Directory, observed: Observed, recorded: Recorded) -> None:
        self._config = config
        self._directory = directory
        self._observed = observed
        self._recorded = recorded
        self._memberships: dict[str, _Membership] = {}
        self._in_doubt: set[str] = set()
        """Spaces of which a group is not found."""
        self.rooms: dict[str, DesiredRoom] = {}
        self.problems: list[Problem] = []
        self._adopted: dict[str, str] = {}
        """Room id → the space that it is taken over as."""

    def add_spaces(self) -> None:
        mirrored = mirrored_spaces(self._directory) if _mirrors_tree(self._config) else ()
        spaces = (*self._config.spaces, *mirrored)
        if not spaces:
            self._add_everyone()
        for space in spaces:
            self._gather(space)
            self._lay_out(space, parent=None)
        self._add_deconfigured_rooms()

    def _add_everyone(self) -> None:
        directory = self._directory
        self._add_with_rooms(
            DesiredRoom(
                key=EVERYONE_SPACE,
                space=EVERYONE_SPACE,
                parent=None,
                is_space=True,
                name=directory.name,
                members=directory.everyone,
                levels={},
                grants=(Grant(EVERYONE, directory.everyone, 0),),
                state={NAME: {"name": directory.name}},
            )
        )

    def _gather(self, space: SpaceConfig) -> None:
        for subspace in space.subspaces:
            self._gather(subspace)
        subspaces = [self._memberships[subspace.id] for subspace in space.subspaces]
        below = union(subspace.all for subspace in subspaces)
        spared = union(subspace.spared for subspace in subspaces)
        grants = tuple(self._grants(space))
        if space.id in self._in_doubt:
            spared = self._directory.everyone
        members = below | union(grant.people for grant in grants)
        self._memberships[space.id] = _Membership(grants, below, members, spared)

    def _lay_out(self, space: SpaceConfig, parent: str | None) -> None:
        membership = self._memberships[space.id]
        self._add_with_rooms(
            DesiredRoom(
                key=space.id,
                space=space.id,
                parent=parent,
                is_space=True,
                name=space.name,
                members=membership.all,
                spared=membership.spared,
                levels=levels_of(membership.grants, membership.below),
                grants=membership.grants,
                subspaces=tuple(subspace.id for subspace in space.subspaces),
                state={NAME: {"name": space.name}},
                enforced=frozenset({NAME}) if self._config.provisioner.enforce_names else frozenset(),
                takes_over=self._adopt(space),
                agents=self._agents(space),
            )
        )
        for subspace in space.subspaces:
            self._lay_out(subspace, parent=space.id)

    def _agents(self, space: SpaceConfig) -> Agents:
        """Of other servers."""
        federation, server_name = self._config.provisioner.federation, self._observed.server_name
        self.problems += agent_problems(space, federation, server_name)
        return agents_of(space, federation, server_name)

    def _adopt(self, space: SpaceConfig) -> str | None:
        """Id of the existing space that it is to be, "" if that can't be had; None: it is made."""
        if space.room is None:
            return None
        found = adopted(space, space.room, self._observed)
        other = self._adopted.setdefault(found.room_id, space.id) if found.room_id else space.id
        if other != space.id:
            text = f"`room: {space.room}` is taken over as {other} already; no other one is made"
            self.problems.append(Problem(Severity.ERROR, space.id, text))
            return ""
        if found.problem is not None:
            self.problems.append(found.problem)
        return found.room_id

    def _add_with_rooms(self, space: DesiredRoom) -> None:
        self.rooms[space.key] = space
        invites = self._config.provisioner.invite_to_public_rooms
        for room in self._config.provisioner.default_rooms:
            self._add(let_in_again(default_room(space, room, invites=invites), self._observed))

    def _add(self, room: DesiredRoom) -> None:
        """A default room, unless people made it private: then it is theirs now."""
        seen = self._observed.rooms.get(room.key)
        if seen is not None and seen.bot != "join" and join_rule(seen) in PRIVATE:
            # We left it, and it is as closed as it was then.
            return
        if seen is not None and self._lets_go_of(room, seen):
            if self._observed.sees(room.key):
                return
            # An old copy says so: nothing is given up for that, nor is anybody put out of what may be theirs.
            room = sparing_those_in(seen, room)
        self.rooms[room.key] = room

    def _lets_go_of(self, room: DesiredRoom, seen: Room) -> bool:
        if not self._config.provisioner.gc.enabled:
            return False
        recorded = self._recorded.rooms.get(room.key)
        return is_made_private(seen, room, recorded.properties if recorded else None)

    def add_rooms_of_people(self, untouched: People) -> None:
        """Rooms that people made in these spaces, or put there."""
        provisioner = self._config.provisioner
        roster, observed = self._directory.roster, self._observed

        def is_ruled(person: int) -> bool:
            name = observed.mxid(roster.localpart(person))
            return person not in untouched and not provisioner.allows(name)

        gone = {*self._recorded.rooms, *observed.newer}
        on = provisioner.replace_unmanageable_rooms
        found = list(
            rooms_of_people(
                self.rooms,
                observed,
                roster,
                provisioner.allows,
                invites=provisioner.invite_to_public_rooms,
                replacing=Replacing(observed, roster, is_ruled, gone, on),
                spared=self._people_of_unseen_spaces(),
            )
        )
        self.rooms |= {room.key: room for room in found}

    def add_rooms_of_others(self) -> None:
        """Spaces and rooms that the `aim` of another server made."""
        federated = Federated(self._config.provisioner, self._directory, self._observed)
        self.problems += federated.problems
        for key, room in federated.rooms.items():
            self.rooms.setdefault(key, room)

    def _people_of_unseen_spaces(self) -> People:
        """Who belongs to spaces that exist but can't be seen now: nobody knows which rooms are in those."""
        observed = self._observed
        existing = {*self._recorded.rooms, *observed.newer, *observed.rooms}
        return union(
            space.members | space.spared
            for space in self.rooms.values()
            if space.is_space
            and not observed.sees(space.key)
            and (space.key in existing or space.takes_over is not None)
        )

    def _add_deconfigured_rooms(self) -> None:
        """Default rooms that exist but left the configuration stay managed while they are in their space."""
        invites = self._config.provisioner.invite_to_public_rooms
        for key, room in sorted(self._observed.rooms.items()):
            of_people = room.marker is None or room.marker.is_taken_over
            space = None if room.is_space or of_people or key in self.rooms else self._space_of(key)
            if space is None or key in self._configured_keys(space) or not self._is_in(space, room):
                continue
            left = _room_left_to_itself(space, key, self._applied_rules(key), invites=invites)
            by_old_copy = space.key in self._observed.rooms and not self._observed.sees(space.key)
            self._add(sparing_those_in(room, left) if by_old_copy else left)

    def _configured_keys(self, space: DesiredRoom) -> frozenset[str]:
        return frozenset(room_key(space.key, room.id) for room in self._config.provisioner.default_rooms)

    def _is_in(self, space: DesiredRoom, room: Room) -> bool:
        """Whether people left the room where we put it; true where the space can't be seen."""
        seen = self._observed.rooms.get(space.key)
        return seen is None or room.room_id in seen.children or not self._observed.sees(space.key)

    def _applied_rules(self, key: str) -> Mapping[str, object] | None:
        """The join rules that a room was given last, as far as that is known."""
        recorded = self._recorded.rooms.get(key)
        rules = (recorded.properties or {}).get(JOIN_RULES) if recorded else None
        return rules if isinstance(rules, Mapping) else None

    def _space_of(self, key: str) -> DesiredRoom | None:
        """The space in a default room's key: ids may hold slashes, the longest that exists wins."""
        space, slash, _ = key.rpartition("/")
        while slash:
            found = self.rooms.get(space)
            if found is not None and found.is_space:
                return found
            space, slash, _ = space.rpartition("/")
        return None

    def _grants(self, space: SpaceConfig) -> Iterator[Grant]:
        for group in space.groups:
            if group.external_id == "":
                yield Grant(EVERYONE, self._directory.everyone, group.power_level)
                continue
            found = self._directory.find(group.external_id)
            if not found:
                self._in_doubt.add(space.id)
                self.problems.append(unknown_group(self._directory, space.id, group.external_id))
                continue
            if len(found) > 1:
                self.problems.append(
                    Problem(
                        Severity.WARNING,
                        space.id,
                        f"{group.external_id!r} names {len(found)} groups, all of them are used: "
                        + "; ".join(match.id for match in found),
                    )
                )
            for match in found:
                yield Grant(match.id, match.members, group.power_level)


def _mirrors_tree(config: Config) -> bool:
    return isinstance(config.source, LdapSource | LdifSource) and config.source.mirror_tree


def default_room(space: DesiredRoom, room: DefaultRoomConfig, *, invites: bool) -> DesiredRoom:
    """The default room `room` of a space: same people, same levels."""
    properties = room.properties
    name = properties.name or room.id
    rule = properties.join_rule
    state: dict[str, Mapping[str, object]] = {NAME: {"name": name}, JOIN_RULES: join_rules(rule, space.key)}
    if properties.topic is not None:
        state["m.room.topic"] = {"topic": properties.topic}
    if properties.avatar is not None:
        state["m.room.avatar"] = {"url": properties.avatar}
    if properties.history_visibility is not None:
        state["m.room.history_visibility"] = {"history_visibility": properties.history_visibility}
    if properties.encrypted:
        state[ENCRYPTION] = ENCRYPTION_CONTENT
    return DesiredRoom(
        key=room_key(space.key, room.id),
        space=space.key,
        parent=space.key,
        is_space=False,
        name=name,
        members=space.members,
        spared=space.spared,
        levels=space.levels,
        grants=space.grants,
        subspaces=space.subspaces,
        agents=space.agents,
        # Nobody could get into a room that takes an invite if nobody were invited.
        invites=invites or rule == "invite",
        state=state,
        suggested=properties.suggested,
        room_version=properties.room_version,
        encrypted=properties.encrypted if "encrypted" in properties.model_fields_set else None,
    )


def join_rules(rule: str, space: str) -> Mapping[str, object]:
    """Content of m.room.join_rules; a restricted rule allows the members of the space with that key."""
    if rule in {"restricted", "knock_restricted"}:
        return {"join_rule": rule, "allow": [{"type": "m.room_membership", "space": space}]}
    return {"join_rule": rule}


def room_key(space: str, room: str) -> str:
    """Stable key of a default room of a space."""
    return f"{space}/{room}"


def _room_left_to_itself(
    space: DesiredRoom, key: str, rules: Mapping[str, object] | None, *, invites: bool
) -> DesiredRoom:
    """A default room that was deconfigured: memberships and levels follow, its properties are its own.

    `rules`, the join rules it was given last, stay known, so that it shows when people close the room.
    """
    return DesiredRoom(
        key=key,
        space=space.key,
        parent=space.key,
        is_space=False,
        name=key.rpartition("/")[2],
        members=space.members,
        spared=space.spared,
        levels=space.levels,
        grants=space.grants,
        subspaces=space.subspaces,
        agents=space.agents,
        invites=invites,
        state={} if rules is None else {JOIN_RULES: rules},
    )
