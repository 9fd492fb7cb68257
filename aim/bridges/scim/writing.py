"""What clients write: resources made, replaced, patched and deleted over the port.

In come JSON bodies as they were sent; out go stored resources. When a method returns, what it did is stored
for good. A client that sent no If-Match never hears of another that was faster: its request is done again on
the newer version.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from aim.bridges.scim import dialects
from aim.bridges.scim.core import Core, allowed, compared
from aim.bridges.scim.errors import ScimError, invalid_value, not_found
from aim.bridges.scim.patching import GroupChange, group_change, member_ids, plainly
from aim.bridges.scim.resources import Username, group_of, user_of
from aim.bridges.scim.storage import Storage, refusals
from aim.bridges.scim.turns import Turns
from aim.errors import HomeserverRefused, HomeserverUnavailable
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

T = TypeVar("T")

_ATTEMPTS = 20
"""How often a request is done again because one of another process was faster."""
_BAD_NAME = 400
"""Status of a homeserver that can't have an account by that name."""
_AT_LENGTH = 100
"""Members, or operations and what they compare, from which looking at each is done beside other requests."""


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
    """Called with a user who is new, or comes to another localpart, before they are stored. May raise
    ScimError or HomeserverError: then they are not, and it is the answer."""


class Writing:
    """Writes for clients. Raises ScimError, HomeserverError of a hook, and StoreError as the store does."""

    def __init__(
        self,
        store: ScimStore,
        core: Core,
        username: Username,
        hooks: Hooks,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        turns: Turns | None = None,
    ) -> None:
        self._store = store
        self._core = core
        self._storage = Storage(store, core)
        self._username = username
        self._hooks = hooks
        self._new_id = new_id
        self._turns = Turns() if turns is None else turns

    def noting(self, written: list[ScimResource]) -> Writing:
        """The same, but for waiting: what would be waited for is put there, for `outcomes`."""

        async def note(resource: ScimResource) -> None:
            written.append(resource)

        if self._hooks.outcome_of is None:
            return self
        hooks = replace(self._hooks, outcome_of=note)
        return Writing(self._store, self._core, self._username, hooks, self._new_id, self._turns)

    async def outcomes(self, written: Sequence[ScimResource]) -> Sequence[str | None]:
        """Waits for all of these at once; of each what a person is to read of why it is not done, or None."""
        outcome_of = self._hooks.outcome_of
        if outcome_of is None:
            return [None] * len(written)
        return await asyncio.gather(*map(outcome_of, written))

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
            await self._check_renamed(current, resource)
            return current, await self._store.replace(resource, members, current.version)

        return await self._until_done(id_, attempt)

    async def patch(
        self, kind: ScimKind, id_: str, given: object, conditions: Conditions = UNCONDITIONAL
    ) -> ScimResource:
        """Changes the resource (RFC 7644, 3.5.2)."""
        operations = dialects.operations(kind, given)
        if kind is ScimKind.GROUP:
            return await self._patch_group(id_, operations, conditions)

        async def attempt() -> tuple[ScimResource, ScimResource | None]:
            current = await self._current(kind, id_, conditions, "PATCH")
            resource = await self._patched(current, operations)
            await self._check_renamed(current, resource)
            return current, await self._store.replace(resource, None, current.version)

        return await self._until_done(id_, attempt)

    async def delete(self, kind: ScimKind, id_: str, conditions: Conditions = UNCONDITIONAL) -> None:
        """Removes the resource (RFC 7644, 3.6)."""

        async def attempt() -> ScimResource:
            current = await self._current(kind, id_, conditions, "DELETE")
            expected = None if conditions == UNCONDITIONAL else current.version
            if not await self._store.delete(kind, id_, expected):
                raise _gone(kind)
            return current

        await self._done(await self._attempted(id_, attempt), changed=True)

    # -- groups ----------------------------------------------------------------------------------------------

    async def _patch_group(
        self, id_: str, operations: Sequence[dialects.Operation], conditions: Conditions
    ) -> ScimResource:
        async def choose(path: str) -> Sequence[str]:
            members = (await self._store.members([id_])).get(id_, ())
            entries = [{"value": one.id, "display": one.name, "type": one.kind.value} for one in members]
            chosen = await _beside(len(entries), lambda: self._core.choose(path, entries))
            return [one.id for one, is_chosen in zip(members, chosen, strict=True) if is_chosen]

        change = await group_change(operations, choose)
        _not_itself(id_, change.add | (change.whole or set()))

        async def attempt() -> tuple[ScimResource, ScimResource | None]:
            current = await self._current(ScimKind.GROUP, id_, conditions, "PATCH")
            return current, await self._change(current, change)

        if change.attributes or change.whole is not None or conditions != UNCONDITIONAL:
            return await self._until_done(id_, attempt)
        # Members alone need no version: two clients that add two members are not in each other's way.
        async with self._turns.of(id_):
            changed = await self._store.change_members(id_, change.add, change.remove)
        if changed is None:
            raise _gone(ScimKind.GROUP)
        return await self._done(changed, changed=True)

    async def _change(self, current: ScimResource, change: GroupChange) -> ScimResource | None:
        if not change.attributes and change.whole is None:
            return await self._store.change_members(current.id, change.add, change.remove, current.version)
        members = None if change.whole is None else sorted(change.whole)
        resource = await self._patched(current, change.attributes)
        return await self._store.replace(
            resource, members, current.version, add=change.add, remove=change.remove
        )

    # -- what they share -------------------------------------------------------------------------------------

    async def _current(self, kind: ScimKind, id_: str, conditions: Conditions, method: str) -> ScimResource:
        current = await self._storage.get(kind, id_)
        conditions.check(current, method)
        return current

    async def _patched(self, current: ScimResource, operations: Sequence[dialects.Operation]) -> ScimResource:
        document: Mapping[str, object] = current.document
        if operations:
            plain = plainly(current.kind, document, operations)
            document = await self._by_schema(current, operations) if plain is None else plain
        stored = self._resource(current.kind, current.id, document, current.version, active=current.active)
        # An `active` that was taken out is shown no more; but nobody comes back by that.
        return replace(stored, document=document)

    async def _by_schema(
        self, current: ScimResource, operations: Sequence[dialects.Operation]
    ) -> Mapping[str, object]:
        return await _beside(
            len(operations) + compared(current.document, operations),
            lambda: self._core.patched(current.kind, current.document, operations),
        )

    def _resource(
        self,
        kind: ScimKind,
        id_: str,
        document: Mapping[str, object],
        version: int,
        *,
        active: bool,
    ) -> ScimResource:
        """`active` is stored of a user whose document doesn't say: nobody comes back by a word left out."""
        if kind is ScimKind.GROUP:
            return group_of(id_, document, version)
        return user_of(id_, {"active": active, **document}, self._username, version)

    async def _check_new(self, resource: ScimResource) -> None:
        if self._hooks.may_create is None or resource.kind is ScimKind.GROUP or resource.localpart is None:
            return
        # Whoever is here already has an account as a rule: that they are here is the better answer.
        same = ScimCompare(ScimAttribute.NAME, ScimOperator.EQ, resource.name)
        if (await self._store.search(ScimQuery(kinds=[ScimKind.USER], filter=same, count=0))).total:
            raise ScimTaken(resource.name)
        await self._ask_for(resource, self._hooks.may_create)

    async def _check_renamed(self, before: ScimResource, after: ScimResource) -> None:
        """Whoever comes to another localpart must not get at an account by that which a new user may not."""
        is_new = after.localpart is not None and after.localpart != before.localpart
        if is_new and self._hooks.may_create is not None:
            await self._ask_for(after, self._hooks.may_create)

    async def _ask_for(
        self, resource: ScimResource, may_create: Callable[[ScimResource], Awaitable[None]]
    ) -> None:
        try:
            await may_create(resource)
        except HomeserverRefused as error:
            if error.status == _BAD_NAME:
                raise invalid_value(f"the homeserver refused it: {error.message}") from error
            # What we may not ask is for whoever set us up to mend, not for the client.
            raise HomeserverUnavailable(error.message, error.remedy) from error

    async def _until_done(
        self, id_: str, attempt: Callable[[], Awaitable[tuple[ScimResource, ScimResource | None]]]
    ) -> ScimResource:
        before, after = await self._attempted(id_, attempt)
        if after is None:
            raise _gone(before.kind)
        return await self._done(after, changed=after.version != before.version)

    async def _attempted(self, id_: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What the attempt gives that nobody was faster than. Each checks the conditions anew: whoever bound
        their request to a version that is gone hears of it there."""
        async with self._turns.of(id_):
            for _ in range(_ATTEMPTS):
                try:
                    with refusals():
                        return await attempt()
                except ScimChanged:
                    continue
        raise ScimError(409, "others change this resource all the time; send the request again")

    async def _done(self, resource: ScimResource, *, changed: bool) -> ScimResource:
        if changed or self._hooks.outcome_of is not None:
            self._hooks.on_change()
        if self._hooks.outcome_of is not None:
            error = await self._hooks.outcome_of(resource)
            if error is not None:
                raise ScimError(500, error)
        return resource


async def _beside(steps: int, work: Callable[[], T]) -> T:
    """What `work` gives; if it has many steps it is done in a thread, and other requests go on."""
    return work() if steps < _AT_LENGTH else await asyncio.to_thread(work)


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
