"""Bodies that have arrived with their head: the call has ended, and its connection and its permits are free."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import anyio
import httpx
import pytest

from resilience import Bulkhead, Pipeline, Timeout
from resilience.events import TimedOut
from resilience.httpx import attach
from resilience.testing import Recorder
from tests.httpx.helpers import both_modules, everywhere
from tests.httpx.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with Server() as server:
        yield server


def streamed(way: str, module: Any, pipeline: Pipeline[Any], url: str, seen: Callable[[Any], object]) -> Any:
    """Return the client's pool, after a request whose response was given to `seen` before its body was read."""
    limits = module.Limits(max_connections=1)
    if way == "sync":
        with attach(module.Client(limits=limits), pipeline) as client, client.stream("GET", url) as response:
            seen(response)
            return response.read() if response.headers.get("content-length") == "4" else None

    async def main() -> Any:
        async with attach(module.AsyncClient(limits=limits), pipeline) as client, client.stream("GET", url) as response:
            seen(response)
            return await response.aread() if response.headers.get("content-length") == "4" else None

    return anyio.run(main, backend=way)


@everywhere
@both_modules
def test_permits_come_back_with_a_head_that_has_the_body_with_it(server: Server, module: Any, way: str) -> None:
    bulkhead = Bulkhead(1)
    held: list[Any] = []

    def seen(response: Any) -> None:
        held.append((bulkhead.in_flight, response.is_closed))

    assert streamed(way, module, Pipeline(bulkhead), f"{server.url}/good", seen) == b"fine"
    assert held == [(0, False)]


@everywhere
@pytest.mark.parametrize("path", ["big", "chunked", "stall_in_body"])
def test_permits_stay_with_a_body_that_comes_later_or_may(server: Server, path: str, way: str) -> None:
    bulkhead = Bulkhead(1)
    held: list[int] = []

    streamed(way, httpx, Pipeline(bulkhead), f"{server.url}/{path}", lambda _: held.append(bulkhead.in_flight))

    assert (held, bulkhead.in_flight) == ([1], 0)


@both_modules
def test_its_connection_is_free_before_the_caller_reads_it(server: Server, module: Any) -> None:
    limits = module.Limits(max_connections=1)
    with attach(module.Client(limits=limits, timeout=module.Timeout(5, pool=0.5)), Pipeline()) as client:
        responses = [client.send(client.build_request("GET", f"{server.url}/good"), stream=True) for _ in range(2)]

        assert [response.read() for response in responses] == [b"fine", b"fine"]


@everywhere
def test_a_late_first_item_is_reported_in_shadow_mode_all_the_same(server: Server, way: str) -> None:
    pipeline: Pipeline[Any] = Pipeline(Timeout(5.0, first=0.01, mode="shadow"))

    with Recorder(pipeline) as recorder:
        assert streamed(way, httpx, pipeline, f"{server.url}/slowly", lambda _: None) == b"fine"

    assert [event.mode for event in recorder.of(TimedOut)] == ["shadow"]
