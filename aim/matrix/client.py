"""Opens the homeserver: for commands that read, and for those that write. What `app` wires.

In: where the homeserver is and who we are there. Out: a Reader, and only from `open_writer` a Writer too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from aim.directory.roster import Roster
from aim.matrix import mxid
from aim.matrix.account_server import AccountServer
from aim.matrix.accounts import Accounts
from aim.matrix.mas import MasAccounts, MasWriter
from aim.matrix.mas_transport import Credentials, MasReadTransport, MasTransport, open_mas
from aim.matrix.mirror import Hooks, Mirror, StoredMirror
from aim.matrix.observe import Reader
from aim.matrix.parallel import Progress
from aim.matrix.parse import Home
from aim.matrix.registering import MasRegistrar, SynapseRegistrar
from aim.matrix.retrying import Retries
from aim.matrix.synapse import SynapseAccounts, SynapseWriter
from aim.matrix.transport import PARALLELISM, READ_TIMEOUT, ReadTransport, Transport, open_transport
from aim.matrix.write import Writer
from aim.ports import AccountWriter, MirrorStore, Registrar


@dataclass(frozen=True, slots=True, kw_only=True)
class Homeserver:
    """The homeserver and our place on it, as configured."""

    url: str
    server_name: str
    bot: str
    """Our MXID: the listener's `sender_localpart` on `server_name`."""
    instance: str
    """`appservice.id`."""
    as_token: str = field(repr=False)
    actor_token: str | None = field(default=None, repr=False)
    """Acts as other users; without it the `as_token` does."""
    admin_user: str | None = None
    """Localpart or MXID of an admin to act as where the bot itself is none."""
    auth: Literal["synapse", "mas"] = "synapse"
    mas: Credentials | None = None
    """The Matrix Authentication Service's admin API; needed where it keeps the accounts and they are to
    follow the directory."""
    peers: frozenset[str] = frozenset()
    """MXIDs of the bots of other servers that we share spaces with."""

    @property
    def home(self) -> Home:
        return Home(self.server_name, self.bot, self.instance, self.peers)

    @property
    def admin(self) -> str | None:
        """MXID of `admin_user`."""
        if self.admin_user is None or self.admin_user.startswith("@"):
            return self.admin_user
        return mxid.make(self.admin_user, self.server_name)


