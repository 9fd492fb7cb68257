"""Fixtures for a real Synapse.

`homeserver` is what most tests want: a homeserver with an appservice of its own, which has made no room yet.
It shares its Synapse with other tests (0 s); the accounts are common to them, so a test that wants somebody
*not* to have an account takes a localpart that no other test uses. `new_synapse` makes a
Synapse of one's own (2.3 s, of which 2 are imports: a prepared database would save nothing), to be stopped,
killed and started at will. `federation` gives two homeservers that federate with each other.

People act through the actor's token (`?user_id=`): nobody has to log in, and no rate limit applies.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import quote

import aiohttp
import pytest

from aim.demo.homeserver import DemoSynapse
from aim.errors import HomeserverRefused
from tests.servers.certificates import Certificate, Certificates

SERVER_NAME = "example.test"
ADMIN = "root"
TENANTS = 16
"""Appservices of a shared Synapse, one for each test that asks; when all are used up, another Synapse is
started. Each costs every event that anybody sends 0.2 ms: 200 would make invites half as fast."""
PAIRS = 20
"""The same for two Synapses that federate."""
_AT_ONCE = 16

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appservice:
    """One of ours, as the homeserver knows it: a listener, whose sender is the bot, and an actor."""

    id: str
    sender_localpart: str
    as_token: str
    hs_token: str
    actor_token: str
    port: int | None = None
    """Where on loopback the homeserver sends it transactions; None: nowhere."""

    @property
    def url(self) -> str | None:
        return f"http://127.0.0.1:{self.port}" if self.port else None


@dataclass(slots=True, kw_only=True)
class Homeserver:
    """A homeserver as one appservice sees it, with what a test needs to look and to stir.

    All methods raise HomeserverRefused when the homeserver says no.
    """

    server: DemoSynapse
    appservice: Appservice
    admin_token: str
    session: aiohttp.ClientSession = field(repr=False)

    @property
    def base_url(self) -> str:
        return self.server.base_url

    @property
    def server_name(self) -> str:
        return self.server.server_name

    @property
    def as_token(self) -> str:
        return self.appservice.as_token

    @property
    def hs_token(self) -> str:
        return self.appservice.hs_token

    @property
    def actor_token(self) -> str:
        return self.appservice.actor_token

    @property
    def bot(self) -> str:
        """The bot's MXID."""
        return self.mxid(self.appservice.sender_localpart)

    @property
    def admin(self) -> str:
        """The MXID of the server's admin, whose token is `admin_token`."""
        return self.mxid(ADMIN)

    def mxid(self, localpart: str) -> str:
        return f"@{localpart}:{self.server_name}"

    async def register(self, *localparts: str) -> None:
        """Makes accounts; those who have one keep it."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(localpart: str) -> None:
            body = {
                "type": "m.login.application_service",
                "username": localpart,
                "inhibit_login": True,
            }
            async with limit:
                try:
                    await self.request("POST", "/_matrix/client/v3/register", body, token=self.actor_token)
                except HomeserverRefused as error:
                    if error.errcode != "M_USER_IN_USE":
                        raise

        await asyncio.gather(*map(one, localparts))

    def client(self, localpart: str) -> Person:
        """Somebody with an account, at their Matrix client."""
        return Person(self, self.mxid(localpart), self.actor_token)

    def bot_client(self) -> Person:
        """The bot, doing things by itself that `aim` would not."""
        # The actor can't act as the bot before the bot has an account; the listener's own token can.
        return Person(self, self.bot, self.as_token)

    async def rooms(self) -> list[Json]:
        """All rooms that the bot made, sorted by name, as the admin API describes rooms."""
        rooms: list[Json] = []
        start: int | None = 0
        while start is not None:
            page = await self.as_admin("GET", f"/_synapse/admin/v1/rooms?limit=500&from={start}")
            rooms += [room for room in page["rooms"] if room["creator"] == self.bot]
            start = page.get("next_batch")
        return rooms

    async def state(self, room_id: str) -> list[Json]:
        """All state events of a room, as the admin sees them: nobody has to be in it."""
        answer = await self.as_admin("GET", f"/_synapse/admin/v1/rooms/{quote(room_id, safe='')}/state")
        return cast(list[Json], answer["state"])

    async def state_content(self, room_id: str, event_type: str, state_key: str = "") -> Json | None:
        """The content of one state event, or None if there is none."""
        for event in await self.state(room_id):
            if event["type"] == event_type and event["state_key"] == state_key:
                return cast(Json, event["content"])
        return None

    async def members(self, room_id: str, *memberships: str) -> set[str]:
        """The MXIDs of those whose membership is one of these; without any, who joined or is invited."""
        wanted = memberships or ("join", "invite")
        return {
            event["state_key"]
            for event in await self.state(room_id)
            if event["type"] == "m.room.member" and event["content"].get("membership") in wanted
        }

    async def as_admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Json:
        """A request of the server's admin; `path` is taken as it stands, with its query."""
        return await self.request(method, path, body, token=self.admin_token)

    async def attempt(self, method: str, path: str, body: Mapping[str, object]) -> tuple[int, Json]:
        """A request of nobody in particular; gives status and JSON of the answer, refused or not."""
        async with self.session.request(method, self.base_url + path, json=body) as response:
            return response.status, await response.json()

    async def request(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, token: str
    ) -> Json:
        """Any request; gives the JSON of the answer."""
        headers = {"Authorization": f"Bearer {token}"}
        url = self.base_url + path
        async with self.session.request(method, url, json=body, headers=headers) as response:
            answer: Json = await response.json()
        if response.status >= 400:
            raise HomeserverRefused(
                f"{method} {path}: {response.status} {answer.get('error')}",
                status=response.status,
                errcode=answer.get("errcode"),
            )
        return answer


