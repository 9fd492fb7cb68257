"""The appservice's endpoints as the homeserver meets them, and the server that they are in."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from structlog.testing import capture_logs

from aim.errors import AimError, StoreError
from aim.matrix import appservice
from aim.matrix.appservice import DEEPEST, LARGE, LARGEST, decode, router
from aim.ops.listening import application, listening
from aim.ops.metrics import Metrics

TOKEN = "hs-secret"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
LOOPBACK = "127.0.0.1"
V1 = "/_matrix/app/v1"
MESSAGE = {"type": "m.room.message", "content": {"body": "secret words", "n": [1, 2.5, None, "ä"]}}


class Taken:
    """A `take` that remembers what it got, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.got: list[tuple[str, object]] = []
        self.error = error

    async def __call__(self, txn_id: str, events: object) -> None:
        if self.error:
            raise self.error
        self.got.append((txn_id, events))


class Unread:
    """A body that must not be read: 500 if it is."""

    def __aiter__(self) -> Unread:
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError("the body was read")


def serving(take: appservice.Take, *, ready: Callable[[], bool] = lambda: True) -> httpx.AsyncClient:
    app = application([router(TOKEN, take)], Metrics(), ready)
    # What it raises after it has answered is for the server, which drops it.
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://aim")


async def put(take: appservice.Take, path: str = f"{V1}/transactions/1", **options: object) -> httpx.Response:
    arguments = {"headers": HEADERS, "json": {"events": []}} | options
    if "content" in arguments:
        del arguments["json"]
    async with serving(take) as client:
        return await client.put(path, **arguments)  # type: ignore[arg-type]  # as httpx takes them


def errcode(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()["errcode"]


# -- transactions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [V1, ""])
async def test_events_are_handed_on_untouched(prefix: str) -> None:
    take = Taken()
    body = {"events": [MESSAGE, 7, None, {}], "ephemeral": [{"type": "m.typing"}], "de.sorunome.x": 1}
    answer = await put(take, f"{prefix}/transactions/17", json=body)

    assert (answer.status_code, answer.json()) == (200, {})
    assert take.got == [("17", [MESSAGE, 7, None, {}])]


@pytest.mark.parametrize(
    ("sent", "got"), [("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("%C3%A4%20%3F", "ä ?"), ("a/b", "a/b")]
)
async def test_ids_are_decoded_once(sent: str, got: str) -> None:
    take = Taken()
    assert (await put(take, f"{V1}/transactions/{sent}")).status_code == 200
    assert take.got == [(got, [])]


async def test_a_transaction_needs_an_id() -> None:
    take = Taken()
    assert errcode(await put(take, f"{V1}/transactions/")) == (404, "M_UNRECOGNIZED")
    assert not take.got


async def test_the_answer_waits_until_it_is_taken() -> None:
    begun, stored = asyncio.Event(), asyncio.Event()

    async def take(txn_id: str, events: object) -> None:
        begun.set()
        await stored.wait()

    asking = asyncio.create_task(put(take))
    await begun.wait()
    assert not asking.done()
    stored.set()
    assert (await asking).status_code == 200


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "M_NOT_JSON"),
        (b'{"events": [', "M_NOT_JSON"),
        (b'{"events": ["\xff"]}', "M_NOT_JSON"),
        (b"[" * 100_000, "M_NOT_JSON"),
        (b"[]", "M_BAD_JSON"),
        (b"null", "M_BAD_JSON"),
        (b"{}", "M_BAD_JSON"),
        (b'{"events": {}}', "M_BAD_JSON"),
        (b'{"events": null}', "M_BAD_JSON"),
    ],
)
async def test_what_is_no_transaction_is_refused_and_said(content: bytes, code: str) -> None:
    take = Taken()
    with capture_logs() as logs:
        assert errcode(await put(take, content=content)) == (400, code)
    assert not take.got
    assert [(line["log_level"], bool(line["remedy"])) for line in logs] == [("error", True)]


