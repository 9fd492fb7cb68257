"""A client that costs little, so that what is measured is the server.

    prepared requests ─► a few connections, kept open ─► answers, and how long each took

One event loop, one request at a time on each connection. Answers are cut out of the stream and not read: what
is in them is decoded where somebody asks for it.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

HOST = "127.0.0.1"

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as it came."""

    status: int
    raw: bytes
    chunked: bool

    def json(self) -> Any:
        return json.loads(_joined(self.raw) if self.chunked else self.raw)


def _joined(raw: bytes) -> bytes:
    """A body without the sizes of its chunks (RFC 9112, 7.1)."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = raw.index(b"\r\n", at)
        size = int(raw[at:end], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


class Connection(asyncio.Protocol):
    """One connection. Made by `connected`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._head = 0
        """Where the body begins; 0: not known yet."""
        self._end = 0
        """Where it ends; 0: with its last chunk."""
        self._status = 0
        self._waiting: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Raises ConnectionError if the server hangs up."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._head and not self._read_head():
            return
        if len(self._came) < self._end if self._end else not self._came.endswith(_LAST_CHUNK):
            return
        answer = Answer(self._status, bytes(self._came[self._head :]), not self._end)
        self._came.clear()
        self._head = 0
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def _read_head(self) -> bool:
        end = self._came.find(_HEAD_END)
        if end < 0:
            return False
        head = bytes(self._came[:end])
        length = _LENGTH.search(head)
        self._status = int(head[9:12])
        self._head = end + len(_HEAD_END)
        is_chunked = length is None and _CHUNKED.search(head) is not None
        self._end = 0 if is_chunked else self._head + (int(length[1]) if length else 0)
        return True

    def connection_lost(self, _: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("the server hung up"))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


@asynccontextmanager
async def connected(port: int, clients: int) -> AsyncIterator[Sequence[Connection]]:
    """So many connections to that port of this machine, closed at the end."""
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(Connection, HOST, port))[1] for _ in range(clients)]
    try:
        yield made
    finally:
        for connection in made:
            connection.close()


# -- what is measured ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to go on."""

    seconds: float
    at_least: int
    """Requests, even if that takes longer."""
    at_most: int


@dataclass(frozen=True, slots=True)
class Run:
    """What was found."""

    seconds: Sequence[float]
    """Of each request."""
    elapsed: float
    processor: float
    """Seconds that the client itself computed."""
    answers: Sequence[Answer]
    """All of them, or the last one only."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.seconds) / self.elapsed


async def drive(
    connections: Sequence[Connection], requests: Iterator[bytes], limits: Limits, *, keep: bool = False
) -> Run:
    """Sends one request after the other on each connection. RuntimeError if one is not answered with 2xx."""
    seconds: list[float] = []
    answers: list[Answer] = []
    sent = 0
    started, computed = time.perf_counter(), time.process_time()

    async def client(connection: Connection) -> None:
        nonlocal sent
        while sent < limits.at_most and (
            sent < limits.at_least or time.perf_counter() - started < limits.seconds
        ):
            sent += 1
            request = next(requests)
            begun = time.perf_counter()
            answer = await connection.ask(request)
            seconds.append(time.perf_counter() - begun)
            if answer.status // 100 != 2:
                raise RuntimeError(
                    f"{request[:100]!r} was answered with {answer.status}: {answer.raw[:500]!r}"
                )
            if not keep:
                answers.clear()
            answers.append(answer)

    async with asyncio.TaskGroup() as clients:
        for connection in connections:
            clients.create_task(client(connection))
    elapsed = time.perf_counter() - started
    return Run(seconds, elapsed, time.process_time() - computed, answers)


def percentile(seconds: Sequence[float], share: float) -> float:
    """The time within which that share of all were answered."""
    return sorted(seconds)[max(ceil(share * len(seconds)), 1) - 1]
