"""The wiring: from a configuration to the parts that do the work. Plain, and in one place.

Commands that read get an `Observer`, built from readers; those that write get a `Reconciler` while they hold
the writer's lock. Nothing else in the program knows all of its parts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydantic import SecretStr

from aim.bridges.ldif.bridge import LdifSource
from aim.bridges.ldif.writer import to_ldif
from aim.config import sources
from aim.config.root import Config
from aim.desired.rebind import rebind as settle_rebind
from aim.directory.entries import Rules
from aim.directory.model import Directory
from aim.directory.redact import in_use, redacted
from aim.directory.roster import Roster
from aim.errors import AimError, ConfigError, PlanError
from aim.matrix import client
from aim.matrix.registration import Tokens
from aim.planner import approval
from aim.planner.document import digest, read_saved
from aim.planner.explain import Explanation, Question, scope_of
from aim.planner.explain import explain as answer
from aim.planner.plan import make_plan
from aim.ports import HasEntries, HomeserverReader, Recorder, Source
from aim.provisioner.executor import Provisioner
from aim.provisioner.tools import Tools
from aim.reconciler import Observer, Reconciler, Senses
from aim.store import (
    DecisionStore,
    RecorderStore,
    open_audit,
    open_decisions,
    open_mirror,
    open_reader,
    open_writer,
)
from aim.world.recorded import Approval

if TYPE_CHECKING:
    from aim.bridges.ldap.bridge import LdapSource

Progress = Callable[[int, int], None]


def now() -> datetime:
    """The time, in UTC. The only clock of the program."""
    return datetime.now(UTC)


def source_of(config: Config) -> Source:
    """The bridge for the configured source. Raises ConfigError for one that is not built yet."""
    source = config.source
    if isinstance(source, sources.LdifSource):
        return LdifSource(source.path, _rules_of(source.attributes), source.name)
    if isinstance(source, sources.LdapSource):
        return ldap_source_of(source)
    raise ConfigError(
        f"source.type {source.type} can't be read by this version yet",
        "use `type: ldap`, or export the directory to a file and use `type: ldif`",
    )


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
            rules=_rules_of(source.attributes),
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


def _rules_of(attributes: sources.LdifAttributes) -> Rules:
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
    actor = appservice.actor_token
    return client.Homeserver(
        url=homeserver.url,
        server_name=homeserver.server_name,
        bot=f"@{appservice.sender_localpart}:{homeserver.server_name}",
        instance=appservice.id,
        as_token=appservice.as_token.get_secret_value(),
        actor_token=actor.get_secret_value() if actor else None,
        admin_user=homeserver.admin_user,
        auth=homeserver.auth,
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


@asynccontextmanager
async def looking(
    config: Config, progress: Progress | None = None, *, fresh: bool = False
) -> AsyncIterator[HomeserverReader]:
    """How the homeserver is: by the mirror of a running daemon, if that is current and nothing `fresh` is
    wanted; else read anew. Raises StoreError."""
    connect = client.Connect(parallelism=config.provisioner.parallelism)
    async with client.open_reader(homeserver_of(config), connect, progress) as homeserver:
        if fresh:
            yield homeserver.reader
            return
        async with open_mirror(database_url(config), config.data_dir) as store:
            yield homeserver.reader if store is None else homeserver.stored(store)


@asynccontextmanager
async def observing(
    config: Config, progress: Progress | None = None, *, fresh: bool = False
) -> AsyncIterator[Observer]:
    """For commands that read: has no way to change anything."""
    async with (
        open_reader(database_url(config), config.data_dir) as recorded,
        looking(config, progress, fresh=fresh) as homeserver,
    ):
        yield Observer(Senses(config, source_of(config), homeserver, recorded, now))


@asynccontextmanager
async def writing(
    config: Config,
    name: str,
    progress: Progress | None = None,
    *,
    notice: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[tuple[RecorderStore, client.Writing, Callable[[Recorder], Provisioner]]]:
    """The one writer, called `name` to others: store, homeserver, and what carries plans out by a recorder.

    Raises StoreBusy if there is another writer.
    """
    connect = client.Connect(parallelism=config.provisioner.parallelism)
    async with (
        open_writer(database_url(config), config.data_dir, name=name) as store,
        client.open_writer(homeserver_of(config), connect, progress) as homeserver,
    ):

        def provisioner(recorder: Recorder) -> Provisioner:
            tools = Tools(
                writer=homeserver.writer,
                recorder=recorder,
                now=now,
                server_name=config.homeserver.server_name,
                bot=homeserver_of(config).bot,
                instance=config.appservice.id,
                parallelism=config.provisioner.parallelism,
                settle=connect.read_timeout,
                notice=notice,
            )
            # The bot's account is made only when there is something to do: a declined plan writes nothing.
            return Provisioner(tools, prepare=homeserver.writer.ensure_bot)

        yield store, homeserver, provisioner


@asynccontextmanager
async def reconciling(
    config: Config,
    name: str,
    progress: Progress | None = None,
    *,
    notice: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Reconciler]:
    """For commands that write: the one writer, called `name` to others. Raises StoreBusy if there is one."""
    async with writing(config, name, progress, notice=notice) as (store, homeserver, provisioner):
        senses = Senses(config, source_of(config), homeserver.reader, store, now)
        yield Reconciler(senses, store, provisioner(store))


@asynccontextmanager
async def deciding(
    config: Config, progress: Progress | None = None
) -> AsyncIterator[tuple[Observer, DecisionStore]]:
    """For what a person decides beside a running daemon: reads everything, writes decisions."""
    async with (
        open_decisions(database_url(config), config.data_dir) as decisions,
        looking(config, progress) as homeserver,
    ):
        observer = Observer(Senses(config, source_of(config), homeserver, decisions, now))
        yield observer, decisions


# -- what commands do beside a cycle ---------------------------------------------------------------------


async def read_directory(config: Config) -> Directory:
    """`aim directory`: what the bridge reads, nothing else asked."""
    return await source_of(config).read(Roster())


async def write_ldif(config: Config, path: Path, *, redact: bool) -> int:
    """`aim directory --ldif`: writes what was read, with the attributes in use. Gives the number of entries.

    Only the owner may read the file, whoever could read one that was there before.

    Raises SourceError, ConfigError for a source without entries, AimError if the file can't be written.
    """
    configured, source = config.source, source_of(config)
    if not isinstance(source, HasEntries) or not isinstance(
        configured, sources.LdifSource | sources.LdapSource
    ):
        raise ConfigError(f"source.type {source.type} has no entries to write", "leave --ldif out")
    rules = _rules_of(configured.attributes)
    entries = await source.entries()
    kept = redacted(entries, rules) if redact else in_use(entries, rules)
    try:
        with _private(path) as file:
            file.writelines(to_ldif(kept))
    except OSError as error:
        raise AimError(
            f"{path} can't be written: {error.strerror}", "name another file with --ldif"
        ) from error
    return len(entries)


def _private(path: Path) -> BinaryIO:
    """A file to write to from its beginning, without rights for anybody but its owner. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    file = os.fdopen(descriptor, "wb")
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        try:
            # Before anything is written, and before what was there is lost.
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o600)
            os.ftruncate(descriptor, 0)
        except OSError:
            file.close()
            raise
    return file


