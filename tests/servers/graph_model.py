"""Microsoft Graph without HTTP: requests become answers, all in one process and without I/O.

The stand-in `graph` serves it over TLS; tests of thousands of histories ask it directly:

model = GraphModel(seed=7)
ann = model.tenant.add_user("ann")
status, headers, content = model.answer("GET", "/v1.0/users/delta?$select=id,mail")

What the documentation forbids is refused, and so is what the stand-in doesn't understand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tests.servers.graph_delta import MOST_ON_PAGE, DeltaPage, Deltas, Query
from tests.servers.graph_odata import (
    DEFAULTS,
    Refusal,
    bad_request,
    condition_of,
    is_known,
    same_ids,
    selected,
    unsupported,
)
from tests.servers.graph_subscriptions import Subscriptions
from tests.servers.graph_tenant import GROUPS, USERS, Clock, Tenant, Thing

Json = dict[str, Any]

READ_USERS = frozenset("User.Read.All User.ReadWrite.All Directory.Read.All Directory.ReadWrite.All".split())
READ_GROUPS = frozenset(
    """GroupMember.Read.All GroupMember.ReadWrite.All Group.Read.All Group.ReadWrite.All
    Directory.Read.All Directory.ReadWrite.All""".split()
)
_READ_ORGANIZATION = frozenset("Organization.Read.All Directory.Read.All Directory.ReadWrite.All".split())
_READ_APPLICATIONS = frozenset(
    "Application.Read.All Application.ReadWrite.All Directory.Read.All Directory.ReadWrite.All".split()
)
_SUBSCRIBE = {
    USERS: READ_USERS,
    # Reading who is in a group is not enough to be told of changes.
    GROUPS: READ_GROUPS - {"GroupMember.Read.All", "GroupMember.ReadWrite.All"},
}
_NEEDED = {USERS: READ_USERS, GROUPS: READ_GROUPS}
_EXPANDED = 20
_IN_BATCH = 20


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: Any
    """A JSON object; text for `/$count`; None for 204."""


@dataclass(slots=True)
class Application:
    """What Graph knows of the client: the credentials that an administrator gave it."""

    app_id: str
    display_name: str = "aim"
    passwords: list[Json] = field(default_factory=list)
    keys: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Request:
    """One request, taken apart."""

    method: str
    path: Sequence[str]
    """Below the version."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By name in lower case."""
    body: object
    roles: Collection[str] | None
    """None: may do all."""

    def may(self, any_of: Collection[str]) -> bool:
        return self.roles is None or not set(any_of).isdisjoint(self.roles)

    def need(self, any_of: Collection[str]) -> None:
        if not self.may(any_of):
            raise Refusal(
                403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."
            )

    def allow(self, *names: str) -> None:
        """No other query parameters."""
        for name in self.query:
            if name not in names:
                raise bad_request(f"The query parameter '{name}' is not supported here.")

    @property
    def advanced(self) -> bool:
        return self.eventual and self.query.get("$count") == "true"

    @property
    def eventual(self) -> bool:
        return self.headers.get("consistencylevel") == "eventual"


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a `$skiptoken` of a list stands for."""

    path: tuple[str, ...]
    things: Sequence[str]
    begin: int
    size: int
    select: Sequence[str] | None
    collections: Sequence[str]


Handler = Callable[["_Request"], Answer]


class GraphModel:
    """One tenant, as Graph shows it. `base_url` is where its links lead, without the version."""

    def __init__(
        self, seed: int = 0, *, clock: Clock | None = None, base_url: str = "https://graph.microsoft.com"
    ) -> None:
        self.clock = clock or Clock(datetime(2030, 1, 1, tzinfo=UTC))
        self.tenant = Tenant(seed)
        self.deltas = Deltas(self.tenant, self.clock, seed)
        self.subscriptions = Subscriptions(self.tenant, self.clock)
        self.applications: dict[str, Application] = {}
        self.base_url = base_url.rstrip("/")
        self.version = "v1.0"
        self.refusals: list[str] = []
        """What was asked that Graph doesn't understand: its answers 400."""
        self._listings: dict[str, _Listing] = {}

    def least_pages(self, *, members: bool = True, size: int = MOST_ON_PAGE) -> tuple[int, int]:
        """How many requests the first rounds over all users and over all groups take at least."""
        users = self.deltas.pages(Query(USERS), size)
        return users, self.deltas.pages(Query(GROUPS, members=members), size)

    def answer(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        roles: Collection[str] | None = None,
    ) -> Answer:
        """To one request. `target` is a path with its query, percent-encoded, or a whole address of ours.
        `roles` are the permissions of whoever asks, None for all of them."""
        parts = urlsplit(target)
        segments = [unquote(each) for each in parts.path.split("/") if each]
        given = {name.lower(): value for name, value in (headers or {}).items()}
        try:
            if not segments or segments[0] not in {"v1.0", "beta"}:
                raise bad_request("Invalid version.")
            query = self._query(parts.query)
            request = _Request(method, segments[1:], query, given, body, roles)
            return self._handler(request)(request)
        except Refusal as refusal:
            if refusal.status == 400:
                self.refusals.append(f"{method} {target}: {refusal.message}")
            return self.error(refusal)

    def error(self, refusal: Refusal) -> Answer:
        """In Graph's shape."""
        headers = dict(refusal.headers)
        if headers.get("Location", "").startswith("/"):
            headers["Location"] = f"{self.base_url}/{self.version}{headers['Location']}"
        request_id = "00000000-0000-4000-8000-000000000000"
        inner = {
            "date": self.clock.now().strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": request_id,
            "client-request-id": request_id,
        }
        content = {"error": {"code": refusal.code, "message": refusal.message, "innerError": inner}}
        return Answer(refusal.status, headers, content)

    # Where to

    @staticmethod
    def _query(text: str) -> dict[str, str]:
        pairs = parse_qsl(text, keep_blank_values=True)
        query = dict(pairs)
        if len(query) < len(pairs):
            raise bad_request("A query parameter comes twice.")
        return query

    def _handler(self, request: _Request) -> Handler:
        path = "/".join(request.path)
        for method, pattern, handler in self._routes():
            if method == request.method and re.fullmatch(pattern, path):
                return handler
        if any(re.fullmatch(pattern, path) for _, pattern, _ in self._routes()):
            raise Refusal(
                405, "Request_BadRequest", "Specified HTTP method is not allowed for the request target."
            )
        first = request.path[0] if request.path else ""
        raise bad_request(f"Resource not found for the segment '{first}'.")

    def _routes(self) -> Sequence[tuple[str, str, Handler]]:
        return (
            ("GET", "organization", self._organization),
            ("GET", r"(users|groups)/(microsoft\.graph\.)?delta(\(\))?", self._delta),
            ("GET", r"(users|groups)/\$count", self._count),
            ("GET", "users|groups", self._list),
            ("GET", "(users|groups)/[^/]+", self._get),
            (
                "GET",
                r"groups/[^/]+/(members|transitiveMembers)(/microsoft\.graph\.(user|group))?",
                self._members,
            ),
            ("GET", r"groups/[^/]+/(members|transitiveMembers)/\$count", self._count_members),
            ("GET", r"applications\(appId='[^']*'\)", self._application),
            ("POST", r"\$batch", self._batch),
            ("GET", "subscriptions", self._subscription_list),
            ("POST", "subscriptions", self._subscribe),
            ("GET", "subscriptions/[^/]+", self._subscription),
            ("PATCH", "subscriptions/[^/]+", self._renew),
            ("DELETE", "subscriptions/[^/]+", self._unsubscribe),
            ("POST", "subscriptions/[^/]+/reauthorize", self._reauthorize),
        )

    # The organisation

    def _organization(self, request: _Request) -> Answer:
        request.allow("$select")
        # Not even the name is for whoever may read people (that holds for delegated permissions only).
        request.need(_READ_ORGANIZATION)
        values: Json = {"id": self.tenant.id, **self.tenant.organization}
        if "$select" in request.query:
            names = [name.strip() for name in request.query["$select"].split(",")]
            unknown = [name for name in names if name not in values]
            if unknown:
                raise bad_request(
                    f"Could not find a property named '{unknown[0]}' on 'microsoft.graph.organization'."
                )
            values = {name: values[name] for name in names}
        return self._ok({"@odata.context": self._context("organization"), "value": [values]})

    # Delta queries

    def _delta(self, request: _Request) -> Answer:
        collection = request.path[0]
        request.need(_NEEDED[collection])
        # Their case doesn't matter to Graph.
        query = {name.lower(): value for name, value in request.query.items()}
        size, minimal, applied = _preferred(request.headers.get("prefer", ""))
        skip, delta = query.get("$skiptoken"), query.get("$deltatoken")
        if skip is not None or (delta and delta != "latest"):
            if len(query) > 1:
                raise bad_request("A state token can't be combined with other query parameters.")
            page = (
                self.deltas.next(collection, skip, size, minimal=minimal)
                if skip is not None
                else self.deltas.after(collection, delta or "", size, minimal=minimal)
            )
            return self._delta_answer(collection, page, applied)
        wanted = self._delta_query(collection, query)
        page = self.deltas.latest(wanted) if delta else self.deltas.first(wanted, size)
        return self._delta_answer(collection, page, applied)

    @staticmethod
    def _delta_query(collection: str, query: Mapping[str, str]) -> Query:
        for name in query:
            if name not in {"$select", "$filter", "$deltatoken", "$expand"}:
                raise unsupported(f"The query parameter '{name}' is not supported in a delta query.")
        relations = ("members",) if collection == GROUPS else ()
        names = selected(query.get("$select"), [collection], relations)
        if "$expand" in query and (collection != GROUPS or query["$expand"] != "members"):
            raise unsupported("$expand is not supported in a delta query.")
        members = "$expand" in query or (collection == GROUPS and (names is None or "members" in names))
        only = same_ids(query["$filter"]) if "$filter" in query else None
        if names is not None:
            names = tuple(name for name in names if name not in {"members", "id"})
        return Query(collection, names, members, only)

    def _delta_answer(self, collection: str, page: DeltaPage, applied: str) -> Answer:
        content: Json = {"@odata.context": self._context(collection), "value": list(page.items)}
        address = f"{self.base_url}/{self.version}/{collection}/delta"
        if page.skip_token:
            content["@odata.nextLink"] = f"{address}?$skiptoken={page.skip_token}"
        else:
            content["@odata.deltaLink"] = f"{address}?$deltatoken={page.delta_token}"
        return self._ok(content, {"Preference-Applied": applied} if applied else {})

    # Lists

    def _list(self, request: _Request) -> Answer:
        collection = request.path[0]
        request.need(_NEEDED[collection])
        if "$skiptoken" in request.query:
            return self._listed_on(request)
        request.allow("$select", "$filter", "$top", "$count", "$orderby", "$expand")
        things = self.tenant.all(collection)
        if "$filter" in request.query:
            test = condition_of(request.query["$filter"], collection, advanced=request.advanced)
            things = [each for each in things if test({"id": each.id, **each.properties})]
        self._order(request, things)
        select = selected(request.query.get("$select"), [collection])
        expand = request.query.get("$expand")
        if expand is not None and (collection != GROUPS or expand.partition("(")[0] != "members"):
            raise unsupported(f"$expand={expand} is not supported.")
        return self._listed(request, [each.id for each in things], select, [collection])

    @staticmethod
    def _order(request: _Request, things: list[Thing]) -> None:
        order = request.query.get("$orderby")
        if order is None:
            return
        name, _, direction = order.partition(" ")
        if name not in {"displayName", "userPrincipalName"} or direction not in {"", "asc", "desc"}:
            raise unsupported(f"Sort by '{order}' is not supported.")
        if "$filter" in request.query and not request.advanced:
            raise unsupported("$orderby with $filter needs ConsistencyLevel:eventual and $count=true.")
        things.sort(key=lambda each: str(each.properties.get(name)).casefold(), reverse=direction == "desc")

    def _members(self, request: _Request) -> Answer:
        request.need(READ_GROUPS)
        if "$skiptoken" in request.query:
            return self._listed_on(request)
        request.allow("$select", "$top", "$count")
        things = self._members_of(request)
        select = selected(request.query.get("$select"), [USERS, GROUPS])
        return self._listed(request, [each.id for each in things], select, [USERS, GROUPS])

    def _members_of(self, request: _Request) -> list[Thing]:
        group = self._known(request.path[1], GROUPS)
        find = self.tenant.members if request.path[2] == "members" else self.tenant.transitive_members
        kind = request.path[3].removeprefix("microsoft.graph.") if len(request.path) > 3 else "$count"
        return [each for each in find(group.id) if kind in {each.kind, "$count"}]

    def _listed(
        self, request: _Request, ids: Sequence[str], select: Sequence[str] | None, collections: Sequence[str]
    ) -> Answer:
        if request.query.get("$count", "false") not in {"true", "false"}:
            raise bad_request("Invalid value for $count.")
        listing = _Listing(tuple(request.path), ids, 0, _top(request), select, collections)
        # The count is given only where it was asked for as an advanced query.
        count = {"@odata.count": len(ids)} if request.advanced else {}
        return self._listing_page(listing, request, count)

    def _listed_on(self, request: _Request) -> Answer:
        listing = self._listings.get(request.query["$skiptoken"])
        if listing is None or listing.path != tuple(request.path):
            raise bad_request("Skip token is invalid.", "Directory_ExpiredPageToken")
        return self._listing_page(listing, request, {})

    def _listing_page(self, listing: _Listing, request: _Request, count: Json) -> Answer:
        end = listing.begin + listing.size
        here = [self.tenant.find(each) for each in listing.things[listing.begin : end]]
        shown = [self._shown(each, listing, request) for each in here if each]
        content: Json = {"@odata.context": self._context(listing.path[-1]), **count, "value": shown}
        if end < len(listing.things):
            token = f"RFNwdAoAAQ{len(self._listings):08x}"
            self._listings[token] = _Listing(
                listing.path, listing.things, end, listing.size, listing.select, listing.collections
            )
            kept = {name: value for name, value in request.query.items() if name != "$skiptoken"}
            kept["$skiptoken"] = token
            query = "&".join(f"{name}={quote(value)}" for name, value in kept.items())
            path = "/".join(quote(each) for each in listing.path)
            content["@odata.nextLink"] = f"{self.base_url}/{self.version}/{path}?{query}"
        return self._ok(content)

    def _shown(self, thing: Thing, listing: _Listing, request: _Request) -> Json:
        collection = {"user": USERS, "group": GROUPS}.get(thing.kind)
        item: Json = {}
        if len(listing.collections) > 1:
            item["@odata.type"] = f"#microsoft.graph.{thing.kind}"
        item["id"] = thing.id
        names = (
            listing.select if listing.select is not None else DEFAULTS.get(collection or "", ["displayName"])
        )
        # Of a kind that it may not read, a client is told that it is there, and no more.
        readable = collection is None or request.may(_NEEDED[collection])
        for name in names:
            if name != "id" and (collection is None or is_known(collection, name)):
                item[name] = thing.properties.get(name) if readable else None
        if request.query.get("$expand", "").startswith("members"):
            members = self.tenant.members(thing.id)[:_EXPANDED]
            item["members"] = [
                {"@odata.type": f"#microsoft.graph.{each.kind}", "id": each.id} for each in members
            ]
        return item

    def _get(self, request: _Request) -> Answer:
        collection, key = request.path
        request.need(_NEEDED[collection])
        request.allow("$select", "$expand")
        thing = self._known(key, collection)
        select = selected(request.query.get("$select"), [collection])
        listing = _Listing(tuple(request.path), [], 0, 0, select, [collection])
        return self._ok(
            {"@odata.context": self._context(f"{collection}/$entity"), **self._shown(thing, listing, request)}
        )

    def _known(self, key: str, collection: str) -> Thing:
        thing = self.tenant.in_collection(key, collection)
        if thing is None and collection == USERS:
            thing = self.tenant.user_named(key)
        if thing is None:
            raise Refusal(
                404,
                "Request_ResourceNotFound",
                f"Resource '{key}' does not exist or one of its queried objects is not present.",
            )
        return thing

    def _count(self, request: _Request) -> Answer:
        collection = request.path[0]
        request.need(_NEEDED[collection])
        request.allow("$filter")
        self._need_eventual(request)
        things = self.tenant.all(collection)
        if "$filter" in request.query:
            test = condition_of(request.query["$filter"], collection, advanced=True)
            things = [each for each in things if test({"id": each.id, **each.properties})]
        return Answer(200, {}, str(len(things)))

    def _count_members(self, request: _Request) -> Answer:
        request.need(READ_GROUPS)
        request.allow()
        self._need_eventual(request)
        return Answer(200, {}, str(len(self._members_of(request))))

    @staticmethod
    def _need_eventual(request: _Request) -> None:
        if not request.eventual:
            raise bad_request(
                "$count is not currently supported without ConsistencyLevel:eventual.", "Request_BadRequest"
            )

    def _application(self, request: _Request) -> Answer:
        request.need(_READ_APPLICATIONS)
        request.allow("$select")
        app_id = request.path[0].partition("'")[2].rpartition("'")[0]
        known = self.applications.get(app_id)
        if known is None:
            raise Refusal(404, "Request_ResourceNotFound", f"Resource '{app_id}' does not exist.")
        values: Json = {
            "id": known.app_id,
            "appId": known.app_id,
            "displayName": known.display_name,
            "passwordCredentials": known.passwords,
            "keyCredentials": known.keys,
        }
        names = request.query.get("$select", ",".join(values)).split(",")
        unknown = [name for name in names if name not in values]
        if unknown:
            raise bad_request(
                f"Could not find a property named '{unknown[0]}' on 'microsoft.graph.application'."
            )
        return self._ok(
            {"@odata.context": self._context("applications/$entity")} | {each: values[each] for each in names}
        )

    # Many at once

    def _batch(self, request: _Request) -> Answer:
        items = self.batch_items(request.body)
        return self._ok(
            {"responses": [self.batch_answer(item, self.batched(item, request.roles)) for item in items]}
        )

    @staticmethod
    def batch_items(body: object) -> list[Json]:
        """The single requests of a batch. Raises Refusal."""
        items = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(items, list) or not items:
            raise bad_request("Invalid batch payload format.")
        if len(items) > _IN_BATCH:
            raise bad_request(f"Number of batch request steps exceeds the maximum value of {_IN_BATCH}.")
        for item in items:
            if not isinstance(item, dict) or not all(
                isinstance(item.get(key), str) for key in ("id", "method", "url")
            ):
                raise bad_request("Invalid batch payload format.")
        if len({item["id"].casefold() for item in items}) < len(items):
            raise bad_request("Request ids must be unique in a batch.")
        if any("dependsOn" in item for item in items):
            raise bad_request("The stand-in knows no dependsOn.")
        return items

    def batched(self, item: Json, roles: Collection[str] | None = None) -> Answer:
        """The answer to one request of a batch."""
        target = f"/{self.version}/{item['url'].lstrip('/')}"
        if "$batch" in item["url"]:
            return self.error(bad_request("A batch can't hold a batch."))
        return self.answer(item["method"], target, item.get("headers") or {}, item.get("body"), roles)

    @staticmethod
    def batch_answer(item: Json, answer: Answer) -> Json:
        headers = {**answer.headers, "Content-Type": "application/json"}
        return {"id": item["id"], "status": answer.status, "headers": headers, "body": answer.content}

    # Subscriptions. Whoever serves this has validated the addresses before.

    def _subscribe(self, request: _Request) -> Answer:
        request.allow()
        content = self.subscriptions.checked(request.body)
        request.need(_SUBSCRIBE[content["resource"].strip("/").partition("/")[0]])
        created = self.subscriptions.create(content, next(iter(self.applications), ""))
        return Answer(201, {}, {"@odata.context": self._context("subscriptions/$entity"), **created})

    def _subscription_list(self, request: _Request) -> Answer:
        shown = [self.subscriptions.get(each.id) for each in self.subscriptions.all()]
        return self._ok({"@odata.context": self._context("subscriptions"), "value": shown})

    def _subscription(self, request: _Request) -> Answer:
        return self._ok(self.subscriptions.get(request.path[1]))

    def _renew(self, request: _Request) -> Answer:
        return self._ok(self.subscriptions.renew(request.path[1], request.body))

    def _unsubscribe(self, request: _Request) -> Answer:
        self.subscriptions.delete(request.path[1])
        return Answer(204, {}, None)

    def _reauthorize(self, request: _Request) -> Answer:
        self.subscriptions.get(request.path[1])
        return Answer(204, {}, None)

    # Answers

    def _context(self, what: str) -> str:
        return f"{self.base_url}/{self.version}/$metadata#{what}"

    @staticmethod
    def _ok(content: Json, headers: Mapping[str, str] | None = None) -> Answer:
        return Answer(200, dict(headers or {}), content)


def _preferred(text: str) -> tuple[int | None, bool, str]:
    """From a header Prefer: the page's size, whether only what changed is wanted, and what was understood."""
    size, minimal, applied = None, False, []
    for preference in filter(None, (part.strip() for part in re.split("[,;]", text))):
        found = re.fullmatch(r"odata\.maxpagesize=([0-9]+)", preference, re.IGNORECASE)
        if found and int(found.group(1)) > 0:
            size = min(int(found.group(1)), MOST_ON_PAGE)
            applied.append(f"odata.maxpagesize={size}")
        elif preference.lower() == "return=minimal":
            minimal = True
            applied.append(preference)
    return size, minimal, ", ".join(applied)


def _top(request: _Request) -> int:
    text = request.query.get("$top", "100")
    if not re.fullmatch("[0-9]+", text) or not 1 <= int(text) <= MOST_ON_PAGE:
        raise bad_request(
            f"Invalid page size specified: '{text}'. Must be between 1 and {MOST_ON_PAGE} inclusive.",
            "Request_UnsupportedQuery",
        )
    return int(text)
