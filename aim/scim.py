"""The wiring of SCIM: one application takes what is pushed to us, and a source reads it from the same store.

Used by `run`. In: the configuration. Out: an ASGI application, on a port of its own or beside what `listen`
serves, and the source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aim.app import pushed
from aim.config import sources
from aim.config.root import Config
from aim.errors import ConfigError
from aim.ports import Source
from aim.store.scim import PostgresScim

if TYPE_CHECKING:
    from aim.bridges.scim.rights import Grant
    from aim.ops.listening import Application

Message = MutableMapping[str, Any]

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

        return listening(self.application, host, self.port)


@asynccontextmanager
async def serving(config: Config, refused: Callable[[str], None]) -> AsyncIterator[Serving]:
    """Everything for `type: scim`; `refused` is told why each time somebody is refused.

    Raises StoreError, and ConfigError if nobody could reach it, or its `username` is no attribute.
    """
    from aim.bridges.scim.resources import Username
    from aim.bridges.scim.rights import Rights
    from aim.bridges.scim.server import ScimApplication
    from aim.bridges.scim.source import ScimSource

    source = config.source
    assert isinstance(source, sources.ScimSource), "nobody else is pushed to"
    if source.port is None and "listen" not in config.model_fields_set:
        raise ConfigError("source.type scim is not served anywhere", "give `listen` or `source.port`")
    try:
        username = Username(source.client.attribute_mapping.username)
    except ValueError as error:
        raise ConfigError(
            f"source.client.attributeMapping.username: {error}", "name one such as userName or externalId"
        ) from error
    async with pushed(config) as store:
        application = ScimApplication(
            store, Rights(_grants(source), refused=refused), username, base_url=source.base_url
        )
        yield Serving(store, ScimSource(store, source.client.id), application, source.port)


def _grants(source: sources.ScimSource) -> Iterator[Grant]:
    from aim.bridges.scim.rights import Grant

    for grant in source.client.grants:
        token = grant.token.get_secret_value() if grant.token else None
        yield Grant(token, grant.roles)


def beside(ours: Application, scim: Application) -> Application:
    """One application that serves both: what belongs to `ours` by its first segment, and SCIM."""

    async def serve(scope: Message, receive: Any, send: Any) -> None:
        first = str(scope.get("path", "")).split("/", 2)[1:2]
        is_ours = bool(first) and first[0] in _OURS
        await (ours if is_ours else scim)(scope, receive, send)

    return serve
