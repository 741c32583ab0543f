"""Deadlines while a request waits, connects or is sent, in real time, and whether a cut attempt may be repeated."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest

from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience.events import RetryScheduled
from resilience.httpx import attach
from resilience.testing import Recorder
from tests.httpx.server import Server, black_hole
from tests.support.timing import at_most


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert that a deadline was kept, or nearly so."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started <= at_most(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 3])
def test_a_host_that_does_not_answer(retries: int) -> None:
    client = attach(httpx.Client(transport=httpx.HTTPTransport(retries=retries)), Pipeline(Timeout(0.5)))

    with black_hole() as port, within(0.5), pytest.raises(DeadlineExceededError):
        client.get(f"http://127.0.0.1:{port}/")


@pytest.mark.slow
def test_a_handshake_that_is_not_answered() -> None:
    client = attach(httpx.Client(verify=False), Pipeline(Timeout(0.5)))

    with socket.create_server(("127.0.0.1", 0)) as silent, within(0.5), pytest.raises(DeadlineExceededError):
        client.get(f"https://127.0.0.1:{silent.getsockname()[1]}/")


@pytest.mark.slow
def test_after_waiting_for_the_pool_there_is_less_left_to_connect() -> None:
    limits = httpx.Limits(max_connections=1)
    client = attach(httpx.Client(limits=limits, timeout=5), Pipeline(Timeout(0.6)))

    with Server() as server, black_hole() as port:
        thread = threading.Thread(target=client.get, args=(f"{server.url}/slowly",))
        thread.start()
        while not server.seen:
            time.sleep(0.001)
        with within(0.6), pytest.raises(DeadlineExceededError):
            client.get(f"http://127.0.0.1:{port}/")
        thread.join(5)


@pytest.mark.slow
def test_an_upload_to_a_slow_reader() -> None:
    def read_slowly() -> None:
        connection, _ = listener.accept()
        with connection:
            while not done.wait(0.05) and connection.recv(200_000):
                pass

    done = threading.Event()
    client = attach(httpx.Client(timeout=5), Pipeline(Timeout(0.5)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=read_slowly)
        thread.start()
        with within(0.5), pytest.raises(DeadlineExceededError):
            client.put(f"http://127.0.0.1:{listener.getsockname()[1]}/", content=b"x" * 40_000_000)
        done.set()
        thread.join(5)


CUT = (Timeout(5), Retry(2, wait=backoff.none()))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
def test_an_attempt_that_was_cut_while_it_connected_may_be_repeated(way: str) -> None:
    breaker = CircuitBreaker()
    pipeline: Pipeline[Any] = Pipeline(*CUT, breaker, Timeout(0.2))

    async def main() -> None:
        async with attach(httpx.AsyncClient(), pipeline) as client:
            await client.post(f"http://127.0.0.1:{port}/", content=b"order")

    with (
        black_hole() as port,
        Recorder(pipeline, events=[RetryScheduled]) as recorder,
        pytest.raises(DeadlineExceededError) as caught,
    ):
        if way == "sync":
            attach(httpx.Client(), pipeline).post(f"http://127.0.0.1:{port}/", content=b"order")
        else:
            anyio.run(main, backend=way)

    assert [event.failure.unprocessed for event in recorder.of(RetryScheduled)] == [True]
    assert breaker.snapshot()["failures"] == 2
    assert not caught.value.unprocessed  # it says that it was scored, too


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
def test_an_attempt_that_was_cut_after_it_was_sent_is_not_repeated(way: str) -> None:
    pipeline: Pipeline[Any] = Pipeline(*CUT, Timeout(0.2))

    async def main() -> None:
        async with attach(httpx.AsyncClient(), pipeline) as client:
            await client.post(f"{server.url}/stall", content=b"order")

    with Server() as server, pytest.raises(DeadlineExceededError):
        if way == "sync":
            attach(httpx.Client(), pipeline).post(f"{server.url}/stall", content=b"order")
        else:
            anyio.run(main, backend=way)

    assert server.answered["stall"] == 1


class Failover(httpx.AsyncHTTPTransport):
    """Sends by another transport, with another request, so that no trace tells of it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncHTTPTransport() as backup:
            other = httpx.Request(request.method, request.url, headers=request.headers, stream=request.stream)
            return await backup.handle_async_request(other)


@pytest.mark.slow
def test_a_cut_of_a_transport_that_is_not_httpx_own_does_not_say_that_nothing_was_called() -> None:
    async def main() -> None:
        pipeline: Pipeline[Any] = Pipeline(*CUT, Timeout(0.2))
        client = attach(httpx.AsyncClient(transport=Failover(verify=False)), pipeline)
        with pytest.raises(DeadlineExceededError, match="may have been processed") as caught:
            await client.post(f"{server.url}/stall", content=b"order")
        assert not caught.value.unprocessed

    with Server() as server:
        asyncio.run(main())

    assert server.answered["stall"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("retries", [(), (Retry(1),)])
def test_a_request_that_the_deadline_of_the_function_around_it_cuts_is_a_timeout(
    backend: str, retries: tuple[Retry, ...]
) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    outer: Pipeline[Any] = Pipeline(*retries, Timeout(0.3))

    async def main() -> None:
        async with attach(httpx.AsyncClient(), Pipeline(breaker, Timeout(0.4))) as client:

            async def fetch() -> None:
                await client.get(f"{server.url}/stall")

            with pytest.raises(DeadlineExceededError):
                await outer.acall(fetch)

    with Server() as server:
        anyio.run(main, backend=backend)

    assert breaker.snapshot()["opens"] == 1
