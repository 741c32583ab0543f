"""Attempts that race in threads: the first good answer wins, and what is left behind settles when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any, ClassVar

import pytest

from resilience import (
    HTTP_FAILURES,
    Allowlist,
    Bulkhead,
    Call,
    CircuitBreaker,
    DeadlineExceededError,
    Hedge,
    Pipeline,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
    quantile,
    remaining,
)
from resilience._drivers import contest
from resilience._drivers.sync_race import ThreadContest
from resilience._runtime.threads import ThreadCall
from resilience._util.clock import clock
from resilience.events import CallEnded, HedgeEnded, HedgeResult, HedgeStarted
from resilience.testing import Recorder
from tests.support.functions import AppError
from tests.support.threads import PATIENCE, wait_until

LONG = 60.0


class Held:
    """A dependency whose attempts wait until they are let go; each answers its number, or raises."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = errors
        self.gates = [threading.Event() for _ in range(5)]
        self.started = [threading.Event() for _ in range(5)]
        self.threads: list[int] = []
        self.running = 0

    def __call__(self) -> int:
        number = len(self.threads)
        self.threads.append(threading.get_ident())
        self.running += 1
        self.started[number].set()
        try:
            assert self.gates[number].wait(PATIENCE)
        finally:
            self.running -= 1
        error = self.errors[number] if number < len(self.errors) else None
        if error is not None:
            raise error
        return number + 1

    def let_all_go(self) -> None:
        for gate in self.gates:
            gate.set()
        wait_until(lambda: self.running == 0)


@pytest.fixture
def held() -> Generator[Held]:
    dependency = Held()
    yield dependency
    dependency.let_all_go()


def answers_after(held: Held, number: int, then: Callable[[], Any]) -> Any:
    """Let an attempt go once it has started, while `then` runs."""

    def let_go() -> None:
        assert held.started[number - 1].wait(PATIENCE)
        held.gates[number - 1].set()

    thread = threading.Thread(target=let_go)
    thread.start()
    try:
        return then()
    finally:
        thread.join()


def test_a_further_attempt_wins_and_the_first_one_is_left_behind(held: Held) -> None:
    inner, outer = Bulkhead(5), Bulkhead(5)
    pipeline = Pipeline(outer, Hedge(0), inner)

    with Recorder(pipeline) as recorder:
        assert answers_after(held, 2, lambda: pipeline.bind(idempotent=True).call(held)) == 2

    assert (held.running, inner.in_flight, outer.in_flight) == (1, 1, 1)
    assert recorder.of(HedgeEnded)[0].result is HedgeResult.WON
    assert recorder.of(CallEnded)[0].attempts == 2
    held.let_all_go()
    wait_until(lambda: (inner.in_flight, outer.in_flight) == (0, 0))


def test_the_attempts_run_on_threads_with_the_context_of_the_caller(held: Held) -> None:
    seen: list[float | None] = []

    def look() -> int:
        seen.append(remaining())
        return held()

    assert answers_after(held, 1, lambda: Pipeline(Timeout(900), Hedge(0)).bind(idempotent=True).call(look)) == 1

    assert threading.get_ident() not in held.threads
    assert all(left is not None and left > 800 for left in seen)


@pytest.mark.parametrize("hedge", [Hedge(quantile(0.9)), Hedge(LONG, mode="off")])
def test_a_call_that_cannot_be_hedged_needs_no_thread(hedge: Hedge) -> None:
    pipeline = Pipeline(hedge)

    assert pipeline.bind(idempotent=True).call(threading.get_ident) == threading.get_ident()


def test_a_call_that_is_not_idempotent_needs_no_thread() -> None:
    assert Pipeline(Hedge(0)).call(threading.get_ident) == threading.get_ident()


def test_a_failure_starts_the_next_attempt_at_once() -> None:
    held = Held(ConnectionError("down"))
    pipeline = Pipeline(Hedge(LONG))
    for gate in held.gates:
        gate.set()

    with Recorder(pipeline) as recorder:
        assert pipeline.bind(idempotent=True).call(held) == 2

    assert len(recorder.of(HedgeStarted)) == 1


def test_all_failed_gives_the_first_failure() -> None:
    held = Held(ConnectionError("first"), ConnectionError("second"))
    for gate in held.gates:
        gate.set()

    with pytest.raises(ConnectionError, match="first"):
        Pipeline(Hedge(LONG)).bind(idempotent=True).call(held)


def test_an_error_of_the_caller_is_raised_at_once() -> None:
    held = Held(AppError("mistake"))

    with pytest.raises(AppError):
        answers_after(held, 1, lambda: Pipeline(Hedge(0)).bind(idempotent=True).call(held))

    held.let_all_go()


def test_retries_around_it_repeat_the_race() -> None:
    down = ConnectionError("down")
    held = Held(down, down, down)
    for gate in held.gates:
        gate.set()
    pipeline = Pipeline(Retry(2, wait=backoff.none()), Hedge(LONG))

    assert pipeline.bind(idempotent=True).call(held) == 4


