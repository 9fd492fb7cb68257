"""The SCIM service as it runs: over HTTP, with a real Postgres behind it, asked by a conformity tester."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from scim2_client.client import BaseSyncSCIMClient
from scim2_tester import Status, check_server

from aim.bridges.scim.resources import Username
from aim.bridges.scim.rights import Grant, Rights
from aim.bridges.scim.server import ScimApplication
from aim.bridges.scim.source import ScimSource
from aim.directory.roster import Roster
from aim.ports.scim import ScimStore
from tests.contract.scim import scim_store
from tests.unit.scim_client import TOKEN, a_group, a_user, ops
from tests.unit.scim_store import MemoryScim


@asynccontextmanager
async def serving(store: ScimStore) -> AsyncIterator[str]:
    """The service on a free port; gives its address."""
    app = ScimApplication(store, Rights([Grant(TOKEN, ["*:*"])]), Username("userName"), base_url="/scim")
    # Named as TCP, or asyncio would not know to send small answers at once.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/scim"
        finally:
            server.should_exit = True
            await task


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[ScimStore]:
    """The store of the unit tests, and the real one: they must not differ."""
    if request.param == "memory":
        yield MemoryScim()
        return
    async with scim_store(dsn) as real:
        yield real


@pytest.fixture
async def address(store: ScimStore) -> AsyncIterator[str]:
    async with serving(store) as found:
        yield found


@pytest.fixture
async def client(address: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=30) as found:
        yield found


class AskingClient(BaseSyncSCIMClient):
    """The tester's client, over the HTTP client that we have."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.http = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)

    def _stays_under_base_url(self, endpoint: str) -> bool:
        return True

    def _parse_json(self, response: Any) -> Any:
        return response.json()

    def request(self, method: str, url: str, **more: Any) -> Any:
        return self.http.request(method, url, **more)


async def test_a_conformity_tester_finds_no_fault(address: str) -> None:
    def check() -> list[str]:
        tester = AskingClient(address)
        with tester.http:
            tester.discover()
            results = check_server(tester)
        assert len(results) > 100
        return [f"{one.title}: {one.reason}" for one in results if one.status is not Status.SUCCESS]

    assert await asyncio.to_thread(check) == []


