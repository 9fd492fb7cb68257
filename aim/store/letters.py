"""The mail queue: the port LetterStore over Postgres, for the holder of the writer's lock.

In come rendered mails, out go those that are due, each marked as under way in a committed transaction before
anybody can send it: who is killed meanwhile leaves one that may have been sent, and that is never sent again
by itself. What is over keeps no text, no address and no name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from aim.ports import Letter, MailEvent, QueuedLetter
from aim.store.connection import Session
from aim.store.pseudonyms import audit_key, keyed_hash
from aim.store.queries import QUERIES


class PostgresLetters:
    """LetterStore over the session that holds the writer's lock. All methods: see ports.LetterStore."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def post(self, letters: Sequence[Letter], now: datetime) -> None:
        if not letters:
            return
        async with self._session.transaction() as connection:
            key = await audit_key(connection)
            await connection.executemany(
                QUERIES["post_letter"],
                [
                    (
                        keyed_hash(key, f"letter {letter.key}"),
                        letter.key,
                        letter.event.value,
                        letter.localpart,
                        list(letter.recipients),
                        letter.subject,
                        letter.text,
                        letter.html,
                        letter.message_id,
                        now,
                    )
                    for letter in letters
                ],
            )
            for letter in letters:
                if letter.event is MailEvent.HELD:
                    # What is held now is in this one.
                    hashed = keyed_hash(key, f"letter {letter.key}")
                    await connection.execute(QUERIES["drop_superseded_held"], hashed)

    async def take(self, now: datetime) -> QueuedLetter | None:
        """Its `attempts` are those before this one."""
        async with self._session.transaction() as connection:
            row = await connection.fetchrow(QUERIES["take_letter"], now)
        return None if row is None else _letter(row)

    async def sent(self, id_: int, now: datetime) -> None:
        await self._end(id_, "sent", "", now)

    async def again(self, id_: int, error: str, at: datetime) -> None:
        async with self._session.transaction() as connection:
            await connection.execute(QUERIES["retry_letter"], id_, _storable(error), at)

    async def give_up(self, id_: int, error: str, now: datetime) -> None:
        """Its text and recipients are dropped too; the error stays, without their addresses."""
        await self._end(id_, "given_up", error, now)

    async def interrupted(self) -> Sequence[QueuedLetter]:
        """Their `attempts` include the one that was under way."""
        async with self._session.snapshot() as connection:
            return [_letter(row) for row in await connection.fetch(QUERIES["letters_under_way"])]

    async def next_due(self) -> datetime | None:
        async with self._session.snapshot() as connection:
            due: datetime | None = await connection.fetchval(QUERIES["next_letter_due"])
            return due

    async def _end(self, id_: int, status: str, error: str, now: datetime) -> None:
        async with self._session.transaction() as connection:
            # Mail servers say whom they refuse.
            recipients = await connection.fetchval(QUERIES["letter_recipients"], id_) or ()
            for address in recipients:
                error = re.sub(re.escape(address), "…", error, flags=re.IGNORECASE)
            await connection.execute(QUERIES["end_letter"], id_, status, _storable(error), now)


def _letter(row: asyncpg.Record) -> QueuedLetter:
    letter = Letter(
        # None only after its person was forgotten, and the key with them.
        key=row["key"] or "",
        event=MailEvent(row["event"]),
        localpart=row["localpart"],
        recipients=tuple(row["recipients"]),
        subject=row["subject"],
        text=row["text"],
        html=row["html"],
        message_id=row["message_id"],
    )
    return QueuedLetter(row["id"], letter, row["attempts"])


def _storable(text: str) -> str:
    """Other people's servers write errors: Postgres keeps every character but this one."""
    return text.replace("\x00", "\ufffd")
