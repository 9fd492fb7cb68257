"""A stand-in for the Matrix Authentication Service (MAS): its token endpoint, introspection (RFC 7662) and
those parts of its admin API that we use, over HTTP on loopback.

It keeps state, refuses as MAS does, and takes nothing on trust: each request is checked against the
description of the API (`mas_admin_api.json`: method, path, parameters, body), and so are its own answers.
What deviates is answered 400 and fails the test in which it happened.

mas.add("ann", "ann@example.test")
…
assert mas.emails("ann") == ["ann@example.test"]
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, unquote_plus

import jsonschema  # type: ignore[import-untyped]
import pytest
from aiohttp import web

from aim.matrix.mas_transport import SCOPE, Credentials

Json = dict[str, Any]

_API = "/api/admin/v1"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_WHEN = "2030-01-01T00:00:00Z"


class Deviation(Exception):
    """A request, or an answer, that is not as the description of the API has it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    path: str
    """As described, with its `{parameters}`."""
    content: Mapping[str, Any]
    arguments: Mapping[str, str]


class Description:
    """The admin API as described (OpenAPI 3.1): what may be asked, and how."""

    def __init__(self, path: Path) -> None:
        content: Json = json.loads(path.read_text())
        self._components = content["components"]
        self._paths: dict[str, Json] = content["paths"]

    def operation(self, method: str, path: str) -> Operation:
        """By the path as it was sent, percent-encoded. Literal ones come before those with parameters. Raises
        Deviation."""
        for template in sorted(self._paths, key=lambda known: known.count("{")):
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template))
            found = re.fullmatch(pattern, path)
            if found:
                content = self._paths[template].get(method.lower())
                if content is None:
                    raise Deviation(f"{method} {template} is not described")
                arguments = {name: unquote(value) for name, value in found.groupdict().items()}
                return Operation(template, content, arguments)
        raise Deviation(f"{path} is not described")

    def check_request(
        self, operation: Operation, query: Sequence[tuple[str, str]], kind: str, body: bytes
    ) -> object:
        """The decoded body. Raises Deviation."""
        given = [("path", *item) for item in operation.arguments.items()]
        given += [("query", *item) for item in query]
        described = {(each["in"], each["name"]): each for each in operation.content.get("parameters", [])}
        for place, name, value in given:
            parameter = described.get((place, name))
            if parameter is None:
                raise Deviation(f"{operation.path}: no parameter {name} in the {place}")
            self._check(_typed(value, parameter["schema"]), parameter["schema"], f"parameter {name}")
        names = [(place, name) for place, name, _ in given]
        if len(set(names)) < len(names):
            raise Deviation(f"{operation.path}: a parameter comes twice")
        missing = {key for key, each in described.items() if each.get("required")} - set(names)
        if missing:
            raise Deviation(f"{operation.path}: {missing} missing")
        return self._check_body(operation, kind, body)

    def _check_body(self, operation: Operation, kind: str, body: bytes) -> object:
        described = operation.content.get("requestBody")
        if described is None:
            if body:
                raise Deviation(f"{operation.path}: takes no body")
            return None
        if not body:
            if described.get("required"):
                raise Deviation(f"{operation.path}: body missing")
            return None
        if kind not in described["content"]:
            raise Deviation(f"{operation.path}: takes no {kind}")
        schema = described["content"][kind]["schema"]
        content = json.loads(body)
        self._check(content, schema, "body")
        properties = self._components["schemas"][schema["$ref"].rsplit("/", 1)[1]]["properties"]
        unknown = set(content) - set(properties)
        if unknown:
            raise Deviation(f"{operation.path}: the body holds {unknown}")
        return content

    def check_answer(self, operation: Operation, status: int, content: object) -> None:
        """Raises Deviation for what MAS would not answer."""
        described = operation.content["responses"].get(str(status))
        if described is None:
            raise Deviation(f"{operation.path} is never answered {status}")
        if "content" in described:
            self._check(content, described["content"]["application/json"]["schema"], "answer")

    def _check(self, value: object, schema: Mapping[str, Any], what: str) -> None:
        whole = {**schema, "components": self._components}
        try:
            jsonschema.Draft202012Validator(whole).validate(value)
        except jsonschema.ValidationError as error:
            raise Deviation(f"{what}: {error.message}") from error


def _typed(value: str, schema: Mapping[str, Any]) -> object:
    """A parameter's text as the type that it should have; unchanged if it can't be that."""
    if schema.get("type") == "integer" and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    if schema.get("type") == "boolean" and value in {"true", "false"}:
        return value == "true"
    return value


_DESCRIPTION = Description(Path(__file__).with_name("mas_admin_api.json"))


