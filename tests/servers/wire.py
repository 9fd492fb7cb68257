"""The way of an answer to a client of the stand-in: steps in, bytes out, until the connection is to end."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import assert_never

from tests.servers import ldap_messages as ldap
from tests.servers.answers import (
    Cut,
    CutAfter,
    Done,
    Entry,
    Hold,
    Pause,
    Raw,
    Reference,
    Renumber,
    Step,
    Trickle,
)


class HungUp(Exception):
    """We have closed the connection."""


class Wire:
    """The way of one answer to the client."""

    def __init__(self, writer: asyncio.StreamWriter, identity: int) -> None:
        self._writer = writer
        self._id = identity
        self._left: int | None = None
        self._piece: int | None = None

    async def take(self, step: Step) -> None:
        match step:
            case Entry() | Reference() | Done() | Raw():
                await self._write(_encoded(step, self._id))
            case Pause():
                await asyncio.sleep(step.seconds)
            case Hold():
                await step.wait()
            case Cut():
                self._close(step.reset)
            case CutAfter():
                self._left = step.count
            case Trickle():
                self._piece = step.size
            case Renumber():
                self._id = step.id
            case _:
                assert_never(step)

    async def _write(self, data: bytes) -> None:
        kept = data if self._left is None else data[: self._left]
        size = self._piece or max(1, len(kept))
        for start in range(0, len(kept), size):
            self._writer.write(kept[start : start + size])
            await self._writer.drain()
            if self._piece:
                # Lets the piece go out by itself.
                await asyncio.sleep(0)
        if self._left is not None:
            self._left -= len(kept)
            if not self._left:
                self._close(reset=False)

    def _close(self, reset: bool) -> None:
        if reset:
            connection = self._writer.get_extra_info("socket")
            # Nothing lingers: what is not sent yet is forgotten, and the other side is told so (RST).
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()
        raise HungUp


def _encoded(step: Entry | Reference | Done | Raw, identity: int) -> bytes:
    match step:
        case Entry():
            return ldap.message(identity, ldap.search_entry(step.dn, step.attributes))
        case Reference():
            return ldap.message(identity, ldap.search_reference(step.uris))
        case Done():
            operation = ldap.result(
                ldap.SEARCH_DONE, step.code, step.message, matched=step.matched, referrals=step.referrals
            )
            return ldap.message(identity, operation, step.controls)
        case Raw():
            return step.make(identity)
