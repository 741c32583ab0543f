"""The state of one call: the ending of its last attempt, the wait that a drain ends, and what a copy takes along."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Call,
    DeadlineExceededError,
    DeferredSettlement,
    Ending,
    Gate,
    Pipeline,
    Retry,
    backoff,
    deadline_after,
)
from resilience._call.ambient import ambient_deadline
from resilience._call.running_call import INHERITED, DeadlineSource, RunningCall
from resilience._util.clock import FOREVER
from resilience.events import TimeoutScope
from tests.support.calls import running_call
from tests.support.functions import down
from tests.support.garbage import no_collection
from tests.support.ways import Make, decorated, each_way, plainly

NOW = backoff.none()
# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class Keeping(Gate[None]):
    """Keeps the calls and their endings."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.endings: list[Ending] = []

    def admit(self, call: Call) -> None:
        self.calls.append(call)

    def settle(self, token: None, ending: Ending) -> None:
        self.endings.append(ending)


class TestEnding:
    def test_an_exception_is_judged_once(self) -> None:
        asked: list[Exception] = []

        def when(error: Exception) -> bool:
            asked.append(error)
            return True

        call = running_call(Pipeline(failures=Allowlist(when=when)))
        error = KeyError("listed")

        ending = call.ending_of(error)
        assert call.ending_of(error) is ending
        assert (ending.error, ending.kind, call.ending_of(error).kind) == (error, "failed", "failed")
        assert asked == [error]

    def test_another_exception_has_another_ending(self) -> None:
        call = running_call()
        one, other = ConnectionError("down"), ConnectionError("down")

        ending = call.ending_of(one)

        assert call.ending_of(other) is not ending
        assert call.ending_of(other).error is other

    def test_another_allowlist_judges_anew(self) -> None:
        outer = Pipeline(failures=Allowlist(OSError, answers=(KeyError,)))
        inner = Pipeline(failures=KeyError)
        call = running_call(outer)
        error = KeyError("known to one, a failure for the other")

        without = call.ending_of(error)
        call.pipeline = inner.entry()[1].pipeline
        within = call.ending_of(error)

        assert within is not without
        assert (within.kind, without.kind) == ("failed", "ok")

    def test_the_allowlist_of_the_call_site_counts_where_the_pipeline_has_none(self) -> None:
        http = Allowlist(KeyError)
        error = KeyError("listed by the call site")

        assert running_call(Pipeline(), failures=http).ending_of(error).allowlist is http
        assert running_call(Pipeline(), failures=http).ending_of(error).kind == "failed"
        assert running_call(Pipeline(failures=OSError), failures=http).ending_of(error).kind == "error"

    @each_way
    def test_all_gates_of_one_pipeline_get_the_same_ending(self, make: Make) -> None:
        outer, inner, innermost = Keeping(), Keeping(), Keeping()

        with pytest.raises(ConnectionError):
            make(Pipeline(outer, Retry(2, wait=NOW), inner, innermost), down)

        assert len(inner.endings) == len(innermost.endings) == 2
        assert inner.endings[0] is innermost.endings[0]
        assert inner.endings[1] is innermost.endings[1] is outer.endings[0]
        assert inner.endings[0] is not inner.endings[1]

    @each_way
    def test_the_gates_of_a_nested_pipeline_get_one_of_its_allowlist(self, make: Make) -> None:
        outer, inner = Keeping(), Keeping()
        listed, answered = Allowlist(ConnectionError), Allowlist(KeyError, answers=(ConnectionError,))

        with pytest.raises(ConnectionError):
            make(Pipeline(outer, Pipeline(inner, failures=listed), failures=answered), down)

        assert (inner.endings[0].kind, inner.endings[0].allowlist) == ("failed", listed)
        assert (outer.endings[0].kind, outer.endings[0].allowlist) == ("ok", answered)

    @each_way
    def test_a_call_that_has_ended_keeps_no_ending(self, make: Make) -> None:
        gate = Keeping()

        with pytest.raises(ConnectionError):
            make(Pipeline(gate), down)

        assert gate.endings[0].kind == "failed"
        assert [call.ending for call in gate.calls] == [None]

    @each_way
    def test_a_call_keeps_no_ending_of_an_attempt_that_was_made_up_for(self, make: Make) -> None:
        gate = Keeping()
        attempts: list[int] = []

        def second_time_fine() -> str:
            attempts.append(1)
            return "fine" if len(attempts) == 2 else down()

        assert make(Pipeline(Retry(2, wait=NOW), gate), second_time_fine) == "fine"

        assert [call.ending for call in gate.calls] == [None, None]


class Probe:
    """Something in a frame."""


