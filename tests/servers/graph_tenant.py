"""What a tenant of Entra ID holds, for the stand-in of Microsoft Graph: users, groups, other objects, who is
in which group, and a journal in which every change has a number.

Plain state: no HTTP, no OData. `graph_delta` reads the journal, `graph_model` the state.

tenant = Tenant(seed=1)
ann = tenant.add_user("ann@example.com")
staff = tenant.add_group("Staff", members=[ann])
tenant.change(ann, mail=None)
"""

from __future__ import annotations

import random
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

Properties = Mapping[str, object]

USERS, GROUPS = "users", "groups"
_COLLECTIONS = {"user": USERS, "group": GROUPS}


class Clock:
    """UTC. The real time, or a `start` at which it stands still; `advance` moves both."""

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start
        self._ahead = timedelta()

    def now(self) -> datetime:
        return (self._start or datetime.now(UTC)) + self._ahead

    def advance(self, by: timedelta) -> None:
        self._ahead += by


class What(Enum):
    APPEARED = auto()
    """Added, or restored: all that it has belongs to the change."""
    CHANGED = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one user or group."""

    number: int
    id: str
    what: What
    values: Properties = field(default_factory=dict)
    """The properties that changed, with their new values; all that are set if it appeared."""
    joined: Sequence[str] = ()
    """Ids of members that came."""
    left: Sequence[str] = ()
    reason: str = ""
    """Why it is gone: `changed` (can be restored) or `deleted`."""
    hidden: bool = False
    """True if it happened to a group that was deleted at the time."""


@dataclass(slots=True)
class Thing:
    """A user, a group, or another object that can be a member; `kind` is its type in Graph, as `device`."""

    id: str
    kind: str
    properties: dict[str, object]
    deleted: bool = False
    members: dict[str, None] = field(default_factory=dict)
    """Ids of what is directly in this group, in the order in which it came. Nothing deleted is among them."""
    member_of: dict[str, None] = field(default_factory=dict)
    """Ids of groups, deleted ones included."""
    held: Sequence[str] = ()
    """While it is deleted: the groups that it returns to when it is restored."""


class Tenant:
    """The objects of one organisation. Ids are GUIDs; the same seed gives the same ones."""

    def __init__(self, seed: int = 0, name: str = "Example", domain: str = "example.com") -> None:
        self._random = random.Random(seed)
        self.id = self.guid()
        self.organization: dict[str, object] = {
            "displayName": name,
            "verifiedDomains": [{"name": domain, "isDefault": True, "isInitial": True, "type": "Managed"}],
            "tenantType": "AAD",
            "countryLetterCode": "DE",
        }
        self.domain = domain
        self.number = 0
        """Of the latest change."""
        self.journal: dict[str, list[Event]] = {USERS: [], GROUPS: []}
        self.listeners: list[Callable[[str, Event], None]] = []
        """Called after each change with the name of its collection."""
        self.kinds: dict[str, str] = {}
        """Of everything that ever was there, by id."""
        self._things: dict[str, Thing] = {}

    # What is there

    def guid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def all(self, collection: str) -> list[Thing]:
        """The users or groups that are there, oldest first."""
        return [each for each in self._things.values() if self._is_in(each, collection) and not each.deleted]

    def deleted(self, collection: str) -> list[Thing]:
        """The users or groups that can be restored."""
        return [each for each in self._things.values() if self._is_in(each, collection) and each.deleted]

    def find(self, thing_id: str) -> Thing | None:
        """By id; None if it isn't there or is deleted."""
        thing = self._things.get(thing_id)
        return None if thing is None or thing.deleted else thing

    def in_collection(self, thing_id: str, collection: str) -> Thing | None:
        thing = self.find(thing_id)
        return thing if thing and self._is_in(thing, collection) else None

    def user_named(self, name: str) -> Thing | None:
        """By userPrincipalName, whose case doesn't matter."""
        wanted = name.casefold()
        named = (
            each for each in self.all(USERS) if str(each.properties["userPrincipalName"]).casefold() == wanted
        )
        return next(named, None)

    def members(self, group_id: str) -> list[Thing]:
        """What is directly in a group."""
        return [self._things[each] for each in self._here(group_id).members]

    def transitive_members(self, group_id: str) -> list[Thing]:
        """What is in a group or in one that is in it, each once, nearest first."""
        found: dict[str, None] = {}
        todo = [group_id]
        while todo:
            for each in self._here(todo.pop(0)).members:
                if each not in found and each != group_id:
                    found[each] = None
                    todo.append(each)
        return [self._things[each] for each in found]

    def since(self, collection: str, number: int, until: int) -> list[Event]:
        """The changes after `number`, up to `until`, oldest first."""
        journal = self.journal[collection]
        first = bisect_right(journal, number, key=lambda event: event.number)
        last = bisect_right(journal, until, key=lambda event: event.number)
        return journal[first:last]

    # What happens

    def add_user(self, name: str | None = None, **properties: object) -> str:
        """`name` becomes the userPrincipalName, with the tenant's domain if it has none. Gives the id."""
        user_id = self.guid()
        name = name or f"user{len(self._things)}"
        upn = name if "@" in name else f"{name}@{self.domain}"
        local = upn.partition("@")[0]
        values = {
            "userPrincipalName": upn,
            "displayName": local.replace(".", " ").title(),
            "mailNickname": local.partition("#")[0],
            "accountEnabled": True,
            "userType": "Member",
            **properties,
        }
        return self._add(Thing(user_id, "user", values))

    def add_guest(self, mail: str, **properties: object) -> str:
        """A guest who was invited by this address."""
        local = mail.replace("@", "_")
        upn = f"{local}#EXT#@{self.domain.partition('.')[0]}.onmicrosoft.com"
        values = {
            "userPrincipalName": upn,
            "mail": mail,
            "userType": "Guest",
            "mailNickname": f"{local}#EXT#",
        }
        return self.add_user(upn, **{**values, **properties})

    def add_group(self, name: str | None = None, members: Iterable[str] = (), **properties: object) -> str:
        """A security group, or a Microsoft 365 one with `groupTypes=["Unified"]`. Gives the id."""
        name = name or f"Group {len(self._things)}"
        values = {
            "displayName": name,
            "mailNickname": name.casefold().replace(" ", "-"),
            "groupTypes": [],
            "mailEnabled": False,
            "securityEnabled": True,
            **properties,
        }
        group_id = self._add(Thing(self.guid(), "group", values))
        self.join(group_id, *members)
        return group_id

    def add_other(self, kind: str = "device", name: str = "Printer") -> str:
        """Something that is neither a user nor a group: device, servicePrincipal, orgContact."""
        return self._add(Thing(self.guid(), kind, {"displayName": name}))

    def change(self, thing_id: str, **properties: object) -> None:
        """None takes a property's value away. What is as it was is no change."""
        thing = self._here(thing_id)
        new = {name: value for name, value in properties.items() if thing.properties.get(name) != value}
        if new:
            thing.properties.update(new)
            self._record(thing, What.CHANGED, values=new)

    def join(self, group_id: str, *member_ids: str) -> None:
        group = self._here(group_id)
        if group_id in member_ids:
            raise ValueError("a group can't be a member of itself")
        self._let_join(group, [each for each in dict.fromkeys(member_ids) if each not in group.members])

    def leave(self, group_id: str, *member_ids: str) -> None:
        group = self._here(group_id)
        self._let_leave(group, [each for each in dict.fromkeys(member_ids) if each in group.members])

    def delete(self, thing_id: str, *, forever: bool | None = None) -> None:
        """As Entra ID does it: users and Microsoft 365 groups can be restored, security groups can't."""
        thing = self._here(thing_id)
        if forever is None:
            unified = "Unified" in list_of(thing.properties.get("groupTypes"))
            forever = thing.kind != "user" and not unified
        held = tuple(thing.member_of)
        for group_id in held:
            self._let_leave(self._things[group_id], [thing_id])
        thing.deleted = True
        thing.held = held
        if forever:
            self._forget(thing)
        self._record(thing, What.GONE, reason="deleted" if forever else "changed")

    def purge(self, thing_id: str) -> None:
        """Deletes for good what was deleted."""
        thing = self._deleted(thing_id)
        self._forget(thing)
        self._record(thing, What.GONE, reason="deleted")

    def restore(self, thing_id: str) -> None:
        """With its members and in its groups, as far as these still exist."""
        thing = self._deleted(thing_id)
        thing.deleted = False
        self._record(thing, What.APPEARED, values=self._set(thing), joined=tuple(thing.members))
        for group_id in thing.held:
            if group_id in self._things:
                self._let_join(self._things[group_id], [thing_id])
        thing.held = ()

    def fill(self, users: int, groups: int, members: int, nested: int = 0) -> None:
        """Many at once: `members` of the users in each group, and `nested` groups in groups. No journal tells
        of it."""
        user_ids = [
            self._put(
                {
                    "userPrincipalName": f"user{number}@{self.domain}",
                    "displayName": f"User {number}",
                    "mailNickname": f"user{number}",
                    "mail": f"user{number}@{self.domain}",
                    "accountEnabled": True,
                    "userType": "Member",
                },
                "user",
            )
            for number in range(users)
        ]
        group_ids = [
            self._put(
                {"displayName": f"Group {number}", "mailNickname": f"group{number}", "groupTypes": []},
                "group",
            )
            for number in range(groups)
        ]
        for group_id in group_ids:
            self._link(group_id, self._random.sample(user_ids, min(members, users)))
        for inner in range(1, min(nested, groups - 1) + 1):
            self._link(group_ids[self._random.randrange(inner)], [group_ids[inner]])

    # How

    @staticmethod
    def _is_in(thing: Thing, collection: str) -> bool:
        return _COLLECTIONS.get(thing.kind) == collection

    @staticmethod
    def _set(thing: Thing) -> dict[str, object]:
        return {name: value for name, value in thing.properties.items() if value is not None}

    def _here(self, thing_id: str) -> Thing:
        thing = self.find(thing_id)
        if thing is None:
            raise LookupError(f"{thing_id} is not there")
        return thing

    def _deleted(self, thing_id: str) -> Thing:
        thing = self._things.get(thing_id)
        if thing is None or not thing.deleted:
            raise LookupError(f"{thing_id} is not among the deleted")
        return thing

    def _add(self, thing: Thing) -> str:
        self._things[thing.id] = thing
        self.kinds[thing.id] = thing.kind
        self._record(thing, What.APPEARED, values=self._set(thing))
        return thing.id

    def _put(self, properties: dict[str, object], kind: str) -> str:
        thing = Thing(self.guid(), kind, properties)
        self._things[thing.id] = thing
        self.kinds[thing.id] = kind
        return thing.id

    def _link(self, group_id: str, member_ids: Iterable[str]) -> None:
        group = self._things[group_id]
        for each in member_ids:
            group.members[each] = None
            self._things[each].member_of[group_id] = None

    def _let_join(self, group: Thing, member_ids: Sequence[str]) -> None:
        for each in member_ids:
            self._here(each)
        self._link(group.id, member_ids)
        if member_ids:
            self._record(group, What.CHANGED, joined=tuple(member_ids))

    def _let_leave(self, group: Thing, member_ids: Sequence[str]) -> None:
        for each in member_ids:
            del group.members[each]
            self._things[each].member_of.pop(group.id, None)
        if member_ids:
            self._record(group, What.CHANGED, left=tuple(member_ids))

    def _forget(self, thing: Thing) -> None:
        for each in thing.members:
            self._things[each].member_of.pop(thing.id, None)
        del self._things[thing.id]

    def _record(
        self,
        thing: Thing,
        what: What,
        *,
        values: Properties | None = None,
        joined: Sequence[str] = (),
        left: Sequence[str] = (),
        reason: str = "",
    ) -> None:
        collection = _COLLECTIONS.get(thing.kind)
        if collection is None:
            return
        self.number += 1
        hidden = what is What.CHANGED and thing.deleted
        event = Event(self.number, thing.id, what, values or {}, joined, left, reason, hidden)
        self.journal[collection].append(event)
        for listener in self.listeners:
            listener(collection, event)


def list_of(value: object) -> list[object]:
    """A property's value as a list; empty if it is none."""
    return list(value) if isinstance(value, list) else []
