"""The wiring: from a configuration to the parts that do the work. Plain, and in one place.

Commands that read get an `Observer`, built from readers; those that write get a `Reconciler` while they hold
the writer's lock. Nothing else in the program knows all of its parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import SecretStr

from aim.bridges.ldif.bridge import LdifSource
from aim.config import sources
from aim.config.root import Config
from aim.directory.entries import Rules
from aim.errors import ConfigError
from aim.matrix import client
from aim.matrix.account_server import AccountServer, Attribute
from aim.matrix.book import Book, BookedWriter, Keeping
from aim.matrix.mas_transport import Credentials
from aim.matrix.registration import Tokens
from aim.notify.settings import MailSettings, settings_of
from aim.ports import (
    AccountReader,
    AccountStore,
    Announcer,
    HomeserverReader,
    RecordedReader,
    Recorder,
    Source,
)
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.reconciler import Observer, Reconciler, Senses, nobody
from aim.store import (
    DecisionStore,
    RecorderStore,
    open_accounts,
    open_decisions,
    open_graph,
    open_mirror,
    open_reader,
    open_scim,
    open_writer,
)
from aim.store.scim import PostgresScim

if TYPE_CHECKING:
    from aim.bridges.ldap.bridge import LdapSource
    from aim.bridges.msgraph.settings import Credential, GraphSettings
    from aim.bridges.msgraph.source import GraphSource
    from aim.bridges.msgraph.transport import Transport

Progress = Callable[[int, int], None]


def now() -> datetime:
    """The time, in UTC. The only clock of the program."""
    return datetime.now(UTC)


def source_of(config: Config) -> Source:
    """The bridge for a source that needs nothing opened. Raises ConfigError for another one."""
    source = config.source
    if isinstance(source, sources.LdifSource):
        return LdifSource(source.path, rules_of(source.attributes), source.name)
    if isinstance(source, sources.LdapSource):
        return ldap_source_of(source)
    raise ConfigError(
        f"source.type {source.type} is no tree of entries", "this is for `type: ldap` and `type: ldif`"
    )


@asynccontextmanager
async def opened_source(config: Config, *, records: bool = False) -> AsyncIterator[Source]:
    """The bridge, whatever has to be open for it. `records`, for the one writer alone: it may keep what it
    has read. Raises ConfigError, and StoreError for one that reads our own database."""
    if isinstance(config.source, sources.MsGraphSource):
        async with opened_graph(config, config.source, records=records, awaited=True) as (source, _):
            yield source
        return
    if not isinstance(config.source, sources.ScimSource):
        yield source_of(config)
        return
    # Only who is pushed to needs it.
    from aim.bridges.scim.source import ScimSource

    async with pushed(config, read_only=True) as store:
        yield ScimSource(store, config.source.client.id)


@asynccontextmanager
async def pushed(config: Config, *, read_only: bool = False) -> AsyncIterator[PostgresScim]:
    """What is pushed to us by SCIM. Raises StoreError, and ConfigError for another source."""
    if not isinstance(config.source, sources.ScimSource):
        raise ConfigError(f"source.type {config.source.type} is not pushed to us", "this is for `type: scim`")
    client = config.source.client.id
    async with open_scim(database_url(config), config.data_dir, client, read_only=read_only) as store:
        yield store


def unprotected(config: Config) -> list[str]:
    """Warnings, a line each: what anybody who listens on the network could learn when the source is read."""
    source = config.source
    if not isinstance(source, sources.LdapSource) or source.bind_password is None:
        return []
    return [
        f"source.bind_password goes to {uri} unencrypted; use an ldaps:// uri, or set source.start_tls"
        for uri in source.unencrypted
    ]


def ldap_source_of(source: sources.LdapSource) -> LdapSource:
    """The LDAP bridge. ldap3 is imported only where it is wanted."""
    from aim.bridges.ldap.bridge import LdapSource
    from aim.bridges.ldap.settings import ClientCertificate, LdapSettings

    cert = source.cert
    certificate = (
        ClientCertificate(
            file=cert.file, pem=_secret(cert.cert), key=_secret(cert.key), passphrase=_secret(cert.passphrase)
        )
        if cert
        else None
    )
    return LdapSource(
        LdapSettings(
            uris=source.uri,
            base=source.base,
            rules=rules_of(source.attributes),
            filter=source.filter,
            bind_dn=source.bind_dn,
            bind_password=_secret(source.bind_password),
            start_tls=source.start_tls,
            ca_cert=source.ca_cert,
            certificate=certificate,
            connect_timeout=source.connect_timeout.total_seconds(),
            read_timeout=source.read_timeout.total_seconds(),
        )
    )


@asynccontextmanager
async def opened_graph(
    config: Config, source: sources.MsGraphSource, *, records: bool, awaited: bool
) -> AsyncIterator[tuple[GraphSource, Transport]]:
    """The Graph bridge, and its way there; `records` as for `opened_source`. `awaited`: a person waits for
    what comes of it, so that failures are told soon. msal and httpx are imported only where they are wanted.
    Raises StoreError, and SourceInvalid for settings that can't be right."""
    from aim.bridges.msgraph.reading import key_of
    from aim.bridges.msgraph.source import GraphSource
    from aim.bridges.msgraph.throttle import AWAITED, Retries
    from aim.bridges.msgraph.transport import open_transport

    settings, url = graph_settings_of(source), database_url(config)
    async with (
        open_graph(url, config.data_dir, key_of(settings), read_only=not records) as stored,
        open_transport(settings, retries=AWAITED if awaited else Retries()) as graph,
    ):
        yield GraphSource(graph, settings, stored, stored if records else None, now), graph


