"""The settings of a Retry, and the types of their values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tenacity import RetryCallState
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from resilience import backoff
from resilience._call.budget import Inherit, RetryBudget
from resilience._call.call import PipelineInfo
from resilience._call.keyed import Keyed, check_budget
from resilience._outcome import tenacity_adapter
from resilience._outcome.allowlist import Allowlist, Failure, FailureKind, Failures
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.values import Value
from resilience.backoff import Backoff

HINT_SPREAD: Final = 0.2
"""The share of a server's hint that is added to it at most."""
MAX_HINT_SPREAD: Final = 5.0
"""The most seconds that are added to a server's hint."""
AGAIN: Final = Failure(counted=False)
"""The failure that tenacity's TryAgain stands for: the function requests another attempt; breakers do not count it."""
Wait: TypeAlias = "Backoff | wait_base | Callable[[RetryCallState], float]"
Stop: TypeAlias = "stop_base | Callable[[RetryCallState], bool]"
On: TypeAlias = "Failures | Callable[[Exception], Awaitable[bool]]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetrySettings(Value):
    """The settings of a Retry; `Retry` describes each. What is derived from them is replaced together with them.

    Attributes:
        waits: the waits by kind of failure; None if there is one for all.
        only: the wait for all kinds; None if there are several.
        backoff: `only` if it is a backoff and there is no `stop`, so that no state of tenacity is needed; else None.
        listed: `on` if it is an allowlist; None without one, or for an async predicate.
        is_async: whether `on` is an async predicate.
        inherits: whether the budget is the pipeline's.
        own_budget: the budget of its own; None if it has none.
    """

    attempts: int | None
    wait: Wait | Mapping[FailureKind, Wait] | None
    on: Any
    stop: Stop | None
    budget: RetryBudget | Keyed[RetryBudget] | Inherit | None
    max_retry_after: float
    nested: bool
    waits: Mapping[FailureKind, Wait] | None = field(init=False)
    only: Wait | None = field(init=False)
    backoff: Backoff | None = field(init=False)
    listed: Allowlist | None = field(init=False)
    is_async: bool = field(init=False)
    inherits: bool = field(init=False)
    own_budget: RetryBudget | Keyed[RetryBudget] | None = field(init=False)

    def __post_init__(self) -> None:
        """Validate the settings, and replace None by the defaults."""
        if self.attempts is None and self.stop is None:
            object.__setattr__(self, "attempts", 3)
        if self.attempts is not None:
            validation.integer("attempts", self.attempts, low=1)
        if self.stop is not None and not callable(self.stop):
            raise TypeError(f"stop must be a stop_* of tenacity or a callable that takes its state, not {self.stop!r}")
        wait: Any = DEFAULT_WAIT if self.wait is None else self.wait
        by_kind = issubclass(type(wait), Mapping)
        object.__setattr__(self, "wait", wait)
        object.__setattr__(self, "waits", _by_kind(wait) if by_kind else None)
        object.__setattr__(self, "only", None if by_kind else _checked(wait))
        if self.on is not None and not tenacity_adapter.is_async(self.on):
            object.__setattr__(self, "on", Allowlist.of(self.on))
        elif tenacity_adapter.asks_about_results(self.on):
            raise TypeError("on: an async predicate of returned values is not supported; use a plain one")
        check_budget(self.budget)
        validation.number("max_retry_after", self.max_retry_after)
        validation.flag("nested", self.nested)
        self._derive()

    def _derive(self) -> None:
        """Set what each failure needs and the validated settings imply."""
        only, own, budget = self.only, self.on, self.budget
        listed = own if isinstance(own, Allowlist) else None
        object.__setattr__(self, "backoff", only if isinstance(only, Backoff) and self.stop is None else None)
        object.__setattr__(self, "listed", listed)
        object.__setattr__(self, "is_async", own is not None and listed is None)
        object.__setattr__(self, "inherits", isinstance(budget, Inherit))
        object.__setattr__(self, "own_budget", None if isinstance(budget, Inherit) else budget)

    def budget_in(self, info: PipelineInfo) -> RetryBudget | Keyed[RetryBudget] | None:
        """Return the budget of calls in a pipeline."""
        return info.budget if self.inherits else self.own_budget

    def with_hint(self, strategy: object, seconds: Any, failure: Failure) -> float:
        """Return the validated wait of a strategy, or that which the server's hint asks for if it is longer.

        Up to a fifth is added to a hint, so that calls that were given the same one do not come back together. A hint
        that is exact is the wait.
        """
        wait: float = seconds
        if seconds.__class__ is not float or not 0.0 <= seconds < FOREVER:
            wait = validation.number(f"what {strategy!r} returns", seconds)
        hint = failure.retry_after
        if hint is not None and self.max_retry_after > 0:
            if failure.exact:
                return hint
            wait = max(wait, hint + min(HINT_SPREAD * hint, MAX_HINT_SPREAD) * clock.random.random())
        return wait


DEFAULT_WAIT: Final = backoff.full_jitter(0.1, cap=10.0)


def _by_kind(waits: Mapping[Any, Any]) -> dict[FailureKind, Any]:
    """Return a wait for each kind of failure, or raise an error for a key or value that is invalid."""
    by_kind: dict[FailureKind, Any] = dict.fromkeys(FailureKind, DEFAULT_WAIT)
    for kind, wait in waits.items():
        by_kind[validation.choice("a key of wait", kind, FailureKind)] = _checked(wait)
    return by_kind


def _checked(wait: Any) -> Any:
    """Return a single wait, or raise a TypeError."""
    if isinstance(wait, type) or not callable(wait):
        raise TypeError(
            "wait must be a backoff, a wait_* of tenacity, a callable that takes its state, or a mapping of "
            f"FailureKind to those, not {wait!r}"
        )
    return wait
