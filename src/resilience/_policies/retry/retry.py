"""Retry: retry a failed call if it is retryable, idempotent, within budget, and before the deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tenacity import TryAgain

from resilience._call import retry_marks
from resilience._call.ambient import inbound_attempt
from resilience._call.budget import PIPELINE, Inherit, RetryBudget
from resilience._call.call import Call, PipelineInfo
from resilience._call.keyed import Keyed
from resilience._call.retry_state import RetryState
from resilience._outcome import tenacity_adapter
from resilience._outcome.allowlist import Allowlist, Failure, FailureKind, default_failure
from resilience._outcome.ending import Ending, EndingKind
from resilience._outcome.tenacity_adapter import CallState
from resilience._outcome.unlisted import log_unlisted
from resilience._policies.retry.settings import AGAIN, DEFAULT_WAIT, On, RetrySettings, Stop, Wait
from resilience._policies.shapes import Loop, OnSuccess
from resilience._util.clock import FOREVER, clock
from resilience.errors import RejectedError
from resilience.events._bus import Subscription
from resilience.events._types import Event, GiveUpReason, Mode, ModeName, RetryGivenUp, RetryScheduled, type_name

_ABANDONED = EndingKind.ABANDONED
_RETRIED_REQUEST = f"the request being handled is a retry itself{retry_marks.NESTED_REASON}"


class Retry(Loop):
    """Retry a failed call if it is retryable, idempotent, within budget, and before the deadline.

    Args:
        attempts: the greatest number of attempts, the first included, >= 1; None for 3, or for no limit with `stop`.
        wait: the wait before each retry; None for full jitter from 0.1 s, doubling up to 10 s. It is a `backoff`, a
            `wait_*` of tenacity (their `+` included), a callable that takes a `tenacity.RetryCallState` and returns
            seconds, or a mapping of FailureKind to those, in which a missing kind has the default.
        on: what counts as a failure for this Retry; None for the failures of the pipeline. For awaited calls it may be
            an async predicate of exceptions, or an async `retry_if_*` of tenacity.
        stop: another condition on which to give up: a `stop_*` of tenacity (their `|` and `&` included), or a callable
            that takes a `tenacity.RetryCallState`. Its times are on the library's clock.
        budget: the retry budget, or a Partition of budgets; by default that of the pipeline, None for no limit.
        max_retry_after: the longest retry-after hint of a server to wait for, in seconds, >= 0. A hint is a lower bound
            of the wait; up to a fifth of it, at most 5 s, is added at random, so that calls with the same hint do not
            come back together. With a longer hint the Retry gives up at once, since the server would reject an earlier
            attempt. 0 ignores all hints, also those that permit to repeat a call that is not idempotent.
        nested: True to retry also failures that an inner Retry has given up on, and while a request is handled that is
            a retry of another process (see `resilience.asgi`); the attempts then multiply.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a retry is reported but not made.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    It gives up when no attempts are left, `stop` says so, the wait would end at or past the deadline, the budget is
    empty, the call is not idempotent, the failure is not retryable, the request cannot be sent again, the hint exceeds
    `max_retry_after`, an inner Retry has given up on the failure, or the request being handled is a retry itself. Then
    the original exception is raised (or the original bad result returned), with a note of the reason (PEP 678).

    Cancellation and other BaseExceptions are never retried, nor are rejections by policies: if a later attempt is
    rejected by an inner policy, the last real failure is raised.
    """

    kind = "retry"
    _repr_defaults: ClassVar[dict[str, Any]] = {"attempts": 3, "wait": DEFAULT_WAIT}
    settings: RetrySettings

    def __init__(
        self,
        attempts: int | None = None,
        *,
        wait: Wait | Mapping[FailureKind, Wait] | None = None,
        on: On | None = None,
        stop: Stop | None = None,
        budget: RetryBudget | Keyed[RetryBudget] | Inherit | None = PIPELINE,
        max_retry_after: float = 60.0,
        nested: bool = False,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        super().__init__(
            RetrySettings(
                attempts=attempts,
                wait=wait,
                on=on,
                stop=stop,
                budget=budget,
                max_retry_after=max_retry_after,
                nested=nested,
            ),
            name=name,
            mode=mode,
        )

    def on_success(self, info: PipelineInfo) -> OnSuccess | None:
        """Return the budget's `deposit`, which each successful attempt calls; None without a budget."""
        budget = self.settings.budget_in(info)
        return budget.deposit if isinstance(budget, RetryBudget) else None

    def budgets(self, info: PipelineInfo) -> Keyed[RetryBudget] | None:
        """Return the budget if it is a Partition of budgets, in which each success is deposited; else None."""
        budget = self.settings.budget_in(info)
        return budget if isinstance(budget, Keyed) else None

    def reset(self) -> None:
        """Reset the budget, if this Retry has a budget of its own."""
        own = self.settings.own_budget
        if own is not None:
            own.reset()

    def snapshot(self) -> dict[str, Any]:
        """Return the state of the budget as `budget`, if this Retry has a budget of its own; else an empty dict."""
        own = self.settings.own_budget
        return {} if own is None else {"budget": own.snapshot()}

    @property
    def _holds_state(self) -> bool:
        return type(self) is not Retry

    @property
    def failures(self) -> Allowlist | None:
        """The policy's own allowlist; None with the pipeline's allowlist, or with an async predicate."""
        return self.settings.listed

    def delay(self, call: Call, ending: Ending, state: RetryState) -> Any:
        """Return the seconds to wait before another attempt, or None to give up; an awaitable with an async `on`."""
        settings: RetrySettings
        settings = state.settings = state.settings or self.settings
        if settings.is_async:
            return self._delay_async(call, ending, state)
        own = settings.listed
        kind, failure = (ending.kind, ending.failure) if own is None else ending.by(own)
        if kind is _ABANDONED:  # a rejection by one of our policies
            return None
        return self._decide(call, ending, state, failure)

    async def _delay_async(self, call: Call, ending: Ending, state: RetryState) -> float | None:
        """Decide as `delay` does, with an async predicate."""
        error = ending.error
        assert isinstance(error, Exception)
        listed = not isinstance(error, RejectedError) and await tenacity_adapter.ask_async(state.settings.on, error)
        return self._decide(call, ending, state, default_failure(error) if listed else None)

    def _decide(self, call: Call, ending: Ending, state: RetryState, failure: Failure | None) -> float | None:
        """Return the seconds to wait, or None to give up. The budget comes last: only a retry withdraws from it."""
        error: Any = ending.error  # always an Exception: drivers call loops for nothing else
        info = call.pipeline
        settings: RetrySettings = state.settings
        budget = settings.budget_in(info)
        if isinstance(budget, Keyed):
            budget = budget.policy_of(call)
        if failure is None:
            if not isinstance(error, TryAgain):
                _let_through(info, ending, error, settings, budget)
                return None
            failure = AGAIN
        unsent = call.unsent
        if unsent is not None and failure.unprocessed is not unsent:
            failure = replace(failure, unprocessed=unsent)
        if not settings.nested and retry_marks.given_up_inside(error, state.inside):
            self._respect_mark(call, error, state)
            return None
        if budget is not None and budget.counts_failures and failure.counted:
            budget.failed()
        backoff, stopped = settings.backoff, False
        if backoff is None:
            wait, stopped = _strategy_wait(call, error, failure, state)
        else:
            wait = backoff.seconds(state.attempt_number, state.last_wait)
            if failure.retry_after is not None or wait.__class__ is not float or not 0.0 <= wait < FOREVER:
                wait = settings.with_hint(backoff, wait, failure)
        reason = _reason(call, failure, state, wait, stopped)
        if reason is None and budget is not None:
            paid = budget.affordable if state.shadow else budget.withdraw()
            state.budget = budget if paid and not state.shadow else None
            reason = None if paid else GiveUpReason.BUDGET
        if reason is not None:
            if not state.shadow:
                self._give_up(call, error, state, reason)
            return None
        if wanting := info.bus.listeners_for(RetryScheduled):
            mode = Mode.SHADOW if state.shadow else Mode.ENFORCE
            number = state.attempt_number
            facts = {"attempt": number, "wait": wait, "failure": failure, "mode": mode}
            self._publish(wanting, RetryScheduled, call, error, state, **facts)
        state.last_wait = wait
        return wait

    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, state: RetryState) -> None:
        """Note on the last real failure why the next attempt was not made, and refund its withdrawal to the budget."""
        if state.budget is not None:
            state.budget.refund()
            state.budget = None
        rejection = ending.error
        why: str = "draining" if rejection is None else "deadline"
        if isinstance(rejection, RejectedError):
            why = rejection.reason or type(rejection).__name__
        reason = retry_marks.REJECTIONS.get(why, why)
        retry_marks.note(error, f"attempt {state.attempt_number + 1} not made: {reason}")

    def _give_up(self, call: Call, error: Exception, state: RetryState, reason: GiveUpReason) -> None:
        """Publish the event, mark the exception as given up, and note the reason on it."""
        elapsed = self._publish_given_up(call, error, state, reason)
        # A Retry with attempts=1 does not retry by configuration, so an outer Retry may.
        if reason not in retry_marks.UNMARKED and state.settings.attempts != 1:
            retry_marks.mark(error, state.inside)
        made = "1 attempt" if state.attempt_number == 1 else f"{state.attempt_number} attempts"
        label = call.pipeline.label(self, self.name)
        why = retry_marks.REASONS.get(reason, _RETRIED_REQUEST)
        retry_marks.note(error, f"{label} gave up after {made} in {elapsed:.3g} s: {why}")

    def _respect_mark(self, call: Call, error: Exception, state: RetryState) -> None:
        """Give up on a failure that an inner Retry has given up on."""
        if state.shadow:
            return
        self._publish_given_up(call, error, state, GiveUpReason.NESTED)
        retry_marks.mark(error, state.inside)
        inner = retry_marks.noted(error).partition(retry_marks.NESTED_REASON)[0]
        first = inner or "an inner Retry had given up on the cause"
        label = call.pipeline.label(self, self.name)
        retry_marks.note(error, f"{first}{retry_marks.NESTED_REASON}, so {label} did not retry (nested=True would)")

    def _publish_given_up(self, call: Call, error: Exception, state: RetryState, reason: GiveUpReason) -> float:
        """Publish that this Retry gave up; return the seconds since the first attempt began."""
        elapsed = clock.monotonic() - state.started
        if wanting := call.pipeline.bus.listeners_for(RetryGivenUp):
            facts = {"attempts": state.attempt_number, "elapsed": elapsed, "reason": reason}
            self._publish(wanting, RetryGivenUp, call, error, state, **facts)
        return elapsed

    def _publish(
        self,
        wanting: Sequence[Subscription],
        kind: type[Event],
        call: Call,
        error: Exception,
        state: RetryState,
        **facts: Any,
    ) -> None:
        facts |= {"max_attempts": state.settings.attempts, "error_type": type_name(error)}
        call.pipeline.publish_to(wanting, kind, self, call, **facts)


