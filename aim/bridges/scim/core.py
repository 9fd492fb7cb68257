"""The one door to scim2_models and scim2_server: schemas, validation, PATCH of attributes, the grammar of
filters, routes, discovery, conditions, cursors and the order of a bulk request.

Plain JSON and types of ours go in and come out, and every refusal is a ScimError. Both libraries are pinned
exactly, and beside this module only `resources` (the models), `plain` (what they would not change) and
`filters` (the syntax tree) import them.
Their request handler is not used: it holds whole resources as models, a group with all its members included.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    BulkOperation,
    ChangePassword,
    Context,
    Error,
    ETag,
    Filter,
    Pagination,
    Patch,
    PatchOp,
    PreconditionFailedException,
    Resource,
    ResourceType,
    SCIMException,
    ScimFilter,
    ScimPolicy,
    ScimProvider,
    SearchRequest,
    ServiceProviderConfig,
    Sort,
)
from scim2_models.path import FilterNode
from scim2_server.bulk import BulkPlan
from scim2_server.conditions import Conditions
from scim2_server.errors import MethodNotAllowedException
from scim2_server.routing import match
from scim2_server.service import ScimService
from scim2_server.utils import parametrize

from aim.bridges.scim.dialects import PATCH_SCHEMA, Operation
from aim.bridges.scim.errors import ScimError, invalid_syntax, invalid_value, not_found
from aim.bridges.scim.plain import is_plain
from aim.bridges.scim.projection import Projection, projection
from aim.bridges.scim.resources import ENTERPRISE, MODEL, MODELS, SCHEMA, etag
from aim.ports.scim import ScimKind

PAGE = 100
"""Resources on a page, if the client doesn't say."""
LARGEST_PAGE = 1000
MOST_OPERATIONS = 1000
"""In one bulk request."""
MOST_CHANGES = 200
"""Operations of one PATCH, those on members not counted: each looks at the whole resource."""
MOST_VALUES = 1000
"""Of one attribute, such as emails: each change compares them all."""
MOST_COMPARED = 10_000
"""In one PATCH: its operations, times the values that the resource may have by then."""
LONGEST_SEARCH = 65_536
"""Characters of all parameters together."""
LONGEST_PATH = 4096
"""Characters of a path of a PATCH."""
CURSOR_TIMEOUT = 3600
"""Seconds for which a cursor holds."""

