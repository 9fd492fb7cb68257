"""How long a transaction that does not concern us takes, beside an empty one: `python -m bench.transactions`.

client ─► loopback ─► uvicorn, FastAPI, our endpoint ─► the mirror's take

A server in a process of its own, a client that writes prepared bytes and reads the answer. Both kinds take
turns on one connection, so that whatever else the machine does meets both. Wall-clock time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from aim.matrix.mirror import Mirror
    from bench.report import Table

REPETITIONS, TOY_REPETITIONS = 1000, 20
WARM_UP = 20
MESSAGES = 100
MOST_TIMES_EMPTY = 5.0

HOST, TOKEN = "127.0.0.1", "hs-token"
SERVER = "example.com"
ROOM, ROOMS = f"!uWfOwWkdLMAfhUPfCH:{SERVER}", 500
NOW = datetime(2026, 1, 1, tzinfo=UTC)
_LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class Transactions:
    """Seconds of each, and how large the messages were together."""

    empty: Sequence[float]
    messages: Sequence[float]
    size: int

    @property
    def times_empty(self) -> float:
        return median(self.messages) / median(self.empty)


def message(number: int) -> Mapping[str, object]:
    """A message as Synapse sends it, copies of an older format included."""
    sender = f"@person{number % 10}:{SERVER}"
    return {
        "age": 41,
        "content": {
            "body": f"Message {number}: shall we meet at ten, in the small room on the second floor?",
            "m.mentions": {},
            "msgtype": "m.text",
        },
        "event_id": f"${number:043d}",
        "origin_server_ts": 1_700_000_000_000 + number,
        "room_id": ROOM,
        "sender": sender,
        "type": "m.room.message",
        "unsigned": {"age": 41},
        "user_id": sender,
    }


# -- the server ----------------------------------------------------------------------------------------------


class _NeverAsked:
    """Stands for the store and the homeserver: of messages the mirror tells neither."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"the transaction was to hold messages only, and the mirror asked for {name}")


def make_mirror(rooms: int) -> Mirror:
    """The mirror as the daemon has it, of so many rooms; the messages are in one of them."""
    from aim.directory.roster import Roster
    from aim.matrix.accounts import Accounts
    from aim.matrix.mirror import Mirror
    from aim.matrix.parse import Home

    nobody = cast(Any, _NeverAsked())
    accounts = Accounts(nobody, SERVER)
    mirror = Mirror(
        nobody, Home(SERVER, f"@aim:{SERVER}", "aim"), Roster(), nobody, accounts, now=lambda: NOW
    )
    mirror.want([ROOM, *(f"!{number:018}:{SERVER}" for number in range(rooms - 1))])
    return mirror


async def serve() -> None:
    """Says its port on standard output, and answers until its standard input ends."""
    from aim.matrix.appservice import router
    from aim.ops.listening import application, listening
    from aim.ops.metrics import Metrics

    made = application([router(TOKEN, make_mirror(ROOMS).take)], Metrics(), lambda: True)
    async with listening(made, HOST, 0) as port:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


# -- who measures --------------------------------------------------------------------------------------------


def measure_transactions(repetitions: int) -> Transactions:
    """So many of both kinds, in turns."""
    events = [message(number) for number in range(MESSAGES)]
    command = [sys.executable, "-m", "bench.transactions", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        with socket.create_connection((HOST, int(server.stdout.readline()))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            numbers = iter(range(2 * (repetitions + WARM_UP)))
            pairs = [
                (_seconds(connection, next(numbers), []), _seconds(connection, next(numbers), events))
                for _ in range(repetitions + WARM_UP)
            ][WARM_UP:]
        server.communicate("")
    empty, messages = zip(*pairs, strict=True)
    return Transactions(empty, messages, len(_request(0, events)))


def _seconds(connection: socket.socket, number: int, events: Sequence[object]) -> float:
    request = _request(number, events)
    started = time.perf_counter()
    connection.sendall(request)
    answer = _answer(connection)
    seconds = time.perf_counter() - started
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the answer was {answer!r}")
    return seconds


def _request(number: int, events: Sequence[object]) -> bytes:
    body = json.dumps({"events": events}, separators=(",", ":")).encode()
    head = (
        f"PUT /_matrix/app/v1/transactions/{number} HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _answer(connection: socket.socket) -> bytes:
    """One answer, whole."""
    answer = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError(f"the server closed the connection after {answer!r}")
        answer += piece
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= _length(head):
            return answer


def _length(head: bytes) -> int:
    (line,) = (line for line in head.lower().splitlines() if line.startswith(_LENGTH))
    return int(line.removeprefix(_LENGTH))


# -- what is shown -------------------------------------------------------------------------------------------


def transaction_tables(found: Transactions) -> Iterator[Table]:
    """The times, and whether they are as wanted."""
    from bench.report import Table

    rows = [
        (name, f"{min(runs) * 1000:.2f} ms", f"{median(runs) * 1000:.2f} ms", f"{median(runs) / one:.2f}")
        for one in [median(found.empty)]
        for name, runs in (
            ("an empty one", found.empty),
            (f"{MESSAGES} messages, {found.size // 1000} kB", found.messages),
        )
    ]
    yield Table("Transactions", ("", "fastest", "median", "× an empty one"), rows)
    reached = "yes" if found.times_empty <= MOST_TIMES_EMPTY else "NO"
    aim = (
        "100 messages, × an empty transaction",
        f"{found.times_empty:.2f}",
        f"{MOST_TIMES_EMPTY:g}",
        reached,
    )
    yield Table("Transactions: reached", ("", "measured", "at most", "reached"), [aim])


def main() -> None:
    """Measures, or is the server that is measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.transactions", description="Transactions.")
    parser.add_argument("--small", action="store_true", help="a few, to see that everything works")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    from bench.report import machine, markdown

    print(machine())
    for table in transaction_tables(measure_transactions(TOY_REPETITIONS if options.small else REPETITIONS)):
        print(markdown(table))


if __name__ == "__main__":
    main()
