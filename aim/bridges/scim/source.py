"""The SCIM source: what clients have pushed becomes a Directory.

In comes the store's snapshot; out goes a complete Directory. It is complete in that all that was acknowledged
is in it; whether the client has pushed everybody only a person knows, so it is `filling` until one says so.

- Ids are ours and strong; a user's localpart was settled when they were pushed.
- A group holds the active users among its members, and those of groups among them at any depth.
- `externalId` in `spaces` names a group by its id, its externalId or its displayName: all that fit.
"""

from __future__ import annotations

import asyncio

from aim.directory.listed import Container, Enrolled, Frame, Listed, Told, assemble, enrol, settle
from aim.directory.model import Directory, User
from aim.directory.people import emails_of
from aim.directory.roster import Roster
from aim.errors import SourceUnavailable, StoreError
from aim.ports.scim import ScimResource, ScimSnapshot, ScimStore

_NO_LOCALPART = "has no value that could be a localpart (client.attributeMapping.username): skipped"


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
        told = await asyncio.to_thread(_settle, snapshot)
        enrolled = enrol(told, roster)
        return await asyncio.to_thread(_directory, snapshot, told, enrolled, roster, self._client_id)

    async def fingerprint(self) -> str:
        """Changes with every write. SourceUnavailable if the database is away."""
        try:
            return str(await self._store.revision())
        except StoreError as error:
            raise SourceUnavailable(error.message, error.remedy) from error


def _settle(snapshot: ScimSnapshot) -> Told:
    return settle(_listed(resource) for resource in snapshot.users)


def _listed(resource: ScimResource) -> Listed:
    if resource.localpart is None:
        return Listed(resource.id, resource.name, None, _NO_LOCALPART)
    name = resource.document.get("displayName")
    user = User(
        id=resource.id,
        uid=resource.name,
        localpart=resource.localpart,
        display_name=name.strip() or None if isinstance(name, str) else None,
        emails=emails_of(resource.emails),
        active=resource.active,
    )
    return Listed(resource.id, resource.name, user)


def _directory(
    snapshot: ScimSnapshot, told: Told, enrolled: Enrolled, roster: Roster, name: str
) -> Directory:
    groups = (
        Container(group.id, group.name, (group.external_id,), snapshot.members.get(group.id, ()))
        for group in snapshot.groups
    )
    frame = Frame(source="scim", name=name, filling=snapshot.ready_since is None)
    return assemble(told, enrolled, groups, roster, frame)
