"""One request to the homeserver, done properly: retried while that is safe, its failures in our own words.

Stands between the homeserver (mautrix's `HTTPAPI`, used as a client library) and everything else in `matrix`.
In: method, path, body. Out: the decoded JSON, or HomeserverRefused or HomeserverUnavailable. Knows nothing of
rooms or people.

Readers get a ReadTransport, which can send nothing but GET; writers a Transport. Requests are made as the bot
(the `as_token` acts as its own sender), or as another user by `user_id`, then with the `actor_token` if there
is one (Application Service API, Identity assertion). A BorrowedTransport asks with tokens that others show
us.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import unquote

import aiohttp
from mautrix.api import HTTPAPI, Method, PathBuilder
from mautrix.errors import MatrixConnectionError, MatrixResponseError
from yarl import URL

from aim.errors import ConfigError
from aim.matrix.refusals import AnswerError, refused, unavailable
from aim.matrix.retrying import AttemptError, Retries, Retrying, Sleep

log = logging.getLogger("aim.matrix")

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
PARALLELISM = 16


@dataclass(frozen=True, slots=True)
class _Request:
    method: Method
    path: PathBuilder
    body: Mapping[str, object] | None = None
    query: Mapping[str, str] | None = None
    user_id: str | None = None
    once: bool = False
    as_actor: bool = False
    """With the actor's token, in nobody's name."""

    def __str__(self) -> str:
        return f"{self.method} /{unquote(str(self.path))}"


class _Api(HTTPAPI):
    """mautrix's request sender, which keeps what that drops (`retry_after_ms`) and logs no bodies."""

    async def _send(
        self,
        method: Method,
        url: URL,
        content: object,
        query_params: dict[str, str],
        headers: dict[str, str],
    ) -> tuple[Any, aiohttp.ClientResponse]:
        # A redirected POST would arrive as a GET, so redirects are answers here, not instructions.
        async with self.session.request(
            str(method), url, data=content, params=query_params, headers=headers, allow_redirects=False
        ) as response:
            text = await response.read()
            try:
                data: object = json.loads(text)
            except (ValueError, RecursionError):
                data = None
            if not 200 <= response.status < 300:
                raise AnswerError(response.status, data, response.headers)
            if data is None:
                raise MatrixResponseError(response.content_type)
            return data, response

    def _log_request(self, *_: object) -> None:
        # Bodies can hold what no log may.
        return

    def _log_request_done(self, path: PathBuilder | str, req_id: int, duration: float, status: int) -> None:
        log.debug("request %d: /%s answered %d in %.0f ms", req_id, path, status, duration * 1000)


class _Connection:
    """Sends requests, with retries. The only object that holds the tokens."""

    def __init__(self, bot: _Api, actor: _Api, retrying: Retrying) -> None:
        self._bot = bot
        self._actor = actor
        self._retrying = retrying

    async def send(self, request: _Request) -> object:
        return await self._retrying.run(partial(self._attempt, request))

    async def _attempt(self, request: _Request) -> object:
        api = self._actor if request.as_actor or request.user_id is not None else self._bot
        query = dict(request.query or {})
        if request.user_id is not None:
            query["user_id"] = request.user_id
        try:
            return await api.request(request.method, request.path, _plain(request.body), query_params=query)
        except AnswerError as answer:
            raise self._answered(request, answer) from None
        except MatrixResponseError as error:
            raise AttemptError(
                unavailable(
                    f"{request}: the answer of {self._where} is not JSON but {error}",
                    "check that homeserver.url is the homeserver itself and not a web page in front of it",
                    maybe_done=request.method is not Method.GET,
                ),
                retry=False,
            ) from error
        except (MatrixConnectionError, TimeoutError) as error:
            cause = error.__cause__ if isinstance(error, MatrixConnectionError) else error
            # The representation of this one shows the request's headers, and with them the token.
            shown = None if isinstance(cause, aiohttp.ClientResponseError) else cause
            raise self._unanswered(request, cause) from shown

    def _answered(self, request: _Request, answer: AnswerError) -> AttemptError:
        if answer.http_status == 429:
            return AttemptError(
                unavailable(
                    f"{request}: the homeserver limits our rate (429)",
                    "set `rate_limited: false` in the appservice registration and restart the homeserver",
                ),
                retry=True,
                asked=answer.retry_after,
            )
        if answer.http_status >= 500:
            return AttemptError(
                unavailable(
                    f"{request}: {self._where} failed with {self._hide(answer.words)}",
                    "look into the homeserver's log",
                    maybe_done=request.method is not Method.GET,
                ),
                retry=not request.once,
                asked=answer.retry_after,
            )
        error = refused(str(request), answer, self._hide(answer.words), acting=request.user_id)
        return AttemptError(error, retry=False)

    def _unanswered(self, request: _Request, cause: BaseException | None) -> AttemptError:
        where, why = self._where, self._hide(" ".join(str(cause).split())) or type(cause).__name__
        if isinstance(cause, aiohttp.ClientSSLError):
            error = unavailable(
                f"no TLS connection to {where}: {why}",
                "the certificate must be valid for that name and issued by an authority this machine trusts",
            )
            return AttemptError(error, retry=False)
        if isinstance(cause, aiohttp.InvalidURL):
            return AttemptError(unavailable(f"{where} is not a URL", "check homeserver.url"), retry=False)
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            error = unavailable(
                f"no connection to the homeserver at {where}: {why}",
                "check homeserver.url, and that the homeserver is up",
            )
            return AttemptError(error, retry=True)
        error = unavailable(
            f"{request}: no answer from {where}: {why}",
            "look into the homeserver's log, and whether a proxy in front of it gives up too early",
            maybe_done=request.method is not Method.GET,
        )
        return AttemptError(error, retry=not request.once)

    @property
    def _where(self) -> str:
        return str(self._bot.base_url)

    def _hide(self, text: str) -> str:
        for token in (self._bot.token, self._actor.token):
            text = text.replace(token, "…")
        return text


