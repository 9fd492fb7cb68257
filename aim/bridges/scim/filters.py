"""Filters of clients as filters of the store.

In comes a syntax tree of scim2_models (which this module imports for its nodes; `core` parses and checks);
out goes what the store can search by, and whether that is all of it: a part is enough to find candidates,
which `storage` then looks at one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from scim2_models.path import (
    AttrPath,
    CompareOperator,
    Comparison,
    FilterNode,
    LogicalExpr,
    LogicalOperator,
    Not,
    Present,
    ValuePath,
)

from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.resources import GROUP, SCHEMA, USER
from aim.ports.scim import (
    ScimAll,
    ScimAny,
    ScimAttribute,
    ScimCompare,
    ScimFilter,
    ScimKind,
    ScimNot,
    ScimOperator,
    ScimPresent,
)

_BOTH: Mapping[str, ScimAttribute] = {
    "id": ScimAttribute.ID,
    "externalid": ScimAttribute.EXTERNAL_ID,
    "meta.created": ScimAttribute.CREATED,
    "meta.lastmodified": ScimAttribute.MODIFIED,
}
_USER: Mapping[str, ScimAttribute] = {
    **_BOTH,
    "username": ScimAttribute.NAME,
    "displayname": ScimAttribute.DISPLAY_NAME,
    "active": ScimAttribute.ACTIVE,
    "emails": ScimAttribute.EMAIL,
    "emails.value": ScimAttribute.EMAIL,
}
_GROUP: Mapping[str, ScimAttribute] = {
    **_BOTH,
    "displayname": ScimAttribute.NAME,
    "members": ScimAttribute.MEMBER,
    "members.value": ScimAttribute.MEMBER,
}
_DATES = frozenset({ScimAttribute.CREATED, ScimAttribute.MODIFIED})
_FRAGMENTS = frozenset({CompareOperator.co, CompareOperator.sw, CompareOperator.ew})
MOST_PARTS = 100
"""Comparisons of a filter for which resources are looked at one by one: each costs for each of them."""

_SORTED_BY = frozenset(
    {
        ScimAttribute.ID,
        ScimAttribute.NAME,
        ScimAttribute.CREATED,
        ScimAttribute.MODIFIED,
    }
)
"""What every resource has one of: the others would need a place for those without."""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What of a filter the store can do."""

    filter: ScimFilter | None
    """Whatever the client's filter matches, this matches too; None: everything."""
    exact: bool
    """It matches nothing else."""


UNFILTERED = Narrowed(None, exact=True)
_ANYTHING = Narrowed(None, exact=False)


def narrow(node: FilterNode, kinds: Sequence[ScimKind]) -> Narrowed:
    """The store's filter for resources of these kinds. ScimError for text that none of them can have, and for
    a filter that the store can't do alone if it is too large to be tried on each resource."""
    found = _narrow(node, kinds)
    if not found.exact and _parts(node) > MOST_PARTS:
        raise ScimError(
            400,
            f"a filter of more than {MOST_PARTS} comparisons is on userName, externalId, displayName, "
            "emails.value, id, active, members or meta only",
            "invalidFilter",
        )
    return found


def _parts(node: FilterNode) -> int:
    match node:
        case Not():
            return _parts(node.expr)
        case LogicalExpr():
            return sum(map(_parts, node.terms))
        case ValuePath():
            return _parts(node.val_filter)
        case _:
            return 1


def attributes_of(node: FilterNode) -> frozenset[str]:
    """The attributes that a filter looks at, in lower case, without URN and sub-attribute."""
    match node:
        case Comparison() | Present() | ValuePath():
            return frozenset({node.attr_path.attr.lower()})
        case Not():
            return attributes_of(node.expr)
        case LogicalExpr():
            return frozenset().union(*map(attributes_of, node.terms))
        case _:
            return frozenset()


def _narrow(node: FilterNode, kinds: Sequence[ScimKind]) -> Narrowed:
    found = _ANYTHING
    match node:
        case Comparison():
            found = _comparison(node, kinds)
        case Present():
            found = _present(node, kinds)
        case Not():
            inner = _narrow(node.expr, kinds)
            if inner.filter is not None and inner.exact:
                found = Narrowed(ScimNot(inner.filter), exact=True)
        case LogicalExpr():
            found = _logical(node, kinds)
        case ValuePath():
            found = _selection(node, kinds)
    return found


def sorting(path: str, kinds: Sequence[ScimKind]) -> ScimAttribute | None:
    """What the store sorts by for a client's sortBy; None if it can't."""
    name = path.lower()
    for urn in (USER, GROUP):
        name = name.removeprefix(f"{urn.lower()}:")
    found = _attributes(kinds).get(name)
    return found if found in _SORTED_BY else None


