"""What another thread may do between two steps of a bulkhead, and its counts under many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from resilience import BulkheadFullError, Pipeline, Ticket
from resilience._outcome.ending import OK
from resilience._policies.bulkhead import Bulkhead
from tests.policies.helpers import LONG, admitted, call_of, give_back, idle, in_thread, joined, queued
from tests.support.threads import in_threads


class Meanwhile:
    """A lock before which, at its n-th time, somebody else does something."""

    def __init__(self, bulkhead: Bulkhead, nth: int, action: Callable[[], object]) -> None:
        line: Any = bulkhead._wait_queue
        self.lock: threading.Lock = line.lock
        self.left = nth
        self.action = action
        line.lock = self

    def __enter__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()
        self.lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.lock.release()


def test_a_permit_that_comes_back_while_a_newcomer_looks_for_one_is_taken() -> None:
    bulkhead = Bulkhead(5)
    call = admitted(bulkhead)
    Meanwhile(bulkhead, 1, lambda: give_back(bulkhead, OK))

    assert not isinstance(bulkhead.admit(call), Ticket)
    assert (bulkhead.in_flight, bulkhead.peak) == (1, 1)


def test_a_permit_that_comes_back_while_a_newcomer_lines_up_is_granted() -> None:
    bulkhead = Bulkhead(1, queue=1)
    call = admitted(bulkhead)
    Meanwhile(bulkhead, 2, lambda: give_back(bulkhead, OK))

    assert queued(bulkhead, call).acquire()
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


def test_a_newcomer_does_not_overtake_between_a_permit_and_its_grant() -> None:
    bulkhead = Bulkhead(1, queue=2)
    call = admitted(bulkhead)
    first = queued(bulkhead, call)
    woken: list[str] = []
    assert first.add_waker(partial(woken.append, "first"))
    second: list[Ticket] = []
    Meanwhile(bulkhead, 1, lambda: second.append(queued(bulkhead, call)))
    give_back(bulkhead)

    assert woken == ["first"]
    assert first.acquire()
    assert not second[0].acquire()


def test_another_newcomer_may_be_faster() -> None:
    bulkhead = Bulkhead(1)
    call = call_of(bulkhead)
    Meanwhile(bulkhead, 1, lambda: bulkhead.admit(call))

    with pytest.raises(BulkheadFullError):
        bulkhead.admit(call)
    assert (bulkhead.in_flight, bulkhead.peak) == (1, 1)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("queue", [0, 8])
def test_it_is_exact_under_8_threads(queue: int) -> None:
    bulkhead = Bulkhead(3, queue=queue, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    lock = threading.Lock()
    inside = most = done = refused = 0

    def work() -> None:
        nonlocal inside, most, done
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
            done += 1

    def run(_: int) -> None:
        nonlocal refused
        for _ in range(400):
            try:
                pipeline.call(work)
            except BulkheadFullError:
                with lock:
                    refused += 1

    in_threads(8, run)

    assert done + refused == 8 * 400
    assert refused == 0 or queue == 0
    assert 1 <= most <= bulkhead.peak <= 3
    assert idle(bulkhead)
    admitted(bulkhead, 3)


@pytest.mark.usefixtures("frequent_switches")
def test_it_is_exact_while_the_limit_moves() -> None:
    bulkhead = Bulkhead(6, queue=8, max_wait=LONG)
    pipeline = Pipeline(bulkhead)
    stop = threading.Event()
    done: list[int] = []

    def run() -> None:
        for _ in range(300):
            pipeline.call(done.append, 1)

    def move() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            bulkhead.update(limit=1 + number * 5 % 7)
            if number % 10 == 0:
                bulkhead.reset()
            assert 0 <= bulkhead.in_flight <= 7

    mover = in_thread(move)
    joined(*[in_thread(run) for _ in range(7)])
    stop.set()
    joined(mover)

    assert len(done) == 7 * 300
    assert idle(bulkhead)
    bulkhead.update(limit=4, queue=0)
    with pytest.raises(BulkheadFullError):
        admitted(bulkhead, 5)
    assert bulkhead.in_flight == 4
