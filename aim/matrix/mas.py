"""Accounts by the admin API of the Matrix Authentication Service (MAS): `homeserver.auth: mas`.

`MasAccounts` reads (AccountServer), `MasWriter` writes (ports.AccountWriter). Users, their locks and their
e-mail addresses are MAS's; display names are the homeserver's, read and written by acting as the user.
Synapse's admin API, most of which MAS turns off, is never asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from mautrix.api import Path

from aim.errors import HomeserverRefused
from aim.matrix import mxid
from aim.matrix.account_server import NEWEST, PAGE, Attribute, Attributes, nobody, same_address, taken
from aim.matrix.mas_transport import MasGetter, MasTransport
from aim.matrix.parse import Content, mapping
from aim.matrix.transport import Getter, Transport
from aim.world.accounts import Account

_API = "api/admin/v1"
_USERS = f"{_API}/users"
_EMAILS = f"{_API}/user-emails"


@dataclass(frozen=True, slots=True)
class _User:
    """A user of MAS. `id` is a ULID: the older, the smaller."""

    id: str
    account: Account
    guest: bool


@dataclass(frozen=True, slots=True)
class _Email:
    id: str
    user_id: str
    address: str


class MasAccounts:
    """Reads accounts. Implements AccountServer."""

    listed: frozenset[Attribute] = frozenset()
    in_pages = frozenset({Attribute.EMAILS})

    def __init__(self, mas: MasGetter, transport: Getter, server_name: str) -> None:
        """`transport`: to the homeserver, for display names."""
        self._mas = mas
        self._transport = transport
        self._server_name = server_name
        self._names: dict[str, str] = {}
        """Id of a user → localpart. A name never changes in MAS."""
        self._ids: dict[str, str] = {}
        self._knows_all = False
        """Whether the list was read, so that names need not be asked for."""

    async def accounts(self) -> AsyncIterator[Sequence[Account]]:
        """`GET users`, oldest first: who registers meanwhile hides nobody."""
        async for page in self._pages(_USERS, {}):
            yield self._accounts(page)
        self._knows_all = True

    async def deactivated(self) -> AsyncIterator[Sequence[Account]]:
        """The same list, deactivated ones only."""
        async for page in self._pages(_USERS, {"filter[status]": "deactivated"}):
            yield self._accounts(page)

    async def newest(self, known: Container[str]) -> list[Account]:
        """The same list from its end: ids grow with time."""
        found: list[Account] = []
        before: dict[str, str] = {}
        while True:
            query = {"page[last]": str(NEWEST), "count": "false", **before}
            page = mapping(await self._mas.get(_USERS, query))
            items = _items(page)
            new = [
                account
                for account in self._accounts(items)
                if not account.deactivated and account.localpart not in known
            ]
            found += new
            if not new or mapping(page.get("links")).get("prev") is None:
                return found
            before = {"page[before]": _cursor(items[0])}

    async def account(self, localpart: str, attributes: Attributes) -> Account | None:
        """`GET users/by-username/{localpart}`, then what is asked for."""
        user = await self.user(localpart)
        return None if user is None else await self._read(user.account, user.id, attributes)

    async def details(self, account: Account, attributes: Attributes) -> Account | None:
        """Without asking for the user again, as far as its id is known or not needed."""
        if Attribute.EMAILS in attributes and account.localpart not in self._ids:
            return await self.account(account.localpart, attributes)
        return await self._read(account, self._ids.get(account.localpart, ""), attributes)

    async def _read(self, account: Account, user_id: str, attributes: Attributes) -> Account:
        if Attribute.EMAILS in attributes:
            addresses = sorted(email.address for email in await self.emails_of(user_id))
            account = replace(account, emails=tuple(addresses))
        if Attribute.DISPLAY_NAME in attributes:
            account = replace(account, display_name=await self._display_name(account.localpart))
        return account

    async def emails(self) -> AsyncIterator[Mapping[str, Sequence[str]]]:
        """`GET user-emails`. They name their users by id: of those we don't know, the list is read before."""
        if not self._knows_all:
            async for _ in self.accounts():
                pass
        async for page in self._pages(_EMAILS, {}):
            found: dict[str, list[str]] = {}
            for email in map(_email, page):
                name = await self._name(email.user_id)
                if name is not None:
                    found.setdefault(name, []).append(email.address)
            yield found

    async def owner(self, address: str) -> str | None:
        """`GET user-emails?filter[email]=`."""
        page = mapping(await self._mas.get(_EMAILS, {"filter[email]": address, "count": "false"}))
        emails = [_email(item) for item in _items(page)]
        return await self._name(emails[0].user_id) if emails else None

    async def permitted(self) -> None:
        """One row of the list."""
        await self._mas.get(_USERS, {"page[first]": "1", "count": "false"})

    async def user(self, localpart: str) -> _User | None:
        """The user of that name in MAS."""
        path = f"{_USERS}/by-username/{quote(localpart, safe='')}"
        try:
            answer = await self._mas.get(path)
        except HomeserverRefused as error:
            if error.errcode == "M_NOT_FOUND":
                return None
            raise
        return self._user(mapping(mapping(answer).get("data")))

    async def emails_of(self, user_id: str) -> list[_Email]:
        """`GET user-emails?filter[user]=`; none if the user is gone."""
        found: list[_Email] = []
        try:
            async for page in self._pages(_EMAILS, {"filter[user]": user_id}):
                found += map(_email, page)
        except HomeserverRefused as error:
            if error.errcode != "M_NOT_FOUND":
                raise
        return found

    async def _name(self, user_id: str) -> str | None:
        if user_id not in self._names:
            try:
                answer = await self._mas.get(f"{_USERS}/{quote(user_id, safe='')}")
            except HomeserverRefused as error:
                if error.errcode != "M_NOT_FOUND":
                    raise
                return None
            self._user(mapping(mapping(answer).get("data")))
        return self._names.get(user_id)

    async def _display_name(self, localpart: str) -> str | None:
        """`GET /profile/{mxid}/displayname`, acting as the user: some homeservers show profiles only to those
        who share a room."""
        user = mxid.make(localpart, self._server_name)
        try:
            answer = await self._transport.get(Path.v3.profile[user].displayname, user_id=user)
        except HomeserverRefused as error:
            # 403: the homeserver does not know the user, whom MAS will make there in a moment.
            if error.status == 404 or (error.status == 403 and error.errcode != "M_EXCLUSIVE"):
                return None
            raise
        name = mapping(answer).get("displayname")
        return name if isinstance(name, str) else None

    async def _pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[list[Content]]:
        after: dict[str, str] = {}
        while True:
            given = {**query, "page[first]": str(PAGE), "count": "false", **after}
            page = mapping(await self._mas.get(path, given))
            items = _items(page)
            yield items
            # A page can be smaller than what was asked for: that there is another one is said by its link.
            if not items or mapping(page.get("links")).get("next") is None:
                return
            after = {"page[after]": _cursor(items[-1])}

    def _accounts(self, items: Sequence[Content]) -> list[Account]:
        users = [self._user(item) for item in items]
        return [user.account for user in users if not user.guest]

    def _user(self, item: Content) -> _User:
        attributes = mapping(item.get("attributes"))
        name, user_id = str(attributes.get("username")), str(item.get("id"))
        self._names[user_id] = name
        self._ids[name] = user_id
        account = Account(
            name,
            locked=attributes.get("locked_at") is not None,
            deactivated=attributes.get("deactivated_at") is not None,
            admin=attributes.get("admin") is True,
        )
        return _User(user_id, account, attributes.get("legacy_guest") is True)