@dataclass(frozen=True, slots=True)
class Person:
    """What a test makes people do: the Client-Server API's room methods, as that person."""

    homeserver: Homeserver
    mxid: str
    token: str = field(repr=False)

    async def join(self, room_id: str) -> None:
        await self._room("POST", room_id, "join", {})

    async def leave(self, room_id: str) -> None:
        await self._room("POST", room_id, "leave", {})

    async def invite(self, room_id: str, mxid: str) -> None:
        await self._room("POST", room_id, "invite", {"user_id": mxid})

    async def kick(self, room_id: str, mxid: str) -> None:
        await self._room("POST", room_id, "kick", {"user_id": mxid})

    async def ban(self, room_id: str, mxid: str) -> None:
        await self._room("POST", room_id, "ban", {"user_id": mxid})

    async def create_room(self, **body: object) -> str:
        """The id of a new room; `body` as `POST /createRoom` takes it."""
        return str((await self._request("POST", "/_matrix/client/v3/createRoom", body))["room_id"])

    async def get_state(self, room_id: str, event_type: str, state_key: str = "") -> Json:
        return await self._room("GET", room_id, f"state/{event_type}/{quote(state_key, safe='')}")

    async def put_state(
        self, room_id: str, event_type: str, content: Mapping[str, object], state_key: str = ""
    ) -> None:
        await self._room("PUT", room_id, f"state/{event_type}/{quote(state_key, safe='')}", content)

    async def set_power_levels(self, room_id: str, levels: Mapping[str, int]) -> None:
        """Sets these people's levels and leaves everything else as it is."""
        content = await self.get_state(room_id, "m.room.power_levels")
        content["users"] = {**content.get("users", {}), **levels}
        await self.put_state(room_id, "m.room.power_levels", content)

    async def joined_rooms(self) -> set[str]:
        return set((await self._request("GET", "/_matrix/client/v3/joined_rooms"))["joined_rooms"])

    async def _room(
        self, method: str, room_id: str, path: str, body: Mapping[str, object] | None = None
    ) -> Json:
        return await self._request(method, f"/_matrix/client/v3/rooms/{quote(room_id, safe='')}/{path}", body)

    async def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Json:
        path += f"?user_id={quote(self.mxid, safe='')}"
        return await self.homeserver.request(method, path, body, token=self.token)


def _quiet_port() -> int:
    """A port that is free, and stays so: below those that the system gives to outgoing connections, and of
    this process of the tests alone."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 16_000 + 2_000 * (worker % 8) + secrets.randbelow(2_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def make_appservice(
    name: str = "aim", sender_localpart: str = "aim", actor_token: str = "", port: int | None = None
) -> Appservice:
    """An appservice with new tokens; with an `actor_token` it acts through another one's actor."""
    return Appservice(
        id=name,
        sender_localpart=sender_localpart,
        as_token=secrets.token_hex(16),
        hs_token=secrets.token_hex(16),
        actor_token=actor_token or secrets.token_hex(16),
        port=port,
    )


def write_registrations(
    directory: Path, appservice: Appservice, server_name: str, url: str | None = None
) -> list[Path]:
    """Two files: the listener at `url` (None: nothing is pushed), and the actor."""
    everyone = {"regex": f"@.*:{re.escape(server_name)}", "exclusive": False}
    return [
        _write_registration(directory, appservice.id, url or appservice.url, appservice, []),
        _write_registration(directory, f"{appservice.id}-actor", None, appservice, [everyone]),
    ]


