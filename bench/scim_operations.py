"""What SCIM servers are asked in the benchmark: a directory is filled over HTTP, and requests are made on it.

Of each server, a `Directory` knows what it has stored there. Requests are whole: bytes for the wire. Nothing
that a server could keep between two requests helps it: each is about somebody else.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from bench.scim_client import Answer, Connection, Limits, Run, drive
from bench.scim_servers import HOST, PREFIX, TOKEN, Server, Which, processor

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


class Operation(StrEnum):
    """What is measured; the value is how tables name it."""

    CREATE = "POST user"
    GET = "GET user by id"
    FILTER = "filter by userName"
    PATCH_ACTIVE = "PATCH active"
    ADD_MEMBER = "add one member to the group"
    GET_WITHOUT = "GET the group without members"
    GET_WITH = "GET the group with members"


def request(which: Which, method: str, path: str, body: object = None) -> bytes:
    """A request for that server; `path` begins with /Users or /Groups, and is encoded."""
    content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"{method} {PREFIX[which]}{path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Accept: application/scim+json\r\n"
    )
    if body is not None:
        head += f"Content-Type: application/scim+json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


def user(number: int) -> Mapping[str, object]:
    """As an identity provider sends a new user."""
    name = f"person{number:06}"
    return {
        "schemas": [USER, ENTERPRISE],
        "userName": f"{name}@example.com",
        "externalId": f"00u{number:017}",
        "active": True,
        "displayName": f"Person Number {number}",
        "name": {"givenName": "Person", "familyName": f"Number {number}", "formatted": f"Person {number}"},
        "emails": [{"primary": True, "type": "work", "value": f"{name}@example.com"}],
        "title": "Engineer",
        "preferredLanguage": "en-GB",
        ENTERPRISE: {"employeeNumber": str(number), "department": f"Department {number % 97}"},
    }


def _patch(op: str, path: str, value: object = None) -> Mapping[str, object]:
    operation = {"op": op, "path": path} | ({} if value is None else {"value": value})
    return {"schemas": [PATCH], "Operations": [operation]}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the directory is."""

    users: int
    members: int
    """Of the one group."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One operation, asked for again and again."""

    run: Run
    processor: float
    """Seconds that the server's process computed meanwhile; Postgres is not that process."""


