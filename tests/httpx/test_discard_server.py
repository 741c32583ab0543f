"""Failed responses of a real server: a retry that waits keeps no connection, and small bodies leave it usable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from resilience import CircuitBreaker, Pipeline, Retry, Timeout, backoff
from resilience.httpx import AsyncResilientTransport, ResilientTransport, attach
from tests.httpx.helpers import NOW
from tests.httpx.server import Server


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("policies", [(CircuitBreaker(consecutive_failures=None),), (Retry(1),), (Retry(2, wait=NOW),)])
def test_a_pause_in_the_body_of_the_last_response_is_waited_for(policies: tuple[Any, ...], method: str) -> None:
    async def main() -> int:
        async with attach(httpx.AsyncClient(), Pipeline(*policies)) as client:
            return len((await client.request(method, f"{server.url}/busy_pausing")).content)

    with Server() as server:
        with attach(httpx.Client(), Pipeline(*policies)) as client:
            assert len(client.request(method, f"{server.url}/busy_pausing").content) == 20
        assert anyio.run(main, backend="asyncio") == anyio.run(main, backend="trio") == 20


def first(word: str) -> Callable[[str], str]:
    """Answer the first request to `/first` with a word."""
    words = iter([word])
    return lambda path: next(words, "good") if path == "/first" else "good"


LIMITS: dict[str, Any] = {"limits": httpx.Limits(max_connections=1), "timeout": httpx.Timeout(5, pool=1.2)}


@pytest.mark.slow
@pytest.mark.parametrize("word", ["busy_chunked", "busy_big", "busy_dripping"])
def test_a_retry_that_waits_keeps_no_connection(word: str) -> None:
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.fixed(1.5)))
    scheduled = threading.Event()
    pipeline.subscribe(lambda event: scheduled.set())

    with Server(first(word)) as server, attach(httpx.Client(**LIMITS), pipeline) as client:
        thread = threading.Thread(target=client.get, args=(f"{server.url}/first",))
        thread.start()
        assert scheduled.wait(5)
        assert client.get(f"{server.url}/good").status_code == 200
        thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("word", ["busy_chunked", "busy_big", "busy_dripping"])
def test_a_retry_that_waits_keeps_no_connection_async(word: str, backend: str) -> None:
    async def main() -> None:
        pipeline: Pipeline[Any] = Pipeline(Timeout(3), Retry(2, wait=backoff.fixed(1.5)), Timeout(2))
        scheduled = anyio.Event()
        pipeline.subscribe(lambda event: scheduled.set())
        async with attach(httpx.AsyncClient(**LIMITS), pipeline) as client, anyio.create_task_group() as group:
            group.start_soon(client.get, f"{server.url}/first")
            await scheduled.wait()
            assert (await client.get(f"{server.url}/good")).status_code == 200
            group.cancel_scope.cancel()

    with Server(first(word)) as server:
        anyio.run(main, backend=backend)


@pytest.mark.slow
def test_small_failures_keep_their_connection() -> None:
    answers = iter(["busy", "busy_chunked", "good"] * 2)

    async def main() -> int:
        async with attach(httpx.AsyncClient(), Pipeline(Retry(3, wait=NOW))) as client:
            return (await client.get(server.url)).status_code

    with Server(lambda path: next(answers)) as server:
        with attach(httpx.Client(), Pipeline(Retry(3, wait=NOW))) as client:
            assert client.get(server.url).status_code == 200
        assert asyncio.run(main()) == 200

    assert server.connections == 2


@pytest.mark.slow
def test_a_response_is_readable_after_a_guard_further_in_refused_the_retry() -> None:
    def pipelines() -> tuple[Pipeline[Any], Pipeline[Any]]:
        return Pipeline(Retry(3, wait=NOW)), Pipeline(CircuitBreaker(consecutive_failures=1))

    async def main() -> bytes:
        outer, inner = pipelines()
        transport = AsyncResilientTransport(outer, AsyncResilientTransport(inner, httpx.AsyncHTTPTransport()))
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.get(f"{server.url}/busy_chunked")).content

    with Server() as server:
        outer, inner = pipelines()
        transport = ResilientTransport(outer, ResilientTransport(inner, httpx.HTTPTransport()))
        with httpx.Client(transport=transport) as client:
            assert client.get(f"{server.url}/busy_chunked").content == b"busy"
        assert asyncio.run(main()) == b"busy"
