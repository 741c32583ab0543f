"""What the gates know of a rate limit: its settings, its state, and the cost of a call."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from resilience import Call, RateLimit
from tests.policies.rate_limit.helpers import call_of


def test_the_cost_is_a_number_or_a_function_of_the_call() -> None:
    by_call = RateLimit(1, cost=lambda call: len(call.args))
    call = Call.make(by_call.entry()[1], print, ("a", "b"), {})

    assert RateLimit(1, cost=2.5).source.cost_of(call) == 2.5
    assert by_call.source.cost_of(call) == 2


@pytest.mark.parametrize(("cost", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_cost_that_is_no_number_is_refused(cost: Any, error: type[Exception]) -> None:
    limit = RateLimit(1, cost=lambda _: cost)
    with pytest.raises(error, match="what cost returns must be a number >= 0"):
        limit.admit(call_of(limit))


def test_it_keeps_no_gate_alive() -> None:
    limit = RateLimit(1)
    both = RateLimit.all_of(limit, RateLimit(1))
    assert set(limit.source.gates) == {limit, both}
    del both
    gc.collect()

    assert set(limit.source.gates) == {limit}