def _write_registration(
    directory: Path, name: str, url: str | None, appservice: Appservice, users: Sequence[Mapping[str, object]]
) -> Path:
    acts = bool(users)
    registration = {
        "id": name,
        "url": url,
        "as_token": appservice.actor_token if acts else appservice.as_token,
        "hs_token": secrets.token_hex(16) if acts else appservice.hs_token,
        "sender_localpart": f"{appservice.sender_localpart}-actor" if acts else appservice.sender_localpart,
        "namespaces": {"users": users, "aliases": [], "rooms": []},
        "rate_limited": False,
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(registration))
    return path


class NewSynapse(Protocol):
    """What the fixture `new_synapse` gives."""

    def __call__(
        self,
        *,
        appservice: Appservice | None = None,
        registrations: Sequence[Path] = (),
        server_name: str = SERVER_NAME,
        url: str | None = None,
    ) -> Awaitable[Homeserver]:
        """Starts a Synapse with nothing in it but the admin's account.

        `appservice` is who we are (default: a new one with the id `aim`); `registrations` are its files
        (default: two minimal ones, the listener's for `url`).
        """
        ...


@pytest.fixture(scope="session")
async def http_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The HTTP client of the tests themselves."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest.fixture
async def new_synapse(
    tmp_path_factory: pytest.TempPathFactory, http_session: aiohttp.ClientSession
) -> AsyncIterator[NewSynapse]:
    """A function that starts Synapses of one's own; they are stopped when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            appservice: Appservice | None = None,
            registrations: Sequence[Path] = (),
            server_name: str = SERVER_NAME,
            url: str | None = None,
        ) -> Homeserver:
            directory = tmp_path_factory.mktemp("synapse")
            appservice = appservice or make_appservice()
            files = registrations or write_registrations(directory, appservice, server_name, url)
            server = await stack.enter_async_context(DemoSynapse(directory / "data", server_name, files))
            return await _open(server, appservice, http_session)

        yield start


class SharedSynapses:
    """Hands out appservices that nobody has used yet, on Synapses that it starts as needed, one at a time."""

    def __init__(
        self, directories: pytest.TempPathFactory, session: aiohttp.ClientSession, *, pushing: bool = False
    ) -> None:
        """`pushing`: each appservice has a port of its own, to which its events are sent."""
        self._directories = directories
        self._session = session
        self._pushing = pushing
        self._server: DemoSynapse | None = None
        self._admin_token = ""
        self._unused: list[Appservice] = []

    async def take(self) -> Homeserver:
        if self._server is None or not self._unused:
            self._server = await self._start()
        return await _open(self._server, self._unused.pop(), self._session, self._admin_token)

    async def stop(self) -> None:
        if self._server:
            await self._server.stop()

    async def _start(self) -> DemoSynapse:
        await self.stop()
        directory = self._directories.mktemp("shared-synapse")
        names = [f"aim-{number}" for number in range(TENANTS)]
        self._unused = list(_tenants(names, pushing=self._pushing))
        server = DemoSynapse(directory / "data", SERVER_NAME, _register(directory, self._unused, SERVER_NAME))
        await server.start()
        self._admin_token = await server.register(ADMIN, secrets.token_hex(8), admin=True)
        return server


def _tenants(names: Sequence[str], *, pushing: bool) -> Iterator[Appservice]:
    """Appservices with these names, for one homeserver. One actor acts for all: it may act as anybody."""
    actor_token = secrets.token_hex(16)
    for name in names:
        yield make_appservice(name, name, actor_token, _quiet_port() if pushing else None)


def _register(directory: Path, appservices: Sequence[Appservice], server_name: str) -> list[Path]:
    """The registration files of those who share an actor: each one's listener, and the actor."""
    first, *others = appservices
    listeners = (_write_registration(directory, other.id, other.url, other, []) for other in others)
    return [*write_registrations(directory, first, server_name), *listeners]


