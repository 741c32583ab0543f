"""Responses that are dropped: the connection and the permits come back as soon as they would without the library.

A response that was read in part frees them when its iterator is dropped. One that was never read frees them when the
collector finds it, and never in the middle of a region that the pool has locked.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from resilience import Bulkhead, CircuitBreaker, Pipeline
from resilience.events import CallEnded
from resilience.httpx import attach
from resilience.testing import Recorder
from tests.httpx.server import Server
from tests.support.garbage import no_collection
from tests.support.threads import wait_until

LIMITS: dict[str, Any] = {"limits": httpx.Limits(max_connections=1), "timeout": httpx.Timeout(5, pool=2)}
BACKENDS = ["asyncio", "trio"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*was garbage collected before it had been exhausted:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*async generator:ResourceWarning"),
]


class Guarded:
    """A bulkhead and a breaker around the requests to a server."""

    def __init__(self, server: Server) -> None:
        self.bulkhead = Bulkhead(5)
        self.breaker = CircuitBreaker()
        self.pipeline: Pipeline[Any] = Pipeline(self.bulkhead, self.breaker)
        self.url = f"{server.url}/big"

    def client(self) -> httpx.Client:
        return attach(httpx.Client(**LIMITS), self.pipeline)

    def async_client(self) -> httpx.AsyncClient:
        return attach(httpx.AsyncClient(**LIMITS), self.pipeline)

    def request(self, client: Any) -> Any:
        return client.build_request("GET", self.url)


@pytest.fixture
def guarded() -> Generator[Guarded]:
    with Server() as server:
        yield Guarded(server)


@pytest.mark.parametrize("way", ["iter_raw", "iter_bytes", "iter_text"])
def test_one_that_was_read_in_part_frees_its_connection_at_once(guarded: Guarded, way: str) -> None:
    with no_collection(), guarded.client() as client:
        for _ in range(5):
            response = client.send(guarded.request(client), stream=True)
            chunks = getattr(response, way)()
            next(chunks)
            assert guarded.bulkhead.in_flight == 1
            del response, chunks
            assert guarded.bulkhead.in_flight == 0


def test_breaking_off_is_a_success(guarded: Guarded) -> None:
    with Recorder(guarded.pipeline) as recorder, guarded.client() as client:
        with client.stream("GET", guarded.url) as response:
            for _ in response.iter_raw():
                break
        assert [event.outcome for event in recorder.of(CallEnded)] == ["ok"]
    assert guarded.breaker.snapshot()["calls"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", ["aiter_raw", "aiter_bytes", "aiter_text"])
def test_an_async_one_does_within_the_next_turns_of_the_loop(guarded: Guarded, backend: str, way: str) -> None:
    async def read_one() -> None:
        client = clients[0]
        response = await client.send(guarded.request(client), stream=True)
        chunks = getattr(response, way)()
        await anext(chunks)
        assert guarded.bulkhead.in_flight == 1

    async def main() -> None:
        async with guarded.async_client() as client:
            clients.append(client)
            for _ in range(3):
                await read_one()
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
                    if not guarded.bulkhead.in_flight:
                        break
                assert guarded.bulkhead.in_flight == 0

    clients: list[Any] = []
    with no_collection():
        anyio.run(main, backend=backend)


def test_one_that_was_never_read_frees_it_when_it_is_collected(guarded: Guarded) -> None:
    with guarded.client() as client:
        for _ in range(3):
            response: Any = client.send(guarded.request(client), stream=True)
            assert guarded.bulkhead.in_flight == 1
            del response
            gc.collect()
            assert guarded.bulkhead.in_flight == 0
        assert guarded.breaker.snapshot()["calls"] == 0, "a dropped response says nothing about the server"


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_async_one_that_was_never_read_does_too(guarded: Guarded, backend: str) -> None:
    async def drop() -> None:
        await clients[0].send(guarded.request(clients[0]), stream=True)

    async def main() -> None:
        async with guarded.async_client() as client:
            clients.append(client)
            for _ in range(3):
                await drop()
                gc.collect()
                assert guarded.bulkhead.in_flight == 0

    clients: list[Any] = []
    anyio.run(main, backend=backend)


def test_a_collection_inside_the_lock_of_the_pool_does_not_hang(guarded: Guarded) -> None:
    with guarded.client() as client:
        transport: Any = client._transport
        pool = transport._transport._pool
        lock: threading.Lock = pool._optional_thread_lock._lock
        responses = [client.send(guarded.request(client), stream=True)]
        assert len(pool.connections) == 1

        with lock:
            responses.clear()
            gc.collect()
            assert guarded.bulkhead.in_flight == 0
            assert len(pool.connections) == 1

        wait_until(lambda: pool.connections == [])
        assert client.get(guarded.url).status_code == 200