def _attributes(kinds: Sequence[ScimKind]) -> Mapping[str, ScimAttribute]:
    if len(kinds) > 1:
        # Of what only one kind has, the store could not tell whose it is.
        return _BOTH
    return _USER if ScimKind.USER in kinds else _GROUP


def _attribute(path: AttrPath, kinds: Sequence[ScimKind]) -> ScimAttribute | None:
    if path.uri is not None and [path.uri.lower()] != [SCHEMA[kind].lower() for kind in kinds]:
        # Of an extension, or of one kind among several.
        return None
    name = path.attr.lower() if path.sub_attr is None else f"{path.attr}.{path.sub_attr}".lower()
    return _attributes(kinds).get(name)


def _comparison(node: Comparison, kinds: Sequence[ScimKind]) -> Narrowed:
    attribute = _attribute(node.attr_path, kinds)
    _check_text(node.value)
    if attribute is None:
        return _ANYTHING
    if node.value is None:
        return _null(attribute, node.op)
    value = _value(attribute, node)
    if value is None:
        return _ANYTHING
    if node.op is CompareOperator.ne:
        # Of what has none, and of several values that none is equal.
        return Narrowed(ScimNot(ScimCompare(attribute, ScimOperator.EQ, value)), exact=True)
    return Narrowed(ScimCompare(attribute, ScimOperator(node.op.value), value), exact=True)


def _null(attribute: ScimAttribute, op: CompareOperator) -> Narrowed:
    """`eq null`: has none (RFC 7643, 2.5)."""
    if op is CompareOperator.eq:
        return Narrowed(ScimNot(ScimPresent(attribute)), exact=True)
    if op is CompareOperator.ne:
        return Narrowed(ScimPresent(attribute), exact=True)
    return _ANYTHING


def _value(attribute: ScimAttribute, node: Comparison) -> str | bool | datetime | None:
    """The value as the store has it; None if the two can't be compared there."""
    value = node.value
    if attribute in _DATES:
        return None if node.op in _FRAGMENTS else _date(value)
    if attribute is ScimAttribute.ACTIVE:
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower())
        return value if isinstance(value, bool) else None
    return value if isinstance(value, str) else None


def _date(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        return found and (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _check_text(value: object) -> None:
    """Refuses what no text can hold that is stored: NUL, and halves of characters."""
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= char <= "\udfff" for char in value)):
        raise ScimError(400, "the filter compares with text that no attribute can have", "invalidFilter")


def _present(node: Present, kinds: Sequence[ScimKind]) -> Narrowed:
    attribute = _attribute(node.attr_path, kinds)
    if attribute is None or (attribute is ScimAttribute.EMAIL and node.attr_path.sub_attr is None):
        # An address may have a type and no value, and is there all the same.
        return _ANYTHING
    return Narrowed(ScimPresent(attribute), exact=True)


def _logical(node: LogicalExpr, kinds: Sequence[ScimKind]) -> Narrowed:
    terms = [_narrow(term, kinds) for term in node.terms]
    exact = all(term.exact for term in terms)
    filters = [term.filter for term in terms if term.filter is not None]
    if node.op is LogicalOperator.or_:
        return Narrowed(ScimAny(filters), exact) if len(filters) == len(terms) else _ANYTHING
    if not filters:
        return _ANYTHING
    return Narrowed(filters[0] if len(filters) == 1 else ScimAll(filters), exact)


def _selection(node: ValuePath, kinds: Sequence[ScimKind]) -> Narrowed:
    """`emails[…]`, `members[…]`: what is asked of their values narrows it; more conditions are left over."""
    attribute = _attribute(node.attr_path, kinds)
    inner = node.val_filter
    terms = inner.terms if isinstance(inner, LogicalExpr) and inner.op is LogicalOperator.and_ else (inner,)
    for term in terms:
        if isinstance(term, Comparison):
            _check_text(term.value)
    if attribute not in (ScimAttribute.EMAIL, ScimAttribute.MEMBER) or node.attr_path.sub_attr:
        return _ANYTHING
    parts = [
        ScimCompare(attribute, ScimOperator(term.op.value), term.value)
        for term in terms
        if isinstance(term, Comparison)
        and str(term.attr_path).lower() == "value"
        and isinstance(term.value, str)
        and term.op in (*_FRAGMENTS, CompareOperator.eq)
    ]
    if not parts:
        return _ANYTHING
    return Narrowed(parts[0] if len(parts) == 1 else ScimAll(parts), exact=len(terms) == 1)