def _plain(body: Mapping[str, object] | None) -> dict[str, object] | None:
    return None if body is None else dict(body)


class Getter(Protocol):
    """What readers ask for."""

    async def get(
        self, path: PathBuilder, query: Mapping[str, str] | None = None, user_id: str | None = None
    ) -> object:
        """The decoded JSON of `GET path`, as the bot or as `user_id`. Raises HomeserverError."""
        ...


class ReadTransport:
    """Can GET, and has no way to do anything else."""

    __slots__ = ("_fetch",)

    def __init__(
        self, fetch: Callable[[PathBuilder, Mapping[str, str] | None, str | None], Awaitable[object]]
    ) -> None:
        self._fetch = fetch

    async def get(
        self, path: PathBuilder, query: Mapping[str, str] | None = None, user_id: str | None = None
    ) -> object:
        """The decoded JSON of `GET path`, as the bot or as `user_id`. Raises HomeserverError."""
        return await self._fetch(path, query, user_id)


class Transport:
    """Can GET, PUT and POST. All raise HomeserverRefused or HomeserverUnavailable."""

    __slots__ = ("_connection",)

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def get(
        self, path: PathBuilder, query: Mapping[str, str] | None = None, user_id: str | None = None
    ) -> object:
        """The decoded JSON of `GET path`, as the bot or as `user_id`."""
        return await self._connection.send(_Request(Method.GET, path, query=query, user_id=user_id))

    async def put(self, path: PathBuilder, body: Mapping[str, object], user_id: str | None = None) -> object:
        """PUT is idempotent: tried again after every failure that may pass."""
        return await self._connection.send(_Request(Method.PUT, path, body, user_id=user_id))

    async def post(
        self,
        path: PathBuilder,
        body: Mapping[str, object],
        user_id: str | None = None,
        *,
        once: bool = False,
        as_actor: bool = False,
        query: Mapping[str, str] | None = None,
    ) -> object:
        """`once`: doing it twice would do harm. A lost answer raises HomeserverUnavailable(maybe_done=True);
        only what surely was not done (429, no connection) is tried again. `as_actor`: with the actor's token,
        but in nobody's name."""
        request = _Request(Method.POST, path, body, query, user_id=user_id, once=once, as_actor=as_actor)
        return await self._connection.send(request)

    def reading(self) -> ReadTransport:
        """The same connection for somebody who must not write."""
        send = self._connection.send

        async def fetch(path: PathBuilder, query: Mapping[str, str] | None, user_id: str | None) -> object:
            return await send(_Request(Method.GET, path, query=query, user_id=user_id))

        return ReadTransport(fetch)


class BorrowedTransport:
    """Can GET, each time with a token that somebody has shown us; has none of ours."""

    __slots__ = ("_retrying", "_session", "_url")

    def __init__(self, url: str, session: aiohttp.ClientSession, retrying: Retrying) -> None:
        self._url = url
        self._session = session
        self._retrying = retrying

    async def get(self, token: str, path: PathBuilder) -> object:
        """The decoded JSON of `GET path`. Raises HomeserverError, which never names the token, and
        ConfigError for what can't be a token."""
        _check_token("token", token)
        api = _Api(self._url, token, client_session=self._session, default_retry_count=0)
        return await _Connection(api, api, self._retrying).send(_Request(Method.GET, path))


@asynccontextmanager
async def open_transport(
    url: str,
    as_token: str,
    actor_token: str | None = None,
    *,
    parallelism: int = PARALLELISM,
    retries: Retries | None = None,
    read_timeout: float = READ_TIMEOUT,
    sleep: Sleep = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> AsyncIterator[Transport]:
    """A pool of at most `parallelism` connections, closed at the end. Sends nothing by itself.

    Raises ConfigError if `url` or a token can't be one.
    """
    _check_token("as_token", as_token)
    _check_token("actor_token", actor_token or as_token)
    async with _session(url, parallelism, read_timeout) as session:
        bot = _Api(url, as_token, client_session=session, default_retry_count=0)
        actor = _Api(url, actor_token or as_token, client_session=session, default_retry_count=0)
        yield Transport(_Connection(bot, actor, Retrying(retries or Retries(), sleep, chance)))


@asynccontextmanager
async def open_borrowed(
    url: str, *, retries: Retries | None = None, read_timeout: float = READ_TIMEOUT
) -> AsyncIterator[BorrowedTransport]:
    """The same for tokens that others show us. Raises ConfigError if `url` can't be one."""
    async with _session(url, PARALLELISM, read_timeout) as session:
        yield BorrowedTransport(url, session, Retrying(retries or Retries(), asyncio.sleep, random.random))


@asynccontextmanager
async def _session(url: str, parallelism: int, read_timeout: float) -> AsyncIterator[aiohttp.ClientSession]:
    _check_url(url)
    # No total limit: the state of a large room takes its time, but never pauses for long.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=parallelism),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        headers={"User-Agent": f"matrix-aim {HTTPAPI.default_ua}"},
    ) as session:
        yield session


def _check_url(url: str) -> None:
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.user or parsed.password:
        raise ConfigError(
            "homeserver.url is not a plain http(s) URL", "write it like https://matrix.example.com"
        )


def _check_token(name: str, token: str) -> None:
    # Anything else would be an error, or a second header, when the request is written.
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"appservice.{name} can't be a token", "copy it from the registration, one word without spaces"
        )