class Directory:
    """What is stored on one server, as long as only this object writes there."""

    def __init__(self, server: Server, connections: Sequence[Connection], sizes: Sizes) -> None:
        self._server = server
        self._connections = connections
        self._sizes = sizes
        self._ids: list[str] = []
        self._active = [True] * sizes.users
        self._group = ""
        self._numbers = itertools.count(sizes.users)
        # Steps that lead to everybody before anybody again.
        self._anybody = itertools.cycle(number * 7919 % sizes.users for number in range(sizes.users))
        self._outsiders = itertools.cycle(range(sizes.members, sizes.users))
        self._added: list[str] = []

    async def fill(self) -> None:
        """Stores everybody, and the group. RuntimeError if the server refuses."""
        bodies = (self._ask("POST", "/Users", user(number)) for number in range(self._sizes.users))
        run = await drive(self._connections, bodies, _exactly(self._sizes.users), keep=True)
        made = {answer["userName"]: answer["id"] for answer in map(Answer.json, run.answers)}
        self._ids = [made[f"person{number:06}@example.com"] for number in range(self._sizes.users)]
        members = [{"value": id_} for id_ in self._ids[: self._sizes.members]]
        group = {"schemas": [GROUP], "displayName": "Everyone", "members": members}
        self._group = (await self._one("POST", "/Groups", group)).json()["id"]

    async def measure(self, operation: Operation, limits: Limits) -> Asked:
        """Asks for that operation again and again, checks what is answered, and has everything be again as it
        was. RuntimeError if an answer is wrong."""
        is_kept = operation is Operation.CREATE
        if operation is Operation.ADD_MEMBER:
            most = min(limits.at_most, self._sizes.users - self._sizes.members)
            limits = Limits(limits.seconds, min(limits.at_least, most), most)
        before = processor(self._server.pid)
        run = await drive(self._connections, self._requests(operation), limits, keep=is_kept)
        computed = processor(self._server.pid) - before
        await self._check(operation, run)
        return Asked(run, computed)

    def _requests(self, operation: Operation) -> Iterator[bytes]:
        make: Callable[[], bytes] = {
            Operation.CREATE: lambda: self._ask("POST", "/Users", user(next(self._numbers))),
            Operation.GET: lambda: self._ask("GET", f"/Users/{self._ids[next(self._anybody)]}"),
            Operation.FILTER: self._filter,
            Operation.PATCH_ACTIVE: self._patch_active,
            Operation.ADD_MEMBER: self._add_member,
            Operation.GET_WITHOUT: lambda: self._ask(
                "GET", f"/Groups/{self._group}?excludedAttributes=members"
            ),
            Operation.GET_WITH: lambda: self._ask("GET", f"/Groups/{self._group}"),
        }[operation]
        while True:
            yield make()

    def _filter(self) -> bytes:
        filter_ = quote(f'userName eq "person{next(self._anybody):06}@example.com"')
        return self._ask("GET", f"/Users?filter={filter_}")

    def _patch_active(self) -> bytes:
        number = next(self._anybody)
        self._active[number] = not self._active[number]
        patch = _patch("replace", "active", self._active[number])
        return self._ask("PATCH", f"/Users/{self._ids[number]}", patch)

    def _add_member(self) -> bytes:
        self._added.append(self._ids[next(self._outsiders)])
        patch = _patch("add", "members", [{"value": self._added[-1]}])
        return self._ask("PATCH", f"/Groups/{self._group}", patch)

    # -- what came of it -------------------------------------------------------------------------------------

    async def _check(self, operation: Operation, run: Run) -> None:
        match operation:
            case Operation.CREATE:
                made = [answer.json()["id"] for answer in run.answers]
                _require(len(set(made)) == len(run.seconds), "not everybody was made")
                requests = (self._ask("DELETE", f"/Users/{id_}") for id_ in made)
                await drive(self._connections, requests, _exactly(len(made)))
            case Operation.GET:
                _require(run.answers[-1].json()["userName"].startswith("person"), "somebody else was shown")
            case Operation.FILTER:
                _require(run.answers[-1].json()["totalResults"] == 1, "not one was found")
            case Operation.PATCH_ACTIVE:
                last = run.answers[-1]
                _require(last.status == 204 or "active" in last.json(), "not the user was answered")
            case Operation.ADD_MEMBER:
                await self._check_added()
            case Operation.GET_WITHOUT:
                _require("members" not in run.answers[-1].json(), "members were shown")
            case Operation.GET_WITH:
                found = len(run.answers[-1].json()["members"])
                _require(found == self._sizes.members, f"{found} members were shown")

    async def _check_added(self) -> None:
        """All were added; then they are removed again, at once."""
        shown = (await self._one("GET", f"/Groups/{self._group}")).json()["members"]
        _require(len(shown) == self._sizes.members + len(self._added), "not everybody was added")
        chosen = " or ".join(f'value eq "{id_}"' for id_ in self._added)
        await self._one("PATCH", f"/Groups/{self._group}", _patch("remove", f"members[{chosen}]"))
        self._added.clear()

    async def _one(self, method: str, path: str, body: object = None) -> Answer:
        asked = iter([self._ask(method, path, body)])
        return (await drive(self._connections[:1], asked, _exactly(1))).answers[0]

    def _ask(self, method: str, path: str, body: object = None) -> bytes:
        return request(self._server.which, method, path, body)


def _exactly(count: int) -> Limits:
    return Limits(0.0, count, count)


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise RuntimeError(f"{otherwise}: the figures would be worth nothing")
