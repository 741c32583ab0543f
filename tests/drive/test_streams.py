"""What a call leaves running: streams and threads, and which gates wait for them. Plain and awaited alike."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from resilience import (
    Allowlist,
    Call,
    DeferredSettlement,
    Ending,
    EndingKind,
    FailureKind,
    Gate,
    Loop,
    Pipeline,
    Retry,
    RetryState,
    Substitute,
    Ticket,
    Timeout,
    backoff,
    pipelines,
    subscribe,
)
from resilience._outcome.ending import OK
from resilience._util import finalizers
from resilience._util.finalizers import pending
from resilience.events import CallEnded, FallbackUsed
from resilience.testing import Recorder, virtual_time
from tests.support.turnstile import Turnstile

NOW = backoff.none()
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines named")
Make: TypeAlias = "Callable[[Pipeline[Any], Callable[..., Any]], Any]"


def plainly(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    return pipeline.call(function)


def awaited(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    return asyncio.run(pipeline.acall(function))


def decorated(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    def plain() -> Any:
        return function()

    guarded: Any = pipeline(plain)
    return guarded()


def decorated_async(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    async def coroutine() -> Any:
        return function()

    guarded: Any = pipeline(coroutine)
    return asyncio.run(guarded())


each_way = pytest.mark.parametrize("make", [plainly, awaited, decorated, decorated_async])


class Streaming(Gate[None]):
    """Innermost: what is called leaves something running, whether it returns or raises."""

    def __init__(self, *, known: bool = False, every: bool = True) -> None:
        super().__init__()
        self.known = known
        self.every = every
        self.left: list[DeferredSettlement] = []

    def admit(self, call: Call) -> None:
        if self.every or not self.left:
            call.deferred = DeferredSettlement(known=self.known)
            self.left.append(call.deferred)


class Holding(Turnstile):
    """Its permits are in use as long as something goes on."""

    holds_permit = True


class Heads(Turnstile):
    """Hears of the head of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 0

    def on_response_head(self, token: Ticket | None) -> Ticket | None:
        self.heads += 1
        return token


def down() -> str:
    raise ConnectionError("down")


@each_way
def test_all_gates_wait_for_the_end_of_a_stream(make: Make) -> None:
    holding, scoring, streaming = Holding(), Heads(), Streaming()
    pipeline = Pipeline(holding, scoring, streaming)

    assert make(pipeline, lambda: "head") == "head"

    assert (holding.in_flight, scoring.in_flight, scoring.heads) == (1, 1, 1)
    assert pipeline.snapshot()["in_flight"] == 1
    streaming.left[0].end(Ending(EndingKind.FAILED))
    assert holding.endings == scoring.endings == ["failed"]
    assert pipeline.snapshot()["in_flight"] == 0


@each_way
def test_only_what_holds_something_waits_where_the_outcome_is_known(make: Make) -> None:
    holding, scoring, streaming = Holding(), Turnstile(), Streaming(known=True)
    pipeline = Pipeline(holding, scoring, streaming)

    assert make(pipeline, lambda: "fine") == "fine"

    assert (holding.endings, scoring.endings) == ([], ["ok"])
    streaming.left[0].end(OK)
    assert holding.endings == ["ok"]


@each_way
@pytest.mark.parametrize("known", [False, True])
def test_an_exception_is_known_at_once(make: Make, known: bool) -> None:
    holding, scoring, streaming = Holding(), Turnstile(), Streaming(known=known)
    pipeline = Pipeline(holding, scoring, streaming)

    with pytest.raises(ConnectionError):
        make(pipeline, down)

    assert (holding.endings, scoring.endings) == ([], ["failed"])
    streaming.left[0].end(OK)
    assert holding.endings == ["ok"]
    assert pipeline.snapshot()["in_flight"] == 0


