"""What `aim check` tells about Microsoft Graph."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from aim.bridges.msgraph.describe import UNNAMED, Description, look, missing, roles_of
from aim.check.graph import graph_findings
from aim.errors import SourceError
from aim.matrix.check import Finding, Verdict
from tests.unit.graph_way import SECRET, START, Authority, Handler, Way, aadsts, jwt, refusal, reply

LEAST = ("User.Read.All", "GroupMember.Read.All")


def graph(request: httpx.Request) -> httpx.Response:
    """One that lets us see everything, secrets' ends included."""
    path = request.url.path
    if path.endswith("/organization"):
        return reply([{"id": "o", "displayName": "Example Ltd"}])
    if path.endswith("/$count"):
        return httpx.Response(200, text="812" if "users" in path else "1")
    ends = START + timedelta(days=20)
    secrets = [
        {"hint": SECRET[:3], "endDateTime": f"{ends:%Y-%m-%dT%H:%M:%S}.1234567Z"},
        {"hint": "abc", "endDateTime": f"{START:%Y-%m-%dT%H:%M:%SZ}"},
    ]
    return httpx.Response(200, json={"passwordCredentials": secrets})


def least(request: httpx.Request) -> httpx.Response:
    """One that lets us see no more than we need."""
    if "/applications" in request.url.path or "/organization" in request.url.path:
        return refusal(403, "Authorization_RequestDenied")
    return graph(request)


async def findings(
    handler: Handler, authority: Authority | None = None, *, has_webhook: bool = False
) -> list[Finding]:
    way = Way(handler, authority=authority or Authority())
    found = Description()
    try:
        async with way.open() as transport:
            await look(found, transport, way.settings)
    except SourceError as error:
        found.error = error
    told = list(graph_findings(found, START, has_webhook=has_webhook))
    assert SECRET not in str(told)
    return told


async def test_everything_is_well_with_the_least_permissions() -> None:
    assert [(finding.name, finding.verdict, finding.message) for finding in await findings(least)] == [
        (
            "login",
            Verdict.OK,
            "logged in with a client secret; when it ends is not told: that would need Application.Read.All",
        ),
        ("permissions", Verdict.OK, "GroupMember.Read.All, User.Read.All"),
        ("graph", Verdict.OK, f"{UNNAMED}: 812 users, 1 group"),
    ]


async def test_a_secret_that_ends_soon_is_warned_of() -> None:
    login, *_, there = await findings(graph)
    assert login.verdict is Verdict.WARN
    assert "which ends on 2026-03-21, in 20 days" in login.message
    assert there.message == "Example Ltd: 812 users, 1 group"


@pytest.mark.parametrize(
    ("role", "is_warned"),
    [("GroupMember.Read.All", True), ("Group.Read.All", False), ("Directory.Read.All", False)],
)
async def test_to_be_told_of_groups_needs_more_than_reading_them(role: str, is_warned: bool) -> None:
    authority = Authority(roles=("User.Read.All", role))
    told = [one for one in await findings(least, authority, has_webhook=True) if one.name == "webhook_url"]
    assert [(one.verdict, "Group.Read.All is missing" in one.message) for one in told] == (
        [(Verdict.WARN, True)] if is_warned else []
    )
    assert "webhook_url" not in {one.name for one in await findings(least, authority)}


@pytest.mark.parametrize(
    ("roles", "lacking"),
    [
        ((), LEAST),
        (("User.Read.All",), ("GroupMember.Read.All",)),
        (("Group.Read.All",), ("User.Read.All",)),
        (("User.Read.All", "Group.Read.All"), ()),
        (("Directory.Read.All",), ()),
    ],
)
async def test_what_is_missing_is_named(roles: tuple[str, ...], lacking: tuple[str, ...]) -> None:
    told = await findings(least, Authority(roles=roles))
    failed = [finding for finding in told if finding.verdict is Verdict.FAIL]
    assert [finding.message for finding in failed] == [f"{role} is missing" for role in lacking]
    assert all(role in finding.remedy for role, finding in zip(lacking, failed, strict=True))
    assert any(finding.name == "graph" for finding in told) == (not lacking)


async def test_more_than_reading_is_warned_of() -> None:
    told = await findings(least, Authority(roles=("Directory.ReadWrite.All",)))
    (warned,) = [finding for finding in told if finding.verdict is Verdict.WARN]
    assert "Directory.ReadWrite.All, which lets it change things" in warned.message


async def test_a_login_that_fails_is_all_that_is_told() -> None:
    (told,) = await findings(least, Authority(refusals=[aadsts(7000222)]))
    assert (told.name, told.verdict) == ("login", Verdict.FAIL)
    assert "expired" in told.message


async def test_a_graph_that_is_ill_ends_it() -> None:
    def ill(request: httpx.Request) -> httpx.Response:
        return least(request) if "/applications" in request.url.path else refusal(503, "ServiceUnavailable")

    *_, last = await findings(ill)
    assert (last.name, last.verdict) == ("graph", Verdict.FAIL)


async def test_a_graph_that_can_not_count_is_no_fault() -> None:
    def uncounted(request: httpx.Request) -> httpx.Response:
        is_count = request.url.path.endswith("/$count")
        return refusal(400, "Request_UnsupportedQuery") if is_count else least(request)

    *_, last = await findings(uncounted)
    assert (last.verdict, last.message) == (Verdict.OK, f"{UNNAMED}: Graph does not count")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "", "..", jwt(roles="User.Read.All"), "a.W10.c"])
def test_a_token_that_tells_nothing(token: str) -> None:
    assert roles_of(token) is None


def test_roles_of_a_token() -> None:
    assert roles_of(jwt(roles=["b", "a"])) == ("a", "b")
    assert roles_of(jwt(sub="x")) == ()
    assert tuple(missing(("a", "b"))) == LEAST
