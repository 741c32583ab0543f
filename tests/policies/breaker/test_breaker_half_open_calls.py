"""Half-open breakers: probes from many threads at once, and a clock that is set back."""

from __future__ import annotations

import threading

import pytest

from resilience import CircuitBreaker, Pipeline, RejectedError
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import down


def test_sixteen_threads_at_a_half_open_breaker(virtual_time: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, half_open_calls=3)
    pipeline = Pipeline(breaker)
    with pytest.raises(ConnectionError):
        pipeline.call(_raise, ConnectionError())
    virtual_time.advance(2)
    go, hold = threading.Barrier(16), threading.Event()
    calls: list[int] = []
    refused: list[int] = []

    def probe() -> None:
        calls.append(1)
        hold.wait(10)

    def one() -> None:
        go.wait(10)
        try:
            pipeline.call(probe)
        except RejectedError:
            refused.append(1)

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    while len(refused) < 13:
        pass
    hold.set()
    for thread in threads:
        thread.join(10)

    assert (len(calls), len(refused), breaker.state) == (3, 13, "closed")


def _raise(error: Exception) -> None:
    raise error


def test_a_clock_that_is_set_back_does_not_keep_a_breaker_open() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    pipeline = Pipeline(breaker)
    with virtual_time() as clock:
        clock.advance(3600)
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        assert breaker.state == "open"

    assert breaker.state == "half_open"
    breaker.reset()
