"""The time that the phases of a request may take: plain clients have nobody who could cut them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import FOREVER
from resilience.events import RetryScheduled
from resilience.httpx import attach
from resilience.httpx._deadline import SLICE, DeadlineTrace, Timeouts, Upload
from resilience.httpx._modules import load_httpx_module
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.httpx.helpers import Ask, Pool, Script
from tests.httpx.server import Server, black_hole

HTTPX = load_httpx_module("httpx")
GIVEN = {"connect": 5.0, "read": 0.3, "write": None}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert that a deadline was kept, or nearly so."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started <= seconds + max(0.2 * seconds, 0.25)


def test_timeouts_are_those_that_were_given_where_there_is_no_deadline() -> None:
    timeouts = Timeouts(GIVEN, FOREVER)

    assert dict(timeouts) == GIVEN
    assert [timeouts.get(phase) for phase in ("connect", "write", "pool")] == [5.0, None, None]
    assert (timeouts.get("pool", 7), timeouts["read"]) == (7, 0.3)
    with pytest.raises(KeyError):
        timeouts["pool"]


def test_timeouts_are_what_is_left_when_they_are_asked_for() -> None:
    with virtual_time() as clock:
        timeouts = Timeouts(GIVEN, clock.monotonic() + 2)
        assert dict(timeouts) == {"connect": 2.0, "read": 0.3, "write": 2.0, "pool": 2.0}
        clock.advance(1.9)
        assert [timeouts.get(phase) for phase in ("connect", "read")] == [pytest.approx(0.1)] * 2
        assert timeouts["pool"] == pytest.approx(0.1)
        clock.advance(5)
        assert timeouts.get("connect") == 0.001  # sockets take 0 for "do not wait at all"
        timeouts.set_deadline(clock.monotonic() + 1e9)
        assert (timeouts.get("read"), timeouts.get("write")) == (0.3, 1_000_000.0)


def ticking(clock: VirtualClock, seconds: float) -> DeadlineTrace:
    return DeadlineTrace(Timeouts({}, clock.monotonic() + seconds), HTTPX, None)


def test_each_step_to_a_connection_has_what_is_left() -> None:
    with virtual_time() as clock:
        hear = ticking(clock, 2)
        clock.advance(1.5)
        info: dict[str, Any] = {"host": "quotes.test", "timeout": 2.0}
        hear("connection.connect_tcp.started", info)
        assert info == {"host": "quotes.test", "timeout": pytest.approx(0.5)}
        clock.advance(1)
        hear("connection.start_tls.started", info)
        assert info["timeout"] == 0.001


@pytest.mark.parametrize(
    "name",
    [
        "connection.connect_tcp",
        "connection.connect_unix_socket",
        "http11.send_request_headers",
        "http2.send_request_headers",
    ],
)
def test_nothing_is_begun_after_the_deadline(name: str) -> None:
    with virtual_time() as clock:
        hear = ticking(clock, 2)
        hear(f"{name}.started", {})
        clock.advance(2)
        hear(f"{name}.complete", {})
        with pytest.raises(httpx.ConnectTimeout, match="before the request was sent"):
            hear(f"{name}.started", {})


def test_the_transport_of_httpx_does_not_try_again_past_the_deadline() -> None:
    """It waits 0, 0.5, 1, 2, ... seconds before its tries."""
    refused = httpcore.ConnectError("refused")
    with virtual_time() as clock:
        hear = ticking(clock, 1.2)
        with pytest.raises(httpcore.ConnectError) as caught:
            for pause in (0, 0.5, 1):
                try:
                    raise refused
                except httpcore.ConnectError:
                    hear("connection.retry.started", {"timeout": 1.2})
                clock.advance(pause)

    assert caught.value is refused
    assert clock.elapsed == 0.5


def test_a_large_body_is_sent_in_slices() -> None:
    with virtual_time() as clock:
        timeouts = Timeouts({}, clock.monotonic() + 1)
        chunks = [b"", b"a" * SLICE, b"b" * (2 * SLICE + 1)]

        assert [len(one) for one in Upload(chunks, timeouts, HTTPX)] == [SLICE, SLICE, SLICE, 1]
        assert b"".join(Upload(chunks, timeouts, HTTPX)) == b"".join(chunks)


def test_a_body_is_not_sent_on_after_the_deadline() -> None:
    sent: list[bytes] = []
    closed: list[object] = []

    class Slow(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for number in range(10):
                clock.advance(0.4)
                yield b"%d" % number

        def close(self) -> None:
            closed.append(self)

    class Reading(Pool):
        def handle_request(self, request: httpcore.Request) -> httpcore.Response:
            stream: Any = request.stream
            for chunk in stream:
                sent.append(chunk)
            return super().handle_request(request)

    with virtual_time() as clock, pytest.raises(DeadlineExceededError) as caught:
        Ask("sync")(Pipeline(Timeout(1)), Reading(200).below("sync"), "PUT", content=Slow())

    assert sent == [b"0", b"1"]
    assert isinstance(caught.value.__cause__, httpx.WriteTimeout)
    assert not caught.value.unprocessed
    Upload(Slow(), Timeouts({}, FOREVER), HTTPX).close()
    assert len(closed) == 1


def test_a_trace_of_the_users_own_hears_everything() -> None:
    heard: list[str] = []

    with virtual_time() as clock:
        hear = DeadlineTrace(Timeouts({}, clock.monotonic() + 1), HTTPX, lambda name, info: heard.append(name))
        hear("connection.connect_tcp.started", {})
        hear("connection.connect_tcp.complete", {})

    assert heard == ["connection.connect_tcp.started", "connection.connect_tcp.complete"]


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


def test_what_is_left_reaches_a_transport_that_copies_the_timeouts() -> None:
    script = Script(200)

    with virtual_time():
        Ask("sync")(Pipeline(Timeout(0.5)), script)

    assert script.timeouts == [dict.fromkeys(("connect", "read", "write", "pool"), 0.5)]
