"""The directory that others push to us by SCIM, as it is stored.

Implemented by `store`, asked by `bridges.scim`.

A resource is its JSON document as the client gave it, without `id`, `meta` and (groups) `members`, and a few
columns of it that are searched by. Members are rows of their own: whoever changes two members of ten thousand
touches two rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol


class ScimKind(StrEnum):
    """The resource types (RFC 7643, 4)."""

    USER = "User"
    GROUP = "Group"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScimResource:
    """One resource as it is stored, or is to be."""

    kind: ScimKind
    id: str
    """Ours, never changes, is never given again."""
    name: str
    """`userName` of a user, `displayName` of a group."""
    external_id: str | None = None
    active: bool = True
    """Of a user; True for a group."""
    localpart: str | None = None
    """Of a user: what `attributeMapping.username` gives, as a localpart; None if that is none."""
    emails: Sequence[str] = ()
    """`emails.value` of a user."""
    document: Mapping[str, object] = field(default_factory=dict)
    """JSON as the client gave it, without `id`, `meta` and `members`."""
    version: int = 1
    """Grows with each change."""
    created: datetime | None = None
    modified: datetime | None = None
    """UTC; the store's business."""
    groups: Sequence[ScimMember] | None = field(default=None, compare=False)
    """Of a user: the groups they are in, if the store read them along; None: `groups_of` tells. Never stored
    with them."""


class ScimMember(NamedTuple):
    """A member of a group. A tuple, because ten thousand are made at once."""

    id: str
    """Of a user or a group that is stored."""
    kind: ScimKind
    name: str = ""
    """What `display` says: the member's own name at the moment."""


class ScimOperator(StrEnum):
    """Comparison operators (RFC 7644, 3.4.2.2).

    Text is compared in Unicode normalisation form C, and in lower case where the attribute ignores case. An
    attribute without a value compares with nothing. Of several values any one will do. `ne` is the opposite
    of `eq`, in every case; what can't be compared, as a date with a text, is not equal.
    """

    EQ = "eq"
    NE = "ne"
    CO = "co"
    SW = "sw"
    EW = "ew"
    GT = "gt"
    GE = "ge"
    LT = "lt"
    LE = "le"


class ScimAttribute(StrEnum):
    """What the store can search and sort by."""

    ID = "id"
    NAME = "name"
    """`userName` or `displayName` of the resource's own kind; case-insensitive."""
    DISPLAY_NAME = "displayName"
    """Of a user and of a group; case-insensitive."""
    EXTERNAL_ID = "externalId"
    """Case-sensitive."""
    ACTIVE = "active"
    EMAIL = "emails.value"
    """Any of them; case-insensitive."""
    MEMBER = "members.value"
    """Any of them."""
    CREATED = "meta.created"
    MODIFIED = "meta.lastModified"


@dataclass(frozen=True, slots=True)
class ScimCompare:
    """An attribute compared with a value."""

    attribute: ScimAttribute
    operator: ScimOperator
    value: str | bool | datetime


@dataclass(frozen=True, slots=True)
class ScimPresent:
    """An attribute that has a value (`pr`)."""

    attribute: ScimAttribute


@dataclass(frozen=True, slots=True)
class ScimAll:
    """`and`"""

    parts: Sequence[ScimFilter]


@dataclass(frozen=True, slots=True)
class ScimAny:
    """`or`"""

    parts: Sequence[ScimFilter]


@dataclass(frozen=True, slots=True)
class ScimNot:
    """`not`"""

    part: ScimFilter


ScimFilter = ScimCompare | ScimPresent | ScimAll | ScimAny | ScimNot


@dataclass(frozen=True, slots=True, kw_only=True)
class ScimQuery:
    """One page of a search. The order is total: what is equal is ordered by id. What has no value comes last;
    descending is the exact reverse."""

    kinds: Sequence[ScimKind]
    filter: ScimFilter | None = None
    sort_by: ScimAttribute = ScimAttribute.CREATED
    descending: bool = False
    count: int = 100
    offset: int = 0
    after: tuple[str, str] | None = None
    """Instead of an offset: sort value and id of the last one of the page before, as the store gave them."""
    before: tuple[str, str] | None = None
    """The same of the first one of the page after."""


