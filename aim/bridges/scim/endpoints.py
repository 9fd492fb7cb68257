"""The endpoints of SCIM (RFC 7644, 3.2): a request whose sender is known becomes an answer.

    Request, Access ─► route ─► rights ─► storage (reads), writing (writes) ─► Answer

Knows nothing of HTTP but methods, header names and status codes: `server` reads and writes the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from aim.bridges.scim.core import BulkOrder, Core, Route, Search, Step
from aim.bridges.scim.errors import ScimError, away, invalid_value
from aim.bridges.scim.projection import Projection, projection
from aim.bridges.scim.resources import etag, location
from aim.bridges.scim.rights import Access
from aim.bridges.scim.storage import Storage
from aim.bridges.scim.writing import UNCONDITIONAL, Conditions, Writing
from aim.errors import HomeserverUnavailable, StoreError
from aim.ports.scim import ScimKind, ScimResource

SMALL = 100
"""Members up to which a PATCH of a group answers with the group."""

DISCOVERY = frozenset({"service_provider_config", "resource_types", "resource_type", "schemas", "schema"})
"""Operations that need no token (RFC 7644, 4)."""

_log = structlog.get_logger()

_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_BULK = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
_DONE = {"create": 201, "replace": 200, "patch": 200, "delete": 204}
_SEARCHED = {
    name.lower(): name
    for name in ("attributes excludedAttributes filter sortBy sortOrder startIndex count cursor".split())
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read."""

    method: str
    base: str
    """Address of the service as the client sees it, without a slash at its end."""
    path: str
    """Below that, decoded."""
    query: Mapping[str, str] = field(default_factory=dict)
    conditions: Conditions = UNCONDITIONAL
    body: object = None
    """The JSON that came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Endpoints:
    """Answers requests. Raises ScimError, StoreError, and what the hooks of Writing raise."""

    def __init__(self, core: Core, storage: Storage, writing: Writing) -> None:
        self._core = core
        self._storage = storage
        self._writing = writing

    def discover(self, route: Route, request: Request) -> Answer:
        """Of an operation in DISCOVERY."""
        url = f"{request.base}/{request.path.strip('/')}"
        return Answer(200, self._core.discover(route, url, request.query))

    async def answer(self, route: Route, request: Request, access: Access) -> Answer:
        """Of every other operation."""
        serve = {
            "create": self._create,
            "query": self._query,
            "replace": self._change,
            "patch": self._change,
            "delete": self._delete,
            "bulk": self._bulk,
        }.get(route.operation, self._search)
        return await serve(route, request, access)

    # -- one resource ----------------------------------------------------------------------------------------

    async def _create(self, route: Route, request: Request, access: Access) -> Answer:
        kind = _kind(route)
        access.require("write", kind)
        wanted = _shown_to(access, kind, _projection(request))
        created = await self._writing.create(kind, request.body)
        return await self._shown(created, request, wanted, 201)

    async def _delete(self, route: Route, request: Request, access: Access) -> Answer:
        access.require("write", _kind(route))
        await self._writing.delete(_kind(route), route.id or "", request.conditions)
        return Answer(204)

    async def _query(self, route: Route, request: Request, access: Access) -> Answer:
        kind, id_ = _kind(route), route.id or ""
        access.require("read", kind)
        wanted = _projection(request)
        found = await self._storage.get(kind, id_)
        if not request.conditions.check(found, "GET"):
            return Answer(304, None, {"ETag": etag(found.version)})
        return await self._shown(found, request, wanted, 200)

    async def _change(self, route: Route, request: Request, access: Access) -> Answer:
        kind, id_ = _kind(route), route.id or ""
        access.require("write", kind)
        wanted = _projection(request)
        if route.operation == "replace":
            replaced = await self._writing.replace(kind, id_, request.body, request.conditions)
            return await self._shown(replaced, request, _shown_to(access, kind, wanted), 200)
        patched = await self._writing.patch(kind, id_, request.body, request.conditions)
        if not access.may("read", kind):
            # Who may only write did not send all of it, and is not shown the rest.
            return Answer(204, None, {"ETag": etag(patched.version)})
        if kind is ScimKind.GROUP and wanted.is_whole:
            members = await self._storage.few_members(id_, SMALL)
            if members is None:
                return Answer(204, None, {"ETag": etag(patched.version)})
        return await self._shown(patched, request, wanted, 200)

    async def _shown(
        self, resource: ScimResource, request: Request, wanted: Projection, status: int
    ) -> Answer:
        related = await self._storage.related([resource], wanted)
        where = location(request.base, resource.kind, resource.id)
        headers = {"ETag": etag(resource.version), "Content-Location": where}
        if status == 201:
            headers["Location"] = where
        return Answer(status, related.render(resource, request.base, wanted), headers)

    # -- searches --------------------------------------------------------------------------------------------

    async def _search(self, route: Route, request: Request, access: Access) -> Answer:
        given = _parameters(request.query) if route.operation == "search" else request.body
        kinds = [route.kind] if route.kind is not None else list(ScimKind)
        allowed = [kind for kind in kinds if access.may("read", kind)]
        if not allowed:
            access.require("read", kinds[0])
        search = self._core.search(kinds, allowed, given)
        found = await self._storage.search(search)
        related = await self._storage.related(found.resources, search.projection)
        body: dict[str, object] = {"schemas": [_LIST], "totalResults": found.total}
        body["itemsPerPage"] = len(found.resources)
        if search.start_index is not None:
            body["startIndex"] = search.start_index
        self._add_cursors(body, search, found.next, found.previous)
        body["Resources"] = [related.render(one, request.base, search.projection) for one in found.resources]
        return Answer(200, body)

    def _add_cursors(
        self, body: dict[str, object], search: Search, following: object, previous: object
    ) -> None:
        if search.start_index is not None:
            return
        for name, position in (("nextCursor", following), ("previousCursor", previous)):
            cursor = self._core.cursor(search, position)
            if cursor is not None:
                body[name] = cursor

    # -- bulk ------------------------------------------------------------------------------------------------

    async def _bulk(self, _: Route, request: Request, access: Access) -> Answer:
        """Each operation as if it had come alone (RFC 7644, 3.7), with an outcome of its own. What has to be
        waited for is waited for once, after all were written."""
        order = BulkOrder(request.body)
        outcomes: dict[int, dict[str, object]] = {}
        written: list[ScimResource] = []
        writing = self._writing.noting(written)
        awaited: list[int] = []
        is_away = False
        for index in order:
            outcome = order.said(index)
            try:
                if is_away:
                    raise away()
                status, made = await self._bulk_step(
                    writing, order.step(index), request.base, access, outcome
                )
            except (StoreError, HomeserverUnavailable) as error:
                if not outcomes:
                    raise
                # What was done before is told, or the client would do it twice; nobody waits for the rest.
                _log.error("a SCIM request was carried out in part", cause=error.message, remedy=error.remedy)
                is_away = True
                status, made = _refused(outcome, away())
            except ScimError as error:
                status, made = _refused(outcome, error)
            outcome["status"] = str(status)
            outcomes[index] = outcome
            order.record(index, status, made)
            awaited += [index] * (len(written) - len(awaited))
        for index, undone in zip(awaited, await self._writing.outcomes(written), strict=True):
            if undone is not None:
                # What was made keeps its address and version: it is stored.
                outcomes[index] |= {"status": "500", "response": ScimError(500, undone).body()}
        said = [outcomes[index] for index in sorted(outcomes)]
        return Answer(200, {"schemas": [_BULK], "Operations": said})

    async def _bulk_step(
        self, writing: Writing, step: Step, base: str, access: Access, outcome: dict[str, object]
    ) -> tuple[int, ScimResource | None]:
        route = self._core.route(step.method, step.path)
        if route.operation not in _DONE or route.kind is None:
            raise invalid_value(
                "an operation of a bulk request is on a resource, or on the endpoint of a type"
            )
        if route.id is not None:
            outcome["location"] = location(base, route.kind, route.id)
        access.require("write", route.kind)
        made = await _write(writing, route, step.data, Conditions(step.version))
        if made is not None:
            outcome["location"] = location(base, made.kind, made.id)
            outcome["version"] = etag(made.version)
        return _DONE[route.operation], made


async def _write(writing: Writing, route: Route, data: object, conditions: Conditions) -> ScimResource | None:
    kind, id_ = _kind(route), route.id or ""
    match route.operation:
        case "create":
            return await writing.create(kind, data)
        case "replace":
            return await writing.replace(kind, id_, data, conditions)
        case "patch":
            return await writing.patch(kind, id_, data, conditions)
        case _:
            await writing.delete(kind, id_, conditions)
            return None


def _kind(route: Route) -> ScimKind:
    assert route.kind is not None
    return route.kind


def _refused(outcome: dict[str, object], error: ScimError) -> tuple[int, None]:
    """Status and resource of an operation of a bulk request that failed; why goes into `outcome`."""
    outcome["response"] = error.body()
    return error.status, None


def _shown_to(access: Access, kind: ScimKind, wanted: Projection) -> Projection:
    """Who may only write is not shown who is a member of what."""
    return wanted if access.may("read", kind) else wanted.less("members", "groups")


def _projection(request: Request) -> Projection:
    said = _parameters(request.query)
    return projection(said.get("attributes"), said.get("excludedAttributes"))


def _parameters(query: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a search, whatever their case; others mean nothing."""
    return {_SEARCHED[key.lower()]: value for key, value in query.items() if key.lower() in _SEARCHED}
