"""Pipelines whose parts are right, each by itself, and wrong together: a warning at the user's line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    Pipeline,
    RejectedError,
    ResilienceWarning,
    Retry,
    Timeout,
)

WRONG: list[tuple[Callable[[], Pipeline[Any]], str]] = [
    (
        lambda: Pipeline(Timeout(1), Retry(), Timeout(1)),
        "timeout_2 (1 s) is inside timeout (1 s), which always ends first; give the inner one less time",
    ),
    (
        lambda: Pipeline(Timeout(1), Pipeline(Retry(), Timeout(3, name="attempt"))),
        "attempt (3 s) is inside timeout (1 s), which always ends first; give the inner one less time",
    ),
    (
        lambda: Pipeline(Timeout(1, first=1)),
        "timeout has first=1 s, but ends after 1 s; set first to less than that",
    ),
    (
        lambda: Pipeline(CircuitBreaker(), Retry()),
        "breaker is outside retry: it sees only the outcome after all retries, and does not stop them while it is "
        "open; put it inside",
    ),
    (
        lambda: Pipeline(CircuitBreaker(slow_after=2), Timeout(1)),
        "breaker counts a call as slow from slow_after=2 s on, but timeout ends it after 1 s; set slow_after to less "
        "than that",
    ),
    (
        lambda: Pipeline(Timeout(2), CircuitBreaker(slow_after=2)),
        "breaker counts a call as slow from slow_after=2 s on, but timeout ends it after 2 s; set slow_after to less "
        "than that",
    ),
    (
        lambda: (lambda bulkhead: Pipeline(bulkhead, Retry(), bulkhead))(Bulkhead(1)),
        "bulkhead is contained twice (as bulkhead_2, too): each call passes it twice, so that calls can wait for each "
        "other's permits for ever; leave one out",
    ),
    (
        lambda: (lambda timeout: Pipeline(timeout, Pipeline(timeout)))(Timeout(None, share=0.5, name="half")),
        "half is contained twice (as half, too): each call passes it twice; leave one out",
    ),
    (
        lambda: Pipeline(Retry(), Bulkhead(1), Retry()),
        "retry_2 is inside retry, which does not repeat what an inner Retry has given up on; leave one out, or set "
        "nested=True on the outer one, so that the attempts multiply",
    ),
    (
        lambda: Pipeline(Retry(on=(ConnectionError, CircuitOpenError))),
        "retry lists CircuitOpenError, which has no effect: a rejection is no failure, since the dependency was not "
        "called; leave it out",
    ),
    (
        lambda: Pipeline(CircuitBreaker(on=RejectedError)),
        "breaker lists RejectedError, which has no effect: a rejection is no failure, since the dependency was not "
        "called; leave it out",
    ),
    (
        lambda: Pipeline(CircuitBreaker(min_calls=20, window_calls=10)),
        "breaker needs min_calls=20 calls to open by a rate, but its window holds only window_calls=10; set min_calls "
        "to that or less",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), WRONG)
def test_a_contradiction_warns_where_the_pipeline_is_built(make: Callable[[], Pipeline[Any]], sentence: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()

    assert [(one.category, str(one.message), one.filename) for one in caught] == [
        (ResilienceWarning, sentence, __file__)
    ]


def test_the_warning_names_the_pipeline() -> None:
    with pytest.warns(ResilienceWarning, match="in pipeline 'contradictory': breaker is outside retry"):
        Pipeline(CircuitBreaker(), Retry(), name="contradictory")


def test_what_fits_together_is_quiet() -> None:
    Pipeline(
        Timeout(2),
        Retry(),
        Bulkhead(5),
        CircuitBreaker(slow_after=0.4, window_calls=20),
        Timeout(0.5),
        Timeout(None, share=0.5),
    )