@dataclass(frozen=True, slots=True)
class ScimPage:
    """What was found."""

    total: int
    resources: Sequence[ScimResource]
    first: tuple[str, str] | None = None
    last: tuple[str, str] | None = None
    """Where the page begins and ends, for `before` and `after`; None if it is empty."""
    is_last: bool = True
    is_first: bool = True


class ScimTaken(Exception):
    """A `userName` that another user has (RFC 7644, 3.12, uniqueness)."""


class ScimChanged(Exception):
    """The resource has another version than was expected."""


class ScimTooLong(Exception):
    """A name, `displayName`, `externalId` or e-mail address that is too long to be searched by; the text
    names the attribute."""


class ScimTooComplex(Exception):
    """A filter with more parts, or nested deeper, than the store takes."""


class ScimInvalidCursor(Exception):
    """`after` or `before` is not as the store gave it, or is of a search sorted by something else."""


@dataclass(frozen=True, slots=True)
class ScimGrowth:
    """How full the store is."""

    users: int
    active: int
    groups: int
    memberships: int
    last_write: datetime | None
    ready_since: datetime | None
    """None: it is still filling."""


class ScimStore(Protocol):
    """Users, groups and memberships. Each method is one transaction; what it acknowledged survives a crash.

    All raise StoreError; absence is None. May be used by many requests at once.
    """

    async def get(self, kind: ScimKind, id_: str) -> ScimResource | None: ...

    async def search(self, query: ScimQuery) -> ScimPage:
        """One page, and how many there are in all. Raises ScimTooComplex, ScimInvalidCursor."""
        ...

    def scan(self, kinds: Sequence[ScimKind], at_most: int) -> AsyncIterator[ScimResource]:
        """All of these kinds in order of creation, at most so many."""
        ...

    async def create(self, resource: ScimResource, members: Sequence[str] = ()) -> ScimResource:
        """Stores it with these members (ids; those that are not stored are left out). Raises ScimTaken,
        ScimTooLong."""
        ...

    async def replace(
        self,
        resource: ScimResource,
        members: Sequence[str] | None = None,
        expected: int | None = None,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
    ) -> ScimResource | None:
        """Stores it instead of the one with its id; `members` None: they stay, but for `add` and `remove`, as
        of `change_members`. Nothing is written, and the version stays, if nothing differs. Raises ScimTaken,
        ScimTooLong, and ScimChanged if the version is not `expected`."""
        ...

    async def change_members(
        self,
        group_id: str,
        add: Collection[str] = (),
        remove: Collection[str] = (),
        expected: int | None = None,
    ) -> ScimResource | None:
        """Adds and removes these, and touches no other row of a membership; who is named twice is added.
        Nothing is written, and the version stays, if nobody came or went. Raises ScimChanged."""
        ...

    async def delete(self, kind: ScimKind, id_: str, expected: int | None = None) -> bool:
        """Removes it and its memberships on both sides; the groups that it was in have a new version. False
        if there was none. Raises ScimChanged."""
        ...

    async def members(
        self, group_ids: Collection[str], at_most: int | None = None
    ) -> Mapping[str, Sequence[ScimMember]]:
        """Of each of these groups, sorted by name, then id. With `at_most`, of each only so many are read,
        whichever come first: enough to tell small groups from large ones."""
        ...

    async def sizes(self, group_ids: Collection[str], at_most: int) -> Mapping[str, int]:
        """How many members each of these groups has, counted up to `at_most`."""
        ...

    async def groups_of(self, ids: Collection[str]) -> Mapping[str, Sequence[ScimMember]]:
        """The groups that each of these is a direct member of."""
        ...

    async def snapshot(self) -> ScimSnapshot:
        """Everything, as one snapshot, for a Directory."""
        ...

    async def growth(self) -> ScimGrowth: ...

    async def revision(self) -> int:
        """A number that grows with every change."""
        ...

    async def set_ready(self, since: datetime | None) -> None:
        """The store holds all that it should, since then; None: it is filling again."""
        ...


@dataclass(frozen=True, slots=True)
class ScimSnapshot:
    """All of it at one moment."""

    users: Sequence[ScimResource]
    """Sorted by id; without documents but for `displayName`."""
    groups: Sequence[ScimResource]
    members: Mapping[str, Sequence[str]]
    """Group id → ids of its direct members."""
    revision: int
    ready_since: datetime | None
