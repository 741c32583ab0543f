"""Half-open breakers: probes from many threads at once, and a clock that is set back."""

from __future__ import annotations

import threading

import pytest

from resilience import CircuitBreaker, Pipeline, RejectedError
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import down


def test_sixteen_threads_at_a_half_open_breaker(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, half_open_calls=3)
    pipeline = Pipeline(breaker)
    with pytest.raises(ConnectionError):
        pipeline.call(_raise, ConnectionError())
    virtual_clock.advance(2)
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


@pytest.mark.parametrize("start", [0.1 * k for k in range(0, 200, 7)])
def test_a_breaker_is_open_at_the_very_instant_it_opens(start: float) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.3, max_open_for=0.2)
    pipeline = Pipeline(breaker)
    with virtual_time() as clock:
        clock.advance(start)  # start + 0.2 - start is more than 0.2 here and there
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        with pytest.raises(RejectedError):
            pipeline.call(down)
        assert breaker.state == "open"
        clock.advance(0.201)
        assert breaker.state == "half_open"
