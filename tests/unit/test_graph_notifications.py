"""Change notifications: subscriptions are made, renewed and deleted, and only Graph is listened to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from aim.bridges.msgraph import notifications
from aim.bridges.msgraph.graph import Item, Page
from aim.bridges.msgraph.notifications import LIFE, Notices, noticing, router
from aim.errors import SourceInvalid, SourceUnavailable
from tests.servers.graph_subscriptions import Subscriptions
from tests.servers.graph_tenant import Clock, Tenant

URL = "https://aim.example.com/hooks/graph"


class Subscribed:
    """`Subscribing` over the stand-in's subscriptions, which are kept."""

    def __init__(self) -> None:
        self.clock = Clock(datetime(2030, 1, 1, tzinfo=UTC))
        self.tenant = Tenant()
        self.subscriptions = Subscriptions(self.tenant, self.clock)
        self.asked: list[str] = []
        self.refuses: Callable[[str], bool] = lambda _: False
        self.changes = 0
        self.settled = asyncio.Event()
        """Set with each request."""
        self.notices = Notices(self, URL, self.changed, self.clock.now)

    def changed(self) -> None:
        self.changes += 1

    async def pages(self, path: str) -> AsyncIterator[Page]:
        self._ask(f"GET {path}")
        yield Page([self.subscriptions.get(each.id) for each in self.subscriptions.all()])

    async def post(self, path: str, body: Item) -> Item:
        self._ask(f"POST {body['resource']}")
        made: Item = self.subscriptions.create(self.subscriptions.checked(body), "app")
        return made

    async def patch(self, path: str, body: Item) -> Item:
        self._ask("PATCH")
        renewed: Item = self.subscriptions.renew(path.rpartition("/")[2], dict(body))
        return renewed

    async def delete(self, path: str) -> None:
        self._ask("DELETE")
        self.subscriptions.delete(path.rpartition("/")[2])

    def _ask(self, what: str) -> None:
        self.settled.set()
        if self.refuses(what):
            raise SourceInvalid(f"{what} is not allowed", "allow it")
        self.asked.append(what)

    @property
    def resources(self) -> list[str]:
        return [each.collection for each in self.subscriptions.all()]

    def told(self) -> list[dict[str, Any]]:
        """What Graph would have posted since the last time."""
        pending, self.subscriptions.pending[:] = list(self.subscriptions.pending), []
        return [notification.content for notification in pending]

    async def quiet(self) -> None:
        """Until nothing more is asked."""
        await asyncio.wait_for(self.settled.wait(), 10)
        while self.settled.is_set():
            self.settled.clear()
            for _ in range(20):
                await asyncio.sleep(0)


@asynccontextmanager
async def subscribed(graph: Subscribed) -> AsyncIterator[None]:
    async with noticing(graph.notices):
        await graph.quiet()
        yield


async def test_it_subscribes_to_both_and_ends_it() -> None:
    graph = Subscribed()
    async with subscribed(graph):
        assert graph.resources == ["users", "groups"]
        for each in graph.subscriptions.all():
            assert each.content["notificationUrl"] == each.content["lifecycleNotificationUrl"] == URL
            assert each.expires - graph.clock.now() == LIFE
        # What happened before nobody tells.
        assert graph.changes == 2
    assert graph.resources == []


async def test_what_an_earlier_process_left_is_deleted() -> None:
    graph = Subscribed()
    content = {
        "changeType": "updated",
        "resource": "users",
        "notificationUrl": URL,
        "expirationDateTime": "2030-01-02T00:00:00Z",
        "clientState": "of another process",
    }
    graph.subscriptions.create(content, "app")
    elsewhere = graph.subscriptions.create({**content, "notificationUrl": "https://other.example.com"}, "app")
    async with subscribed(graph):
        assert len(graph.subscriptions.all()) == 3
        assert graph.subscriptions.get(elsewhere["id"])


async def test_changes_are_reasons_to_look() -> None:
    graph = Subscribed()
    async with subscribed(graph):
        graph.changes = 0
        graph.tenant.add_group("Staff", [graph.tenant.add_user("ann")])
        told = graph.told()
        assert told
        for number, content in enumerate(told):
            graph.notices.take(content)
            assert graph.changes == number + 1


@pytest.mark.parametrize("state", [None, "", "wrong", "\ud800", 1, ["x"]])
async def test_who_does_not_know_the_secret_is_passed_over(state: object) -> None:
    graph = Subscribed()
    async with subscribed(graph):
        graph.changes = 0
        graph.tenant.add_user("ann")
        (content,) = graph.told()
        content["value"][0]["clientState"] = state
        graph.notices.take(content)
        assert graph.changes == 0


@pytest.mark.parametrize(
    "content", [None, 1, "value", [], {}, {"value": None}, {"value": "x"}, {"value": [1]}]
)
def test_what_is_no_notice_is_passed_over(content: object) -> None:
    graph = Subscribed()
    graph.notices.take(content)
    assert graph.changes == 0