class MasWriter:
    """Changes accounts that exist. Implements ports.AccountWriter. None of its requests can make one."""

    def __init__(self, mas: MasTransport, transport: Transport, server_name: str) -> None:
        """`transport`: to the homeserver, for display names."""
        self._mas = mas
        self._transport = transport
        self._server_name = server_name
        self._reader = MasAccounts(mas, transport, server_name)

    async def set_display_name(self, localpart: str, display_name: str) -> None:
        """`PUT /profile/{mxid}/displayname`, acting as the user. With MAS acting makes no account: the
        homeserver refuses it."""
        account = await self._reader.details(Account(localpart), {Attribute.DISPLAY_NAME})
        if account is not None and account.display_name == display_name:
            return
        user = self._mxid(localpart)
        path = Path.v3.profile[user].displayname
        try:
            await self._transport.put(path, {"displayname": display_name}, user_id=user)
        except HomeserverRefused as error:
            if error.status == 403 and error.errcode != "M_EXCLUSIVE":
                raise self._nobody(localpart) from error
            raise

    async def set_emails(self, localpart: str, emails: Sequence[str]) -> None:
        """These and no other addresses. First it is made sure that none of them is somebody else's; new ones
        are added before others go, so that nobody is ever without."""
        user = await self._existing(localpart)
        wanted = {same_address(address): address for address in emails}
        have = await self._reader.emails_of(user.id)
        known = {same_address(email.address) for email in have}
        added = [wanted[key] for key in sorted(wanted.keys() - known)]
        for address in added:
            await self._refuse_taken(localpart, address)
        for address in added:
            await self._add(localpart, user.id, address)
        for email in have:
            if same_address(email.address) not in wanted:
                await self._remove(email)

    async def _refuse_taken(self, localpart: str, address: str) -> bool:
        """True if nobody has it, False if they have it themselves."""
        owner = await self._reader.owner(address)
        if owner is not None and owner != localpart:
            message, remedy = taken(address, self._mxid(owner), self._mxid(localpart))
            raise HomeserverRefused(message, remedy, status=409, errcode="M_THREEPID_IN_USE")
        return owner is None

    async def _add(self, localpart: str, user_id: str, address: str) -> None:
        try:
            await self._mas.post(_EMAILS, {"user_id": user_id, "email": address})
        except HomeserverRefused as error:
            # Somebody was faster, or our own first try did it and its answer was lost.
            if error.status != 409 or await self._refuse_taken(localpart, address):
                raise

    async def _remove(self, email: _Email) -> None:
        try:
            await self._mas.delete(f"{_EMAILS}/{email.id}")
        except HomeserverRefused as error:
            if error.errcode != "M_NOT_FOUND":
                raise

    async def lock(self, localpart: str) -> None:
        user = await self._existing(localpart)
        if not user.account.locked:
            await self._mas.post(f"{_USERS}/{user.id}/lock")

    async def unlock(self, localpart: str) -> None:
        user = await self._existing(localpart)
        if user.account.locked:
            await self._mas.post(f"{_USERS}/{user.id}/unlock")

    async def erase(self, localpart: str) -> None:
        """`POST users/{id}/deactivate`, which has the homeserver erase the user unless told to skip that.

        Asked for again of who is deactivated: nothing tells whether they were erased then.
        """
        user = await self._existing(localpart)
        await self._mas.post(f"{_USERS}/{user.id}/deactivate", {"skip_erase": False})

    async def _existing(self, localpart: str) -> _User:
        user = await self._reader.user(localpart)
        if user is None:
            raise self._nobody(localpart)
        return user

    def _nobody(self, localpart: str) -> HomeserverRefused:
        message, remedy = nobody(self._mxid(localpart))
        return HomeserverRefused(message, remedy, status=404, errcode="M_NOT_FOUND")

    def _mxid(self, localpart: str) -> str:
        return mxid.make(localpart, self._server_name)


def _items(page: Content) -> list[Content]:
    data = page.get("data")
    return [mapping(item) for item in data] if isinstance(data, list) else []


def _cursor(item: Content) -> str:
    """Where the next page goes on. Older versions don't say it: then it is the id."""
    cursor = mapping(mapping(item.get("meta")).get("page")).get("cursor")
    return cursor if isinstance(cursor, str) else str(item.get("id"))


def _email(item: Content) -> _Email:
    attributes = mapping(item.get("attributes"))
    return _Email(str(item.get("id")), str(attributes.get("user_id")), str(attributes.get("email")))
