"""A real Synapse on which several of us can begin anew: an appservice for each measurement."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from aim.demo.homeserver import DemoSynapse, free_port
from bench.live.stage import Place
from tests.servers.synapse import ADMIN, SERVER_NAME, Homeserver, make_appservice, write_registrations


@asynccontextmanager
async def running_synapse(appservices: int) -> AsyncIterator[list[Homeserver]]:
    """As many views of one Synapse; all appservices are pushed to, each at a port of its own."""
    with tempfile.TemporaryDirectory(prefix="aim-bench-") as name:
        folder = Path(name)
        found, files = [], []
        for number in range(appservices):
            made = make_appservice(f"aim-{number}", f"aim-{number}", port=free_port())
            found.append(made)
            files += write_registrations(folder, made, SERVER_NAME)
        async with (
            DemoSynapse(folder / "data", SERVER_NAME, files) as server,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session,
        ):
            admin = await server.register(ADMIN, secrets.token_hex(8), admin=True)
            yield [
                Homeserver(server=server, appservice=made, admin_token=admin, session=session)
                for made in found
            ]


def place_of(homeserver: Homeserver) -> Place:
    return Place(homeserver.base_url, homeserver.server_name, homeserver.appservice)
