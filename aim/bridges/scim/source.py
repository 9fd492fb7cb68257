"""The SCIM source: what clients have pushed becomes a Directory.

In comes the store's snapshot; out goes a complete Directory. It is complete in that all that was acknowledged
is in it; whether the client has pushed everybody only a person knows, so it is `filling` until one says so.

- Ids are ours and strong; a user's localpart was settled when they were pushed.
- A group holds the active users among its members, and those of groups among them at any depth.
- `externalId` in `spaces` names a group by its id, its externalId or its displayName: all that fit.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pyroaring import BitMap

from aim.directory.model import Directory, Group, GroupKind, Problem, Severity, User
from aim.directory.nesting import closure
from aim.directory.people import emails_of
from aim.directory.roster import People, Roster
from aim.errors import SourceUnavailable, StoreError
from aim.ports.scim import ScimResource, ScimSnapshot, ScimStore

_SHOWN = 5
"""How many names a message has."""


class ScimSource:
    """Implements `ports.Source` over our own store."""

    def __init__(self, store: ScimStore, client_id: str) -> None:
        """`client_id` is `client.id`: the name of the organisation."""
        self._store = store
        self._client_id = client_id

    @property
    def type(self) -> str:
        return "scim"

    async def read(self, roster: Roster) -> Directory:
        """Everything that was pushed. SourceUnavailable if the database is away."""
        try:
            snapshot = await self._store.snapshot()
        except StoreError as error:
            raise SourceUnavailable(error.message, error.remedy) from error
        settled = await asyncio.to_thread(_settle, snapshot)
        numbers = {user.id: roster.number(user.localpart) for user in settled.users if user.active}
        contested = roster.people(settled.contested)
        return await asyncio.to_thread(
            _directory, snapshot, settled, numbers, contested, roster, self._client_id
        )

    async def fingerprint(self) -> str:
        """Changes with every write. SourceUnavailable if the database is away."""
        try:
            return str(await self._store.revision())
        except StoreError as error:
            raise SourceUnavailable(error.message, error.remedy) from error


class _Settled:
    """Users told apart."""

    def __init__(self) -> None:
        self.users: list[User] = []
        self.contested: list[str] = []
        self.unresolved: set[str] = set()
        self.problems: list[Problem] = []


def _settle(snapshot: ScimSnapshot) -> _Settled:
    """Who comes to a localpart that another user comes to is no user; nor is who has none."""
    settled = _Settled()
    owners: defaultdict[str, list[ScimResource]] = defaultdict(list)
    for resource in snapshot.users:
        if resource.localpart is None:
            settled.unresolved.add(resource.id)
            message = "has no value that could be a localpart (client.attributeMapping.username): skipped"
            settled.problems.append(Problem(Severity.WARNING, resource.name, message))
        else:
            owners[resource.localpart].append(resource)
    for localpart, resources in owners.items():
        if len(resources) == 1:
            settled.users.append(_user(resources[0], localpart))
        else:
            settled.contested.append(localpart)
            settled.unresolved.update(resource.id for resource in resources)
            settled.problems.append(_clash(localpart, resources))
    settled.users.sort(key=lambda user: user.id)
    return settled


def _clash(localpart: str, resources: Sequence[ScimResource]) -> Problem:
    names = sorted(resource.name for resource in resources)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    who = "; ".join(names[:_SHOWN]) + more
    message = f"{len(names)} users come to this localpart: {who}. None of them is touched"
    return Problem(Severity.ERROR, localpart, message)


def _user(resource: ScimResource, localpart: str) -> User:
    name = resource.document.get("displayName")
    return User(
        id=resource.id,
        uid=resource.name,
        localpart=localpart,
        display_name=name.strip() or None if isinstance(name, str) else None,
        emails=emails_of(resource.emails),
        active=resource.active,
    )


def _directory(
    snapshot: ScimSnapshot,
    settled: _Settled,
    numbers: Mapping[str, int],
    contested: People,
    roster: Roster,
    name: str,
) -> Directory:
    groups = sorted(snapshot.groups, key=lambda group: group.id)
    people = _members(groups, snapshot.members, numbers)
    return Directory(
        source="scim",
        name=name,
        roster=roster,
        users=tuple(settled.users),
        groups=tuple(
            Group(group.id, GroupKind.GROUP, group.name, inside)
            for group, inside in zip(groups, people, strict=True)
        ),
        everyone=People(sorted(numbers.values())),
        problems=tuple(sorted(settled.problems)),
        contested=contested,
        unresolved=frozenset(settled.unresolved),
        keys=_keys(groups),
        filling=snapshot.ready_since is None,
    )


def _members(
    groups: Sequence[ScimResource], members: Mapping[str, Sequence[str]], numbers: Mapping[str, int]
) -> list[People]:
    """Everybody in each group, in the groups' order."""
    places = {group.id: position for position, group in enumerate(groups)}
    direct: list[BitMap] = []
    nested: list[Sequence[int]] = []
    for group in groups:
        listed = members.get(group.id, ())
        direct.append(BitMap([numbers[id_] for id_ in listed if id_ in numbers]))
        nested.append([places[id_] for id_ in listed if id_ in places])
    return closure(direct, nested)


def _keys(groups: Sequence[ScimResource]) -> Mapping[str, tuple[int, ...]]:
    """Groups by each of the names that `externalId` may use."""
    keys: defaultdict[str, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        for name in dict.fromkeys((group.id, group.external_id, group.name)):
            if name:
                keys[name].append(position)
    return {key: tuple(positions) for key, positions in keys.items()}
