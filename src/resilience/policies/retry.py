"""Retry: try again, if it is worth it, safe, paid for, and in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from resilience import backoff, checks, given_up
from resilience.allowlist import Allowlist, Failure, FailureKind, Failures
from resilience.backoff import Backoff
from resilience.budget import RetryBudget
from resilience.call import Call, Site
from resilience.clock import FOREVER, ambient
from resilience.ending import Ending, EndingKind
from resilience.errors import RejectedError
from resilience.events import GiveUpReason, Mode, RetryGivenUp, RetryScheduled
from resilience.shapes import Loop, Series


class Inherit(Enum):
    """Stands for "what the pipeline has"."""

    PIPELINE = "the pipeline's"

    def __repr__(self) -> str:
        return self.value


PIPELINE: Final = Inherit.PIPELINE
Wait: TypeAlias = "Backoff | Mapping[FailureKind, Backoff]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """What a Retry goes by; see there."""

    attempts: int | None
    wait: Wait | None
    on: Allowlist | None
    budget: RetryBudget | Inherit | None
    max_retry_after: float
    nested: bool
    waits: Mapping[FailureKind, Backoff] = field(init=False)

    def __post_init__(self) -> None:
        """Check everything, and put in what None stands for."""
        object.__setattr__(self, "attempts", 3 if self.attempts is None else self.attempts)
        checks.integer("attempts", self.attempts, low=1)
        object.__setattr__(self, "wait", DEFAULT_WAIT if self.wait is None else self.wait)
        object.__setattr__(self, "waits", _by_kind(self.wait))
        if self.on is not None:
            object.__setattr__(self, "on", Allowlist.of(self.on))
        budget: Any = self.budget
        if not (budget is None or isinstance(budget, RetryBudget | Inherit)):
            raise TypeError(f"budget must be a RetryBudget or None, not {self.budget!r}")
        checks.number("max_retry_after", self.max_retry_after)
        checks.flag("nested", self.nested)


DEFAULT_WAIT: Final = backoff.full_jitter(0.1, cap=10.0)


def _by_kind(wait: Any) -> dict[FailureKind, Backoff]:
    mapping: Any = wait if issubclass(type(wait), Mapping) else dict.fromkeys(FailureKind, wait)
    given: dict[Any, Any] = dict(mapping)
    by_kind: dict[FailureKind, Backoff] = dict.fromkeys(FailureKind, DEFAULT_WAIT)
    for kind, one in given.items():
        if not isinstance(one, Backoff):
            raise TypeError(f"wait must be a backoff, or a mapping of FailureKind to backoffs, not {one!r}")
        by_kind[checks.choice("a key of wait", kind, FailureKind)] = one
    return by_kind


class Retry(Loop):
    """Call again after a failure.

    Args:
        attempts: calls in all, the first included, >= 1; None means 3.
        wait: the wait before each retry; None means full jitter, 0.1 s doubling up to 10 s. A mapping by FailureKind
            gives each kind its own; one that it does not have keeps the default.
        on: what counts as a failure here; None means the pipeline's failures.
        budget: who pays for retries; by default the pipeline's budget. None: nobody, there is no limit.
        max_retry_after: the longest hint of a server's, in seconds >= 0, that is waited for. A hint is a floor under
            the wait; with a longer one, the Retry gives up at once, since coming back early would be refused and
            sleeping on would be in vain. 0 ignores hints.
        nested: True: retry also what a Retry further in has already given up on. Retries then multiply.
        name: see `Policy`.
        mode: see `Policy`; in shadow mode a retry is reported, not made.

    Raises:
        TypeError, ValueError: a parameter of the wrong type or out of range.

    It gives up on: the attempts, a deadline that the wait would reach, an empty budget, a call that is not
    idempotent, a failure that the server calls final, a request that cannot be sent again, a mark of another Retry.
    Then the original exception comes out (or the original bad result), with a note that says why.
    Cancellation and other BaseExceptions are never retried, and neither is a rejection by one of our own policies:
    if a later attempt is rejected further in, the last real failure comes out.
    """

    kind = "retry"
    settings: RetrySettings

    def __init__(
        self,
        attempts: int | None = None,
        *,
        wait: Wait | None = None,
        on: Failures | None = None,
        budget: RetryBudget | Inherit | None = PIPELINE,
        max_retry_after: float = 60.0,
        nested: bool = False,
        name: str | None = None,
        mode: str = Mode.ENFORCE,
    ) -> None:
        super().__init__(
            RetrySettings(
                attempts=attempts,
                wait=wait,
                on=None if on is None else Allowlist.of(on),
                budget=budget,
                max_retry_after=max_retry_after,
                nested=nested,
            ),
            name=name,
            mode=mode,
        )

    def reward(self, site: Site) -> Callable[[], object] | None:
        """Each success pays into the budget."""
        budget = self._budget(site)
        return None if budget is None else budget.deposit

    def reset(self) -> None:
        """Fill the budget of its own, if it has one."""
        if isinstance(self.settings.budget, RetryBudget):
            self.settings.budget.reset()

    def snapshot(self) -> dict[str, Any]:
        """Return the balance of the budget of its own, if it has one."""
        budget = self.settings.budget
        return {"budget": budget.snapshot()} if isinstance(budget, RetryBudget) else {}

    def delay(self, call: Call, ending: Ending, series: Series) -> float | None:
        """Decide; the cheap and certain reasons come first, the budget last: what is not made costs nothing."""
        error = ending.error
        assert isinstance(error, Exception)
        settings = self.settings
        failure = ending.failure_by(settings.on)
        budget = self._budget(call.site)
        if failure is None:
            if budget is not None and ending.kind_by(settings.on) is EndingKind.OK:
                budget.deposit()
            return None
        if not settings.nested and given_up.marked_since(error, series.stamp):
            if not series.shadow:
                self._tell(call, series, GiveUpReason.NESTED)
                given_up.mark(error)
                self._note_nested(call, error)
            return None
        if budget is not None and failure.counted:
            budget.failed()
        wait = self._wait(failure, series)
        reason = self._reason(call, failure, series, wait)
        if reason is None and budget is not None:
            # A retry that is not made is not paid for.
            series.paid = budget.affordable if series.shadow else budget.withdraw()
            reason = None if series.paid else GiveUpReason.BUDGET
        if reason is not None:
            if not series.shadow:
                self._give_up(call, error, series, reason)
            return None
        if call.site.bus.heard(RetryScheduled):
            mode = Mode.SHADOW if series.shadow else Mode.ENFORCE
            call.site.publish(RetryScheduled, self, call, attempt=series.number, wait=wait, failure=failure, mode=mode)
        series.previous = wait
        return wait

    def not_made(self, call: Call, ending: Ending, error: Exception, series: Series) -> None:
        """Say on the last real failure why there was no other attempt, and take back what was paid for it."""
        budget = self._budget(call.site)
        if budget is not None and series.paid:
            series.paid = False
            budget.refund()
        refusal = ending.error
        why: str = "draining" if refusal is None else "deadline"
        if isinstance(refusal, RejectedError):
            why = refusal.reason or type(refusal).__name__
        given_up.note(error, f"attempt {series.number + 1} not made: {_REFUSALS.get(why, why)}")

    def _budget(self, site: Site) -> RetryBudget | None:
        budget = self.settings.budget
        return site.budget if isinstance(budget, Inherit) else budget

    def _wait(self, failure: Failure, series: Series) -> float:
        strategy = self.settings.waits[failure.kind]
        wait = strategy.seconds(series.number, series.previous)
        if not (math.isfinite(wait) and wait >= 0):
            raise ValueError(f"{strategy!r} gave a wait of {wait!r} s, which is no finite number >= 0")
        if failure.retry_after is not None and self.settings.max_retry_after > 0:
            wait = max(wait, failure.retry_after)
        return wait

    def _reason(self, call: Call, failure: Failure, series: Series, wait: float) -> GiveUpReason | None:
        settings = self.settings
        if not failure.retryable:
            return GiveUpReason.NOT_RETRYABLE
        if call.idempotent is False and not failure.unprocessed:
            return GiveUpReason.NOT_IDEMPOTENT
        if not call.replayable:
            return GiveUpReason.BODY_NOT_REPLAYABLE
        if series.number >= (settings.attempts or FOREVER):
            return GiveUpReason.ATTEMPTS
        if 0 < settings.max_retry_after < (failure.retry_after or 0.0):
            return GiveUpReason.RETRY_AFTER
        if not series.in_time(call, wait):
            return GiveUpReason.DEADLINE
        return None

    def _give_up(self, call: Call, error: Exception, series: Series, reason: GiveUpReason) -> None:
        elapsed = self._tell(call, series, reason)
        # A Retry of one attempt never meant to retry; another level may.
        if reason not in _UNMARKED and self.settings.attempts != 1:
            given_up.mark(error)
        made = "1 attempt" if series.number == 1 else f"{series.number} attempts"
        given_up.note(error, f"{self._where(call)} gave up after {made} in {elapsed:.3g} s: {_WORDS[reason]}")

    def _tell(self, call: Call, series: Series, reason: GiveUpReason) -> float:
        elapsed = ambient.monotonic() - series.started
        call.site.publish(RetryGivenUp, self, call, attempts=series.number, elapsed=elapsed, reason=reason)
        return elapsed

    def _note_nested(self, call: Call, error: Exception) -> None:
        inner = given_up.noted(error).partition(_NESTED)[0]
        first = inner or "a Retry further in had given up on the cause"
        given_up.note(error, f"{first}{_NESTED}, so {self._where(call)} did not (nested=True would)")

    def _where(self, call: Call) -> str:
        name = call.site.name_of(self) or self.name
        return f"{name} of {call.site.name}" if call.site.name else name


_UNMARKED: Final = frozenset({GiveUpReason.NOT_IDEMPOTENT, GiveUpReason.BODY_NOT_REPLAYABLE})
_NESTED: Final = "; retries at several levels do not multiply"
_WORDS: Final[dict[str, str]] = {
    GiveUpReason.ATTEMPTS: "no attempts are left",
    GiveUpReason.STOP: "its stop condition was met",
    GiveUpReason.DEADLINE: "the next wait would end past the deadline",
    GiveUpReason.BUDGET: "the retry budget is empty",
    GiveUpReason.NOT_IDEMPOTENT: "the call is not idempotent, and may have been processed",
    GiveUpReason.NOT_RETRYABLE: "the server said not to retry",
    GiveUpReason.BODY_NOT_REPLAYABLE: "the request body cannot be sent again",
    GiveUpReason.RETRY_AFTER: "the server asks for a longer wait than max_retry_after",
}
_REFUSALS: Final[dict[str, str]] = {
    "open": "circuit open",
    "isolated": "circuit isolated",
    "full": "bulkhead full",
    "queue_timeout": "waited in the queue too long",
    "abandoned_full": "too many calls left behind",
    "rate": "rate limit reached",
    "draining": "draining",
    "deadline": "deadline passed",
}
