"""What Graph's JSON objects mean: properties, members, removals. Pure.

In come items as Graph gives them, out go our words for them. A delta item holds only what has changed: what
is missing in it is as before, and null means that it has no value any more
(https://learn.microsoft.com/graph/delta-query-overview).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from aim.bridges.msgraph.graph import Item
from aim.errors import SourceInvalid
from aim.ports.graph import GraphGroup, GraphUser

MEMBERS = "members@delta"
_REMOVED = "@removed"
_GROUP = "#microsoft.graph.group"
_FOLLOWED = frozenset({"#microsoft.graph.user", _GROUP})

USER_PROPERTIES = ("id", "userPrincipalName", "displayName", "mail", "accountEnabled", "userType")
GROUP_PROPERTIES = ("id", "displayName", "mailNickname", "members")


def user_select(username: str) -> str:
    """`$select` for users whose localpart is made of the property `username`, which may be a path."""
    return ",".join(dict.fromkeys((*USER_PROPERTIES, username.partition("/")[0])))


def properties_in(expression: str) -> list[str]:
    """Names of properties that an OData `$filter` compares, sorted: of a path the first."""
    bare = re.sub(r"'(?:[^']|'')*'", "''", expression)
    variables = set(re.findall(r"\(\s*(\w+)\s*:", bare))
    names = re.findall(r"(?<![\w/.-])([A-Za-z_]\w*)(?![\w.-]*\s*[(:])", bare)
    return sorted(set(names) - _OPERATORS - variables)


_OPERATORS = frozenset("and or not eq ne gt ge lt le in has true false null".split())

GROUP_SELECT = ",".join(GROUP_PROPERTIES)


def id_of(item: Item) -> str:
    """The object's id. Raises SourceInvalid if it has none."""
    found = item.get("id")
    if not isinstance(found, str) or not found:
        raise malformed("an object without an id")
    # Each id comes again with every group that it is in.
    return sys.intern(_clean(found))


def is_removed(item: Item) -> bool:
    return _REMOVED in item


def is_gone_for_good(item: Item) -> bool:
    """True for what is removed and can't be restored."""
    removed = item.get(_REMOVED)
    return isinstance(removed, Mapping) and removed.get("reason") == "deleted"


def updated_user(item: Item, before: GraphUser | None, username: str) -> GraphUser:
    """The user that the item is about, given how they were."""
    known = before or GraphUser(id_of(item))
    principal_name = _text(item, "userPrincipalName", known.principal_name)
    return GraphUser(
        id=known.id,
        principal_name=principal_name,
        username=_at(item, username, known.username),
        display_name=_text(item, "displayName", known.display_name),
        mail=_text(item, "mail", known.mail),
        enabled=_truth(item, "accountEnabled", known.enabled),
        user_type=_text(item, "userType", known.user_type),
    )


def updated_group(item: Item, before: GraphGroup | None) -> GraphGroup:
    """The group that the item is about, given how it was."""
    known = before or GraphGroup(id_of(item))
    return GraphGroup(
        id=known.id,
        name=_text(item, "displayName", known.name),
        nickname=_text(item, "mailNickname", known.nickname),
    )


class Membership(NamedTuple):
    """One member that came or went."""

    id: str
    is_group: bool
    came: bool


def members_of(item: Item) -> Iterator[Membership]:
    """Members that came and went by this item. Devices, contacts and services, who are in no room, are left
    out."""
    listed = item.get(MEMBERS, ())
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise malformed("members that are no list")
    for member in listed:
        if not isinstance(member, Mapping):
            raise malformed("a member that is no object")
        kind, is_gone = member.get("@odata.type"), is_removed(member)
        if kind is None or kind in _FOLLOWED or is_gone:
            yield Membership(id_of(member), kind == _GROUP, not is_gone)


def malformed(what: str) -> SourceInvalid:
    """The error for an answer that is none."""
    return SourceInvalid(
        f"Microsoft Graph gave {what}",
        "check source.base_url, and whether something on the way changes answers",
    )


def _at(item: Item, path: str, before: str | None) -> str | None:
    """The value at a path such as `onPremisesExtensionAttributes/extensionAttribute1`."""
    first, _, rest = path.partition("/")
    if not rest:
        return _text(item, first, before)
    if first not in item:
        return before
    inner = item[first]
    if inner is None:
        return None
    if not isinstance(inner, Mapping):
        raise malformed(f"a value of {first} that is no object")
    return _at(inner, rest, before)


def _text(item: Item, name: str, before: str | None) -> str | None:
    if name not in item:
        return before
    value = item[name]
    if value is None:
        return None
    if not isinstance(value, str):
        raise malformed(f"a value of {name} that is no text")
    return _clean(value)


def _truth(item: Item, name: str, before: bool | None) -> bool | None:
    value = item.get(name, before)
    if value is not None and not isinstance(value, bool):
        raise malformed(f"a value of {name} that is neither true nor false")
    return value


def _clean(text: str) -> str:
    """Without what Postgres can't hold: what is stored must be what was read."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()
