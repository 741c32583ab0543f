"""The deadline in plain code: a server that is never too slow for a single read ends in time, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from typing import Any

import httpcore
import httpx
import pytest

from resilience import Bulkhead, DeadlineExceededError, Pipeline, Timeout
from resilience._util.clock import FOREVER, clock
from resilience.httpx import attach
from resilience.httpx._deadline import Timeouts
from resilience.httpx._network import DeadlineBackend, attempt_timeouts, wrap_network
from resilience.httpx._privates import backend_of
from resilience.testing import FaultyServer, VirtualClock, virtual_time
from tests.httpx.helpers import Pool, both_modules

SECONDS = 0.4
SLACK = 0.25


@pytest.fixture(scope="module")
def server() -> Generator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def seconds_of(client: Any, url: str) -> float:
    """Return the seconds after which a request is cut."""
    started = clock.monotonic()
    with pytest.raises(DeadlineExceededError):
        client.get(url)
    return clock.monotonic() - started


@pytest.mark.slow
@both_modules
@pytest.mark.parametrize(
    "path",
    ["/head-drip?interval=0.02", "/hints-forever?interval=0.02", "/drip?interval=0.02", "/stall", "/headers-stall"],
)
def test_a_request_ends_at_its_deadline(server: FaultyServer, module: Any, path: str) -> None:
    bulkhead = Bulkhead(1)
    limits = module.Limits(max_connections=1)
    with attach(module.Client(limits=limits, timeout=30.0), Pipeline(Timeout(SECONDS), bulkhead)) as client:
        assert seconds_of(client, server.url + path) < SECONDS + SLACK
        assert bulkhead.in_flight == 0
        assert client.get(f"{server.url}/ok").status_code == 200


@pytest.mark.slow
@both_modules
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_so_does_one_through_a_proxy_that_does_not_answer(server: FaultyServer, module: Any, scheme: str) -> None:
    client = attach(module.Client(proxy=server.silent_url, timeout=30.0), Pipeline(Timeout(SECONDS)))
    with client:
        assert seconds_of(client, f"{scheme}://target.test") < SECONDS + SLACK


@pytest.mark.slow
@both_modules
def test_without_a_deadline_the_timeouts_of_the_client_apply(server: FaultyServer, module: Any) -> None:
    with attach(module.Client(timeout=SECONDS), Pipeline()) as client, pytest.raises(module.ReadTimeout):
        client.get(f"{server.url}/stall")


@both_modules
def test_the_pool_of_a_client_has_a_network_backend_and_it_is_wrapped_once(module: Any) -> None:
    with module.HTTPTransport() as transport:
        assert wrap_network(transport._pool, DeadlineBackend, http2=False)
        first = backend_of(transport._pool)

        assert wrap_network(transport._pool, DeadlineBackend, http2=False)
        assert isinstance(first, DeadlineBackend)
        assert backend_of(transport._pool) is first


def test_the_attempt_around_a_request_has_its_timeouts_back() -> None:
    around = Timeouts({}, FOREVER)

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=Pool(200).below("asyncio")), Pipeline())
        assert (await client.get("http://quotes.test")).status_code == 200
        assert attempt_timeouts.get() is around

    before = attempt_timeouts.set(around)
    try:
        client = attach(httpx.Client(transport=Pool(200).below("sync")), Pipeline())
        assert client.get("http://quotes.test").status_code == 200
        assert attempt_timeouts.get() is around
        asyncio.run(main())
    finally:
        attempt_timeouts.reset(before)


def test_other_pools_are_left_alone() -> None:
    assert not wrap_network(object(), DeadlineBackend, http2=False)


@pytest.mark.slow
@both_modules
def test_connections_that_were_open_before_are_bounded_by_single_timeouts(server: FaultyServer, module: Any) -> None:
    with module.Client(timeout=30.0) as client:
        client.get(f"{server.url}/ok")
        attach(client, Pipeline(Timeout(SECONDS)))
        assert seconds_of(client, f"{server.url}/stall") < SECONDS + SLACK


class Network:
    """A network backend and its connection, which keep the timeouts that they were given."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.get_extra_info = None
        self.slept: list[float] = []

    def connect_tcp(self, host: str, port: int, timeout: float | None, **more: Any) -> Network:
        self.timeouts.append(timeout)
        return self

    def connect_unix_socket(self, path: str, timeout: float | None, **more: Any) -> Network:
        self.timeouts.append(timeout)
        return self

    def start_tls(self, context: Any, name: str | None, timeout: float | None) -> Network:
        self.timeouts.append(timeout)
        return self

    def write(self, buffer: bytes, timeout: float | None) -> None:
        self.timeouts.append(timeout)

    def read(self, size: int, timeout: float | None) -> bytes:
        self.timeouts.append(timeout)
        return b""

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def network() -> Iterator[tuple[VirtualClock, Network, DeadlineBackend, Timeouts]]:
    with virtual_time() as virtual:
        inner = Network()
        timeouts = Timeouts({}, virtual.monotonic() + 2.0)
        token = attempt_timeouts.set(timeouts)
        yield virtual, inner, DeadlineBackend(inner, httpcore, http2=False, is_complete=True), timeouts
        attempt_timeouts.reset(token)


