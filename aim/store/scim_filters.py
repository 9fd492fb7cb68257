"""Filters of SCIM become SQL conditions.

Between `scim_pages` and `scim_rows`. In comes a filter, out goes a condition on a row `r` of scim_resources
that is true or false and never null, so that `not` is its opposite; the filter's values are arguments. There
is no LIKE, so nothing in a value is a wildcard; equality and `sw` can use an index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aim.ports.scim import (
    ScimAll,
    ScimAny,
    ScimAttribute,
    ScimCompare,
    ScimFilter,
    ScimNot,
    ScimOperator,
    ScimPresent,
    ScimTooComplex,
)
from aim.store.scim_rows import exact_key, folded_key, storable

_DEEPEST = 50
_MOST_PARTS = 1_000
_ORDER = {ScimOperator.GT: ">", ScimOperator.GE: ">=", ScimOperator.LT: "<", ScimOperator.LE: "<="}
_TEXTS = {
    ScimAttribute.ID: ("r.id", storable),
    ScimAttribute.NAME: ("r.name_key", folded_key),
    ScimAttribute.DISPLAY_NAME: ("r.display_key", folded_key),
    ScimAttribute.EXTERNAL_ID: ("r.external_key", exact_key),
}
"""The column, and what a value is compared as."""
_NEVER_NULL = (ScimAttribute.ID, ScimAttribute.NAME)
_MOMENTS = {ScimAttribute.CREATED: "r.created", ScimAttribute.MODIFIED: "r.modified"}
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_LAST_CHARACTER = chr(0x10FFFF)
_SURROGATES = range(0xD800, 0xE000)


class Arguments:
    """The arguments of one statement, in order."""

    def __init__(self, *values: object) -> None:
        self.values: list[object] = list(values)

    def add(self, value: object, kind: str) -> str:
        """Appends a value of the SQL type `kind`; gives what stands for it in the statement."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def condition(filter_: ScimFilter, arguments: Arguments) -> str:
    """The condition for `filter_`; its values are added to `arguments`. Raises ScimTooComplex."""
    return _Translation(arguments).condition(filter_)


def moment_of(value: datetime) -> datetime:
    """`value` in UTC; without a time zone it is in UTC already. What lies beyond our calendar is its end."""
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        return _FIRST if value.year == _FIRST.year else _LAST


class _Translation:
    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._parts = 0

    def condition(self, filter_: ScimFilter, depth: int = 0) -> str:
        self._parts += 1
        if depth > _DEEPEST or self._parts > _MOST_PARTS:
            raise ScimTooComplex(f"the filter has more than {_MOST_PARTS} parts, or {_DEEPEST} levels")
        match filter_:
            case ScimCompare():
                return self._compared(filter_)
            case ScimPresent():
                return _present(filter_.attribute)
            case ScimNot():
                return f"not ({self.condition(filter_.part, depth + 1)})"
            case ScimAll():
                return self._joined(" and ", "true", filter_.parts, depth)
            case ScimAny():
                return self._joined(" or ", "false", filter_.parts, depth)

    def _joined(self, word: str, empty: str, parts: Sequence[ScimFilter], depth: int) -> str:
        return word.join(f"({self.condition(part, depth + 1)})" for part in parts) or empty

    def _compared(self, compare: ScimCompare) -> str:
        attribute, operator = compare.attribute, compare.operator
        if operator is ScimOperator.NE:
            return f"not ({self._compared(replace(compare, operator=ScimOperator.EQ))})"
        match compare.value:
            case bool(value) if attribute is ScimAttribute.ACTIVE:
                return self._boolean(operator, value)
            case datetime() as value if attribute in _MOMENTS:
                return self._moment(_MOMENTS[attribute], operator, value)
            case str(value):
                return self._string(attribute, operator, value)
            case _:
                return "false"

    def _string(self, attribute: ScimAttribute, operator: ScimOperator, value: str) -> str:
        match attribute:
            case ScimAttribute.EMAIL:
                return self._email(operator, value)
            case ScimAttribute.MEMBER:
                return self._member(operator, value)
            case ScimAttribute.ACTIVE | ScimAttribute.CREATED | ScimAttribute.MODIFIED:
                return "false"
            case _:
                column, key_of = _TEXTS[attribute]
                compared = self._text(column, operator, value, key_of)
                return compared if attribute in _NEVER_NULL else f"({column} is not null and {compared})"

    def _boolean(self, operator: ScimOperator, value: bool) -> str:
        if operator is not ScimOperator.EQ:
            return "false"
        return "r.active" if value else "not r.active"

    def _moment(self, column: str, operator: ScimOperator, value: datetime) -> str:
        sign = "=" if operator is ScimOperator.EQ else _ORDER.get(operator)
        if sign is None:
            return "false"
        return f"{column} {sign} {self._arguments.add(moment_of(value), 'timestamptz')}"

    def _email(self, operator: ScimOperator, value: str) -> str:
        if operator is ScimOperator.EQ and storable(value) == value:
            compared = f"r.email_keys @> {self._arguments.add([folded_key(value)], 'text[]')}"
        else:
            each = self._text("e.key", operator, value, folded_key)
            compared = f"exists (select from unnest(r.email_keys) as e (key) where {each})"
        # As the index says it.
        return f"(r.email_keys <> '{{}}' and {compared})"

    def _member(self, operator: ScimOperator, value: str) -> str:
        each = self._text("m.member_id", operator, value, storable)
        return f"exists (select from aim.scim_memberships m where m.group_id = r.id and {each})"

    def _text(self, column: str, operator: ScimOperator, value: str, key_of: Callable[[str], str]) -> str:
        if storable(value) != value:
            # Nothing stored holds such characters.
            return "false"
        key = key_of(value)
        match operator:
            case ScimOperator.CO:
                return f"strpos({column}, {self._arguments.add(key, 'text')}) > 0"
            case ScimOperator.SW:
                return self._begins(column, key)
            case ScimOperator.EW:
                end = self._arguments.add(key, "text")
                return f"right({column}, length({end})) = {end}"
            case ScimOperator.EQ | ScimOperator.NE:
                return f"{column} = {self._arguments.add(key, 'text')}"
            case _:
                return f"{column} {_ORDER[operator]} {self._arguments.add(key, 'text')}"

    def _begins(self, column: str, key: str) -> str:
        # As a range, which an index gives.
        begins = f"{column} >= {self._arguments.add(key, 'text')}"
        after = _after(key)
        return begins if after is None else f"{begins} and {column} < {self._arguments.add(after, 'text')}"


def _present(attribute: ScimAttribute) -> str:
    match attribute:
        case ScimAttribute.EMAIL:
            return "exists (select from unnest(r.email_keys) as e (key) where e.key <> '')"
        case ScimAttribute.MEMBER:
            return "exists (select from aim.scim_memberships m where m.group_id = r.id)"
        case ScimAttribute.ACTIVE | ScimAttribute.CREATED | ScimAttribute.MODIFIED:
            return "true"
        case _:
            column, _ = _TEXTS[attribute]
            return f"({column} is not null and {column} <> '')"


def _after(prefix: str) -> str | None:
    """The first text, by code points, after all that begin with `prefix`; None if there is none."""
    kept = prefix.rstrip(_LAST_CHARACTER)
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
