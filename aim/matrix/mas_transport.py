"""One request to the admin API of the Matrix Authentication Service (MAS), done properly: with a good token,
retried while that is safe, its failures in our own words.

Stands between MAS (by httpx) and `mas`. In: method, path, query, body. Out: the decoded JSON, or
HomeserverRefused or HomeserverUnavailable. Tokens come by the client credentials grant (RFC 6749, section
4.4), with the scope `urn:mas:admin`. Readers get a MasReadTransport, which can send nothing but GET. What a
token of somebody else may do is asked by introspection (RFC 7662).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from urllib.parse import quote_plus, unquote

import httpx

from aim.errors import ConfigError, HomeserverRefused, HomeserverUnavailable
from aim.matrix.parse import mapping
from aim.matrix.refusals import one_line
from aim.matrix.retrying import AttemptError, Retries, Retrying, Sleep
from aim.matrix.transport import CONNECT_TIMEOUT, PARALLELISM, READ_TIMEOUT

# They would log each URL, and with it e-mail addresses; at debug level the headers too, and with them tokens.
for _noisy in ("httpx", "httpcore"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)

SCOPE = "urn:mas:admin"
_LONGEST_HEAD_START = 30.0
"""Seconds before its end at which a token is renewed; of a short-lived one, a tenth of its life."""
_LIFE = 300.0
"""Seconds that a token is taken to live if the server does not say."""

_CREDENTIALS = "check homeserver.mas.client_id and homeserver.mas.client_secret"
_NOT_ADMIN = "list homeserver.mas.client_id in policy.data.admin_clients of the Matrix Authentication Service"
_URL = "check homeserver.mas.url: it is the base URL of the Matrix Authentication Service"
_UP = "check homeserver.mas.url, and that the Matrix Authentication Service is up"
_LOG = "look into the log of the Matrix Authentication Service"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where MAS is and who we are there, as configured under `homeserver.mas`."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    """Percent-encoded, without a leading slash."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None

    def __str__(self) -> str:
        return f"{self.method} /{unquote(self.path)}"

    @property
    def changes(self) -> bool:
        return self.method != "GET"


