"""The desired state: every room and space that should be, who is entitled to be in it and with which level.

Made by `desire`, compared with the observed state by `planner.diff`. Plain frozen data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aim.config.provisioner import FederationConfig
from aim.desired.leaving import AccountRules, Leaving
from aim.directory.model import Directory, Problem
from aim.directory.roster import NOBODY, People
from aim.world.federation import ExpectedGroup


@dataclass(frozen=True, slots=True)
class Grant:
    """One `groups` entry of a space: these people, by this group, with this level."""

    group: str
    """How a reason names the group: its id as the directory spells it, or `everyone`."""
    people: People
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredRoom:
    """A space, a default room of a space, or a room that people made in one."""

    key: str
    space: str
    """Key of the space it belongs to: itself for a space."""
    parent: str | None
    """Key of the space it is a child of."""
    is_space: bool
    name: str
    members: People
    """Everyone entitled to be in it, those of subspaces included."""
    spared: People = NOBODY
    """Nobody of these is removed or demoted here: a group of the configuration names nothing, and they may
    be entitled by it."""
    levels: Mapping[int, People]
    """Power level → who has it, other than the default 0. Nobody twice."""
    grants: tuple[Grant, ...]
    """Of the space, in the order of the configuration: why somebody is entitled."""
    subspaces: tuple[str, ...] = ()
    invites: bool = True
    """False: entitled people may join but are not invited (`invite_to_public_rooms: false`)."""
    state: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Configured state events with an empty key. `allow` rules name spaces by our key."""
    enforced: frozenset[str] = frozenset()
    """Event types of `state` that are put back when somebody changes them; the others apply when the
    room is created and when the configuration changes."""
    suggested: bool = False
    room_version: str | None = None
    encrypted: bool | None = None
    """What the configuration says, to notice what can't be undone."""
    takes_over: str | None = None
    """Id of the existing room that it is, instead of one that we make: people made it, or let us in again.
    "": one is named, but not to be had (a problem says why). Such a room is never created."""
    only_invites: bool = False
    """True for a room of people that may be joined but has not consented to being managed."""
    replaces: str | None = None
    """Id of the room of people in whose place it stands, while that one is not out of the way yet."""
    also_in: tuple[str, ...] = ()
    """Keys of further spaces that it is a child of, as the one that it replaces."""
    moving: People = NOBODY
    """Members who are in the room that it replaces: asked in whatever `invites` says."""
    agents: Mapping[str, tuple[ExpectedGroup, ...]] = field(default_factory=dict)
    """Bots of other servers that look after their own people here → what is expected of them."""
    peer: str | None = None
    """MXID of the bot of another server which made it: here we look after our own people, nothing else."""
    accepts: bool = False
    """True: that bot has asked ours in, which is to come."""
    leaves: str | None = None
    """Why we leave it with all our people; None: we don't."""

    @property
    def is_of_people(self) -> bool:
        """True for a room that stands in its spaces by people's doing, not by the configuration."""
        theirs = self.takes_over is not None and not self.is_space and self.parent is None
        return theirs or self.replaces is not None

    def levels_by_person(self) -> dict[int, int]:
        """Person → level, other than the default 0."""
        return {person: level for level, people in self.levels.items() for person in people}


@dataclass(frozen=True, slots=True)
class Desired:
    """How the homeserver should be."""

    directory: Directory
    rooms: Mapping[str, DesiredRoom]
    """By key; a space stands before its rooms and subspaces."""
    hands_off: People = NOBODY
    """People not touched in either direction: two users claim the name, it is not sure who they are, or they
    left and stay (`leaving.stays`)."""
    invite_before_login: bool = False
    """True: people without an account are invited too (`invite_before_first_login`)."""
    cleans_up: bool = False
    """True: what is no longer to be managed is let go of (`gc.enabled`)."""
    problems: tuple[Problem, ...] = ()
    accounts: AccountRules | None = None
    """What is asked for of accounts; None: nothing."""
    registers: bool = False
    """True: users without an account get one from us (`source.register_users`)."""
    leaving: Leaving = field(default_factory=Leaving)
    federation: FederationConfig = field(default_factory=FederationConfig)
    """How we share spaces with other servers."""
    switched: bool = False
    """True: the directory is of another source, with other ids; nobody's going is believed before a person
    has rebound them (`aim rebind --by-localpart`)."""

    @property
    def in_doubt(self) -> People:
        """Those of `hands_off` of whom it is not sure who they are."""
        return self.hands_off - self.leaving.stays
