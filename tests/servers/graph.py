"""A stand-in for Microsoft Graph and for the endpoint that gives tokens to it, over TLS on loopback.

It keeps a tenant's state, shows it as the public documentation of Graph has it, and refuses what that
forbids. The parts: `graph_tenant` (what is there), `graph_odata` (what may be asked), `graph_delta`
(changes), `graph_model` (requests to answers), `graph_subscriptions`, `graph_identity` (tokens),
`graph_faults` (misbehaviour). This one is the wire.

graph = await new_graph()
ann = graph.tenant.add_user("ann")
graph.tenant.add_group("Staff", members=[ann])
graph.faults.throttle(at("users/delta"), retry_after=2)
…   # a client with graph.authority, graph.base_url, graph.ca, TENANT_ID, CLIENT_ID and CLIENT_SECRET
assert graph.requests["users/delta"] == 2
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import unquote

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.servers.certificates import Certificate, Certificates
from tests.servers.graph_faults import HTML, Asked, Fault, Faults, Way, altered
from tests.servers.graph_identity import Identity, Rejected
from tests.servers.graph_model import Answer, Application, GraphModel
from tests.servers.graph_odata import Refusal, bad_request
from tests.servers.graph_subscriptions import Notification
from tests.servers.graph_tenant import Clock

Json = dict[str, Any]

# As in the example of the configuration.
TENANT_ID = "b9355cb3-feed-dead-beef-9cc325f0335b"
CLIENT_ID = "5c955b66-18b3-42de-bb5a-13b5a202d4fc"
CLIENT_SECRET = "yOb7Q~Km~~YMKzpeq73swJj3kOeJpUwXSZamr"
LEAST_ROLES = frozenset({"User.Read.All", "GroupMember.Read.All"})

_JSON = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
_VALIDATION = aiohttp.ClientTimeout(total=10)
_NOTIFICATION = aiohttp.ClientTimeout(total=3)


@dataclass(frozen=True, slots=True)
class Notified:
    """A notification that was sent, and how it was taken; None if it wasn't."""

    notification: Notification
    status: int | None


