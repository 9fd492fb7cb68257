"""The HTTP server of the daemon, at `listen`.

In: routers from those who answer something, the metrics, and who knows whether we are ready. Out: a server in
the daemon's own event loop while the body runs. Errors are answered as the Matrix specification wants it, and
logged without what came in: neither tokens nor messages belong into a log.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import PurePath

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from aim.errors import AimError
from aim.ops.metrics import Metrics

GRACE = 10
"""Seconds that requests under way have to finish when we stop."""
IDLE = 150
"""Seconds that an unused connection is kept. Synapse keeps one for 120; a PUT on one that we have just closed
is lost, and it would count us as down and wait."""
_FRAMES = 4

_log = structlog.get_logger()

Application = Callable[..., Awaitable[None]]
"""Any ASGI application."""


def application(routers: Iterable[APIRouter], metrics: Metrics, ready: Callable[[], bool]) -> FastAPI:
    """What is served: the routers, and `GET /metrics`, `/health` (200) and `/ready` (200; 503 if not ready).

    Unknown paths are 404, unknown methods 405, both M_UNRECOGNIZED. A router's HTTPException is answered with
    its `detail`, if that is a mapping; AimError with 503, and anything else with 500, both M_UNKNOWN.
    """

    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def show_health() -> Response:
        return JSONResponse({"status": "ok"})

    async def show_ready() -> Response:
        return JSONResponse({"status": "ready"}) if ready() else JSONResponse({"status": "not ready"}, 503)

    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for router in routers:
        made.include_router(router)
    made.add_api_route("/metrics", show_metrics, methods=["GET"])
    made.add_api_route("/health", show_health, methods=["GET"])
    made.add_api_route("/ready", show_ready, methods=["GET"])
    made.add_exception_handler(HTTPException, _refused)
    made.add_exception_handler(AimError, _unavailable)
    made.add_exception_handler(Exception, _failed)
    return made


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body: object = error.detail
    if not isinstance(body, dict):
        errcode = "M_UNRECOGNIZED" if error.status_code in (404, 405) else "M_UNKNOWN"
        body = {"errcode": errcode, "error": error.detail}
    return JSONResponse(body, error.status_code, error.headers)


async def _unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, AimError)
    _log.error(
        "a request could not be carried out", **_what(request), cause=error.message, remedy=error.remedy
    )
    return JSONResponse({"errcode": "M_UNKNOWN", "error": "this can't be done now; try again"}, 503)


async def _failed(request: Request, error: Exception) -> Response:
    # Neither its text nor a traceback with values: both may quote somebody's message.
    cause = f"{type(error).__name__} at {_where(error)}"
    _log.error("a request failed", **_what(request), cause=cause, remedy="report this as a defect of aim")
    return JSONResponse({"errcode": "M_UNKNOWN", "error": "this failed; see the log of aim"}, 500)


def _what(request: Request) -> dict[str, str]:
    """The path without its query, where a token may be."""
    return {"method": request.method, "path": request.url.path}


def _where(error: Exception) -> str:
    """The last lines that the error came through, the innermost last."""
    frames = list(traceback.walk_tb(error.__traceback__))[-_FRAMES:]
    return ", ".join(f"{PurePath(frame.f_code.co_filename).name}:{line}" for frame, line in frames)


@asynccontextmanager
async def listening(
    application: Application, host: str, port: int, key: str = "listen"
) -> AsyncIterator[int]:
    """Answers while the body runs; gives the port, which is a free one for 0.

    At the end no new connection is taken, and requests under way have GRACE seconds. Raises AimError if the
    address can't be used; it names `key` as where the configuration has it.
    """
    bound = await _bound(host, port, key)
    server = _Server(
        uvicorn.Config(
            application,
            http="h11",
            ws="none",
            lifespan="off",
            # uvicorn would log errors with their tracebacks, and each request with its query.
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=GRACE,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        await server.came_up.wait()
        if not server.started:
            await serving
        yield int(bound.getsockname()[1])
    finally:
        server.should_exit = True
        try:
            await serving
        finally:
            bound.close()


async def _bound(host: str, port: int, key: str) -> socket.socket:
    """A listening socket at the first address of that name. Raises AimError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen()
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise AimError(
            f"{key}: {host}:{port} can't be used: {error.strerror}", f"free it, or choose another in `{key}`"
        ) from error
    return bound


class _Server(uvicorn.Server):
    """A server within a program that has its own signals, and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.came_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.came_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT are the daemon's."""
        yield
