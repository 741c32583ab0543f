"""The sections of httpx: what a guarded client adds to a request, without a socket and over a real one on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from benchmarks.peers import ASYNCIO, SYNC, load
from benchmarks.rounds import ANSWER, Contender, Found, OnAsyncio, OnThread, Plan, Subject, measure
from resilience import Bulkhead, CircuitBreaker, Cooldown, Pipeline, Retry, Timeout
from resilience.httpx import attach

HTTPX, RETRIES, OURS = "httpx", "httpx-retries", "resilience pipeline"
ADDED = ", added"
RUNNERS: dict[str, type[OnThread | OnAsyncio]] = {SYNC: OnThread, ASYNCIO: OnAsyncio}
URL = "http://service.test/"


class Immediate(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers at once."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)


def pipeline() -> Pipeline[Any]:
    """Return a pipeline with a breaker, a bulkhead, a budget, a cooldown and two Timeouts."""
    return Pipeline(Timeout(30.0), Retry(3), Cooldown(), Bulkhead(100), CircuitBreaker(), Timeout(10.0))


def subject(client: Any, url: str, runtime: str) -> Subject:
    """Return a subject that sends one request again and again."""
    request = client.build_request("GET", url)

    def send() -> int:
        return ANSWER if client.send(request).status_code == 200 else 0

    async def asend() -> int:
        return ANSWER if (await client.send(request)).status_code == 200 else 0

    return Subject(send if runtime == SYNC else asend)


def contenders(runtime: str, url: str, transport: Callable[[], Any]) -> Iterator[Contender]:
    """Yield a bare client, one with httpx-retries, and one with our pipeline."""
    made: Any = httpx.Client if runtime == SYNC else httpx.AsyncClient

    def retries() -> Subject:
        return subject(made(transport=load(RETRIES).RetryTransport(transport())), url, runtime)

    yield Contender(HTTPX, lambda: subject(made(transport=transport()), url, runtime))
    yield Contender(RETRIES, retries, RETRIES)
    yield Contender(OURS, lambda: subject(attach(made(transport=transport()), pipeline()), url, runtime))


def without_socket(runtime: str, plan: Plan, settled: Callable[[Found], bool]) -> Found:
    """Measure over a transport that answers at once, and what each contender adds to the bare client."""
    runner = RUNNERS[runtime]()

    def certain(found: Found) -> bool:
        add_differences(found)
        return settled(found)

    with runner:
        found = measure(contenders(runtime, URL, Immediate), runner, plan, certain)
    add_differences(found)
    return found


def add_differences(found: Found) -> None:
    """Add what each contender adds to the bare client, by round."""
    for name in (RETRIES, OURS):
        if name in found.series and HTTPX in found.series:
            found.series[name + ADDED] = differences(found.series[name], found.series[HTTPX])


def differences(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the differences of each round; at least one nanosecond, since ratios are made of them."""
    return [max(1.0, one - other) for one, other in zip(ones, others, strict=False)]


def over_loopback(runtime: str, plan: Plan, settled: Callable[[Found], bool]) -> Found:
    """Measure the CPU time of clients whose server is another process."""
    transport: Any = httpx.HTTPTransport if runtime == SYNC else httpx.AsyncHTTPTransport
    runner = RUNNERS[runtime]()
    with server() as url, runner:
        return measure(contenders(runtime, url, transport), runner, plan, settled)


@contextmanager
def server() -> Generator[str]:
    """Run an HTTP server in a process of its own, and yield its URL."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


SERVER = """
import asyncio

RESPONSE = (
    b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 15\\r\\n"
    b"date: Fri, 27 Nov 2026 12:00:00 GMT\\r\\nserver: loopback\\r\\n\\r\\n" + b'{"price": 12.5}'
)

class Answering(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.head = b""

    def data_received(self, data):
        self.head += data
        if self.head.endswith(b"\\r\\n\\r\\n"):
            self.head = b""
            self.transport.write(RESPONSE)

async def main():
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
