"""What a second thread, a Ctrl-C or a finaliser does in the one moment that matters; each was wrong once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from resilience import Bulkhead, CircuitBreaker, CircuitOpenError, Pipeline, Retry, RetryBudget, Timeout, backoff
from resilience._call.call import INHERITED
from resilience._call.wait_queue import Ticket, WaitQueue, wake_all
from resilience._runtime import asyncio as on_loops
from resilience._util.clock import clock
from resilience.events import Event, RetryScheduled, TimedOut
from resilience.testing import virtual_time

PATIENCE = 60.0


def test_a_retry_that_was_made_is_paid_for_though_a_drain_begins_while_it_runs() -> None:
    budget = RetryBudget(0.2, 10)
    pipeline: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), budget=budget, name="drained-in-an-attempt")
    made: list[int] = []

    def fail() -> None:
        made.append(1)
        if len(made) == 2:
            pipeline.drain(0)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        pipeline.call(fail)

    assert len(made) == 2
    assert budget.tokens == 9


def test_a_retry_that_is_not_made_is_refunded_to_whom_it_was_taken_from() -> None:
    first, second = RetryBudget(0.2, 10, initial=5), RetryBudget(0.2, 10, initial=5)
    retry = Retry(3, wait=backoff.fixed(3600), budget=first)
    pipeline: Pipeline[Any] = Pipeline(retry, name="paid-by-another")

    def swap(event: Event) -> None:
        assert first.tokens == 4
        retry.update(budget=second)
        pipeline.drain(0)

    def fail() -> None:
        raise ConnectionError

    with pipeline.subscribe(swap, events=[RetryScheduled]), pytest.raises(ConnectionError):
        pipeline.call(fail)

    assert (first.tokens, second.tokens) == (5, 5)


def test_a_refusal_that_the_function_met_is_not_one_of_the_attempt() -> None:
    breaker = CircuitBreaker()
    audit: Pipeline[Any] = Pipeline(breaker, name="audit-that-is-down")
    breaker.isolate()
    budget = RetryBudget(0.2, 10)
    pay: Pipeline[Any] = Pipeline(Retry(3, wait=backoff.none()), budget=budget, name="pay-and-audit")
    charges: list[int] = []

    @Pipeline(Retry(3, wait=backoff.none()), name="around-pay").bind(idempotent=False)
    @pay.bind(idempotent=False)
    def charge() -> None:
        if budget.tokens == 10:
            raise ConnectionRefusedError("nothing was sent")
        charges.append(1)
        audit.call(print)

    with pytest.raises(CircuitOpenError) as caught:
        charge()

    assert charges == [1]
    assert budget.tokens == 9, "a retry was made"
    assert not hasattr(caught.value, "__notes__")


def test_a_refusal_by_what_guards_the_function_itself_is_one_of_the_attempt() -> None:
    calls: list[int] = []

    @Retry(5, wait=backoff.none())
    @CircuitBreaker(consecutive_failures=2)
    def fetch_stacked() -> None:
        calls.append(1)
        raise ConnectionError("down")

    with pytest.raises(ConnectionError) as caught:
        fetch_stacked()

    assert len(calls) == 2
    assert caught.value.__notes__ == ["resilience: attempt 3 not made: circuit open"]


def test_a_ctrl_c_in_one_wake_does_not_keep_the_others_asleep() -> None:
    line = WaitQueue(lambda: True, lambda: None)
    woken: list[str] = []

    def struck() -> None:
        raise KeyboardInterrupt

    tickets = [Ticket(line, 0.0) for _ in range(3)]
    assert tickets[0].add_waker(struck)
    assert tickets[1].add_waker(lambda: woken.append("second"))
    assert tickets[2].add_waker(lambda: woken.append("third"))

    with pytest.raises(KeyboardInterrupt):
        wake_all(tickets)

    assert woken == ["second", "third"]


def test_a_ctrl_c_in_an_update_that_lets_in_more_leaves_it_in_force() -> None:
    class Struck(Bulkhead):
        def _settings_changed(self) -> None:
            super()._settings_changed()
            raise KeyboardInterrupt

    struck = Struck(1)
    with pytest.raises(KeyboardInterrupt):
        struck.update(limit=3)

    assert struck.limit == 3


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


def test_a_cut_that_is_gone_by_the_time_it_is_due_does_not_keep_the_others() -> None:
    fired: list[str] = []

    class Cut(on_loops._DeadlineCancel):
        def __init__(self, task: asyncio.Task[Any], timer: on_loops._DeadlineTimer, name: str) -> None:
            super().__init__(task)
            self.timer = timer
            self.name = name
            self.victim: Cut | None = None

        def fire(self) -> None:
            fired.append(self.name)
            if self.victim is not None:
                self.timer.discard(self.victim)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        timer = on_loops._timer_of(INHERITED)
        cuts = [Cut(task, timer, name) for name in ("first", "second", "third")]
        for cut in cuts:
            timer.add(cut, clock.monotonic())
        cuts[0].victim = cuts[1]
        timer.cut_due(clock.monotonic() + 1)

    asyncio.run(main())

    assert fired == ["first", "third"]


def test_a_shadow_timeout_tells_nobody_of_a_coroutine_that_is_dropped() -> None:
    pipeline: Pipeline[Any] = Pipeline(Timeout(1, mode="shadow"), name="dropped-in-the-shadow")
    heard: list[Event] = []

    class Never:
        def __await__(self) -> Any:
            yield

    async def hang() -> None:
        await Never()

    with virtual_time() as clock, pipeline.subscribe(heard.append, events=[TimedOut]):
        coroutine = pipeline.acall(hang)
        coroutine.send(None)
        clock.advance(2)
        coroutine.close()

    assert heard == []
