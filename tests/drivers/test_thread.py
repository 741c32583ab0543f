"""Calls on a thread that is left behind when time is up: Timeout(thread=True)."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    Retry,
    Timeout,
    backoff,
    deadline_after,
    remaining,
)
from resilience.events import CallEnded, Outcome, Rejected
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import AppError
from tests.support.policies import Holding
from tests.support.turnstile import Turnstile

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
NOW = backoff.none()
PATIENCE = 60.0


class Held:
    """A function that hangs until released, on a thread."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.seen: list[str] = []

    def __call__(self) -> str:
        self.seen.append(variable.get())
        self.released.wait(10)
        return "late"


def test_a_thread_is_left_behind_and_holds_what_is_further_out() -> None:
    outer, scoring, inner = Holding(limit=3), Turnstile(limit=3), Turnstile(limit=3)
    pipeline = Pipeline(outer, scoring, Retry(2, wait=backoff.none()), Timeout(0.02, thread=True), inner)
    held = Held()

    with pytest.raises(DeadlineExceededError):
        pipeline.call(held)

    assert len(held.seen) == 2
    assert (outer.in_flight, outer.endings) == (1, [])
    assert scoring.endings == ["timed_out"]
    assert inner.in_flight == 2
    assert pipeline.snapshot()["in_flight"] > 0
    held.released.set()
    assert pipeline.drain(10)
    assert (outer.in_flight, inner.in_flight) == (0, 0)
    assert outer.endings == ["timed_out"]


def test_a_permit_inside_the_retry_is_held_by_its_own_attempt_only() -> None:
    gate = Holding(limit=2)
    pipeline = Pipeline(Retry(2, wait=backoff.none()), gate, Timeout(0.05, thread=True))
    held = Held()
    attempts: list[int] = []

    def second_time_quick() -> str:
        attempts.append(1)
        return held() if len(attempts) == 1 else "fine"

    assert pipeline.call(second_time_quick) == "fine"

    assert gate.in_flight == 1
    held.released.set()
    assert pipeline.drain(10)
    assert gate.in_flight == 0


def test_a_thread_sees_the_context_and_gives_results_and_errors_back() -> None:
    pipeline = Pipeline(Timeout(5, thread=True))

    def look() -> tuple[str, bool, bool]:
        left = remaining()
        return variable.get(), threading.current_thread() is threading.main_thread(), left is not None and left <= 5

    def fail() -> None:
        raise AppError("boom")

    def run() -> None:
        variable.set("seen")
        assert pipeline.call(look) == ("seen", False, True)

    contextvars.copy_context().run(run)
    with pytest.raises(AppError, match="boom"):
        pipeline.call(fail)
    assert pipeline.snapshot()["in_flight"] == 0


def test_an_expired_deadline_starts_no_thread(virtual_time: VirtualClock) -> None:
    started: list[int] = []
    with deadline_after(0), pytest.raises(DeadlineExceededError) as caught:
        Pipeline(Timeout(1, thread=True)).call(started.append, 1)

    assert started == []
    assert caught.value.unprocessed


def test_a_refusal_inside_a_thread_is_a_refusal() -> None:
    gate = Turnstile(room=0)
    assert gate.take()
    pipeline = Pipeline(Timeout(5, thread=True), gate)

    with Recorder(pipeline, events=[Rejected, CallEnded]) as recorder, pytest.raises(RejectedError):
        pipeline.call(print)

    assert [event.outcome for event in recorder.of(CallEnded)] == [Outcome.REJECTED]


def test_bad_results_inside_a_thread_come_out_as_values() -> None:
    bad = Allowlist.of_results(lambda value: value == "bad")

    assert Pipeline(Retry(2, wait=backoff.none()), Timeout(5, thread=True), failures=bad).call(lambda: "bad") == "bad"


def test_a_thread_that_ends_while_one_further_in_hangs_holds_on() -> None:
    hanging = threading.Event()
    bulkhead = Bulkhead(10)

    def slow(error: Exception) -> bool:
        hanging.wait(0.15)
        return isinstance(error, TimeoutError)

    pipeline = Pipeline(
        bulkhead, Timeout(0.1, thread=True), Retry(2, wait=NOW, on=slow), Timeout(0.05, thread=True), name="two threads"
    )
    with pytest.raises(DeadlineExceededError):
        pipeline.call(hanging.wait, 10)
    for _ in range(15):  # the outer thread ends meanwhile
        hanging.wait(0.02)

    assert bulkhead.in_flight == 1
    hanging.set()
    assert pipeline.drain(10)
    assert bulkhead.in_flight == 0


def test_a_drain_ends_the_waits_of_a_thread() -> None:
    pipeline = Pipeline(Timeout(30, thread=True), Retry(3, wait=backoff.fixed(20)))
    raised: list[BaseException] = []
    failed = threading.Event()

    def fails() -> None:
        failed.set()
        raise ConnectionError("down")

    def call() -> None:
        try:
            pipeline.call(fails)
        except ConnectionError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert failed.wait(5)

    assert pipeline.drain(5)
    thread.join(5)
    assert len(raised) == 1


def test_a_thread_that_starts_as_a_ctrl_c_comes_is_counted_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline: Pipeline[Any] = Pipeline(Timeout(60, thread=True), name="struck-at-the-start")
    release = threading.Event()
    start = threading.Thread.start

    def start_and_strike(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_strike)
    with pytest.raises(KeyboardInterrupt):
        pipeline.call(release.wait, PATIENCE)
    monkeypatch.undo()

    assert pipeline.snapshot()["in_flight"] == 1
    assert not pipeline.drain(0)
    release.set()
    assert pipeline.drain(PATIENCE)