# -- tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", (401, "M_MISSING_TOKEN")),
        ({"Authorization": "Bearer "}, "", (401, "M_MISSING_TOKEN")),
        ({"Authorization": f"Basic {TOKEN}"}, "", (401, "M_MISSING_TOKEN")),
        ({}, "?access_token=", (401, "M_MISSING_TOKEN")),
        ({"Authorization": "Bearer wrong"}, "", (403, "M_FORBIDDEN")),
        ({"Authorization": f"Bearer {TOKEN}x"}, "", (403, "M_FORBIDDEN")),
        ({"Authorization": "Bearer schlüssel".encode()}, "", (403, "M_FORBIDDEN")),
        ({}, "?access_token=wrong", (403, "M_FORBIDDEN")),
        ({}, "?access_token=schl%C3%BCssel", (403, "M_FORBIDDEN")),
        ({"Authorization": "Bearer wrong"}, f"?access_token={TOKEN}", (403, "M_FORBIDDEN")),
        (HEADERS, "?access_token=wrong", (403, "M_FORBIDDEN")),
        (HEADERS, f"?access_token={TOKEN}&access_token=wrong", (403, "M_FORBIDDEN")),
    ],
)
@pytest.mark.parametrize("what", ["PUT transactions/1", "GET users/@a:b", "GET rooms/%23a:b", "POST ping"])
async def test_nobody_without_the_token(
    what: str, headers: dict[str, str], query: str, expected: tuple[int, str]
) -> None:
    take = Taken()
    method, path = what.split()

    async with serving(take) as client:
        answer = await client.request(method, f"{V1}/{path}{query}", headers=headers, content=Unread())
    assert errcode(answer) == expected
    assert not take.got


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        (HEADERS, ""),
        ({"Authorization": f"bearer {TOKEN}"}, ""),
        ({}, f"?access_token={TOKEN}"),
        (HEADERS, f"?access_token={TOKEN}"),
        # Conduit sends the token in the query and an empty one in the header.
        ({"Authorization": "Bearer "}, f"?access_token={TOKEN}"),
    ],
)
async def test_the_token_comes_in_the_header_or_the_query(headers: dict[str, str], query: str) -> None:
    take = Taken()
    assert (await put(take, f"{V1}/transactions/1{query}", headers=headers)).status_code == 200
    assert take.got


async def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert (await put(Taken())).status_code == 403
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


# -- sizes ---------------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    body = b'{"events": []}'
    return body + b" " * (size - len(body))


def pieces(body: bytes, read: list[int] | None = None) -> AsyncIterator[bytes]:
    """The body without a Content-Length, as chunks."""

    async def give() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**20):
            piece = body[start : start + 2**20]
            if read is not None:
                read.append(len(piece))
            yield piece

    return give()


@pytest.mark.parametrize("chunked", [False, True])
async def test_sixteen_mebibytes_are_taken(chunked: bool) -> None:
    take, body = Taken(), padded(LARGEST)
    answer = await put(take, content=pieces(body) if chunked else body)
    assert answer.status_code == 200
    assert ("content-length" in answer.request.headers) is not chunked
    assert take.got == [("1", [])]


async def test_one_byte_more_is_refused_unread() -> None:
    take = Taken()
    headers = HEADERS | {"Content-Length": str(LARGEST + 1)}
    assert errcode(await put(take, content=Unread(), headers=headers)) == (413, "M_TOO_LARGE")
    assert not take.got


@pytest.mark.parametrize("headers", [HEADERS, HEADERS | {"Content-Length": "14"}])
async def test_without_its_length_it_is_read_until_it_is_too_large(headers: dict[str, str]) -> None:
    take, read = Taken(), list[int]()
    body = padded(2 * LARGEST)
    assert errcode(await put(take, content=pieces(body, read), headers=headers)) == (413, "M_TOO_LARGE")
    assert sum(read) == LARGEST + 2**20
    assert not take.got


async def test_a_large_transaction_lets_others_run() -> None:
    content = {str(number): [number] * 60 for number in range(220)}
    body = json.dumps({"events": [{"content": content}] * 100}).encode()
    assert 5_000_000 < len(body) < LARGEST
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    beating = asyncio.create_task(beat())
    before = beats
    content_read = await appservice._decoded(body)
    passed = beats - before
    beating.cancel()
    assert content_read == json.loads(body)
    # Decoded in one go, even in a thread, there would be one or two.
    assert passed >= 5


