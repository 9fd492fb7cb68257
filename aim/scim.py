"""The wiring of SCIM: one application takes what is pushed to us, and a source reads it from the same store.

Used by `run`. In: the configuration. Out: an ASGI application, on a port of its own or beside what `listen`
serves, and the source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aim.app import homeserver_of, pushed
from aim.config import sources
from aim.config.root import Config
from aim.errors import ConfigError
from aim.matrix import mxid
from aim.ports import Registrar, Source
from aim.ports.scim import ScimKind, ScimResource
from aim.store.scim import PostgresScim

if TYPE_CHECKING:
    from aim.bridges.scim.resources import Username
    from aim.bridges.scim.rights import Grant
    from aim.ops.listening import Application

Message = MutableMapping[str, Any]

Outcome = Callable[[str | None], Awaitable[str | None]]
"""Waits until all that was pushed by now is done, and gives what could not be: of one person (MXID), or of
anybody."""
MayCreate = Callable[[ScimResource], Awaitable[None]]
"""Raises ScimError for a user who must not be created."""

_USERNAME = "source.client.attributeMapping.username"
_OURS = frozenset({"_matrix", "transactions", "users", "rooms", "metrics", "health", "ready"})
"""First segments of what `listen` serves besides."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves SCIM."""

    store: PostgresScim
    source: Source
    application: Application
    port: int | None
    """None: it is served at `listen`."""

    @property
    def shared(self) -> Application | None:
        """The application, if `listen` has to serve it."""
        return self.application if self.port is None else None

    def alone(self, host: str) -> AbstractAsyncContextManager[object]:
        """Serves it on its own port, if it has one, while the body runs. Raises AimError."""
        if self.port is None:
            return nullcontext()
        from aim.ops.listening import listening

        return listening(self.application, host, self.port, "source.port")


@asynccontextmanager
async def serving(
    config: Config, refused: Callable[[str], None], outcome: Outcome, may_create: MayCreate | None = None
) -> AsyncIterator[Serving]:
    """Everything for `type: scim`; `refused` is told why each time somebody is refused, `outcome` is asked
    where answers have to wait for it, and `may_create` about each new user.

    Raises StoreError, and ConfigError if nobody could reach it, or its `username` is no attribute.
    """
    from aim.bridges.scim.knocking import Knocking
    from aim.bridges.scim.rights import Rights
    from aim.bridges.scim.server import ScimApplication
    from aim.bridges.scim.source import ScimSource
    from aim.bridges.scim.writing import Hooks

    source = config.source
    assert isinstance(source, sources.ScimSource), "nobody else is pushed to"
    refuse_unreachable(config, source)
    username = username_of(source)
    async with pushed(config) as store, _admins(config, source) as is_admin:
        await settle_mapping(store, source, username)
        application = ScimApplication(
            store,
            Rights(_grants(source), is_admin, refused, Knocking().came),
            username,
            Hooks(
                outcome_of=_awaited(config, outcome) if source.synchronous_provisioning else None,
                may_create=may_create,
            ),
            base_url=source.base_url,
            public_url=source.public_url,
        )
        yield Serving(store, ScimSource(store, source.client.id), application, source.port)


def refuse_unreachable(config: Config, source: sources.ScimSource) -> None:
    """Raises ConfigError if it would be served nowhere, or where something else answers."""
    listens = "listen" in config.model_fields_set
    if source.port is None and not listens:
        raise ConfigError("source.type scim is not served anywhere", "give `listen` or `source.port`")
    if listens and source.port == config.listen.port:
        raise ConfigError(
            f"source.port is the port of `listen` too: {source.port}",
            "choose another; or leave source.port out, and SCIM is served at `listen`",
        )
    first = source.base_url.split("/")[1:2]
    if source.port is None and first and first[0] in _OURS:
        raise ConfigError(
            f"source.base_url: /{first[0]} is something else at `listen`",
            "choose another, such as /scim/v2, or give SCIM a port of its own: source.port",
        )


