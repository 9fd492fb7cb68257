"""What Microsoft Graph told us, as it is stored: enough to ask only for what has changed since.

Implemented by `store`, asked by `bridges.msgraph`. It is what Graph said and no directory yet: no rule of
ours has been applied to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol


class GraphUser(NamedTuple):
    """A user of the tenant, with the properties that we ask for. None: has no such value."""

    id: str
    principal_name: str | None = None
    """`userPrincipalName`."""
    username: str | None = None
    """The property that the localpart is made of."""
    display_name: str | None = None
    mail: str | None = None
    enabled: bool | None = None
    """`accountEnabled`; None where Graph does not tell."""
    user_type: str | None = None
    """`Member` or `Guest`."""


class GraphGroup(NamedTuple):
    """A group of the tenant."""

    id: str
    name: str | None = None
    """`displayName`."""
    nickname: str | None = None
    """`mailNickname`."""


Members = dict[str, bool]
"""Direct members of a group: id → whether it is a group. Users, groups, and what Graph gives no type of."""


@dataclass(frozen=True, slots=True)
class GroupsLink:
    """Where changes of groups are asked for."""

    link: str
    ids: tuple[str, ...] = ()
    """Of these groups, whether or not they exist; none: of all."""


@dataclass(frozen=True, slots=True)
class GraphLinks:
    """Delta links: each has all in it that changed since what is stored beside it."""

    users: str
    groups: tuple[GroupsLink, ...]


@dataclass(slots=True)
class GraphState:
    """All that Graph told, up to its links. Changed in place by `bridges.msgraph.memory` alone."""

    name: str | None
    """Of the organisation; None if Graph does not tell."""
    users: dict[str, GraphUser]
    """By id."""
    groups: dict[str, GraphGroup]
    """By id."""
    members: dict[str, Members]
    """By group id; no key for an empty group."""
    links: GraphLinks
    read_at: datetime
    """When the last complete read began. UTC."""
    revision: int = 0
    """Grows whenever users, groups or members are others than before."""
    version: int = 0
    """Grows with each record in the store; 0: not stored."""


@dataclass(frozen=True, slots=True)
class GraphChanges:
    """What is other than before."""

    users: Sequence[GraphUser] = ()
    """New, or with other properties."""
    users_gone: Sequence[str] = ()
    groups: Sequence[GraphGroup] = ()
    groups_gone: Sequence[str] = ()
    """Their memberships are gone with them."""
    added: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """Members by group id."""
    removed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By group id: ids of members. Done before `added`."""

    def __bool__(self) -> bool:
        parts = (self.users, self.users_gone, self.groups, self.groups_gone, self.added, self.removed)
        return any(parts)


class GraphMoved(Exception):
    """Somebody else has recorded something meanwhile: what is known has to be loaded anew."""


class GraphBack(Exception):
    """Somebody who was erased is enabled again, and what was known of them is forgotten: all has to be read
    anew."""


class GraphReader(Protocol):
    """What is stored of one tenant, read in one way."""

    async def load(self) -> GraphState | None:
        """All of it, as of one moment; None if nothing is stored, or it was read in another way. Raises
        StoreError."""
        ...


class GraphStore(GraphReader, Protocol):
    """The same, for whoever follows the changes. Each method is one transaction. All raise StoreError, and
    GraphMoved if what is stored is not the version that the caller knows; then nothing is written.

    Of whoever was erased nothing is stored as long as they are disabled.
    """

    async def replace(self, state: GraphState, known: int | None) -> int:
        """Stores this instead of whatever is there, of another tenant too, with its revision. `known` is the
        version that `load` gave, None if it gave nothing. Gives the new version."""
        ...

    async def record(self, changes: GraphChanges, links: GraphLinks, revision: int, known: int) -> int:
        """Stores the changes, and with them the links and the revision that belong to them. Gives the new
        version. Raises GraphBack, too; then nothing is written."""
        ...