class _Exchange:
    """Sends one HTTP request once. Translates what went wrong on the way, and answers that may pass."""

    def __init__(self, client: httpx.AsyncClient, credentials: Credentials) -> None:
        self._client = client
        self._base = credentials.url.rstrip("/")
        self._secrets = {credentials.client_secret}

    def keep_secret(self, text: str) -> None:
        """From now on it is in no message."""
        self._secrets.add(text)

    def forget(self, text: str) -> None:
        self._secrets.discard(text)

    async def send(
        self, request: _Request, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Any answer but 429 and 5xx. Raises AttemptError."""
        try:
            response = await self._client.request(
                request.method,
                f"{self._base}/{request.path}",
                params=dict(request.query) or None,
                json=None if request.body is None else dict(request.body),
                data=None if form is None else dict(form),
                headers=dict(headers),
            )
        except httpx.TransportError as error:
            raise self._unanswered(request, error) from error
        except httpx.InvalidURL as error:
            raise self._no_url() from error
        if response.status_code == 429:
            raise AttemptError(
                HomeserverUnavailable(f"{request}: {self._base} limits our rate (429)", _LOG),
                retry=True,
                asked=_seconds(response.headers.get("Retry-After")),
            )
        if response.status_code >= 500:
            message = f"{request}: {self._base} failed with {self.words(response)}"
            raise AttemptError(
                HomeserverUnavailable(message, _LOG, maybe_done=request.changes),
                retry=True,
                asked=_seconds(response.headers.get("Retry-After")),
            )
        return response

    def _unanswered(self, request: _Request, error: httpx.TransportError) -> AttemptError:
        why = self.hide(one_line(str(error))) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in why:
            return AttemptError(
                HomeserverUnavailable(
                    f"no TLS connection to {self._base}: {why}",
                    "the certificate of homeserver.mas.url must be valid for that name and issued by an "
                    "authority this machine trusts",
                ),
                retry=False,
            )
        if isinstance(error, httpx.UnsupportedProtocol):
            return self._no_url()
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            message = f"no connection to the Matrix Authentication Service at {self._base}: {why}"
            return AttemptError(HomeserverUnavailable(message, _UP), retry=True)
        message = f"{request}: no answer from {self._base}: {why}"
        return AttemptError(HomeserverUnavailable(message, _LOG, maybe_done=request.changes), retry=True)

    def _no_url(self) -> AttemptError:
        return AttemptError(HomeserverUnavailable(f"{self._base} is not a URL", _URL), retry=False)

    def words(self, response: httpx.Response) -> str:
        """Status and what the server says, as far as it says it in one of the two shapes that MAS has."""
        data = decoded(response)
        errors = mapping(data).get("errors")
        titles = [mapping(item).get("title") for item in errors] if isinstance(errors, list) else []
        oauth = [mapping(data).get("error"), mapping(data).get("error_description")]
        said = ", ".join(text for text in (*titles, *oauth) if isinstance(text, str))
        return f"{response.status_code}" + (f": {self.hide(one_line(said))}" if said else "")

    def hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text

    def unusable(self, request: _Request, response: httpx.Response) -> AttemptError:
        """For an answer that is not MAS's."""
        if 300 <= response.status_code < 400:
            where = self.hide(one_line(response.headers.get("Location", "")))
            message, remedy = f"{request} was redirected to {where}", "put that into homeserver.mas.url"
        else:
            message = f"{request}: what answers at {self._base} is not MAS ({response.status_code})"
            remedy = _URL
        return AttemptError(HomeserverRefused(message, remedy, status=response.status_code), retry=False)


class _Tokens:
    """The access token, granted when one is needed and renewed before it ends."""

    def __init__(self, exchange: _Exchange, credentials: Credentials, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._credentials = credentials
        self._clock = clock
        self._token: str | None = None
        self._renew_at = 0.0
        self._in_form = False
        """Whether this client gives its secret in the form, and not in the header: MAS knows each client for
        one of the two."""
        self._turn = asyncio.Lock()

    async def get(self) -> str:
        """Raises AttemptError."""
        async with self._turn:
            if self._token is None or self._clock() >= self._renew_at:
                await self._grant()
            assert self._token is not None
            return self._token

    def drop(self, token: str) -> None:
        """That one was refused."""
        if token == self._token:
            self._token = None

    async def as_client(self, request: _Request, form: Mapping[str, str]) -> httpx.Response:
        """The answer to a form that comes from our client, authenticated as such. Raises AttemptError."""
        # Others may ask at the same time, and find out too.
        in_form = self._in_form
        response = await self._ask(request, form, in_form)
        if response.status_code == 401:
            response = await self._ask(request, form, not in_form)
            if response.status_code != 401:
                self._in_form = not in_form
        return response

    async def _grant(self) -> None:
        request = _Request("POST", "oauth2/token")
        asked_at = self._clock()
        response = await self.as_client(request, {"grant_type": "client_credentials", "scope": SCOPE})
        answer = mapping(decoded(response))
        token = answer.get("access_token")
        if response.status_code != 200 or not isinstance(token, str):
            raise self._refused(request, response, answer)
        if self._token is not None:
            self._exchange.forget(self._token)
        self._exchange.keep_secret(token)
        life = answer.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) and life > 0 else _LIFE
        self._token = token
        self._renew_at = asked_at + seconds - min(_LONGEST_HEAD_START, seconds / 10)

    async def _ask(self, request: _Request, form: Mapping[str, str], in_form: bool) -> httpx.Response:
        ours = self._credentials
        if in_form:
            secret = {"client_id": ours.client_id, "client_secret": ours.client_secret}
            return await self._exchange.send(request, {}, {**form, **secret})
        # RFC 6749, section 2.3.1: each of them encoded as in a form first.
        pair = f"{quote_plus(ours.client_id)}:{quote_plus(ours.client_secret)}"
        basic = base64.b64encode(pair.encode()).decode()
        return await self._exchange.send(request, {"Authorization": f"Basic {basic}"}, form)

    def _refused(
        self, request: _Request, response: httpx.Response, answer: Mapping[str, object]
    ) -> AttemptError:
        code = answer.get("error")
        if not isinstance(code, str):
            return self._exchange.unusable(request, response)
        error = HomeserverRefused(
            f"the Matrix Authentication Service gives us no token: {self._exchange.words(response)}",
            _CREDENTIALS if code in {"invalid_client", "invalid_request"} else _NOT_ADMIN,
            status=401 if code == "invalid_client" else 403,
            errcode=one_line(code),
        )
        return AttemptError(error, retry=False)


class _Connection:
    """Sends requests, with retries. The only object that holds the secrets."""

    def __init__(self, exchange: _Exchange, tokens: _Tokens, retrying: Retrying) -> None:
        self._exchange = exchange
        self._tokens = tokens
        self._retrying = retrying

    async def send(self, request: _Request) -> object:
        return await self._retrying.run(partial(self._attempt, request))

    async def introspect(self, token: str) -> Mapping[str, object]:
        """What MAS says of a token (RFC 7662, 2.2)."""
        self._exchange.keep_secret(token)
        try:
            return mapping(await self._retrying.run(partial(self._introspect, token)))
        finally:
            self._exchange.forget(token)

    async def _introspect(self, token: str) -> object:
        request = _Request("POST", "oauth2/introspect")
        form = {"token": token, "token_type_hint": "access_token"}
        response = await self._tokens.as_client(request, form)
        data = mapping(decoded(response))
        if response.status_code == 200 and isinstance(data.get("active"), bool):
            return data
        if response.status_code not in {401, 403}:
            raise self._exchange.unusable(request, response)
        message = f"our client may not ask what a token may do: {self._exchange.words(response)}"
        error = HomeserverRefused(message, _CREDENTIALS, status=response.status_code)
        raise AttemptError(error, retry=False)

    async def _attempt(self, request: _Request) -> object:
        token = await self._tokens.get()
        response = await self._with(token, request)
        if response.status_code == 401:
            # Ended sooner than we were told: somebody revoked it, or MAS was set up anew.
            self._tokens.drop(token)
            response = await self._with(await self._tokens.get(), request)
        if response.status_code == 204:
            return None
        data = decoded(response)
        if 200 <= response.status_code < 300 and isinstance(data, dict):
            return data
        raise self._refused(request, response, mapping(data))

    async def _with(self, token: str, request: _Request) -> httpx.Response:
        return await self._exchange.send(request, {"Authorization": f"Bearer {token}"})

    def _refused(
        self, request: _Request, response: httpx.Response, answer: Mapping[str, object]
    ) -> AttemptError:
        if not isinstance(answer.get("errors"), list):
            return self._exchange.unusable(request, response)
        remedy = {401: _CREDENTIALS, 403: _NOT_ADMIN}.get(response.status_code, "")
        return AttemptError(
            HomeserverRefused(
                f"the Matrix Authentication Service refused {request}: {self._exchange.words(response)}",
                remedy,
                status=response.status_code,
                errcode="M_NOT_FOUND" if response.status_code == 404 else None,
            ),
            retry=False,
        )


class MasGetter(Protocol):
    """What readers ask for."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """The decoded JSON of `GET path`. Raises HomeserverError; its `errcode` is M_NOT_FOUND where MAS
        itself says that there is no such thing."""
        ...


class MasReadTransport:
    """Can GET, and has no way to do anything else."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Callable[[str, Mapping[str, str]], Awaitable[object]]) -> None:
        self._fetch = fetch

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """The decoded JSON of `GET path`. Raises HomeserverError."""
        return await self._fetch(path, query or {})


class MasTransport:
    """Can GET, POST and DELETE. All raise HomeserverRefused or HomeserverUnavailable, and are tried again
    after every failure that may pass: a repeated POST is answered 409, a repeated DELETE 404."""

    __slots__ = ("_connection",)

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """The decoded JSON of `GET path`."""
        return await self._connection.send(_Request("GET", path, query or {}))

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> object:
        return await self._connection.send(_Request("POST", path, body=body))

    async def delete(self, path: str) -> object:
        return await self._connection.send(_Request("DELETE", path))

    async def introspect(self, token: str) -> Mapping[str, object]:
        """What MAS says of somebody's token at `/oauth2/introspect` (RFC 7662, 2.2); of one that is not good,
        only that `active` is false. The refusal has status 401 or 403 if our client may not ask this."""
        return await self._connection.introspect(token)

    def reading(self) -> MasReadTransport:
        """The same connection for somebody who must not write."""
        send = self._connection.send

        async def fetch(path: str, query: Mapping[str, str]) -> object:
            return await send(_Request("GET", path, query))

        return MasReadTransport(fetch)


@asynccontextmanager
async def open_mas(
    credentials: Credentials,
    *,
    parallelism: int = PARALLELISM,
    retries: Retries | None = None,
    read_timeout: float = READ_TIMEOUT,
    sleep: Sleep = asyncio.sleep,
    chance: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[MasTransport]:
    """A pool of connections, closed at the end. Sends nothing by itself. Raises ConfigError for a URL that
    can't be one.

    `clock`: seconds that only grow; tells when a token ends.
    """
    _check_url(credentials.url)
    async with httpx.AsyncClient(
        # The machine's own authorities, as for the homeserver.
        verify=ssl.create_default_context(),
        timeout=httpx.Timeout(read_timeout, connect=CONNECT_TIMEOUT, pool=None),
        limits=httpx.Limits(max_connections=parallelism),
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "matrix-aim"},
    ) as client:
        exchange = _Exchange(client, credentials)
        tokens = _Tokens(exchange, credentials, clock)
        yield MasTransport(_Connection(exchange, tokens, Retrying(retries or Retries(), sleep, chance)))


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise ConfigError(
            "homeserver.mas.url is not a plain http(s) URL", "write it like https://account.example.com"
        )


def decoded(response: httpx.Response) -> object:
    """The JSON of an answer; None if it is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _seconds(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
