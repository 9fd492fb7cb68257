"""Access tokens for Graph, by msal: got when one is needed, kept until shortly before it ends.

Stands between Entra ID (or the machine's own token service, for a managed identity) and `transport`. In come
the settings; out goes a bearer token, or SourceInvalid, or AttemptError for what may pass.

msal knows the protocol; everything around it is ours, because its own answers to them differ. Requests are
sent with the TLS context and the proxies that Graph has, so that neither certifi nor REQUESTS_CA_BUNDLE
decides whom we trust, and to the configured authority only. And msal is set up anew each time, which costs
one small request an hour: nothing it remembers can be old, and a renewed certificate is used.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import httpx

from aim.bridges.msgraph import faults, trust
from aim.bridges.msgraph.patience import Patience
from aim.bridges.msgraph.settings import (
    ClientCertificate,
    ClientSecret,
    GraphSettings,
    ManagedIdentity,
    WorkloadIdentity,
)
from aim.bridges.msgraph.throttle import AttemptError, asked_for
from aim.bridges.msgraph.wire import HEADERS, decoded, failed, origin
from aim.errors import SourceInvalid, SourceUnavailable

# It logs answers that it can't read, with a traceback; what they mean is in our errors.
logging.getLogger("msal").setLevel(logging.CRITICAL)

_T = TypeVar("_T")

_HEAD_START = timedelta(minutes=5)
"""How long before its end a token is renewed; of a short-lived one, a tenth of its life."""
_LIFE = 300
"""Seconds that a token is taken to live if nobody says."""

_NOT_ONE_TENANT = frozenset({"common", "organizations", "consumers"})
_NO_METADATA = "Check that this machine has a managed identity, and source.managed_identity.client_id."

NewClient = Callable[[ssl.SSLContext, httpx.Timeout, bool], httpx.Client]
"""Makes the client for one acquisition from whom it trusts, how long it waits, and whether it may use a
proxy."""


def new_client(context: ssl.SSLContext, timeout: httpx.Timeout, proxied: bool) -> httpx.Client:
    """One that keeps to the environment's proxies if it may."""
    return httpx.Client(
        verify=context,
        timeout=timeout,
        follow_redirects=False,
        trust_env=proxied,
        headers=HEADERS,
    )


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    seconds: float
    """How long it lives."""


class Tokens:
    """The one token that all requests use."""

    def __init__(
        self,
        settings: GraphSettings,
        context: ssl.SSLContext,
        now: Callable[[], datetime],
        client: NewClient = new_client,
    ) -> None:
        """`now` gives the time in UTC."""
        self._settings = settings
        self._context = context
        self._now = now
        self._client = client
        self._patience = Patience(now)
        self._turn = asyncio.Lock()
        self._token: str | None = None
        self._renew_at = now()

    async def get(self, *, rejected: str | None = None, claims: str | None = None) -> str:
        """A token that is good for a while. However many wait for it, it is acquired once.

        `rejected`: a token that Graph did not accept, so that another one is wanted; `claims`: what Graph
        wants it to have, as JSON. Raises SourceInvalid, and AttemptError if trying again may help.
        """
        async with self._turn:
            if self._token is None or self._token == rejected or self._now() >= self._renew_at:
                self._token = None
                asked_at = self._now()
                with self._patience.kept():
                    token = await _aside(partial(self._acquire, claims))
                head_start = min(_HEAD_START, timedelta(seconds=token.seconds / 10))
                self._renew_at = asked_at + timedelta(seconds=token.seconds) - head_start
                self._token = token.value
            return self._token

    def forget(self) -> None:
        """The one we have lacks something: another one may have it."""
        self._token = None

    # -- in a worker thread ------------------------------------------------------------------------------

    def _acquire(self, claims: str | None) -> _Token:
        settings = self._settings
        timeout = httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout)
        if isinstance(settings.credential, ManagedIdentity):
            with self._client(self._context, timeout, False) as client:
                return self._from_machine(settings.credential, _Asker(client, self._now), claims)
        _check(settings)
        with self._client(self._context, timeout, True) as client:
            return self._from_authority(_AuthorityAsker(client, self._now, settings.authority), claims)

    def _from_authority(self, asker: _AuthorityAsker, claims: str | None) -> _Token:
        from msal import ConfidentialClientApplication

        settings = self._settings
        app = ConfidentialClientApplication(
            settings.client_id,
            _msal_credential(settings),
            authority=f"{settings.authority.rstrip('/')}/{settings.tenant_id}",
            # It would ask login.microsoftonline.com whether this authority is one, and the machine where it
            # is.
            instance_discovery=False,
            azure_region=False,
            http_client=asker,
        )
        answer = app.acquire_token_for_client(list(settings.scopes), claims_challenge=claims)
        return _token(answer, settings.authority)

    def _from_machine(self, identity: ManagedIdentity, asker: _Asker, claims: str | None) -> _Token:
        from msal import ManagedIdentityClient, SystemAssignedManagedIdentity, UserAssignedManagedIdentity

        who = (
            SystemAssignedManagedIdentity()
            if identity.client_id is None
            else UserAssignedManagedIdentity(client_id=identity.client_id)
        )
        resource = self._settings.scopes[0].removesuffix("/.default")
        machine = "the machine's managed identity"
        try:
            client = ManagedIdentityClient(who, http_client=asker)
            answer = client.acquire_token_for_client(resource=resource, claims_challenge=claims)
        except (ValueError, OSError) as error:
            raise faults.TokenRefused(
                f"{machine} can't be used: {faults.told(str(error))}", _NO_METADATA
            ) from error
        if not isinstance(answer, dict) or "access_token" not in answer:
            why = faults.told(answer.get("error_description")) if isinstance(answer, dict) else ""
            raise faults.TokenRefused(
                f"{machine} gives us no token: {why or 'it does not say why'}", _NO_METADATA
            )
        return _token(answer, machine)