async def approve(config: Config, wanted: str, saved: str | None, by: str) -> tuple[Approval, ...]:
    """`aim approve`: records approvals for what the plan with digest `wanted` holds.

    The plan is `saved` (its JSON) if given, else a recorded cycle's, else made anew. Raises PlanError if none
    of them has that digest, or it holds nothing.
    """
    async with deciding(config) as (observer, decisions):
        text = saved or await decisions.plan_by_digest(wanted)
        held, found = await _held(observer, text)
        if not approval.names(wanted, found):
            raise PlanError(
                f"the plan's digest is {found}, not {wanted}",
                "look at `aim plan` again, and approve the digest that it prints",
            )
        time = now()
        approved = approval.approvals(held, by, time)
        await decisions.approve(approved, found, time)
        return approved


async def _held(observer: Observer, text: str | None) -> tuple[Iterable[str], str]:
    """What a plan holds, and its digest."""
    if text is not None:
        plan = read_saved(text)
        return plan.held, plan.digest
    made = await observer.plan()
    return (action.identity for action in made.held), digest(made)


async def explain(config: Config, question: Question, progress: Progress | None = None) -> Explanation:
    """`aim explain`: how somebody stands to a room, and why. Changes nothing.

    Raises AimError, also for somebody or a room that nobody knows.
    """
    async with observing(config, progress) as observer:
        world = await observer.world()
        plan = make_plan(world)
        scope = scope_of(world, plan, question)
        async with open_audit(database_url(config), config.data_dir) as audit:
            recorded = await audit.about(scope.rooms, scope.people)
    return answer(world, plan, scope, recorded)


async def rebind(config: Config, old: str, new: str) -> str:
    """`aim rebind`: records that both names are one person. Gives a line that says what it did."""
    async with deciding(config) as (observer, decisions):
        recorded = await observer.recorded()
        found = await observer.directory(recorded)
        rebinding = settle_rebind(found, recorded, config.homeserver.server_name, old, new)
        await decisions.rebind(rebinding.seen, rebinding.forget)
        return rebinding.message
