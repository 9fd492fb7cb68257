"""Which people have an account that can take an invite. Reads only.

Two ways, the first that is permitted:

- the list of Synapse's admin API (`GET /_synapse/admin/v3/users`, before that v2), as the bot or as a
  configured admin; or that of the Matrix Authentication Service, where we may use it. Knows who is
  deactivated.
- without admin rights, or where accounts are in the Matrix Authentication Service: for each person in
  question `GET /account/whoami`, acting as them. A deactivated account looks like any other this way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Container, Mapping, Set
from enum import StrEnum

from mautrix.api import Path, PathBuilder, SynapseAdminPath

from aim.errors import HomeserverRefused
from aim.matrix import mxid
from aim.matrix.account_server import NOT_PERMITTED, AccountServer
from aim.matrix.parallel import each
from aim.matrix.parse import mapping
from aim.matrix.transport import PARALLELISM, ReadTransport

_PAGE = 1000
_NEWEST = 50
"""How many of the newest accounts one poll looks at."""
_NEWEST_FIRST = {"order_by": "creation_ts", "dir": "b"}


class AccountsWay(StrEnum):
    """How accounts are found."""

    LIST = "the admin API's list of accounts"
    MAS = "the list of the Matrix Authentication Service"
    ASK = "asking for each person, acting as them"


class Accounts:
    """Asks the homeserver for accounts."""

    def __init__(
        self,
        transport: ReadTransport,
        server_name: str,
        *,
        admin: str | None = None,
        admin_api: bool = True,
        mas: AccountServer | None = None,
        parallelism: int = PARALLELISM,
    ) -> None:
        """`admin`: MXID to act as when listing (None: the bot is the admin). `admin_api`: False with MAS,
        whose own list is used if it is given as `mas`."""
        self._transport = transport
        self._server_name = server_name
        self.admin = admin
        """MXID to act as where it takes an admin; None: the bot is one, or nobody."""
        self._admin_api = admin_api
        self._mas = mas
        self._parallelism = parallelism

    async def way(self) -> AccountsWay:
        """Which way is permitted. Raises HomeserverError."""
        if self._mas is not None:
            try:
                await self._mas.permitted()
            except HomeserverRefused:
                return AccountsWay.ASK
            return AccountsWay.MAS
        permitted = self._admin_api and await self._page(None, 1) is not None
        return AccountsWay.LIST if permitted else AccountsWay.ASK

    async def listed(self, wanted: Set[str]) -> set[str] | None:
        """Those of the `wanted` localparts who are in the admin API's list; None if that is not permitted.

        Raises HomeserverError.
        """
        found: set[str] = set()
        async for names in self._pages(_PAGE):
            if names is None:
                return None
            found.update(name for name in names if name in wanted)
        return found

    async def everyone(self) -> set[str] | None:
        """The localparts of all accounts in that list; None if that is not permitted.

        Raises HomeserverError.
        """
        found: set[str] = set()
        async for names in self._pages(_PAGE):
            if names is None:
                return None
            found.update(names)
        return found

    async def newest(self, known: Container[str]) -> set[str] | None:
        """The localparts of the newest accounts, as far as they are not `known`; None if not permitted.

        Looks at one page after the other until all on one are known: accounts of one second come in the order
        of their names. Raises HomeserverError.
        """
        if self._mas is not None:
            return await self._newest_of_mas(self._mas, known)
        found: set[str] = set()
        async for names in self._pages(_NEWEST, _NEWEST_FIRST):
            if names is None:
                return None
            new = [name for name in names if name not in known]
            if not new:
                break
            found.update(new)
        return found

    async def _newest_of_mas(self, mas: AccountServer, known: Container[str]) -> set[str] | None:
        try:
            return {account.localpart for account in await mas.newest(known)}
        except HomeserverRefused as error:
            if error.status in NOT_PERMITTED:
                return None
            raise

    async def _pages_of_mas(self, mas: AccountServer) -> AsyncIterator[list[str] | None]:
        try:
            async for page in mas.accounts():
                yield [account.localpart for account in page if not account.deactivated]
        except HomeserverRefused as error:
            if error.status not in NOT_PERMITTED:
                raise
            yield None

    async def asked(self, localparts: Collection[str]) -> set[str]:
        """Those of the localparts who have an account, by acting as each of them.

        Raises HomeserverRefused if no token may do that, HomeserverUnavailable.
        """
        names = sorted(localparts)
        answers = await each(self._exists, names, self._parallelism)
        return {name for name, exists in zip(names, answers, strict=True) if exists}

    async def _exists(self, localpart: str) -> bool:
        try:
            await self._transport.get(Path.v3.account.whoami, user_id=mxid.make(localpart, self._server_name))
        except HomeserverRefused as error:
            if error.status == 403 and error.errcode != "M_EXCLUSIVE":
                return False
            raise
        return True

    async def _pages(
        self, size: int, order: Mapping[str, str] | None = None
    ) -> AsyncIterator[list[str] | None]:
        """The localparts of each page of the list; None, and nothing after it, if we may not have it."""
        if self._mas is not None:
            async for names in self._pages_of_mas(self._mas):
                yield names
            return
        token: str | None = None
        while True:
            page = await self._page(token, size, order) if self._admin_api else None
            yield None if page is None else self._localparts(page)
            before, token = token, None if page is None else _token(page)
            if token is None or token == before:
                return

    def _localparts(self, page: Mapping[str, object]) -> list[str]:
        """The local users on a page."""
        users, found = page.get("users"), []
        for user in users if isinstance(users, list) else []:
            name = mapping(user).get("name")
            parts = mxid.split(name) if isinstance(name, str) else None
            if parts is not None and parts[1] == self._server_name:
                found.append(parts[0])
        return found

    async def _page(
        self, token: str | None, size: int, order: Mapping[str, str] | None = None
    ) -> dict[str, object] | None:
        """One page, or None if we may not have it."""
        query = {
            **(order or {}),
            "limit": str(size),
            # Without it locked accounts are left out; they keep their memberships, so they can take invites.
            "locked": "true",
            "deactivated": "false",
            "guests": "false",
        }
        if token is not None:
            query["from"] = token
        if self.admin is not None:
            # The `user_id` that makes us act as the admin is a filter here too; `name` outdoes it.
            query["name"] = "%"
        try:
            try:
                return await self._get(SynapseAdminPath.v3.users, query)
            except HomeserverRefused as error:
                if error.status != 404:
                    raise
                return await self._get(SynapseAdminPath.v2.users, query)
        except HomeserverRefused as error:
            # 404: no Synapse, or a proxy that hides the admin API.
            if error.status in {403, 404}:
                return None
            raise

    async def _get(self, path: PathBuilder, query: dict[str, str]) -> dict[str, object]:
        return dict(mapping(await self._transport.get(path, query, self.admin)))


def _token(page: dict[str, object]) -> str | None:
    token = page.get("next_token")
    return str(token) if isinstance(token, str | int) else None