@each_way
def test_a_shadow_gate_waits_as_well(make: Make) -> None:
    gate, streaming = Holding(), Streaming()
    gate.mode = "shadow"
    pipeline = Pipeline(gate, streaming)

    make(pipeline, lambda: "head")
    assert gate.in_flight == 1
    streaming.left[0].end(OK)
    with pytest.raises(ConnectionError):
        make(pipeline, down)
    assert gate.in_flight == 1
    streaming.left[1].end(OK)

    assert gate.in_flight == 0


@each_way
def test_a_shadow_gate_hears_nothing_of_a_stream_that_it_would_have_kept_out(make: Make) -> None:
    gate, streaming = Heads(), Streaming()
    gate.mode = "shadow"
    pipeline = Pipeline(gate, streaming)

    make(pipeline, lambda: "let in")
    make(pipeline, lambda: "kept out")
    assert gate.heads == 1
    streaming.left[1].end(OK)
    assert (gate.endings, gate.in_flight) == ([], 1)
    streaming.left[0].end(OK)

    assert (gate.endings, gate.in_flight) == (["ok"], 0)


@each_way
def test_what_an_earlier_attempt_left_running_holds_what_is_outside_the_retry(make: Make) -> None:
    outer, inner = Holding(), Holding(limit=2)
    streaming = Streaming(known=True, every=False)
    pipeline = Pipeline(outer, Retry(2, wait=NOW), inner, streaming)
    attempts: list[int] = []

    def second_time_fine() -> str:
        attempts.append(1)
        return down() if len(attempts) == 1 else "fine"

    assert make(pipeline, second_time_fine) == "fine"

    assert (outer.in_flight, inner.in_flight) == (1, 1)
    streaming.left[0].end(OK)
    assert (outer.in_flight, inner.in_flight) == (0, 0)


@each_way
def test_two_attempts_that_are_left_running_are_both_waited_for(make: Make) -> None:
    outer, streaming = Holding(), Streaming(known=True)
    pipeline = Pipeline(outer, Retry(2, wait=NOW), streaming)

    with pytest.raises(ConnectionError):
        make(pipeline, down)

    assert len(streaming.left) == 2
    streaming.left[1].end(OK)
    assert outer.in_flight == 1
    streaming.left[0].end(OK)
    assert outer.in_flight == 0


class Stale(Substitute[str]):
    def replace(self, call: Call, ending: Ending) -> str:
        return "stale"


@each_way
def test_a_substitute_does_not_let_go_of_what_still_runs(make: Make) -> None:
    holding, scoring, streaming = Holding(), Turnstile(), Streaming(known=True)
    pipeline = Pipeline(holding, scoring, Stale(), streaming)

    assert make(pipeline, down) == "stale"

    assert (holding.endings, scoring.endings) == ([], ["ok"])
    streaming.left[0].end(OK)
    assert holding.endings == ["ok"]


@each_way
def test_what_was_lost_is_swept_by_the_next_call(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finalizers, "run_in_thread", lambda function: None)  # no thread to be had
    gate, streaming = Turnstile(), Streaming()
    pipeline = Pipeline(gate, streaming)
    make(pipeline, lambda: "head")
    with gate.line.lock:  # somebody is in a locked region, so a finaliser only leaves a note
        streaming.left.clear()
        gc.collect()
        assert pending
        assert gate.in_flight == 1

    assert make(Pipeline(Turnstile()), lambda: "fine") == "fine"

    assert not pending
    assert gate.endings == ["abandoned"]


def test_what_was_lost_in_a_locked_region_is_settled_without_another_call() -> None:
    settled = threading.Event()

    class Telling(Turnstile):
        def settle(self, token: Ticket | None, ending: Ending) -> None:
            super().settle(token, ending)
            settled.set()

    gate, streaming = Telling(), Streaming()
    Pipeline(gate, streaming).call(lambda: "head")
    with gate.line.lock:
        streaming.left.clear()
        gc.collect()

    assert settled.wait(60)
    assert gate.endings == ["abandoned"]


