"""Hedged requests: the first answer wins, the other request is cancelled, and no connection or permit is lost."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import httpx
import pytest

import resilience.httpx
from resilience import Bulkhead, Hedge, Pipeline, Timeout
from resilience.events import HedgeStarted
from resilience.testing import Recorder
from tests.httpx.server import Server
from tests.support.loops import Run, run_asyncio, run_trio, run_uvloop
from tests.support.threads import wait_until


class SlowFirst(httpx.AsyncBaseTransport):
    """The first request takes a minute, and the others no time."""

    def __init__(self) -> None:
        self.requests = 0
        self.cancelled = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        number = self.requests
        try:
            await anyio.sleep(60.0 if number == 1 else 0.0)
        except BaseException:
            self.cancelled += 1
            raise
        return httpx.Response(200, text=str(number))


def hedging(**more: Any) -> Pipeline[Any]:
    return Pipeline(Timeout(30.0), Hedge(0.01, budget=None, **more), Bulkhead(5))


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_asyncio, run_uvloop, run_trio])
def test_the_slow_request_is_cancelled_in_each_loop(run: Run) -> None:
    transport, pipeline = SlowFirst(), hedging()

    async def main() -> str:
        client = httpx.AsyncClient(transport=transport)
        async with resilience.httpx.attach(client, pipeline) as guarded:
            return (await guarded.get("http://quotes.test")).text

    assert run(main) == "2"
    assert (transport.requests, transport.cancelled) == (2, 1)
    assert pipeline.get(Bulkhead).in_flight == 0


@pytest.mark.parametrize(("method", "hedged"), [("GET", True), ("HEAD", True), ("PUT", False), ("POST", False)])
def test_only_safe_methods_are_hedged(method: str, hedged: bool) -> None:
    pipeline = Pipeline(Hedge(0.0, budget=None))

    with Recorder(pipeline) as recorder:
        client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200)))
        with resilience.httpx.attach(client, pipeline) as guarded:
            guarded.request(method, "http://quotes.test")

    assert len(recorder.of(HedgeStarted)) == int(hedged)


def test_what_bind_says_comes_first() -> None:
    pipeline = Pipeline(Hedge(0.0, budget=None))
    client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200)))

    with Recorder(pipeline) as recorder, resilience.httpx.attach(client, pipeline.bind(idempotent=True)) as guarded:
        guarded.put("http://quotes.test")

    assert len(recorder.of(HedgeStarted)) == 1


@pytest.mark.slow
def test_in_threads_the_late_response_is_closed_and_the_connections_come_back() -> None:
    released = threading.Event()
    requests: list[str] = []

    def choose(path: str) -> str:
        requests.append(path)
        if len(requests) == 1:
            released.wait(30)
        return "big"

    pipeline = hedging()
    limits = httpx.Limits(max_connections=2)
    with Server(choose) as server, resilience.httpx.attach(httpx.Client(limits=limits), pipeline) as client:
        for _ in range(3):
            assert client.get(server.url + "/").status_code == 200
        released.set()
        wait_until(lambda: pipeline.get(Bulkhead).in_flight == 0)
        for _ in range(3):
            assert client.get(server.url + "/").status_code == 200
