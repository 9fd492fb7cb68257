"""Whether an access token that somebody shows is that of an admin of the homeserver.

Asked by the SCIM service (`client.rbac[].synapse_user: admin`), which remembers the answers for a while. In
comes the token, which goes to the configured homeserver or Matrix Authentication Service and nowhere else, is
in no log and in no message, and is used for these questions alone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mautrix.api import Path, SynapseAdminPath

from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix import mxid
from aim.matrix.mas_transport import Credentials, MasTransport, open_mas
from aim.matrix.parse import mapping
from aim.matrix.retrying import Retries
from aim.matrix.transport import BorrowedTransport, open_borrowed

log = logging.getLogger("aim.matrix")

ADMIN_SCOPE = "urn:synapse:admin:*"
"""What a token of the Matrix Authentication Service has that may use Synapse's admin API."""
_RETRIES = Retries(tries=2, cap=3.0)
"""A client waits for the answer, whatever the homeserver asks us to wait."""
_READ_TIMEOUT = 10.0
_NOT_ASKED = (
    "give homeserver.mas the id and secret of a client that MAS lets introspect tokens; until then no admin "
    "is let in by `synapse_user: admin`"
)

IsAdmin = Callable[[str], Awaitable[bool]]
"""Whether it is the access token of an admin. Raises HomeserverUnavailable if that can't be told."""


@asynccontextmanager
async def open_admins(url: str, server_name: str, mas: Credentials | None = None) -> AsyncIterator[IsAdmin]:
    """Asks the Matrix Authentication Service if it keeps the accounts, else Synapse at `url`. Sends nothing
    by itself. Raises ConfigError for a URL that can't be one."""
    if mas is not None:
        async with open_mas(mas, retries=_RETRIES, read_timeout=_READ_TIMEOUT) as transport:
            yield _Introspecting(transport)
        return
    async with open_borrowed(url, retries=_RETRIES, read_timeout=_READ_TIMEOUT) as borrowed:
        yield _Asking(borrowed, server_name)


class _Asking:
    """By `GET /account/whoami` (Client-Server API) and Synapse's `GET /_synapse/admin/v1/users/{user}/admin`,
    both with the token in question: who is no admin may not even ask the latter."""

    def __init__(self, transport: BorrowedTransport, server_name: str) -> None:
        self._transport = transport
        self._server_name = server_name

    async def __call__(self, token: str) -> bool:
        if not _is_sendable(token):
            return False
        try:
            said = mapping(await self._transport.get(token, Path.v3.account.whoami))
            user = said.get("user_id")
            parts = mxid.split(user) if isinstance(user, str) else None
            if parts is None or parts[1] != self._server_name:
                return False
            path = SynapseAdminPath.v1.users[mxid.make(*parts)].admin
            return mapping(await self._transport.get(token, path)).get("admin") is True
        except HomeserverRefused as error:
            if error.status in {401, 403}:
                return False
            raise _untold(error) from error


class _Introspecting:
    """By introspection (RFC 7662) at MAS."""

    def __init__(self, transport: MasTransport) -> None:
        self._transport = transport
        self._is_told = False

    async def __call__(self, token: str) -> bool:
        if not _is_sendable(token):
            return False
        try:
            said = await self._transport.introspect(token)
        except HomeserverRefused as error:
            if error.status not in {401, 403}:
                raise _untold(error) from error
            if not self._is_told:
                # Once: whoever shows tokens decides how often this is asked.
                log.warning("%s; %s", error.message, _NOT_ASKED)
                self._is_told = True
            return False
        scope = said.get("scope")
        return said.get("active") is True and isinstance(scope, str) and ADMIN_SCOPE in scope.split()


def _is_sendable(token: str) -> bool:
    """Whether it can be a token at all: anything else is no text for a header."""
    return token.isascii() and token.isprintable() and " " not in token and bool(token)


def _untold(error: HomeserverRefused) -> HomeserverUnavailable:
    """Something stands between: the answer is none about the token."""
    return HomeserverUnavailable(error.message, error.remedy)
