"""In a forked child the permits of before the fork are free, and how the calls of before end changes nothing."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    DeadlineExceededError,
    Pipeline,
    Timeout,
)
from tests.support.fork import in_child
from tests.support.threads import PATIENCE, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


class Elsewhere:
    """Other threads are in the middle of a call meanwhile."""

    def __init__(self, call: Callable[[Callable[[], object]], object], threads: int = 1) -> None:
        self.inside = threading.Semaphore(0)
        self.may_go = threading.Event()
        self.threads = [threading.Thread(target=call, args=(self.hang,)) for _ in range(threads)]

    def hang(self) -> None:
        self.inside.release()
        self.may_go.wait(PATIENCE)

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()
        for _ in self.threads:
            assert self.inside.acquire(timeout=PATIENCE)

    def __exit__(self, *exc_info: object) -> None:
        self.may_go.set()
        for thread in self.threads:
            thread.join(PATIENCE)


def down() -> None:
    raise ConnectionError


def trip(breaker: CircuitBreaker) -> None:
    with pytest.raises(ConnectionError):
        breaker.call(down)


def test_permits_of_other_threads_are_free_in_the_child() -> None:
    bulkhead = Bulkhead(2, queue=1, max_wait=PATIENCE)
    pipeline = Pipeline(bulkhead, name="forked")

    def child() -> str:
        before = bulkhead.snapshot()
        results = [pipeline.call(str) for _ in range(3)]
        return f"{before['in_flight']} {before['queued']} {results} {bulkhead.snapshot()['in_flight']}"

    with Elsewhere(pipeline.call, threads=2):
        waiter = threading.Thread(target=pipeline.call, args=(str,))
        waiter.start()
        wait_until(lambda: bulkhead.queued == 1)
        said = in_child(child)
        assert (bulkhead.in_flight, bulkhead.queued) == (2, 1)
    waiter.join(PATIENCE)

    assert said == "0 0 ['', '', ''] 0"
    assert bulkhead.in_flight == 0


@pytest.mark.parametrize("way", ["pipeline", "calling", "with"])
def test_the_permit_of_the_forking_thread_is_free_too_and_its_late_ending_changes_nothing(way: str) -> None:
    bulkhead = Bulkhead(1)
    said: list[str] = []

    def fork() -> None:
        said.append(in_child(child))

    def child() -> str:
        free = bulkhead.in_flight == 0
        with bulkhead:
            full = bulkhead.in_flight == 1
        return f"{free} {full}"

    if way == "pipeline":
        bulkhead.call(fork)
    else:
        with bulkhead.calling() if way == "calling" else bulkhead:
            fork()

    assert said == ["True True"]
    assert bulkhead.in_flight == 0


def test_a_call_that_goes_on_in_the_child_gives_no_permit_back_there() -> None:
    bulkhead = Bulkhead(1, queue=1)
    pipe_out, pipe_in = os.pipe()

    def forks() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in `in_child`
            return os.fork()

    child = bulkhead.call(forks)
    if child == 0:
        status = 1
        try:
            inside = bulkhead.in_flight
            with bulkhead, pytest.raises(BulkheadFullError):
                bulkhead.update(queue=0)
                bulkhead.call(str)
            os.write(pipe_in, f"{inside} {bulkhead.in_flight}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(pipe_in)
    with open(pipe_out, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)

    assert said == "0 0"
    assert bulkhead.in_flight == 0


class TestBreaker:
    def test_a_closed_one_keeps_its_counts_and_no_late_ending_adds_to_them(self) -> None:
        breaker = CircuitBreaker(consecutive_failures=20)
        for _ in range(3):
            trip(breaker)
        breaker.call(str)
        said: list[str] = []

        def child() -> str:
            token: Any = held[0]
            breaker.settle(token, failed)
            breaker.settle(token, good)
            counts = [breaker.snapshot()[key] for key in ("calls", "failures")]
            trip(breaker)
            return f"{counts} {breaker.snapshot()['failures']}"

        from resilience import NETWORK_ERRORS, Call, Ending, EndingKind

        failed, good = Ending(None, ConnectionError(), NETWORK_ERRORS), Ending(EndingKind.OK)
        call = Call.make(breaker.entry()[1], str, (), {})
        held = [breaker.admit(call)]
        said.append(in_child(child))

        assert said == ["[4, 3] 4"]
        assert breaker.snapshot()["failures"] == 3

    def test_an_open_one_stays_open(self) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, open_for=60, max_open_for=60)
        trip(breaker)

        assert in_child(lambda: f"{breaker.state} {breaker.snapshot()['opens']}") == "open 1"

    def test_the_probes_of_other_threads_give_their_places_to_the_child(self) -> None:
        breaker = CircuitBreaker(consecutive_failures=1, open_for=1e-6)
        trip(breaker)

        def child() -> str:
            before = breaker.state
            breaker.call(str)
            return f"{before} {breaker.state}"

        with Elsewhere(breaker.call):
            assert in_child(child) == "half_open closed"
            assert breaker.state == "half_open"

    def test_a_window_of_calls_is_copied_too(self) -> None:
        breaker = CircuitBreaker(window_calls=5, min_calls=5, consecutive_failures=20)
        for _ in range(3):
            trip(breaker)

        def child() -> str:
            trip(breaker)
            return str(breaker.snapshot()["failures"])

        assert in_child(child) == "4"
        assert breaker.snapshot()["failures"] == 3


def test_abandoned_threads_do_not_exist_in_the_child() -> None:
    timeout = Timeout(0.01, thread=True, max_abandoned=1)
    may_go = threading.Event()
    pipeline = Pipeline(timeout)

    def hang() -> None:
        may_go.wait(PATIENCE)

    def child() -> str:
        return f"{timeout.abandoned} {Pipeline(Timeout(60, thread=True)).call(int)}"

    with pytest.raises(DeadlineExceededError):
        pipeline.call(hang)
    try:
        assert timeout.abandoned == 1
        assert in_child(child) == "0 0"
    finally:
        may_go.set()
    wait_until(lambda: timeout.abandoned == 0)


def test_a_policy_in_two_pipelines_forgets_once() -> None:
    bulkhead = Bulkhead(1)
    first, second = Pipeline(bulkhead), Pipeline(bulkhead)

    def child() -> str:
        return f"{first.call(str)}{second.call(str)}{bulkhead.in_flight}"

    with Elsewhere(first.call):
        assert in_child(child) == "0"
