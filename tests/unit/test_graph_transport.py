"""The way to Microsoft Graph on bad days: what passes is tried again, what does not is an error, and nothing
is ever a smaller answer."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from aim.bridges.msgraph.graph import ResyncNeeded
from aim.bridges.msgraph.throttle import AWAITED, Retries
from aim.errors import SourceError, SourceInvalid, SourceUnavailable
from tests.unit.graph_way import GRAPH, SETTINGS, Way, in_turn, refusal, reply

GOOD = {"value": [{"id": "1"}]}
USERS = f"{GRAPH}/v1.0/users"
DELTA = f"{GRAPH}/v1.0/users/delta?$deltatoken=x"


def page(*ids: str, following: object = None, delta: object = None, url: str = USERS) -> httpx.Response:
    body: dict[str, object] = {"value": [{"id": each} for each in ids]}
    if following is not None:
        body["@odata.nextLink"] = following
    if delta is not None:
        body["@odata.deltaLink"] = delta
    return httpx.Response(200, json=body)


async def ids(way: Way, path: str = "/users") -> list[object]:
    return [item["id"] for each in await way.pages(path) for item in each.items]


# -- one request -----------------------------------------------------------------------------------------


async def test_a_request_names_the_version_and_shows_the_token() -> None:
    way = Way(lambda request: reply([]))
    async with way.open() as graph:
        await graph.get("/users", {"$select": "id,mail", "$filter": "startswith(mail,'a b&c')"})
    (request,) = way.requests
    assert request.url.path == "/v1.0/users"
    assert dict(request.url.params) == {"$select": "id,mail", "$filter": "startswith(mail,'a b&c')"}
    assert way.tokens[0].count(".") == 2


@pytest.mark.parametrize("base_url", [f"{GRAPH}/", f"{GRAPH}/v1.0", f"{GRAPH}/v1.0/"])
async def test_base_url_may_be_written_in_several_ways(base_url: str) -> None:
    way = Way(lambda request: reply([]), replace(SETTINGS, base_url=base_url))
    await way.get()
    assert str(way.requests[0].url) == f"{GRAPH}/v1.0/organization"


async def test_a_base_url_that_is_not_encrypted_is_refused() -> None:
    way = Way(lambda request: reply([]), replace(SETTINGS, base_url="http://graph.example.com"))
    with pytest.raises(SourceInvalid, match="no https:// URL"):
        await way.get()
    assert way.requests == []


@pytest.mark.parametrize(
    ("path", "query", "is_advanced"),
    [
        ("/users", {"$filter": "accountEnabled eq true"}, False),
        ("/users", {"$filter": "endswith(mail,'x')", "$count": "true"}, True),
        ("/users/$count", None, True),
    ],
)
async def test_advanced_queries_say_that_they_are(
    path: str, query: dict[str, str] | None, is_advanced: bool
) -> None:
    way = Way(lambda request: reply([]))
    async with way.open() as graph:
        await graph.get(path, query)
    assert ("ConsistencyLevel" in way.requests[0].headers) == is_advanced


async def test_a_count_is_a_number() -> None:
    async with Way(lambda request: httpx.Response(200, text="\ufeff1234")).open() as graph:
        assert await graph.count("/users/$count") == 1234


@pytest.mark.parametrize(
    "fault",
    [
        refusal(429, "TooManyRequests"),
        refusal(500, "UnknownError"),
        refusal(502, "BadGateway"),
        httpx.Response(503, html="<h1>Service unavailable</h1>"),
        httpx.Response(504),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("silent"),
        httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
        httpx.Response(200, html="<h1>Log in to the Wi-Fi</h1>"),
        httpx.Response(403, html="<h1>Blocked by your company</h1>"),
        httpx.Response(200, text='{"value": [{"id": "1"'),
        httpx.Response(200, json=["no object"]),
    ],
)
async def test_what_may_pass_is_tried_again(fault: httpx.Response | Exception) -> None:
    way = Way(in_turn(fault, httpx.Response(200, json=GOOD)))
    assert await way.get() == GOOD
    assert way.clock.slept == [0.25]


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: refusal(503, "ServiceUnavailable"),
        lambda _: httpx.Response(200, html="<h1>Log in</h1>"),
        lambda _: httpx.Response(200, text='{"value": ['),
    ],
)
async def test_what_stays_is_an_error_in_the_end(fault: object) -> None:
    way = Way(fault)  # type: ignore[arg-type]  # a handler each
    with pytest.raises(SourceUnavailable) as error:
        await way.get()
    assert len(way.requests) == 4
    assert "\n" not in error.value.message
    assert error.value.remedy


async def test_a_connection_that_is_always_lost_is_an_error() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("connection reset")

    way = Way(lost)
    with pytest.raises(SourceUnavailable, match="cut off"):
        await way.get()
    assert len(way.requests) == 4


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "17"}, 17.0),
        ({"Retry_After": "Sun, 01 Mar 2026 12:00:40 GMT"}, 40.0),
        # By the server's own clock, which is ten minutes ahead of ours.
        ({"Retry_After": "Sun, 01 Mar 2026 12:10:30 GMT", "Date": "Sun, 01 Mar 2026 12:10:00 GMT"}, 30.0),
        ({"Retry_After": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"Retry_After": "soon"}, 0.25),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(status: int, headers: dict[str, str], wait: float) -> None:
    way = Way(in_turn(refusal(status, "TooManyRequests", **headers), reply([])))
    await way.get()
    assert way.clock.slept == [wait]


async def test_a_wait_that_is_too_long_ends_the_read() -> None:
    way = Way(lambda request: refusal(429, "TooManyRequests", Retry_After="86400"))
    with pytest.raises(SourceUnavailable, match="for the next 86400 seconds"):
        await way.get()
    assert len(way.requests) == 1


def away(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("Connection refused")


async def test_who_waits_for_the_outcome_is_told_soon_and_what_was_tried() -> None:
    way = Way(away, retries=AWAITED)
    with pytest.raises(SourceUnavailable) as error:
        await way.get()
    assert 3 <= len(way.requests) <= AWAITED.tries
    assert sum(way.clock.slept) <= 10
    assert error.value.message.endswith(
        f": no connection: Connection refused; given up after {len(way.requests)} tries"
        f" in {sum(way.clock.slept):.0f} s"
    )


async def test_attempts_that_take_long_are_fewer() -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        way.clock.now += timedelta(seconds=12)
        raise httpx.ConnectTimeout("")

    way = Way(slow, retries=AWAITED)
    with pytest.raises(SourceUnavailable, match=r"; given up after one try in 12 s$"):
        await way.get()
    assert len(way.requests) == 1


async def test_whose_outcome_is_awaited_waits_when_graph_asks_but_not_again_and_again() -> None:
    limited = Way(lambda request: refusal(429, "TooManyRequests", Retry_After="20"), retries=AWAITED)
    with pytest.raises(SourceUnavailable, match=r"limits our rate \(429\); given up after 2 tries in 20 s$"):
        await limited.get()
    assert limited.clock.slept == [20]
    once = Way(in_turn(refusal(429, "TooManyRequests", Retry_After="20"), reply([])), retries=AWAITED)
    await once.get()


async def test_in_a_batch_as_well_who_waits_is_told_soon() -> None:
    def failing(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"responses": [{"id": "0", "status": 503, "body": {}}]})

    way = Way(failing, retries=AWAITED)
    async with way.open() as graph:
        with pytest.raises(SourceUnavailable, match="given up after"):
            await graph.batch(["/users/1"])
    assert sum(way.clock.slept) <= 10


async def test_why_something_is_tried_again_is_told_once_until_all_is_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="aim.msgraph")
    gone = httpx.ConnectError("Connection refused")
    way = Way(in_turn(gone, gone, gone, reply([]), gone, reply([])))
    async with way.open() as graph:
        await graph.get("/organization")
        assert [record.getMessage().partition("; ")[2] for record in caplog.records] == [
            "trying again in 0.2 s"
        ]
        await graph.get("/organization")
    assert len(caplog.records) == 2


async def test_who_looks_again_by_itself_is_told_the_same_each_time() -> None:
    said = set()
    for _ in range(2):
        way = Way(away, retries=Retries())
        with pytest.raises(SourceUnavailable) as error:
            await way.get()
        assert sum(way.clock.slept) > 30
        said.add(error.value.message)
    (message,) = said
    assert message.endswith("no connection: Connection refused")


async def test_all_requests_keep_quiet_when_one_is_told_to() -> None:
    at: list[float] = []
    way = Way(lambda request: reply([]))

    def handler(request: httpx.Request) -> httpx.Response:
        at.append((way.clock.now - way.clock.now.replace(minute=0, second=0)).total_seconds())
        return refusal(429, "TooManyRequests", Retry_After="60") if len(at) == 1 else reply([])

    way.handler = handler
    way.settings = replace(SETTINGS, parallelism=1)
    async with way.open() as graph:
        await asyncio.gather(*(graph.get(f"/users/{number}") for number in range(4)))
    assert at[0] == 0
    assert min(at[1:]) >= 60


async def test_no_more_requests_at_once_than_allowed() -> None:
    busy, most = 0, 0

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            for _ in range(5):
                await asyncio.sleep(0)
            busy -= 1
            return reply([])

    from aim.bridges.msgraph.transport import open_transport

    way = Way(lambda request: reply([]))
    settings = replace(SETTINGS, parallelism=3)
    async with open_transport(settings, http=Slow(), token_client=way.authority.client) as graph:
        await asyncio.gather(*(graph.get(f"/users/{number}") for number in range(20)))
    assert most == 3


async def test_redirects_are_not_followed() -> None:
    way = Way(lambda request: httpx.Response(302, headers={"Location": "https://evil.example.net/"}))
    with pytest.raises(SourceInvalid, match="redirected to https://evil"):
        await way.get()
    assert len(way.requests) == 1


@pytest.mark.parametrize(
    ("path", "permission"),
    [
        ("/users", "User.Read.All"),
        ("/organization", "User.Read.All"),
        ("/groups/delta", "GroupMember.Read.All"),
        ("/groups/1/members", "GroupMember.Read.All"),
    ],
)
async def test_a_missing_permission_is_named(path: str, permission: str) -> None:
    way = Way(lambda request: refusal(403, "Authorization_RequestDenied", "Insufficient privileges"))
    with pytest.raises(SourceInvalid, match=f"{permission} is missing") as error:
        await way.get(path)
    assert permission in error.value.remedy
    assert len(way.requests) == 1


async def test_after_a_missing_permission_another_token_is_asked_for() -> None:
    way = Way(in_turn(refusal(403, "Authorization_RequestDenied"), reply([])))
    async with way.open() as graph:
        with pytest.raises(SourceInvalid):
            await graph.get("/users")
        await graph.get("/users")
    assert way.tokens[0] != way.tokens[1]


# -- tokens in the middle --------------------------------------------------------------------------------


async def test_a_token_that_graph_refuses_is_replaced_at_once() -> None:
    way = Way(in_turn(refusal(401, "InvalidAuthenticationToken"), reply([])))
    await way.get()
    assert way.tokens[0] != way.tokens[1]
    assert way.clock.slept == []


async def test_claims_that_graph_wants_are_asked_for() -> None:
    wanted = json.dumps({"access_token": {"nbf": {"essential": True, "value": "1600000000"}}})
    challenge = (
        f'Bearer realm="", error="insufficient_claims", claims="{base64.b64encode(wanted.encode()).decode()}"'
    )
    way = Way(in_turn(refusal(401, "InvalidAuthenticationToken", WWW_Authenticate=challenge), reply([])))
    await way.get()
    first, second = way.authority.forms
    assert "claims" not in first
    assert json.loads(second["claims"]) == json.loads(wanted)


async def test_a_token_that_is_always_refused_is_an_error() -> None:
    way = Way(lambda request: refusal(401, "InvalidAuthenticationToken", "Invalid audience."))
    with pytest.raises(SourceInvalid, match=r"does not accept our token \(401, .*audience"):
        await way.get()
    assert len(way.requests) == 2


async def test_a_token_that_ends_in_the_middle_of_a_read_is_replaced() -> None:
    way = Way(
        in_turn(
            page("1", following=f"{USERS}?$skiptoken=2"),
            refusal(401, "InvalidAuthenticationToken", "Lifetime validation failed"),
            page("2"),
        )
    )
    assert await ids(way) == ["1", "2"]
    assert len(set(way.tokens)) == 2


async def test_a_token_is_replaced_shortly_before_it_ends() -> None:
    way = Way(lambda request: reply([]))
    async with way.open() as graph:
        await graph.get("/users")
        await way.clock.sleep(3600 - 301)
        await graph.get("/users")
        await way.clock.sleep(2)
        await graph.get("/users")
    assert way.tokens[0] == way.tokens[1] != way.tokens[2]


async def test_many_that_wait_for_a_token_cost_one() -> None:
    way = Way(lambda request: reply([]))
    async with way.open() as graph:
        await asyncio.gather(*(graph.get("/users") for _ in range(10)))
    assert len(way.authority.forms) == 1


# -- collections -----------------------------------------------------------------------------------------


async def test_pages_are_followed_to_the_end() -> None:
    way = Way(
        in_turn(
            page("1", "2", following=f"{USERS}?$skiptoken=2"),
            page(following=f"{USERS}?$skiptoken=3"),
            page("3"),
        )
    )
    async with way.open() as graph:
        got = [each async for each in graph.pages("/users", {"$select": "id"}, page_size=999)]
    assert [[item["id"] for item in each.items] for each in got] == [["1", "2"], [], ["3"]]
    assert {request.headers["Prefer"] for request in way.requests} == {"odata.maxpagesize=999"}


async def test_the_last_page_of_a_delta_query_has_its_link() -> None:
    way = Way(in_turn(page("1", following=f"{DELTA}2"), page(delta=DELTA)))
    assert [each.delta_link for each in await way.pages("/users/delta")] == [None, DELTA]


async def test_a_delta_link_is_asked_as_it_is() -> None:
    way = Way(lambda request: page(delta=f"{DELTA}y"))
    await way.pages(DELTA)
    assert str(way.requests[0].url) == DELTA


@pytest.mark.parametrize(
    "bad",
    [
        httpx.Response(200, json={}),
        httpx.Response(200, json={"value": None}),
        httpx.Response(200, json={"value": {"id": "1"}}),
        httpx.Response(200, json={"value": ["1"]}),
        httpx.Response(200, json={"value": [], "@odata.nextLink": 7}),
        httpx.Response(200, json={"value": [], "@odata.nextLink": ""}),
        # No collection, and no delta query, ends like this.
        httpx.Response(200, json={"value": [], "@odata.deltaLink": DELTA}),
        httpx.Response(200, json={"value": [], "@odata.nextLink": f"{USERS}?$skiptoken=1"}),
        httpx.Response(200, json={"value": [], "@odata.nextLink": USERS}),
        httpx.Response(200, json={"error": {"code": "UnknownError"}}),
    ],
)
async def test_a_page_that_graph_would_not_give_is_asked_again(bad: httpx.Response) -> None:
    following = f"{USERS}?$skiptoken=1"
    start = page("1", following=following)
    assert await ids(Way(in_turn(start, bad, page("2")))) == ["1", "2"]
    way = Way(lambda request: start if str(request.url) == USERS else bad)
    with pytest.raises(SourceUnavailable):
        await ids(way)
    assert len(way.requests) == 5


@pytest.mark.parametrize(
    "bad",
    [
        {"value": []},
        {"value": [], "@odata.nextLink": f"{DELTA}2", "@odata.deltaLink": DELTA},
    ],
)
async def test_a_delta_query_that_does_not_end_as_one_is_an_error(bad: dict[str, object]) -> None:
    with pytest.raises(SourceUnavailable, match="last page"):
        await Way(lambda request: httpx.Response(200, json=bad)).pages("/users/delta")


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example.net/v1.0/users?$skiptoken=2",
        "http://graph.example.com/v1.0/users?$skiptoken=2",
        "https://graph.example.com:8443/v1.0/users",
        "https://graph.example.com.evil.example.net/v1.0/users",
        "https://graph.example.com@evil.example.net/v1.0/users",
        "https://somebody@graph.example.com/v1.0/users",
        "/v1.0/users?$skiptoken=2",
        "users",
        "https://[::1/",
    ],
)
@pytest.mark.parametrize("name", ["@odata.nextLink", "@odata.deltaLink"])
async def test_a_link_to_somebody_else_is_an_error_and_not_followed(name: str, link: str) -> None:
    way = Way(lambda request: httpx.Response(200, json={"value": [], name: link}))
    with pytest.raises(SourceInvalid, match="our token is not sent there"):
        await way.pages("/users/delta")
    assert len(way.requests) == 1


async def test_a_kept_link_to_somebody_else_is_not_followed_either() -> None:
    way = Way(lambda request: reply([]))
    with pytest.raises(SourceInvalid, match="our token is not sent there"):
        await way.pages("https://evil.example.net/v1.0/users/delta?$deltatoken=x")
    assert way.requests == []


async def test_pages_that_lead_in_a_circle_are_an_error() -> None:
    def circle(request: httpx.Request) -> httpx.Response:
        at = int(request.url.params.get("$skiptoken", "0"))
        return page(str(at), following=f"{USERS}?$skiptoken={at % 3 + 1}")

    with pytest.raises(SourceUnavailable, match="leads back"):
        await Way(circle).pages()


async def test_empty_pages_without_end_are_an_error() -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        return page(following=f"{USERS}?$skiptoken={int(request.url.params.get('$skiptoken', '0')) + 1}")

    with pytest.raises(SourceInvalid, match="no end"):
        await Way(endless).pages()


@pytest.mark.parametrize(
    "answer",
    [
        refusal(410, "syncStateNotFound"),
        httpx.Response(410),
        refusal(400, "resyncRequired"),
        refusal(404, "SyncStateNotFound"),
        refusal(400, "SyncStateInvalid"),
        refusal(400, "BadRequest", "Badly formed token"),
    ],
)
async def test_a_forgotten_delta_link_asks_for_all(answer: httpx.Response) -> None:
    way = Way(lambda request: answer)
    with pytest.raises(ResyncNeeded):
        await way.pages(DELTA)
    assert len(way.requests) == 1


async def test_a_wrong_query_is_no_resync() -> None:
    way = Way(lambda request: refusal(400, "Request_UnsupportedQuery", "No such property"))
    with pytest.raises(SourceInvalid, match="No such property") as error:
        await way.pages("/users/delta")
    assert not isinstance(error.value, ResyncNeeded)


async def test_a_read_whose_page_is_forgotten_is_made_anew_later() -> None:
    way = Way(
        in_turn(page("1", following=f"{USERS}?$skiptoken=2"), refusal(400, "Directory_ExpiredPageToken"))
    )
    with pytest.raises(SourceUnavailable):
        await way.pages()


# -- batches ---------------------------------------------------------------------------------------------


def batched(request: httpx.Request) -> list[tuple[str, str]]:
    return [(each["id"], each["url"]) for each in json.loads(request.content)["requests"]]


def part(number: str, url: str, status: int = 200, **headers: str) -> dict[str, object]:
    body = {"id": url} if status == 200 else {"error": {"code": "TooManyRequests", "message": ""}}
    return {"id": number, "status": status, "headers": headers, "body": body}


async def test_a_batch_answers_in_the_order_of_its_paths() -> None:
    way = Way(
        lambda request: httpx.Response(
            200, json={"responses": [part(number, url) for number, url in reversed(batched(request))]}
        )
    )
    paths = [f"/groups/{number}?$select=id" for number in range(45)]
    async with way.open() as graph:
        assert [item["id"] for item in await graph.batch(paths)] == paths
    assert sorted(len(batched(request)) for request in way.requests) == [5, 20, 20]


async def test_only_what_failed_in_a_batch_is_asked_again_when_graph_wants() -> None:
    refused = {"/a": ["429", "503"], "/b": ["429"]}

    def handler(request: httpx.Request) -> httpx.Response:
        parts = []
        for number, url in batched(request):
            status = int(refused[url].pop()) if refused.get(url) else 200
            parts.append(part(number, url, status, **({} if status == 200 else {"Retry-After": "9"})))
        return httpx.Response(200, json={"responses": parts})

    way = Way(handler)
    async with way.open() as graph:
        assert [item["id"] for item in await graph.batch(["/a", "/b", "/c"])] == ["/a", "/b", "/c"]
    assert [[url for _, url in batched(request)] for request in way.requests] == [
        ["/a", "/b", "/c"],
        ["/a", "/b"],
        ["/a"],
    ]
    assert way.clock.slept == [9.0, 9.0]


async def test_what_always_fails_in_a_batch_is_an_error() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        parts = [part(number, url, 429 if url == "/b" else 200) for number, url in batched(request)]
        return httpx.Response(200, json={"responses": parts})

    way = Way(handler)
    async with way.open() as graph:
        with pytest.raises(SourceUnavailable, match="GET /b: Graph limits our rate"):
            await graph.batch(["/a", "/b"])
    assert len(way.requests) == 4


async def test_a_batch_that_was_lost_is_sent_again() -> None:
    good = httpx.Response(200, json={"responses": [part("0", "/a")]})
    async with Way(in_turn(httpx.ReadTimeout("silent"), good)).open() as graph:
        assert await graph.batch(["/a"]) == [{"id": "/a"}]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"responses": []},
        {"responses": [{"id": "0", "status": 200, "body": {}}]},
        {"responses": [{"id": "0", "status": 200, "body": {}}, {"id": "7", "status": 200, "body": {}}]},
        {"responses": [{"id": "0", "status": 200, "body": {}}, {"id": "1", "body": {}}]},
        {"responses": [{"id": "0", "status": 200, "body": {}}, {"id": "1", "status": 200, "body": "e30="}]},
    ],
)
async def test_a_batch_with_an_answer_too_few_is_an_error(body: dict[str, object]) -> None:
    async with Way(lambda request: httpx.Response(200, json=body)).open() as graph:
        with pytest.raises(SourceUnavailable):
            await graph.batch(["/a", "/b"])


async def test_what_is_refused_in_a_batch_is_an_error() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        denied = {"error": {"code": "Authorization_RequestDenied", "message": ""}}
        parts = [{"id": number, "status": 403, "body": denied} for number, _ in batched(request)]
        return httpx.Response(200, json={"responses": parts})

    async with Way(handler).open() as graph:
        with pytest.raises(
            SourceInvalid, match=r"GET /groups/1/members: .*GroupMember\.Read\.All is missing"
        ):
            await graph.batch(["/groups/1/members?$select=id"])


# -- writing subscriptions -------------------------------------------------------------------------------


async def test_a_post_that_may_have_arrived_is_not_made_again() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("silent")

    way = Way(lost)
    async with way.open() as graph:
        with pytest.raises(SourceUnavailable):
            await graph.post("/subscriptions", {"resource": "users"})
    assert len(way.requests) == 1


async def test_a_post_that_was_not_taken_is_made_again() -> None:
    way = Way(
        in_turn(
            refusal(429, "TooManyRequests"),
            httpx.ConnectError("refused"),
            httpx.Response(201, json={"id": "s"}),
        )
    )
    async with way.open() as graph:
        assert await graph.post("/subscriptions", {"resource": "users"}) == {"id": "s"}


async def test_deleting_needs_no_body() -> None:
    way = Way(lambda request: httpx.Response(204))
    async with way.open() as graph:
        await graph.delete("/subscriptions/s")
    assert way.requests[0].method == "DELETE"


# -- what is never said ----------------------------------------------------------------------------------


async def test_no_error_holds_the_token() -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("connection reset")

    way = Way(echo, retries=Retries(tries=1))
    with pytest.raises(SourceError) as error:
        await way.get()
    assert way.tokens[0] not in f"{error.value.message} {error.value.remedy}"
