"""The port ScimStore in memory: for tests of the SCIM bridge that need no database.

Searches go by the same rules as in Postgres (`aim/store/scim_filters.py`), in plain Python.
"""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from aim.errors import StoreError
from aim.ports.scim import (
    ScimAll,
    ScimAny,
    ScimAttribute,
    ScimChanged,
    ScimCompare,
    ScimFilter,
    ScimGrowth,
    ScimInvalidCursor,
    ScimKind,
    ScimMember,
    ScimNot,
    ScimOperator,
    ScimPage,
    ScimPresent,
    ScimQuery,
    ScimResource,
    ScimSnapshot,
    ScimTaken,
)

Value = str | bool | datetime


def folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


class MemoryScim:
    """ScimStore in memory. `loaded` says whose members were read, and how many rows; `away` makes it fail."""

    def __init__(self) -> None:
        self.resources: dict[str, ScimResource] = {}
        self.rows: dict[str, dict[str, None]] = {}
        """Group id → ids of members."""
        self.loaded: list[tuple[str, int]] = []
        self.touched: list[str] = []
        """Ids of the members whose rows were written."""
        self.away = False
        self.races: list[str] = []
        """Ids that somebody else changes right before they are written."""
        self.ready_since: datetime | None = None
        self._revision = 0
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    # -- reading ---------------------------------------------------------------------------------------------

    async def get(self, kind: ScimKind, id_: str) -> ScimResource | None:
        self._check()
        found = self.resources.get(id_)
        return found if found is not None and found.kind is kind else None

    async def search(self, query: ScimQuery) -> ScimPage:
        self._check()
        found = [
            one
            for one in self.resources.values()
            if one.kind in query.kinds and (query.filter is None or self._matches(query.filter, one))
        ]
        found.sort(key=lambda one: self._position(query, one), reverse=query.descending)
        places = [self._position(query, one) for one in found]
        first, last = self._bounds(query, places)
        page = found[first:last]
        if not page:
            return ScimPage(len(found), page)
        return ScimPage(
            len(found),
            page,
            first=places[first],
            last=places[last - 1],
            is_last=last >= len(found),
            is_first=first == 0,
        )

    def _bounds(self, query: ScimQuery, places: Sequence[tuple[str, str]]) -> tuple[int, int]:
        anchor = query.after or query.before
        if anchor is None:
            return query.offset, min(query.offset + query.count, len(places))
        if query.sort_by is ScimAttribute.CREATED and not anchor[0][:1].isdigit():
            raise ScimInvalidCursor("not a time")
        before = sum(1 for place in places if (place > anchor if query.descending else place < anchor))
        if query.after is None:
            return max(before - query.count, 0), before
        first = before + places.count(anchor)
        return first, min(first + query.count, len(places))

    def _position(self, query: ScimQuery, one: ScimResource) -> tuple[str, str]:
        value = next(iter(self._values(query.sort_by, one)), "")
        return value.isoformat() if isinstance(value, datetime) else str(value), one.id

    async def scan(self, kinds: Sequence[ScimKind], at_most: int) -> AsyncIterator[ScimResource]:
        self._check()
        for one in list(self.resources.values())[:at_most]:
            if one.kind in kinds:
                yield one

    async def members(
        self, group_ids: Collection[str], at_most: int | None = None
    ) -> Mapping[str, Sequence[ScimMember]]:
        self._check()
        found = {}
        for id_ in group_ids:
            rows = sorted(map(self._member, self.rows.get(id_, ())), key=lambda one: (one.name, one.id))
            found[id_] = rows[:at_most]
            self.loaded.append((id_, len(found[id_])))
        return found

    async def sizes(self, group_ids: Collection[str], at_most: int) -> Mapping[str, int]:
        self._check()
        return {id_: min(len(self.rows.get(id_, ())), at_most) for id_ in group_ids}

    async def groups_of(self, ids: Collection[str]) -> Mapping[str, Sequence[ScimMember]]:
        self._check()
        return {id_: [self._member(group) for group, rows in self.rows.items() if id_ in rows] for id_ in ids}

    def _member(self, id_: str) -> ScimMember:
        one = self.resources[id_]
        return ScimMember(id_, one.kind, one.name)

    async def snapshot(self) -> ScimSnapshot:
        self._check()
        users = [
            replace(one, document={"displayName": one.document.get("displayName")})
            for one in sorted(self.resources.values(), key=lambda one: one.id)
            if one.kind is ScimKind.USER
        ]
        return ScimSnapshot(
            users=users,
            groups=[one for one in self.resources.values() if one.kind is ScimKind.GROUP],
            members={id_: list(rows) for id_, rows in self.rows.items()},
            revision=self._revision,
            ready_since=self.ready_since,
        )

    async def growth(self) -> ScimGrowth:
        users = [one for one in self.resources.values() if one.kind is ScimKind.USER]
        return ScimGrowth(
            users=len(users),
            active=sum(one.active for one in users),
            groups=len(self.resources) - len(users),
            memberships=sum(map(len, self.rows.values())),
            last_write=self._now,
            ready_since=self.ready_since,
        )

    async def revision(self) -> int:
        self._check()
        return self._revision

    # -- writing ---------------------------------------------------------------------------------------------

    async def create(self, resource: ScimResource, members: Sequence[str] = ()) -> ScimResource:
        self._check()
        self._unique(resource)
        now = self._tick()
        made = replace(resource, version=1, created=now, modified=now)
        self.resources[made.id] = made
        if made.kind is ScimKind.GROUP:
            self.rows[made.id] = dict.fromkeys(id_ for id_ in members if id_ in self.resources)
        return made

    async def replace(
        self,
        resource: ScimResource,
        members: Sequence[str] | None = None,
        expected: int | None = None,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
    ) -> ScimResource | None:
        current = self._current(resource.id, expected)
        if current is None:
            return None
        self._unique(resource)
        if members is None:
            here = self.rows.get(resource.id, {})
            members = [*(id_ for id_ in here if id_ not in remove or id_ in add), *add]
        rows = dict.fromkeys(id_ for id_ in members if id_ in self.resources)
        same = replace(resource, version=current.version, created=current.created, modified=current.modified)
        if same == current and set(rows) == set(self.rows.get(resource.id, {})):
            return current
        if resource.kind is ScimKind.GROUP:
            self.touched += sorted(set(rows) ^ set(self.rows[resource.id]))
            self.rows[resource.id] = rows
        self.resources[resource.id] = same
        return self._touch(resource.id)

    async def change_members(
        self,
        group_id: str,
        add: Collection[str] = (),
        remove: Collection[str] = (),
        expected: int | None = None,
    ) -> ScimResource | None:
        current = self._current(group_id, expected)
        if current is None or current.kind is not ScimKind.GROUP:
            return None
        rows = self.rows[group_id]
        came = {id_ for id_ in add if id_ in self.resources and id_ not in rows}
        left = {id_ for id_ in remove if id_ in rows and id_ not in set(add)}
        if not came and not left:
            return current
        self.touched += sorted(came | left)
        for id_ in left:
            del rows[id_]
        rows.update(dict.fromkeys(sorted(came)))
        return self._touch(group_id)

    async def delete(self, kind: ScimKind, id_: str, expected: int | None = None) -> bool:
        current = self._current(id_, expected)
        if current is None or current.kind is not kind:
            return False
        del self.resources[id_]
        self.rows.pop(id_, None)
        for group, rows in self.rows.items():
            if rows.pop(id_, 0) is None:
                self._touch(group)
        self._tick()
        return True

    async def set_ready(self, since: datetime | None) -> None:
        self.ready_since = since
        self._tick()

    def _current(self, id_: str, expected: int | None) -> ScimResource | None:
        self._check()
        if id_ in self.races:
            self.races.remove(id_)
            self._touch(id_)
        current = self.resources.get(id_)
        if current is not None and expected is not None and current.version != expected:
            raise ScimChanged(f"version {current.version}")
        return current

    def _touch(self, id_: str) -> ScimResource:
        current = self.resources[id_]
        self.resources[id_] = replace(current, version=current.version + 1, modified=self._tick())
        return self.resources[id_]

    def _tick(self) -> datetime:
        self._revision += 1
        self._now += timedelta(milliseconds=1)
        return self._now

    def _unique(self, resource: ScimResource) -> None:
        if resource.kind is ScimKind.USER and any(
            one.kind is ScimKind.USER and one.id != resource.id and folded(one.name) == folded(resource.name)
            for one in self.resources.values()
        ):
            raise ScimTaken(resource.name)

    def _check(self) -> None:
        if self.away:
            raise StoreError("the database does not answer", "start it")

    # -- filters ---------------------------------------------------------------------------------------------

    def _matches(self, filter_: ScimFilter, one: ScimResource) -> bool:
        match filter_:
            case ScimAll():
                return all(self._matches(part, one) for part in filter_.parts)
            case ScimAny():
                return any(self._matches(part, one) for part in filter_.parts)
            case ScimNot():
                return not self._matches(filter_.part, one)
            case ScimPresent():
                return any(value != "" for value in self._values(filter_.attribute, one))
            case ScimCompare(operator=ScimOperator.NE):
                return not self._matches(replace(filter_, operator=ScimOperator.EQ), one)
            case ScimCompare():
                return any(_compared(value, filter_) for value in self._values(filter_.attribute, one))

    def _values(self, attribute: ScimAttribute, one: ScimResource) -> Iterator[Value]:
        display = one.document.get("displayName")
        found: Mapping[ScimAttribute, Sequence[object]] = {
            ScimAttribute.ID: [one.id],
            ScimAttribute.NAME: [folded(one.name)],
            ScimAttribute.DISPLAY_NAME: [folded(display)] if isinstance(display, str) else [],
            ScimAttribute.EXTERNAL_ID: [one.external_id],
            ScimAttribute.ACTIVE: [one.active],
            ScimAttribute.EMAIL: [folded(email) for email in one.emails],
            ScimAttribute.MEMBER: list(self.rows.get(one.id, ())),
            ScimAttribute.CREATED: [one.created],
            ScimAttribute.MODIFIED: [one.modified],
        }
        yield from (value for value in found[attribute] if isinstance(value, str | bool | datetime))