class FederatingSynapse(DemoSynapse):
    """A Synapse that others on this machine reach, by TLS at the port that its server name has."""

    def __init__(
        self, directory: Path, federation_port: int, certificate: Certificate, ca: Path, files: Sequence[Path]
    ) -> None:
        """`certificate` is for `localhost`, `ca` is what this server trusts, `files` are registrations."""
        super().__init__(directory, f"localhost:{federation_port}", files)
        self._federation_port = federation_port
        self._certificate = certificate
        self._ca = ca

    def _config(self) -> dict[str, object]:
        config = super()._config()
        listener = {
            "port": self._federation_port,
            "type": "http",
            "tls": True,
            "bind_addresses": ["127.0.0.1"],
            "resources": [{"names": ["federation"], "compress": False}],
        }
        return config | {
            "listeners": [*cast(list[Json], config["listeners"]), listener],
            "tls_certificate_path": str(self._certificate.cert),
            "tls_private_key_path": str(self._certificate.key),
            "federation_custom_ca_list": [str(self._ca)],
            "federation_domain_whitelist": None,
            "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [],
            # A server that is away is given up soon, and tried again soon: Synapse takes minutes for both.
            "federation": {
                "client_timeout": 5_000,
                "max_short_retries": 1,
                "max_short_retry_delay": 100,
                "max_long_retries": 1,
                "max_long_retry_delay": 500,
                "destination_min_retry_interval": 500,
                "destination_max_retry_interval": 1_000,
            },
        }


Pair = tuple[Homeserver, Homeserver]


class FederatedSynapses:
    """Two Synapses, and for each that asks an appservice on both, of the same name, that nobody has used."""

    def __init__(
        self, directories: pytest.TempPathFactory, session: aiohttp.ClientSession, certificates: Certificates
    ) -> None:
        self._directories = directories
        self._session = session
        self._certificates = certificates
        self._servers: list[FederatingSynapse] = []
        self._unused: list[Pair] = []

    async def take(self) -> Pair:
        """Two homeservers that federate. Who stops one of them starts it again."""
        if not self._unused:
            await self.stop()
            both = await asyncio.gather(self._start(), self._start())
            self._unused = list(zip(*both, strict=True))
        return self._unused.pop(0)

    async def stop(self) -> None:
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop() for server in servers))

    async def _start(self) -> list[Homeserver]:
        directory = self._directories.mktemp("federating-synapse")
        port = _quiet_port()
        # The name that the specification's example has, and more like it.
        names = ["groupsync", *(f"groupsync-{number}" for number in range(1, PAIRS))]
        appservices = list(_tenants(names, pushing=True))
        files = _register(directory, appservices, f"localhost:{port}")
        certificate = self._certificates.server("localhost")
        server = FederatingSynapse(directory / "data", port, certificate, self._certificates.ca, files)
        self._servers.append(server)
        await server.start()
        token = await server.register(ADMIN, secrets.token_hex(8), admin=True)
        return [await _open(server, appservice, self._session, token) for appservice in appservices]


@pytest.fixture(scope="session")
async def shared_synapses(
    tmp_path_factory: pytest.TempPathFactory, http_session: aiohttp.ClientSession
) -> AsyncIterator[SharedSynapses]:
    """Where `homeserver` comes from."""
    shared = SharedSynapses(tmp_path_factory, http_session)
    yield shared
    await shared.stop()


@pytest.fixture(scope="session")
async def pushing_synapses(
    tmp_path_factory: pytest.TempPathFactory, http_session: aiohttp.ClientSession
) -> AsyncIterator[SharedSynapses]:
    """The same for appservices that are sent transactions."""
    shared = SharedSynapses(tmp_path_factory, http_session, pushing=True)
    yield shared
    await shared.stop()


@pytest.fixture(scope="session")
async def federated_synapses(
    tmp_path_factory: pytest.TempPathFactory,
    http_session: aiohttp.ClientSession,
    certificates: Certificates,
) -> AsyncIterator[FederatedSynapses]:
    """Where `federation` comes from: two Synapses, started when a test asks for the first time."""
    federated = FederatedSynapses(tmp_path_factory, http_session, certificates)
    yield federated
    await federated.stop()


@pytest.fixture
async def federation(federated_synapses: FederatedSynapses) -> Pair:
    """Two homeservers that federate, for appservices that nobody has used yet."""
    return await federated_synapses.take()


@pytest.fixture
async def homeserver(shared_synapses: SharedSynapses) -> Homeserver:
    """A shared Synapse, for an appservice that nobody has used yet. Not for stopping or killing."""
    return await shared_synapses.take()


async def _open(
    server: DemoSynapse, appservice: Appservice, session: aiohttp.ClientSession, admin_token: str = ""
) -> Homeserver:
    if not admin_token:
        admin_token = await server.register(ADMIN, secrets.token_hex(8), admin=True)
    return Homeserver(server=server, appservice=appservice, admin_token=admin_token, session=session)
