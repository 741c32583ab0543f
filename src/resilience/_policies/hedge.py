"""Hedge: start another attempt when the first one takes long, and use whichever answer comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from resilience._call.budget import PIPELINE, Inherit, RetryBudget
from resilience._call.call import Call, PipelineInfo
from resilience._call.keyed import Keyed, check_budget
from resilience._outcome.allowlist import Allowlist, Failures
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.shapes import OnSuccess, Race
from resilience._util import validation
from resilience._util.clock import FOREVER
from resilience._util.quantile import QuantileEstimator
from resilience._util.values import Value
from resilience.events._policy_types import HedgeResult
from resilience.events._types import Mode, ModeName

LEAST_SAMPLES: Final = 100
"""The least number of durations from which a delay is learned."""
MAX_HINT: Final = 60.0
"""The longest retry-after hint of a server after which another attempt is made, in seconds."""
MAX_TARGETS: Final = 1024
"""The most targets whose durations are learned apart; further ones share one estimate."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantile(Value):
    """A quantile of the durations of attempts, made by `quantile`."""

    p: float

    def __repr__(self) -> str:
        return f"quantile({self.p:g})"


def quantile(p: float) -> Quantile:
    """Return a delay for `Hedge` that is learned: a quantile of the durations of the attempts, apart for each target.

    Args:
        p: the quantile, in (0, 1): with 0.95, about one call in twenty is hedged.

    Raises:
        TypeError: `p` is not a number.
        ValueError: `p` is out of range.

    The durations of the last 30 to 60 seconds count. No call is hedged before 100 of them are known. Dean and Barroso,
    "The Tail at Scale" (2013), propose the 95th percentile: it bounds the additional load to about 5 %.
    """
    value = validation.number("p", p, above=True)
    if value >= 1.0:
        raise ValueError(f"p must be a number > 0 and < 1, not {p!r}")
    return Quantile(value)


P95: Final = quantile(0.95)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HedgeSettings(Value):
    """The settings of a Hedge; `Hedge` describes each."""

    after: float | Quantile
    max_hedges: int
    on: Any
    budget: RetryBudget | Keyed[RetryBudget] | Inherit | None

    def __post_init__(self) -> None:
        """Validate the settings; a number for `after` becomes a float."""
        if not isinstance(self.after, Quantile):
            object.__setattr__(self, "after", validation.number("after", self.after))
        validation.integer("max_hedges", self.max_hedges, low=1)
        if self.on is not None:
            object.__setattr__(self, "on", Allowlist.of(self.on))
        check_budget(self.budget)

    def budget_in(self, info: PipelineInfo) -> RetryBudget | Keyed[RetryBudget] | None:
        """Return the budget of calls in a pipeline."""
        return info.budget if isinstance(self.budget, Inherit) else self.budget


