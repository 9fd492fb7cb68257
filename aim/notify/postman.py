"""Sends the letters of the queue, one after the other, and never one twice. Part of the daemon.

In: the LetterStore. Out: letters at the SMTP server, and in the store what became of each. A letter is taken
off the queue only when a connection stands, so that a server that is down costs no letter an attempt. What
nobody knows to be sent or not (we were killed, or the connection was lost, while the server had it) is given
up and said so: better no mail than two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from email.errors import MessageError

import structlog

from aim.errors import AimError, StoreError
from aim.notify import smtp
from aim.notify.message import message_of
from aim.notify.settings import MailSettings
from aim.notify.smtp import Accepted, PutOff, Refused, Unsure
from aim.ports import LetterStore, QueuedLetter

Timer = Callable[[asyncio.Event, float | None], Awaitable[None]]
"""Waits until the event is set; not longer than so many seconds, if a number is given."""

_FIRST = timedelta(minutes=1)
_LONGEST = timedelta(hours=1)
_ATTEMPTS = 78
"""After pauses of 1, 2, 4 … 60, 60 … minutes, that is three days."""
_STORE_PAUSE = 30.0
"""Seconds until the database is tried again."""

_log = structlog.get_logger()


def pause_after(failures: int) -> timedelta:
    """How long to wait after so many failures in a row (1, 2, …)."""
    pause = _FIRST
    for _ in range(1, failures):
        if pause >= _LONGEST:
            break
        pause *= 2
    return min(pause, _LONGEST)


async def until_set(event: asyncio.Event, seconds: float | None) -> None:
    """The Timer of real life."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


class Postman:
    """One sender. Two on one queue would not send a letter twice, but there is no use in it."""

    def __init__(
        self,
        settings: MailSettings,
        letters: LetterStore,
        now: Callable[[], datetime],
        timer: Timer = until_set,
    ) -> None:
        """`now` gives the time in UTC."""
        self._settings = settings
        self._letters = letters
        self._now = now
        self._timer = timer
        self._woken = asyncio.Event()
        self._stop = asyncio.Event()
        self._has_settled = False
        self._failures = 0
        """Of the server, in a row."""
        self._not_before: datetime | None = None
        """When the server is tried again."""

    def wake(self) -> None:
        """Something was posted."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sends what is due, whenever something is, until `stop`. A letter under way is finished first."""
        self._stop = stop
        watching = asyncio.create_task(self._wake_at_stop())
        try:
            while not stop.is_set():
                self._woken.clear()
                await self._timer(self._woken, await self._round())
        finally:
            watching.cancel()

    async def _wake_at_stop(self) -> None:
        await self._stop.wait()
        self._woken.set()

    async def _round(self) -> float | None:
        """Sends all that is due. Gives the seconds until there may be more; None if nothing waits."""
        try:
            if not self._has_settled:
                await self._settle()
            if await self._wait() == 0:
                await self._send_all()
            return await self._wait()
        except StoreError as error:
            _log.error("the mail queue can't be read or written", cause=error.message, remedy=error.remedy)
            return _STORE_PAUSE

    async def _wait(self) -> float | None:
        """Seconds until a letter is due and the server may be tried."""
        due = await self._letters.next_due()
        if due is None:
            return None
        due = max(due, self._not_before) if self._not_before else due
        return max(0.0, (due - self._now()).total_seconds())

    async def _settle(self) -> None:
        """What was under way when we were killed: nobody knows whether it was sent."""
        for queued in await self._letters.interrupted():
            await self._give_up(queued, "aim ended while it was being sent: it may have been sent, or not")
        self._has_settled = True

    # -- the server ----------------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        """Everything that is due, over one connection for as long as that holds."""
        try:
            connection = await smtp.connect(self._settings.smtp)
        except AimError as error:
            self._server_failed(error)
            return
        try:
            while connection.is_open and not self._stop.is_set():
                queued = await self._letters.take(self._now())
                if queued is None:
                    return
                await self._send(queued, connection)
            if not connection.is_open and not connection.served:
                self._server_failed(AimError("the mail server ended the connection", "look at its log"))
        finally:
            await connection.close()

    def _server_failed(self, error: AimError) -> None:
        self._failures += 1
        pause = pause_after(self._failures)
        self._not_before = self._now() + pause
        _log.error(
            "no mail can be sent; what waits is kept",
            cause=error.message,
            remedy=error.remedy,
            again_in_seconds=int(pause.total_seconds()),
        )

    def _server_works(self) -> None:
        self._failures = 0
        self._not_before = None

    # -- one letter ----------------------------------------------------------------------------------------

    async def _send(self, queued: QueuedLetter, connection: smtp.Connection) -> None:
        """Hands one letter over and records what became of it."""
        letter = queued.letter
        facts = {"mail": str(letter.event), "number": queued.id}
        try:
            content = message_of(letter, self._settings.sender, self._now()).as_bytes()
        except (ValueError, MessageError) as error:
            # UnicodeError is one too: a text that no mail can carry.
            await self._give_up(queued, f"no mail can be made of it ({type(error).__name__})")
            return
        sender = self._settings.sender_address
        served = connection.served
        match await connection.deliver(sender, letter.recipients, content):
            case Accepted(refused):
                self._server_works()
                await self._record(lambda: self._letters.sent(queued.id, self._now()))
                if refused:
                    _log.warning("mail sent, but not to all its addresses", refused=refused, **facts)
                else:
                    _log.info("mail sent", **facts)
            case PutOff(cause):
                # Some servers take only so many mails over one connection. One that hangs up on the first
                # has no time for us.
                is_used_up = served > 0 and not connection.is_open
                await self._put_off(queued, cause, at_once=is_used_up)
            case Refused(cause):
                self._server_works()
                await self._give_up(queued, cause)
            case Unsure(cause):
                await self._give_up(queued, f"{cause}: it may have been sent, or not")

    async def _put_off(self, queued: QueuedLetter, cause: str, *, at_once: bool) -> None:
        failures = queued.attempts + 1
        if failures >= _ATTEMPTS:
            await self._give_up(queued, f"{cause}, for three days")
            return
        at = self._now() + (timedelta() if at_once else pause_after(failures))
        await self._record(lambda: self._letters.again(queued.id, cause, at))
        _log.warning(
            "mail put off",
            mail=str(queued.letter.event),
            number=queued.id,
            cause=cause,
            again=at.isoformat(timespec="seconds"),
        )

    async def _give_up(self, queued: QueuedLetter, cause: str) -> None:
        await self._record(lambda: self._letters.give_up(queued.id, cause, self._now()))
        _log.error(
            "mail given up",
            mail=str(queued.letter.event),
            number=queued.id,
            cause=cause,
            remedy="tell the person some other way, if it matters",
        )

    async def _record(self, write: Callable[[], Awaitable[None]]) -> None:
        """Writes down what became of a letter, however long the database is away."""
        while True:
            try:
                await write()
            except StoreError as error:
                _log.error("the mail queue can't be written", cause=error.message, remedy=error.remedy)
                if self._stop.is_set():
                    return
                await self._timer(self._stop, _STORE_PAUSE)
            else:
                return
