"""How policies, and pipelines within pipelines, become one chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Allowlist,
    CircuitBreaker,
    Pipeline,
    Policy,
    Retry,
    RetryBudget,
    Timeout,
    backoff,
)
from resilience._call.caller import options_of
from resilience._call.entry import execute
from resilience._call.running_call import RunningCall
from resilience._outcome.allowlist import is_bad
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._util.clock import FOREVER
from resilience.events import RetryScheduled, TimedOut
from resilience.testing import Recorder, virtual_time
from tests.support.functions import Flaky, down
from tests.support.policies import retrying

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def test_a_pipeline_in_a_pipeline() -> None:
    inner = retrying(name="inner one")
    outer = Pipeline(inner, name="outer one")
    flaky = Flaky()
    with Recorder(inner) as inside, Recorder(outer) as outside:
        outer.call(flaky)
    assert flaky.calls == 2
    assert {event.pipeline for event in inside.events} == {"inner one"}
    assert {event.pipeline for event in outside.events} == {"outer one"}
    assert len(inside.of(RetryScheduled)) == 1
    assert outside.of(RetryScheduled) == []
    assert outer["retry"] is inner["retry"]
    inner.mode = "off"
    with pytest.raises(ConnectionError):
        outer.call(down)


def test_a_policy_of_no_shape() -> None:
    class Shapeless(Policy[Any]):
        pass

    with pytest.raises(TypeError, match="is of no shape"):
        Pipeline(Shapeless())


def test_an_integration_asks_by_the_allowlists_of_the_moment() -> None:
    inner: Pipeline[Any] = Pipeline(Retry(2), name="asked-within")
    outer: Pipeline[Any] = Pipeline(inner, name="asked")
    assert not is_bad(3, outer.engine.result_lists(NETWORK_ERRORS))
    assert is_bad(4, outer.engine.result_lists(Allowlist.of_results(lambda value: bool(value == 4))))

    inner["retry"].update(on=Allowlist.of_results(lambda value: bool(value == 3)))

    assert is_bad(3, outer.engine.result_lists(NETWORK_ERRORS))
    assert not is_bad(4, outer.engine.result_lists(NETWORK_ERRORS))


@pytest.mark.parametrize(
    "pipeline",
    [
        Pipeline(Retry(2, wait=backoff.none()), Pipeline(Timeout(1.0), name="inner-of-a-loop"), name="loop-outside"),
        Pipeline(Pipeline(Retry(2, wait=backoff.none()), name="loop-within"), Timeout(1.0), name="after-a-loop"),
    ],
    ids=["the Timeout in a nested pipeline", "the Retry in a nested pipeline"],
)
def test_a_timeout_within_a_loop_is_that_of_an_attempt_in_whatever_pipeline_it_stands(pipeline: Pipeline[Any]) -> None:
    wholes: list[float] = []

    class Seen(RunningCall):
        """A call whose attempts hold something, which is released before the next one."""

        __slots__ = ("release_attempt",)

    def note(call: RunningCall) -> None:
        wholes.append(call.total_deadline)

    def fail() -> None:
        note(call)
        raise ConnectionError

    call = Seen.make(options_of(pipeline, NETWORK_ERRORS), fail, (), {})
    call.release_attempt = note
    with pytest.raises(ConnectionError):
        execute(pipeline.engine, call)

    assert wholes == [FOREVER, FOREVER, FOREVER], "an attempt's time is not that of the streamed result"


@pytest.mark.filterwarnings("ignore:.*leave one out")
def test_one_success_pays_a_budget_once() -> None:
    budget = RetryBudget(0.2, initial=0)
    inner = Pipeline(Retry(), budget=budget)

    Pipeline(Retry(), Retry(), inner, budget=budget).call(lambda: "fine")

    assert budget.tokens == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("outer", "inner", "seconds"),
    [
        ([], [], None),
        ([CircuitBreaker(slow_after=0.5)], [], 0.5),
        ([CircuitBreaker(slow_after=0.5), Timeout(10.0), Timeout(2.0)], [], 2.0),
        ([Timeout(10.0)], [Timeout(1.0)], 1.0),
        ([CircuitBreaker(slow_after=0.5)], [Timeout(1.0)], 1.0),
        ([Timeout(1.0)], [CircuitBreaker(slow_after=0.5)], 1.0),
    ],
)
def test_the_shortest_timeout_is_the_same_in_a_nested_pipeline(
    outer: list[Policy[Any]], inner: list[Policy[Any]], seconds: float | None
) -> None:
    nested = Pipeline(*outer, Pipeline(*inner)) if inner else Pipeline(*outer)
    assert nested.composer.shortest_timeout() == seconds
    assert Pipeline(*outer, *inner).composer.shortest_timeout() == seconds


@pytest.mark.parametrize(
    ("pipeline", "scopes"),
    [
        (lambda: Pipeline(Timeout(3.0)), ["call"]),
        (lambda: Pipeline(Timeout(3.0), Timeout(2.0)), ["attempt"]),
        (lambda: Pipeline(Timeout(3.0), Pipeline(Timeout(2.0))), ["attempt"]),
        (lambda: Pipeline(Timeout(3.0, mode="off"), Timeout(2.0)), ["call"]),
        (lambda: Pipeline(Retry(1), Timeout(2.0)), ["attempt"]),
        (lambda: Pipeline(Timeout(2.0), Retry(1)), ["call"]),
    ],
)
def test_without_a_retry_the_innermost_of_several_timeouts_bounds_the_attempt(
    pipeline: Callable[[], Pipeline[Any]], scopes: list[str]
) -> None:
    with virtual_time() as clock, Recorder(events=[TimedOut]) as recorder:
        pipeline().call(lambda: clock.advance(2.5 if scopes == ["attempt"] else 9.0))
    assert [str(event.scope) for event in recorder.of(TimedOut)] == scopes
