"""HTTP/2 connections that requests share: what one attempt has sent is not taken for what another one has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest

from resilience import DeadlineExceededError, Pipeline, Retry, Timeout
from resilience.httpx import attach
from resilience.httpx._deadline import Timeouts
from resilience.httpx._http2_trace import AsyncHttp2Trace, Http2Trace
from resilience.testing import FaultyServer, virtual_time
from tests.httpx.helpers import NOW, both_modules

AT_ONCE = 8


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


@pytest.mark.slow
@both_modules
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_requests_that_are_cut_together_may_all_have_been_processed(
    module: Any, backend: str, server: FaultyServer
) -> None:
    """One task writes the frames of all."""
    found: list[bool] = []

    async def main() -> None:
        pipeline = Pipeline(Retry(3, wait=NOW), Timeout(0.4))
        async with attach(module.AsyncClient(http1=False, http2=True), pipeline) as client:
            await client.get(f"{server.http2_url}/ok")

            async def ask() -> None:
                with pytest.raises(DeadlineExceededError) as caught:
                    await client.post(f"{server.http2_url}/stall")
                found.append(caught.value.unprocessed)

            async with anyio.create_task_group() as group:
                for _ in range(AT_ONCE):
                    group.start_soon(ask)

    anyio.run(main, backend=backend)

    assert found == [False] * AT_ONCE
    assert server.count("POST", "/stall") == AT_ONCE


@pytest.mark.slow
@both_modules
def test_a_deadline_of_one_thread_does_not_have_the_post_of_another_sent_again(
    module: Any, server: FaultyServer
) -> None:
    outcomes: list[object] = []
    pipeline = Pipeline(Retry(3, wait=NOW), Timeout(0.6))

    def post(client: Any) -> None:
        try:
            outcomes.append(client.post(f"{server.http2_url}/stall").status_code)
        except module.TransportError as error:
            outcomes.append(type(error).__name__)

    with attach(module.Client(http1=False, http2=True), pipeline) as client:
        client.get(f"{server.http2_url}/ok")
        threads = [threading.Thread(target=post, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)

    assert len(outcomes) == 4
    assert server.count("POST", "/stall") <= 4


def test_a_step_past_the_deadline_is_not_begun() -> None:
    heard: list[str] = []
    with virtual_time() as clock:
        timeouts = Timeouts({}, clock.monotonic() + 1.0)
        trace = Http2Trace(timeouts, httpx, lambda name, info: heard.append(name))
        trace("http2.send_connection_init.started", {})
        assert (timeouts.has_connection, timeouts.has_sent) == (True, False)
        clock.advance(1.0)
        with pytest.raises(httpx.ConnectTimeout, match="before the request was sent"):
            trace("http2.send_request_headers.started", {})
        assert not timeouts.has_sent
    assert heard == ["http2.send_connection_init.started"]


def test_the_request_that_opens_a_tunnel_is_not_that_of_the_attempt() -> None:
    heard: list[str] = []
    timeouts = Timeouts({}, float("inf"))

    async def user(name: str, info: Any) -> None:
        heard.append(name)

    async def main() -> None:
        trace = AsyncHttp2Trace(timeouts, user)
        connect = type("Request", (), {"method": b"CONNECT"})()
        await trace("http11.send_request_headers.started", {"request": connect})
        assert not timeouts.has_sent
        await trace("http2.send_request_headers.started", {"request": None})
        assert timeouts.has_sent

    asyncio.run(main())
    assert len(heard) == 2
