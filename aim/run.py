"""The wiring of `aim run`: store, homeserver, mirror and HTTP server around one daemon.

When the database goes away the daemon ends, and is built anew as soon as it is back: what was not recorded is
found again, and nothing that the homeserver sends meanwhile is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, ParamSpec

from aim.app import Workshop, mail_settings, now, opened_graph, source_of, unprotected, writing
from aim.config import sources
from aim.config.root import Config
from aim.daemon import FULL_CYCLE, Awaiting, Daemon, Pace
from aim.daemon.mirrored import LiveMirror
from aim.directory.roster import Roster
from aim.errors import ConfigError, HomeserverRefused, StoreError
from aim.matrix import mxid
from aim.matrix.book import Book
from aim.matrix.mirror import Hooks, Mirror
from aim.matrix.mirror.invited import MOST, Ignored
from aim.matrix.refusals import one_line
from aim.ops import logs
from aim.ops.metrics import Metrics
from aim.ops.watched import WatchedSource
from aim.ports import HomeserverReader, Recorder, Source
from aim.reconciler import Reconciler, Senses, nobody
from aim.scim import MayCreate, beside, new_only, serving
from aim.store.remembered import RememberingRecorder
from aim.world.recorded import after

if TYPE_CHECKING:
    from aim.bridges.msgraph.notifications import Notices
    from aim.ops.listening import Application

P = ParamSpec("P")

_PUSHED = 60.0
"""Seconds between two looks at a source that says by itself when it has changed."""
_AGAIN = 5.0
"""Seconds until a database that went away is tried again."""


async def run(config: Config) -> None:
    """Until SIGTERM or SIGINT. Raises AimError if it can't begin."""
    logs.configure(config.logging.level, config.logging.format)
    for warning in unprotected(config):
        logs.warning(warning)
    metrics, stopping = Metrics(), asyncio.Event()
    is_stored = isinstance(config.source, sources.ScimSource | sources.MsGraphSource)
    source = None if is_stored else WatchedSource(source_of(config), metrics, now)
    began = False
    while not stopping.is_set():
        try:
            async with _daemon(config, source, metrics, stopping) as daemon:
                began = True
                await daemon.run()
        except StoreError as error:
            # Without a database there never was anything to go on with.
            if not began:
                raise
            logs.failure("the database is gone; nothing is done until it is back", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _AGAIN)


@asynccontextmanager
async def _daemon(
    config: Config, source: Source | None, metrics: Metrics, stopping: asyncio.Event
) -> AsyncIterator[Daemon]:
    """A daemon over everything it needs; no `source`: one whose directory is in our database. Raises
    AimError."""
    is_live = "listen" in config.model_fields_set
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(
            writing(config, "aim run", notice=logs.notice, lists_anew=not is_live)
        )
        recorder, roster = RememberingRecorder(shop.store), Roster()
        relays, awaiting = _Relays(), Awaiting()
        feed = _Feed(source) if source is not None else None
        if feed is None:
            feed = await stack.enter_async_context(_fed(config, shop, metrics, relays.prompted, awaiting))
        reader: HomeserverReader = shop.homeserver.reader
        live: LiveMirror | None = None
        forgotten: Callable[[str], Awaitable[None]] = nobody
        found: Callable[[str], Awaitable[None]] = nobody
        if is_live:
            hooks = Hooks(
                progress=_progress(),
                on_change=relays.changed,
                on_names=_names(config, shop.book, relays.renamed),
                on_old_database=partial(_postpone_queue, config, recorder),
                on_ignored=_Ignoring(metrics),
                on_difference=lambda _, keys: metrics.differences(keys),
            )
            mirror = reader = shop.homeserver.mirror(roster, shop.store.mirror, now, hooks)
            await mirror.load()
            forgotten, found = mirror.forget_account, mirror.found_account
            await stack.enter_async_context(_listening(config, metrics, mirror, feed))
            live = _Live(mirror, config.appservice.id, shop.homeserver.writer.ensure_bot)
            metrics.watch_mirror(lambda: mirror.current)
        await stack.enter_async_context(_mailing(config, shop))
        senses = Senses(config, feed.source, reader, recorder, now, roster, shop.book)
        provisioner = shop.provisioner(recorder, found)
        reconciler = Reconciler(senses, recorder, provisioner, shop.announcer, forgotten)
        daemon = Daemon(feed.source, reconciler, _pace(config), now, metrics, live, stopping, awaiting)
        relays.lead_to(daemon)
        yield daemon