def username_of(source: sources.ScimSource) -> Username:
    """What a user's localpart is made from. Raises ConfigError if it is no attribute."""
    from aim.bridges.scim.resources import NoUsername, Username

    try:
        return Username(source.client.attribute_mapping.username)
    except NoUsername as error:
        raise ConfigError(f"{_USERNAME}: {error}", error.remedy) from error


async def settle_mapping(store: PostgresScim, source: sources.ScimSource, username: Username) -> None:
    """Makes the localparts of all who were pushed anew if the configuration names another attribute than
    that which they were made from, and logs how many changed. Raises StoreError."""
    from aim.ops import logs

    wanted, before = source.client.attribute_mapping.username, await store.mapping()
    if before == wanted:
        return
    changed = await store.settle_localparts(wanted, username.localpart)
    if changed:
        was = f", and was {before}" if before is not None else ""
        logs.warning(
            f"{_USERNAME} is {wanted}{was}: {changed} who were pushed have another localpart; those with an "
            "account keep it until `aim rebind`"
        )
    elif before is not None:
        logs.notice(f"{_USERNAME} is {wanted}, and was {before}: nobody's localpart changed")


async def unapplied(config: Config) -> str | None:
    """What is to be said if localparts were made from another attribute than the configuration names. Raises
    StoreError."""
    if not isinstance(config.source, sources.ScimSource):
        return None
    async with pushed(config, read_only=True) as store:
        return await unapplied_in(store, config.source)


async def unapplied_in(store: PostgresScim, source: sources.ScimSource) -> str | None:
    """The same, for a store that is open."""
    wanted, before = source.client.attribute_mapping.username, await store.mapping()
    if before is None or before == wanted:
        return None
    return (
        f"{_USERNAME} is {wanted}, but all localparts are still made from {before}: `aim run` makes them "
        "anew when it is started"
    )


def new_only(registrar: Registrar, waits: Callable[[str], Awaitable[bool]]) -> MayCreate:
    """The check of `register_users: yes`: nobody is created whose account exists already, but for those who
    come back before their time on the deprovisioning queue is over (`waits`, by localpart).

    Raises HomeserverError and StoreError, and for who must not be created ScimError.
    """
    from aim.bridges.scim.errors import ScimError

    async def check(resource: ScimResource) -> None:
        name = resource.localpart
        if name is None or await registrar.find(name) is None or await waits(name):
            return
        raise ScimError(
            409,
            f"an account {name} exists on the homeserver already, and register_users is yes; with "
            "`register_users: if-missing` it would be taken over",
            "uniqueness",
        )

    return check


def _grants(source: sources.ScimSource) -> Iterator[Grant]:
    from aim.bridges.scim.rights import Grant

    for grant in source.client.grants:
        token = grant.token.get_secret_value() if grant.token else None
        yield Grant(token, grant.roles)


def _admins(
    config: Config, source: sources.ScimSource
) -> AbstractAsyncContextManager[Callable[[str], Awaitable[bool]] | None]:
    """Who can say whether a token is that of an admin of the homeserver, if that is of any use."""
    if all(grant.synapse_user is None for grant in source.client.grants):
        return nullcontext()
    from aim.matrix.admins import open_admins

    homeserver = homeserver_of(config)
    return open_admins(
        homeserver.url, homeserver.server_name, homeserver.mas if homeserver.auth == "mas" else None
    )


def _awaited(config: Config, outcome: Outcome) -> Callable[[ScimResource], Awaitable[str | None]]:
    """The outcome of one resource: of a user what concerns them; a group can concern anybody."""

    async def outcome_of(resource: ScimResource) -> str | None:
        if resource.kind is ScimKind.GROUP:
            return await outcome(None)
        if resource.localpart is None:
            # Nobody comes of them; the log says so.
            return None
        return await outcome(mxid.make(resource.localpart, config.homeserver.server_name))

    return outcome_of


def beside(ours: Application, scim: Application) -> Application:
    """One application that serves both: what belongs to `ours` by its first segment, and SCIM."""

    async def serve(scope: Message, receive: Any, send: Any) -> None:
        first = str(scope.get("path", "")).split("/", 2)[1:2]
        is_ours = bool(first) and first[0] in _OURS
        await (ours if is_ours else scim)(scope, receive, send)

    return serve
