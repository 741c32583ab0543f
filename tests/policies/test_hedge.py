"""Hedge: what it decides, its settings, and what it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Allowlist,
    BadResult,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Failure,
    FailureKind,
    Hedge,
    Pipeline,
    ResilienceWarning,
    Retry,
    RetryBudget,
    Timeout,
    quantile,
)
from resilience._call.caller import options_of
from resilience._call.running_call import RunningCall
from resilience._outcome.ending import OK
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._policies.hedge import MAX_TARGETS, HedgeState
from resilience.events import HedgeResult
from resilience.testing import VirtualClock

FAILED = Ending(None, ConnectionError("down"), NETWORK_ERRORS)
UNLISTED = Ending(None, KeyError("mistake"), NETWORK_ERRORS)
REJECTED = Ending(None, BulkheadFullError("full"), NETWORK_ERRORS)
CUT = Ending(None, DeadlineExceededError("late"), NETWORK_ERRORS)


def hedged_call(pipeline: Pipeline[Any], *, target: str | None = None, idempotent: bool | None = True) -> RunningCall:
    return RunningCall.make(
        options_of(pipeline.bind(target=target, idempotent=idempotent), NETWORK_ERRORS), int, (), {}
    )


def begun(hedge: Hedge, *, permitted: Callable[[], bool] = lambda: True, now: float = 100.0) -> HedgeState:
    """Return the state of a race whose first attempt was started."""
    state = hedge.begin(hedged_call(Pipeline(hedge)), now, permitted)
    assert state is not None
    assert state.should_start(now)
    return state


class TestSettings:
    @pytest.mark.parametrize("after", [-0.1, float("nan"), float("inf")])
    def test_a_delay_is_a_finite_number(self, after: float) -> None:
        with pytest.raises(ValueError, match="after must be a number >= 0"):
            Hedge(after)

    @pytest.mark.parametrize("p", [0.0, 1.0, -0.5, 2.0, float("nan")])
    def test_a_quantile_is_between_0_and_1(self, p: float) -> None:
        with pytest.raises(ValueError, match="p must be a number > 0"):
            quantile(p)

    def test_hedges_are_counted_from_1(self) -> None:
        with pytest.raises(ValueError, match="max_hedges must be an integer >= 1, not 0"):
            Hedge(0.1, max_hedges=0)

    def test_a_budget_is_a_budget(self) -> None:
        wrong: Any = 3
        with pytest.raises(TypeError, match="budget must be a RetryBudget, a Partition of RetryBudgets, or None"):
            Hedge(0.1, budget=wrong)

    def test_the_representation_shows_what_differs_from_the_defaults(self) -> None:
        assert repr(Hedge()) == "Hedge()"
        assert repr(Hedge(0.25, max_hedges=2)) == "Hedge(after=0.25, max_hedges=2)"
        assert repr(quantile(0.99)) == "quantile(0.99)"
        assert quantile(0.99) == quantile(0.99)

    def test_they_can_be_changed(self) -> None:
        hedge = Hedge(0.25)

        hedge.update(after=0.5, max_hedges=3)

        assert (hedge.settings.after, hedge.settings.max_hedges, hedge.delay()) == (0.5, 3, 0.5)


class TestDecisions:
    @pytest.mark.parametrize("idempotent", [None, False])
    def test_only_explicitly_idempotent_calls_are_hedged(self, idempotent: bool | None) -> None:
        hedge = Hedge(0.1)

        assert hedge.begin(hedged_call(Pipeline(hedge), idempotent=idempotent), 0.0, lambda: True) is None

    def test_another_attempt_starts_after_each_delay(self) -> None:
        state = begun(Hedge(0.1, max_hedges=2))

        assert state.wait(100.0) == pytest.approx(0.1)
        assert not state.should_start(100.05)
        assert state.should_start(100.1)
        assert not state.should_start(100.1)
        assert state.wait(100.15) == pytest.approx(0.05)
        assert state.should_start(100.25)
        assert state.wait(100.25) is None
        assert not state.should_start(101.0)

    def test_with_a_delay_of_0_all_start_at_once(self) -> None:
        state = begun(Hedge(0, max_hedges=2))

        assert [state.should_start(100.0) for _ in range(3)] == [True, True, False]

    def test_the_first_good_answer_wins(self) -> None:
        state = begun(Hedge(0.1))
        state.should_start(100.1)

        state.settle(2, OK, 100.2)

        assert (state.winner, state.result) == (2, HedgeResult.WON)
        assert not state.should_start(101.0)

    def test_a_first_attempt_that_is_quick_leaves_no_result(self) -> None:
        state = begun(Hedge(0.1))

        state.settle(1, OK, 100.05)

        assert (state.winner, state.result) == (1, None)

    def test_a_failure_makes_the_next_attempt_due_at_once(self) -> None:
        state = begun(Hedge(60))

        state.settle(1, FAILED, 100.5)

        assert state.winner is None
        assert state.wait(100.5) == 0
        assert state.should_start(100.5)

    def test_all_failed_gives_the_first_failure(self) -> None:
        state = begun(Hedge(0.1))
        state.should_start(100.1)

        state.settle(2, FAILED, 100.2)
        running = state.winner
        state.settle(1, FAILED, 100.3)

        assert running is None
        assert (state.winner, state.result) == (2, HedgeResult.WON)

    def test_a_pause_that_the_server_asks_for_is_kept(self) -> None:
        state = begun(Hedge(0.1))
        busy = Ending(EndingKind.FAILED, OSError(), NETWORK_ERRORS, Failure(FailureKind.OVERLOAD, retry_after=3.0))

        state.settle(1, busy, 100.05)

        assert state.wait(100.05) == pytest.approx(3.0)

    @pytest.mark.parametrize("hint", [60.5, 10.0])
    def test_a_pause_that_is_too_long_or_ends_at_the_deadline_leaves_the_failure(self, hint: float) -> None:
        hedge = Hedge(0.1, max_hedges=2)
        call = hedged_call(Pipeline(hedge))
        call.deadline = 110.0 if hint == 10 else 1000.0
        state = hedge.begin(call, 100.0, lambda: True)
        assert state is not None
        state.should_start(100.0)
        busy = Ending(EndingKind.FAILED, OSError(), NETWORK_ERRORS, Failure(FailureKind.OVERLOAD, retry_after=hint))

        state.settle(1, busy, 100.0)

        assert (state.winner, state.wait(100.0)) == (1, None)

    @pytest.mark.parametrize(
        "ending", [UNLISTED, Ending(EndingKind.FAILED, OSError(), NETWORK_ERRORS, Failure(retryable=False))]
    )
    def test_what_another_attempt_cannot_mend_is_the_outcome(self, ending: Ending) -> None:
        state = begun(Hedge(0.1))
        state.should_start(100.1)

        state.settle(2, ending, 100.2)

        assert state.winner == 2

    def test_a_rejection_is_the_outcome_where_nothing_else_runs(self) -> None:
        state = begun(Hedge(0.1))

        state.settle(1, REJECTED, 100.0)

        assert (state.winner, state.wait(100.0)) == (1, None)

    def test_a_rejected_hedge_leaves_the_first_attempt_running_and_costs_nothing(self) -> None:
        budget = RetryBudget(capacity=1)
        state = begun(Hedge(0.1, max_hedges=2, budget=budget))
        state.should_start(100.1)
        assert budget.tokens == 0

        state.settle(2, REJECTED, 100.1)

        assert (state.winner, state.wait(100.1), budget.tokens) == (None, None, 1)
        state.settle(1, FAILED, 100.2)
        assert state.winner == 1

    def test_a_hedge_that_is_rejected_after_the_first_answer_costs_nothing(self) -> None:
        budget = RetryBudget(capacity=1)
        state = begun(Hedge(0.1, budget=budget))
        state.should_start(100.1)
        state.settle(1, OK, 100.2)

        state.settle(2, REJECTED, 100.2)

        assert (state.winner, budget.tokens) == (1, 1)

    def test_the_failure_is_the_outcome_where_the_next_attempt_is_rejected(self) -> None:
        state = begun(Hedge(0.1))
        state.settle(1, FAILED, 100.05)
        state.should_start(100.05)

        state.settle(2, REJECTED, 100.05)

        assert state.winner == 1

    def test_a_cut_attempt_is_a_failure(self) -> None:
        state = begun(Hedge(0.1))

        state.settle(1, CUT, 100.05)

        assert state.should_start(100.05)

    def test_an_own_allowlist_decides_what_a_failure_is(self) -> None:
        state = begun(Hedge(0.1, on=KeyError))

        state.settle(1, UNLISTED, 100.05)

        assert state.winner is None

    def test_a_bad_result_is_a_failure_by_its_allowlist(self) -> None:
        bad = Allowlist.of_results(lambda value: value == "bad")
        state = begun(Hedge(0.1, on=bad))

        state.settle(1, Ending(None, BadResult("bad"), NETWORK_ERRORS), 100.05)

        assert state.winner is None


class TestRefusals:
    def test_an_empty_budget_allows_no_attempt(self) -> None:
        budget = RetryBudget(capacity=1, initial=0)
        state = begun(Hedge(0.1, budget=budget))

        assert not state.should_start(100.2)

        assert (state.wait(100.2), state.result, state.winner) == (None, HedgeResult.REFUSED, None)
        state.settle(1, FAILED, 100.3)
        assert state.winner == 1

    def test_the_budget_of_the_pipeline_is_used_by_default(self) -> None:
        hedge = Hedge(0.1)
        pipeline = Pipeline(hedge, budget=RetryBudget(capacity=1))
        state = hedge.begin(hedged_call(pipeline), 0.0, lambda: True)
        assert state is not None
        assert state.should_start(0.0)

        assert state.should_start(0.1)

        assert isinstance(pipeline.budget, RetryBudget)
        assert pipeline.budget.tokens == 0

    def test_without_a_budget_there_is_no_limit(self) -> None:
        hedge = Hedge(0, max_hedges=50, budget=None)
        state = begun(hedge)

        assert sum(state.should_start(100.0) for _ in range(100)) == 50
        assert hedge.on_success(Pipeline(hedge).entry()[1].pipeline) is None

    def test_what_is_not_permitted_costs_no_token(self) -> None:
        budget = RetryBudget(capacity=1)
        state = begun(Hedge(0.1, budget=budget), permitted=lambda: False)

        assert not state.should_start(100.2)

        assert (budget.tokens, state.result) == (1, HedgeResult.REFUSED)

    def test_a_failure_after_a_refusal_is_the_outcome_at_once(self) -> None:
        state = begun(Hedge(60, budget=RetryBudget(capacity=1, initial=0)))
        state.settle(1, FAILED, 100.1)

        assert not state.should_start(100.1)

        assert state.winner == 1


class TestLearning:
    def learn(self, hedge: Hedge, seconds: float, count: int, target: str | None = None) -> None:
        pipeline = Pipeline(hedge)
        for _ in range(count):
            state = hedge.begin(hedged_call(pipeline, target=target), 0.0, lambda: True)
            assert state is not None
            state.should_start(0.0)
            state.settle(1, OK, seconds)

    def test_no_call_is_hedged_before_100_are_known(self, virtual_clock: VirtualClock) -> None:
        hedge = Hedge(quantile(0.95))
        self.learn(hedge, 0.2, 99)
        virtual_clock.advance(1)

        assert hedge.delay() is None
        assert begun(hedge).wait(100.0) is None
        self.learn(hedge, 0.2, 1)
        virtual_clock.advance(1)
        assert begun(hedge).wait(100.0) == pytest.approx(0.2, rel=0.02)

    def test_each_target_has_its_own_delay(self, virtual_clock: VirtualClock) -> None:
        hedge = Hedge()
        self.learn(hedge, 0.2, 100, "fast")
        self.learn(hedge, 4.0, 100, "slow")
        virtual_clock.advance(1)

        assert hedge.delay("fast") == pytest.approx(0.2, rel=0.02)
        assert hedge.delay("slow") == pytest.approx(4.0, rel=0.02)
        assert hedge.snapshot()["after"].keys() == {"fast", "slow"}

    def test_the_number_of_targets_is_bounded(self) -> None:
        hedge = Hedge()

        for number in range(MAX_TARGETS + 100):
            self.learn(hedge, 0.1, 1, f"host-{number}")

        assert len(hedge.snapshot()["after"]) <= MAX_TARGETS + 1

    def test_a_cancelled_attempt_and_a_cut_one_took_at_least_so_long_and_a_failure_counts_nothing(
        self, virtual_clock: VirtualClock
    ) -> None:
        hedge = Hedge(quantile(0.5))
        self.learn(hedge, 0.1, 100)
        virtual_clock.advance(1)
        for _ in range(150):
            state = begun(hedge, now=0.0)
            state.should_start(0.1)
            state.settle(2, FAILED, 0.2)
            state.settle(1, CUT, 7.0)
        for _ in range(150):
            state = begun(hedge, now=0.0)
            state.should_start(0.2)
            state.cancelled(1, 9.0)
        virtual_clock.advance(1)

        assert hedge.delay() == pytest.approx(7.0, rel=0.02)

    def test_reset_and_another_quantile_learn_anew(self) -> None:
        hedge = Hedge(budget=RetryBudget(capacity=2, initial=1))
        self.learn(hedge, 0.1, 150)

        hedge.update(after=quantile(0.5))
        assert hedge.delay() is None
        self.learn(hedge, 0.1, 150)
        hedge.reset()
        assert hedge.delay() is None

    def test_other_settings_keep_what_was_learned(self, virtual_clock: VirtualClock) -> None:
        hedge = Hedge()
        self.learn(hedge, 0.1, 150)
        virtual_clock.advance(1)

        hedge.update(max_hedges=2)
        hedge.update(after=0.3)
        hedge.update(after=quantile(0.95))

        assert hedge.delay() == pytest.approx(0.1, rel=0.02)

    def test_reading_a_delay_adds_no_target(self) -> None:
        hedge = Hedge()

        assert hedge.delay("unknown") is None
        assert hedge.snapshot() == {"after": {}}

    def test_a_fixed_delay_is_in_the_snapshot(self) -> None:
        assert Hedge(0.2).snapshot() == {"after": 0.2}


class TestWarnings:
    def test_a_retry_inside(self) -> None:
        with pytest.warns(ResilienceWarning, match="retry is inside hedge"):
            Pipeline(Hedge(0.1), Retry(3))

    @pytest.mark.parametrize("policies", [[Timeout(0.5), Hedge(0.5)], [Hedge(2), Timeout(1)]])
    def test_a_hedge_that_can_never_fire(self, policies: list[Any]) -> None:
        with pytest.warns(ResilienceWarning, match="starts another attempt after"):
            Pipeline(*policies)

    def test_a_usual_pipeline_gives_none(self) -> None:
        Pipeline(Timeout(3), Retry(2), Hedge(0.5), Bulkhead(5), CircuitBreaker(), Timeout(1))
