"""Where a measurement takes place: a homeserver between two clocks, a database, a folder, and `aim run`.

In: who we are on which homeserver, and the organisation. Out: a daemon as a process of its own, and what can
be told of it from outside: its requests, its metrics, its processor time.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from aim.demo.homeserver import free_port
from bench.live.clocks import Clock, Delivery
from bench.live.organisation import Organisation
from tests.e2e.kit import Command, start_aim
from tests.servers.postgres import Postgres
from tests.servers.synapse import ADMIN, Appservice

HOST = "127.0.0.1"
PATIENCE = 600.0
"""Seconds after which something that should happen is given up on."""
LOOK_EVERY = 1
"""Seconds between two looks at the directory, and so between two polls."""
PARALLELISM = 16
"""Requests at a time, as by default."""
_PAUSE = 0.02
_UNGUARDED = {scope: {"at_least": 1_000_000} for scope in ("per_space", "organisation")}
"""Corrections follow each other faster than in life."""


@dataclass(frozen=True, slots=True)
class Place:
    """A homeserver, and who we are there."""

    base_url: str
    server_name: str
    appservice: Appservice
    """Its `port` is where the homeserver delivers."""

    @property
    def bot(self) -> str:
        return self.mxid(self.appservice.sender_localpart)

    def mxid(self, localpart: str) -> str:
        return f"@{localpart}:{self.server_name}"


class Stage:
    """One daemon's surroundings. Made by `open_stage`."""

    def __init__(
        self, folder: Path, place: Place, organisation: Organisation, clock: Clock, delivery: Delivery
    ) -> None:
        self.folder = folder
        self.place = place
        self.organisation = organisation
        self.clock = clock
        """Counts what aim asks of the homeserver."""
        self.delivery = delivery
        """Counts what the homeserver delivers."""
        self.port = free_port()
        """Where aim listens."""
        delivery.target = self.url

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def ldif(self) -> Path:
        return self.folder / "directory.ldif"

    def configure(self, database: str) -> None:
        """Writes the configuration and the directory."""
        appservice = self.place.appservice
        config: dict[str, Any] = {
            "homeserver": {
                "url": self.clock.url,
                "server_name": self.place.server_name,
                "admin_user": ADMIN,
            },
            "appservice": {
                "id": appservice.id,
                "sender_localpart": appservice.sender_localpart,
                "as_token": appservice.as_token,
                "hs_token": appservice.hs_token,
                "actor_token": appservice.actor_token,
            },
            "listen": {"host": HOST, "port": self.port},
            "database": {"url": database},
            "data_dir": "data",
            "source": {"type": "ldif", "path": "directory.ldif", "check_interval_seconds": LOOK_EVERY},
            "provisioner": {"parallelism": PARALLELISM, "guards": {"demotions": _UNGUARDED}},
            "spaces": self.organisation.config(),
        }
        # JSON is YAML.
        self.config_file.write_text(json.dumps(config), encoding="utf-8")
        self.ldif.write_text(self.organisation.ldif(), encoding="utf-8")

    def touch(self) -> None:
        """The directory was written anew, and says the same."""
        draft = self.ldif.with_suffix(".new")
        draft.write_text(self.ldif.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        draft.replace(self.ldif)

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Daemon]:
        """`aim run`, stopped at the end."""
        tokens = self.place.appservice
        secrets = [tokens.as_token, tokens.hs_token, tokens.actor_token]
        command = await start_aim(self.config_file, secrets, ["run"], {})
        async with aiohttp.ClientSession() as session:
            try:
                yield Daemon(command, self.url, session)
                ended = await command.terminate(PATIENCE)
                if ended.code:
                    raise RuntimeError(f"aim run failed: {ended.err}")
            finally:
                if command.is_running:
                    await command.kill()


class Daemon:
    """A running `aim run`, seen from outside."""

    def __init__(self, command: Command, url: str, session: aiohttp.ClientSession) -> None:
        self._command = command
        self._url = url
        self._session = session

    @property
    def said(self) -> str:
        """What it has said by now."""
        return self._command.err

    async def says(self, pattern: str) -> None:
        """Waits until it has said such words. Raises TimeoutError, RuntimeError if it ended before."""
        async with asyncio.timeout(PATIENCE):
            while not re.search(pattern, self._command.err):
                if not self._command.is_running:
                    raise RuntimeError(f"aim run ended: {self._command.err}")
                await asyncio.sleep(_PAUSE)

    async def cycles(self) -> int:
        """How many cycles came to a good end. Raises RuntimeError if one failed."""
        async with self._session.get(f"{self._url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
        }
        if found.get('aim_cycles_total{outcome="failed"}'):
            raise RuntimeError(f"a cycle failed: {self._command.err}")
        return int(found.get('aim_cycles_total{outcome="done"}', 0))

    async def more_cycles_than(self, count: int) -> None:
        """Waits for the end of another cycle. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if await self.cycles() > count:
                    return
                await asyncio.sleep(_PAUSE)

    @property
    def processor_seconds(self) -> float:
        """Processor time of the process since its start, in the system's ticks."""
        fields = Path(f"/proc/{self._command.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def open_stage(place: Place, organisation: Organisation, postgres: Postgres) -> AsyncIterator[Stage]:
    """A stage with an empty database, and a homeserver on which we have made nothing yet."""
    port = place.appservice.port
    assert port is not None, "nothing would be delivered"
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aim-bench-")))
        clock = await stack.enter_async_context(Clock(place.base_url))
        delivery = await stack.enter_async_context(Delivery(port))
        stage = Stage(folder, place, organisation, clock, delivery)
        stage.configure(await stack.enter_async_context(postgres.database()))
        yield stage
