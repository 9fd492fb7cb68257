"""What is known of a tenant, and what the pages that Graph sends make of it. Pure.

In come a state and items; out go changes, which are put into the state only when all pages are there and the
store has them. A complete read is the same with nothing known before, so that both give the same: the same
object may come several times, and a group's members in parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from aim.bridges.msgraph import items
from aim.bridges.msgraph.graph import Item, ResyncNeeded
from aim.ports.graph import GraphChanges, GraphGroup, GraphLinks, GraphState, GraphUser, Members


class Draft:
    """Changes to a state that is left alone. For one poll, or one complete read."""

    def __init__(self, username: str, state: GraphState | None = None) -> None:
        """`username` is the property that localparts are made of. Without a `state` nothing is known."""
        self._username = username
        self._is_whole = state is None
        self._known_users: Mapping[str, GraphUser] = state.users if state else {}
        self._known_groups: Mapping[str, GraphGroup] = state.groups if state else {}
        self._known_members: Mapping[str, Members] = state.members if state else {}
        self._users: dict[str, GraphUser | None] = {}
        self._groups: dict[str, GraphGroup | None] = {}
        self._members: dict[str, Members] = {}
        self._for_good: set[str] = set()
        """Users who can't be restored."""

    def users(self, page: Iterable[Item]) -> None:
        """Takes users of a page. Raises SourceInvalid, and ResyncNeeded for one of whom not all is told."""
        for item in page:
            id_ = items.id_of(item)
            if items.is_removed(item):
                self._users[id_] = None
                if items.is_gone_for_good(item):
                    self._for_good.add(id_)
                continue
            before = self._user(id_)
            after = items.updated_user(item, before, self._username)
            if before is None and after.principal_name is None and not self._is_whole:
                raise ResyncNeeded("Microsoft Graph told of a user only in part", "all is read anew")
            self._users[id_] = after

    def groups(self, page: Iterable[Item]) -> None:
        """Takes groups of a page, with members that came and went. Raises as `users`."""
        for item in page:
            id_ = items.id_of(item)
            if items.is_removed(item):
                self._groups[id_] = None
                self._members[id_] = {}
                continue
            before = self._group(id_)
            after = items.updated_group(item, before)
            if before is None and after.name is None and not self._is_whole:
                raise ResyncNeeded("Microsoft Graph told of a group only in part", "all is read anew")
            self._groups[id_] = after
            if items.MEMBERS in item:
                self._take_members(id_, item)

    def all_users(self, listed: Iterable[Item]) -> None:
        """Takes a complete list of users: all others are gone. Raises SourceInvalid."""
        found = {items.id_of(item): items.updated_user(item, None, self._username) for item in listed}
        self._users = {**dict.fromkeys(self._known_users), **found}

    def nested(self, roots: Iterable[str]) -> set[str]:
        """Ids of all groups that are in these, at any depth, as far as their members are known."""
        found: set[str] = set()
        waiting = list(roots)
        while waiting:
            inside = self._members_of(waiting.pop())
            new = [id_ for id_, is_group in inside.items() if is_group and id_ not in found]
            found.update(new)
            waiting += new
        return found

    def changes(self) -> GraphChanges:
        """What is other than before; nothing of what came again as it was known."""
        self._leave_for_good()
        users, groups = self._known_users, self._known_groups
        gone = tuple(id_ for id_, group in self._groups.items() if group is None and id_ in groups)
        added: dict[str, Mapping[str, bool]] = {}
        removed: dict[str, Sequence[str]] = {}
        for id_ in self._members.keys() - gone:
            before, after = self._known_members.get(id_, {}), self._members[id_]
            if new := {member: kind for member, kind in after.items() if before.get(member) is not kind}:
                added[id_] = new
            if left := tuple(member for member in before if member not in after):
                removed[id_] = left
        return GraphChanges(
            users=tuple(user for id_, user in self._users.items() if user and user != users.get(id_)),
            users_gone=tuple(id_ for id_, user in self._users.items() if user is None and id_ in users),
            groups=tuple(group for id_, group in self._groups.items() if group and group != groups.get(id_)),
            groups_gone=gone,
            added=added,
            removed=removed,
        )

    def whole(self, name: str | None, links: GraphLinks, read_at: datetime) -> GraphState:
        """The state that a complete read gives."""
        assert self._is_whole, "what was known before is not in it"
        state = GraphState(name, {}, {}, {}, links, read_at)
        apply(state, self.changes(), links)
        return state

    def _user(self, id_: str) -> GraphUser | None:
        return self._users[id_] if id_ in self._users else self._known_users.get(id_)

    def _group(self, id_: str) -> GraphGroup | None:
        return self._groups[id_] if id_ in self._groups else self._known_groups.get(id_)

    def _members_of(self, group: str) -> Mapping[str, bool]:
        return self._members[group] if group in self._members else self._known_members.get(group, {})

    def _take_members(self, group: str, item: Item) -> None:
        members = self._edited(group)
        for membership in items.members_of(item):
            if membership.came:
                members[membership.id] = membership.is_group
            else:
                members.pop(membership.id, None)

    def _leave_for_good(self) -> None:
        """Whoever may be restored gets their groups back, and keeps them here; who can't be has none."""
        gone = [id_ for id_ in self._for_good if self._users[id_] is None]
        for group in {*self._known_members, *self._members} if gone else ():
            members = self._members_of(group)
            for id_ in gone:
                if id_ in members:
                    members = self._edited(group)
                    del members[id_]

    def _edited(self, group: str) -> Members:
        """The group's members, to be changed."""
        if group not in self._members:
            self._members[group] = dict(self._known_members.get(group, {}))
        return self._members[group]


def apply(state: GraphState, changes: GraphChanges, links: GraphLinks) -> None:
    """Changes the state in place."""
    for user in changes.users:
        state.users[user.id] = user
    for id_ in changes.users_gone:
        del state.users[id_]
    for group in changes.groups:
        state.groups[group.id] = group
    for id_ in changes.groups_gone:
        del state.groups[id_]
        state.members.pop(id_, None)
    for id_, gone in changes.removed.items():
        members = state.members[id_]
        for member in gone:
            del members[member]
        if not members:
            del state.members[id_]
    for id_, added in changes.added.items():
        state.members.setdefault(id_, {}).update(added)
    state.links = links


def differing(before: GraphState, after: GraphState, apart_from: Collection[str] = ()) -> set[str]:
    """Ids of users and groups that differ, in their properties or members, but for those `apart_from`.

    A disabled user who is not in `before` does not count: whoever was erased is forgotten. Nor does a group
    that only one knows, if not all are read: which ones are depends on what is in the others.
    """
    forgotten = {u.id for u in after.users.values() if u.enabled is False and u.id not in before.users}
    aside = forgotten.union(apart_from)
    users = {*before.users.keys(), *after.users.keys()} - aside
    chosen = any(link.ids for link in before.links.groups)
    known = (
        before.groups.keys() & after.groups.keys() if chosen else before.groups.keys() | after.groups.keys()
    )
    found = {id_ for id_ in users if before.users.get(id_) != after.users.get(id_)}
    return found.union(
        id_
        for id_ in known - aside
        if before.groups.get(id_) != after.groups.get(id_)
        or _people(before, id_, aside) != _people(after, id_, aside)
    )


def _people(state: GraphState, group: str, aside: Collection[str]) -> set[str]:
    """Members who are there: a user who was deleted, and may be restored, is none at the moment."""
    return {
        id_
        for id_, is_group in state.members.get(group, {}).items()
        if (is_group or id_ in state.users) and id_ not in aside
    }
