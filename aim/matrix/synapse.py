"""Accounts by Synapse's admin API: `homeserver.auth: synapse`.

`SynapseAccounts` reads (AccountServer), `SynapseWriter` writes (ports.AccountWriter). Both act as the bot, or
as a configured admin where the bot is none. Endpoints are those of the "Admin API" part of Synapse's
manual; what was measured of them is in `docs/homeserver.md`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Mapping, Sequence
from typing import cast

from mautrix.api import PathBuilder, SynapseAdminPath

from aim.errors import HomeserverError, HomeserverRefused
from aim.matrix import mxid
from aim.matrix.account_server import NEWEST, PAGE, Attribute, Attributes, nobody, same_address, taken
from aim.matrix.parse import mapping
from aim.matrix.transport import Getter, Transport
from aim.world.accounts import Account

_NOT_ADMIN = "set homeserver.admin_user to a server admin, or make the bot one"
_NO_ADMIN_API = "let the admin API (/_synapse/admin) through to us, and check homeserver.auth"
_EMAIL = "email"
_NEWEST_FIRST = {"order_by": "creation_ts", "dir": "b"}


class SynapseAccounts:
    """Reads accounts. Implements AccountServer."""

    listed = frozenset({Attribute.DISPLAY_NAME})
    in_pages: frozenset[Attribute] = frozenset()

    def __init__(self, transport: Getter, server_name: str, *, admin: str | None = None) -> None:
        """`admin`: MXID to act as; None: the bot is the admin."""
        self._transport = transport
        self._server_name = server_name
        self._admin = admin

    async def accounts(self) -> AsyncIterator[Sequence[Account]]:
        """`GET /_synapse/admin/v3/users`, in the order of names: who registers meanwhile hides nobody."""
        async for page in self._pages(PAGE, {}):
            yield page

    async def deactivated(self) -> AsyncIterator[Sequence[Account]]:
        """The same list, deactivated ones only."""
        async for page in self._pages(PAGE, {"deactivated": "true"}):
            # v2 means "these too" by it.
            yield [account for account in page if account.deactivated]

    async def newest(self, known: Container[str]) -> list[Account]:
        """The same list, newest first: accounts of one second come in the order of their names."""
        found: list[Account] = []
        async for page in self._pages(NEWEST, _NEWEST_FIRST):
            new = [each for each in page if not each.deactivated and each.localpart not in known]
            if not new:
                break
            found += new
        return found

    async def account(self, localpart: str, attributes: Attributes) -> Account | None:  # noqa: ARG002 - has all
        """`GET /_synapse/admin/v2/users/{mxid}`: all there is of one account."""
        user = await self.user(localpart)
        return None if user is None else _account(user, localpart)

    async def details(self, account: Account, attributes: Attributes) -> Account | None:
        """The same request."""
        return await self.account(account.localpart, attributes)

    def emails(self) -> AsyncIterator[Mapping[str, Sequence[str]]]:
        """Synapse has no list of addresses."""
        raise NotImplementedError

    async def owner(self, address: str) -> str | None:
        """`GET /_synapse/admin/v1/threepid/email/users/{address}`. It compares letter by letter, and keeps
        addresses in lower case."""
        path = SynapseAdminPath.v1.threepid[_EMAIL].users[same_address(address)]
        try:
            answer = mapping(await self._get(path))
        except HomeserverRefused as error:
            if _is_unknown(error):
                return None
            raise
        return self._local(answer.get("user_id"))

    async def permitted(self) -> None:
        """One row of the list."""
        await self._page({"limit": "1"})

    async def user(self, localpart: str) -> Mapping[str, object] | None:
        """An account as Synapse describes it."""
        try:
            path = SynapseAdminPath.v2.users[mxid.make(localpart, self._server_name)]
            return mapping(await self._get(path))
        except HomeserverRefused as error:
            if _is_unknown(error):
                return None
            raise

    async def _pages(self, size: int, query: Mapping[str, str]) -> AsyncIterator[list[Account]]:
        token: str | None = None
        while True:
            given = {} if token is None else {"from": token}
            page = await self._page({**query, "limit": str(size), **given})
            users = page.get("users")
            yield [each for each in map(self._parsed, users if isinstance(users, list) else []) if each]
            before, token = token, _token(page)
            if token is None or token == before:
                return

    async def _page(self, query: Mapping[str, str]) -> Mapping[str, object]:
        # Locked accounts are left out otherwise; with MAS a list with guests is refused.
        query = {"locked": "true", "guests": "false", **query}
        if self._admin is not None:
            # The `user_id` that makes us act as the admin is a filter here too; `name` outdoes it.
            query["name"] = "%"
        try:
            return mapping(await self._get(SynapseAdminPath.v3.users, query))
        except HomeserverRefused as error:
            if error.status != 404:
                raise
        # Before v3, deactivated accounts were left out unless asked for.
        return mapping(await self._get(SynapseAdminPath.v2.users, {"deactivated": "true", **query}))

    async def _get(self, path: PathBuilder, query: Mapping[str, str] | None = None) -> object:
        try:
            return await self._transport.get(path, query, self._admin)
        except HomeserverRefused as error:
            raise explained(error) from error

    def _parsed(self, user: object) -> Account | None:
        content = mapping(user)
        localpart = self._local(content.get("name"))
        return None if localpart is None else _account(content, localpart)

    def _local(self, user_id: object) -> str | None:
        parts = mxid.split(user_id) if isinstance(user_id, str) else None
        return parts[0] if parts is not None and parts[1] == self._server_name else None


class SynapseWriter:
    """Changes accounts that exist. Implements ports.AccountWriter.

    A PUT to an account that does not exist would make one: so each begins with a GET, which also tells
    whether there is anything to do.
    """

    def __init__(self, transport: Transport, server_name: str, *, admin: str | None = None) -> None:
        """`admin`: MXID to act as; None: the bot is the admin."""
        self._transport = transport
        self._server_name = server_name
        self._admin = admin
        self._reader = SynapseAccounts(transport, server_name, admin=admin)

    async def set_display_name(self, localpart: str, display_name: str) -> None:
        user = await self._existing(localpart)
        if user.get("displayname") != display_name:
            await self._put(localpart, {"displayname": display_name})

    async def set_emails(self, localpart: str, emails: Sequence[str]) -> None:
        """These and no other addresses; other third-party ids stay.

        Synapse would take an address from whoever has it without a word, so its owner is asked for first.
        """
        user = await self._existing(localpart)
        wanted = {same_address(address): same_address(address) for address in emails}
        have = {same_address(address): address for address in _emails(user)}
        if wanted.keys() == have.keys():
            return
        await self._refuse_taken(localpart, sorted(wanted.keys() - have.keys()))
        others = [
            {"medium": item["medium"], "address": item["address"]}
            for item in _threepids(user)
            if item["medium"] != _EMAIL
        ]
        # Those that stay as they are spelled: another spelling would be removed and added again.
        ours = [{"medium": _EMAIL, "address": have.get(key, key)} for key in sorted(wanted)]
        await self._put(localpart, {"threepids": others + ours})

    async def _refuse_taken(self, localpart: str, added: Sequence[str]) -> None:
        for address in added:
            owner = await self._reader.owner(address)
            if owner is not None and owner != localpart:
                message, remedy = taken(address, self._mxid(owner), self._mxid(localpart))
                raise HomeserverRefused(message, remedy, status=409, errcode="M_THREEPID_IN_USE")

    async def lock(self, localpart: str) -> None:
        user = await self._existing(localpart)
        if user.get("locked") is not True:
            await self._put(localpart, {"locked": True})

    async def unlock(self, localpart: str) -> None:
        user = await self._existing(localpart)
        if user.get("locked") is True:
            await self._put(localpart, {"locked": False})

    async def erase(self, localpart: str) -> None:
        """`POST /_synapse/admin/v1/deactivate/{mxid}` with `erase`: the PUT can only deactivate."""
        user = await self._existing(localpart)
        if user.get("deactivated") is True and user.get("erased") is True:
            return
        path = SynapseAdminPath.v1.deactivate[self._mxid(localpart)]
        try:
            await self._transport.post(path, {"erase": True}, user_id=self._admin)
        except HomeserverRefused as error:
            raise explained(error) from error

    async def _existing(self, localpart: str) -> Mapping[str, object]:
        user = await self._reader.user(localpart)
        if user is None:
            message, remedy = nobody(self._mxid(localpart))
            raise HomeserverRefused(message, remedy, status=404, errcode="M_NOT_FOUND")
        return user

    async def _put(self, localpart: str, body: Mapping[str, object]) -> None:
        path = SynapseAdminPath.v2.users[self._mxid(localpart)]
        try:
            await self._transport.put(path, body, user_id=self._admin)
        except HomeserverRefused as error:
            raise explained(error) from error

    def _mxid(self, localpart: str) -> str:
        return mxid.make(localpart, self._server_name)


def explained(error: HomeserverRefused) -> HomeserverRefused:
    """The same refusal by the admin API, with what to do about it."""
    if error.status == 403:
        return _with_remedy(error, error.remedy or _NOT_ADMIN)
    if error.status == 404 and not _is_unknown(error):
        return _with_remedy(error, _NO_ADMIN_API)
    return error


def _with_remedy(error: HomeserverRefused, remedy: str) -> HomeserverRefused:
    return HomeserverRefused(error.message, remedy, status=error.status, errcode=error.errcode)


def _is_unknown(error: HomeserverError) -> bool:
    """Whether what was asked about does not exist; any other 404 is that of a proxy, or of no Synapse."""
    return isinstance(error, HomeserverRefused) and (error.status, error.errcode) == (404, "M_NOT_FOUND")


def _account(user: Mapping[str, object], localpart: str) -> Account:
    name = user.get("displayname")
    return Account(
        localpart,
        display_name=name if isinstance(name, str) else None,
        emails=tuple(sorted(_emails(user))) if "threepids" in user else None,
        locked=user.get("locked") is True,
        # Older versions say 0 and 1.
        deactivated=bool(user.get("deactivated")),
        admin=bool(user.get("admin")),
    )


def _emails(user: Mapping[str, object]) -> list[str]:
    return [item["address"] for item in _threepids(user) if item["medium"] == _EMAIL]


def _threepids(user: Mapping[str, object]) -> list[dict[str, str]]:
    found = user.get("threepids")
    items = [mapping(item) for item in found] if isinstance(found, list) else []
    return [
        cast(dict[str, str], item)
        for item in items
        if isinstance(item.get("medium"), str) and isinstance(item.get("address"), str)
    ]


def _token(page: Mapping[str, object]) -> str | None:
    token = page.get("next_token")
    return str(token) if isinstance(token, str | int) else None
