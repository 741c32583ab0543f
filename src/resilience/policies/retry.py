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

    attempts: int
    wait: Wait
    on: Allowlist | None
    budget: RetryBudget | Inherit | None
    max_retry_after: float
    nested: bool
    waits: Mapping[FailureKind, Backoff] = field(init=False)

    def __post_init__(self) -> None:
        """Check everything."""
        checks.integer("attempts", self.attempts, low=1)
        waits: list[Any] = list(self.wait.values()) if isinstance(self.wait, Mapping) else [self.wait]
        if isinstance(self.wait, Mapping) and set(self.wait) != set(FailureKind):
            raise ValueError(f"wait must have an entry for each of {', '.join(FailureKind)}, not {self.wait!r}")
        for one in waits:
            if not isinstance(one, Backoff):
                raise TypeError(f"wait must be a backoff, or a mapping of FailureKind to backoffs, not {one!r}")
        one_for_all: Any = self.wait
        by_kind = self.wait if isinstance(self.wait, Mapping) else dict.fromkeys(FailureKind, one_for_all)
        object.__setattr__(self, "waits", by_kind)
        if self.on is not None:
            object.__setattr__(self, "on", Allowlist.of(self.on))
        budget: Any = self.budget
        if not (budget is None or isinstance(budget, RetryBudget | Inherit)):
            raise TypeError(f"budget must be a RetryBudget or None, not {self.budget!r}")
        checks.number("max_retry_after", self.max_retry_after)
        checks.flag("nested", self.nested)


class Retry(Loop):
    """Call again after a failure.

    Args:
        attempts: calls in all, the first included, >= 1; None means 3.
        wait: the wait before each retry; a mapping by FailureKind gives each kind its own.
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
                attempts=3 if attempts is None else attempts,
                wait=backoff.full_jitter(0.1, cap=10.0) if wait is None else wait,
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
            if budget is not None and ending.kind is EndingKind.OK:
                budget.deposit()
            return None
        if not settings.nested and given_up.marked_since(error, series.stamp):
            if not series.shadow:
                self._tell(call, series, GiveUpReason.NESTED)
                self._note_nested(call, error)
                given_up.mark(error)
            return None
        if budget is not None and failure.counted:
            budget.failed()
        wait = self._wait(failure, series)
        reason = self._reason(call, failure, series, wait)
        if reason is None and budget is not None:
            # A retry that is not made is not paid for.
            paid = budget.affordable if series.shadow else budget.withdraw()
            reason = None if paid else GiveUpReason.BUDGET
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
        if budget is not None:
            budget.refund()
        refusal = ending.error
        why = refusal.reason or type(refusal).__name__ if isinstance(refusal, RejectedError) else "draining"
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
        if series.number >= settings.attempts:
            return GiveUpReason.ATTEMPTS
        if 0 < settings.max_retry_after < (failure.retry_after or 0.0):
            return GiveUpReason.RETRY_AFTER
        if call.deadline != FOREVER and ambient.monotonic() + wait >= call.deadline:
            return GiveUpReason.DEADLINE
        return None

    def _give_up(self, call: Call, error: Exception, series: Series, reason: GiveUpReason) -> None:
        if self.settings.attempts == 1 and reason is GiveUpReason.ATTEMPTS:
            return  # it never meant to retry; another level may
        elapsed = self._tell(call, series, reason)
        made = "1 attempt" if series.number == 1 else f"{series.number} attempts"
        given_up.note(error, f"{self._where(call)} gave up after {made} in {elapsed:.3g} s: {_WORDS[reason]}")
        if reason not in (GiveUpReason.NOT_IDEMPOTENT, GiveUpReason.BODY_NOT_REPLAYABLE):
            given_up.mark(error)

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
