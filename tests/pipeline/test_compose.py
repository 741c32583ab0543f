"""How policies, and pipelines within pipelines, become one chain."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    Mode,
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
from resilience._pipeline.compose import GatePair, Part, ScopedLoop, fuse
from resilience._util.clock import FOREVER
from resilience.events import RetryScheduled
from resilience.testing import Recorder
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

    def note() -> None:
        wholes.append(call.total_deadline)

    def fail() -> None:
        note()
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


def parts(*policies: Policy[Any], mode: Mode = Mode.ENFORCE) -> list[Part]:
    return [Part(policy, mode, looped=False) for policy in policies]


class TestFusing:
    """Neighbours that one closure drives; the result is innermost first."""

    def test_two_gates_are_a_pair_and_a_third_is_alone(self) -> None:
        one, two, three = Bulkhead(1), CircuitBreaker(), Bulkhead(3)

        assert fuse(parts(one)) == parts(one)
        assert fuse(parts(one, two)) == [GatePair(one, two)]
        assert fuse(parts(one, two, three)) == [GatePair(two, three), *parts(one)]

    def test_gates_with_something_between_them_are_no_pair(self) -> None:
        one, retry, two = Bulkhead(1), Retry(), Bulkhead(2)

        assert fuse(parts(one, retry, two)) == parts(two, retry, one)

    def test_what_only_watches_is_driven_alone(self) -> None:
        one, two = Bulkhead(1), Bulkhead(2)
        timeout, retry = Timeout(1), Retry()

        for outer, inner in ((one, two), (timeout, retry)):
            shadow = [*parts(outer), *parts(inner, mode=Mode.SHADOW)]
            assert fuse(shadow) == shadow[::-1]

    def test_a_timeout_right_around_a_retry_is_driven_with_it(self) -> None:
        timeout, retry = Timeout(1), Retry()

        assert fuse(parts(timeout, retry)) == [ScopedLoop(timeout, retry, looped=False)]
        assert fuse(parts(retry, timeout)) == parts(timeout, retry)

    @pytest.mark.parametrize("timeout", [Timeout(1, share=0.5), Timeout(1, thread=True)])
    def test_one_whose_time_varies_or_that_has_a_thread_is_not(self, timeout: Timeout) -> None:
        retry = Retry()

        assert fuse(parts(timeout, retry)) == parts(retry, timeout)


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
