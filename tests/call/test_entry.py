"""The entry into a pipeline: calls are counted in and out, and go through the chain that is in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import Allowlist, Pipeline, RejectedError, Retry, backoff, subscribe
from resilience._call.call import CallOptions
from resilience._call.entry import Entry, aexecute, execute, guard, guard_async
from resilience._call.running_call import RunningCall
from resilience._pipeline.in_flight import Drain
from resilience._util.finalizers import run_later
from resilience.errors import CarriedResult
from resilience.events import CallEnded
from tests.support.functions import raising
from tests.support.policies import Closed
from tests.support.ways import Make, each_way

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@each_way
@pytest.mark.parametrize("error", [None, ConnectionError, KeyboardInterrupt, GeneratorExit])
def test_a_call_is_counted_while_it_runs_however_it_ends(make: Make, error: type[BaseException] | None) -> None:
    pipeline: Pipeline[Any] = Pipeline()
    counted: list[int] = []

    def work() -> str:
        counted.append(len(pipeline.in_flight))
        if error is not None:
            raise error
        return "fine"

    if error is None:
        assert make(pipeline, work) == "fine"
    else:
        with pytest.raises(error):
            make(pipeline, work)

    assert counted == [1]
    assert len(pipeline.in_flight) == 0


@each_way
def test_a_call_that_a_policy_rejects_is_counted_out(make: Make) -> None:
    pipeline = Pipeline(Closed())

    with pytest.raises(RejectedError):
        make(pipeline, int)

    assert len(pipeline.in_flight) == 0


@each_way
def test_a_drain_that_waits_hears_of_the_end_of_the_last_call(make: Make) -> None:
    pipeline: Pipeline[Any] = Pipeline()
    told: list[str] = []

    def work() -> str:
        drain = Drain(pipeline.in_flight)
        assert drain.add_waker(lambda: told.append("the last one has left"))
        assert told == []
        return "fine"

    assert make(pipeline, work) == "fine"

    assert told == ["the last one has left"]


@each_way
def test_a_returned_value_that_is_a_failure_comes_out_as_a_value(make: Make) -> None:
    pipeline = Pipeline(Retry(2, wait=backoff.none()), failures=Allowlist.of_results(lambda value: value == "bad"))

    assert make(pipeline, lambda: "bad") == "bad"


@each_way
def test_what_finalizers_have_left_is_done_first(make: Make) -> None:
    done: list[str] = []
    run_later(lambda: done.append("left over"))

    make(Pipeline(), lambda: done.append("called"))

    assert done == ["left over", "called"]


class Chains:
    """An entry with chains that are told what to do."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self.in_flight = pipeline.in_flight
        self.says = "first"

    def chain(self, call: RunningCall) -> Any:
        if self.says == "carried":
            raise CarriedResult("carried")
        return self.says, call.args, call.kwargs

    async def achain(self, call: RunningCall) -> Any:
        return self.chain(call)


def awaited(coroutine: Any) -> Any:
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def guarded(entry: Any, options: CallOptions) -> Callable[..., Any]:
    return guard(entry, options, print)


def guarded_async(entry: Any, options: CallOptions) -> Callable[..., Any]:
    function = guard_async(entry, options, print)
    return lambda *args, **kwargs: awaited(function(*args, **kwargs))


def executed(entry: Any, options: CallOptions) -> Callable[..., Any]:
    return lambda *args, **kwargs: execute(entry, RunningCall.make(options, print, args, kwargs))


def executed_async(entry: Any, options: CallOptions) -> Callable[..., Any]:
    return lambda *args, **kwargs: awaited(aexecute(entry, RunningCall.make(options, print, args, kwargs)))


each_entrance = pytest.mark.parametrize("enter", [guarded, guarded_async, executed, executed_async])


@each_entrance
def test_a_call_takes_the_chain_that_is_in_force_when_it_is_made(
    enter: Callable[[Any, CallOptions], Callable[..., Any]],
) -> None:
    pipeline: Pipeline[Any] = Pipeline()
    chains = Chains(pipeline)
    call = enter(chains, pipeline.entry()[1])

    assert call(1, key=2) == ("first", (1,), {"key": 2})
    chains.says = "second"
    assert call() == ("second", (), {})
    chains.says = "carried"
    assert call() == "carried"
    assert len(pipeline.in_flight) == 0


def test_the_engine_of_a_pipeline_is_an_entry() -> None:
    pipeline: Pipeline[Any] = Pipeline()
    entry: Entry = pipeline.engine

    assert pipeline.entry()[0] is entry
    assert execute(entry, RunningCall.make(pipeline.entry()[1], int, ("7",), {})) == 7


@each_way
def test_listeners_hear_of_the_end_before_the_call_is_counted_out(make: Make) -> None:
    pipeline: Pipeline[Any] = Pipeline(name="heard")
    counted: list[int] = []

    with subscribe(lambda event: counted.append(len(pipeline.in_flight)), events=[CallEnded]):
        make(pipeline, int)
        with pytest.raises(KeyError):
            make(pipeline, raising(KeyError()))

    assert counted == [1, 1]