def _let_through(
    info: PipelineInfo, ending: Ending, error: Exception, settings: RetrySettings, budget: RetryBudget | None
) -> None:
    """Handle an exception that is not a failure: a known answer counts as a success; another is logged once."""
    kind = ending.by(settings.listed)[0]
    if budget is not None and kind is EndingKind.OK:
        budget.deposit()
    elif kind is EndingKind.ERROR:
        log_unlisted(info.name, error)


def _strategy_wait(call: Call, error: Exception, failure: Failure, state: RetryState) -> tuple[float, bool]:
    """Return the wait, and whether `stop` ends the retries; for tenacity's strategies and waits by failure kind."""
    settings: RetrySettings = state.settings
    strategy: Any = settings.only if settings.waits is None else settings.waits[failure.kind]
    stop = settings.stop
    retried = state.strategy_state
    if retried is None:
        retried = state.strategy_state = CallState(state.started, call.function, call.args, call.kwargs)
    retried.ended(state.attempt_number, error)
    try:
        wait = settings.with_hint(strategy, strategy(retried), failure)
        retried.about_to_sleep(wait)
        stopped = stop is not None and bool(stop(retried))
        retried.idle_for += wait
        return wait, stopped
    finally:
        retried.forget()


def _reason(call: Call, failure: Failure, state: RetryState, wait: float, stopped: bool) -> GiveUpReason | None:
    """Return why to give up, the budget aside; None if another attempt may be made."""
    settings: RetrySettings = state.settings
    if not failure.retryable:
        return GiveUpReason.NOT_RETRYABLE
    if call.idempotent is False:
        permitted = failure.unprocessed and (failure.retry_after is None or settings.max_retry_after > 0)
        if not permitted:
            return GiveUpReason.NOT_IDEMPOTENT
    if not call.replayable:
        return GiveUpReason.BODY_NOT_REPLAYABLE
    if settings.attempts is not None and state.attempt_number >= settings.attempts:
        return GiveUpReason.ATTEMPTS
    if not settings.nested and inbound_attempt(state.inside) > 1:
        return GiveUpReason.NESTED
    if stopped:
        return GiveUpReason.STOP
    if failure.retry_after is not None and 0 < settings.max_retry_after < failure.retry_after:
        return GiveUpReason.RETRY_AFTER
    if not state.fits(call, wait):
        return GiveUpReason.DEADLINE
    return None
