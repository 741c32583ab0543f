"""The bodies of responses with HTTP/2, where a connection has many: reading one to its end never ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpcore
import httpx
import pytest

from resilience import Bulkhead, Pipeline
from resilience.httpx import attach
from tests.httpx.helpers import Pool

# Who stops reading leaves generators of httpx to the garbage collector, and trio warns of that.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored (in|while finalizing generator).? <async_generator object"
)


both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Stalling:
    """The body of a stream that httpcore forgets when it is closed: who goes on reading waits for ever."""

    def __init__(self) -> None:
        self.closed = 0
        self.waiting = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first"
        self.waiting += 1
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.closed += 1


@both_loops
def test_closing_a_response_early_does_not_wait_for_the_rest(backend: str) -> None:
    bulkhead, body = Bulkhead(1), Stalling()
    pool = Pool(httpcore.Response(200, content=body, extensions={"http_version": b"HTTP/2"}))

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=pool.below("async")), Pipeline(bulkhead))
        with anyio.fail_after(5):
            async with client.stream("GET", "http://quotes.test") as response:
                async for chunk in response.aiter_raw():
                    assert chunk == b"first"
                    break

    anyio.run(main, backend=backend)

    assert (body.closed, body.waiting, bulkhead.in_flight) == (1, 0, 0)


@pytest.mark.slow
@both_loops
def test_what_goes_on_after_it_was_closed_is_not_waited_for_long(backend: str) -> None:
    body = Stalling()
    pool = Pool(httpcore.Response(200, content=body, extensions={"http_version": b"HTTP/1.1"}))

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=pool.below("async")), Pipeline())
        with anyio.fail_after(5):
            async with client.stream("GET", "http://quotes.test") as response:
                async for _ in response.aiter_raw():
                    break

    anyio.run(main, backend=backend)

    assert (body.closed, body.waiting) == (1, 1)
