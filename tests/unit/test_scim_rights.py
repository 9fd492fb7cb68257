"""Who may do what: tokens, roles, admins of the homeserver, and those who guess."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.rights import ADMIN_FOR, Grant, Refusal, Rights
from aim.errors import HomeserverUnavailable
from aim.ports.scim import ScimKind
from tests.unit.scim_client import TOKEN, Service, a_group, a_user, ops, service

BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"


def _with(roles: Iterable[str]) -> Service:
    return service(rights=Rights([Grant("another", ["*:*"]), Grant(TOKEN, list(roles))]))


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [
        (["*:*"], {"read users", "write users", "read groups", "write groups"}),
        (["read:*"], {"read users", "read groups"}),
        (["*:users"], {"read users", "write users"}),
        (["write:groups"], {"write groups"}),
        (["read:users", "write:groups"], {"read users", "write groups"}),
    ],
)
async def test_roles(roles: list[str], allowed: set[str]) -> None:
    scim = _with(roles)
    asked: dict[str, list[tuple[str, str, object]]] = {
        "read users": [("GET", "/Users", None), ("POST", "/Users/.search", {}), ("GET", "/Users/x", None)],
        "write users": [
            ("POST", "/Users", a_user()),
            ("PUT", "/Users/x", a_user()),
            ("PATCH", "/Users/x", ops({"op": "add", "path": "title", "value": "x"})),
            ("DELETE", "/Users/x", None),
        ],
        "read groups": [("GET", "/Groups", None), ("GET", "/Groups/x", None)],
        "write groups": [("POST", "/Groups", a_group()), ("DELETE", "/Groups/x", None)],
    }
    for what, requests in asked.items():
        for method, path, body in requests:
            status = (await scim.call(method, path, body)).status_code
            assert (status != 403) == (what in allowed), (what, method, path)


async def test_each_operation_of_a_bulk_request_needs_its_right() -> None:
    refused: list[Refusal] = []
    scim = service(rights=Rights([Grant(TOKEN, ["write:users"])], refused=refused.append))
    answer = await scim.call(
        "POST",
        "/Bulk",
        {
            "schemas": [BULK],
            "Operations": [
                {"method": "POST", "path": "/Users", "bulkId": "u", "data": a_user()},
                {"method": "POST", "path": "/Groups", "bulkId": "g", "data": a_group()},
            ],
        },
    )
    assert [one["status"] for one in answer.json()["Operations"]] == ["201", "403"]
    assert refused == [Refusal.FORBIDDEN]


async def test_a_search_of_all_is_over_what_one_may_read() -> None:
    scim = _with(["*:groups", "write:users"])
    await scim.user("ann")
    await scim.group("staff")
    assert await scim.names("meta.created pr", "/") == ["staff"]
    assert (await _with(["write:*"]).call("GET", "/")).status_code == 403


async def test_who_may_only_write_is_not_shown_more_than_they_sent() -> None:
    scim = _with(["*:*"])
    ann = await scim.user("ann", title="Boss")
    writer = service(scim.store, rights=Rights([Grant(TOKEN, ["write:users"])]))
    patch = ops({"op": "replace", "path": "active", "value": False})
    answer = await writer.call("PATCH", f"/Users/{ann['id']}", patch)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer x{TOKEN}", "Bearer \xff"],
)
async def test_missing_and_wrong_tokens(header: str | None) -> None:
    refused: list[Refusal] = []
    scim = service(rights=Rights([Grant(TOKEN, ["*:*"])], refused=refused.append))
    del scim.client.headers["authorization"]
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    answer = await scim.call("GET", "/Users", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="SCIM"')
    assert len(refused) == 1
    assert refused[0] is (
        Refusal.WRONG if len((header or "").split()) == 2 and "Basic" not in str(header) else Refusal.MISSING
    )


async def test_schemes_have_no_case_and_refusals_are_counted() -> None:
    refused: list[Refusal] = []
    scim = service(rights=Rights([Grant(TOKEN, ["read:users"])], refused=refused.append))
    assert (
        await scim.call("GET", "/Users", headers={"Authorization": f"bEARER   {TOKEN} "})
    ).status_code == 200
    assert (await scim.call("GET", "/Groups")).status_code == 403
    assert refused == [Refusal.FORBIDDEN]


def test_tokens_are_not_kept() -> None:
    rights = Rights([Grant(TOKEN, ["*:*"])])
    assert TOKEN not in repr(vars(rights))


class Clock:
    """A clock that stands, and what was slept by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_guessing_becomes_slow_for_one_address_and_is_forgotten() -> None:
    clock = Clock()
    rights = Rights([Grant(TOKEN, ["*:*"])], clock=clock, sleep=clock.sleep)

    async def guess(address: str) -> None:
        with pytest.raises(ScimError):
            await rights.access("Bearer guess", address)

    for _ in range(9):
        await guess("192.0.2.1")
    assert clock.slept == [0.25, 0.5, 1, 2, 4, 4]
    await guess("192.0.2.2")
    assert (await rights.access(f"Bearer {TOKEN}", "192.0.2.1")).may("write", ScimKind.USER)
    assert len(clock.slept) == 6
    clock.now += 1000
    await guess("192.0.2.1")
    assert len(clock.slept) == 6


