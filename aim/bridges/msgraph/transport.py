"""What can be asked of Microsoft Graph: objects, collections page by page, many at once.

Stands between `exchange` (one request, done properly) and `reading`, `polling`, `notifications` and
`describe`. All methods raise SourceUnavailable and SourceInvalid: what is cut off, malformed or leads
elsewhere is never a smaller answer.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import httpx

from aim.bridges.msgraph import faults, paging, trust
from aim.bridges.msgraph.exchange import Exchange
from aim.bridges.msgraph.graph import Item, Page
from aim.bridges.msgraph.settings import GraphSettings
from aim.bridges.msgraph.throttle import AttemptError, Clock, Retries, Throttle
from aim.bridges.msgraph.tokens import NewClient, Tokens, new_client
from aim.bridges.msgraph.wire import HEADERS, decoded
from aim.errors import SourceInvalid, SourceUnavailable


class Transport:
    """Implements `Graph`, and beside it what `notifications` and `describe` need."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Item:
        """One JSON object. `path` is below the version, as `/organization`."""
        return await self._exchange.send(self._exchange.request("GET", path, query), _object)

    async def count(self, path: str) -> int:
        """How many objects there are; `path` ends with `/$count`."""
        return await self._exchange.send(self._exchange.request("GET", path), _number)

    async def pages(
        self, path: str, query: Mapping[str, str] | None = None, *, page_size: int | None = None
    ) -> AsyncIterator[Page]:
        """A collection to its end. `path` may also be a link that Graph gave, whole. `page_size` asks for as
        many objects on each page. Raises ResyncNeeded, too."""
        request = self._exchange.request("GET", path, query)
        if page_size is not None:
            request = replace(
                request, headers={**request.headers, "Prefer": f"odata.maxpagesize={page_size}"}
            )
        trail = paging.Trail(str(request), request.url, paging.is_delta(request.url))
        while True:
            page, following = await self._exchange.send(
                replace(request, url=trail.url), partial(self._page, trail)
            )
            yield page
            if following is None:
                return
            trail.go(following, page)

    async def batch(self, paths: Sequence[str]) -> Sequence[Item]:
        """The answers to GET of each, with their query, in their order; 20 to a request."""
        tasks = [asyncio.ensure_future(self._chunk(chunk)) for chunk in paging.chunks(paths)]
        try:
            return [item for items in await asyncio.gather(*tasks) for item in items]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def post(self, path: str, body: Item) -> Item:
        """What is made by it. Not made again where it may have been carried out."""
        return await self._exchange.send(self._exchange.request("POST", path, body=body), _object)

    async def patch(self, path: str, body: Item) -> Item:
        """What it has become."""
        return await self._exchange.send(self._exchange.request("PATCH", path, body=body), _object)

    async def delete(self, path: str) -> None:
        """It is gone afterwards; SourceInvalid if it was not there."""
        await self._exchange.send(self._exchange.request("DELETE", path), _nothing)

    async def token(self) -> str:
        """The token itself, for what it says of our permissions."""
        return await self._exchange.token()

    def _page(self, trail: paging.Trail, what: str, response: httpx.Response) -> tuple[Page, str | None]:
        # A page of 999 users takes 2 ms: no thread is worth it, which would hold everybody up as long.
        page, following = trail.page(decoded(response))
        for link in (following, page.delta_link):
            if link is not None:
                self._exchange.check(what, link)
        return page, following

    async def _chunk(self, paths: Sequence[str]) -> Sequence[Item]:
        found: dict[int, Item] = {}
        fruitless = self._exchange.streak()
        while missing := [number for number in range(len(paths)) if number not in found]:
            # It only reads: it may be made again like a GET.
            request = self._exchange.request("POST", "/$batch", body=paging.batch_body(paths, missing))
            answers = await self._exchange.send(replace(request, once=False), partial(_answers, missing))
            failures: list[AttemptError] = []
            for number in missing:
                item = self._judged(paths[number], answers[number])
                if isinstance(item, AttemptError):
                    failures.append(item)
                else:
                    found[number] = item
            if failures:
                if len(failures) < len(missing):
                    fruitless = self._exchange.streak()
                # Only they are asked again, after the longest wait that any of them wants.
                await self._exchange.failed(
                    fruitless, max(failures, key=lambda failure: failure.asked or 0.0)
                )
        return [found[number] for number in range(len(paths))]

    def _judged(self, path: str, answer: paging.Answer) -> Item | AttemptError:
        """What is in one answer of a batch, or why it has to be asked again. Raises what does not pass."""
        what = f"GET {path.partition('?')[0]}"
        failure = self._exchange.passing(what, answer.status, answer.headers, answer.body)
        if failure is not None:
            return failure
        if answer.status in {401, 403}:
            self._exchange.tokens.forget()
        if 200 <= answer.status < 300:
            return answer.body if isinstance(answer.body, dict) else AttemptError(_no_object(what))
        refusal = faults.refused(what, path, answer.status, answer.body, is_delta=False)
        if answer.status == 401:
            return AttemptError(refusal)
        raise refusal


def _object(what: str, response: httpx.Response) -> Item:
    data = decoded(response)
    if not isinstance(data, dict):
        raise AttemptError(_no_object(what))
    return data


def _no_object(what: str) -> SourceUnavailable:
    return faults.malformed(what, "it is no JSON object")


def _number(what: str, response: httpx.Response) -> int:
    text = response.text.strip("\ufeff \r\n")
    if not text.isascii() or not text.isdigit():
        raise AttemptError(faults.malformed(what, "it is no number"))
    return int(text[:18])


def _nothing(_what: str, _response: httpx.Response) -> None:
    return


def _answers(numbers: Sequence[int], what: str, response: httpx.Response) -> Mapping[int, paging.Answer]:
    return paging.batch_answers(what, decoded(response), numbers)


@asynccontextmanager
async def open_transport(
    settings: GraphSettings,
    *,
    retries: Retries | None = None,
    clock: Clock | None = None,
    chance: Callable[[], float] = random.random,
    http: httpx.AsyncBaseTransport | None = None,
    token_client: NewClient = new_client,
) -> AsyncIterator[Transport]:
    """A pool of connections, closed at the end. Sends nothing by itself. Raises SourceInvalid for settings
    that can't be right.

    `chance` gives a number in [0, 1). `http` and `token_client` stand in for the network, in tests.
    """
    clock, context = clock or Clock(), trust.context(settings.ca_cert)
    async with _client(settings, context, http) as client:
        tokens = Tokens(settings, context, clock.now, token_client)
        throttle = Throttle(settings.parallelism, retries or Retries(), clock, chance)
        yield Transport(Exchange(client, settings, tokens, throttle, clock))


def _client(
    settings: GraphSettings, context: ssl.SSLContext, http: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(
            verify=context,
            timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=settings.parallelism),
            follow_redirects=False,
            transport=http,
            headers=HEADERS,
        )
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        # Not with what it says: there may be a password in it.
        raise SourceInvalid(
            "the environment names a proxy that can't be used",
            "Let HTTPS_PROXY be like http://proxy.example.com:3128, without a path.",
        ) from error
