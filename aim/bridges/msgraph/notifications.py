"""Has Graph say at once that something has changed, instead of waiting for the next look.

Beside `source`. Graph is asked to post to an address of ours (subscriptions to users and to groups); what it
posts names an object at most, and is no more than a reason to look: a notice that is lost costs nothing but
time. Out goes a call for each reason.

Subscriptions end after two days unless they are renewed, so that none outlives us for long; those that an
earlier process left are deleted at the start. Who posts is known by a secret that only Graph was told.
Source: https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import PlainTextResponse, Response

from aim.bridges.msgraph.graph import Item, Page
from aim.errors import SourceError, SourceInvalid

LIFE = timedelta(days=2)
"""Of a subscription; Graph allows 29 days."""
_AGAIN = timedelta(minutes=5)
"""Until what Graph refused is tried again."""
_FAREWELL = 5
"""Seconds for deleting our subscriptions when we stop."""
_LONGEST_BODY = 1_000_000
_LONGEST_TOKEN = 4_096
_BODY_TIME = 10.0
"""Seconds for a whole body: anybody may post there, and Graph itself waits no longer for an answer."""

# New users and groups, and those that may be restored, are told of as updated; created is not known there.
_CHANGES = "updated,deleted"
_RESOURCES = ("users", "groups")

_log = structlog.get_logger()


class Subscribing(Protocol):
    """What `transport` has for it. All raise SourceUnavailable and SourceInvalid."""

    def pages(self, path: str) -> AsyncIterator[Page]: ...

    async def post(self, path: str, body: Item) -> Item: ...

    async def patch(self, path: str, body: Item) -> Item: ...

    async def delete(self, path: str) -> None: ...


class _Held(NamedTuple):
    """A subscription of ours."""

    id: str
    expires: datetime


class Notices:
    """Subscriptions, and what comes of them."""

    def __init__(
        self, graph: Subscribing, url: str, changed: Callable[[], None], now: Callable[[], datetime]
    ) -> None:
        """`url` is where Graph reaches us; `changed` is called for each reason to look. `now` gives the time
        in UTC."""
        self._graph = graph
        self._url = url
        self._changed = changed
        self._now = now
        self._secret = secrets.token_urlsafe(48)
        self._held: dict[str, _Held] = {}
        self._told: dict[str, str] = {}
        """What was said of each resource that Graph refuses."""
        self._woken = asyncio.Event()

    @property
    def path(self) -> str:
        """Where `listen` serves it."""
        return urlsplit(self._url).path or "/"

    def take(self, content: object) -> None:
        """What was posted. Whatever is not from Graph is passed over."""
        listed = content.get("value") if isinstance(content, Mapping) else None
        notices = listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ()
        genuine = [notice for notice in notices if isinstance(notice, Mapping) and self._is_genuine(notice)]
        for notice in genuine:
            self._follow_lifecycle(notice)
        if genuine:
            self._changed()

    async def run(self) -> None:
        """Subscribes, and renews, until it is cancelled."""
        await self._tidy()
        while True:
            self._woken.clear()
            due = min([await self._ensure(resource) for resource in _RESOURCES])
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), max(0.0, (due - self._now()).total_seconds()))

    async def end(self) -> None:
        """Deletes our subscriptions, as far as that goes."""
        with suppress(SourceError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                for held in self._held.values():
                    await self._graph.delete(f"/subscriptions/{held.id}")
        self._held.clear()

    def _is_genuine(self, notice: Mapping[str, object]) -> bool:
        said = notice.get("clientState")
        return isinstance(said, str) and hmac.compare_digest(
            said.encode(errors="replace"), self._secret.encode()
        )

    def _follow_lifecycle(self, notice: Mapping[str, object]) -> None:
        """reauthorizationRequired, subscriptionRemoved; after `missed` there is nothing to do but look."""
        event = notice.get("lifecycleEvent")
        if event not in {"reauthorizationRequired", "subscriptionRemoved"}:
            return
        for resource, held in list(self._held.items()):
            if held.id == notice.get("subscriptionId"):
                if event == "subscriptionRemoved":
                    del self._held[resource]
                else:
                    self._held[resource] = held._replace(expires=self._now())
                self._woken.set()

    async def _tidy(self) -> None:
        """Deletes what earlier processes left: nobody knows their secret any more."""
        with suppress(SourceError):
            left = [
                item
                async for page in self._graph.pages("/subscriptions")
                for item in page.items
                if item.get("notificationUrl") == self._url
            ]
            for item in left:
                await self._graph.delete(f"/subscriptions/{item.get('id')}")

    async def _ensure(self, resource: str) -> datetime:
        """Sees to it that there is a subscription with some time left; gives the time when to look again."""
        held = self._held.get(resource)
        try:
            if held is None or held.expires - self._now() <= LIFE / 2:
                held = await self._renew(held) or await self._subscribe(resource)
        except SourceError as error:
            if self._told.get(resource) != error.message:
                self._told[resource] = error.message
                _log.warning(
                    "Microsoft Graph does not tell of changes by itself; they are asked for as ever",
                    of=resource,
                    cause=error.message,
                    remedy=error.remedy,
                )
            return self._now() + _AGAIN
        self._held[resource] = held
        self._told.pop(resource, None)
        return held.expires - LIFE / 2

    async def _renew(self, held: _Held | None) -> _Held | None:
        """With more time; None if there is none any more."""
        if held is None:
            return None
        expires = self._now() + LIFE
        try:
            await self._graph.patch(f"/subscriptions/{held.id}", {"expirationDateTime": _text(expires)})
        except SourceInvalid:
            return None
        return held._replace(expires=expires)

    async def _subscribe(self, resource: str) -> _Held:
        expires = self._now() + LIFE
        made = await self._graph.post(
            "/subscriptions",
            {
                "changeType": _CHANGES,
                "resource": resource,
                "notificationUrl": self._url,
                "lifecycleNotificationUrl": self._url,
                "expirationDateTime": _text(expires),
                "clientState": self._secret,
            },
        )
        # Of what happened before it nobody tells.
        self._changed()
        return _Held(str(made.get("id")), expires)


def router(notices: Notices) -> APIRouter:
    """What `listen` serves for it: `POST` to the path of the address, 202 at once."""

    async def receive(request: Request) -> Response:
        token = request.query_params.get("validationToken")
        if token is not None:
            return _echo(token)
        try:
            async with asyncio.timeout(_BODY_TIME):
                content = json.loads(await _body(request))
        except TimeoutError:
            raise HTTPException(408) from None
        except (ValueError, RecursionError):
            raise HTTPException(400) from None
        notices.take(content)
        return Response(status_code=202)

    made = APIRouter()
    made.add_api_route(notices.path, receive, methods=["POST"], include_in_schema=False)
    return made


@asynccontextmanager
async def noticing(notices: Notices) -> AsyncIterator[None]:
    """Is subscribed while the body runs, during which the router has to be served."""
    running = asyncio.create_task(notices.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await notices.end()


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise HTTPException(413)
    return body


def _echo(token: str) -> Response:
    """Graph wants to see its token again, as plain text and nothing that a browser would take for a page."""
    if len(token) > _LONGEST_TOKEN:
        raise HTTPException(400)
    return PlainTextResponse(token, headers={"X-Content-Type-Options": "nosniff"})


def _text(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
