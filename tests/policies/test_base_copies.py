"""Policies with state are shared, not copied: a copy would have a state of its own, or half of one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from resilience import Bulkhead, CircuitBreaker, Pipeline, Policy, Race, RateLimit, Retry, RetryBudget, Timeout, backoff
from tests.support.functions import down
from tests.support.policies import Closed, Holding, Instead, Noting, Stale, Streaming
from tests.support.turnstile import Turnstile


class Own(Retry):
    """A policy of the user's."""


POLICIES: list[Policy[Any]] = [
    Bulkhead(1),
    RateLimit(1),
    RateLimit.all_of(RateLimit(1)),
    CircuitBreaker(),
    Timeout(1, thread=True),
    Pipeline(Retry(), CircuitBreaker()),
    Pipeline[Any](name="copied"),
    Pipeline(Pipeline(Retry())),
    Own(),
    Race(),
    Closed(),
    Holding(),
    Instead(1),
    Noting(),
    Stale(),
    Streaming(),
    Turnstile(),
]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)

COPIES: list[Callable[[Any], object]] = [copy.copy, copy.deepcopy, pickle.dumps]
each_copy = pytest.mark.parametrize("make", COPIES, ids=["copy", "deepcopy", "pickle"])


@each_policy
@each_copy
def test_a_copy_is_refused_and_the_advice_is_to_share(policy: Policy[Any], make: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError) as caught:
        make(policy)

    assert type(policy).__name__ in str(caught.value)
    assert "share" in str(caught.value)


@each_policy
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_refuses_it(policy: Policy[Any], protocol: int) -> None:
    with pytest.raises(TypeError, match=type(policy).__name__):
        pickle.dumps(policy, protocol)


@each_copy
def test_so_is_a_copy_of_what_holds_one(make: Callable[[Any], object]) -> None:
    if make is copy.copy:  # which copies the list only
        assert copy.copy([POLICIES[0]])[0] is POLICIES[0]
    else:
        with pytest.raises(TypeError, match="Bulkhead"):
            make({"policy": POLICIES[0]})


@each_copy
def test_one_that_was_used_stays_as_it_was(make: Callable[[Any], object]) -> None:
    breaker = CircuitBreaker(consecutive_failures=4)
    pipeline = Pipeline(Retry(1, wait=backoff.none()), breaker)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        with pytest.raises(TypeError):
            make(breaker)

    assert breaker.state == "open"


def test_a_budget_is_refused_too() -> None:
    budget = RetryBudget(initial=0)
    for make in COPIES:
        with pytest.raises(TypeError, match="a RetryBudget cannot be copied or pickled: its tokens would exist twice"):
            make(budget)
        with pytest.raises(TypeError, match="RetryBudget"):
            make(RetryBudget.grpc())


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_one_without_state_is_copied_with_its_settings_alone(make: Callable[[Any], Any]) -> None:
    retry, timeout = Retry(5, wait=backoff.none(), name="again", mode="shadow"), Timeout(2, reserve=0.5)
    pipeline = Pipeline(retry, timeout)
    retry.entry()

    copied: Retry = make(retry)

    assert (copied.settings.attempts, copied.name, copied.mode) == (5, "again", "shadow")
    assert make(timeout).settings == timeout.settings
    copied.update(attempts=2, mode="enforce")
    assert (retry.settings.attempts, retry.mode) == (5, "shadow")
    assert pipeline.get(Retry) is retry
    assert copied._pipelines() == []
    assert copied.entry()[0] is not retry.entry()[0]