def graph_settings_of(source: sources.MsGraphSource) -> GraphSettings:
    """What the Graph bridge needs to know."""
    from aim.bridges.msgraph.settings import GraphSettings

    return GraphSettings(
        tenant_id=source.tenant_id,
        client_id=source.client_id,
        credential=_graph_credential(source),
        authority=source.authority,
        base_url=source.base_url,
        scopes=source.scopes_in_force,
        ca_cert=source.ca_cert,
        connect_timeout=source.connect_timeout.total_seconds(),
        read_timeout=source.read_timeout.total_seconds(),
        filter=source.filter,
        groups=source.groups,
        transitive=source.transitive,
        include_guests=source.include_guests,
        localpart=source.attributes.uid,
        full_read_interval=source.full_read_interval,
    )


def _graph_credential(source: sources.MsGraphSource) -> Credential:
    from aim.bridges.msgraph.settings import (
        ClientCertificate,
        ClientSecret,
        ManagedIdentity,
        WorkloadIdentity,
    )

    if source.client_secret is not None:
        return ClientSecret(value=source.client_secret.get_secret_value())
    cert = source.client_certificate
    if cert is not None:
        return ClientCertificate(
            file=cert.file, pem=_secret(cert.cert), key=_secret(cert.key), passphrase=_secret(cert.passphrase)
        )
    if source.workload_identity is not None:
        return WorkloadIdentity(token_file=source.workload_identity)
    identity = source.managed_identity
    return ManagedIdentity(client_id=None if identity == "system" else identity)