# -- JSON that strangers write -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize("nested", [b'{"x":' * 20_000 + b"1" + b"}" * 20_000, b"[" * 20_000 + b"]" * 20_000])
async def test_a_deep_event_spoils_no_transaction(nested: bytes, size: int) -> None:
    take = Taken()
    kept = {"type": "m.room.name", "content": {"name": 'brackets ]]]}}}" \\ [[[{{{', "level": 100}}
    padding = b" " * size
    body = b'{"events": [%s, {"content": %s}, %s]%s}' % (
        json.dumps(kept).encode(),
        nested,
        json.dumps(MESSAGE).encode(),
        padding,
    )
    assert (await put(take, content=body)).status_code == 200
    ((_, events),) = take.got
    assert isinstance(events, list)
    assert (events[0], events[2]) == (kept, MESSAGE)
    depth, inner = 3, events[1]["content"]
    while inner is not None:
        depth, inner = depth + 1, inner["x"] if isinstance(inner, dict) else inner[0]
    assert depth == DEEPEST


async def test_an_endless_number_spoils_no_transaction() -> None:
    take = Taken()
    body = b'{"events": [{"content": {"level": %s}}, {"content": {"level": 100}}]}' % (b"9" * 5000)
    assert (await put(take, content=body)).status_code == 200
    assert take.got == [("1", [{"content": {"level": None}}, {"content": {"level": 100}}])]


def test_what_python_can_read_is_read_whole() -> None:
    deep = b"[" * 300 + b"]" * 300
    assert decode(deep) == json.loads(deep)


# -- when it can't be taken ----------------------------------------------------------------------------------


async def test_a_transaction_that_can_t_be_stored_is_asked_for_again() -> None:
    take = Taken(StoreError("no database at db:5432", "start it"))
    with capture_logs() as logs:
        answer = await put(take)
    assert errcode(answer) == (503, "M_UNKNOWN")
    assert "5432" not in answer.text
    (line,) = logs
    assert (line["log_level"], line["cause"], line["remedy"]) == (
        "error",
        "no database at db:5432",
        "start it",
    )


async def test_a_defect_is_answered_and_logged_without_what_came_in() -> None:
    take = Taken(KeyError("secret words"))
    with capture_logs() as logs:
        answer = await put(take, f"{V1}/transactions/1?access_token={TOKEN}", json={"events": [MESSAGE]})
    assert errcode(answer) == (500, "M_UNKNOWN")
    (line,) = logs
    assert line["log_level"] == "error"
    assert "KeyError at " in line["cause"]
    assert "test_appservice.py:" in line["cause"]
    for told in (answer.text, str(logs)):
        assert "Traceback" not in told
        assert "secret words" not in told
        assert TOKEN not in told


# -- the rest of the endpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [V1, ""])
@pytest.mark.parametrize("path", ["users/%40ann%3Aexample.com", "rooms/%23all%3Aexample.com", "rooms/a%2Fb"])
async def test_nobody_and_nothing_is_made_for_asking(prefix: str, path: str) -> None:
    async with serving(Taken()) as client:
        assert errcode(await client.get(f"{prefix}/{path}", headers=HEADERS)) == (404, "M_NOT_FOUND")


async def test_a_ping_is_answered() -> None:
    async with serving(Taken()) as client:
        answer = await client.post(f"{V1}/ping", headers=HEADERS, json={"transaction_id": "1"})
        assert (answer.status_code, answer.json()) == (200, {})
        assert (await client.post(f"{V1}/ping", headers=HEADERS)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("HEAD", "/", 404),
        ("PUT", f"{V1}/nothing", 404),
        ("GET", f"{V1}/thirdparty/protocol/irc", 404),
        ("POST", "/ping", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/metrics/", 404),
        ("GET", f"{V1}/transactions/1", 405),
        ("POST", "/transactions/1", 405),
        ("GET", f"{V1}/ping", 405),
        ("HEAD", f"{V1}/users/@a:b", 405),
        ("DELETE", "/health", 405),
    ],
)
async def test_what_is_not_there_is_said_in_matrix(method: str, path: str, status: int) -> None:
    async with serving(Taken()) as client:
        answer = await client.request(method, path, headers=HEADERS)
    assert answer.status_code == status
    assert ("allow" in answer.headers) is (status == 405)
    if method != "HEAD":
        assert errcode(answer) == (status, "M_UNRECOGNIZED")


