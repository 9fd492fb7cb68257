"""The world: everything a plan depends on, the time included. Equal worlds give equal plans."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from aim.desired.rooms import Desired
from aim.directory.roster import NOBODY, People, Roster
from aim.world.recorded import Recorded
from aim.world.rooms import Observed


@dataclass(frozen=True, slots=True)
class Limit:
    """How many at most: `max(at_least, percent of the people concerned)`."""

    at_least: int = 3
    percent: float = 10.0

    def of(self, people: int) -> int:
        """The number allowed among so many people."""
        return max(self.at_least, int(people * self.percent / 100))


@dataclass(frozen=True, slots=True)
class Limits:
    """Both limits of one destructive kind."""

    per_space: Limit = field(default_factory=Limit)
    organisation: Limit = field(default_factory=Limit)


@dataclass(frozen=True, slots=True)
class World:
    """Desired, observed and recorded together, and the time."""

    desired: Desired
    observed: Observed
    recorded: Recorded
    now: datetime
    """UTC."""
    directory_at: datetime
    """When the reading of the directory in force began. UTC."""
    allowed_users: Sequence[re.Pattern[str]] = ()
    """MXIDs that fully match one of these are never kicked or demoted."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """guards.Kind → limits; kinds not named have the defaults."""
    joins: bool = False
    """True: entitled people with an account are joined, acting as them (`provisioner.membership: join`)."""

    @property
    def roster(self) -> Roster:
        return self.desired.directory.roster

    def mxid(self, person: int) -> str:
        """The full Matrix user id of a person of our homeserver."""
        return self.observed.mxid(self.roster.localpart(person))

    @property
    def newcomers(self) -> People:
        """Active users whose accounts are to be made: they have none, and it is not in doubt who they are, as
        it is of everybody while a switch of source is not settled."""
        if not self.desired.registers or self.desired.switched:
            return NOBODY
        return self.desired.directory.everyone - self.observed.accounts - self.desired.hands_off

    @property
    def reachable(self) -> People:
        """Who has an account, or gets one by this very plan: they can be asked in, and given levels."""
        newcomers = self.newcomers
        return self.observed.accounts | newcomers if newcomers else self.observed.accounts

    @property
    def filling(self) -> bool:
        """The source is filled from outside, and nobody has said yet that it is complete."""
        return self.desired.directory.filling

    @property
    def removes_nobody(self) -> bool:
        """Nothing destructive is done without approval: filling, or in recovery."""
        return self.filling or self.recovering

    @property
    def recovering(self) -> bool:
        """A fresh database met markers of ours, now or earlier: nothing destructive is done."""
        return self.recorded.recovery_since is not None or (self.recorded.fresh and self.observed.has_rooms)
