"""Fallback: what it replaces, and by what."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Allowlist,
    BadResult,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Fallback,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    deadline_after,
)
from resilience.events import CallEnded, FallbackUsed, Outcome
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import AppError, down
from tests.support.ways import each_way


def mistake() -> Any:
    raise AppError


class TestSettings:
    def test_either_a_function_or_a_value_is_given(self) -> None:
        make: Any = Fallback
        with pytest.raises(TypeError, match="exactly one of the two"):
            make()
        with pytest.raises(TypeError, match="exactly one of the two"):
            make(str, value=1)

    def test_none_is_a_value(self) -> None:
        fallback = Fallback(value=None)

        assert Pipeline(fallback).call(down) is None

    def test_a_constant_is_not_a_function(self) -> None:
        make: Any = Fallback
        with pytest.raises(TypeError, match="compute must be a callable that takes the exception, not 3; a constant"):
            make(3)

    def test_the_representation_shows_what_was_given(self) -> None:
        assert repr(Fallback(value=3)) == "Fallback(value=3)"

    def test_it_holds_no_state_and_can_be_copied(self) -> None:
        assert copy.copy(Fallback(value=3)).settings.value == 3

    def test_the_value_can_be_changed(self) -> None:
        fallback = Fallback(value=3)
        fallback.update(value=4)

        assert Pipeline(fallback).call(down) == 4


@each_way
def test_a_failure_is_replaced(make: Callable[..., Any]) -> None:
    assert make(Pipeline(Fallback(value="other")), down) == "other"


@each_way
def test_a_good_result_is_not(make: Callable[..., Any]) -> None:
    assert make(Pipeline(Fallback(value="other")), lambda: "good") == "good"


@each_way
def test_the_function_gets_the_exception(make: Callable[..., Any]) -> None:
    assert make(Pipeline(Fallback(lambda error: f"{error!r}")), down) == "ConnectionError('down')"


@each_way
def test_an_exception_that_is_no_failure_passes(make: Callable[..., Any]) -> None:
    with pytest.raises(AppError):
        make(Pipeline(Fallback(value="other")), mistake)


@each_way
def test_a_bad_result_comes_as_one(make: Callable[..., Any]) -> None:
    seen: list[Exception] = []

    def compute(error: Exception) -> str:
        seen.append(error)
        return "other"

    pipeline = Pipeline(Fallback(compute), failures=Allowlist.of_results(lambda value: value == "bad"))

    assert make(pipeline, lambda: "bad") == "other"
    (error,) = seen
    assert isinstance(error, BadResult)
    assert error.result == "bad"


@each_way
def test_a_rejection_is_replaced(make: Callable[..., Any]) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()

    assert make(Pipeline(Fallback(value="other"), breaker), lambda: "good") == "other"


@each_way
def test_a_deadline_that_has_passed_before_the_call_is_replaced(make: Callable[..., Any]) -> None:
    with deadline_after(0):
        assert make(Pipeline(Fallback(value="other"), Timeout(1)), lambda: "good") == "other"


def test_a_deadline_that_passes_is_replaced_and_computing_has_what_is_left(virtual_clock: VirtualClock) -> None:
    async def hang() -> str:
        await asyncio.sleep(60)
        return "never"

    async def other(error: Exception) -> str:
        assert isinstance(error, DeadlineExceededError)
        await asyncio.sleep(0.5)
        return "other"

    async def main() -> str:
        return await Pipeline(Timeout(2), Fallback(other), Timeout(1)).acall(hang)

    assert asyncio.run(main()) == "other"
    assert virtual_clock.elapsed == pytest.approx(1.5)


@each_way
def test_what_the_function_raises_is_raised(make: Callable[..., Any]) -> None:
    def compute(error: Exception) -> str:
        raise AppError from error

    with pytest.raises(AppError) as caught:
        make(Pipeline(Fallback(compute)), down)
    assert isinstance(caught.value.__cause__, ConnectionError)


class TestOn:
    @each_way
    def test_it_replaces_what_it_lists_and_nothing_else(self, make: Callable[..., Any]) -> None:
        assert make(Pipeline(Fallback(value="other", on=AppError)), mistake) == "other"
        with pytest.raises(ConnectionError):
            make(Pipeline(Fallback(value="other", on=AppError)), down)

    @each_way
    def test_it_may_list_rejections(self, make: Callable[..., Any]) -> None:
        breaker = CircuitBreaker()
        breaker.isolate()
        full = Bulkhead(1)
        fallback = Fallback(value="other", on=CircuitOpenError)

        assert make(Pipeline(fallback, breaker), lambda: "good") == "other"
        with full, pytest.raises(BulkheadFullError):
            make(Pipeline(fallback, full), lambda: "good")

    @each_way
    def test_a_base_class_lists_rejections_and_so_does_a_predicate(self, make: Callable[..., Any]) -> None:
        breaker = CircuitBreaker()
        breaker.isolate()
        by_type = Fallback(value="other", on=Exception)
        asked = Fallback(value="other", on=lambda error: isinstance(error, CircuitOpenError))
        declined = Fallback(value="other", on=lambda error: False)

        assert make(Pipeline(by_type, breaker), lambda: "good") == "other"
        assert make(Pipeline(asked, breaker), lambda: "good") == "other"
        with pytest.raises(CircuitOpenError):
            make(Pipeline(declined, breaker), lambda: "good")


class TestEvents:
    @each_way
    def test_the_call_ends_as_replaced(self, make: Callable[..., Any]) -> None:
        pipeline = Pipeline(Fallback(value="other"), Retry(2, wait=backoff.none()), name="quotes")

        with Recorder(pipeline) as recorder:
            make(pipeline, down)

        (used,) = recorder.of(FallbackUsed)
        assert (used.policy, used.age, str(used.mode)) == ("fallback", None, "enforce")
        assert recorder.of(CallEnded)[0].outcome is Outcome.FALLBACK

    @each_way
    def test_in_shadow_mode_it_is_reported_only(self, make: Callable[..., Any]) -> None:
        pipeline = Pipeline(Fallback(value="other", mode="shadow"))

        with Recorder(pipeline) as recorder, pytest.raises(ConnectionError):
            make(pipeline, down)

        assert [str(used.mode) for used in recorder.of(FallbackUsed)] == ["shadow"]


def test_the_policies_outside_see_no_failure_and_those_inside_do() -> None:
    inside, outside = CircuitBreaker(), CircuitBreaker()

    Pipeline(outside, Fallback(value=1), inside).call(down)

    assert inside.snapshot()["failures"] == 1
    assert outside.snapshot()["failures"] == 0
