"""Resources over the port: one by id, and pages of what a search finds.

In come checked searches (`core`); out go stored resources with the members and groups that the answer shows,
and no others. What the store can't answer, it narrows, and the rest is looked at one by one, up to a limit.
Large groups make a page shorter than was asked for (RFC 7644, 3.4.2.4): so many members are never in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from aim.bridges.scim.core import Core, Search
from aim.bridges.scim.errors import ScimError, invalid_value, not_found, taken, too_many
from aim.bridges.scim.filters import UNFILTERED, Narrowed, attributes_of, narrow, sorting
from aim.bridges.scim.projection import WHOLE, Projection
from aim.bridges.scim.resources import render
from aim.ports.scim import (
    ScimAttribute,
    ScimFilter,
    ScimInvalidCursor,
    ScimKind,
    ScimMember,
    ScimPage,
    ScimQuery,
    ScimResource,
    ScimStore,
    ScimTaken,
    ScimTooComplex,
    ScimTooLong,
)

MOST_SCANNED = 10_000
"""Resources that are looked at one by one for one search."""
MOST_MEMBERS = 100_000
"""Memberships on a page, or of those that are looked at together; one group may have more."""
_BATCH = 100
"""Of them at a time, before others get their turn."""
_FURTHEST = 2**31 - 1
"""No page begins behind it."""

_Key = tuple[bool, Any, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A page."""

    total: int
    resources: Sequence[ScimResource]
    next: object = None
    """Position of the next page, as JSON, if there is one and pages go by cursor; `previous` the same."""
    previous: object = None


@dataclass(frozen=True, slots=True)
class Related:
    """What some resources are shown with."""

    members: Mapping[str, Sequence[ScimMember]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[ScimMember]] = field(default_factory=dict)

    def render(self, resource: ScimResource, base: str, wanted: Projection = WHOLE) -> dict[str, object]:
        return render(
            resource,
            base,
            wanted,
            members=self.members.get(resource.id, ()),
            groups=self.groups.get(resource.id, ()),
        )


