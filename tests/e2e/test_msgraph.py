"""A tenant of Entra ID, read through Microsoft Graph, down to the spaces of a real Synapse."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.kit import Json, Stage, until
from tests.e2e.test_usage_scenarios import FIRST
from tests.servers.graph import CLIENT_ID, CLIENT_SECRET, TENANT_ID, Graph, NewGraph

pytestmark = pytest.mark.e2e


def follows(stage: Stage, graph: Graph, **options: object) -> None:
    """The stage's source is that tenant, as in the example of the documentation."""
    stage.configure(
        source={
            "type": "ms-graph-ad",
            "check_interval_seconds": 1,
            "tenant_id": TENANT_ID,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "authority": graph.authority,
            "base_url": graph.base_url,
            "ca_cert": str(graph.ca),
            **options,
        },
        spaces=[
            {"id": "lab", "name": "Lab", "groups": [{"externalId": "Researchers"}]},
            {"id": "all", "name": "All", "groups": [{"externalId": ""}]},
        ],
    )


def has(stage: Stage, localpart: str, key: str, membership: str) -> Callable[[], Awaitable[bool]]:
    """A condition: the space is there, and somebody has that membership."""

    async def check() -> bool:
        return key in await stage.rooms() and await stage.membership(key, localpart) == membership

    return check


async def plan(stage: Stage) -> set[tuple[str, str, str]]:
    """(type, room, localpart) of the invites and kicks that are due."""
    actions: list[Json] = (await stage.plan())["actions"]
    return {
        (action["type"], action["room"], action["target"].partition(":")[0])
        for action in actions
        if action["type"] in {"invite", "kick"}
    }


async def test_people_come_move_and_are_disabled(live_stage: Stage, new_graph: NewGraph) -> None:
    stage, graph = live_stage, await new_graph()
    follows(stage, graph)
    names = ("graph.ann", "graph.bob", "graph.cleo")
    await stage.homeserver.register(*names)
    ann, bob, cleo = (graph.tenant.add_user(name) for name in names)
    graph.tenant.add_guest("eve@example.org")
    inner = graph.tenant.add_group("Interns", [bob])
    lab = graph.tenant.add_group("Researchers", [ann, cleo, inner])
    async with stage.daemon() as daemon:
        for name in names:
            await until(has(stage, name, "lab", "invite"), f"{name} is asked in", FIRST)
        await stage.join_all(*names)
        # Nobody asks for more than what has changed.
        graph.forget()
        await until(lambda: graph.requests["users/delta"] >= 3, "it looks", FIRST)
        assert set(graph.requests) == {"users/delta", "groups/delta"}

        graph.tenant.leave(inner, bob)
        await until(has(stage, "graph.bob", "lab", "leave"), "bob moved", FIRST)
        graph.tenant.change(cleo, accountEnabled=False)
        await until(has(stage, "graph.cleo", "all", "leave"), "cleo is disabled", FIRST)
        assert await stage.membership("lab", "graph.ann") == "join"
        assert await stage.membership("all", "graph.bob") == "join"
        # Killed: what is stored and the links that belong to it fit together.
        await daemon.kill()
    graph.tenant.join(lab, bob)
    graph.forget()
    assert await plan(stage) == {("invite", room, "@graph.bob") for room in ("lab", "lab/general")}
    assert (graph.requests["users/delta"], graph.requests["groups/delta"]) == (1, 1)
    async with stage.daemon() as daemon:
        await until(has(stage, "graph.bob", "lab", "invite"), "bob is back", FIRST)
        graph.model.deltas.expire()
        graph.tenant.leave(lab, bob)
        await until(has(stage, "graph.bob", "lab", "leave"), "bob left, and nobody could tell", FIRST)
        assert (await daemon.terminate()).code == 0
    assert CLIENT_SECRET not in daemon.err
    assert graph.strays == []


async def test_the_commands_know_it(stage: Stage, new_graph: NewGraph) -> None:
    graph = await new_graph()
    follows(stage, graph)
    graph.app.roles.add("Organization.Read.All")
    await stage.homeserver.register("graph.dora")
    dora = graph.tenant.add_user("graph.dora", mail="Dora@Example.com")
    graph.tenant.add_group("Researchers", [dora])
    # Before there is a database.
    directory = await stage.aim("directory", "--json")
    assert directory.code == 0, directory
    (user,) = json.loads(directory.out)["users"]
    assert (user["id"], user["localpart"], user["emails"]) == (dora, "graph.dora", ["dora@example.com"])
    assert ("invite", "lab", "@graph.dora") in await plan(stage)
    await stage.apply()
    assert await stage.membership("lab", "graph.dora") == "invite"
    graph.forget()
    assert (await stage.plan())["actions"] == []
    assert (graph.requests["users/delta"], graph.requests["groups/delta"]) == (1, 1)
    check = await stage.aim("check")
    assert "Example" in check.out, check


async def test_a_change_arrives_within_seconds_when_graph_tells_of_it(
    live_stage: Stage, new_graph: NewGraph
) -> None:
    stage, graph = live_stage, await new_graph()
    follows(stage, graph, check_interval_seconds=3600, webhook_url="https://aim.example.com/hooks/graph")
    listen = stage.config["listen"]
    graph.routes["https://aim.example.com"] = f"http://127.0.0.1:{listen['port']}"
    graph.app.roles.add("Group.Read.All")
    await stage.homeserver.register("graph.finn")
    finn = graph.tenant.add_user("graph.finn")
    lab = graph.tenant.add_group("Researchers")
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await until(lambda: len(graph.model.subscriptions.all()) == 2, "it has subscribed", FIRST)
        await until(has(stage, "graph.finn", "all", "invite"), "finn is asked in", FIRST)
        graph.tenant.join(lab, finn)
        await graph.notify()
        assert [sent.status for sent in graph.notified][-1] == 202
        await until(has(stage, "graph.finn", "lab", "invite"), "finn is in the group", FIRST)
        assert (await daemon.terminate()).code == 0
    assert graph.model.subscriptions.all() == []
