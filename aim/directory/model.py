"""The directory: the complete, flattened snapshot that a bridge gives. Plain frozen data.

Comes from `flatten` (LDAP, LDIF) or from another bridge; goes into the world. Knows nothing of Matrix but
how a localpart looks. A Directory is complete by definition: a read that was not is an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from aim.directory.roster import NOBODY, People, Roster


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Problem(NamedTuple):
    """Something a person should know: shown in the plan, the log and by `aim directory`. Sorts as it is."""

    severity: Severity
    subject: str
    """What it is about: a DN, an MXID, a space id, a config key."""
    message: str


@dataclass(frozen=True, slots=True)
class User:
    """A person in the directory. Identity is (source, id); everything else may change."""

    id: str
    """Never changes: entryUUID, objectGUID, Graph id, SCIM id; the canonical DN for want of a better one."""
    uid: str
    """The user name as the source spells it, before it becomes a localpart."""
    localpart: str
    display_name: str | None = None
    emails: tuple[str, ...] = ()
    """Sorted, without duplicates."""
    active: bool = True
    """False for an account that the source marks as disabled."""
    dn: str | None = None
    """As the server spells it; None where the source has no DNs."""
    weak_id: bool = False
    """True if `id` is only a DN: such an id never leads to a lock or an erasure."""
    avatar: str | None = None
    """SHA-256 of their picture in hex, if the configuration names an attribute for it: tells when it changes.
    The picture itself is not kept."""


class GroupKind(StrEnum):
    GROUP = "group"
    OU = "ou"
    DOMAIN = "domain"


@dataclass(frozen=True, slots=True)
class Group:
    """A container of people: a group, an organisational unit or a domain, all alike for space mapping."""

    id: str
    """What `externalId` names: the DN as the server spells it, the Graph object id, the SCIM id."""
    kind: GroupKind
    name: str
    members: People
    """Active users, those of nested groups and of everything below in the tree included."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A unit or domain as a place in the source's tree."""

    id: str
    """Stays when the unit is renamed or moved: entryUUID, objectGUID; else the canonical DN."""
    group: int
    """Position of its container in `Directory.groups`."""
    parent: str | None
    """Id of the nearest unit or domain above it that was read."""


def same(external_id: str) -> str:
    """The comparison key of a source whose ids are compared as they are (Graph, SCIM)."""
    return external_id


@dataclass(frozen=True, slots=True)
class Directory:
    """One complete snapshot of one source."""

    source: str
    """Type of the source: ldif, ldap, ms-graph-ad, scim."""
    name: str
    """What the organisation is called there: the name of the one space when none is configured."""
    roster: Roster
    users: tuple[User, ...]
    """Sorted by id. Only users whom a localpart names without doubt: see `contested` and `unresolved`."""
    groups: tuple[Group, ...]
    """Sorted by id."""
    everyone: People
    """All active users: what `externalId: ''` means."""
    problems: tuple[Problem, ...] = ()
    """What was skipped and why. Sorted."""
    contested: People = NOBODY
    """Localparts that two or more users map to: none of them is touched, in either direction."""
    unresolved: frozenset[str] = frozenset()
    """Ids of entries that are people but could not be made users (no uid, say): if known, left alone."""
    keys: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Comparison key of an external id → positions in `groups`. Several: a name that groups share."""
    key_of: Callable[[str], str] = same
    """Makes the comparison key of an external id (for LDAP: the canonical form of a DN, RFC 4514)."""

    tree: tuple[Branch, ...] = ()
    """The units and domains as they are nested, sorted by id. Empty where the source has no tree."""
    filling: bool = False
    """Filled from outside, and nobody has said yet that all are in it: nobody may go because of it."""

    def branches(self) -> Mapping[str | None, Sequence[Branch]]:
        """Id of a unit → those right below it; None → those at the top."""
        below: dict[str | None, list[Branch]] = defaultdict(list)
        for branch in self.tree:
            below[branch.parent].append(branch)
        return below

    def find(self, external_id: str) -> tuple[Group, ...]:
        """The groups that `external_id` names: none, one, or all those that share the name."""
        return tuple(self.groups[position] for position in self.keys.get(self.key_of(external_id), ()))