@dataclass(frozen=True, slots=True)
class Connect:
    """How to talk to it."""

    parallelism: int = PARALLELISM
    read_timeout: float = READ_TIMEOUT
    retries: Retries = field(default_factory=Retries)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a command has that only reads."""

    reader: Reader
    stored: Callable[[MirrorStore], StoredMirror]
    """Reads the mirror that a running daemon keeps, instead of the homeserver."""
    accounts: AccountServer | None
    """Whoever keeps the accounts, for a Book; None with `auth: mas` and no `mas`."""


@dataclass(frozen=True, slots=True)
class Writing:
    """What a command has that writes."""

    reader: Reader
    writer: Writer
    mirror: Callable[[Roster, MirrorStore, Callable[[], datetime], Hooks], Mirror]
    """Makes a mirror of this homeserver; sends nothing by itself."""
    accounts: AccountServer | None
    """Whoever keeps the accounts, for a Book; None with `auth: mas` and no `mas`."""
    account_writer: AccountWriter | None
    """Changes accounts, for a BookedWriter; None as before."""
    registrar: Registrar | None
    """Makes accounts; None as before."""


@asynccontextmanager
async def open_reader(
    homeserver: Homeserver, connect: Connect | None = None, progress: Progress | None = None
) -> AsyncIterator[Reading]:
    """The homeserver for a command that changes nothing. Sends nothing yet. Raises ConfigError."""
    connect = connect or Connect()
    async with open_getter(homeserver, connect) as transport, _open_mas(homeserver, connect) as mas:
        server = _account_server(homeserver, transport, None if mas is None else mas.reading())
        reader = _reader(homeserver, transport, connect, progress, server)

        def stored(store: MirrorStore) -> StoredMirror:
            return StoredMirror(store, homeserver.home, transport, reader, homeserver.admin)

        yield Reading(reader, stored, server)


@asynccontextmanager
async def open_writer(
    homeserver: Homeserver, connect: Connect | None = None, progress: Progress | None = None
) -> AsyncIterator[Writing]:
    """The homeserver for a command that changes it. Sends nothing yet. Raises ConfigError."""
    connect = connect or Connect()
    async with _open(homeserver, connect) as transport, _open_mas(homeserver, connect) as mas:
        server = _account_server(homeserver, transport.reading(), None if mas is None else mas.reading())
        reader = _reader(homeserver, transport.reading(), connect, progress, server)

        def mirror(roster: Roster, store: MirrorStore, now: Callable[[], datetime], hooks: Hooks) -> Mirror:
            return Mirror(
                transport,
                homeserver.home,
                roster,
                store,
                accounts(homeserver, transport.reading(), connect.parallelism, server),
                now=now,
                hooks=hooks,
                parallelism=connect.parallelism,
            )

        yield Writing(
            reader,
            Writer(transport, homeserver.home),
            mirror,
            server,
            _account_writer(homeserver, transport, mas),
            _registrar(homeserver, transport, mas, server),
        )


@asynccontextmanager
async def open_getter(homeserver: Homeserver, connect: Connect | None = None) -> AsyncIterator[ReadTransport]:
    """Plain GET requests, for `check`. Raises ConfigError."""
    async with _open(homeserver, connect or Connect()) as transport:
        yield transport.reading()


def accounts(
    homeserver: Homeserver,
    transport: ReadTransport,
    parallelism: int = PARALLELISM,
    server: AccountServer | None = None,
) -> Accounts:
    """The way to the accounts of this homeserver; `server` is whoever keeps them, if that is at hand."""
    return Accounts(
        transport,
        homeserver.server_name,
        admin=homeserver.admin,
        admin_api=homeserver.auth == "synapse",
        mas=server if homeserver.auth == "mas" else None,
        parallelism=parallelism,
    )


@asynccontextmanager
async def open_accounts(
    homeserver: Homeserver, connect: Connect | None = None
) -> AsyncIterator[AccountServer | None]:
    """Whoever keeps the accounts, for `check`. Sends nothing yet. Raises ConfigError."""
    async with open_reader(homeserver, connect) as opened:
        yield opened.accounts


def _account_server(
    homeserver: Homeserver, transport: ReadTransport, mas: MasReadTransport | None
) -> AccountServer | None:
    if homeserver.auth == "synapse":
        return SynapseAccounts(transport, homeserver.server_name, admin=homeserver.admin)
    return None if mas is None else MasAccounts(mas, transport, homeserver.server_name)


def _account_writer(
    homeserver: Homeserver, transport: Transport, mas: MasTransport | None
) -> AccountWriter | None:
    if homeserver.auth == "synapse":
        return SynapseWriter(transport, homeserver.server_name, admin=homeserver.admin)
    return None if mas is None else MasWriter(mas, transport, homeserver.server_name)


def _registrar(
    homeserver: Homeserver, transport: Transport, mas: MasTransport | None, server: AccountServer | None
) -> Registrar | None:
    if server is None:
        return None
    if mas is not None:
        return MasRegistrar(mas, server)
    return SynapseRegistrar(transport, server, accounts(homeserver, transport.reading(), server=server))


@asynccontextmanager
async def _open_mas(homeserver: Homeserver, connect: Connect) -> AsyncIterator[MasTransport | None]:
    if homeserver.auth != "mas" or homeserver.mas is None:
        yield None
        return
    async with open_mas(
        homeserver.mas,
        parallelism=connect.parallelism,
        retries=connect.retries,
        read_timeout=connect.read_timeout,
    ) as mas:
        yield mas


@asynccontextmanager
async def _open(homeserver: Homeserver, connect: Connect) -> AsyncIterator[Transport]:
    async with open_transport(
        homeserver.url,
        homeserver.as_token,
        homeserver.actor_token,
        parallelism=connect.parallelism,
        retries=connect.retries,
        read_timeout=connect.read_timeout,
    ) as transport:
        yield transport


def _reader(
    homeserver: Homeserver,
    transport: ReadTransport,
    connect: Connect,
    progress: Progress | None,
    server: AccountServer | None,
) -> Reader:
    return Reader(
        transport,
        homeserver.home,
        accounts(homeserver, transport, connect.parallelism, server),
        admin=homeserver.admin,
        parallelism=connect.parallelism,
        progress=progress,
    )
