"""Calls with `wait_for_ready=True` while the server is down: how long they wait, and what their end counts as."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import CircuitBreaker, DeadlineExceededError, Pipeline, Retry, Timeout
from resilience.events import AttemptEnded, Outcome
from resilience.testing import Recorder
from tests.grpc.helpers import SOON, Code
from tests.grpc.servers import OPTIONS, stub_of
from tests.support.timing import at_most

pytestmark = pytest.mark.slow

Call = Callable[..., object]


@pytest.fixture
def target() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def call_plainly(target: str, pipeline: Pipeline[Any], idempotent: bool, **settings: Any) -> object:
    with resilience.grpc.insecure_channel(target, pipeline, idempotent=idempotent, options=OPTIONS) as channel:
        return stub_of(channel, "Get")(b"x", wait_for_ready=True, **settings)


def call_async(target: str, pipeline: Pipeline[Any], idempotent: bool, **settings: Any) -> object:
    async def main() -> object:
        aio = resilience.grpc.aio
        async with aio.insecure_channel(target, pipeline, idempotent=idempotent, options=OPTIONS) as channel:
            return await stub_of(channel, "Get")(b"x", wait_for_ready=True, **settings)

    return asyncio.run(main())


each_api = pytest.mark.parametrize("call", [call_plainly, call_async], ids=["sync", "aio"])


@each_api
@pytest.mark.parametrize(("idempotent", "attempts"), [(True, 3), (False, 1)], ids=["idempotent", "not idempotent"])
def test_it_waits_no_longer_than_the_timeout_of_an_attempt(
    target: str, call: Call, idempotent: bool, attempts: int
) -> None:
    """The request may not have been sent, but that cannot be told, so the end is a failure like any other timeout."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(Timeout(20.0), Retry(3, wait=SOON), breaker, Timeout(0.3))
    started = time.monotonic()
    with Recorder(pipeline) as recorder, pytest.raises(DeadlineExceededError) as caught:
        call(target, pipeline, idempotent)
    taken = time.monotonic() - started

    error: Any = caught.value
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert error.unprocessed is False
    assert isinstance(error, grpc.RpcError)
    assert attempts * 0.29 <= taken <= at_most(attempts * 0.31)
    assert [event.outcome for event in recorder.of(AttemptEnded)] == [Outcome.TIMED_OUT] * attempts
    assert breaker.snapshot()["failures"] == attempts


@each_api
def test_without_one_it_waits_as_long_as_the_call_may_take(target: str, call: Call) -> None:
    """The pipeline has no time of its own to judge by, so that the end says nothing about the server."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(Retry(3, wait=SOON), breaker)
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        call(target, pipeline, True, timeout=0.5)
    taken = time.monotonic() - started

    assert 0.45 <= taken <= at_most(0.5)
    assert (breaker.snapshot()["calls"], breaker.snapshot()["failures"]) == (0, 0)
