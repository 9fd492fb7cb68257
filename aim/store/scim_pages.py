"""One page of a search over SCIM resources, as a statement.

Between `scim` and `scim_filters`. In comes a query, out go the statement with its arguments, and from its
rows the page. A page that begins behind a cursor is found by comparing (sort value, id), never by counting
rows: what is added or removed elsewhere moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from aim.ports.scim import ScimAttribute, ScimInvalidCursor, ScimKind, ScimPage, ScimQuery
from aim.store.queries import QUERIES
from aim.store.scim_filters import Arguments, condition, moment_of
from aim.store.scim_rows import shown_of, storable

_MOST = 2**62
"""More than there is of anything, and still a bigint."""


@dataclass(frozen=True, slots=True)
class _Sort:
    """What is sorted by."""

    expression: str
    type: str = "text"
    may_be_null: bool = False


_SORTS = {
    ScimAttribute.ID: _Sort("r.id"),
    ScimAttribute.NAME: _Sort("r.name_key"),
    ScimAttribute.DISPLAY_NAME: _Sort("r.display_key", may_be_null=True),
    ScimAttribute.EXTERNAL_ID: _Sort("r.external_key", may_be_null=True),
    ScimAttribute.ACTIVE: _Sort("r.active", "boolean"),
    # The first one (RFC 7644, 3.4.2.3); which one is primary is known to the document only.
    ScimAttribute.EMAIL: _Sort("r.email_keys[1]", may_be_null=True),
    ScimAttribute.MEMBER: _Sort(
        "(select min(m.member_id) from aim.scim_memberships m where m.group_id = r.id)", may_be_null=True
    ),
    ScimAttribute.CREATED: _Sort("r.created", "timestamptz"),
    ScimAttribute.MODIFIED: _Sort("r.modified", "timestamptz"),
}


class Search:
    """A query as a statement."""

    def __init__(self, query: ScimQuery, client: str) -> None:
        """Raises ScimTooComplex, ScimInvalidCursor."""
        self._query = query
        self._sort = _SORTS[query.sort_by]
        self._arguments = Arguments(client)
        self._count = min(max(query.count, 0), _MOST)
        self._offset = min(max(query.offset, 0), _MOST)
        self._cursor = query.after or query.before
        self._backwards = query.after is None and query.before is not None
        self.sql = self._statement()
        self.arguments: Sequence[object] = self._arguments.values

    def page(self, rows: Sequence[asyncpg.Record]) -> ScimPage:
        """The page that the statement's rows are."""
        total, elsewhere = rows[0]["total"], rows[0]["elsewhere"]
        found = [row for row in rows if row["id"] is not None]
        more = len(found) > self._count
        found = found[: self._count]
        if self._backwards:
            found.reverse()
        if self._cursor is None:
            is_first = self._offset == 0 or total == 0
            is_last = self._offset + len(found) >= total
        else:
            is_first, is_last = (not more, not elsewhere) if self._backwards else (not elsewhere, not more)
        return ScimPage(
            total=total,
            resources=[shown_of(row) for row in found],
            first=self._place(found[0]) if found else None,
            last=self._place(found[-1]) if found else None,
            is_first=is_first,
            is_last=is_last,
        )

    def _statement(self) -> str:
        where = self._where()
        # Upwards in the order of the statement, which is the page's or its reverse.
        ascending = self._query.descending is self._backwards
        beyond, elsewhere = "true", "false"
        if self._cursor is not None:
            value, id_ = self._bound(*self._cursor)
            beyond = self._past(value, id_, up=ascending, inclusive=False)
            other = self._past(value, id_, up=not ascending, inclusive=True)
            elsewhere = QUERIES["scim_elsewhere"].format(where=where, beyond=other)
        return QUERIES["scim_search"].format(
            elsewhere=elsewhere,
            with_groups=QUERIES["scim_with_groups"],
            where=where,
            beyond=beyond,
            sort=self._sort.expression,
            direction="asc" if ascending else "desc",
            # One more than asked for tells whether others follow.
            limit=self._arguments.add(self._count + 1, "bigint"),
            offset=self._arguments.add(self._offset if self._cursor is None else 0, "bigint"),
        )

    def _where(self) -> str:
        # Kinds as they are and not as an argument: only so is it known which index holds them.
        kinds = [f"'{kind}'" for kind in ScimKind if kind in self._query.kinds]
        parts = ["r.client = $1"]
        if len(kinds) == 1:
            parts.append(f"r.kind = {kinds[0]}")
        elif not kinds:
            parts.append("false")
        if self._query.filter is not None:
            parts.append(f"({condition(self._query.filter, self._arguments)})")
        return " and ".join(parts)

    def _bound(self, value: str, id_: str) -> tuple[str | None, str]:
        """The cursor's two parts as they stand in the statement; None for the place of no value."""
        decoded = self._decoded(value)
        if storable(id_) != id_:
            raise ScimInvalidCursor("the cursor's id is none")
        bound = None if decoded is None else self._arguments.add(decoded, self._sort.type)
        return bound, self._arguments.add(id_, "text")

    def _past(self, value: str | None, id_: str, *, up: bool, inclusive: bool) -> str:
        """The condition for rows above a place, or below it. Above all values is no value."""
        sort = self._sort.expression
        sign = (">" if up else "<") + ("=" if inclusive else "")
        if value is None:
            same = f"{sort} is null and r.id {sign} {id_}"
            return f"({same})" if up else f"({sort} is not null or {same})"
        past = f"({sort}, r.id) {sign} ({value}, {id_})"
        return f"({sort} is null or {past})" if up and self._sort.may_be_null else past

    def _place(self, row: asyncpg.Record) -> tuple[str, str]:
        value = row["sort_value"]
        if value is None:
            return "", row["id"]
        return f"={value.isoformat() if isinstance(value, datetime) else value}", row["id"]

    def _decoded(self, text: str) -> object:
        if not text and self._sort.may_be_null:
            return None
        value = text.removeprefix("=")
        if value == text or storable(value) != value:
            raise ScimInvalidCursor("the cursor is none of this search")
        try:
            match self._sort.type:
                case "timestamptz":
                    return moment_of(datetime.fromisoformat(value))
                case "boolean":
                    return {"True": True, "False": False}[value]
                case _:
                    return value
        except (ValueError, KeyError):
            raise ScimInvalidCursor("the cursor is none of this search") from None
