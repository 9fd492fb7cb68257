"""What carrying out a plan takes: the ports, the clock, and what all rooms of one plan share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from aim.desired.rooms import Desired
from aim.ports import (
    AccountReader,
    AccountWriter,
    Announcer,
    HomeserverWriter,
    Outcome,
    Recorder,
    Registrar,
)
from aim.provisioner.rooms import Rooms
from aim.provisioner.settled import Settled
from aim.world.accounts import Account


async def _nobody(_: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Wired once."""

    writer: HomeserverWriter
    recorder: Recorder
    now: Callable[[], datetime]
    """UTC."""
    server_name: str
    bot: str = ""
    """Our own MXID, which keys our marker in rooms that people made."""
    instance: str = ""
    """`appservice.id`, which that marker names."""
    parallelism: int = 16
    settle: float = 60.0
    """Seconds after which a `createRoom` whose answer was lost can't be under way any more."""
    accounts: AccountWriter | None = None
    """None where the configuration asks for nothing of accounts."""
    known_accounts: AccountReader | None = None
    registrar: Registrar | None = None
    """None where the configuration does not let us make accounts."""
    found_account: Callable[[str], Awaitable[None]] = _nobody
    """Told the localpart of an account that is there now, so that nobody makes it again. May raise
    StoreError."""
    announcer: Announcer | None = None
    """None: nobody is told anything by mail."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    notice: Callable[[str], None] = lambda _: None
    """Told in words when something takes long without anything to show for it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One plan being carried out."""

    rooms: Rooms
    settled: Settled
    desired: Desired
    accounts: Mapping[str, Account]
    """By localpart, as they were when it was planned."""
    tools: Tools
    gate: asyncio.Semaphore
    """So many requests at once."""
    stopping: asyncio.Event
    progress: Callable[[Outcome], None]