@dataclass(slots=True)
class MasUser:
    id: str
    username: str
    admin: bool = False
    guest: bool = False
    locked: bool = False
    deactivated: bool = False
    erased: bool = False
    """Whether the homeserver was told to erase it."""


@dataclass(frozen=True, slots=True)
class MasEmail:
    id: str
    user_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    query: Mapping[str, str]
    status: int

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


class _Answer(Exception):
    """Ends the handling of a request with an error in MAS's shape."""

    def __init__(self, status: int, *titles: str) -> None:
        super().__init__(titles)
        self.status = status
        self.content = {"errors": [{"title": title} for title in titles]}


class Mas:
    """The stand-in. `page_size` is the most that it gives in one page, whatever is asked for."""

    def __init__(self) -> None:
        self.client_id = "01HCLIENT"
        self.client_secret = "s/cret:" + secrets.token_hex(8)
        self.in_form = False
        """Whether its client has to give the secret in the form."""
        self.is_admin_client = True
        self.may_introspect = True
        """Whether its client may ask what a token may do."""
        self.scopes: dict[str, str] = {}
        """Somebody's token → its scope."""
        self.token_life = 300
        self.page_size = 3
        self.asked: list[Asked] = []
        self.deviations: list[str] = []
        self.refuses: set[str] = set()
        """Localparts whose accounts it refuses to lock."""
        self.reserved: set[str] = set()
        """Localparts of accounts on the homeserver that it does not know."""
        self._users: dict[str, MasUser] = {}
        self._emails: dict[str, MasEmail] = {}
        self._tokens: set[str] = set()
        self._number = 0
        self._runner: web.AppRunner | None = None
        self.url = ""

    # For tests

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.url, self.client_id, self.client_secret)

    @property
    def writes(self) -> list[Asked]:
        return [each for each in self.asked if each.is_write and not each.path.startswith("/oauth2/")]

    @property
    def grants(self) -> int:
        """How many tokens were asked for."""
        return sum(each.path == "/oauth2/token" for each in self.asked)

    def add(self, username: str, *emails: str, **is_: bool) -> MasUser:
        """A user, with these addresses. `is_`: admin, guest, locked, deactivated."""
        user = MasUser(self._ulid(), username, **is_)
        self._users[user.id] = user
        for address in emails:
            self._add_email(user.id, address)
        return user

    def user(self, username: str) -> MasUser:
        return next(user for user in self._users.values() if user.username == username)

    def emails(self, username: str) -> list[str]:
        owner = self.user(username).id
        return sorted(email.address for email in self._emails.values() if email.user_id == owner)

    def usernames(self) -> set[str]:
        return {user.username for user in self._users.values()}

    def expire_tokens(self) -> None:
        """No token that was given is good any more."""
        self._tokens.clear()

    def forget(self) -> None:
        """Starts counting anew."""
        self.asked.clear()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    # What it does

    def _ulid(self) -> str:
        """The next one: they grow."""
        self._number += 1
        number, text = self._number, ""
        for _ in range(26):
            number, digit = divmod(number, 32)
            text = _ALPHABET[digit] + text
        return text

    async def _handle(self, request: web.Request) -> web.Response:
        if request.path == "/oauth2/token":
            response = await self._grant(request)
        elif request.path == "/oauth2/introspect":
            response = await self._introspect(request)
        else:
            response = await self._administer(request)
        self.asked.append(Asked(request.method, request.path, dict(request.query), response.status))
        return response

    async def _grant(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        if request.method != "POST" or form.get("grant_type") != "client_credentials":
            return self._deviates("a token is asked for in another way")
        if form.get("scope") != SCOPE or not self.is_admin_client:
            words = "The requested scope is not granted by the policy"
            return web.json_response({"error": "access_denied", "error_description": words}, status=403)
        token = "mat_" + secrets.token_hex(8)
        self._tokens.add(token)
        answer = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.token_life,
            "scope": SCOPE,
        }
        return web.json_response(answer)

    def _is_client(self, request: web.Request, form: Mapping[str, str]) -> bool:
        """Whether it authenticates as our client, in the one way that this client is known for."""
        basic = request.headers.get("Authorization")
        if basic is not None:
            pair = base64.b64decode(basic.removeprefix("Basic ")).decode().split(":")
            given = [unquote_plus(part) for part in pair]
        else:
            given = [form.get("client_id", ""), form.get("client_secret", "")]
        return given == [self.client_id, self.client_secret] and (basic is None) == self.in_form

    async def _introspect(self, request: web.Request) -> web.Response:
        """RFC 7662, section 2: a form by POST with one `token`, perhaps a hint, from a client that says who
        it is; of a token that is not good nothing but that is told."""
        pairs = list((await request.post()).items())
        form = {key: str(value) for key, value in pairs}
        known = {"token", "token_type_hint", *(("client_id", "client_secret") if self.in_form else ())}
        if request.method != "POST" or request.content_type != "application/x-www-form-urlencoded":
            return self._deviates("introspection is asked for by a form, by POST")
        if request.query or len(form) < len(pairs):
            return self._deviates("introspection: what is asked is in the form, and once")
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        if set(form) - known or not form.get("token"):
            return self._deviates(f"introspection: {sorted(form)}")
        if form.get("token_type_hint", "access_token") not in {"access_token", "refresh_token"}:
            return self._deviates("introspection: no such type of token")
        if not self.may_introspect:
            return web.json_response({"error": "access_denied"}, status=403)
        scope = self.scopes.get(form["token"])
        if scope is None:
            return web.json_response({"active": False})
        return web.json_response({"active": True, "scope": scope, "token_type": "access_token"})

    async def _administer(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self._tokens:
            return _json(401, {"errors": [{"title": "The access token is unknown or has ended"}]})
        try:
            operation = _DESCRIPTION.operation(request.method, request.raw_path.partition("?")[0])
            body = _DESCRIPTION.check_request(
                operation, list(request.query.items()), request.content_type, await request.read()
            )
            status, content = self._done(operation, request, body)
            if status != 403:
                # A refusal that only this stand-in gives.
                _DESCRIPTION.check_answer(operation, status, content)
        except Deviation as deviation:
            return self._deviates(f"{request.method} {request.path_qs}: {deviation}")
        return _json(status, content)

    def _deviates(self, why: str) -> web.Response:
        self.deviations.append(why)
        return _json(400, {"errors": [{"title": why}]})

    def _done(self, operation: Operation, request: web.Request, body: object) -> tuple[int, Json | None]:
        handlers: Mapping[str, Callable[..., tuple[int, Json | None]]] = {
            f"GET {_API}/users": self._list_users,
            f"POST {_API}/users": self._post_user,
            f"GET {_API}/users/{{id}}": self._get_user,
            f"GET {_API}/users/by-username/{{username}}": self._get_by_username,
            f"POST {_API}/users/{{id}}/lock": self._lock,
            f"POST {_API}/users/{{id}}/unlock": self._unlock,
            f"POST {_API}/users/{{id}}/deactivate": self._deactivate,
            f"GET {_API}/user-emails": self._list_emails,
            f"POST {_API}/user-emails": self._post_email,
            f"DELETE {_API}/user-emails/{{id}}": self._delete_email,
        }
        handler = handlers[f"{request.method} {operation.path}"]
        try:
            return handler(request, operation.arguments, body)
        except _Answer as answer:
            return answer.status, answer.content

    def _known(self, user_id: str) -> MasUser:
        if user_id not in self._users:
            raise _Answer(404, f"User ID {user_id} not found")
        return self._users[user_id]

    def _list_users(self, request: web.Request, *_: object) -> tuple[int, Json]:
        status = request.query.get("filter[status]")
        users = [
            _user(user)
            for user in self._users.values()
            if status is None
            or (status == "deactivated" and user.deactivated)
            or (status == "locked" and (user.locked or user.deactivated))
            or (status == "active" and not user.locked and not user.deactivated)
        ]
        return 200, self._page(request, users)

    def _post_user(self, request: web.Request, _: object, body: Json) -> tuple[int, Json]:
        name = body["username"]
        if re.fullmatch(r"[a-z0-9._=/+-]+", name) is None:
            raise _Answer(400, "Username is not valid")
        if name in self.usernames():
            raise _Answer(409, "User already exists")
        if name in self.reserved:
            raise _Answer(409, "Username is reserved by the homeserver")
        return 201, _single(request, _user(self.add(name)))

    def _get_user(self, request: web.Request, arguments: Mapping[str, str], _: object) -> tuple[int, Json]:
        return 200, _single(request, _user(self._known(arguments["id"])))

    def _get_by_username(
        self, request: web.Request, arguments: Mapping[str, str], _: object
    ) -> tuple[int, Json]:
        name = arguments["username"]
        user = next((user for user in self._users.values() if user.username == name), None)
        if user is None:
            raise _Answer(404, f'User with username "{name}" not found')
        return 200, _single(request, _user(user))

    def _lock(self, request: web.Request, arguments: Mapping[str, str], _: object) -> tuple[int, Json]:
        user = self._known(arguments["id"])
        if user.username in self.refuses:
            raise _Answer(403, "Not this one")
        user.locked = True
        return 200, _single(request, _user(user))

    def _unlock(self, request: web.Request, arguments: Mapping[str, str], _: object) -> tuple[int, Json]:
        user = self._known(arguments["id"])
        user.locked = False
        return 200, _single(request, _user(user))

    def _deactivate(
        self, request: web.Request, arguments: Mapping[str, str], body: Json | None
    ) -> tuple[int, Json]:
        user = self._known(arguments["id"])
        user.deactivated = True
        user.erased = not (body or {}).get("skip_erase", False)
        self._emails = {key: email for key, email in self._emails.items() if email.user_id != user.id}
        return 200, _single(request, _user(user))

    def _list_emails(self, request: web.Request, *_: object) -> tuple[int, Json]:
        owner, address = request.query.get("filter[user]"), request.query.get("filter[email]")
        if owner is not None:
            self._known(owner)
        emails = [
            _email(email)
            for email in self._emails.values()
            if owner in {None, email.user_id}
            and (address is None or address.casefold() == email.address.casefold())
        ]
        return 200, self._page(request, emails)

    def _post_email(self, request: web.Request, _: object, body: Json) -> tuple[int, Json]:
        address = body["email"]
        if "@" not in address:
            raise _Answer(400, f'Email "{address}" is not valid', "Missing domain or user")
        self._known(body["user_id"])
        if any(address.casefold() == email.address.casefold() for email in self._emails.values()):
            raise _Answer(409, f'User email "{address}" already in use')
        return 201, _single(request, _email(self._add_email(body["user_id"], address)))

    def _delete_email(
        self, request: web.Request, arguments: Mapping[str, str], _: object
    ) -> tuple[int, Json | None]:
        if self._emails.pop(arguments["id"], None) is None:
            raise _Answer(404, f"User email ID {arguments['id']} not found")
        return 204, None

    def _add_email(self, user_id: str, address: str) -> MasEmail:
        email = MasEmail(self._ulid(), user_id, address)
        self._emails[email.id] = email
        return email

    def _page(self, request: web.Request, items: Sequence[Json]) -> Json:
        """A page of items, by cursor; `next` and `prev` are there only if there is more."""
        after, before = request.query.get("page[after]", ""), request.query.get("page[before]", "~")
        inside = [item for item in items if after < item["id"] < before]
        last = request.query.get("page[last]")
        size = min(self.page_size, int(last or request.query.get("page[first]", "10")))
        shown = inside[-size:] if last else inside[:size]
        links = {"self": request.path_qs, "first": request.path, "last": request.path}
        if shown and shown[-1] is not inside[-1]:
            links["next"] = f"{request.path}?page[after]={shown[-1]['id']}"
        if shown and shown[0] is not inside[0]:
            links["prev"] = f"{request.path}?page[before]={shown[0]['id']}"
        page: Json = {"data": [{**item, "meta": {"page": {"cursor": item["id"]}}} for item in shown]}
        if request.query.get("count") != "false":
            page["meta"] = {"count": len(items)}
        return {**page, "links": links}


def _json(status: int, content: Json | None) -> web.Response:
    return web.Response(status=status) if content is None else web.json_response(content, status=status)


def _single(request: web.Request, item: Json) -> Json:
    return {"data": item, "links": {"self": request.path_qs}}


def _user(user: MasUser) -> Json:
    attributes = {
        "username": user.username,
        "created_at": _WHEN,
        "locked_at": _WHEN if user.locked else None,
        "deactivated_at": _WHEN if user.deactivated else None,
        "admin": user.admin,
        "legacy_guest": user.guest,
    }
    return {
        "type": "user",
        "id": user.id,
        "attributes": attributes,
        "links": {"self": f"{_API}/users/{user.id}"},
    }


def _email(email: MasEmail) -> Json:
    attributes = {"created_at": _WHEN, "user_id": email.user_id, "email": email.address}
    return {
        "type": "user-email",
        "id": email.id,
        "attributes": attributes,
        "links": {"self": f"{_API}/user-emails/{email.id}"},
    }


class NewMas(Protocol):
    """What the fixture `new_mas` gives."""

    def __call__(self) -> Awaitable[Mas]: ...


@pytest.fixture
async def new_mas() -> AsyncIterator[NewMas]:
    """A function that starts stand-ins; they are stopped when the test ends, which fails if one was asked for
    something that the API does not have."""
    started: list[Mas] = []
    async with AsyncExitStack() as stack:

        async def start() -> Mas:
            mas = Mas()
            await mas.start()
            stack.push_async_callback(mas.stop)
            started.append(mas)
            return mas

        yield start
    assert [mas.deviations for mas in started if mas.deviations] == []