async def _aside(work: Callable[[], _T]) -> _T:
    """What `work` gives or raises, in a thread that is left to itself when this is cancelled: asyncio's own
    threads would hold up the end of the program for as long as a server does not answer."""
    outcome: Future[_T] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, name="token", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _check(settings: GraphSettings) -> None:
    """What msal would only say in its own words, or warn of."""
    if not settings.authority.lower().startswith("https://"):
        raise SourceInvalid("source.authority is no https:// URL", "Write it like https://login.example.com.")
    if settings.tenant_id.lower() in _NOT_ONE_TENANT or "/" in settings.tenant_id:
        raise SourceInvalid(
            f"source.tenant_id {settings.tenant_id} is not one tenant",
            "Let it be the Directory (tenant) ID of the app's overview page.",
        )


def _msal_credential(settings: GraphSettings) -> object:
    """As msal wants it."""
    credential = settings.credential
    if isinstance(credential, ClientSecret):
        return credential.value
    if isinstance(credential, ClientCertificate):
        own = trust.own(credential)
        return {"private_key": own.key, "public_certificate": own.pem}
    assert isinstance(credential, WorkloadIdentity)
    try:
        assertion = credential.token_file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SourceInvalid(
            f"source.workload_identity: {credential.token_file} can't be read: {why}",
            "Check that the projected token is mounted there, and that aim may read it.",
        ) from error
    return {"client_assertion": lambda: assertion}


def _token(answer: Mapping[str, object], who: str) -> _Token:
    value, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise AttemptError(faults.malformed(f"token from {who}", "it holds no access_token"))
    is_told = isinstance(seconds, int | float) and seconds > 0
    return _Token(value, float(seconds) if is_told and isinstance(seconds, int | float) else _LIFE)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What msal looks at. (It wraps this in an object of its own.)"""

    status_code: int
    text: str
    headers: Mapping[str, str]


class _Asker:
    """What msal sends its requests with: raises AttemptError for what may pass."""

    def __init__(self, client: httpx.Client, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now

    def get(
        self, url: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> _Answer:
        return self._send("GET", url, params, headers, None)

    def post(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Mapping[str, str | bytes] | None = None,
    ) -> _Answer:
        # msal signs bytes, of which httpx would send Python's notation.
        form = {name: _text(value) for name, value in data.items()} if data is not None else None
        return self._send("POST", url, params, headers, form)

    def close(self) -> None:
        """It is closed by who opened it."""

    def _send(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        data: Mapping[str, str] | None,
    ) -> _Answer:
        self._admit(url)
        try:
            response = self._client.request(method, url, params=params, headers=headers, data=data)
        except httpx.InvalidURL as error:
            raise SourceInvalid(f"{faults.told(url)} is no URL", faults.CLOUD) from error
        except httpx.HTTPError as error:
            raise failed(origin(url), error) from error
        if response.status_code in {408, 429} or response.status_code >= 500:
            asked = asked_for(response.headers.get("Retry-After"), response.headers.get("Date"), self._now())
            message = f"{origin(url)} gives us no token at the moment ({response.status_code})"
            raise AttemptError(SourceUnavailable(message, faults.LATER), asked)
        return self._checked(response)

    def _admit(self, url: str) -> None:
        """Raises SourceInvalid for what must not be asked."""

    def _checked(self, response: httpx.Response) -> _Answer:
        return _Answer(response.status_code, response.text, response.headers)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class _AuthorityAsker(_Asker):
    """Asks one authority and no other, whatever its metadata says. Raises TokenRefused for what that
    refuses."""

    def __init__(self, client: httpx.Client, now: Callable[[], datetime], authority: str) -> None:
        super().__init__(client, now)
        self._authority = origin(authority)

    def _admit(self, url: str) -> None:
        if origin(url) != self._authority:
            raise SourceInvalid(
                f"{self._authority} sends us to {faults.told(origin(url))} for tokens: our credential is not"
                " sent there",
                "If that is right, give it as source.authority.",
            )

    def _checked(self, response: httpx.Response) -> _Answer:
        if response.is_redirect:
            raise SourceInvalid(
                f"{self._authority} redirects us to {faults.told(response.headers.get('Location', ''))}",
                "Check source.authority.",
            )
        answer = decoded(response)
        if not isinstance(answer, dict):
            raise AttemptError(
                SourceUnavailable(
                    f"what answers at {self._authority} is not Entra ID ({response.status_code}, no JSON)",
                    "Check source.authority, and the proxy, if there is one (HTTPS_PROXY).",
                )
            )
        if response.status_code >= 400 or "error" in answer:
            refusal = faults.token_refused(self._authority, response.status_code, answer)
            raise AttemptError(refusal) if isinstance(refusal, SourceUnavailable) else refusal
        if response.request.method == "GET" and not _is_metadata(answer):
            what = f"metadata of the tenant at {self._authority}"
            raise AttemptError(faults.malformed(what, "it names no token_endpoint"))
        return super()._checked(response)


def _is_metadata(answer: Mapping[str, object]) -> bool:
    return all(isinstance(answer.get(name), str) for name in ("authorization_endpoint", "token_endpoint"))
