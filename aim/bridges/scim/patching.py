"""What a PATCH of a group does, told before it is done.

In come operations on one path each (`dialects`); out goes a GroupChange: what becomes of the attributes, and
which members are added and removed. Nothing here loads members: who removes two of ten thousand names two.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aim.bridges.scim.dialects import Operation
from aim.bridges.scim.errors import invalid_value, mutability, too_many
from aim.ports.scim import ScimKind

_VALUE = re.compile(r'value\s+eq\s+("(?:[^"\\]|\\.)*")', re.IGNORECASE)
_BY_VALUE = re.compile(rf"members\[\s*{_VALUE.pattern}(?:\s+or\s+{_VALUE.pattern})*\s*\]\Z", re.IGNORECASE)

MOST_SELECTIONS = 3
"""Operations of one PATCH that choose members by looking at each: of ten thousand, that takes long."""

_PLAIN: Mapping[str, Mapping[ScimKind, str]] = {
    "displayname": {ScimKind.USER: "displayName", ScimKind.GROUP: "displayName"},
    "externalid": {ScimKind.USER: "externalId", ScimKind.GROUP: "externalId"},
    "active": {ScimKind.USER: "active"},
    "username": {ScimKind.USER: "userName"},
    "title": {ScimKind.USER: "title"},
    "nickname": {ScimKind.USER: "nickName"},
    "usertype": {ScimKind.USER: "userType"},
    "preferredlanguage": {ScimKind.USER: "preferredLanguage"},
    "locale": {ScimKind.USER: "locale"},
    "timezone": {ScimKind.USER: "timezone"},
}
"""Attributes with one plain value."""


@dataclass(slots=True)
class GroupChange:
    """What the operations come to, in their order."""

    attributes: list[Operation] = field(default_factory=list)
    whole: set[str] | None = None
    """All members from now on; None: those that there are, but for `add` and `remove`."""
    add: set[str] = field(default_factory=set)
    remove: set[str] = field(default_factory=set)

    @property
    def of_members(self) -> bool:
        return self.whole is not None or bool(self.add or self.remove)

    def insert(self, ids: Iterable[str]) -> None:
        if self.whole is not None:
            self.whole.update(ids)
            return
        added = set(ids)
        self.add |= added
        self.remove -= added

    def drop(self, ids: Iterable[str]) -> None:
        if self.whole is not None:
            self.whole.difference_update(ids)
            return
        dropped = set(ids)
        self.remove |= dropped
        self.add -= dropped

    def set_whole(self, ids: Iterable[str]) -> None:
        self.whole = set(ids)
        self.add.clear()
        self.remove.clear()


Choose = Callable[[str], Awaitable[Sequence[str]]]
"""A path `members[…]` → ids of the members that it selects: for what is not chosen by value."""


async def group_change(operations: Sequence[Operation], choose: Choose) -> GroupChange:
    """The change that these operations are. ScimError for those that can't be."""
    change = GroupChange()
    choose = _sparingly(choose)
    for operation in operations:
        path = operation.path.lower()
        if path == "members":
            _on_members(change, operation)
        elif path.startswith("members["):
            await _on_selected(change, operation, choose)
        elif path.startswith("members."):
            raise mutability("a member can't be changed: add and remove members instead")
        else:
            change.attributes.append(operation)
    return change


def _sparingly(choose: Choose) -> Choose:
    """The same, but not for ever."""
    left = MOST_SELECTIONS

    async def chosen(path: str) -> Sequence[str]:
        nonlocal left
        left -= 1
        if left < 0:
            raise too_many(
                f"a PATCH has at most {MOST_SELECTIONS} operations that choose members by more than value"
            )
        return await choose(path)

    return chosen


def _on_members(change: GroupChange, operation: Operation) -> None:
    if operation.op != "remove" and not operation.has_value:
        # For nothing, a replace would take everybody out.
        raise invalid_value(f"{operation.op} needs a value")
    match operation.op:
        case "add":
            change.insert(member_ids(operation.value))
        case "replace":
            change.set_whole(member_ids(operation.value))
        case _ if operation.value is None:
            change.set_whole(())
        case _:
            # Entra's way: only those of the list.
            change.drop(member_ids(operation.value))


async def _on_selected(change: GroupChange, operation: Operation, choose: Choose) -> None:
    if operation.op != "remove" or not operation.path.endswith("]"):
        raise mutability("a member can't be changed: add and remove members instead")
    if _BY_VALUE.match(operation.path):
        change.drop(_unquoted(found[1]) for found in _VALUE.finditer(operation.path))
    else:
        change.drop(await choose(operation.path))


def _unquoted(quoted: str) -> str:
    # Ids are ours and hold nothing that JSON escapes: with an escape it is nobody's.
    return quoted[1:-1]


def member_ids(value: object) -> list[str]:
    """The ids in a value of `members`: objects with `value`, or bare ids, one or a list of them. Their other
    attributes are the members' own, and ignored."""
    if value is None:
        return []
    entries = value if isinstance(value, list) else [value]
    return [_member_id(entry) for entry in entries]


def _member_id(entry: object) -> str:
    if isinstance(entry, Mapping):
        entry = next((inner for key, inner in entry.items() if key.lower() == "value"), None)
    if not isinstance(entry, str) or not entry:
        raise invalid_value("each of members needs a value: the id of a user or a group")
    return entry


def plainly(
    kind: ScimKind, document: Mapping[str, object], operations: Sequence[Operation]
) -> dict[str, object] | None:
    """The document after these operations, if each sets one plain value, as nearly all do: that needs no
    schema. None if it does."""
    found = dict(document)
    for operation in operations:
        name = _PLAIN.get(operation.path.lower(), {}).get(kind)
        value = operation.value
        fits = isinstance(value, bool) if name == "active" else isinstance(value, str) and value.strip()
        if name is None or operation.op == "remove" or not fits:
            return None
        found[name] = value
    return found