class Hedge(Race):
    """Start another attempt if there is no answer after a delay; the first good answer is the outcome of the call.

    Args:
        after: the delay before each further attempt, in seconds, >= 0; 0 starts all at once. Or `quantile(p)`, which
            learns the delay from the durations of the attempts.
        max_hedges: the greatest number of further attempts for one call, >= 1.
        on: what counts as a failure for this Hedge; None for the failures of the pipeline.
        budget: the retry budget, or a Partition of budgets, from which each further attempt withdraws a token; by
            default that of the pipeline, None for no limit.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode no further attempt is made; one that would have been is reported once the
            call has ended.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    Only calls that are explicitly idempotent are hedged, such as by `bind(idempotent=True)`. While a circuit breaker
    inside the Hedge is not closed, and when the budget is empty, no further attempt is started.

    A failure starts the next attempt at once, or when the server has asked to come back (gRFC A6). If that is more than
    60 s away, or not before the deadline, there is no further attempt. If all attempts fail, the outcome is the first
    failure. Any other exception ends the call, as it would without a Hedge. A rejection by a policy inside does, too,
    if no other attempt runs.

    In asyncio and trio the first attempt runs in the task of the caller, the further ones in tasks of their own. Those
    that lose are cancelled and awaited, so that all they hold is free when the call returns. Plain calls run each
    attempt on a thread of its own. Threads cannot be cancelled, so those that lose run on: what they hold of policies
    inside is released when they end, permits of policies outside the Hedge, too, and their results are closed if they
    are responses.
    """

    kind = "hedge"
    _shares_state = True
    settings: HedgeSettings

    def __init__(
        self,
        after: float | Quantile = P95,
        *,
        max_hedges: int = 1,
        on: Failures | None = None,
        budget: RetryBudget | Keyed[RetryBudget] | Inherit | None = PIPELINE,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = HedgeSettings(after=after, max_hedges=max_hedges, on=on, budget=budget)
        super().__init__(settings, name=name, mode=mode)
        self._estimators: dict[str | None, QuantileEstimator] = {}

    def begin(self, call: Call, now: float, permitted: Callable[[], bool]) -> HedgeState | None:
        """Return the state of a new race; None for a call that is not explicitly idempotent."""
        if not call.hedgeable:
            return None
        settings = self.settings  # once, since `update` may replace them meanwhile
        budget = settings.budget_in(call.pipeline)
        if isinstance(budget, Keyed):
            budget = budget.policy_of(call)
        after = settings.after
        if not isinstance(after, Quantile):
            return HedgeState(settings, budget, now, after, call.deadline, permitted, None)
        estimator = self._estimator(call.target, after.p)
        delay = estimator.estimate(LEAST_SAMPLES)
        return HedgeState(settings, budget, now, delay, call.deadline, permitted, estimator)

    def on_success(self, info: PipelineInfo) -> OnSuccess | None:
        """Return the budget's `deposit`, which each successful attempt calls; None without a budget."""
        budget = self.settings.budget_in(info)
        return budget.deposit if isinstance(budget, RetryBudget) else None

    def budgets(self, info: PipelineInfo) -> Keyed[RetryBudget] | None:
        """Return the budget if it is a Partition of budgets, in which each success is deposited; else None."""
        budget = self.settings.budget_in(info)
        return budget if isinstance(budget, Keyed) else None

    def delay(self, target: str | None = None) -> float | None:
        """Return the delay for a target in seconds, as it is now; None while too little is known to learn it.

        Args:
            target: the target, as the calls name it, such as a host; None for calls without a target.
        """
        after = self.settings.after
        if not isinstance(after, Quantile):
            return after
        found = self._estimators.get(target) or self._estimators.get(None)
        return None if found is None or found.p != after.p else found.estimate(LEAST_SAMPLES)

    def snapshot(self) -> dict[str, Any]:
        """Return the delays as `after`: by target if they are learned."""
        after = self.settings.after
        if not isinstance(after, Quantile):
            return {"after": after}
        return {"after": {str(target or ""): self.delay(target) for target in list(self._estimators)}}

    def reset(self) -> None:
        """Forget what was learned, and reset the budget if this Hedge has a budget of its own."""
        self._estimators.clear()
        budget = self.settings.budget
        if isinstance(budget, RetryBudget | Keyed):
            budget.reset()

    def _estimator(self, target: str | None, p: float) -> QuantileEstimator:
        estimators = self._estimators
        found = estimators.get(target)
        if found is None:
            if len(estimators) >= MAX_TARGETS:
                target = None
            found = estimators.setdefault(target, QuantileEstimator(p))
        if found.p != p:  # the quantile was changed: its durations are learned anew
            found = estimators[target] = QuantileEstimator(p)
        return found


class HedgeState:
    """The state of one hedged call. All times are in seconds of the library's monotonic clock.

    Attributes:
        winner: see `RaceState`.
        refused: see `RaceState`.
    """

    __slots__ = (
        "_after", "_begun", "_budget", "_deadline", "_estimator", "_first", "_most", "_next_at", "_on", "_permitted",
        "_running", "_started", "refused", "winner",
    )  # fmt: skip

    def __init__(
        self,
        settings: HedgeSettings,
        budget: RetryBudget | None,
        now: float,
        after: float | None,
        deadline: float,
        permitted: Callable[[], bool],
        estimator: QuantileEstimator | None,
    ) -> None:
        self._on = settings.on
        self._budget = budget
        self._estimator = estimator
        self._deadline = deadline
        self._permitted = permitted
        self._most = 1 if after is None else 1 + settings.max_hedges
        self._after = FOREVER if after is None else after
        self._next_at = now
        self._begun: dict[int, float] = {}
        self._started = 0
        self._running = 0
        self._first: int | None = None
        self.winner: int | None = None
        self.refused = False

    def should_start(self, now: float) -> bool:
        """Return whether to start another attempt now; the budget is asked last."""
        if self.winner is not None or self._started >= self._most or now < self._next_at:
            return False
        if self._started and not (self._permitted() and (self._budget is None or self._budget.withdraw())):
            self.refused = True
            self._most = self._started
            self._decide_if_over()
            return False
        self._started += 1
        self._running += 1
        self._begun[self._started] = now
        self._next_at = now + self._after
        return True

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next attempt is due; None if there is none."""
        return None if self._started >= self._most else max(0.0, self._next_at - now)

    def settle(self, attempt: int, ending: Ending, now: float) -> None:
        """Take the ending of an attempt: a good one wins, a failure makes the next one due, anything else is final."""
        self._running -= 1
        begun = self._begun.pop(attempt)
        kind, failure = ending.by(self._on)
        if self._estimator is not None and (kind is EndingKind.OK or kind is EndingKind.TIMED_OUT):
            self._estimator.add(now - begun)
        if kind is EndingKind.ABANDONED and attempt > 1 and self._budget is not None:
            self._budget.refund()
        if self.winner is not None:
            return
        if kind is EndingKind.ABANDONED:  # a policy inside has rejected it, or it was cancelled before it was made
            self._most = self._started
        elif failure is None or not failure.retryable:
            self.winner = attempt
            return
        else:
            hint = failure.retry_after or 0.0
            if hint > MAX_HINT or (hint > 0 and now + hint >= self._deadline):
                self._most = self._started
            self._next_at = now + hint
            if self._first is None:
                self._first = attempt
        self._decide_if_over(attempt)

    def cancelled(self, attempt: int, now: float) -> None:
        """Take note of an attempt that was cancelled since another one has won: it took at least so long."""
        begun = self._begun.pop(attempt, None)
        if begun is not None and self._estimator is not None:
            self._estimator.add(now - begun)

    @property
    def result(self) -> HedgeResult | None:
        """What came of the further attempts; None if none was due."""
        if self._started > 1:
            return HedgeResult.WON if (self.winner or 0) > 1 else HedgeResult.LOST
        return HedgeResult.REFUSED if self.refused else None

    def _decide_if_over(self, latest: int | None = None) -> None:
        """Where no attempt runs and none will be started, the outcome is the first failure, or else the rejection."""
        if self._running == 0 and self._started >= self._most:
            self.winner = self._first or latest
