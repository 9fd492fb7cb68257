"""The port LetterStore against a real Postgres: nothing lost, nothing twice, nothing personal that stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from aim.ports import Letter, LetterStore, MailEvent, QueuedLetter
from aim.store import RecorderStore
from aim.store.letters import PostgresLetters
from aim.store.recorder import open_recorder
from tests.servers.postgres import neighbour

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HIDDEN = ("annabel", "Welcome", "welcome-1@")


def letter(key: str = "registered annabel", number: int = 1) -> Letter:
    return Letter(
        key=key,
        event=MailEvent.REGISTERED,
        localpart="annabel",
        recipients=("annabel@example.com", "a.berg@example.com"),
        subject="Welcome, Annabel",
        text="Welcome",
        html="<p>Welcome</p>",
        message_id=f"<welcome-{number}@example.com>",
    )


@pytest.fixture
async def recorder(dsn: str) -> AsyncIterator[RecorderStore]:
    async with open_recorder(dsn) as store:
        yield store


@pytest.fixture
async def letters(recorder: RecorderStore) -> PostgresLetters:
    return recorder.letters


async def rows(dsn: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        return "\n".join(row[0] for row in await connection.fetch("select l::text from aim.letters l"))
    finally:
        await connection.close()


async def take(letters: LetterStore, now: datetime = NOW) -> QueuedLetter:
    taken = await letters.take(now)
    assert taken is not None
    return taken


async def test_a_letter_is_taken_once_as_it_was_posted(letters: PostgresLetters) -> None:
    await letters.post([letter()], NOW)
    taken = await take(letters)
    assert (taken.letter, taken.attempts) == (letter(), 0)
    assert await letters.take(NOW) is None


async def test_of_what_is_held_only_the_last_mail_waits(letters: PostgresLetters, dsn: str) -> None:
    def held(key: str) -> Letter:
        return replace(letter(key), event=MailEvent.HELD, localpart=None)

    await letters.post([held("zero")], NOW)
    under_way = await take(letters)
    await letters.post([letter(), held("one")], NOW)
    await letters.post([held("two")], NOW + MINUTE)
    await letters.post([held("two")], NOW + MINUTE)
    assert [row.letter.key for row in await letters.interrupted()] == ["zero"]
    later = NOW + MINUTE
    assert [(await take(letters, later)).letter.key for _ in range(2)] == ["registered annabel", "two"]
    assert await letters.take(later) is None
    # Dropped without a trace: it is posted again if that is held once more.
    await letters.sent(under_way.id, later)
    await letters.post([held("one"), held("zero")], later)
    assert (await take(letters, later)).letter.key == "one"
    assert await letters.take(later) is None


async def test_the_oldest_goes_first_and_none_before_its_time(letters: PostgresLetters) -> None:
    first, second = letter("one"), letter("two")
    await letters.post([first, second], NOW)
    assert await letters.take(NOW - MINUTE) is None
    assert [(await take(letters)).letter, (await take(letters)).letter] == [first, second]


async def test_the_same_key_is_queued_once_ever(dsn: str) -> None:
    async with open_recorder(dsn) as recorder:
        await recorder.letters.post([letter(), letter(number=2)], NOW)
        await recorder.letters.post([letter(number=3)], NOW)
        taken = await take(recorder.letters)
        assert taken.letter.message_id == "<welcome-1@example.com>"
        await recorder.letters.sent(taken.id, NOW)
        await recorder.letters.post([letter(number=4)], NOW)
        assert await recorder.letters.take(NOW) is None
    # Whoever is the next writer knows it too.
    async with open_recorder(dsn) as recorder:
        await recorder.letters.post([letter(number=5)], NOW)
        assert await recorder.letters.take(NOW) is None


async def test_one_that_could_not_be_sent_is_due_again(letters: PostgresLetters) -> None:
    await letters.post([letter()], NOW)
    assert await letters.next_due() == NOW
    taken = await take(letters)
    assert await letters.next_due() is None
    await letters.again(taken.id, "no connection\x00", NOW + MINUTE)
    assert await letters.next_due() == NOW + MINUTE
    assert await letters.take(NOW) is None
    assert (await take(letters, NOW + MINUTE)).attempts == 1


async def test_nothing_personal_stays_of_one_that_was_sent(dsn: str, letters: PostgresLetters) -> None:
    await letters.post([letter()], NOW)
    taken = await take(letters)
    before = await rows(dsn)
    assert all(word in before for word in HIDDEN)
    await letters.sent(taken.id, NOW)
    left = await rows(dsn)
    assert "sent" in left
    assert not [word for word in HIDDEN if word.lower() in left.lower()]


async def test_one_that_was_given_up_keeps_the_reason_and_nothing_personal(
    dsn: str, letters: PostgresLetters
) -> None:
    await letters.post([letter()], NOW)
    taken = await take(letters)
    await letters.give_up(taken.id, "550 <Annabel@Example.com>: no such mailbox", NOW)
    left = await rows(dsn)
    assert "no such mailbox" in left
    assert not [word for word in HIDDEN if word.lower() in left.lower()]
    assert await letters.next_due() is None
    assert await letters.take(NOW + 9 * MINUTE) is None


async def test_a_thousand_are_posted_at_once(letters: PostgresLetters) -> None:
    await letters.post([letter(f"key {number}", number) for number in range(1000)], NOW)
    await letters.post([], NOW)
    assert (await take(letters)).letter.key == "key 0"


TAKES_A_LETTER = """
import asyncio, sys
from datetime import UTC, datetime
from aim.store.recorder import open_recorder

async def main():
    async with open_recorder(sys.argv[1]) as recorder:
        taken = await recorder.letters.take(datetime.now(UTC))
        print(taken.id, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_was_under_way_at_a_kill_is_told_and_not_taken_again(dsn: str) -> None:
    async with open_recorder(dsn) as recorder:
        await recorder.letters.post([letter("one"), letter("two")], NOW)
        assert await recorder.letters.interrupted() == []
    async with neighbour(TAKES_A_LETTER, dsn) as sender:
        taken = int(await sender.line())
        await sender.kill()
    async with asyncio.timeout(30), open_recorder(dsn, wait=True) as recorder:
        [lost] = await recorder.letters.interrupted()
        assert (lost.id, lost.letter, lost.attempts) == (taken, letter("one"), 1)
        assert (await take(recorder.letters)).letter == letter("two")
        await recorder.letters.give_up(taken, "nobody knows", NOW)
        assert [one.letter for one in await recorder.letters.interrupted()] == [letter("two")]


def test_the_store_offers_its_port_and_nothing_else() -> None:
    def methods(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert methods(PostgresLetters) == methods(LetterStore)