async def test_what_is_remembered_of_guessers_is_bounded() -> None:
    clock = Clock()
    rights = Rights([Grant(TOKEN, ["*:*"])], clock=clock, sleep=clock.sleep)
    for number in range(5000):
        with pytest.raises(ScimError):
            await rights.access("Bearer guess", str(number))
    assert len(rights._failures) == 4096


async def test_an_admin_of_the_homeserver_is_believed_for_a_while() -> None:
    clock, asked = Clock(), []
    grants = [Grant(TOKEN, ["*:*"]), Grant(None, ["read:*"])]

    async def is_admin(token: str) -> bool:
        asked.append(token)
        return token == "syt_admin"

    rights = Rights(grants, is_admin, clock=clock, sleep=clock.sleep)
    for _ in range(3):
        access = await rights.access("Bearer syt_admin", "")
        with pytest.raises(ScimError):
            await rights.access("Bearer syt_other", "")
    assert access.roles == {"read:*"}
    assert asked == ["syt_admin", "syt_other"]
    assert (await rights.access(f"Bearer {TOKEN}", "")).roles == {"*:*"}
    clock.now += ADMIN_FOR
    await rights.access("Bearer syt_admin", "")
    assert asked[2:] == ["syt_admin"]


class Asked:
    """A homeserver that answers when it is let: which tokens it is asked about, and how many at once."""

    def __init__(self, admin: str = "syt_admin") -> None:
        self.admin = admin
        self.tokens: list[str] = []
        self.answers = asyncio.Event()

    async def __call__(self, token: str) -> bool:
        self.tokens.append(token)
        await self.answers.wait()
        return token == self.admin


async def _settle() -> None:
    """Lets all that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_guesses_waits_before_the_homeserver_is_asked() -> None:
    clock, order = Clock(), []

    async def is_admin(token: str) -> bool:
        order.append("asked")
        return False

    async def sleep(seconds: float) -> None:
        order.append(f"slept {seconds}")

    rights = Rights([Grant(None, ["*:*"])], is_admin, clock=clock, sleep=sleep)
    for number in range(5):
        with pytest.raises(ScimError):
            await rights.access(f"Bearer guess{number}", "192.0.2.1")
    assert order == ["asked"] * 3 + ["slept 0.25", "asked", "slept 0.5", "asked"]


async def test_a_flood_of_wrong_tokens_is_none_for_the_homeserver() -> None:
    clock, homeserver, refused = Clock(), Asked(), list[Refusal]()
    rights = Rights([Grant(None, ["*:*"])], homeserver, refused.append, clock=clock, sleep=clock.sleep)
    flood = [asyncio.create_task(rights.access(f"Bearer guess{n}", "192.0.2.1")) for n in range(100)]
    other = asyncio.create_task(rights.access("Bearer syt_admin", "192.0.2.2"))
    await _settle()
    assert homeserver.tokens == [*(f"guess{n}" for n in range(8)), "syt_admin"]
    homeserver.answers.set()
    assert (await other).roles == {"*:*"}
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    statuses = [one.status for one in outcomes if isinstance(one, ScimError)]
    assert statuses == [401] * 8 + [429] * 92
    assert len(refused) == 100
    with pytest.raises(ScimError, match="not known"):
        await rights.access("Bearer guess100", "192.0.2.1")
    assert homeserver.tokens[-1] == "guess100", "the eight are over"


async def test_an_admin_with_many_requests_at_once_is_asked_about_once_and_never_slowed() -> None:
    clock, homeserver = Clock(), Asked()
    rights = Rights([Grant(None, ["*:*"])], homeserver, clock=clock, sleep=clock.sleep)
    for _ in range(3):
        many = [asyncio.create_task(rights.access("Bearer syt_admin", "192.0.2.1")) for _ in range(50)]
        await _settle()
        homeserver.answers.set()
        assert {(await one).roles for one in many} == {frozenset({"*:*"})}
        clock.now += ADMIN_FOR
    assert (homeserver.tokens, clock.slept) == (["syt_admin"] * 3, [])


async def test_a_homeserver_that_is_away_makes_nobody_an_admin_and_nobody_a_guesser() -> None:
    async def is_admin(token: str) -> bool:
        raise HomeserverUnavailable("it does not answer")

    clock = Clock()
    rights = Rights([Grant(None, ["*:*"])], is_admin, clock=clock, sleep=clock.sleep)
    for number in range(9):
        with pytest.raises(HomeserverUnavailable):
            await rights.access(f"Bearer syt_{number}", "192.0.2.1")
    assert clock.slept == []

    refused: list[Refusal] = []
    scim = service(rights=Rights([Grant("x", ["*:*"]), Grant(None, ["*:*"])], is_admin, refused.append))
    assert (await scim.call("GET", "/Users")).status_code == 503
    assert refused == []
    # Nobody asks the homeserver where no admin is granted anything.
    scim = service(rights=Rights([Grant("x", ["*:*"])], is_admin))
    assert (await scim.call("GET", "/Users")).status_code == 401