_KINDS = {"users": ScimKind.USER, "groups": ScimKind.GROUP}
_NOT_STORED = frozenset({"schemas", "id", "meta", "members", "groups", "password"})
_TOLERANT = ScimPolicy(unknown=ScimPolicy.Unknown.ignore)
"""For POST and PUT: attributes that we don't know are dropped."""
_STRICT = ScimPolicy(
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)
"""For PATCH: a path that we don't know is refused, or the client would think that it was done."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a method and a path ask for."""

    operation: str
    """create, query, replace, patch, delete, search, search_with_body, bulk, or one of discovery."""
    kind: ScimKind | None = None
    """None at the root."""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """A search request that was checked."""

    kinds: Sequence[ScimKind]
    """What is searched."""
    endpoint: Sequence[ScimKind]
    """What the endpoint has, whether or not the client may see it."""
    filter: FilterNode | None
    sort_by: str | None
    descending: bool
    count: int
    start_index: int | None
    """From 1; None: by cursor."""
    position: Any
    """What the cursor held; None on the first page."""
    projection: Projection
    request: SearchRequest[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a bulk request, with its references resolved."""

    method: str
    path: str
    data: object
    version: str | None


class _Service(ScimService):
    """The library's protocol, with a way to make cursors for pages of ours."""

    def seal(self, search: Search, position: object) -> str | None:
        return self._seal(self.types(search.endpoint), search.request, position)

    def types(self, kinds: Iterable[ScimKind]) -> list[ResourceType]:
        return [self.get_resource_type(kind.value) for kind in kinds]


class Core:
    """The protocol, without any input or output."""

    def __init__(self, largest_body: int, secret: bytes | None = None) -> None:
        """`secret` makes cursors; None: a random one, with which cursors end when the process does."""
        self._provider = ScimProvider(
            models=MODELS,
            resource_types=[ResourceType.from_resource(model) for model in MODEL.values()],
            config=_configuration(largest_body),
            policy=_STRICT,
        )
        self._service = _Service(self._provider, secret=secret or secrets.token_bytes(32))

    # -- routes ----------------------------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route:
        """ScimError: 404, 405 with Allow, and 501 for /Me."""
        with refusals():
            target = match(method.upper(), path)
        if target.me:
            raise ScimError(501, "/Me is not supported: tokens belong to no user")
        kind = None
        if target.endpoint is not None:
            kind = _KINDS.get(target.endpoint.casefold())
            if kind is None:
                raise not_found("there is no such endpoint")
        return Route(target.operation.value, kind, target.resource_id)

    def discover(self, route: Route, url: str, query: Mapping[str, str]) -> dict[str, Any]:
        """The answer of a discovery endpoint (RFC 7644, 4) at this address."""
        with self._provider, refusals():
            serve: Callable[..., Any] = getattr(self._service, route.operation)
            response = serve(url, query) if route.id is None else serve(url, route.id, query)
            return cast(dict[str, Any], response.body)

    # -- documents -------------------------------------------------------------------------------------------

    def document(self, kind: ScimKind, given: Mapping[str, object]) -> dict[str, object]:
        """What is stored of a body of POST or PUT, checked and in the schema's spelling; without members."""
        body = {key: value for key, value in given.items() if key.lower() not in _NOT_STORED}
        _require_few(body)
        if is_plain(kind, body):
            return body
        with self._provider, refusals():
            model = MODEL[kind].model_validate(
                {"schemas": [SCHEMA[kind], *_extensions(body)], **body},
                scim_ctx=Context.RESOURCE_CREATION_REQUEST,
                scim_policy=_TOLERANT,
            )
            return _stored(model)

    def patched(
        self, kind: ScimKind, document: Mapping[str, object], operations: Sequence[Operation]
    ) -> dict[str, object]:
        """The document after these operations, none of which is on members."""
        if len(operations) > MOST_CHANGES:
            raise invalid_value(f"a PATCH has at most {MOST_CHANGES} operations besides those on members")
        for one in operations:
            _require_short(one.path)
            _require_few({one.path: one.value})
        if compared(document, operations) > MOST_COMPARED:
            raise invalid_value(
                "these are too many operations on so many values: send them in several requests"
            )
        with self._provider, refusals():
            patch = parametrize(PatchOp, MODEL[kind]).model_validate(
                {"schemas": [PATCH_SCHEMA], "Operations": [_operation(one) for one in operations]},
                scim_ctx=Context.RESOURCE_PATCH_REQUEST,
            )
            model = MODEL[kind].model_validate(
                {"schemas": [SCHEMA[kind], *_extensions(document)], **document}, scim_policy=_TOLERANT
            )
            patch.patch(model)
            found = _stored(model)
        _require_few(found)
        return found

    def choose(self, path: str, entries: Sequence[Mapping[str, object]]) -> list[bool]:
        """For each of these members whether the path of a PATCH, `members[…]`, selects it."""
        _require_short(path)
        with self._provider, refusals():
            selection = path[: path.rindex("]") + 1] if "]" in path else path
            model = MODEL[ScimKind.GROUP]
            filter_ = parametrize(ScimFilter, model)(selection)
            return [filter_.match(model.model_validate({"members": [entry]})) for entry in entries]

    # -- searches --------------------------------------------------------------------------------------------

    def search(self, kinds: Sequence[ScimKind], allowed: Sequence[ScimKind], given: object) -> Search:
        """The request in a query or a body, at the endpoint of `kinds`, of which `allowed` are searched."""
        if not isinstance(given, dict):
            raise invalid_syntax("the body must be a JSON object")
        if len(str(given)) > LONGEST_SEARCH:
            raise ScimError(400, f"a search has at most {LONGEST_SEARCH} characters", "invalidFilter")
        with self._provider, refusals():
            request, position = self._service.read_search(self._service.types(kinds), given)
        return Search(
            kinds=allowed,
            endpoint=kinds,
            filter=None if request.filter is None else request.filter.ast,
            sort_by=None if request.sort_by is None else str(request.sort_by),
            # An order is that of sortBy (RFC 7644, 3.4.2.3); without one it means nothing.
            descending=request.sort_by is not None
            and request.sort_order == SearchRequest.SortOrder.descending,
            count=request.count if request.count is not None else PAGE,
            start_index=None if request.cursor is not None else request.start_index or 1,
            position=position,
            projection=projection(
                map(str, request.attributes or ()), map(str, request.excluded_attributes or ())
            ),
            request=request,
        )

    def cursor(self, search: Search, position: object) -> str | None:
        """A cursor for a position of ours, which is JSON. None for None."""
        with self._provider, refusals():
            return self._service.seal(search, position)

    def matches(self, search: Search, resource: Mapping[str, object]) -> bool:
        """Whether a rendered resource matches the filter: for what the store can't answer."""
        if search.request.filter is None:
            return True
        with self._provider, refusals():
            return bool(search.request.filter.match(self._model(resource)))

    def sort_value(self, search: Search, resource: Mapping[str, object]) -> Any:
        """What a rendered resource is sorted by; None if it has no such value."""
        with self._provider, refusals():
            return search.request.sort_value(self._model(resource))

    def _model(self, resource: Mapping[str, object]) -> Resource[Any]:
        kind = next(kind for kind in ScimKind if SCHEMA[kind] in cast(list[str], resource["schemas"]))
        model: Resource[Any] = MODEL[kind].model_validate(resource, scim_policy=_TOLERANT)
        return model


def _extensions(document: Mapping[str, object]) -> list[str]:
    return [ENTERPRISE] if document.get(ENTERPRISE) else []


def _stored(model: Resource[Any]) -> dict[str, object]:
    dumped = model.model_dump()
    return {key: value for key, value in dumped.items() if key not in _NOT_STORED}


def _require_few(document: Mapping[str, object]) -> None:
    for name, value in document.items():
        if isinstance(value, list) and len(value) > MOST_VALUES:
            raise invalid_value(f"{name[:200]} has at most {MOST_VALUES} values")


def compared(document: Mapping[str, object], operations: Sequence[Operation]) -> int:
    """How many values a PATCH of these operations may have to look at: the measure of what it costs."""
    return len(operations) * (_values(document.values()) + _values(one.value for one in operations))


def _values(of: Iterable[object]) -> int:
    """How many values all these attributes have that have several."""
    return sum(len(value) for value in of if isinstance(value, list))


def _require_short(path: str) -> None:
    if len(path) > LONGEST_PATH:
        raise ScimError(400, f"a path has at most {LONGEST_PATH} characters", "invalidPath")


def _operation(one: Operation) -> dict[str, object]:
    said: dict[str, object] = {"op": one.op, "path": one.path}
    return {**said, "value": one.value} if one.has_value else said


# -- conditions ----------------------------------------------------------------------------------------------


def allowed(version: int, method: str, if_match: str | None, if_none_match: str | None) -> bool:
    """Checks the conditions of a request (RFC 7644, 3.14). False: answer 304. ScimError 412 if one fails."""
    if if_match is None and if_none_match is None:
        return True
    tag = etag(version)
    try:
        Conditions(if_match, None).check(tag, method)
    except PreconditionFailedException as error:
        raise ScimError(412, "the resource has another version than If-Match says") from error
    try:
        return Conditions(None, if_none_match).check(tag, method)
    except PreconditionFailedException as error:
        raise ScimError(412, "the resource has a version that If-None-Match rules out") from error


# -- bulk ----------------------------------------------------------------------------------------------------


class BulkOrder:
    """The operations of a bulk request in the order in which they must run (RFC 7644, 3.7.2)."""

    def __init__(self, given: object) -> None:
        """Checks the envelope. ScimError, 413 for too many operations."""
        if not isinstance(given, dict):
            raise invalid_syntax("the body must be a JSON object")
        said = {key.lower(): value for key, value in given.items()}
        listed, most = said.get("operations"), said.get("failonerrors")
        if not isinstance(listed, list) or not listed:
            raise invalid_syntax("Operations must be a list of one or more operations")
        if len(listed) > MOST_OPERATIONS:
            raise ScimError(413, f"a bulk request has at most {MOST_OPERATIONS} operations")
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
            raise invalid_syntax("failOnErrors must be a number from 1")
        with refusals():
            self._plan = BulkPlan([_bulk_operation(entry) for entry in listed], most)

    def __iter__(self) -> Iterator[int]:
        """Numbers of operations, until there were too many errors."""
        for step in self._plan:
            self._step = step
            yield step.index

    def said(self, index: int) -> dict[str, object]:
        """How the answer names the operation."""
        operation = self._plan.operations[index]
        named: dict[str, object] = {"method": operation.method and operation.method.value}
        if operation.bulk_id is not None:
            named["bulkId"] = operation.bulk_id
        return named

    def step(self, index: int) -> Step:
        """The operation that is at its turn. ScimError if it is none, or refers to what was not made."""
        operation = self._plan.operations[index]
        if operation.method is None or not isinstance(operation.path, str):
            raise invalid_syntax("an operation needs method (POST, PUT, PATCH or DELETE) and path")
        if operation.method is BulkOperation.Method.post and not operation.bulk_id:
            raise invalid_syntax("POST needs a bulkId")
        with refusals():
            resolved = self._plan.resolve(self._step)
        return Step(operation.method.value, resolved.path or "", resolved.data, resolved.version)

    def record(self, index: int, status: int, made: object | None) -> None:
        """How it ended; `made` is what has the id that later operations refer to."""
        bulk_id = self._plan.operations[index].bulk_id
        self._plan.record(self._step, {"status": status, "bulk_id": bulk_id}, cast(Any, made))


def _bulk_operation(entry: object) -> Any:
    if not isinstance(entry, dict):
        raise invalid_syntax("each operation must be a JSON object")
    said = {key.lower(): value for key, value in entry.items()}
    method = said.get("method")
    known = {one.value: one for one in BulkOperation.Method}
    bulk_id, version, path = said.get("bulkid"), said.get("version"), said.get("path")
    # Of which kind it is, its path says; what it holds is checked where it is written.
    return parametrize(BulkOperation, MODEL[ScimKind.USER]).model_construct(
        method=known.get(method.upper()) if isinstance(method, str) else None,
        bulk_id=bulk_id if isinstance(bulk_id, str) else None,
        version=version if isinstance(version, str) else None,
        path=path if isinstance(path, str) else None,
        data=said.get("data"),
    )


# -- refusals ------------------------------------------------------------------------------------------------


@contextmanager
def refusals() -> Iterator[None]:
    """Refusals of the libraries become ours."""
    try:
        yield
    except MethodNotAllowedException as error:
        raise ScimError(405, error.detail, headers={"Allow": ", ".join(error.allowed)}) from error
    except SCIMException as error:
        if isinstance(error.__cause__, ValidationError):
            # Its own text has the whole of the other's: several lines about models, and what the client sent.
            raise ScimError(
                error.status, _first(error.__cause__).detail or "invalid", error.scim_type
            ) from error
        raise ScimError(error.status, str(error), error.scim_type or None) from error
    except ValidationError as error:
        first = _first(error)
        raise ScimError(first.status or 400, first.detail or "invalid", first.scim_type or None) from error
    except RecursionError as error:
        raise invalid_syntax("the request is nested too deep") from error


def _first(error: ValidationError) -> Error:
    return Error.from_validation_errors(error)[0]


def _configuration(largest_body: int) -> ServiceProviderConfig:
    return ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=True, max_operations=MOST_OPERATIONS, max_payload_size=largest_body),
        filter=Filter(supported=True, max_results=LARGEST_PAGE),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=True),
        etag=ETag(supported=True),
        pagination=Pagination(
            cursor=True,
            index=True,
            default_pagination_method=Pagination.DefaultPaginationMethod.index,
            default_page_size=PAGE,
            max_page_size=LARGEST_PAGE,
            cursor_timeout=CURSOR_TIMEOUT,
        ),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="Bearer token",
                description="a token in the Authorization header (RFC 6750)",
                spec_uri=cast(Any, "https://www.rfc-editor.org/rfc/rfc6750"),
                primary=True,
            )
        ],
    )