class Storage:
    """Reads for clients. Raises ScimError, and StoreError as the store does."""

    def __init__(self, store: ScimStore, core: Core) -> None:
        self._store = store
        self._core = core

    async def get(self, kind: ScimKind, id_: str) -> ScimResource:
        found = await self._store.get(kind, id_)
        if found is None:
            raise not_found(f"there is no {kind.value} with this id")
        return found

    async def related(self, resources: Sequence[ScimResource], wanted: Projection = WHOLE) -> Related:
        """The members of groups and the groups of users among these, if the answer shows them."""
        groups = [one.id for one in resources if one.kind is ScimKind.GROUP]
        users = [one.id for one in resources if one.kind is ScimKind.USER and one.groups is None]
        told = {one.id: one.groups for one in resources if one.groups}
        asked = await self._store.groups_of(users) if users and wanted.keeps("groups") else {}
        members = await self._store.members(groups) if groups and wanted.keeps("members") else {}
        return Related(members, {**asked, **told})

    async def few_members(self, group_id: str, at_most: int) -> Sequence[ScimMember] | None:
        """The members of a group, or None if they are more; then only one more than that was read."""
        found = (await self._store.members([group_id], at_most + 1)).get(group_id, ())
        return found if len(found) <= at_most else None

    async def search(self, search: Search) -> Found:
        """One page. ScimError `tooMany` if too many would have to be looked at."""
        found = await self._found(search)
        if not search.projection.keeps("members"):
            return found
        # What a cursor leads back to is the end of its page, which is the side to keep then.
        backwards = _is_backwards(search.position)
        fitting = await self._fitting(found.resources[::-1] if backwards else found.resources)
        if fitting == len(found.resources):
            return found
        return await self._found(replace(search, count=fitting))

    async def _found(self, search: Search) -> Found:
        narrowed = UNFILTERED if search.filter is None else narrow(search.filter, search.kinds)
        by = ScimAttribute.CREATED if search.sort_by is None else sorting(search.sort_by, search.kinds)
        if narrowed.exact and by is not None:
            return await self._page(search, narrowed.filter, by)
        return await self._scanned(search, narrowed)

    async def _fitting(self, resources: Sequence[ScimResource]) -> int:
        """How many of these, from the first one, are shown with their members at once."""
        groups = [one.id for one in resources if one.kind is ScimKind.GROUP]
        if len(groups) < 2:
            return len(resources)
        sizes = await self._store.sizes(groups, MOST_MEMBERS + 1)
        total = 0
        for number, resource in enumerate(resources):
            total += sizes.get(resource.id, 0)
            if total > MOST_MEMBERS and number > 0:
                return number
        return len(resources)

    # -- by the store ----------------------------------------------------------------------------------------

    async def _page(self, search: Search, filter_: ScimFilter | None, by: ScimAttribute) -> Found:
        after, before = _positions(search.position)
        query = ScimQuery(
            kinds=search.kinds,
            filter=filter_,
            sort_by=by,
            descending=search.descending,
            count=search.count,
            offset=0 if search.start_index is None else min(search.start_index - 1, _FURTHEST),
            after=after,
            before=before,
        )
        with refusals():
            page = await self._store.search(query)
        if search.start_index is not None or search.count == 0:
            return Found(page.total, page.resources)
        return Found(page.total, page.resources, *_neighbours(page))

    # -- one by one ------------------------------------------------------------------------------------------

    async def _scanned(self, search: Search, narrowed: Narrowed) -> Found:
        keyed: list[tuple[_Key, ScimResource]] = []
        seen = 0
        async for batch in self._batches(search.kinds, narrowed.filter):
            seen += len(batch)
            if seen > MOST_SCANNED:
                raise too_many(
                    f"this would have to look at more than {MOST_SCANNED} resources one by one: filter by "
                    "userName, externalId, displayName, emails.value, id, active, members or meta, and sort "
                    "by userName, displayName or meta"
                )
            keyed += await self._matching(search, narrowed, batch)
            await asyncio.sleep(0)
        keyed.sort(key=lambda pair: pair[0], reverse=search.descending and search.sort_by is not None)
        return _cut(search, keyed)

    async def _batches(
        self, kinds: Sequence[ScimKind], filter_: ScimFilter | None
    ) -> AsyncIterator[Sequence[ScimResource]]:
        """Everything that matches the store's filter, a batch at a time."""
        if filter_ is None:
            batch: list[ScimResource] = []
            async for resource in self._store.scan(kinds, MOST_SCANNED + 1):
                batch.append(resource)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
            yield batch
            return
        after = None
        while True:
            query = ScimQuery(kinds=kinds, filter=filter_, count=_BATCH, after=after)
            with refusals():
                page = await self._store.search(query)
            yield page.resources
            after = page.last
            if page.is_last or after is None:
                return

    async def _matching(
        self, search: Search, narrowed: Narrowed, batch: Sequence[ScimResource]
    ) -> Sequence[tuple[_Key, ScimResource]]:
        """Those of the batch that the client's filter matches, with what they are sorted by."""
        only: dict[str, frozenset[str] | None] = dict.fromkeys(_looked_at(search) & {"members", "groups"})
        wanted = Projection(only=only)

        def chosen(some: Sequence[ScimResource], related: Related) -> list[tuple[_Key, ScimResource]]:
            shown = [(one, _shown(one, related)) for one in some]
            return [
                (self._key(search, one, json), one)
                for one, json in shown
                if narrowed.exact or self._core.matches(search, json)
            ]

        found: list[tuple[_Key, ScimResource]] = []
        while batch:
            some = batch[: await self._fitting(batch)] if "members" in only else batch
            batch = batch[len(some) :]
            related = await self.related(some, wanted)
            # Whoever asks about members has each of them looked at: others go on meanwhile.
            found += await asyncio.to_thread(chosen, some, related) if only else chosen(some, related)
        return found

    def _key(self, search: Search, resource: ScimResource, shown: Mapping[str, object]) -> _Key:
        value = resource.created if search.sort_by is None else self._core.sort_value(search, shown)
        return value is None, value if value is not None else "", resource.id


