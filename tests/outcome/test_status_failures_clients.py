"""HTTP_FAILURES around functions that use real clients, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from resilience import HTTP_FAILURES, BreakerState, CircuitBreaker, CircuitOpenError, Pipeline, Retry, backoff
from resilience.events import RetryScheduled
from resilience.testing import Recorder
from tests.support.statuses import answering

# Pipelines of the same name may still be alive in the tracebacks of earlier calls.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:there are two pipelines")]

requests: Any = importlib.import_module("requests")
urllib3: Any = importlib.import_module("urllib3")
aiohttp: Any = importlib.import_module("aiohttp")
httpx: Any = importlib.import_module("httpx")
httpx2: Any = importlib.import_module("httpx2")

Fetch = Callable[[str], Any]
AFetch = Callable[[str], Awaitable[Any]]


def with_requests(url: str) -> Any:
    return requests.get(url)


def with_requests_raising(url: str) -> Any:
    response = requests.get(url)
    response.raise_for_status()
    return response


def with_urllib(url: str) -> Any:
    try:
        with urllib.request.urlopen(url) as response:
            response.read()
            return response
    except urllib.error.HTTPError as error:
        error.close()
        raise


def with_urllib3(url: str) -> Any:
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request("GET", url)


def with_httpx(url: str) -> Any:
    return httpx.get(url)


def with_httpx_raising(url: str) -> Any:
    return httpx.get(url).raise_for_status()


def with_httpx2(url: str) -> Any:
    return httpx2.get(url)


def with_httpx2_raising(url: str) -> Any:
    return httpx2.get(url).raise_for_status()


async def with_aiohttp(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        await response.read()
        return response


async def with_aiohttp_raising(url: str) -> Any:
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as response:
        return await response.read()


async def with_async_httpx(url: str) -> Any:
    async with httpx.AsyncClient() as client:
        return await client.get(url)


async def with_async_httpx2(url: str) -> Any:
    async with httpx2.AsyncClient() as client:
        return (await client.get(url)).raise_for_status()


SYNC: list[Fetch] = [
    with_requests, with_requests_raising, with_urllib, with_urllib3, with_httpx, with_httpx_raising, with_httpx2,
    with_httpx2_raising,
]  # fmt: skip
ASYNC: list[AFetch] = [with_aiohttp, with_aiohttp_raising, with_async_httpx, with_async_httpx2]


REFUSED = (
    requests.HTTPError,
    urllib.error.HTTPError,
    httpx.HTTPStatusError,
    httpx2.HTTPStatusError,
    aiohttp.ClientResponseError,
    CircuitOpenError,
)


def run(pipeline: Pipeline[Any], fetch: Fetch, url: str) -> None:
    """Call a guarded function once, whether a response comes out or the exception of a client."""
    guarded: Any = pipeline(fetch)
    with contextlib.suppress(*REFUSED):
        if inspect.iscoroutinefunction(fetch):
            asyncio.run(guarded(url))
        else:
            guarded(url)


def guarded(*, breaker: CircuitBreaker | None = None) -> Pipeline[Any]:
    return Pipeline(Retry(3, wait=backoff.none(), budget=None), breaker or CircuitBreaker(), failures=HTTP_FAILURES)


@pytest.mark.parametrize("fetch", [*SYNC, *ASYNC], ids=lambda fetch: fetch.__name__)
class TestEachClient:
    def test_a_503_is_retried_and_counted(self, fetch: Fetch) -> None:
        pipeline = guarded()
        with answering(503, 503, 200) as server:
            run(pipeline, fetch, server.url)

        assert server.requests == 3
        assert pipeline.get(CircuitBreaker).snapshot()["failures"] == 2

    def test_a_404_is_neither(self, fetch: Fetch) -> None:
        pipeline = guarded()
        with answering(404) as server:
            run(pipeline, fetch, server.url)

        assert server.requests == 1
        assert pipeline.get(CircuitBreaker).snapshot()["failures"] == 0
        assert pipeline.get(CircuitBreaker).snapshot()["calls"] == 1

    def test_a_429_is_retried_and_not_counted(self, fetch: Fetch) -> None:
        pipeline = guarded()
        with answering(429, 200) as server:
            run(pipeline, fetch, server.url)

        assert server.requests == 2
        assert pipeline.get(CircuitBreaker).snapshot()["failures"] == 0

    def test_the_breaker_opens_on_503s_only(self, fetch: Fetch) -> None:
        breaker = CircuitBreaker(consecutive_failures=6, min_calls=1000)
        pipeline = guarded(breaker=breaker)
        with answering(404) as server:
            for _ in range(4):
                run(pipeline, fetch, server.url)
        assert breaker.snapshot()["opens"] == 0

        with answering(503) as server:
            for _ in range(4):
                run(pipeline, fetch, server.url)
        assert breaker.state is BreakerState.OPEN
        assert server.requests <= 6

    def test_a_hint_of_the_server_is_obeyed(self, fetch: Fetch) -> None:
        pipeline = guarded()
        with Recorder(pipeline) as recorder, answering(503, 200, headers={"Retry-After": "0.05"}) as server:
            run(pipeline, fetch, server.url)

        (scheduled,) = recorder.of(RetryScheduled)
        assert scheduled.failure.retry_after == 0.05
        assert scheduled.wait >= 0.05