async def test_they_are_renewed_in_time() -> None:
    graph = Subscribed()
    async with subscribed(graph):
        ids = {each.id for each in graph.subscriptions.all()}
        graph.clock.advance(LIFE / 2)
        graph.notices._woken.set()
        await graph.quiet()
        assert graph.asked[-2:] == ["PATCH", "PATCH"]
        assert {each.id for each in graph.subscriptions.all()} == ids
        assert {each.expires for each in graph.subscriptions.all()} == {graph.clock.now() + LIFE}


@pytest.mark.parametrize(
    ("event", "asked"),
    [("reauthorizationRequired", ["PATCH"]), ("subscriptionRemoved", ["POST users"]), ("missed", [])],
)
async def test_what_graph_tells_of_a_subscription_itself(event: str, asked: list[str]) -> None:
    graph = Subscribed()
    async with subscribed(graph):
        first = graph.subscriptions.all()[0]
        graph.subscriptions.tell(first.id, event)
        graph.asked.clear()
        graph.changes = 0
        (content,) = graph.told()
        graph.notices.take(content)
        assert graph.changes == 1
        if asked:
            await graph.quiet()
        assert graph.asked == asked
        assert sorted(graph.resources) == ["groups", "users"]


async def test_one_that_is_gone_is_made_anew() -> None:
    graph = Subscribed()
    async with subscribed(graph):
        graph.clock.advance(LIFE + timedelta(minutes=1))
        graph.refuses = lambda what: what == "PATCH"
        graph.notices._woken.set()
        await graph.quiet()
        assert sorted(graph.resources) == ["groups", "users"]


async def test_what_graph_refuses_is_told_once_and_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    graph = Subscribed()
    graph.refuses = lambda what: what == "POST groups"
    async with subscribed(graph):
        assert graph.resources == ["users"]
        for _ in range(2):
            graph.notices._woken.set()
            await graph.quiet()
        assert capsys.readouterr().out.count("POST groups is not allowed") == 1
        graph.refuses = lambda _: False
        graph.notices._woken.set()
        await graph.quiet()
        assert sorted(graph.resources) == ["groups", "users"]


async def test_while_graph_is_away_it_is_not_asked_again_and_again() -> None:
    graph = Subscribed()
    asked: list[str] = []

    def away(what: str) -> bool:
        asked.append(what)
        raise SourceUnavailable("away")

    async with subscribed(graph):
        ids = [each.id for each in graph.subscriptions.all()]
        graph.clock.advance(LIFE * 0.6)
        graph.refuses = away
        graph.notices._woken.set()
        await graph.quiet()
        assert asked == ["PATCH", "PATCH"]
        graph.refuses = lambda _: False
        graph.notices._woken.set()
        await graph.quiet()
        assert [each.id for each in graph.subscriptions.all()] == ids
        assert {each.expires for each in graph.subscriptions.all()} == {graph.clock.now() + LIFE}


async def test_graph_that_is_away_is_no_reason_not_to_stop() -> None:
    graph = Subscribed()

    def away(_: str) -> bool:
        raise SourceUnavailable("away")

    async with subscribed(graph):
        graph.refuses = away
    assert graph.resources == ["users", "groups"]


# What is served


@asynccontextmanager
async def served(graph: Subscribed) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(graph.notices))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aim") as client:
        yield client


async def test_the_token_of_a_validation_is_given_back_as_plain_text() -> None:
    async with served(Subscribed()) as client:
        token = "Validation: <b>Testing</b> reachability & more"
        answer = await client.post("/hooks/graph", params={"validationToken": token})
        assert (answer.status_code, answer.text) == (200, token)
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await client.post("/hooks/graph", params={"validationToken": "x" * 5_000})).status_code == 400


async def test_a_notice_is_taken_at_once() -> None:
    graph = Subscribed()
    async with served(graph) as client, subscribed(graph):
        graph.changes = 0
        graph.tenant.add_user("ann")
        (content,) = graph.told()
        assert (await client.post("/hooks/graph", json=content)).status_code == 202
        assert graph.changes == 1
        content["value"][0]["clientState"] = "wrong"
        assert (await client.post("/hooks/graph", json=content)).status_code == 202
        assert graph.changes == 1


async def test_a_body_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_BODY_TIME", 0.05)

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with served(Subscribed()) as client:
        assert (await client.post("/hooks/graph", content=endless())).status_code == 408


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/hooks/graph", b"{", 400),
        ("POST", "/hooks/graph", b"[" * 100_000, 400),
        ("POST", "/hooks/graph", b" " * 1_000_001, 413),
        ("GET", "/hooks/graph", b"", 405),
        ("POST", "/hooks", b"{}", 404),
    ],
)
async def test_what_is_none_is_refused(method: str, path: str, body: bytes, status: int) -> None:
    async with served(Subscribed()) as client:
        assert (await client.request(method, path, content=body)).status_code == status