def test_no_listener_is_called_by_a_finaliser() -> None:
    streaming = Streaming()
    gate = Turnstile()
    dropping: Pipeline[Any] = Pipeline(gate, streaming, name="dropped-within-a-listener")
    lock = threading.Lock()
    heard: list[tuple[str, str]] = []
    within: list[str] = []

    def listen(event: CallEnded) -> None:
        if not lock.acquire(blocking=False):
            within.append(event.pipeline)
            return
        try:
            heard.append((event.pipeline, event.outcome))
            streaming.left.clear()
            gc.collect()  # at any allocation, let us say
        finally:
            lock.release()

    with subscribe(listen, events=[CallEnded]):
        dropping.call(lambda: "head")
        Pipeline[Any](name="unsuspecting").call(int)

        assert within == []
        assert gate.endings == ["abandoned"], "the permit comes back at once all the same"
        assert heard == [("unsuspecting", "ok")]

        Pipeline[Any](name="the-next").call(int)
        assert heard[1:] == [("dropped-within-a-listener", "abandoned"), ("the-next", "ok")]


def test_what_is_dropped_outside_of_locked_regions_is_settled_at_once() -> None:
    gate, streaming = Turnstile(), Streaming()
    Pipeline(gate, streaming).call(lambda: "head")

    streaming.left.clear()
    gc.collect()

    assert gate.endings == ["abandoned"]


class BrokenSettle(Gate[None]):
    def admit(self, call: Call) -> None: ...

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        raise KeyError("a bug in a hook")


class BrokenReward(Loop):
    def delay(self, call: Call, ending: Ending, series: RetryState) -> None: ...

    def on_success(self, site: Any) -> Callable[[], object]:
        return functools.partial(int, "a bug in a hook")


@each_way
@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_broken_hooks_take_no_success_away(make: Make, mode: str) -> None:
    assert make(Pipeline(BrokenSettle(mode=mode), BrokenReward(mode=mode)), lambda: "fine") == "fine"


@each_way
def test_a_shadow_substitute_reports_what_it_covers_only(make: Make) -> None:
    pipeline = Pipeline(Stale(mode="shadow"))

    with Recorder(pipeline, events=[FallbackUsed]) as recorder:
        with pytest.raises(ConnectionError):
            make(pipeline, down)
        with pytest.raises(ValueError, match="nobody listed"):
            make(pipeline, lambda: int("nobody listed"))

    assert len(recorder.events) == 1


@each_way
def test_a_retry_in_shadow_pays_for_successes(make: Make) -> None:
    pipeline = Pipeline(Retry(mode="shadow"))
    assert pipeline.budget is not None
    while pipeline.budget.withdraw():
        pass

    make(pipeline, lambda: "fine")

    assert pipeline.budget.tokens == pytest.approx(0.2)


def test_a_mapping_of_waits_is_described() -> None:
    described = Retry(wait={FailureKind.TIMEOUT: NOW}).describe()

    assert described["settings"]["wait"] == {"timeout": "fixed(0)"}


def test_the_mapping_of_pipelines_shows_names() -> None:
    keep = Pipeline(Retry(), name="shown-in-the-mapping")

    assert "shown-in-the-mapping" in repr(pipelines())
    assert keep is pipelines()["shown-in-the-mapping"]


def test_a_policy_is_found_in_a_pipeline_further_in() -> None:
    retry, other = Retry(name="deep"), Retry()
    pipeline = Pipeline(Pipeline(Timeout(1)), Pipeline(retry, other))

    assert pipeline["deep"] is retry
    with pytest.raises(KeyError, match="pipeline, pipeline_2"):
        pipeline["nowhere"]


def test_late_and_bad_results_of_awaited_calls_are_values() -> None:
    bad = Allowlist.of_results(lambda value: value == "bad")

    with virtual_time():
        assert awaited(Pipeline(Retry(2, wait=NOW), Timeout(1), failures=bad), lambda: "bad") == "bad"