class Graph:
    """The stand-in, with one application that has the least permissions and a secret."""

    def __init__(self, certificate: Certificate, ca: Path, seed: int = 0) -> None:
        self.ca = ca
        """Whom its clients are to trust."""
        self.clock = Clock()
        self.model = GraphModel(seed, clock=self.clock)
        self.tenant = self.model.tenant
        self.tenant.id = TENANT_ID
        self.identity = Identity(TENANT_ID, self.clock, seed=seed)
        self.app = self.identity.register(CLIENT_ID, LEAST_ROLES)
        self.app.secrets[CLIENT_SECRET] = None
        self.model.applications[CLIENT_ID] = Application(CLIENT_ID)
        self.faults = Faults()
        self.asked: list[Asked] = []
        """All requests, oldest first; those in a batch are among them, after the batch."""
        self.routes: dict[str, str] = {}
        """Where addresses of subscriptions lead to that begin so: what a reverse proxy would do, as
        `{"https://aim.example.com": "http://127.0.0.1:8010"}`."""
        self.notified: list[Notified] = []
        self._certificate = certificate
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    # For tests

    @property
    def authority(self) -> str:
        """Without the tenant."""
        return self.url

    @property
    def base_url(self) -> str:
        return f"{self.url}/"

    @property
    def elsewhere(self) -> str:
        """The same server by another name: whoever calls it there was led astray."""
        return self.url.replace("127.0.0.1", "localhost")

    @property
    def requests(self) -> Counter[str]:
        """How many of each kind came over the wire."""
        return Counter(each.kind for each in self.asked if not each.in_batch)

    @property
    def in_batches(self) -> Counter[str]:
        """How many of each kind came in batches."""
        return Counter(each.kind for each in self.asked if each.in_batch)

    @property
    def strays(self) -> list[Asked]:
        """Requests that called it by another name than its own."""
        return [each for each in self.asked if f"https://{each.host}" != self.url]

    def forget(self) -> None:
        """Starts counting anew; faults stay."""
        self.asked.clear()

    async def notify(self) -> list[Notified]:
        """Sends what subscribers are to be told. What wasn't taken with a 2xx is sent again the next time."""
        pending, self.model.subscriptions.pending[:] = list(self.model.subscriptions.pending), []
        sent = [Notified(each, await self._post(each)) for each in pending]
        self.model.subscriptions.pending += [
            each.notification for each in sent if each.status is None or each.status // 100 != 2
        ]
        self.notified += sent
        return sent

    async def __aenter__(self) -> Self:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self._certificate.both)
        client = ssl.create_default_context(cafile=self.ca)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client))
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=server).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        self.model.base_url = self.identity.url = self.url
        self.identity.audiences.add(self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.faults.behave()
        if self._session:
            await self._session.close()
        if self._runner and self._runner.server:
            transports = [each.transport for each in self._runner.server.connections if each.transport]
            await self._runner.cleanup()
            # TLS says goodbye after that, which takes longer than the event loop may last.
            for transport in transports:
                transport.abort()
            await asyncio.sleep(0)

    # The wire

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        path = unquote(incoming.raw_path.partition("?")[0])
        asked = Asked(
            incoming.method,
            path,
            dict(incoming.query),
            _kind(path),
            incoming.host,
            authorized="Authorization" in incoming.headers,
        )
        self.asked.append(asked)
        body = await incoming.read()
        fault = self.faults.strike(asked)
        if fault and fault.expire:
            # What is answered then is what Graph says to a token that has ended.
            self.identity.expire_tokens()
        elif fault and fault.way is Way.ANSWER:
            return self._sent(asked, self._instead(fault))
        if fault and fault.way is Way.LOSE:
            return _hang_up(incoming)
        if fault and fault.way is Way.HOLD:
            await fault.release.wait()
        answer = await self._answer(asked, incoming, body)
        if fault and fault.way is Way.ALTER and isinstance(answer.content, dict):
            answer = answer._replace(content=altered(fault, answer.content))
        if fault and fault.way is Way.CUT:
            return await _cut(incoming, answer)
        return self._sent(asked, _response(answer, incoming))

    @staticmethod
    def _sent(asked: Asked, response: web.Response) -> web.Response:
        asked.status = response.status
        return response

    def _instead(self, fault: Fault) -> web.Response:
        if fault.html:
            headers = dict(fault.headers())
            return web.Response(status=fault.status, text=HTML, content_type="text/html", headers=headers)
        return _response(self._error(fault), None)

    def _error(self, fault: Fault) -> Answer:
        if fault.expire:
            self.identity.expire_tokens()
        return self.model.error(
            Refusal(fault.status, fault.code, "A fault of the stand-in.", fault.headers())
        )

    async def _answer(self, asked: Asked, incoming: web.Request, body: bytes) -> Answer:
        match asked.kind:
            case "token" | "metadata":
                return self._identify(asked, incoming, body)
            case "managed":
                status, content = self.identity.grant_managed(asked.query, incoming.headers.get("Metadata"))
                return Answer(status, {}, content)
            case "discovery":
                return Answer(
                    400, {}, {"error": "invalid_instance", "error_description": "AADSTS50049: Unknown."}
                )
            case _:
                return await self._graph(incoming, body)

    def _identify(self, asked: Asked, incoming: web.Request, body: bytes) -> Answer:
        tenant = asked.path.split("/")[1]
        try:
            if asked.kind == "metadata":
                return Answer(200, {}, self.identity.metadata(tenant))
            form = dict(_form(body, incoming.headers.get("Content-Type", "")))
            return Answer(200, {}, self.identity.grant(tenant, form))
        except Rejected as rejected:
            return Answer(rejected.status, {}, self.identity.error(rejected))

    async def _graph(self, incoming: web.Request, body: bytes) -> Answer:
        try:
            roles = self.identity.roles_of(incoming.headers.get("Authorization"))
            content = _parsed(body, incoming.headers.get("Content-Type", ""))
            path = unquote(incoming.raw_path)
            if incoming.method == "POST" and path.endswith("/$batch"):
                return self._batch(content, roles, incoming.host)
            if incoming.method == "POST" and path.endswith("/subscriptions"):
                await self._validate(self.model.subscriptions.checked(content))
        except Refusal as refusal:
            if refusal.status == 400:
                self.model.refusals.append(f"{incoming.method} {incoming.raw_path}: {refusal.message}")
            return self.model.error(refusal)
        return self.model.answer(incoming.method, incoming.raw_path, incoming.headers, content, roles)

    def _batch(self, content: object, roles: frozenset[str], host: str) -> Answer:
        answers = []
        for item in self.model.batch_items(content):
            path, _, query = item["url"].partition("?")
            path = f"/{self.model.version}/{path.lstrip('/')}"
            pairs = dict(_form(query.encode(), "application/x-www-form-urlencoded"))
            asked = Asked(item["method"], path, pairs, _kind(path), host, in_batch=True, authorized=True)
            self.asked.append(asked)
            fault = self.faults.strike(asked)
            answer = self._error(fault) if fault else self.model.batched(item, roles)
            asked.status = answer.status
            answers.append(self.model.batch_answer(item, answer))
        # In another order than they were asked in, as Graph is free to.
        return Answer(200, {}, {"responses": answers[::-1]})

    # To subscribers

    async def _validate(self, content: Json) -> None:
        for name in ("notificationUrl", "lifecycleNotificationUrl"):
            if name in content and not await self._is_valid(content[name]):
                raise bad_request(
                    f"Subscription validation request failed. {name} must respond with 200 OK and the token.",
                    "ValidationError",
                )

    async def _is_valid(self, url: str) -> bool:
        assert self._session
        token = f"Validation: Testing client application reachability for subscription {self.tenant.guid()}"
        address = URL(self._routed(url)).update_query(validationToken=token)
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        try:
            async with self._session.post(address, headers=headers, timeout=_VALIDATION) as answer:
                text = await answer.text()
                return (answer.status, answer.content_type, text) == (200, "text/plain", token)
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _post(self, notification: Notification) -> int | None:
        assert self._session
        try:
            async with self._session.post(
                self._routed(notification.url), json=notification.content, timeout=_NOTIFICATION
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _routed(self, url: str) -> str:
        for begin, target in self.routes.items():
            if url.startswith(begin):
                return target + url.removeprefix(begin)
        return url


def _kind(path: str) -> str:
    """For counting: the path without the version, each id a `*`."""
    parts = [part for part in path.split("/") if part]
    if parts[1:] == ["oauth2", "v2.0", "token"]:
        return "token"
    if parts[-1:] == ["openid-configuration"]:
        return "metadata"
    if parts[:2] == ["common", "discovery"]:
        return "discovery"
    if parts[:1] == ["metadata"]:
        return "managed"
    below = parts[1:]
    if below and below[0].startswith("applications("):
        return "applications"
    if len(below) > 1 and below[1] not in {"delta", "delta()", "microsoft.graph.delta", "$count"}:
        below[1] = "*"
    return "/".join(below)


def _form(body: bytes, content_type: str) -> list[tuple[str, str]]:
    if not content_type.startswith("application/x-www-form-urlencoded"):
        return []
    return list(URL("?" + body.decode(), encoded=True).query.items())


def _parsed(body: bytes, content_type: str) -> object:
    if not body:
        return None
    try:
        if content_type.startswith("application/json"):
            return json.loads(body)
    except ValueError:
        pass
    raise bad_request("Unable to read JSON request payload. Please ensure Content-Type header is set.")


def _body(answer: Answer) -> tuple[bytes, str]:
    if answer.content is None:
        return b"", ""
    if isinstance(answer.content, str):
        return answer.content.encode(), "text/plain"
    return json.dumps(answer.content, ensure_ascii=False, separators=(",", ":")).encode(), _JSON


def _response(answer: Answer, incoming: web.Request | None) -> web.Response:
    body, content_type = _body(answer)
    headers = {"request-id": "00000000-0000-4000-8000-000000000000", **answer.headers}
    if content_type:
        headers["Content-Type"] = content_type
    if incoming is not None and "client-request-id" in incoming.headers:
        headers["client-request-id"] = incoming.headers["client-request-id"]
    return web.Response(status=answer.status, body=body, headers=headers)


async def _cut(incoming: web.Request, answer: Answer) -> web.StreamResponse:
    body, content_type = _body(answer)
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": content_type})
    response.content_length = len(body)
    await response.prepare(incoming)
    await response.write(body[: len(body) // 2])
    _hang_up(incoming)
    return response


def _hang_up(incoming: web.Request) -> web.Response:
    if incoming.transport:
        incoming.transport.abort()
    # Goes nowhere: there is no connection any more.
    return web.Response()


class NewGraph(Protocol):
    """What the fixture `new_graph` gives."""

    def __call__(self, seed: int = 0) -> Awaitable[Graph]: ...


@pytest.fixture
async def new_graph(certificates: Certificates) -> AsyncIterator[NewGraph]:
    """A function that starts stand-ins. They are stopped when the test ends, which fails if one was asked for
    what Graph doesn't know (a test of that clears `model.refusals`)."""
    started: list[Graph] = []
    async with AsyncExitStack() as stack:

        async def start(seed: int = 0) -> Graph:
            graph = Graph(certificates.server("127.0.0.1", "localhost"), certificates.ca, seed)
            started.append(await stack.enter_async_context(graph))
            return graph

        yield start
    assert [graph.model.refusals for graph in started if graph.model.refusals] == []
