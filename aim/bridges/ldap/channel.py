"""One connection to a server: requests that ldap3 encodes go out, messages that `ber` reads come in.

Stands between `connect`, which makes the connection, and everything that asks something. It gives messages as
places in the bytes that came; who asked decodes them. A whole answer has `timeout` seconds.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple

from ldap3 import BASE, DEREF_NEVER
from ldap3.core.exceptions import LDAPException
from ldap3.operation.search import search_operation

from aim.bridges.ldap import ber, faults
from aim.directory.entries import Entry
from aim.errors import SourceInvalid, SourceUnavailable

_CHUNK = 256 * 1024
_DISCONNECTION = "1.3.6.1.4.1.1466.20036"
_FINAL = {ber.BIND_RESPONSE, ber.SEARCH_DONE, ber.EXTENDED_RESPONSE}
EVERYTHING = "(objectClass=*)"


class Line:
    """Lets somebody else, in another thread, cut a connection that is being made or used."""

    def __init__(self) -> None:
        self._cut = Event()
        self._socket: socket.socket | None = None

    def hold(self, connected: socket.socket) -> None:
        """From now on this is what `cut` ends. Raises SourceUnavailable if it was cut before."""
        self._socket = connected
        if self._cut.is_set():
            raise SourceUnavailable("the read was given up", "")

    def cut(self) -> None:
        """Whoever waits on the connection stops waiting, with an error."""
        self._cut.set()
        if self._socket is not None:
            with suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)


class Piece(NamedTuple):
    """A message and the bytes it is in."""

    buffer: bytes
    message: ber.Message


class Run(NamedTuple):
    """Entries one after the other, and the bytes they are in."""

    buffer: bytes
    places: list[tuple[int, int]]
    """Where the content of each begins and ends."""


@dataclass(slots=True)
class Answer:
    """A small search's whole answer."""

    result: ber.Result
    controls: dict[str, bytes]
    entries: list[Entry] = field(default_factory=list)