async def test_a_probe_finds_no_fault(address: str) -> None:
    """scim-sanity, strict: 28 checks pass; three are skipped, of kinds of resources that we don't have."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scim_sanity", "probe", address),
        *("--token", TOKEN, "--i-accept-side-effects", "--json-output"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    found = json.loads(out)
    assert [one for one in found["results"] if one["status"].lower() not in {"pass", "skip"}] == []
    assert (found["mode"], found["summary"]["passed"], found["summary"]["skipped"]) == ("strict", 28, 3)


async def test_many_patches_of_one_group_at_once_are_all_made(
    client: httpx.AsyncClient, store: ScimStore
) -> None:
    many = 32
    ids = [(await client.post("/Users", json=a_user())).json()["id"] for _ in range(many)]
    group = (await client.post("/Groups", json=a_group("staff"))).json()["id"]

    def patch(number: int) -> dict[str, Any]:
        member = {"op": "add", "path": "members", "value": [{"value": ids[number]}]}
        name = {"op": "replace", "path": "displayName", "value": f"staff {number}"}
        return ops(*([member], [member, name], [name, member])[number % 3])

    answers = await asyncio.gather(
        *(client.patch(f"/Groups/{group}", json=patch(number)) for number in range(many))
    )
    assert [answer.status_code for answer in answers] == [200] * many
    assert {member.id for member in (await store.members([group]))[group]} == set(ids)


async def test_what_entra_does_ends_in_the_directory(client: httpx.AsyncClient, store: ScimStore) -> None:
    asked = await client.get("/Users", params={"filter": 'userName eq "nobody-5dce8b5a"'})
    assert asked.json()["totalResults"] == 0
    ids = {}
    for name in ("ann", "bob", "carl"):
        ids[name] = (await client.post("/Users", json=a_user(name, displayName=name.title()))).json()["id"]
    group = (await client.post("/Groups", json=a_group("IT", externalId="g-1"))).json()["id"]
    everybody = [{"$ref": None, "value": id_} for id_ in ids.values()]
    added = ops({"op": "Add", "path": "members", "value": everybody})
    assert (await client.patch(f"/Groups/{group}", json=added)).status_code == 200
    removed = ops({"op": "Remove", "path": "members", "value": everybody[:1]})
    assert (await client.patch(f"/Groups/{group}", json=removed)).status_code == 200
    disabled = ops({"op": "Replace", "path": "active", "value": "False"})
    assert (await client.patch(f"/Users/{ids['bob']}", json=disabled)).json()["active"] is False

    directory = await ScimSource(store, "corp").read(Roster())
    assert directory.roster.localparts(directory.everyone) == ["ann", "carl"]
    assert [directory.roster.localparts(one.members) for one in directory.find("g-1")] == [["carl"]]
    assert {user.display_name for user in directory.users} == {"Ann", "Bob", "Carl"}
    assert directory.filling


async def test_a_large_group_is_answered_without_it(client: httpx.AsyncClient) -> None:
    ids = [(await client.post("/Users", json=a_user())).json()["id"] for _ in range(102)]
    group = (await client.post("/Groups", json=a_group("large", ids[:100]))).json()["id"]
    for number, id_ in enumerate(ids[100:], start=101):
        answer = await client.patch(
            f"/Groups/{group}", json=ops({"op": "add", "path": "members", "value": [{"value": id_}]})
        )
        assert (answer.status_code, answer.content) == (204, b"")
        assert len((await client.get(f"/Groups/{group}")).json()["members"]) == number
    smaller = ops({"op": "remove", "path": "members", "value": [{"value": id_} for id_ in ids[:2]]})
    assert len((await client.patch(f"/Groups/{group}", json=smaller)).json()["members"]) == 100


async def test_many_at_once_lose_nothing(client: httpx.AsyncClient) -> None:
    ids = [(await client.post("/Users", json=a_user())).json()["id"] for _ in range(8)]
    group = (await client.post("/Groups", json=a_group("busy"))).json()["id"]

    async def add(id_: str) -> int:
        patch = ops({"op": "add", "path": "members", "value": [{"value": id_}]})
        return (await client.patch(f"/Groups/{group}", json=patch)).status_code

    async def change(number: int) -> int:
        patch = ops(
            {"op": "replace", "path": f"{'title nickName locale timezone'.split()[number]}", "value": "x"}
        )
        return (await client.patch(f"/Users/{ids[0]}", json=patch)).status_code

    answers = await asyncio.gather(*map(add, ids), *map(change, range(4)))
    assert set(answers) == {200}
    assert len((await client.get(f"/Groups/{group}")).json()["members"]) == 8
    changed = (await client.get(f"/Users/{ids[0]}")).json()
    assert [changed[name] for name in ("title", "nickName", "locale", "timezone")] == ["x"] * 4


@pytest.mark.parametrize("search", [{}, {"sortBy": "userName"}, {"filter": "not (title pr)"}])
async def test_pages_by_cursor(client: httpx.AsyncClient, search: dict[str, str]) -> None:
    made = [(await client.post("/Users", json=a_user(f"user{n}"))).json()["userName"] for n in range(5)]
    found, cursor = [], ""
    while True:
        page = (await client.get("/Users", params={**search, "count": "2", "cursor": cursor})).json()
        found += [one["userName"] for one in page["Resources"]]
        cursor = page.get("nextCursor", "")
        if not cursor:
            break
    assert found == made


async def _raw(address: str, request: bytes) -> bytes:
    """The answer to bytes that no client library would send."""
    url = httpx.URL(address)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/scim/Users/%0d%0aLocation:%20evil", b"400"),
        (b"/scim/Users/%00", b"400"),
        (b"/scim/Users/%ff", b"400"),
        (b"/scim/Users/" + b"a" * 3000, b"404"),
        (b"/scim/Users?filter=%00", b"400"),
        (b"/elsewhere", b"404"),
        (b"/scim/Users?startIndex=-1&count=-1", b"200"),
        (b"/scim/Users/..%2f..%2fUsers", b"404"),
    ],
)
async def test_requests_by_hand(address: str, path: bytes, status: bytes) -> None:
    head = b"Host: \xff\xfe\r\nX-Odd: \xe4\r\nConnection: close\r\nAuthorization: Bearer " + TOKEN.encode()
    answer = await _raw(address, b"GET " + path + b" HTTP/1.1\r\n" + head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nLocation: evil" not in answer
    assert b"application/scim+json" in answer


async def test_ten_megabytes_are_refused_and_the_client_hears_it(client: httpx.AsyncClient) -> None:
    answer = await client.post("/Users", content=b'{"a": "' + b"a" * 10 * 1024 * 1024 + b'"}')
    assert answer.status_code == 413
    assert answer.json()["status"] == "413"
