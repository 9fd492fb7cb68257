"""Spaces and rooms that the `aim` of another server made: who of our own people belongs in them. Pure.

In: the configuration, our directory, and those rooms as observed, with what their maker expects of us. Out:
desired rooms, keyed by room id, and problems, which nobody but our own admin is told. The other server learns
what everybody in the space sees: who is in it.
"""

from __future__ import annotations

from dataclasses import replace

from aim.config.provisioner import ProvisionerConfig
from aim.desired.grants import levels_of
from aim.desired.rooms import DesiredRoom, Grant
from aim.desired.taken_over import NAME, join_rule
from aim.desired.unknown import nearest
from aim.directory.model import Directory, Problem, Severity
from aim.directory.roster import NOBODY, People, union
from aim.world.federation import Expectations, ExpectedGroup, Origin, server_of
from aim.world.rooms import MARKER_VERSION, Observed, Room

EVERYONE = "everyone"
"""How reasons name the group `''`."""

MOST_GROUPS = 200
"""More are not followed: who asks for so many means no good, or by mistake."""
_NAMED = 3
_LONGEST = 80
"""Signs of a group's id that a problem shows."""


class Federated:
    """Goes through all rooms of others once."""

    def __init__(self, provisioner: ProvisionerConfig, directory: Directory, observed: Observed) -> None:
        self._federation = provisioner.federation
        self._invites = provisioner.invite_to_public_rooms
        self._directory = directory
        self._observed = observed
        self._all = observed.federated
        self.rooms: dict[str, DesiredRoom] = {}
        self.problems: list[Problem] = []
        for room_id, room in sorted(self._all.items()):
            desired = self._desired(room)
            if desired is not None:
                self.rooms[room_id] = desired

    def _say(self, room: Room, severity: Severity, message: str) -> None:
        self.problems.append(Problem(severity, room.room_id, message))

    def _desired(self, room: Room) -> DesiredRoom | None:
        """None: it is left as it is."""
        assert room.origin is not None, "only rooms of others are among them"
        is_trusted = room.origin.agent in self._federation.federates_with
        if room.bot == "invite":
            return replace(_blank(room, room.room_id), accepts=True) if is_trusted else None
        return self._inside(room, room.origin, is_trusted=is_trusted) if room.bot == "join" else None

    def _inside(self, room: Room, origin: Origin, *, is_trusted: bool) -> DesiredRoom | None:
        """The same, where the bot is in."""
        agent = origin.agent
        space = room if room.is_space else self._space_of(room)
        if not is_trusted:
            return self._leaving(
                room, space, f"{agent} is no longer among provisioner.federation.federates_with"
            )
        if origin.version > MARKER_VERSION:
            self._say(
                room, Severity.ERROR, f"{agent} made it, a newer aim, and it is not touched; upgrade this one"
            )
            return None
        if space is None:
            self._say(
                room, Severity.INFO, f"is in no space of {agent} that we are in, and nothing is done there"
            )
            return None
        groups = self._groups(room, space, agent)
        if groups is None:
            return None
        if not groups and not self._is_expected(space):
            return self._leaving(room, space, f"{agent} does not expect us there any more")
        return self._followed(room, space, agent, groups)

    def _space_of(self, room: Room) -> Room | None:
        """The space of the same server that a room is in."""
        for space in self._all.values():
            same = space.origin and room.origin and space.origin.agent == room.origin.agent
            if space.is_space and space.bot == "join" and same and room.room_id in space.children:
                return space
        return None

    def _is_expected(self, space: Room) -> bool:
        said = space.expectations
        return said is not None and self._observed.bot in said.agents

    def _groups(self, room: Room, space: Room, agent: str) -> tuple[ExpectedGroup, ...] | None:
        """What is expected of us; None if that can't be told, which is said of the space alone."""
        said, told = space.expectations, room is space
        if said is None:
            if told:
                text = (
                    f"{agent} has not said, so that we understand it, whom it expects: nothing is done there"
                )
                self._say(room, Severity.WARNING, text)
            return None
        if not said.is_understood:
            if told:
                text = f"{agent} is a newer aim and says whom it expects in other words; upgrade this one"
                self._say(room, Severity.ERROR, text)
            return None
        groups = said.agents.get(self._observed.bot, ())
        if len(groups) > MOST_GROUPS:
            if told:
                text = f"{agent} names {len(groups)} groups: more than {MOST_GROUPS} are not followed"
                self._say(room, Severity.ERROR, text)
            return None
        return groups

    def _leaving(self, room: Room, space: Room | None, why: str) -> DesiredRoom:
        blank = _blank(room, (space or room).room_id)
        if not self._observed.sees(room.room_id) or (space and not self._observed.sees(space.room_id)):
            # An old copy says so: nobody is put out for that.
            return replace(blank, spared=room.joined | room.invited)
        return replace(blank, leaves=why)

    def _followed(
        self, room: Room, space: Room, agent: str, groups: tuple[ExpectedGroup, ...]
    ) -> DesiredRoom:
        ceiling = self._ceiling(room)
        grants, unknown = [], []
        for group in groups:
            level = min(group.power_level, ceiling)
            if group.external_id == "":
                grants.append(Grant(EVERYONE, self._directory.everyone, level))
                continue
            found = self._directory.find(group.external_id)
            grants += [Grant(match.id, match.members, level) for match in found]
            if not found:
                unknown.append(group.external_id)
        if room is space:
            self._report(room, agent, groups, unknown, ceiling)
        spared = self._fellows(space) | (self._directory.everyone if unknown else NOBODY)
        if not (self._observed.sees(room.room_id) and self._observed.sees(space.room_id)):
            spared |= room.joined | room.invited
        return replace(
            _blank(room, space.room_id),
            members=union(grant.people for grant in grants),
            spared=spared,
            levels=levels_of(grants) if grants else {},
            grants=tuple(grants),
            # Nobody could get into one that takes an invite if nobody were invited.
            invites=room.is_space or self._invites or join_rule(room) == "invite",
        )

    def _fellows(self, space: Room) -> People:
        """Bots of other `aim`s on our own homeserver, which are expected as we are."""
        observed, roster = self._observed, self._directory.roster
        said = space.expectations or Expectations()
        names = (mxid for mxid in said.agents if server_of(mxid) == observed.server_name)
        found = (roster.find(observed.localpart(mxid)) for mxid in names if mxid != observed.bot)
        return People(person for person in found if person is not None)

    def _ceiling(self, room: Room) -> int:
        """The highest level that is given: the bot must stand above whoever it is to look after."""
        own = room.power_levels.foreign.get(self._observed.bot, room.power_levels.users_default)
        most = self._federation.max_power_level
        return min(most, own - 1) if own > 0 else most

    def _report(
        self,
        room: Room,
        agent: str,
        groups: tuple[ExpectedGroup, ...],
        unknown: list[str],
        ceiling: int,
    ) -> None:
        for external_id in unknown[:_NAMED]:
            near = nearest(self._directory, external_id)
            hint = f" (is {' or '.join(map(repr, near))} meant?)" if near else ""
            self._say(
                room,
                Severity.WARNING,
                f"{agent} expects members of {_shown(external_id)}, and no group in our directory is named so"
                f"{hint}: until that is mended, nobody who is in the directory is removed from it "
                "(the other server is told nothing of this)",
            )
        if len(unknown) > _NAMED:
            text = (
                f"{agent} expects members of {len(unknown) - _NAMED} more groups that our directory has not"
            )
            self._say(room, Severity.WARNING, text)
        too_high = [group for group in groups if group.power_level > ceiling]
        if too_high:
            asked = max(group.power_level for group in too_high)
            names = ", ".join(_shown(group.external_id) for group in too_high[:_NAMED])
            self._say(
                room,
                Severity.WARNING,
                f"{agent} expects level {asked} for {names}: they get {ceiling}, which is the most that "
                "provisioner.federation.max_power_level and the bot's own level there allow",
            )


def _blank(room: Room, space: str) -> DesiredRoom:
    """Nobody is to be in it."""
    assert room.origin is not None
    name = room.state.get(NAME, {}).get("name")
    return DesiredRoom(
        key=room.room_id,
        space=space,
        parent=space if space != room.room_id else None,
        is_space=room.is_space,
        name=name if isinstance(name, str) and name else room.origin.key,
        members=NOBODY,
        levels={},
        grants=(),
        takes_over=room.room_id,
        peer=room.origin.agent,
    )


def _shown(external_id: str) -> str:
    if external_id == "":
        return EVERYONE
    text = external_id if len(external_id) <= _LONGEST else f"{external_id[:_LONGEST]}…"
    return repr(text)
