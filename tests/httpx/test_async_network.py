"""The network of async clients: how far attempts come, and writes of HTTP/2 that a cancellation interrupts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import httpcore
import pytest
import trio

from resilience import DeadlineExceededError, Pipeline, Retry, Timeout
from resilience._util.clock import FOREVER
from resilience.httpx import attach, options
from resilience.httpx._async_network import (
    GRACE,
    AsyncObservingBackend,
    AsyncObservingStream,
    aclose_unowned,
    close_broken,
)
from resilience.httpx._deadline import Timeouts
from resilience.httpx._network import attempt_timeouts, wrap_network
from resilience.httpx._privates import backend_of
from resilience.testing import FaultyServer
from tests.httpx.helpers import NOW, both_modules
from tests.httpx.http2_server import Http2Server

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored (in|while finalizing generator).? <async_generator object"
)


class Connection:
    """A connection whose writes end when they are let through, or fail."""

    def __init__(self, error: Exception | None = None, *, let_through: bool = False) -> None:
        self.written: list[bytes] = []
        self.read = self.get_extra_info = None
        self.writing = anyio.Event()
        self.open = anyio.Event()
        if let_through:
            self.open.set()
        self.error = error
        self.closed = 0

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.writing.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.written.append(buffer)

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1


async def cancelled_write(
    connection: Connection, *, lets_through: bool, timeout: float | None = 5.0
) -> AsyncObservingStream:
    """Cancel a write while it waits, and return the stream when the write has ended."""
    stream = AsyncObservingStream(connection, httpcore, shields=True)
    async with anyio.create_task_group() as group:

        async def write() -> None:
            await stream.write(b"frames", timeout)

        group.start_soon(write)
        await connection.writing.wait()
        group.cancel_scope.cancel()
        if lets_through:
            connection.open.set()
    return stream


@each_backend
def test_a_write_that_is_cancelled_is_sent_whole(backend: str) -> None:
    async def main() -> None:
        connection = Connection()
        stream = await cancelled_write(connection, lets_through=True)

        assert (connection.written, connection.closed, stream.is_broken) == ([b"frames"], 0, False)

    anyio.run(main, backend=backend)


@each_backend
def test_without_a_timeout_a_write_is_interrupted_and_the_connection_closed(backend: str) -> None:
    async def main() -> None:
        connection = Connection()
        stream = await cancelled_write(connection, lets_through=False, timeout=None)

        assert (connection.written, connection.closed, stream.is_broken) == ([], 1, True)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"more")

    anyio.run(main, backend=backend)


@pytest.mark.slow
@each_backend
def test_one_that_does_not_end_is_interrupted_after_a_while(backend: str) -> None:
    async def main() -> None:
        connection = Connection()
        stream = AsyncObservingStream(connection, httpcore, shields=True)
        with anyio.move_on_after(0.01) as scope, anyio.fail_after(GRACE + 5.0):
            await stream.write(b"frames", 10.0)

        assert scope.cancelled_caught
        assert (connection.closed, stream.is_broken) == (1, True)

    anyio.run(main, backend=backend)


def test_a_native_cancellation_closes_the_connection() -> None:
    async def main() -> None:
        connection = Connection()
        stream = AsyncObservingStream(connection, httpcore, shields=True)
        task = asyncio.create_task(stream.write(b"frames", 5.0))
        await connection.writing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert (connection.closed, stream.is_broken) == (1, True)

    asyncio.run(main())


@each_backend
def test_an_error_is_left_to_httpcore(backend: str) -> None:
    async def main() -> None:
        connection = Connection(httpcore.WriteError("cut"))
        connection.open.set()
        stream = AsyncObservingStream(connection, httpcore, shields=True)
        with pytest.raises(httpcore.WriteError, match="cut"):
            await stream.write(b"frames", 5.0)

        assert (connection.closed, stream.is_broken) == (0, False)

    anyio.run(main, backend=backend)


def test_a_connection_is_not_closed_that_the_pool_has_with_tls() -> None:
    """Other requests may have it by then, over HTTP/2."""

    class Network:
        read = write = get_extra_info = None
        closed = 0

        async def connect_tcp(self, *host: object, **settings: object) -> Network:
            return self

        async def start_tls(self, *settings: object) -> Network:
            return self

        async def aclose(self) -> None:
            Network.closed += 1

    async def main() -> None:
        timeouts = Timeouts({}, FOREVER)
        attempt_timeouts.set(timeouts)
        backend = AsyncObservingBackend(Network(), httpcore, http2=True, is_complete=True)
        encrypted = await (await backend.connect_tcp("a.test", 443)).start_tls(None)

        own = SimpleNamespace(_connection=SimpleNamespace(_network_stream=encrypted))
        through_a_proxy = SimpleNamespace(_connection=own)
        for connection in (own, through_a_proxy):
            await aclose_unowned(SimpleNamespace(_connections=[connection]), timeouts)
        assert Network.closed == 0
        await aclose_unowned(SimpleNamespace(_connections=[]), timeouts)
        assert Network.closed == 1

    asyncio.run(main())


@both_modules
def test_the_pool_of_a_client_is_observed_once(module: Any) -> None:
    client = attach(module.AsyncClient(http2=True), Pipeline())
    pool = client._transport._transport._pool
    first = backend_of(pool)

    assert isinstance(first, AsyncObservingBackend)
    assert wrap_network(pool, AsyncObservingBackend, http2=True)
    assert backend_of(pool) is first
    assert not wrap_network(object(), AsyncObservingBackend, http2=False)


@pytest.mark.slow
@both_modules
@each_backend
def test_connections_that_were_open_before_are_not_observed(module: Any, backend: str) -> None:
    """A request over one of them must not be taken for unsent because no write was seen."""

    async def main(server: FaultyServer) -> None:
        async with module.AsyncClient() as client:
            await client.get(f"{server.url}/ok")
            attach(client, Pipeline(Retry(3, wait=NOW), Timeout(0.2)))
            server.clear()
            with pytest.raises(DeadlineExceededError) as caught:
                await client.post(f"{server.url}/stall")
            assert not caught.value.unprocessed

    with FaultyServer() as server:
        anyio.run(main, server, backend=backend)
        assert server.count() == 1


@each_backend
def test_how_far_an_attempt_has_come_is_noted(backend: str) -> None:
    async def main() -> None:
        timeouts = Timeouts({}, FOREVER)
        attempt_timeouts.set(timeouts)
        stream = AsyncObservingStream(Connection(let_through=True), httpcore, shields=False)
        for handshake in (b"", b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", b"\x05\x01\x00", b"\x01\x01a\x01b"):
            await stream.write(handshake)
            assert not timeouts.has_sent
        assert timeouts.has_connection
        await stream.write(b"POST / HTTP/1.1\r\n\r\n")
        assert timeouts.has_sent

    anyio.run(main, backend=backend)


@pytest.mark.slow
@both_modules
@each_backend
def test_a_broken_connection_is_replaced(module: Any, backend: str) -> None:
    async def main(url: str) -> None:
        async with attach(module.AsyncClient(http1=False, http2=True), Pipeline()) as client:
            assert (await client.get(f"{url}/path/1")).text == "/path/1"
            pool = client._transport._transport._pool
            (connection,) = pool._connections
            connection._connection._network_stream.is_broken = True
            await close_broken(pool)
            assert (await client.get(f"{url}/path/2")).text == "/path/2"

    with Http2Server() as server:
        anyio.run(main, server.url, backend=backend)
        assert server.connections == 2


@pytest.mark.slow
@both_modules
@each_backend
def test_requests_that_are_cut_at_any_moment_disturb_no_other(module: Any, backend: str) -> None:
    chance = random.Random(3)
    found: Counter[str] = Counter()

    async def main(url: str) -> None:
        async with attach(module.AsyncClient(http1=False, http2=True, timeout=5.0), Pipeline()) as client:
            for number in range(400):
                path = f"/path/{number}/{'x' * chance.randrange(60)}"
                extensions = options(timeout=chance.random() * 0.004)
                try:
                    response = await client.get(url + path, extensions=extensions)
                    found["right" if response.text == path else "wrong"] += 1
                except DeadlineExceededError:
                    found["cut"] += 1
            for number in range(3):
                assert (await client.get(f"{url}/path/{number}")).text == f"/path/{number}"

    with Http2Server() as server:
        asyncio.run(main(server.url)) if backend == "asyncio" else trio.run(main, server.url)
    assert found["right"] + found["cut"] == 400


@each_backend
def test_a_write_whose_coroutine_is_dropped_is_the_last_one(backend: str) -> None:
    async def main() -> None:
        connection = Connection()
        stream = AsyncObservingStream(connection, httpcore, shields=True)
        writing: Any = stream.write(b"frames", None)
        writing.send(None)
        writing.close()

        assert stream.is_broken

    anyio.run(main, backend=backend)