@dataclass(frozen=True, slots=True)
class _Feed:
    """The source, and what `listen` has to serve for it."""

    source: Source
    scim: Application | None = None
    notices: Notices | None = None


@asynccontextmanager
async def _fed(
    config: Config, shop: Workshop, metrics: Metrics, prompted: Callable[[], None], awaiting: Awaiting
) -> AsyncIterator[_Feed]:
    """A source whose directory is in our database. Raises AimError."""
    if isinstance(config.source, sources.MsGraphSource):
        async with _graph(config, config.source, prompted) as (opened, notices):
            yield _Feed(WatchedSource(opened, metrics, now), notices=notices)
        return
    may_create = _may_create(config, shop)
    async with (
        serving(config, metrics.scim_refused, awaiting.outcome, may_create) as served,
        served.alone(config.listen.host),
        AsyncExitStack() as stack,
    ):
        stack.callback(asyncio.create_task(served.store.watch(prompted)).cancel)
        # Whoever waits for an answer must not keep the port open.
        stack.callback(awaiting.end)
        yield _Feed(WatchedSource(served.source, metrics, now), scim=served.shared)


@asynccontextmanager
async def _graph(
    config: Config, source: sources.MsGraphSource, changed: Callable[[], None]
) -> AsyncIterator[tuple[Source, Notices | None]]:
    """The bridge to Microsoft Graph, and what has that tell us of changes; None if it is not wanted.

    Raises ConfigError if it could not reach us.
    """
    from aim.bridges.msgraph.notifications import Notices

    if source.webhook_url is not None and "listen" not in config.model_fields_set:
        raise ConfigError("source.webhook_url leads nowhere", "give `listen`, where it has to arrive")
    async with opened_graph(config, source, records=True, awaited=False) as (opened, graph):
        url = source.webhook_url
        yield opened, None if url is None else Notices(graph, url, changed, now)


def _may_create(config: Config, shop: Workshop) -> MayCreate | None:
    """What stands against a new user; None: nothing does."""
    source, registrar = config.source, shop.homeserver.registrar
    if not isinstance(source, sources.ScimSource) or source.register_users != "yes" or registrar is None:
        return None
    return new_only(registrar, shop.store.waits)


def _names(
    config: Config, book: Book | None, renamed: Callable[[Collection[str]], None]
) -> Callable[[Mapping[str, str | None]], None]:
    """What to do when members of our rooms show other names than we know."""
    if book is None:
        return lambda _: None

    def look(names: Mapping[str, str | None]) -> None:
        changed = [localpart for localpart, name in names.items() if not book.agrees(localpart, name)]
        for localpart in changed:
            book.suspect(localpart)
        if changed:
            renamed([mxid.make(localpart, config.homeserver.server_name) for localpart in changed])

    return look


async def _postpone_queue(config: Config, recorder: Recorder) -> None:
    """The database is an older one: who was back since then, and left again, has a full period ahead."""
    logs.warning("the database is older than the homeserver; whoever waits for their erasure waits anew")
    await recorder.postpone_queue(after(now(), config.soft_delete_period))


@asynccontextmanager
async def _mailing(config: Config, shop: Workshop) -> AsyncIterator[None]:
    """Sends what is queued, as long as the daemon runs."""
    settings = mail_settings(config)
    if settings is None:
        yield
        return
    from aim.notify.mailer import check_templates
    from aim.notify.postman import Postman

    for warning in check_templates(settings):
        logs.warning(warning)
    stopping = asyncio.Event()
    postman = Postman(settings, shop.store.letters, now)
    sending = asyncio.create_task(postman.run(stopping))
    waking = asyncio.create_task(_wake(postman.wake, shop.posted))
    try:
        yield
    finally:
        stopping.set()
        waking.cancel()
        await asyncio.gather(sending, waking, return_exceptions=True)


async def _wake(wake: Callable[[], None], posted: asyncio.Event) -> None:
    while True:
        await posted.wait()
        posted.clear()
        wake()