class Channel:
    """Requests and answers over ldap3's connection. One at a time; not for use by two threads."""

    def __init__(self, connection: Any, uri: str, timeout: float, secret: str | None) -> None:
        """`secret`, our password, is hidden wherever a server repeats it."""
        self._connection = connection
        self._secret = secret
        self.is_new = True
        """Until somebody is logged in."""
        self.uri = uri
        self.timeout = timeout
        """Seconds for a whole answer."""
        self._buffer = b""
        self._place = 0

    def send(self, kind: str, request: Any, controls: Sequence[Any] = ()) -> int:
        """Sends a request in ldap3's form; gives its message id. Raises SourceUnavailable."""
        try:
            number: int = self._connection.send(kind, request, list(controls) or None)
        except (LDAPException, OSError) as error:
            raise self._cut(str(error)) from error
        return number

    def answer(self, number: int) -> Iterator[Piece]:
        """The messages that answer request `number`, up to the one that ends the answer.

        Raises SourceUnavailable if they don't come, SourceInvalid if they are malformed.
        """
        last = time.monotonic() + self.timeout
        while True:
            piece = self._next(last)
            if piece.message.id == number:
                yield piece
                if piece.message.operation in _FINAL:
                    return
            elif piece.message.id == 0 and piece.message.operation == ber.EXTENDED_RESPONSE:
                self._notice(piece)
            else:
                raise faults.malformed(self.uri, "an answer to a question nobody asked")

    def quick_answer(self, number: int) -> Iterator[Piece | Run]:
        """The same for an answer of many entries, which come as runs of all that are there already."""
        beginning = ber.beginning(number)
        pieces = self.answer(number)
        while True:
            places, self._place = ber.entries_at(self._buffer, self._place, beginning)
            if places:
                yield Run(self._buffer, places)
            piece = next(pieces, None)
            if piece is None:
                return
            buffer, message = piece
            is_entry = message.operation == ber.SEARCH_ENTRY
            yield Run(buffer, [(message.start, message.end)]) if is_entry else piece

    def final(self, number: int) -> ber.Result:
        """How request `number` ended, for those that have one answer only."""
        *_, piece = self.answer(number)
        return self.result(piece)

    def result(self, piece: Piece) -> ber.Result:
        """The result that a final message carries."""
        with faults.decoding(self.uri):
            result = ber.result(piece.buffer, piece.message.start, piece.message.end)
        return result._replace(
            message=self.discreet(result.message),
            matched_dn=self.discreet(result.matched_dn),
            referrals=tuple(self.discreet(uri) for uri in result.referrals),
        )

    def controls(self, piece: Piece) -> dict[str, bytes]:
        """The controls of a message."""
        with faults.decoding(self.uri):
            return ber.controls(piece.buffer, piece.message.end, piece.message.stop)

    def discreet(self, said: str) -> str:
        """What a server says, without our password."""
        return said.replace(self._secret, "…") if self._secret else said

    @property
    def is_drained(self) -> bool:
        """Whether nothing has come that was not asked for."""
        return self._place == len(self._buffer)

    # -- a small search ----------------------------------------------------------------------------------

    def ask(
        self,
        base: str,
        attributes: Sequence[str],
        *,
        search_filter: str = EVERYTHING,
        scope: str = BASE,
        controls: Sequence[Any] = (),
        limit: int = 0,
    ) -> Answer:
        """A search whose answer is small: all its entries, and its result, whatever that is."""
        request = search_request(base, scope, search_filter, attributes, limit)
        number = self.send("searchRequest", request, controls)
        entries = []
        names = ber.Names()
        for piece in self.answer(number):
            if piece.message.operation == ber.SEARCH_ENTRY:
                entries.append(self.entry(piece, names))
        return Answer(self.result(piece), self.controls(piece), entries)

    def entry(self, piece: Piece, names: ber.Names) -> Entry:
        """The entry that a message carries."""
        with faults.decoding(self.uri):
            return ber.entry(piece.buffer, piece.message.start, piece.message.end, names)

    # -- receiving ---------------------------------------------------------------------------------------

    def _next(self, last: float) -> Piece:
        with faults.decoding(self.uri):
            while True:
                message = ber.message(self._buffer, self._place)
                if message is not None:
                    self._place = message.stop
                    return Piece(self._buffer, message)
                self._receive(ber.missing(self._buffer, self._place), last)

    def _cut(self, why: str) -> SourceUnavailable:
        return faults.cut(self.uri, why, is_new=self.is_new)

    def _receive(self, missing: int, last: float) -> None:
        """Takes in at least `missing` bytes more, and what else is there."""
        chunks = [self._buffer[self._place :]]
        while True:
            chunk = self._chunk(last)
            chunks.append(chunk)
            missing -= len(chunk)
            if missing <= 0:
                break
        self._buffer, self._place = b"".join(chunks), 0

    def _chunk(self, last: float) -> bytes:
        wire = self._connection.socket
        try:
            # What is there already is taken, late or not.
            wire.settimeout(max(last - time.monotonic(), 0.001))
            chunk: bytes = wire.recv(_CHUNK)
        except TimeoutError as error:
            raise faults.silent(self.uri, self.timeout) from error
        except (OSError, ValueError) as error:
            raise self._cut(str(error)) from error
        if not chunk:
            raise self._cut("the server closed it")
        return chunk

    def _notice(self, piece: Piece) -> None:
        """The only thing a server says unasked: that it closes the connection, and why (RFC 4511, 4.4.1)."""
        result = self.result(piece)
        with faults.decoding(self.uri):
            name, _ = ber.named(piece.buffer, result.rest, piece.message.end, 0x8A)
        if name == _DISCONNECTION:
            raise self._cut(result.message or f"result {result.code}")


def search_request(
    base: str, scope: str, search_filter: str, attributes: Sequence[str], limit: int = 0
) -> Any:
    """A search in ldap3's form: aliases are never followed. Raises SourceInvalid if the filter is no
    filter."""
    try:
        return search_operation(
            base, search_filter, scope, DEREF_NEVER, list(attributes), limit, 0, False, None, None
        )
    except (LDAPException, ValueError, IndexError) as error:
        raise SourceInvalid(
            f"source.filter is no LDAP filter: {faults.told(str(error))}",
            "Write it as in RFC 4515, in parentheses: (!(ou=Domain Controllers)).",
        ) from error
