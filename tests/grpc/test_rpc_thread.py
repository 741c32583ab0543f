"""The thread of an RPC ends with it, also when the caller drops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, Hedge, Pipeline, Retry, Timeout, backoff
from resilience.events import RetryScheduled
from resilience.testing import Recorder
from tests.grpc.helpers import UNAVAILABLE
from tests.grpc.servers import Service, stub_of, wait_until

pytestmark = pytest.mark.slow

Make = Callable[[str], grpc.Channel]


def plain(target: str) -> grpc.Channel:
    return grpc.insecure_channel(target)


def guarded(target: str) -> grpc.Channel:
    return resilience.grpc.insecure_channel(target, Pipeline(Retry()))


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fail if a thread of an RPC goes on."""
    yield
    assert wait_until(lambda: not [one for one in threading.enumerate() if one.name == "resilience-future"])


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("make", [plain, guarded])
def test_a_future_that_is_dropped_is_cancelled(service: Service, make: Make) -> None:
    service.script("Get", service.stall())
    with make(service.target) as channel:
        future = stub_of(channel, "Get").future(b"x")
        assert wait_until(lambda: service.count("Get") == 1)
        del future
        assert wait_until(lambda: len(service.cancelled) == 1)


@pytest.mark.parametrize("make", [plain, guarded])
def test_a_future_with_a_callback_is_kept(service: Service, make: Make) -> None:
    service.script("Get", service.stall())
    results: list[Any] = []
    with make(service.target) as channel:
        stub_of(channel, "Get").future(b"x").add_done_callback(lambda future: results.append(future.result()))
        assert wait_until(lambda: service.count("Get") == 1)
        service.released.set()
        assert wait_until(lambda: results == [b"late"])


@pytest.mark.usefixtures("no_threads_left")
def test_a_future_that_is_dropped_in_a_queue_leaves_it(service: Service) -> None:
    bulkhead = Bulkhead(1, queue=5, max_wait=30.0)
    with bulkhead, resilience.grpc.insecure_channel(service.target, Pipeline(bulkhead)) as channel:
        future = stub_of(channel, "Get").future(b"x")
        assert wait_until(lambda: bulkhead.queued == 1)
        del future
        assert wait_until(lambda: bulkhead.queued == 0)
    assert service.seen == []


@pytest.mark.usefixtures("no_threads_left")
def test_a_future_that_is_dropped_between_two_attempts_makes_no_other(service: Service) -> None:
    service.script("Get", UNAVAILABLE)
    pipeline = Pipeline(Retry(wait=backoff.fixed(30.0)))
    with (
        resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True) as channel,
        Recorder(pipeline, events=[RetryScheduled]) as recorder,
    ):
        future = stub_of(channel, "Get").future(b"x")
        assert wait_until(lambda: len(recorder.events) == 1)
        del future
    assert service.count("Get") == 1


def test_an_rpc_whose_thread_cannot_be_started_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    interceptors = resilience.grpc.client_interceptors(Pipeline(Retry()))
    guard = interceptors[0]._guard

    def no_more_threads(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("resilience._runtime.threads.start", no_more_threads)
    with grpc.intercept_channel(grpc.insecure_channel(service.target), *interceptors) as channel:
        failed = stub_of(channel, "Get").future(b"x")
        assert isinstance(failed.exception(), RuntimeError)
    assert guard.running == set()


def test_an_attempt_that_has_lost_a_race_is_cancelled(service: Service) -> None:
    service.script("Get", service.stall(), b"fast")
    bulkhead = Bulkhead(5)
    pipeline = Pipeline(Timeout(20.0), Hedge(0.05), bulkhead)
    with resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True) as channel:
        assert stub_of(channel, "Get").future(b"x").result(5.0) == b"fast"
        assert wait_until(lambda: len(service.cancelled) == 1)
        assert wait_until(lambda: bulkhead.in_flight == 0)
