"""The stand-in for Microsoft Graph, in a process of its own: its time and memory are not ours.

`graph` ─► stdin: how large the tenant is; then a line for each wish
        ◄─ stdout: where it answers, and how few requests would do; then what became of the wish

It is the stand-in of the tests, which refuses what Graph's documentation does not allow.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aim.bridges.msgraph.settings import ClientSecret, GraphSettings
from bench.conversation import Talk, heard, say, talking
from tests.servers.certificates import Certificates
from tests.servers.graph import CLIENT_ID, CLIENT_SECRET, TENANT_ID, Graph
from tests.servers.graph_tenant import GROUPS, USERS

COUNT, CHANGE = "count", "change"


@dataclass(frozen=True, slots=True)
class Tenant:
    """How large it is."""

    users: int
    groups: int
    members: int
    """Users in each group."""
    nested: int
    """Groups that are in another one."""

    @property
    def memberships(self) -> int:
        return self.groups * self.members + self.nested

    @property
    def objects(self) -> int:
        return self.users + self.groups

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.groups:,} groups, {self.memberships:,} direct members"


# -- the process that answers --------------------------------------------------------------------------------


async def serve() -> None:
    """Answers until standard input ends."""
    tenant = Tenant(**json.loads(await heard()))
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        async with Graph(certificates.server("127.0.0.1"), certificates.ca) as graph:
            graph.tenant.fill(**asdict(tenant))
            users, groups = graph.model.least_pages()
            # One more for the name of the organisation.
            say({"url": graph.url, "ca": str(graph.ca), "least": users + groups + 1})
            while wish := await heard():
                if wish.strip() == CHANGE:
                    _change(graph)
                say({"asked": dict(graph.requests.most_common()), "faults": _faults(graph)})
                graph.forget()


def _change(graph: Graph) -> None:
    """Ten changes: five users are called otherwise, and join a group each."""
    users, groups = graph.tenant.all(USERS), graph.tenant.all(GROUPS)
    for number in range(5):
        graph.tenant.change(users[number].id, displayName=f"New {number}")
        outside = next(user for user in users if user.id not in groups[number].members)
        graph.tenant.join(groups[number].id, outside.id)


def _faults(graph: Graph) -> list[str]:
    return [*graph.model.refusals, *(f"{asked.host}{asked.path}" for asked in graph.strays)]


# -- the side that asks --------------------------------------------------------------------------------------


class Server:
    """The running process. Made by `running_server`."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._at: Mapping[str, Any] = {}

    async def begin(self, tenant: Tenant) -> None:
        """The tenant is that large."""
        self._at = await self._talk.told(json.dumps(asdict(tenant)))

    @property
    def settings(self) -> GraphSettings:
        """As a configuration would give them."""
        url = self._at["url"]
        return GraphSettings(
            tenant_id=TENANT_ID,
            client_id=CLIENT_ID,
            credential=ClientSecret(value=CLIENT_SECRET),
            authority=url,
            base_url=url,
            scopes=(f"{url}/.default",),
            ca_cert=Path(self._at["ca"]),
        )

    @property
    def least(self) -> int:
        """Requests that a complete read takes at least, without those for a token."""
        return int(self._at["least"])

    async def asked(self) -> dict[str, int]:
        """What was asked since the last time: what for → how often. Raises RuntimeError if anything should
        not have been."""
        return await self._wish(COUNT)

    async def change(self) -> None:
        """Ten things change."""
        await self._wish(CHANGE)

    async def _wish(self, wish: str) -> dict[str, int]:
        found = await self._talk.told(wish)
        if found["faults"]:
            raise RuntimeError(f"never to be asked: {found['faults'][0]}")
        return {str(kind): int(count) for kind, count in found["asked"].items()}


@asynccontextmanager
async def running_server(tenant: Tenant) -> AsyncIterator[Server]:
    """A process that answers for such a tenant; it ends with the context."""
    async with talking("bench.graph_server", "the stand-in for Graph") as talk:
        server = Server(talk)
        await server.begin(tenant)
        yield server


if __name__ == "__main__":
    asyncio.run(serve())