def rules_of(attributes: sources.LdifAttributes) -> Rules:
    more = attributes if isinstance(attributes, sources.LdapAttributes) else None
    return Rules.of(
        uid=attributes.uid,
        name=attributes.name,
        mail=attributes.mail,
        id=attributes.id,
        enabled=more.enabled if more else None,
        avatar=more.avatar if more else None,
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def homeserver_of(config: Config) -> client.Homeserver:
    """The homeserver and our place on it."""
    appservice, homeserver = config.appservice, config.homeserver
    actor, mas = appservice.actor_token, homeserver.mas
    return client.Homeserver(
        url=homeserver.url,
        server_name=homeserver.server_name,
        bot=f"@{appservice.sender_localpart}:{homeserver.server_name}",
        instance=appservice.id,
        as_token=appservice.as_token.get_secret_value(),
        actor_token=actor.get_secret_value() if actor else None,
        admin_user=homeserver.admin_user,
        auth=homeserver.auth,
        mas=None
        if mas is None
        else Credentials(mas.url, mas.client_id, mas.client_secret.get_secret_value()),
        peers=frozenset(config.provisioner.federation.federates_with),
    )


def tokens_of(config: Config, url: str | None) -> Tokens:
    """What the registrations say."""
    appservice = config.appservice
    actor = appservice.actor_token
    return Tokens(
        id=appservice.id,
        sender_localpart=appservice.sender_localpart,
        server_name=config.homeserver.server_name,
        as_token=appservice.as_token.get_secret_value(),
        hs_token=appservice.hs_token.get_secret_value(),
        actor_token=actor.get_secret_value() if actor else None,
        url=url,
    )


def database_url(config: Config) -> str | None:
    """Where Postgres is; None for the embedded one."""
    url = config.database.url
    return url.get_secret_value() if url else None


@dataclass(frozen=True, slots=True)
class Sight:
    """What a command looks at the homeserver with."""

    homeserver: HomeserverReader
    accounts: AccountReader | None
    """None where the configuration asks for nothing of accounts."""


@asynccontextmanager
async def looking(
    config: Config, progress: Progress | None = None, *, fresh: bool = False
) -> AsyncIterator[Sight]:
    """How the homeserver is: by what a running daemon knows, if that is current and nothing `fresh` is
    wanted; else read anew. Raises StoreError."""
    connect = client.Connect(parallelism=config.provisioner.parallelism)
    url, folder = database_url(config), config.data_dir
    async with client.open_reader(homeserver_of(config), connect, progress) as homeserver:
        if fresh:
            yield Sight(homeserver.reader, book_of(config, homeserver.accounts, None, fresh=True))
            return
        async with open_mirror(url, folder) as store, open_accounts(url, folder) as accounts:
            live = store is not None and (await store.load()).facts.is_current is True
            yield Sight(
                homeserver.reader if store is None else homeserver.stored(store),
                book_of(config, homeserver.accounts, accounts, lists_anew=not live),
            )


def book_of(
    config: Config,
    server: AccountServer | None,
    store: AccountStore | None,
    *,
    fresh: bool = False,
    records: bool = False,
    lists_anew: bool = False,
) -> Book | None:
    """The book of accounts (matrix.book); None where the configuration asks for nothing of them."""
    wanted = config.user_provisioner
    if wanted is None or server is None:
        return None
    keeping = Keeping(
        attributes=frozenset(Attribute(name) for name in wanted.synced_attributes),
        verify_interval=config.provisioner.verify_interval,
        records=records,
        fresh=fresh,
        lists_anew=lists_anew,
        parallelism=config.provisioner.parallelism,
    )
    return Book(server, keeping, now=now, store=store)


@asynccontextmanager
async def observing(
    config: Config, progress: Progress | None = None, *, fresh: bool = False
) -> AsyncIterator[Observer]:
    """For commands that read: has no way to change anything."""
    async with (
        open_reader(database_url(config), config.data_dir) as recorded,
        looking(config, progress, fresh=fresh) as sight,
        opened_source(config) as source,
    ):
        yield Observer(_senses(config, source, sight, recorded))


def _senses(config: Config, source: Source, sight: Sight, recorded: RecordedReader) -> Senses:
    return Senses(config, source, sight.homeserver, recorded, now, accounts=sight.accounts)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the one writer works with."""

    store: RecorderStore
    homeserver: client.Writing
    book: Book | None
    """None where the configuration asks for nothing of accounts."""
    announcer: Announcer | None
    """None without a mailer."""
    posted: asyncio.Event
    """Set when a mail was queued."""
    provisioner: Callable[[Recorder, Callable[[str], Awaitable[None]]], Provisioner]
    """What carries plans out, and records by that recorder. The other one is told the localpart of each
    account that was made."""


@asynccontextmanager
async def writing(
    config: Config,
    name: str,
    progress: Progress | None = None,
    *,
    notice: Callable[[str], None] = lambda _: None,
    lists_anew: bool = True,
) -> AsyncIterator[Workshop]:
    """The one writer, called `name` to others. `lists_anew`: whether accounts are listed at each look.

    Raises StoreBusy if there is another writer.
    """
    connect = client.Connect(parallelism=config.provisioner.parallelism)
    async with (
        open_writer(database_url(config), config.data_dir, name=name) as store,
        client.open_writer(homeserver_of(config), connect, progress) as homeserver,
    ):
        book = book_of(config, homeserver.accounts, store.accounts, records=True, lists_anew=lists_anew)
        writer = homeserver.account_writer
        posted = asyncio.Event()
        announcer = _announcer(config, store, posted)

        def provisioner(recorder: Recorder, found_account: Callable[[str], Awaitable[None]]) -> Provisioner:
            tools = Tools(
                writer=homeserver.writer,
                recorder=recorder,
                now=now,
                server_name=config.homeserver.server_name,
                bot=homeserver_of(config).bot,
                instance=config.appservice.id,
                parallelism=config.provisioner.parallelism,
                settle=connect.read_timeout,
                accounts=BookedWriter(writer, book) if writer is not None and book is not None else None,
                known_accounts=book,
                registrar=homeserver.registrar if config.registers_users else None,
                found_account=found_account,
                announcer=announcer,
                notice=notice,
            )
            # The bot's account is made only when there is something to do: a declined plan writes nothing.
            return Provisioner(tools, prepare=homeserver.writer.ensure_bot)

        yield Workshop(store, homeserver, book, announcer, posted, provisioner)


def mail_settings(config: Config) -> MailSettings | None:
    """Who sends mail, and how; None without a mailer."""
    mailer = config.mail
    return None if mailer is None else settings_of(mailer, config.homeserver.server_name)


def _announcer(config: Config, store: RecorderStore, posted: asyncio.Event) -> Announcer | None:
    settings = mail_settings(config)
    if settings is None:
        return None
    # Templates take a while to import, and only who has a mailer needs them.
    from aim.notify.mailer import Mailer

    return Mailer(settings, store.letters, now, posted.set)


@asynccontextmanager
async def reconciling(
    config: Config,
    name: str,
    progress: Progress | None = None,
    *,
    notice: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Reconciler]:
    """For commands that write: the one writer, called `name` to others. Raises StoreBusy if there is one."""
    async with (
        writing(config, name, progress, notice=notice) as workshop,
        # After the writer, who migrates what it reads.
        opened_source(config, records=True) as source,
    ):
        sight = Sight(workshop.homeserver.reader, workshop.book)
        senses = _senses(config, source, sight, workshop.store)
        provisioner = workshop.provisioner(workshop.store, nobody)
        yield Reconciler(senses, workshop.store, provisioner, workshop.announcer)


@asynccontextmanager
async def deciding(
    config: Config, progress: Progress | None = None
) -> AsyncIterator[tuple[Observer, DecisionStore]]:
    """For what a person decides beside a running daemon: reads everything, writes decisions."""
    async with (
        open_decisions(database_url(config), config.data_dir) as decisions,
        looking(config, progress) as sight,
        opened_source(config) as source,
    ):
        yield Observer(_senses(config, source, sight, decisions)), decisions