def test_each_step_has_what_is_left(network: tuple[VirtualClock, Network, DeadlineBackend, Timeouts]) -> None:
    virtual, inner, backend, _ = network

    virtual.advance(0.5)
    stream = backend.connect_tcp("a.test", 443, timeout=5.0)
    virtual.advance(0.5)
    stream = stream.start_tls(None, "a.test", 5.0)
    stream.write(b"GET", timeout=0.25)
    virtual.advance(0.5)
    stream.read(10, timeout=None)
    virtual.advance(0.4999)
    stream.read(10, timeout=5.0)
    backend.connect_unix_socket("/socket", timeout=5.0)

    assert inner.timeouts == pytest.approx([1.5, 1.0, 0.25, 0.5, 0.001, 0.001], abs=1e-6)


def test_no_step_begins_after_the_deadline(network: tuple[VirtualClock, Network, DeadlineBackend, Timeouts]) -> None:
    virtual, inner, backend, timeouts = network
    stream = backend.connect_tcp("a.test", 443, timeout=5.0)
    virtual.advance(2.0)

    steps: list[Callable[[], object]] = [
        lambda: backend.connect_tcp("a.test", 443, timeout=5.0),
        lambda: backend.connect_unix_socket("/socket", timeout=5.0),
        lambda: stream.start_tls(None, None, 5.0),
        lambda: stream.write(b"GET", timeout=5.0),
    ]
    for step in steps:
        with pytest.raises(httpcore.ConnectTimeout):  # nothing was sent
            step()
    stream.write(b"", timeout=5.0)
    timeouts.has_sent = True
    with pytest.raises(httpcore.WriteTimeout):
        stream.write(b"more", timeout=5.0)
    with pytest.raises(httpcore.ReadTimeout):
        stream.read(10, timeout=5.0)
    assert len(inner.timeouts) == 1


def test_the_transport_does_not_connect_again_past_the_deadline(
    network: tuple[VirtualClock, Network, DeadlineBackend, Timeouts],
) -> None:
    """`HTTPTransport(retries=)` waits 0, 0.5, 1, 2, ... seconds."""
    virtual, inner, backend, _ = network
    refused = httpcore.ConnectError("refused")

    virtual.advance(0.6)
    with pytest.raises(httpcore.ConnectError) as caught:
        for pause in (0.0, 0.5, 1.0, 2.0):
            try:
                raise refused
            except httpcore.ConnectError:
                backend.sleep(pause)
            virtual.advance(pause)

    assert caught.value is refused
    assert inner.slept == [0.0, 0.5]


def test_a_ctrl_c_in_a_write_closes_the_connection() -> None:
    class Interrupted(Network):
        closed = False

        def write(self, buffer: bytes, timeout: float | None) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            self.closed = True

    inner = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        DeadlineBackend(inner, httpcore, http2=False, is_complete=True).connect_tcp("a.test", 80).write(b"GET")
    assert inner.closed