_EXACT = frozenset({ScimAttribute.ID, ScimAttribute.EXTERNAL_ID, ScimAttribute.MEMBER})


def _compared(value: Value, compare: ScimCompare) -> bool:
    wanted = compare.value
    if isinstance(wanted, str) and compare.attribute not in _EXACT:
        wanted = folded(wanted)
    if compare.operator is ScimOperator.EQ:
        return value == wanted
    if isinstance(value, bool) or isinstance(wanted, bool):
        return False
    if isinstance(value, str) and isinstance(wanted, str):
        match compare.operator:
            case ScimOperator.CO:
                return wanted in value
            case ScimOperator.SW:
                return value.startswith(wanted)
            case ScimOperator.EW:
                return value.endswith(wanted)
        return _ordered(value, wanted, compare.operator)
    if isinstance(value, datetime) and isinstance(wanted, datetime):
        return _ordered(value.timestamp(), wanted.timestamp(), compare.operator)
    return False


def _ordered(value: str | float, wanted: str | float, operator: ScimOperator) -> bool:
    sign = (value > wanted) - (value < wanted)  # type: ignore[operator]  # both are of one type
    return {
        ScimOperator.GT: sign > 0,
        ScimOperator.GE: sign >= 0,
        ScimOperator.LT: sign < 0,
        ScimOperator.LE: sign <= 0,
    }.get(operator, False)
