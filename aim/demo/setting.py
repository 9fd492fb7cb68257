"""The demo's stage: a folder with a configuration, the embedded Postgres, a real Synapse with accounts.

Goes up by the same commands and files that an administrator would use.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aim.demo.homeserver import DemoSynapse, free_port
from aim.demo.organisation import Organisation
from aim.demo.people import People
from aim.store import embedded

SERVER_NAME = "harbour.example"
ADMIN = "root"
WITHOUT_ACCOUNT = 3
"""So many of the last people have never logged in."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything is up."""

    directory: Path
    synapse: DemoSynapse
    people: People
    password: str
    """Of every account."""

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def ldif(self) -> Path:
        return self.directory / "directory.ldif"

    def give(self, organisation: Organisation) -> None:
        """The directory is like this now. Replaced at once, never seen half written."""
        draft = self.ldif.with_suffix(".new")
        draft.write_text(organisation.ldif(), encoding="utf-8")
        draft.replace(self.ldif)

    async def aim(self, *arguments: str) -> int:
        """Runs an `aim` command as a person would, on this terminal; gives its exit code."""
        return await run_aim(self.config, arguments)


@asynccontextmanager
async def setting(directory: Path, organisation: Organisation) -> AsyncIterator[Setting]:
    """Sets up in an empty folder, and takes everything down in the end."""
    port = free_port()
    password = secrets.token_urlsafe(9)
    config = directory / "config.yaml"
    config.touch(mode=0o600)
    config.write_text(json.dumps(_config(port), indent=1), encoding="utf-8")
    (directory / "directory.ldif").write_text(organisation.ldif(), encoding="utf-8")
    await run_aim(config, ["registration", "--out", str(directory)], quiet=True)
    registrations = [directory / "aim-listener.yaml", directory / "aim-actor.yaml"]
    async with (
        DemoSynapse(directory / "synapse", SERVER_NAME, registrations, port) as synapse,
        # Held open, so that the commands don't start and stop it one by one.
        embedded(directory / "data", create=True),
    ):
        await synapse.register(ADMIN, password, admin=True, displayname="Administrator")
        tokens = {
            person.uid: await synapse.register(person.uid, password, displayname=person.name)
            for person in organisation.people[:-WITHOUT_ACCOUNT]
        }
        yield Setting(directory, synapse, People(synapse.base_url, tokens), password)


async def run_aim(config: Path, arguments: Sequence[str], *, quiet: bool = False) -> int:
    """One command, in a process of its own."""
    command = [sys.executable, "-m", "aim", *arguments]
    environ = {**os.environ, "AIM_CONFIG": str(config)}
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=subprocess.DEVNULL if quiet else None, stdin=subprocess.DEVNULL
    )
    return await process.wait()


def _config(port: int) -> dict[str, object]:
    """JSON is YAML."""
    return {
        "homeserver": {"url": f"http://127.0.0.1:{port}", "server_name": SERVER_NAME, "admin_user": ADMIN},
        "appservice": {name: secrets.token_hex(24) for name in ("as_token", "hs_token", "actor_token")},
        "data_dir": "data",
        "source": {"type": "ldif", "path": "directory.ldif", "check_interval_seconds": 2},
        "provisioner": {
            "default_rooms": [
                {"id": "general", "properties": {"name": "General", "topic": "Everything and nothing"}},
                {
                    "id": "news",
                    "properties": {"name": "News", "suggested": True, "history_visibility": "shared"},
                },
            ]
        },
        "spaces": [
            {
                "id": "harbour",
                "name": "Harbour Works",
                "groups": [
                    {"externalId": ""},
                    {"externalId": "cn=leads,dc=harbour,dc=example", "powerLevel": 50},
                ],
                "subspaces": [
                    {
                        "id": "engineering",
                        "name": "Engineering",
                        "groups": [
                            {"externalId": "ou=engineering,dc=harbour,dc=example"},
                            {
                                "externalId": "cn=engineering-moderators,dc=harbour,dc=example",
                                "powerLevel": 50,
                            },
                        ],
                    },
                    {
                        "id": "support",
                        "name": "Support",
                        "groups": [
                            {"externalId": "ou=support,dc=harbour,dc=example"},
                            {"externalId": "cn=support-moderators,dc=harbour,dc=example", "powerLevel": 50},
                        ],
                    },
                    {
                        "id": "sales",
                        "name": "Sales",
                        "groups": [{"externalId": "ou=sales,dc=harbour,dc=example"}],
                    },
                ],
            }
        ],
    }