def test_a_success_pays_into_the_budget_once() -> None:
    budget = RetryBudget(ratio=0.5, capacity=9, initial=1)

    Pipeline(Retry(2), Hedge(LONG), budget=budget).bind(idempotent=True).call(int)

    assert budget.tokens == 1.5


def test_no_attempt_is_started_while_the_breaker_inside_is_not_closed(held: Held) -> None:
    breaker = CircuitBreaker(open_for=1e-9)
    pipeline = Pipeline(Hedge(LONG), breaker)
    breaker.isolate()

    with Recorder(pipeline) as recorder, pytest.raises(Exception, match="isolated"):
        pipeline.bind(idempotent=True).call(held)

    assert recorder.of(HedgeStarted) == []


def test_the_outcome_of_an_attempt_that_was_cut_is_that_of_the_call(held: Held) -> None:
    pipeline = Pipeline(Hedge(0), Timeout(0.25, thread=True))

    with pytest.raises(DeadlineExceededError):
        pipeline.bind(idempotent=True).call(held)


def test_an_interrupt_leaves_all_behind_and_their_permits_come_back(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, outer = Bulkhead(5), Bulkhead(5)
    pipeline = Pipeline(outer, Hedge(0), inner)

    def interrupted(*_: object) -> None:
        assert held.started[1].wait(PATIENCE)
        raise KeyboardInterrupt

    monkeypatch.setattr("resilience._runtime.threads.park", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.bind(idempotent=True).call(held)

    assert (inner.in_flight, outer.in_flight) == (2, 1)
    held.let_all_go()
    wait_until(lambda: (inner.in_flight, outer.in_flight) == (0, 0))


def test_where_no_thread_can_be_started_the_first_attempt_fails_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadCall, "start", refuse)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        Pipeline(Hedge(0)).bind(idempotent=True).call(int)


def test_where_no_further_thread_can_be_started_the_first_attempt_is_the_outcome(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ThreadCall.start
    calls: list[int] = []

    def start_once(thread: ThreadCall) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(ThreadCall, "start", start_once)
    held.gates[0].set()
    budget = RetryBudget(capacity=3, initial=2, ratio=1.0)

    assert Pipeline(Hedge(0), budget=budget).bind(idempotent=True).call(held) == 1
    assert budget.tokens == 3


def test_a_response_that_comes_too_late_is_closed(held: Held) -> None:
    class Response:
        status_code = 200
        closed = False

        def close(self) -> None:
            self.closed = True

    responses = {1: Response(), 2: Response()}

    def fetch() -> Response:
        return responses[held()]

    assert answers_after(held, 2, lambda: Pipeline(Hedge(0)).bind(idempotent=True).call(fetch)) is responses[2]

    held.let_all_go()
    wait_until(lambda: responses[1].closed)
    assert not responses[2].closed


def test_bad_results_race_too() -> None:
    answers = ["bad", "good"]
    pipeline = Pipeline(Hedge(LONG), failures=Allowlist.of_results(lambda value: value == "bad"))

    assert pipeline.bind(idempotent=True).call(lambda: answers.pop(0)) == "good"


def test_in_shadow_mode_one_attempt_is_made_in_the_thread_of_the_caller() -> None:
    pipeline = Pipeline(Hedge(0, mode="shadow"))

    with Recorder(pipeline) as recorder:
        assert pipeline.bind(idempotent=True).call(threading.get_ident) == threading.get_ident()

    assert [str(one.mode) for one in recorder.of(HedgeStarted)] == ["shadow"]


def test_a_policy_that_cannot_begin_is_as_if_it_were_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Hedge):
        def begin(self, call: Call, now: float, permitted: Callable[[], bool]) -> Any:
            raise ZeroDivisionError

    assert Pipeline(Broken(0)).bind(idempotent=True).call(lambda: "fine") == "fine"
    assert contest.begin(Broken(0), None, ())[0] is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("hint", "calls"), [(0.05, 2), (61.0, 1)])
def test_a_hint_of_the_server_is_waited_for_though_nothing_runs(hint: float, calls: int) -> None:
    class Busy:
        status_code = 503
        headers: ClassVar = {"Retry-After": str(hint)}

    answers: list[Any] = []

    def busy_once() -> Any:
        answers.append("good" if answers else Busy())
        return answers[-1]

    pipeline = Pipeline(Hedge(30.0), failures=HTTP_FAILURES)
    started = clock.monotonic()

    assert pipeline.bind(idempotent=True).call(busy_once) is answers[-1]

    assert len(answers) == calls
    assert clock.monotonic() - started >= (hint if calls == 2 else 0)


def test_an_interrupt_before_the_first_attempt_stays_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadContest, "start_next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(Hedge(0.0)).bind(idempotent=True).call(int)
