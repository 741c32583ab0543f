"""The places in the pool of httpcore: they are given back where httpcore itself would lose them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpcore
import httpx
import pytest
from httpcore._sync import connection_pool

from resilience import Pipeline
from resilience.httpx import AsyncResilientTransport, ResilientTransport, attach
from resilience.httpx._pool_repair import remove_lost, repairable_pool_of
from tests.httpx.helpers import both_modules
from tests.httpx.server import Server

# Who stops reading leaves generators of httpx to the garbage collector, and trio warns of that.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored (in|while finalizing generator).? <async_generator object"
)


@both_modules
@pytest.mark.parametrize(
    "kind", [(ResilientTransport, "HTTPTransport"), (AsyncResilientTransport, "AsyncHTTPTransport")]
)
def test_the_pool_of_httpcore_is_as_expected(kind: tuple[Any, str], module: Any) -> None:
    """Where this fails, look whether httpcore still loses places, and where: see `resilience.httpx._pool_repair`."""
    ours, theirs = kind
    transport = ours(Pipeline(), getattr(module, theirs)())

    assert transport._pool is not None
    assert transport._pool._connections == transport._pool._requests == []


@pytest.mark.parametrize("transport", [httpx.MockTransport(lambda _: httpx.Response(200)), None, object()])
def test_other_transports_have_no_pool(transport: Any) -> None:
    assert repairable_pool_of(transport) is None


@pytest.mark.slow
@pytest.mark.parametrize("error", [httpcore.PoolTimeout, KeyboardInterrupt])
def test_a_request_that_is_assigned_a_connection_as_its_wait_ends_loses_no_place(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread assigns it after it has given up, and before it has left the list of requests."""
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(2, pool=0.1)

    def wait_in_vain(request: Any, timeout: float | None = None) -> Any:
        with pytest.raises(httpcore.PoolTimeout):
            wait(request, timeout)
        held.close()
        assert not request.is_queued()
        raise error

    with Server() as server, attach(httpx.Client(limits=limits, timeout=timeout), Pipeline()) as client:
        held = client.send(client.build_request("GET", f"{server.url}/stall_in_body"), stream=True)
        wait = connection_pool.PoolRequest.wait_for_connection
        with monkeypatch.context() as patched:
            patched.setattr(connection_pool.PoolRequest, "wait_for_connection", wait_in_vain)
            with pytest.raises((httpx.PoolTimeout, KeyboardInterrupt)):
                client.get(f"{server.url}/good")

        assert client.get(f"{server.url}/good").status_code == 200


@pytest.mark.slow
def test_a_place_that_was_lost_goes_to_the_request_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = connection_pool.PoolRequest.wait_for_connection
    calls = itertools.count()
    waits = threading.Event()
    others: list[Future[httpx.Response]] = []

    def wait_in_vain(request: Any, timeout: float | None = None) -> Any:
        if next(calls):
            waits.set()
            return wait(request, timeout)
        with pytest.raises(httpcore.PoolTimeout):
            wait(request, 0.05)
        held.close()
        others.append(threads.submit(client.get, f"{server.url}/good"))
        assert waits.wait(5)
        raise httpcore.PoolTimeout

    limits = httpx.Limits(max_connections=1)
    with (
        Server() as server,
        ThreadPoolExecutor(1) as threads,
        attach(httpx.Client(limits=limits, timeout=httpx.Timeout(2)), Pipeline()) as client,
    ):
        held = client.send(client.build_request("GET", f"{server.url}/stall_in_body"), stream=True)
        monkeypatch.setattr(connection_pool.PoolRequest, "wait_for_connection", wait_in_vain)
        with pytest.raises(httpx.PoolTimeout):
            client.get(f"{server.url}/good")

        assert others[0].result().status_code == 200


@pytest.mark.slow
def test_connections_in_use_are_not_taken_for_lost() -> None:
    limits = httpx.Limits(max_connections=2)
    with Server() as server, attach(httpx.Client(limits=limits), Pipeline()) as client:
        transport: Any = client._transport
        pool = transport._pool
        client.get(f"{server.url}/good")
        with client.stream("GET", f"{server.url}/stall_in_body"):
            before = list(pool._connections)

            assert remove_lost(pool) == []
            assert pool._connections == before != []


@pytest.mark.slow
@pytest.mark.parametrize("http2", [False, True])
def test_places_are_given_back_when_what_was_being_connected_may_become_http2(http2: bool) -> None:
    """Such a connection calls itself available, although no request has it and none will."""

    async def main() -> None:
        transport = httpx.AsyncHTTPTransport(http2=http2, verify=False, limits=httpx.Limits(max_connections=4))
        client = attach(httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(2, pool=0.5)), Pipeline())
        urls = [server.url.replace("http://127.0.0.1", f"https://127.0.0.{number + 2}") for number in range(8)]
        tasks = [asyncio.create_task(client.get(url)) for url in urls]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await client.get(f"{server.url}/good")).status_code == 200
        await client.aclose()

    with Server() as server:
        asyncio.run(main())
