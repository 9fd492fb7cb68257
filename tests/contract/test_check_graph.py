"""What `aim check` says of Microsoft Graph: everything that is well, and each thing that can be wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from aim import app
from aim.check.graph import found_of_graph
from aim.config.sources import MsGraphSource
from tests.servers.graph import CLIENT_ID, CLIENT_SECRET, TENANT_ID, Graph, NewGraph


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def graph(new_graph: NewGraph) -> Graph:
    graph = await new_graph()
    graph.tenant.add_group("Staff", members=[graph.tenant.add_user("ann"), graph.tenant.add_user("ben")])
    return graph


async def said(graph: Graph, **options: object) -> list[str]:
    given: dict[str, Any] = {
        "type": "ms-graph-ad",
        "tenant_id": TENANT_ID,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "authority": graph.authority,
        "base_url": graph.base_url,
        "ca_cert": graph.ca,
    }
    source = MsGraphSource.model_validate(given | options)
    found = await found_of_graph(source)
    for finding in found:
        assert finding.remedy or finding.verdict == "ok"
        assert "\n" not in finding.message + finding.remedy
        assert CLIENT_SECRET not in finding.message + finding.remedy
    assert graph.strays == []
    return [f"{finding.verdict} {finding.name}: {finding.message}" for finding in found]


async def test_all_is_well(graph: Graph) -> None:
    login, permissions, there = await said(graph)
    assert login == (
        "ok login: logged in with a client secret; when it ends is not told: that would need"
        " Application.Read.All"
    )
    assert permissions == "ok permissions: GroupMember.Read.All, User.Read.All"
    assert there == (
        "ok graph: the tenant (its name is not told: that would need Organization.Read.All): 2 users, 1 group"
    )
    graph.app.roles.add("Organization.Read.All")
    assert (await said(graph))[-1] == "ok graph: Example: 2 users, 1 group"


async def test_graph_can_not_tell_of_groups(graph: Graph) -> None:
    options = {"webhook_url": "https://aim.example.com/graph"}
    assert "warn webhook_url: Graph tells of users only: for groups Group.Read.All is missing" in (
        await said(graph, **options)
    )
    graph.app.roles.add("Group.Read.All")
    assert not any("webhook_url" in line for line in await said(graph, **options))


async def test_the_end_of_the_secret_if_graph_tells(graph: Graph) -> None:
    graph.app.roles.add("Application.Read.All")
    ends = app.now() + timedelta(days=9, hours=1)
    graph.model.applications[CLIENT_ID].passwords += [
        {"keyId": "1", "hint": CLIENT_SECRET[:3], "endDateTime": ends.isoformat().replace("+00:00", "Z")}
    ]
    login, *_ = await said(graph)
    assert login.startswith("warn login: logged in with a client secret, which ends on ")
    assert login.endswith(", in 9 days")


async def test_each_permission_that_is_missing(graph: Graph) -> None:
    graph.app.roles.clear()
    _, *rest = await said(graph)
    assert rest == [
        "fail permissions: User.Read.All is missing",
        "fail permissions: GroupMember.Read.All is missing",
    ]
    # What a token does not permit is not asked for.
    assert graph.requests["users/$count"] == 0


async def test_a_login_that_is_refused(graph: Graph) -> None:
    (login,) = await said(graph, client_secret="wrong")
    assert login == (f"fail login: {graph.url} gives us no token: the client secret is wrong (AADSTS7000215)")