async def test_health_readiness_and_metrics() -> None:
    ready = False
    async with serving(Taken(), ready=lambda: ready) as client:
        health, waiting = await client.get("/health"), await client.get("/ready")
        ready = True
        there, metrics = await client.get("/ready"), await client.get("/metrics")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (waiting.status_code, there.status_code) == (503, 200)
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert "aim_held_actions 0.0" in metrics.text


# -- the server ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(take: appservice.Take, host: str = LOOPBACK) -> AsyncIterator[httpx.AsyncClient]:
    app = application([router(TOKEN, take)], Metrics(), lambda: True)
    async with (
        listening(app, host, 0) as port,
        httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", headers=HEADERS) as client,
    ):
        yield client


@pytest.mark.parametrize("host", [LOOPBACK, "0.0.0.0", "::"])
async def test_it_listens_on_a_free_port_until_it_ends(host: str) -> None:
    take = Taken()
    async with running(take, host) as client:
        answer = await client.put(f"{V1}/transactions/a%2Fb", content=padded(LARGEST))
        refused = await client.put(f"{V1}/transactions/2", content=padded(LARGEST + 1))
        chunked = await client.put(f"{V1}/transactions/3", content=pieces(padded(LARGEST + 1)))
        assert (await client.head("/nothing")).status_code == 404
    assert answer.status_code == 200
    assert errcode(refused) == errcode(chunked) == (413, "M_TOO_LARGE")
    assert take.got == [("a/b", [])]
    assert "server" not in answer.headers
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, client.base_url.port or 0))


async def test_a_transaction_under_way_is_finished_before_it_ends() -> None:
    begun, stored = asyncio.Event(), asyncio.Event()

    async def take(txn_id: str, events: object) -> None:
        begun.set()
        await stored.wait()

    app = application([router(TOKEN, take)], Metrics(), lambda: True)
    async with httpx.AsyncClient(headers=HEADERS) as client:
        async with listening(app, LOOPBACK, 0) as port:
            url = f"http://{LOOPBACK}:{port}{V1}/transactions/1"
            asking = asyncio.create_task(client.put(url, json={"events": []}))
            await begun.wait()
            asyncio.get_running_loop().call_later(0.2, stored.set)
        assert stored.is_set()
        assert (await asking).status_code == 200


async def test_signals_stay_the_daemon_s() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with running(Taken()):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_nothing_but_our_own_lines_is_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with running(Taken(KeyError("secret words"))) as client:
            answer = await client.put(f"{V1}/transactions/1?access_token={TOKEN}", json={"events": [MESSAGE]})
    assert answer.status_code == 500
    assert [line["event"] for line in logs] == ["a request failed"]
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert TOKEN not in "".join(capfd.readouterr())


async def test_an_error_of_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(LookupError, match="of the daemon"):
        async with running(Taken()):
            raise LookupError("of the daemon")


async def test_an_address_that_can_t_be_used_is_said_plainly() -> None:
    app = application([], Metrics(), lambda: True)
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            AimError, match=f"listen: {LOOPBACK}:{port} can't be used: Address already"
        ) as told:
            async with listening(app, LOOPBACK, port):
                pass
        assert "`listen`" in told.value.remedy
        with pytest.raises(AimError, match=f"source.port: {LOOPBACK}:{port} can't") as told:
            async with listening(app, LOOPBACK, port, "source.port"):
                pass
        assert "`source.port`" in told.value.remedy


async def test_that_somebody_was_refused_is_told() -> None:
    told: list[int] = []
    app = application([router(TOKEN, Taken(), lambda: told.append(1))], Metrics(), lambda: True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://aim") as client:
        assert (await client.put(f"{V1}/transactions/1", json={"events": []}, headers=HEADERS)).is_success
        assert told == []
        wrong = {"Authorization": "Bearer wrong"}
        assert (
            await client.put(f"{V1}/transactions/2", json={"events": []}, headers=wrong)
        ).status_code == 403
        assert (await client.put(f"{V1}/transactions/3", json={"events": []})).status_code == 401
    assert told == [1, 1]
