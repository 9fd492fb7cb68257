"""One request to Microsoft Graph, done properly: with a good token, not faster than Graph wants, made again
where that may help, its failures in our own words.

Stands between httpx and `transport`. In: a Request, and what its answer has to look like. Out: what that
makes of the answer; or SourceUnavailable, SourceInvalid, ResyncNeeded. The token goes to `base_url` and
nowhere else; redirects are not followed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urlencode

import httpx

from aim.bridges.msgraph import faults, paging
from aim.bridges.msgraph.graph import Item
from aim.bridges.msgraph.settings import GraphSettings
from aim.bridges.msgraph.throttle import AttemptError, Clock, Streak, Throttle, asked_for
from aim.bridges.msgraph.tokens import Tokens
from aim.bridges.msgraph.wire import decoded, failed, origin
from aim.errors import SourceError, SourceInvalid, SourceUnavailable

# They would log each URL, and with it people; at debug level the headers too, and with them tokens.
for _noisy in ("httpx", "httpcore"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)

_T = TypeVar("_T")

_WHOLE = 10
"""An answer may take this many times `read_timeout` altogether, however steadily it trickles."""

TOO_MANY = 429
_PASSING = frozenset({408, TOO_MANY, 500, 502, 503, 504, 509})
_NOT_DONE = frozenset({TOO_MANY, 503})
"""With these Graph has not even begun."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    path: str
    """Below the version, without the query: for messages, and to tell the permission."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Item | None = None
    once: bool = False
    """Not to be made again where it may have been carried out."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


Parse = Callable[[str, httpx.Response], _T]
"""What an answer means, whose request is named for messages. Raises AttemptError for one that Graph would not
give, SourceInvalid for one that must not be followed."""


class Exchange:
    """Sends requests to one Graph."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: GraphSettings,
        tokens: Tokens,
        throttle: Throttle,
        clock: Clock,
    ) -> None:
        """Raises SourceInvalid for a base_url that is none."""
        self._client = client
        self._throttle = throttle
        self._clock = clock
        self._limit = settings.read_timeout * _WHOLE
        base = settings.base_url.rstrip("/").removesuffix(f"/{settings.version}")
        self._base = f"{base}/{settings.version}"
        self._origin = origin(base)
        self.tokens = tokens
        if not base.lower().startswith("https://"):
            raise SourceInvalid(
                "source.base_url is no https:// URL: our token would be readable on the way",
                "Write it like https://graph.microsoft.com.",
            )

    def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Item | None = None
    ) -> Request:
        """For a path below the version, or a whole link. Raises SourceInvalid for a link that is not
        Graph's."""
        url = f"{self._base}{path}"
        if "://" in path:
            self.check("a link that was kept", path)
            url, path = path, httpx.URL(path).path.removeprefix(httpx.URL(self._base).path)
        if query:
            url += "?" + urlencode(query, quote_via=quote, safe="$,'()/:@")
        # Advanced queries: https://learn.microsoft.com/graph/aad-advanced-queries
        is_advanced = path.endswith("/$count") or (query or {}).get("$count") == "true"
        headers = {"ConsistencyLevel": "eventual"} if is_advanced else {}
        return Request(method, url, path.partition("?")[0], headers, body, once=method == "POST")

    def check(self, what: str, link: str) -> None:
        """Raises SourceInvalid if a link leads elsewhere than to Graph, or nowhere."""
        try:
            parsed = httpx.URL(link)
        except httpx.InvalidURL as error:
            raise faults.foreign(what, link) from error
        if origin(link) != self._origin or parsed.userinfo:
            raise faults.foreign(what, origin(link))

    async def send(self, request: Request, parse: Parse[_T]) -> _T:
        """What `parse` makes of the answer. Raises SourceUnavailable, SourceInvalid, ResyncNeeded."""
        return await self._throttle.run(partial(self._attempt, request, parse))

    def streak(self) -> Streak:
        """Begins one, for `failed`."""
        return self._throttle.streak()

    async def failed(self, streak: Streak, failure: AttemptError) -> None:
        """Counts the failure, and waits before the next attempt. Raises its error if that was the last."""
        await self._throttle.failed(streak, failure)

    async def token(self) -> str:
        """The token itself, for what it says of our permissions. Raises SourceUnavailable, SourceInvalid."""
        return await self._throttle.run(self.tokens.get)

    def passing(
        self, what: str, status: int, headers: Mapping[str, str], answer: object
    ) -> AttemptError | None:
        """The failure for a status that may pass; None for one that does not. `headers` by names in lower
        case, or any."""
        if status not in _PASSING:
            return None
        asked = asked_for(headers.get("retry-after"), headers.get("date"), self._clock.now())
        if status == TOO_MANY:
            return AttemptError(
                SourceUnavailable(f"{what}: Graph limits our rate (429)", faults.LATER), asked
            )
        code, message = faults.said(answer)
        words = ", ".join(filter(None, (str(status), code, message)))
        return AttemptError(SourceUnavailable(f"{what}: Graph failed ({words})", faults.LATER), asked)

    async def _attempt(self, request: Request, parse: Parse[_T]) -> _T:
        token = await self.tokens.get()
        response = await self._once(request, token)
        if response.status_code == 401:
            # It ended before its time, or Graph wants more of it than it has.
            claims = faults.claims(response.headers.get("WWW-Authenticate", ""))
            token = await self.tokens.get(rejected=token, claims=claims)
            response = await self._once(request, token)
        if response.is_redirect:
            raise faults.redirected(str(request), response.headers.get("Location", ""))
        if not response.is_success:
            raise self._refused(request, response)
        return parse(str(request), response)

    async def _once(self, request: Request, token: str) -> httpx.Response:
        where = f"{request} at {self._origin}"
        try:
            async with asyncio.timeout(self._limit):
                return await self._client.request(
                    request.method,
                    request.url,
                    headers={**request.headers, "Authorization": f"Bearer {token}"},
                    json=None if request.body is None else dict(request.body),
                )
        except TimeoutError as error:
            endless = SourceUnavailable(f"{where}: the answer does not end", faults.LATER)
            raise _settled(request, AttemptError(endless)) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise failed(where, error) from error
        except httpx.HTTPError as error:
            raise _settled(request, failed(where, error)) from error
        except httpx.InvalidURL as error:
            raise SourceInvalid(f"{request}: {self._base} is no URL", faults.ADDRESS) from error

    def _refused(self, request: Request, response: httpx.Response) -> AttemptError | SourceError:
        what, status, answer = str(request), response.status_code, decoded(response)
        failure = self.passing(what, status, response.headers, answer)
        if failure is not None:
            return failure if status in _NOT_DONE else _settled(request, failure)
        if status == 403:
            # The next read asks with a token that may have what this one lacks.
            self.tokens.forget()
        if not any(faults.said(answer)) and status != 410:
            return AttemptError(faults.malformed(what, f"it answers {status}, and not in Graph's words"))
        goes_on = paging.is_delta(request.url) and paging.goes_on(request.url)
        return faults.refused(what, request.path, status, answer, is_delta=goes_on)


def _settled(request: Request, failure: AttemptError | SourceError) -> AttemptError | SourceError:
    """Not to be tried again, if the request may have been carried out and must not be twice."""
    return failure.error if request.once and isinstance(failure, AttemptError) else failure
