"""StaleCache: the last good result takes the place of a failure, while it is young enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import Allowlist, CircuitBreaker, Pipeline, StaleCache
from resilience.events import FallbackUsed
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import AppError
from tests.support.threads import in_threads
from tests.support.ways import each_way


class Source:
    """Answers with its argument and a counter, or fails while it is down."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    def __call__(self, what: Any = "x") -> str:
        if self.error is not None:
            raise self.error
        self.calls += 1
        return f"{what} {self.calls}"


def test_a_failure_is_replaced_by_the_last_good_result() -> None:
    source, pipeline = Source(), Pipeline(StaleCache())

    assert pipeline.call(source, "a") == "a 1"
    assert pipeline.call(source, "a") == "a 2"
    source.error = ConnectionError()

    assert pipeline.call(source, "a") == "a 2"
    with pytest.raises(ConnectionError):
        pipeline.call(source, "b")


@each_way
def test_in_every_way_to_call(make: Callable[..., Any]) -> None:
    source, pipeline = Source(), Pipeline(StaleCache(key=lambda call: "the only one"))

    assert make(pipeline, source) == "x 1"
    source.error = ConnectionError()
    assert make(pipeline, source) == "x 1"


def test_keyword_arguments_are_part_of_the_key_in_any_order() -> None:
    source: list[Exception] = []
    pipeline = Pipeline(StaleCache())

    def ask(*, a: int, b: int) -> int:
        if source:
            raise source[0]
        return a * 10 + b

    assert pipeline.call(ask, a=1, b=2) == 12
    assert pipeline.call(ask, a=2, b=1) == 21
    source.append(ConnectionError())

    assert pipeline.call(ask, b=2, a=1) == 12
    assert pipeline.call(ask, b=1, a=2) == 21


def test_functions_do_not_share_results() -> None:
    source, other, pipeline = Source(), Source(), Pipeline(StaleCache())
    other.error = ConnectionError()

    pipeline.call(source)

    with pytest.raises(ConnectionError):
        pipeline.call(other)


def test_with_a_key_of_its_own_they_may() -> None:
    source, other, pipeline = Source(), Source(), Pipeline(StaleCache(key=lambda call: call.args))
    other.error = ConnectionError()

    assert pipeline.call(source, "a") == pipeline.call(other, "a") == "a 1"


@pytest.mark.parametrize("key", [None, lambda call: None, lambda call: [], lambda call: 1 / 0])
def test_a_call_without_a_usable_key_is_not_kept(key: Any) -> None:
    source, cache = Source(), StaleCache(key)
    pipeline = Pipeline(cache)

    assert pipeline.call(source, ["unhashable"]) == "['unhashable'] 1"
    source.error = ConnectionError()

    with pytest.raises(ConnectionError):
        pipeline.call(source, ["unhashable"])
    assert cache.snapshot() == {"entries": 0}


def test_an_old_result_is_not_used(virtual_clock: VirtualClock) -> None:
    source, cache = Source(), StaleCache(max_age=60)
    pipeline = Pipeline(cache)
    pipeline.call(source)
    source.error = ConnectionError()

    virtual_clock.advance(60)
    assert pipeline.call(source) == "x 1"
    virtual_clock.advance(0.001)
    with pytest.raises(ConnectionError):
        pipeline.call(source)
    assert cache.snapshot() == {"entries": 0}


def test_the_event_has_the_age(virtual_clock: VirtualClock) -> None:
    source, pipeline = Source(), Pipeline(StaleCache())
    pipeline.call(source)
    source.error = ConnectionError()
    virtual_clock.advance(7)

    with Recorder(pipeline) as recorder:
        pipeline.call(source)

    (used,) = recorder.of(FallbackUsed)
    assert (used.policy, used.age) == ("stale_cache", 7)


def test_a_rejection_is_replaced_and_a_mistake_is_not() -> None:
    source, breaker = Source(), CircuitBreaker()
    pipeline = Pipeline(StaleCache(), breaker)
    pipeline.call(source)
    breaker.isolate()
    assert pipeline.call(source) == "x 1"

    breaker.close()
    source.error = AppError()
    with pytest.raises(AppError):
        pipeline.call(source)


def test_on_says_what_is_replaced() -> None:
    source, pipeline = Source(), Pipeline(StaleCache(on=AppError))
    pipeline.call(source)

    source.error = AppError()
    assert pipeline.call(source) == "x 1"
    source.error = ConnectionError()
    with pytest.raises(ConnectionError):
        pipeline.call(source)


def test_a_bad_result_is_replaced_and_not_kept() -> None:
    answers = ["good", "bad", "bad"]
    pipeline = Pipeline(StaleCache(key=lambda call: 1), failures=Allowlist.of_results(lambda value: value == "bad"))

    assert [pipeline.call(answers.pop, 0) for _ in range(3)] == ["good"] * 3


def test_a_replacement_does_not_make_a_result_younger(virtual_clock: VirtualClock) -> None:
    source, pipeline = Source(), Pipeline(StaleCache(max_age=10))
    pipeline.call(source)
    source.error = ConnectionError()
    virtual_clock.advance(8)
    pipeline.call(source)
    virtual_clock.advance(8)

    with pytest.raises(ConnectionError):
        pipeline.call(source)


def test_the_least_recently_used_result_is_dropped() -> None:
    source, cache = Source(), StaleCache(max_entries=2)
    pipeline = Pipeline(cache)
    pipeline.call(source, "a")
    pipeline.call(source, "b")
    source.error = ConnectionError()
    pipeline.call(source, "a")
    source.error = None
    pipeline.call(source, "c")
    source.error = ConnectionError()

    assert cache.snapshot() == {"entries": 2}
    assert pipeline.call(source, "a") == "a 1"
    with pytest.raises(ConnectionError):
        pipeline.call(source, "b")


def test_it_can_be_made_smaller_and_emptied() -> None:
    source, cache = Source(), StaleCache()
    for number in range(10):
        Pipeline(cache).call(source, number)

    cache.update(max_entries=3)
    assert cache.snapshot() == {"entries": 3}
    cache.reset()
    assert cache.snapshot() == {"entries": 0}


def test_in_shadow_mode_results_are_kept_and_replacements_reported() -> None:
    source, cache = Source(), StaleCache(mode="shadow")
    pipeline = Pipeline(cache)
    pipeline.call(source)
    source.error = ConnectionError()

    with Recorder(pipeline) as recorder, pytest.raises(ConnectionError):
        pipeline.call(source)

    assert [str(used.mode) for used in recorder.of(FallbackUsed)] == ["shadow"]


def test_threads_may_share_it() -> None:
    cache = StaleCache(key=lambda call: call.args[0] % 50, max_entries=20)
    pipeline = Pipeline(cache)

    def work(thread: int) -> None:
        for number in range(500):
            pipeline.call(lambda value: value, number + thread)

    in_threads(8, work)

    assert cache.snapshot() == {"entries": 20}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_age": 0}, "max_age must be a number > 0"),
        ({"max_entries": 0}, "max_entries must be an integer >= 1"),
        ({"key": 3}, "key must be a callable that takes the call"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        StaleCache(**settings)