def _pace(config: Config) -> Pace:
    source = config.source
    if isinstance(source, sources.ScimSource):
        # It says by itself when it has changed.
        return Pace(_PUSHED, FULL_CYCLE, config.provisioner.verify_interval)
    full = source.full_read_interval if isinstance(source, sources.LdapSource) else FULL_CYCLE
    return Pace(source.check_interval_seconds, min(full, FULL_CYCLE), config.provisioner.verify_interval)


@asynccontextmanager
async def _listening(config: Config, metrics: Metrics, mirror: Mirror, feed: _Feed) -> AsyncIterator[None]:
    # FastAPI takes a while to import, and only this command needs it.
    from aim.matrix.appservice import router
    from aim.ops.listening import application, listening

    hs_token = config.appservice.hs_token.get_secret_value()
    # Not "the mirror is current": whoever waits for that would keep the homeserver from us for ever.
    routers = [router(hs_token, mirror.take, mirror.suspect)]
    following: AbstractAsyncContextManager[None] = nullcontext()
    if feed.notices is not None:
        from aim.bridges.msgraph import notifications

        routers.append(notifications.router(feed.notices))
        following = notifications.noticing(feed.notices)
    app = application(routers, metrics, lambda: True)
    served = app if feed.scim is None else beside(app, feed.scim)
    async with listening(served, config.listen.host, config.listen.port), following:
        yield


class _Relay(Generic[P]):
    """Passes on what changed, to whoever is there by then."""

    def __init__(self) -> None:
        self.to: Callable[P, None] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.to is not None:
            self.to(*args, **kwargs)


class _Relays:
    """What is told before there is a daemon that it could be told to."""

    def __init__(self) -> None:
        self.changed: _Relay[[Collection[str]]] = _Relay()
        self.renamed: _Relay[[Collection[str]]] = _Relay()
        self.prompted: _Relay[[]] = _Relay()

    def lead_to(self, daemon: Daemon) -> None:
        self.changed.to = daemon.changed
        self.renamed.to = daemon.accounts_changed
        self.prompted.to = daemon.prompt


class _Ignoring:
    """Counts the invites that are ignored, and says of each inviter once that and why."""

    _MOST = 1000
    """Whoever comes after so many is only counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: set[tuple[str, Ignored]] = set()

    def __call__(self, inviter: str, why: Ignored) -> None:
        self._metrics.invite_ignored(why)
        if (inviter, why) in self._told or len(self._told) >= self._MOST:
            return
        self._told.add((inviter, why))
        logs.warning(f"an invite by {one_line(inviter)} is ignored: {_WHY[why]}; told once")


_WHY = {
    Ignored.STRANGER: "they are not among provisioner.federation.federates_with",
    Ignored.NOT_THEIRS: "the room is not one that their aim made",
    Ignored.TOO_MANY: f"we share {MOST} rooms with them, or are asked into so many",
}


class _Live:
    """The mirror as the daemon wants it (daemon.mirrored.LiveMirror)."""

    def __init__(self, mirror: Mirror, appservice: str, ensure_bot: Callable[[], Awaitable[None]]) -> None:
        self._mirror = mirror
        self._appservice = appservice
        self._ensure_bot = ensure_bot
        self.barrier = mirror.barrier
        self.verify_next = mirror.verify_next
        self.poll_accounts = mirror.poll_accounts
        self.mark_stale = mirror.mark_stale
        self.key_of = mirror.key_of

    @property
    def current(self) -> bool:
        return self._mirror.current

    @property
    def has_to_look_around(self) -> bool:
        return self._mirror.has_to_look_around

    async def begin(self) -> None:
        """The listener is a registration of its own, or (`aim registration --single`) the only one."""
        await self._ensure_bot()
        try:
            await self._mirror.begin(f"{self._appservice}-listener")
        except HomeserverRefused as error:
            if error.status != 403:
                raise
            await self._mirror.begin(self._appservice)


def _progress() -> Callable[[int, int], None]:
    """Says now and then how far the first reading is."""
    said = [0]

    def progress(read: int, total: int) -> None:
        share = 10 * read // max(total, 1)
        if total >= 100 and share != said[0]:
            said[0] = share
            logs.notice(f"reading the homeserver: {read} of {total} rooms")

    return progress
