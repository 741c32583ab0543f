"""Which gates wait for what a call has left running, such as a stream or a thread, and how they are settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import Call, DeferredSettlement, Ending, EndingKind, Gate, Pipeline, Retry, Ticket, backoff
from resilience._call.running_call import RunningCall
from resilience._outcome.ending import OK
from resilience._util.finalizers import run_pending
from tests.support.functions import down
from tests.support.policies import Holding, Stale, Streaming
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

NOW = backoff.none()
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines named")


class Heads(Turnstile):
    """Hears of the head of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 0

    def on_response_head(self, token: Ticket | None) -> Ticket | None:
        self.heads += 1
        return token


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


@each_way
def test_a_substitute_does_not_let_go_of_what_still_runs(make: Make) -> None:
    holding, scoring, streaming = Holding(), Turnstile(), Streaming(known=True)
    pipeline = Pipeline(holding, scoring, Stale(), streaming)

    assert make(pipeline, down) == "stale"

    assert (holding.endings, scoring.endings) == ([], ["ok"])
    streaming.left[0].end(OK)
    assert holding.endings == ["ok"]


class Body:
    """A streamed result: it settles when it is read out, closed or dropped."""

    def __init__(self, deferred: DeferredSettlement) -> None:
        self.deferred = deferred


def streaming_pipeline(*gates: Turnstile) -> tuple[Pipeline[Any], Callable[[], Body]]:
    pipeline: Pipeline[Any] = Pipeline(*gates)
    _, binding = pipeline.entry()

    def open_body() -> Body:
        call = RunningCall.make(binding, lambda: None, (), {})

        def function() -> Body:
            call.deferred = DeferredSettlement()
            return Body(call.deferred)

        call.function = function
        pipeline.in_flight.calls.add(call)
        try:
            body: Body = pipeline.engine.chain(call)
            return body
        finally:
            pipeline.in_flight.leave(call)
            call.function = int

    return pipeline, open_body


@pytest.mark.parametrize("kind", [EndingKind.OK, EndingKind.FAILED, EndingKind.ABANDONED])
def test_a_stream_keeps_its_permits_until_it_ends(kind: EndingKind) -> None:
    outer, inner = Turnstile(3), Turnstile(3)
    pipeline, open_body = streaming_pipeline(outer, inner)
    body = open_body()
    assert (outer.in_flight, inner.in_flight, pipeline.snapshot()["in_flight"]) == (1, 1, 1)
    body.deferred.end(Ending(kind))
    body.deferred.end(OK)

    assert (outer.in_flight, inner.in_flight, pipeline.snapshot()["in_flight"]) == (0, 0, 0)
    assert outer.endings == inner.endings == [kind]
    late: list[str] = []
    body.deferred.add(lambda ending: late.append(ending.kind))
    assert late == [kind]


def test_a_dropped_stream_is_settled_by_the_next_call() -> None:
    gate = Turnstile(3)
    pipeline, open_body = streaming_pipeline(gate)
    body = open_body()
    del body
    assert pipeline.call(int) == 0
    run_pending()

    assert gate.endings[0] == "abandoned"
    assert gate.leaked() is None


class Explodes(Gate[None]):
    def admit(self, call: Call) -> None: ...

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        raise SystemExit


def test_one_settle_that_raises_a_base_exception_does_not_keep_the_others() -> None:
    outer, streaming = Turnstile(), Streaming()
    pipeline = Pipeline(outer, Explodes(), streaming)
    pipeline.call(lambda: "head")
    assert outer.in_flight == 1

    with pytest.raises(SystemExit):
        streaming.left[0].end(OK)

    assert outer.in_flight == 0
    assert pipeline.snapshot()["in_flight"] == 0


def test_a_hook_for_the_head_of_a_response_that_raises_is_logged_and_the_permit_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Turnstile):
        def on_response_head(self, token: Ticket | None) -> Ticket | None:
            raise KeyError("a bug in a hook")

    outer, inner = Turnstile(), Broken()
    _, open_body = streaming_pipeline(outer, inner)

    body = open_body()
    assert (outer.in_flight, inner.in_flight) == (1, 1)
    body.deferred.end(OK)

    assert (outer.in_flight, inner.in_flight) == (0, 0)
    assert "on_response_head of a policy" in caplog.text
