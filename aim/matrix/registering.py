"""Makes accounts for users of the directory. Implements ports.Registrar.

In: a localpart that has no account as far as anybody knows. Out: an account without password or session, or
the word that the name is in use. With Synapse the appservice that acts as users makes it; with the Matrix
Authentication Service that one does, and has the homeserver follow.
"""

from __future__ import annotations

from mautrix.api import Path

from aim.errors import HomeserverRefused
from aim.matrix.account_server import NOT_PERMITTED, AccountServer
from aim.matrix.accounts import Accounts
from aim.matrix.mas_transport import MasTransport
from aim.matrix.transport import Transport
from aim.world.accounts import Account

_USERS = "api/admin/v1/users"


class SynapseRegistrar:
    """Accounts of Synapse itself."""

    def __init__(self, transport: Transport, server: AccountServer, accounts: Accounts) -> None:
        """`server` is asked whether there is an account, and, where we may not see them there, `accounts`."""
        self._transport = transport
        self._server = server
        self._accounts = accounts

    async def register(self, localpart: str) -> bool:
        """`POST /register` without a login (Application Service API, Server admin style permissions). The
        name must be in a namespace of the appservice, so the actor does it."""
        body = {"type": "m.login.application_service", "username": localpart, "inhibit_login": True}
        try:
            await self._transport.post(Path.v3.register, body, as_actor=True)
        except HomeserverRefused as error:
            if error.errcode != "M_USER_IN_USE":
                raise
            return False
        return True

    async def find(self, localpart: str) -> Account | None:
        """By the admin API, else by acting as them: which can't tell a deactivated account from any other."""
        try:
            return await self._server.account(localpart, ())
        except HomeserverRefused as error:
            if error.status not in NOT_PERMITTED:
                raise
        return Account(localpart) if await self._accounts.asked([localpart]) else None


class MasRegistrar:
    """Accounts of the Matrix Authentication Service."""

    def __init__(self, mas: MasTransport, server: AccountServer) -> None:
        self._mas = mas
        self._server = server

    async def register(self, localpart: str) -> bool:
        """`POST users`. 409: there is such a user, or an account on the homeserver that MAS does not know."""
        try:
            await self._mas.post(_USERS, {"username": localpart})
        except HomeserverRefused as error:
            if error.status != 409:
                raise
            return False
        return True

    async def find(self, localpart: str) -> Account | None:
        """`GET users/by-username/{localpart}`."""
        return await self._server.account(localpart, ())
