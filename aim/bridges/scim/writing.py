"""What clients write: resources made, replaced, patched and deleted over the port.

In come JSON bodies as they were sent; out go stored resources. When a method returns, what it did is stored
for good. A client that sent no If-Match never hears of another that was faster: its request is done again on
the newer version.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aim.bridges.scim import dialects
from aim.bridges.scim.core import Core, allowed
from aim.bridges.scim.errors import ScimError, invalid_value, not_found
from aim.bridges.scim.patching import GroupChange, group_change, member_ids, plainly
from aim.bridges.scim.resources import Username, group_of, user_of
from aim.bridges.scim.storage import Storage, refusals
from aim.ports.scim import (
    ScimAttribute,
    ScimChanged,
    ScimCompare,
    ScimKind,
    ScimOperator,
    ScimQuery,
    ScimResource,
    ScimStore,
    ScimTaken,
)

_ATTEMPTS = 20
"""How often a request is done again because another was faster."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Headers that bind a request to a version (RFC 9110, 13.1)."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, resource: ScimResource, method: str) -> bool:
        """False: a GET is answered with 304. ScimError 412 if a condition fails."""
        return allowed(resource.version, method, self.if_match, self.if_none_match)


UNCONDITIONAL = Conditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Who wants to know, or has a say."""

    on_change: Callable[[], None] = lambda: None
    """Called after each write that was acknowledged."""
    outcome_of: Callable[[ScimResource], Awaitable[str | None]] | None = None
    """Waits until what was written of this resource is done on the homeserver; gives what a person is to read
    of why it is not, or None. The answer waits for it."""
    may_create: Callable[[ScimResource], Awaitable[None]] | None = None
    """Called with a new user before they are stored. May raise ScimError: then they are not, and it is the
    answer."""


class Writing:
    """Writes for clients. Raises ScimError, and StoreError as the store does."""

    def __init__(
        self,
        store: ScimStore,
        core: Core,
        username: Username,
        hooks: Hooks,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._store = store
        self._core = core
        self._storage = Storage(store, core)
        self._username = username
        self._hooks = hooks
        self._new_id = new_id

    async def create(self, kind: ScimKind, given: object) -> ScimResource:
        """Stores a new resource (RFC 7644, 3.3)."""
        body = dialects.document(kind, given)
        document = self._core.document(kind, body)
        resource = self._resource(kind, self._new_id(), document, 1, active=True)
        members = _members(body) or ()
        with refusals():
            await self._check_new(resource)
            created = await self._store.create(resource, members if kind is ScimKind.GROUP else ())
        return await self._done(created, changed=True)

    async def replace(
        self, kind: ScimKind, id_: str, given: object, conditions: Conditions = UNCONDITIONAL
    ) -> ScimResource:
        """Stores the whole resource anew (RFC 7644, 3.5.1). What is left out is gone, but for `members` and
        `active`: they stay as they are, because leaving them out is no word that somebody has to go."""
        body = dialects.document(kind, given)
        document = self._core.document(kind, body)
        members = _members(body) if kind is ScimKind.GROUP else None
        _not_itself(id_, members or ())

        async def attempt() -> tuple[ScimResource, ScimResource | None]:
            current = await self._current(kind, id_, conditions, "PUT")
            resource = self._resource(kind, id_, document, current.version, active=current.active)
            return current, await self._store.replace(resource, members, current.version)

        return await self._until_done(attempt, conditions)

    async def patch(
        self, kind: ScimKind, id_: str, given: object, conditions: Conditions = UNCONDITIONAL
    ) -> ScimResource:
        """Changes the resource (RFC 7644, 3.5.2)."""
        operations = dialects.operations(kind, given)
        if kind is ScimKind.GROUP:
            return await self._patch_group(id_, operations, conditions)

        async def attempt() -> tuple[ScimResource, ScimResource | None]:
            current = await self._current(kind, id_, conditions, "PATCH")
            resource = self._patched(current, operations)
            return current, await self._store.replace(resource, None, current.version)

        return await self._until_done(attempt, conditions)

    async def delete(self, kind: ScimKind, id_: str, conditions: Conditions = UNCONDITIONAL) -> None:
        """Removes the resource (RFC 7644, 3.6)."""
        current = await self._current(kind, id_, conditions, "DELETE")
        expected = None if conditions.if_match is None else current.version
        try:
            if not await self._store.delete(kind, id_, expected):
                raise _gone(kind)
        except ScimChanged as error:
            raise _precondition() from error
        await self._done(current, changed=True)

    # -- groups ----------------------------------------------------------------------------------------------

    async def _patch_group(
        self, id_: str, operations: Sequence[dialects.Operation], conditions: Conditions
    ) -> ScimResource:
        async def choose(path: str) -> Sequence[str]:
            members = (await self._store.members([id_])).get(id_, ())
            entries = [{"value": one.id, "display": one.name, "type": one.kind.value} for one in members]
            chosen = self._core.choose(path, entries)
            return [one.id for one, is_chosen in zip(members, chosen, strict=True) if is_chosen]

        change = await group_change(operations, choose)
        _not_itself(id_, change.add | (change.whole or set()))

        async def attempt() -> tuple[ScimResource, ScimResource | None]:
            current = await self._current(ScimKind.GROUP, id_, conditions, "PATCH")
            return current, await self._change(current, change, conditions)

        if change.attributes or change.whole is not None or conditions != UNCONDITIONAL:
            return await self._until_done(attempt, conditions)
        # Members alone need no version: two clients that add two members are not in each other's way.
        changed = await self._store.change_members(id_, change.add, change.remove)
        if changed is None:
            raise _gone(ScimKind.GROUP)
        return await self._done(changed, changed=True)

    async def _change(
        self, current: ScimResource, change: GroupChange, conditions: Conditions
    ) -> ScimResource | None:
        result: ScimResource | None = current
        if change.attributes or change.whole is not None:
            members = None if change.whole is None else sorted(change.whole)
            resource = self._patched(current, change.attributes)
            result = await self._store.replace(resource, members, current.version)
        if result is not None and (change.add or change.remove):
            expected = None if conditions.if_match is None else result.version
            result = await self._store.change_members(current.id, change.add, change.remove, expected)
        return result

    # -- what they share -------------------------------------------------------------------------------------

    async def _current(self, kind: ScimKind, id_: str, conditions: Conditions, method: str) -> ScimResource:
        current = await self._storage.get(kind, id_)
        conditions.check(current, method)
        return current

    def _patched(self, current: ScimResource, operations: Sequence[dialects.Operation]) -> ScimResource:
        document: Mapping[str, object] = current.document
        if operations:
            plain = plainly(current.kind, document, operations)
            document = plain if plain is not None else self._core.patched(current.kind, document, operations)
        return self._resource(current.kind, current.id, document, current.version)

    def _resource(
        self,
        kind: ScimKind,
        id_: str,
        document: Mapping[str, object],
        version: int,
        *,
        active: bool | None = None,
    ) -> ScimResource:
        """`active` is stored of a user whose document doesn't say; None: nothing is, which means active."""
        if kind is ScimKind.GROUP:
            return group_of(id_, document, version)
        if active is not None:
            document = {"active": active, **document}
        return user_of(id_, document, self._username, version)

    async def _check_new(self, resource: ScimResource) -> None:
        if self._hooks.may_create is None or resource.kind is ScimKind.GROUP or resource.localpart is None:
            return
        # Whoever is here already has an account as a rule: that they are here is the better answer.
        same = ScimCompare(ScimAttribute.NAME, ScimOperator.EQ, resource.name)
        if (await self._store.search(ScimQuery(kinds=[ScimKind.USER], filter=same, count=0))).total:
            raise ScimTaken(resource.name)
        await self._hooks.may_create(resource)

    async def _until_done(
        self,
        attempt: Callable[[], Awaitable[tuple[ScimResource, ScimResource | None]]],
        conditions: Conditions,
    ) -> ScimResource:
        for _ in range(_ATTEMPTS):
            try:
                with refusals():
                    before, after = await attempt()
            except ScimChanged as error:
                if conditions.if_match is not None:
                    raise _precondition() from error
                continue
            if after is None:
                raise _gone(before.kind)
            return await self._done(after, changed=after.version != before.version)
        raise ScimError(409, "others change this resource all the time; send the request again")

    async def _done(self, resource: ScimResource, *, changed: bool) -> ScimResource:
        if changed or self._hooks.outcome_of is not None:
            self._hooks.on_change()
        if self._hooks.outcome_of is not None:
            error = await self._hooks.outcome_of(resource)
            if error is not None:
                raise ScimError(500, error)
        return resource


def _members(body: Mapping[str, object]) -> list[str] | None:
    """The members in a body, without those named twice; None if there are none in it."""
    for key, value in body.items():
        if key.lower() == "members":
            return list(dict.fromkeys(member_ids(value)))
    return None


def _not_itself(group_id: str, members: Sequence[str] | set[str]) -> None:
    if group_id in members:
        raise invalid_value("a group can't be a member of itself")


def _gone(kind: ScimKind) -> ScimError:
    return not_found(f"there is no {kind.value} with this id")


def _precondition() -> ScimError:
    return ScimError(412, "the resource has another version than If-Match says")
