"""Synapse's accounts in memory, for more of them than a real one could be given in reasonable time.

In: who has an account. Out: what Synapse's admin API tells of accounts, and their profiles, as
`aim/matrix/synapse.py` and `aim/matrix/mas.py` ask for them; each request is counted by what it is for. Reads
only: where nothing changed nobody has anything to write. What should never be asked is refused as Synapse
refuses it, and kept in `faults`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

from bench.organisation import SERVER

Json = dict[str, Any]
AS_TOKEN, ACTOR_TOKEN = "as-token", "actor-token"
_SINCE = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account."""

    localpart: str
    display_name: str
    email: str

    @property
    def mxid(self) -> str:
        return f"@{self.localpart}:{SERVER}"


class AccountStandIn:
    """`async with AccountStandIn(people) as homeserver:` answers at `homeserver.url`."""

    def __init__(self, people: Iterable[Person], *, mas: bool = False) -> None:
        """`people`: the oldest account first. `mas`: it has no admin API of accounts, as MAS keeps them."""
        self._users = {person.mxid: _user(person, number) for number, person in enumerate(people)}
        self._by_name = sorted(self._users.values(), key=lambda user: str(user["name"]))
        self._newest = list(self._users.values())[::-1]
        self._emails = {user["threepids"][0]["address"]: name for name, user in self._users.items()}
        self._mas = mas
        self._runner: web.AppRunner | None = None
        self.asked: Counter[str] = Counter()
        """What for → how often."""
        self.faults: list[str] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _handle(self, incoming: web.Request) -> web.Response:
        token = incoming.headers.get("Authorization", "").removeprefix("Bearer ")
        acting = incoming.query.get("user_id")
        if token != (AS_TOKEN if acting is None else ACTOR_TOKEN):
            return self._fault(incoming, 401, "M_UNKNOWN_TOKEN")
        words = [unquote(word) for word in incoming.raw_path.partition("?")[0].split("/")[1:]]
        match incoming.method, words:
            case "GET", ["_synapse", "admin", *rest] if not self._mas:
                return self._administer(incoming, rest)
            case "GET", ["_matrix", "client", "v3", "profile", user, "displayname"] if user == acting:
                return self._display_name(user)
        return self._fault(incoming, 404, "M_UNRECOGNIZED")

    def _administer(self, incoming: web.Request, words: list[str]) -> web.Response:
        match words:
            case ["v3", "users"]:
                kind, page = self._page(incoming.query)
                self.asked[kind] += 1
                return web.json_response(page)
            case ["v2", "users", user]:
                self.asked["account"] += 1
                return _found(self._users.get(user))
            case ["v1", "threepid", "email", "users", address]:
                self.asked["whose address"] += 1
                owner = self._emails.get(address)
                return _found(None if owner is None else {"user_id": owner})
        return self._fault(incoming, 404, "M_UNRECOGNIZED")

    def _page(self, query: Mapping[str, str]) -> tuple[str, Json]:
        """What the list is asked for, and a page of it. There are neither guests nor locked accounts, and
        nobody was deactivated."""
        kind, users = "page of accounts", self._by_name
        if query.get("deactivated") == "true":
            kind, users = "page of deactivated accounts", []
        elif query.get("order_by") == "creation_ts" and query.get("dir") == "b":
            kind, users = "page of new accounts", self._newest
        start = int(query.get("from", "0"))
        end = start + int(query["limit"])
        page: Json = {"users": [_listed(user) for user in users[start:end]], "total": len(users)}
        return kind, page | ({"next_token": str(end)} if end < len(users) else {})

    def _display_name(self, user: str) -> web.Response:
        self.asked["display name"] += 1
        found = self._users.get(user)
        return _found(None if found is None else {"displayname": found["displayname"]})

    def _fault(self, incoming: web.Request, status: int, errcode: str) -> web.Response:
        self.faults.append(f"{incoming.method} {incoming.path_qs}")
        return web.json_response({"errcode": errcode, "error": "not to be asked"}, status=status)


def _user(person: Person, number: int) -> Json:
    """An account as `GET /_synapse/admin/v2/users/{mxid}` shows it."""
    at = 1000 * (_SINCE + number)
    return {
        "name": person.mxid,
        "displayname": person.display_name,
        "threepids": [{"medium": "email", "address": person.email, "added_at": at, "validated_at": at}],
        "avatar_url": None,
        "is_guest": 0,
        "admin": False,
        "deactivated": False,
        "erased": False,
        "locked": False,
        "shadow_banned": False,
        "creation_ts": at // 1000,
        "user_type": None,
        "external_ids": [],
    }


def _listed(user: Json) -> Json:
    """The same as the list shows it."""
    return {key: value for key, value in user.items() if key not in {"threepids", "external_ids"}}


def _found(content: Json | None) -> web.Response:
    if content is None:
        return web.json_response({"errcode": "M_NOT_FOUND", "error": "Not found"}, status=404)
    return web.json_response(content)
