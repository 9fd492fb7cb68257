"""What the journeys with SCIM share: a client that pushes, and a stage whose source it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aim.demo.homeserver import free_port
from tests.e2e.kit import Stage

Json = dict[str, Any]
TOKEN = "a-token-for-the-client"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
LAB: Sequence[Json] = ({"id": "lab", "name": "Lab", "groups": [{"externalId": "Researchers"}]},)


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

    async def found(self, path: str, filter_: str = "", **parameters: object) -> Json:
        """What a search finds."""
        if filter_:
            parameters["filter"] = filter_
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        status, answer = await self.send("GET", f"{path}?{query}")
        assert status == 200, answer
        return answer

    async def add(self, path: str, **body: object) -> str:
        """Makes a resource, and gives its id. `schemas` needs no saying."""
        schema = USER if path == "/Users" else GROUP
        status, answer = await self.send("POST", path, {"schemas": [schema], **body})
        assert status == 201, answer
        return str(answer["id"])

    async def patch(self, path: str, *operations: Json) -> None:
        status, answer = await self.send("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})
        assert status in {200, 204}, answer


def pushed_to(
    stage: Stage, client: Mapping[str, object] | None = None, spaces: Sequence[Json] = LAB
) -> Client:
    """The stage's source is SCIM, on a port of its own; `client` has more of its section."""
    port = free_port()
    stage.configure(
        source={"type": "scim", "port": port, "client": {"id": "yard", "token": TOKEN, **(client or {})}},
        spaces=list(spaces),
    )
    return Client(stage, port)


def asked_in(stage: Stage, localpart: str, key: str = "lab") -> Callable[[], Awaitable[bool]]:
    """A condition: the room is there, and they are asked into it."""

    async def check() -> bool:
        return key in await stage.rooms() and await stage.membership(key, localpart) == "invite"

    return check
