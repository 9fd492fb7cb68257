"""Microsoft Graph and Entra ID as two functions, and a clock that nobody waits for.

way = Way(lambda request: reply([{"id": "1"}]))
async with way.open() as graph: ...
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import httpx

from aim.bridges.msgraph.graph import Item, Page
from aim.bridges.msgraph.settings import ClientSecret, GraphSettings
from aim.bridges.msgraph.throttle import Clock, Retries
from aim.bridges.msgraph.transport import Transport, open_transport

TENANT = "b9355cb3-feed-dead-beef-9cc325f0335b"
LOGIN = "https://login.example.com"
GRAPH = "https://graph.example.com"
SECRET = "yOb7Q~very-secret"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)

SETTINGS = GraphSettings(
    tenant_id=TENANT,
    client_id="5c955b66-18b3-42de-bb5a-13b5a202d4fc",
    credential=ClientSecret(value=SECRET),
    authority=LOGIN,
    base_url=GRAPH,
    scopes=(f"{GRAPH}/.default",),
)

Handler = Callable[[httpx.Request], httpx.Response]


def reply(value: object) -> httpx.Response:
    """One page, which is the last."""
    return httpx.Response(200, json={"value": value})


def refusal(status: int, code: str, message: str = "", **headers: str) -> httpx.Response:
    """An error as Graph gives it."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": {"code": code, "message": message}}, headers=names)


def aadsts(number: int, error: str = "invalid_client", status: int = 401) -> httpx.Response:
    """An error as Entra ID gives it."""
    text = f"AADSTS{number}: In Microsoft's words. Trace ID: 1 Correlation ID: 2 Timestamp: 3"
    body = {"error": error, "error_description": text, "error_codes": [number]}
    return httpx.Response(status, json=body)


def jwt(**claims: object) -> str:
    """What a token looks like from outside."""
    parts = [{"alg": "none"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "signature"])


@dataclass(slots=True)
class HandClock:
    """Moves when somebody has slept, after everybody else had their turn."""

    now: datetime = START
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.now + timedelta(seconds=seconds)
        for _ in range(50):
            await asyncio.sleep(0)
        self.now = max(self.now, until)


@dataclass(slots=True)
class Authority:
    """Entra ID: `refusals` come first, then tokens that are numbered."""

    life: int = 3600
    refusals: list[httpx.Response] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    """What was asked for tokens."""
    asked: list[str] = field(default_factory=list)
    """URLs of everything."""
    endpoint: str = f"{LOGIN}/{TENANT}/oauth2/v2.0/token"
    roles: Sequence[str] = ("User.Read.All", "GroupMember.Read.All")

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if request.url.path.endswith("/openid-configuration"):
            return httpx.Response(
                200,
                json={
                    "issuer": f"{LOGIN}/{TENANT}/v2.0",
                    "authorization_endpoint": f"{LOGIN}/{TENANT}/oauth2/v2.0/authorize",
                    "token_endpoint": self.endpoint,
                    "device_authorization_endpoint": f"{LOGIN}/{TENANT}/oauth2/v2.0/devicecode",
                },
            )
        if self.refusals:
            return self.refusals.pop(0)
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.forms.append(form)
        token = jwt(roles=list(self.roles), jti=len(self.forms))
        return httpx.Response(
            200, json={"token_type": "Bearer", "expires_in": self.life, "access_token": token}
        )

    def client(self, _: ssl.SSLContext, timeout: httpx.Timeout, __: bool) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self), timeout=timeout)


@dataclass(slots=True)
class Way:
    """Graph answers by `handler`; what it was asked is in `requests`."""

    handler: Handler
    settings: GraphSettings = SETTINGS
    retries: Retries = field(default_factory=lambda: Retries(tries=4))
    clock: HandClock = field(default_factory=HandClock)
    authority: Authority = field(default_factory=Authority)
    requests: list[httpx.Request] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Transport]:
        def answer(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return self.handler(request)

        async with open_transport(
            self.settings,
            retries=self.retries,
            clock=Clock(lambda: self.clock.now, self.clock.sleep),
            chance=lambda: 0.0,
            http=httpx.MockTransport(answer),
            token_client=self.authority.client,
        ) as transport:
            yield transport

    async def get(self, path: str = "/organization") -> Item:
        async with self.open() as graph:
            return await graph.get(path)

    async def pages(self, path: str = "/users") -> list[Page]:
        async with self.open() as graph:
            return [page async for page in graph.pages(path)]

    @property
    def tokens(self) -> list[str]:
        """With which each request came."""
        return [request.headers["Authorization"].removeprefix("Bearer ") for request in self.requests]


def in_turn(*answers: httpx.Response | Exception) -> Handler:
    """These answers, one after the other."""
    left = list(answers)

    def handler(_: httpx.Request) -> httpx.Response:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler
