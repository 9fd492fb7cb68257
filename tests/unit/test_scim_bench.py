"""The benchmark of SCIM: its client reads what servers send, and it tells what is reached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bench.scim import AT_LEAST, SIZES, TOY, Measured, scim_tables
from bench.scim_client import HOST, Answer, Limits, Run, connected, drive, percentile
from bench.scim_operations import Asked, Operation, request, user
from bench.scim_servers import TOKEN, Which

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}'
CHUNKED = b'HTTP/1.1 201 \r\ntransfer-encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":2}\r\n0\r\n\r\n'
EMPTY = b'HTTP/1.1 204 No Content\r\nETag: W/"1"\r\n\r\n'
REFUSED = b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[int]:
    """A server that gives these in turn, a byte at a time; then it hangs up. Gives its port."""
    left = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            answer = next(left, None)
            if answer is None:
                break
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def asked() -> Iterator[bytes]:
    while True:
        yield request(Which.REFERENCE, "GET", "/Users/7")


def exactly(count: int) -> Limits:
    return Limits(0, count, count)


# -- the client ----------------------------------------------------------------------------------------------


async def test_answers_are_cut_out_of_the_stream_however_they_are_framed() -> None:
    async with answering(PLAIN, CHUNKED, EMPTY, PLAIN) as port, connected(port, 1) as connections:
        run = await drive(connections, asked(), exactly(4), keep=True)

    assert [answer.status for answer in run.answers] == [200, 201, 204, 200]
    assert [answer.json() for answer in run.answers if answer.raw] == [{"a": 1}, {"a": 2}, {"a": 1}]
    assert len(run.seconds) == 4
    assert 0 < sum(run.seconds) <= run.elapsed


async def test_only_the_last_answer_is_kept_unless_all_are_wanted() -> None:
    async with answering(PLAIN, CHUNKED) as port, connected(port, 1) as connections:
        run = await drive(connections, asked(), exactly(2))

    assert [answer.status for answer in run.answers] == [201]
    assert len(run.seconds) == 2


async def test_several_clients_ask_as_often_as_they_should() -> None:
    async with answering(*[PLAIN] * 20) as port, connected(port, 4) as connections:
        run = await drive(connections, asked(), Limits(0, 10, 1_000))

    assert 10 <= len(run.seconds) <= 14


async def test_a_refusal_ends_the_benchmark() -> None:
    async with answering(REFUSED) as port, connected(port, 1) as connections:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="was answered with 409")):
            await drive(connections, asked(), exactly(1))


async def test_a_server_that_hangs_up_ends_the_benchmark() -> None:
    async with answering() as port, connected(port, 1) as connections:
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionError, match="hung up")):
            await drive(connections, asked(), exactly(1))


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_time_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected
    assert percentile([3.0], share) == 3.0


# -- what is asked -------------------------------------------------------------------------------------------


def test_a_request_is_whole() -> None:
    head, _, body = request(Which.OURS, "POST", "/Users", user(7)).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /scim/v2/Users HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Bearer {TOKEN}\r\n".encode() in head
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    assert json.loads(body)["userName"] == "person000007@example.com"


def test_a_request_without_a_body_says_nothing_of_one() -> None:
    assert b"Content-" not in request(Which.NOTHING, "GET", "/Users/7")


# -- what is shown -------------------------------------------------------------------------------------------


def run_of(rate: float) -> Run:
    """A run with that many requests a second, one of them slow."""
    return Run([1 / rate] * 9 + [2 / rate], 10 / rate, 0.0, [Answer(200, b"{}", chunked=False)])


def measured(factor: float) -> Measured:
    """Everything as many times as fast as is wanted, times `factor`; the rounds on either side differ."""
    runs = {
        operation: {
            Which.OURS: [Asked(run_of(least * factor * turn), 0.02) for turn in (5, 10, 90)],
            Which.REFERENCE: [Asked(run_of(turn), 0.04) for turn in (10, 1, 20)],
        }
        for operation, least in AT_LEAST.items()
    }
    memory = {"ours": (90.0, 110.0), "reference": (70.0, 200.0), "Postgres": (40.0, 80.0)}
    return Measured(SIZES, runs, run_of(4_000), memory)


def test_medians_of_rates_are_compared() -> None:
    assert measured(1.0).times(Operation.GET_WITH) == pytest.approx(20)


@pytest.mark.parametrize(("factor", "said"), [(1.01, "yes"), (0.99, "NO")])
def test_the_tables_say_what_is_reached(factor: float, said: str) -> None:
    rates, memory, aims = scim_tables(measured(factor))

    assert len(rates.rows) == len(Operation) + 1
    assert [row[0] for row in aims.rows] == list(Operation)
    assert {row[-1] for row in aims.rows} == {said}
    assert rates.rows[0][3:8:4] == ("2.0 ms", "4.0 ms")
    assert memory.rows[1] == ("reference", "70 MB", "200 MB")


def test_a_toy_reaches_nothing() -> None:
    titles = [table.title for table in scim_tables(replace(measured(2.0), sizes=TOY))]

    assert len(titles) == 2
    assert not any("reached" in title for title in titles)