def finish(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Resume it until it has ended."""
    while True:
        coroutine.send(None)


def driven(pipeline: Pipeline[Any], function: Callable[[], Any]) -> None:
    """Call as an event loop does that keeps nothing: asyncio.run leaves cycles of its own behind."""
    finish(pipeline.acall(function))


def driven_and_decorated(pipeline: Pipeline[Any], function: Callable[[], Any]) -> None:
    """Do the same with a decorated function."""

    async def coroutine() -> Any:
        return function()

    finish(pipeline(coroutine)())


@pytest.mark.parametrize("make", [plainly, decorated, driven, driven_and_decorated])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_call_that_has_ended_keeps_no_frames_alive(make: Make, retries: int) -> None:
    gate = Keeping()
    seen: list[weakref.ref[Probe]] = []

    def fail() -> None:
        probe = Probe()
        seen.append(weakref.ref(probe))
        raise ConnectionError

    with no_collection():
        with suppress(ConnectionError):
            make(Pipeline(Retry(1 + retries, wait=NOW), gate), fail)
        gate.endings.clear()

        assert len(seen) == len(gate.calls) == 1 + retries
        assert [one() for one in seen] == [None] * len(seen), "the call that the gate keeps, keeps an exception"


class TestStopRetrying:
    def test_it_wakes_once_and_there_is_nothing_to_wait_for_any_more(self) -> None:
        call = running_call()
        woken: list[str] = []

        assert call.add_waker(lambda: woken.append("once"))
        call.stop_retrying()
        call.stop_retrying()

        assert woken == ["once"]
        assert call.retries_stopped
        assert not call.add_waker(lambda: woken.append("too late"))
        assert woken == ["once"]

    def test_nobody_has_to_wait(self) -> None:
        call = running_call()

        call.stop_retrying()

        assert call.retries_stopped

    def test_a_wait_that_is_over_already_is_no_error(self) -> None:
        def wake() -> None:
            raise RuntimeError("Event loop is closed")

        call = running_call()
        call.add_waker(wake)

        call.stop_retrying()

        assert call.retries_stopped


class TestDeadline:
    def test_it_is_the_ambient_one_at_first(self) -> None:
        with deadline_after(5):
            at = ambient_deadline()
            call = running_call()

        assert (call.deadline, call.total_deadline, call.ambient.at) == (at, at, FOREVER)
        assert call.deadline_source is call.total_deadline_source is INHERITED
        assert running_call().deadline == FOREVER

    @pytest.mark.parametrize(
        ("error", "caused"),
        [
            (DeadlineExceededError(), True),
            (ExceptionGroup("", [DeadlineExceededError(), ExceptionGroup("", [DeadlineExceededError()])]), True),
            (ExceptionGroup("", [DeadlineExceededError(), KeyError()]), False),
            (TimeoutError(), False),
            (ConnectionError(), False),
        ],
    )
    def test_what_it_has_caused(self, error: Exception, caused: bool) -> None:
        assert running_call().caused_by_deadline(error) is caused

    @pytest.mark.parametrize("scope", TimeoutScope)
    def test_that_of_an_attempt_does_not_bound_the_call(self, scope: TimeoutScope) -> None:
        assert DeadlineSource(scope).bounds_call is (scope is not TimeoutScope.ATTEMPT)


class TestCopy:
    def test_it_goes_on_where_the_call_is(self) -> None:
        call = running_call(Pipeline(name="outer"), max, 1, 2)
        nested = Pipeline[Any](name="nested").entry()[1].pipeline
        source = DeadlineSource(TimeoutScope.ATTEMPT)
        call.pipeline, call.attempt, call.calls_made = nested, 3, 7
        call.deadline, call.deadline_source = 12.0, source
        call.total_deadline, call.total_deadline_source = 34.0, source

        copy = call.copy()

        assert copy is not call
        assert (copy.function, copy.args, copy.kwargs, copy.options) == (max, (1, 2), {}, call.options)
        assert (copy.pipeline, copy.attempt, copy.calls_made) == (nested, 3, 7)
        assert (copy.deadline, copy.deadline_source) == (12.0, source)
        assert (copy.total_deadline, copy.total_deadline_source) == (34.0, source)

    def test_what_belongs_to_the_attempts_so_far_stays_behind(self) -> None:
        call = running_call()
        call.ending_of(ConnectionError())
        call.deferred = DeferredSettlement()
        call.stop_retrying()

        copy = call.copy()

        assert (copy.ending, copy.deferred, copy.retries_stopped) == (None, None, False)

    def test_an_integration_copies_calls_of_its_own_kind(self) -> None:
        class Request(RunningCall):
            __slots__ = ()

        call = running_call()
        call.attempt = 2

        copy = call.copy_state_to(Request.make(call.options, call.function, (), {}))

        assert (type(copy), copy.attempt) == (Request, 2)
