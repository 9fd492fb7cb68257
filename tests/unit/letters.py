"""A mail queue in memory, with the contract of ports.LetterStore, for the tests of what uses one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from aim.errors import StoreError
from aim.ports import Letter, MailEvent, QueuedLetter


@dataclass
class _Row:
    queued: QueuedLetter
    status: str
    due_at: datetime
    error: str = ""


class Letters:
    """Implements ports.LetterStore."""

    def __init__(self) -> None:
        self.rows: dict[int, _Row] = {}
        self.ended = asyncio.Event()
        """Set when a letter was sent or given up."""
        self.broken = 0
        """So many of the next writes fail."""

    def statuses(self) -> list[str]:
        return [row.status for row in self.rows.values()]

    def errors(self) -> list[str]:
        return [row.error for row in self.rows.values()]

    def _written(self) -> None:
        if self.broken:
            self.broken -= 1
            raise StoreError("the database is away", "start it")

    async def post(self, letters: Sequence[Letter], now: datetime) -> None:
        self._written()
        known = {row.queued.letter.key for row in self.rows.values()}
        for letter in (letter for letter in letters if letter.key not in known):
            number = max(self.rows, default=0) + 1
            self.rows[number] = _Row(QueuedLetter(number, letter, 0), "waiting", now)
            if letter.event is MailEvent.HELD:
                self._supersede(number)

    def _supersede(self, new: int) -> None:
        for number, row in list(self.rows.items()):
            if number < new and row.status == "waiting" and row.queued.letter.event is MailEvent.HELD:
                del self.rows[number]

    async def take(self, now: datetime) -> QueuedLetter | None:
        due = [row for row in self.rows.values() if row.status == "waiting" and row.due_at <= now]
        if not due:
            return None
        row = min(due, key=lambda row: (row.due_at, row.queued.id))
        row.status = "sending"
        taken = row.queued
        row.queued = replace(taken, attempts=taken.attempts + 1)
        return taken

    async def sent(self, id_: int, now: datetime) -> None:
        self._written()
        self.rows[id_].status = "sent"
        self.ended.set()

    async def again(self, id_: int, error: str, at: datetime) -> None:
        self._written()
        row = self.rows[id_]
        row.status, row.error, row.due_at = "waiting", error, at

    async def give_up(self, id_: int, error: str, now: datetime) -> None:
        self._written()
        row = self.rows[id_]
        row.status, row.error = "given_up", error
        self.ended.set()

    async def interrupted(self) -> Sequence[QueuedLetter]:
        return [row.queued for row in self.rows.values() if row.status == "sending"]

    async def next_due(self) -> datetime | None:
        return min((row.due_at for row in self.rows.values() if row.status == "waiting"), default=None)


def letter(
    key: str = "one", recipients: Sequence[str] = ("mia@example.com",), text: str = "Hello.\n"
) -> Letter:
    return Letter(
        key=key,
        event=MailEvent.REGISTERED,
        localpart="mia",
        recipients=recipients,
        subject=f"Welcome {key}",
        text=text,
        html=f"<p>{text}</p>",
        message_id=f"<{key}@example.com>",
    )
