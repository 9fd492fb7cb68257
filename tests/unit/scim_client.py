"""A SCIM service in memory, and a client that talks to it as identity providers do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from aim.bridges.scim.resources import ENTERPRISE, GROUP, USER, Username
from aim.bridges.scim.rights import Grant, Rights
from aim.bridges.scim.server import ScimApplication
from aim.bridges.scim.writing import Hooks
from aim.ports.scim import ScimStore
from tests.unit.scim_store import MemoryScim

PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
TOKEN = "secret-of-entra"
BASE = "https://aim.example.com/scim/v2"

_numbers = itertools.count(1)


def a_user(name: str | None = None, /, **more: object) -> dict[str, Any]:
    """A body that creates a user."""
    return {"schemas": [USER], "userName": name or f"user{next(_numbers)}@example.com", **more}


def a_group(name: str | None = None, members: list[str] | None = None, /, **more: object) -> dict[str, Any]:
    body: dict[str, Any] = {"schemas": [GROUP], "displayName": name or f"Group {next(_numbers)}", **more}
    if members is not None:
        body["members"] = [{"value": id_} for id_ in members]
    return body


def ops(*operations: Mapping[str, object]) -> dict[str, Any]:
    """A PATCH of these operations."""
    return {"schemas": [PATCH_OP], "Operations": list(operations)}


def enterprise(**attributes: object) -> dict[str, Any]:
    return {ENTERPRISE: attributes}


@dataclass
class Service:
    """The application, what it stored, how often it told of a change, and a client with the right to all."""

    store: ScimStore
    app: ScimApplication
    changes: list[None]
    client: httpx.AsyncClient
    memory: MemoryScim = field(default_factory=MemoryScim)

    async def call(self, method: str, path: str, body: object = None, **more: Any) -> httpx.Response:
        if body is not None:
            more["json"] = body
        response = await self.client.request(method, BASE + path, **more)
        if response.status_code >= 400:
            assert_error(response)
        return response

    async def made(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Creates a resource and gives it as it was answered."""
        response = await self.call("POST", path, body)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    async def user(self, name: str | None = None, /, **more: object) -> dict[str, Any]:
        return await self.made("/Users", a_user(name, **more))

    async def group(
        self, name: str | None = None, members: list[str] | None = None, /, **more: object
    ) -> dict[str, Any]:
        return await self.made("/Groups", a_group(name, members, **more))

    async def members(self, id_: str) -> set[str]:
        found = (await self.call("GET", f"/Groups/{id_}")).json().get("members", ())
        return {member["value"] for member in found}

    async def found(self, path: str, **parameters: object) -> dict[str, Any]:
        response = await self.call("GET", path, params=parameters)
        assert response.status_code == 200, response.text
        listed: dict[str, Any] = response.json()
        return listed

    async def names(self, filter_: str, path: str = "/Users") -> list[str]:
        listed = await self.found(path, filter=filter_)
        return [one.get("userName") or one["displayName"] for one in listed["Resources"]]


def assert_error(response: httpx.Response) -> None:
    """Every refusal has a SCIM body (RFC 7644, 3.12), and no word of how we are built."""
    assert response.headers["content-type"] == "application/scim+json"
    body = response.json()
    assert body["schemas"] == [ERROR]
    assert body["status"] == str(response.status_code)
    assert "Traceback" not in response.text
    assert ".py" not in response.text


def service(
    store: ScimStore | None = None,
    *,
    username: str = "userName",
    hooks: Hooks | None = None,
    rights: Rights | None = None,
    **more: Any,
) -> Service:
    memory = MemoryScim()
    changes: list[None] = []
    app = ScimApplication(
        store or memory,
        rights or Rights([Grant(TOKEN, ["*:*"])]),
        Username(username),
        hooks or Hooks(on_change=lambda: changes.append(None)),
        base_url="/scim/v2",
        **more,
    )
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), headers={"Authorization": f"Bearer {TOKEN}"}
    )
    return Service(store or memory, app, changes, client, memory)
