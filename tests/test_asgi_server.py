"""Tests of the ASGI middleware in FastAPI under uvicorn, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, backoff, remaining
from resilience.asgi import ResilienceMiddleware
from tests.support.asgi import COUNT, TIME
from tests.support.functions import Failing

# Pipelines of the same name may still be alive in an earlier service.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:there are two pipelines")]
PATIENCE = 5.0


async def _unchanged(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


class Service:
    """A FastAPI application with the middleware, served from a thread."""

    def __init__(self) -> None:
        self.down = Failing()
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.background: list[Any] = []
        self.app = FastAPI()
        self.app.middleware("http")(_unchanged)  # it runs what is inside in a task of its own
        self.app.add_middleware(ResilienceMiddleware, trust=True, min_remaining=0.02, cancel_on_disconnect=True)
        self._add_routes(self.app)
        config = uvicorn.Config(self.app, http="h11", ws="none", lifespan="off", log_level="critical", access_log=False)
        self._server = uvicorn.Server(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)

    def _add_routes(self, app: FastAPI) -> None:
        retrying = Pipeline[Any](Retry(3, wait=backoff.none()))
        breaker = CircuitBreaker()
        breaker.isolate()
        isolated = Pipeline[Any](breaker)
        limited = Pipeline[Any](Timeout(0.05))

        @app.get("/left")
        async def left() -> float | None:
            return remaining()

        @app.get("/left-in-thread")
        def left_in_thread() -> float | None:
            return remaining()

        @app.get("/retry")
        async def retry() -> int:
            with contextlib.suppress(ConnectionError):
                retrying.call(self.down)
            return self.down.calls

        @app.get("/isolated")
        @isolated
        async def closed() -> None: ...

        @app.get("/timeout")
        @limited
        async def timeout() -> None:
            await asyncio.Event().wait()

        @app.get("/hang")
        async def hang() -> None:
            await self._hang()

        @app.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(self._stream())

        @app.post("/echo")
        async def echo(request: Request) -> int:
            return sum([len(part) async for part in request.stream()])

        @app.get("/background")
        async def background(tasks: BackgroundTasks) -> str:
            tasks.add_task(self._later)
            return "fine"

    async def _hang(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _stream(self) -> AsyncIterator[bytes]:
        yield b"x"
        await self._hang()

    async def _later(self) -> None:
        self.background.append(remaining())
        self.begun.set()

    def __enter__(self) -> Service:
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.001)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        self._listener.close()


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=PATIENCE, trust_env=False) as client:
        yield client


def test_headers_and_errors(client: httpx.Client) -> None:
    assert client.get("/left").json() is None
    assert 0.0 < client.get("/left", headers={TIME: "4000"}).json() <= 4.0
    assert 0.0 < client.get("/left-in-thread", headers={TIME: "4000"}).json() <= 4.0
    expired = client.get("/left", headers={TIME: "19"})
    assert (expired.status_code, expired.text) == (504, "too little time is left for this request\n")

    assert client.get("/timeout").status_code == 504
    refused = client.get("/isolated")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "false")
    assert client.head("/nothing").status_code == 404

    assert client.post("/echo", content=b"x" * 1_000_000).json() == 1_000_000
    assert client.post("/echo", content=iter([b"x"] * 50)).json() == 50


def test_a_retried_request_is_not_retried(client: httpx.Client) -> None:
    assert client.get("/retry", headers={COUNT: "1"}).json() == 3
    assert client.get("/retry", headers={COUNT: "2"}).json() == 4


def test_a_background_task_has_no_deadline(service: Service, client: httpx.Client) -> None:
    assert client.get("/background", headers={TIME: "4000"}).json() == "fine"
    assert service.begun.wait(PATIENCE)
    assert service.background == [None]


@pytest.mark.parametrize("path", ["/hang", "/stream"])
def test_a_client_that_disconnects(service: Service, path: str) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert service.begun.wait(PATIENCE)
        assert not service.cancelled.is_set()

    assert service.cancelled.wait(PATIENCE)
