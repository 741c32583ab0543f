"""Listeners that fail, take their time, or leave while calls run: no call ends otherwise, and errors are counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilience import Pipeline, Retry, Subscription, Timeout, backoff, subscribe
from resilience._util.clock import clock
from resilience._util.locks import state_lock
from resilience.events import Event
from resilience.events._delivery import deliver, listener_errors
from resilience.testing import virtual_time
from tests.support.functions import AppError, Failing
from tests.support.threads import in_threads
from tests.support.ways import Make, each_way

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def outcomes(make: Make, pipeline: Pipeline[Any]) -> list[str]:
    """Return what comes of a call that succeeds in its third attempt, and of one that fails for good."""
    found: list[str] = []
    for failures in (2, 3):
        try:
            found.append(make(pipeline, Failing(failures)))
        except ConnectionError as error:
            found.append(str(error))
    return found


def broken(event: Event) -> None:
    raise AppError(event.operation)


def slow(event: Event) -> None:
    lock = threading.Lock()
    lock.acquire()
    clock.sleep(lock, 0.1)


@each_way
@pytest.mark.parametrize("listener", [broken, slow])
def test_no_outcome_changes(make: Make, listener: Callable[[Any], object], nothing_logged_yet: None) -> None:
    pipeline = Pipeline[Any](Timeout(60), Retry(3, wait=backoff.fixed(1)), Timeout(10), budget=None)
    with virtual_time():
        expected = outcomes(make, pipeline)
        with subscribe(listener):
            assert outcomes(make, pipeline) == expected

    assert expected == ["fine", "down"]


def test_each_error_is_counted_for_the_pipeline_of_the_event(nothing_logged_yet: None) -> None:
    pipeline = Pipeline[Any](name="heard badly")
    before = listener_errors.totals().get("heard badly", 0)

    with subscribe(broken):
        for _ in range(3):
            pipeline.call(int)  # an attempt and a call have ended
        Pipeline[Any](name="other").call(int)

    assert listener_errors.totals()["heard badly"] == before + 6


def test_the_errors_of_threads_are_counted_exactly(nothing_logged_yet: None) -> None:
    pipeline = Pipeline[Any](name="heard badly")
    before = listener_errors.totals().get("heard badly", 0)

    def many(_: int) -> None:
        for _ in range(200):
            pipeline.call(int)

    with subscribe(broken):
        in_threads(8, many)

    assert listener_errors.totals()["heard badly"] == before + 8 * 200 * 2


def test_listeners_that_come_and_go_while_calls_run() -> None:
    pipeline = Pipeline[Any](Retry(3, wait=backoff.none()), budget=None)
    results: list[str] = []
    is_done = threading.Event()

    def calls(_: int) -> None:
        results.extend(pipeline.call(Failing(2)) for _ in range(200))

    def changes() -> None:
        while not is_done.is_set():
            with subscribe(lambda event: None), pipeline.subscribe(lambda event: None):
                pass

    changing = threading.Thread(target=changes)
    changing.start()
    try:
        in_threads(4, calls)
    finally:
        is_done.set()
        changing.join()

    assert results == ["fine"] * 800


def test_a_listener_that_unsubscribes_itself_in_a_call() -> None:
    pipeline = Pipeline[Any](Retry(3, wait=backoff.none()))
    heard: list[Event] = []

    def once(event: Event) -> None:
        heard.append(event)
        subscription()

    subscription = pipeline.subscribe(once)

    assert pipeline.call(Failing(2)) == "fine"
    assert asyncio.run(pipeline.acall(int)) == 0
    assert len({type(event) for event in heard}) == len(heard) > 0
    assert all(event.operation == "Failing" for event in heard)


def test_inside_of_a_region_with_the_lock_it_is_left_to_the_next_call() -> None:
    heard: list[Event] = []
    event = Event(pipeline="", policy="", operation="", target=None, at=0.0)
    subscription: Subscription = subscribe(heard.append)
    subscription()

    with state_lock:
        deliver(event, [subscription])
        assert heard == []
    Pipeline[Any]().call(int)

    assert heard == [event]
