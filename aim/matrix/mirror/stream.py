"""Whether the homeserver's transactions reach us, and how far they have come.

An event that we send into a room of our own comes back through the stream: whatever was sent before it has
come, too. It carries a number that only grows, the highest of which is recorded: a higher one in the room
than in the database tells that the database is an older one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from mautrix.api import ClientPath, Path, PathBuilder

from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.matrix.mirror.keeper import Keeper
from aim.matrix.mirror.reading import ABSENT, OUT, unconvincing
from aim.matrix.mirror.sift import CONTROL_TYPE, counter_of, is_control
from aim.matrix.parallel import each
from aim.matrix.parse import Home, mapping
from aim.matrix.refusals import one_line, somebody_else
from aim.matrix.rooms import joined
from aim.matrix.transport import Getter
from aim.ports import MirrorFacts
from aim.world.rooms import MARKER_TYPE, MARKER_VERSION

log = logging.getLogger("aim.mirror")

_WHERE = (
    "`url` in the registration must be where the homeserver finds `listen`: check host, port, firewall; "
    "after a change of the registration restart the homeserver"
)
_PING_FAILURES: Mapping[str, tuple[str, str]] = {
    "M_CONNECTION_FAILED": (
        "the homeserver can't connect to the url of our registration",
        _WHERE,
    ),
    "M_CONNECTION_TIMEOUT": (
        "the homeserver gets no answer from the url of our registration",
        _WHERE,
    ),
    "M_BAD_STATUS": (
        "what answers the homeserver at the url of our registration refuses its transactions",
        "appservice.hs_token must be the one in the registration, and its `url` must lead to `listen`",
    ),
    "M_URL_NOT_SET": (
        "the registration has no url: the homeserver sends us nothing",
        "set `url` in the listener's registration to where the homeserver finds `listen`, and restart it",
    ),
}
"""Error codes of the ping → cause and remedy (Application Service API, Pinging)."""


class Sender(Getter, Protocol):
    """What the mirror asks of the transport: reading, and a few writes of its own."""

    async def put(self, path: PathBuilder, body: Mapping[str, object], user_id: str | None = None) -> object:
        """Raises HomeserverError."""
        ...

    async def post(
        self, path: PathBuilder, body: Mapping[str, object], user_id: str | None = None, *, once: bool = False
    ) -> object:
        """`once`: not tried again if it may have been done. Raises HomeserverError."""
        ...


class Stream:
    """The control room, and what comes back from it."""

    def __init__(
        self,
        transport: Sender,
        home: Home,
        keeper: Keeper,
        on_old_database: Callable[[], Awaitable[None]],
        parallelism: int,
    ) -> None:
        """`on_old_database` is called, before anything is recorded, if the database is an older one."""
        self._on_old_database = on_old_database
        self._transport = transport
        self._home = home
        self._keeper = keeper
        self._parallelism = parallelism
        self._news = asyncio.Event()
        self._running: asyncio.Task[bool] | None = None
        self._waiting: asyncio.Task[bool] | None = None

    async def open(self) -> bool:
        """Makes sure of the control room. False if the stored mirror can't be what the homeserver told last:
        it is older than the room's counter, or knew another room; then it is no longer complete, by the same
        record that has the new counter. Raises HomeserverError, StoreError."""
        known = self._keeper.memory.facts.control_room
        counter = None if known is None else await self._counter(known)
        if counter is None:
            await self._require_identity()
            found = await self._find() or await self._make()
            counter = await self._counter(found) or 0
            if counter:
                await self._on_old_database()
            await self._keeper.note(MirrorFacts(control_room=found, counter_sent=counter, complete=False))
            return False
        ahead = counter > self._keeper.memory.facts.counter_sent
        if ahead:
            log.warning("the database is older than what it was told last: everything is read again")
            # First: were we killed afterwards, nobody would notice any more.
            await self._on_old_database()
            await self._keeper.note(MirrorFacts(counter_sent=counter, complete=False))
        return not ahead

    async def ping(self, appservice_id: str) -> None:
        """Lets the homeserver try at once what it could not deliver, and tells whether it can.

        HomeserverRefused says why it can't. Raises HomeserverUnavailable.
        """
        try:
            await self._transport.post(ClientPath.v1.appservice[appservice_id].ping, {}, once=True)
        except (HomeserverRefused, HomeserverUnavailable) as error:
            # The first three are 5xx, which have no code of their own here.
            code = next((code for code in _PING_FAILURES if code in error.message), None)
            if code is None:
                raise
            status = error.status if isinstance(error, HomeserverRefused) else 502
            raise HomeserverRefused(*_PING_FAILURES[code], status=status, errcode=code) from error

    def came_back(self) -> None:
        """To be called when the counter was seen."""
        self._news.set()

    async def barrier(self, timeout: float) -> bool:  # noqa: ASYNC109 (the port's callers share one wait)
        """True once everything that the homeserver sent before this call has come; False after `timeout`
        seconds. Those who call while one is under way share the next. Raises HomeserverError, StoreError."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._after(self._running, timeout))
            self._waiting.add_done_callback(_retrieve)
        return await asyncio.shield(self._waiting)

    async def _after(self, running: asyncio.Task[bool] | None, seconds: float) -> bool:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._waiting = self._waiting, None
        number = self._keeper.memory.facts.counter_sent + 1
        # Before it is sent: whoever finds a number in the room that is not recorded has an old database.
        await self._keeper.note(MirrorFacts(counter_sent=number))
        try:
            async with asyncio.timeout(seconds):
                await self._send(number)
                while self._keeper.memory.facts.counter_seen < number:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.warning("nothing came back from the homeserver within %.0f s", seconds)
            return False
        return True

    async def _send(self, number: int) -> None:
        room_id = self._keeper.memory.facts.control_room
        assert room_id is not None, "the stream was opened"
        await self._transport.put(Path.v3.rooms[room_id].state[CONTROL_TYPE], {"counter": number})

    async def _counter(self, room_id: str) -> int | None:
        """The number in that room, 0 if there is none yet; None if we are not in the room."""
        try:
            return counter_of(await self._transport.get(Path.v3.rooms[room_id].state[CONTROL_TYPE]))
        except HomeserverRefused as error:
            said = (error.status, error.errcode)
            if said == ABSENT:
                return 0
            if said == OUT:
                return None
            if error.status in {403, 404}:
                raise unconvincing(error) from error
            raise

    async def _require_identity(self) -> None:
        """Raises ConfigError if the token is another user's: that one's rooms are not ours."""
        answer = mapping(await self._transport.get(Path.v3.account.whoami))
        user = one_line(str(answer.get("user_id")))
        if user != self._home.bot:
            raise somebody_else(user, self._home.bot)

    async def _find(self) -> str | None:
        """A control room that was made before, by a database that is lost."""
        rooms = [room_id for room_id in await joined(self._transport) if not self._is_managed(room_id)]
        found = await each(self._is_control, rooms, self._parallelism)
        return next((room_id for room_id, is_it in zip(rooms, found, strict=True) if is_it), None)

    def _is_managed(self, room_id: str) -> bool:
        copy = self._keeper.memory.copies.get(room_id)
        return copy is not None and copy.is_managed

    async def _is_control(self, room_id: str) -> bool:
        path = Path.v3.rooms[room_id].state["m.room.create"]
        try:
            return is_control(mapping(await self._transport.get(path, {"format": "event"})), self._home)
        except HomeserverRefused as error:
            if (error.status, error.errcode) in {OUT, ABSENT}:
                return False
            if error.status in {403, 404}:
                raise unconvincing(error) from error
            raise

    async def _make(self) -> str:
        marker = {"version": MARKER_VERSION, "instance": self._home.instance, "control": True}
        body = {
            "preset": "private_chat",
            "name": f"{self._home.instance}: control",
            "topic": "Tells aim that it hears the homeserver. Nobody has to be in it.",
            # Nobody else's server has a say in it, so nothing that is sent here can get lost.
            "creation_content": {"m.federate": False, MARKER_TYPE: marker},
        }
        answer = mapping(await self._transport.post(Path.v3.createRoom, body, once=True))
        room_id = answer.get("room_id")
        if not isinstance(room_id, str):
            raise HomeserverRefused("the homeserver made a room without telling its id", status=200)
        return room_id


def _retrieve(task: asyncio.Task[bool]) -> None:
    """So that nobody is told of a failure that all who waited for it have gone away from."""
    if not task.cancelled():
        task.exception()