def _looked_at(search: Search) -> frozenset[str]:
    """The attributes that the filter and the order look at, in lower case."""
    filtered = frozenset() if search.filter is None else attributes_of(search.filter)
    by = (search.sort_by or "").lower().partition("[")[0].rpartition(":")[2].partition(".")[0]
    return filtered | {by}


def _shown(resource: ScimResource, related: Related) -> Mapping[str, object]:
    """The resource as JSON, with the names of members, and with what holds although it was not said."""
    members, groups = related.members.get(resource.id, ()), related.groups.get(resource.id, ())
    shown = render(resource, "", members=members, groups=groups, named=True)
    return shown if resource.kind is ScimKind.GROUP else {"active": resource.active, **shown}


def _is_backwards(position: Any) -> bool:
    return isinstance(position, list | tuple) and len(position) > 0 and position[0] == "previous"


def _positions(position: Any) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """`after` and `before` of a position that `_neighbours` gave."""
    if position is None:
        return None, None
    try:
        (direction, value, id_) = position
    except (TypeError, ValueError) as error:
        raise _bad_cursor() from error
    if not isinstance(value, str) or not isinstance(id_, str):
        raise _bad_cursor()
    return ((value, id_), None) if direction == "next" else (None, (value, id_))


def _neighbours(page: ScimPage) -> tuple[object, object]:
    return (
        None if page.is_last or page.last is None else ["next", *page.last],
        None if page.is_first or page.first is None else ["previous", *page.first],
    )


@contextmanager
def refusals() -> Iterator[None]:
    """Refusals of the store become ours; but for ScimChanged, of which it depends what is made."""
    try:
        yield
    except ScimTaken as error:
        raise taken() from error
    except ScimTooLong as error:
        raise invalid_value(str(error)) from error
    except ScimTooComplex as error:
        raise ScimError(400, str(error), "invalidFilter") from error
    except ScimInvalidCursor as error:
        raise _bad_cursor() from error


def _bad_cursor() -> ScimError:
    return ScimError(400, "the cursor is none of ours", "invalidCursor")


def _cut(search: Search, keyed: Sequence[tuple[_Key, ScimResource]]) -> Found:
    """The page of a whole sorted result."""
    total = len(keyed)
    if search.start_index is not None:
        first = min(search.start_index - 1, total)
        return Found(total, [one for _, one in keyed[first : first + search.count]])
    first, last = _bounds(search, [_plain(key) for key, _ in keyed])
    page = [one for _, one in keyed[first:last]]
    if not page:
        return Found(total, page)
    return Found(
        total,
        page,
        None if last >= total else ["next", *_plain(keyed[last - 1][0])],
        None if first == 0 else ["previous", *_plain(keyed[first][0])],
    )


def _plain(key: _Key) -> list[Any]:
    """The key as JSON."""
    missing, value, id_ = key
    return [missing, value.isoformat() if isinstance(value, datetime) else value, id_]


def _bounds(search: Search, keys: Sequence[list[Any]]) -> tuple[int, int]:
    """Where the page of a cursor begins and ends. Keys are sorted; who left meanwhile is looked for by its
    place among them."""
    if search.position is None:
        return 0, min(search.count, len(keys))
    try:
        direction, *anchor = search.position
        reverse = search.descending and search.sort_by is not None
        before = sum(1 for key in keys if (key > anchor if reverse else key < anchor))
        here = sum(1 for key in keys if key == anchor)
    except (TypeError, ValueError) as error:
        raise _bad_cursor() from error
    if direction == "next":
        first = before + here
        return first, min(first + search.count, len(keys))
    return max(before - search.count, 0), before
