"""A directory that is pushed by SCIM, down to the spaces of a real Synapse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aim.demo.homeserver import free_port
from tests.e2e.kit import Stage, until
from tests.e2e.test_usage_scenarios import FIRST, is_

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
TOKEN = "a-token-for-the-client"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


class Client:
    """Whoever pushes."""

    def __init__(self, stage: Stage, port: int) -> None:
        self._session = stage.homeserver.session
        self._url = f"http://127.0.0.1:{port}"

    async def send(
        self, method: str, path: str, body: Json | None = None, token: str = TOKEN
    ) -> tuple[int, Json]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/scim+json"}
        async with self._session.request(method, self._url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_length else {}

    async def add(self, path: str, **body: object) -> str:
        schema = USER if path == "/Users" else GROUP
        status, answer = await self.send("POST", path, {"schemas": [schema], **body})
        assert status == 201, answer
        return str(answer["id"])

    async def patch(self, path: str, *operations: Json) -> None:
        status, answer = await self.send("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})
        assert status in {200, 204}, answer


def pushed_to(stage: Stage) -> Client:
    """The stage's source is SCIM, on a port of its own."""
    port = free_port()
    stage.configure(
        source={"type": "scim", "port": port, "client": {"id": "yard", "token": TOKEN}},
        spaces=[{"id": "lab", "name": "Lab", "groups": [{"externalId": "Researchers"}]}],
    )
    return Client(stage, port)


def asked_in(stage: Stage, localpart: str) -> Callable[[], Awaitable[bool]]:
    """A condition: the space is there, and they are asked into it."""

    async def check() -> bool:
        return "lab" in await stage.rooms() and await stage.membership("lab", localpart) == "invite"

    return check


async def test_entra_creates_people_and_a_group_moves_one_and_disables_one(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_to(stage)
    names = ("scim.ann", "scim.bob", "scim.cleo")
    await stage.homeserver.register(*names)
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        found, answer = await client.send("GET", '/Users?filter=userName eq "nobody-of-that-name"')
        assert (found, answer["totalResults"]) == (200, 0)
        ann, bob, cleo = [await client.add("/Users", userName=name, active=True) for name in names]
        group = await client.add("/Groups", displayName="Researchers", members=[{"value": ann}])
        await client.patch(
            f"/Groups/{group}", {"op": "Add", "path": "members", "value": [{"value": bob}, {"value": cleo}]}
        )
        for name in names:
            await until(asked_in(stage, name), f"{name} is asked in", FIRST)
        await stage.join_all(*names)

        # Not all may be there yet: nobody is removed.
        await client.patch(f"/Groups/{group}", {"op": "Remove", "path": "members", "value": [{"value": bob}]})
        await until(lambda: "still being filled" in daemon.err, "it waits", FIRST)
        assert await stage.membership("lab", "scim.bob") == "join"
        status = await stage.aim("scim", "status")
        assert (status.code, "3 users (3 active), 1 groups, 2 memberships" in status.out) == (0, True), status

        assert (await stage.aim("scim", "ready", "--yes")).code == 0
        await until(is_(stage, "scim.bob", "lab", "leave"), "bob moved", FIRST)
        await client.patch(f"/Users/{cleo}", {"op": "Replace", "path": "active", "value": "False"})
        await until(is_(stage, "scim.cleo", "lab", "leave"), "cleo is disabled", FIRST)
        assert await stage.membership("lab", "scim.ann") == "join"
        assert (await client.send("GET", "/Users", token="wrong"))[0] == 401
        assert (await daemon.terminate()).code == 0
    assert TOKEN not in daemon.err


async def test_what_was_acknowledged_survives_a_kill(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_to(stage)
    await stage.homeserver.register("scim.dora")
    async with stage.daemon() as daemon:
        await daemon.says("started")
        dora = await client.add("/Users", userName="scim.dora")
        await client.add("/Groups", displayName="Researchers", members=[{"value": dora}])
        await daemon.kill()
    async with stage.daemon():
        await until(asked_in(stage, "scim.dora"), "dora is asked in", FIRST)
