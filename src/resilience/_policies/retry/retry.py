"""Retry: try again, if it is worth it, safe, paid for, and in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from tenacity import TryAgain

from resilience._call import retry_marks
from resilience._call.budget import RetryBudget
from resilience._call.call import Call, PipelineInfo
from resilience._outcome import tenacity_adapter
from resilience._outcome.allowlist import Allowlist, Failure, FailureKind, default_failure
from resilience._outcome.ending import Ending, EndingKind
from resilience._outcome.tenacity_adapter import CallState
from resilience._policies.retry.settings import AGAIN, DEFAULT_WAIT, PIPELINE, Inherit, On, RetrySettings, Stop, Wait
from resilience._policies.shapes import Loop, RetryState
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import unlisted
from resilience.backoff import Backoff
from resilience.errors import RejectedError
from resilience.events._types import GiveUpReason, Mode, RetryGivenUp, RetryScheduled


class Retry(Loop):
    """Call again after a failure.

    Args:
        attempts: calls in all, the first included, >= 1; None means 3, or no limit where `stop` is given.
        wait: the wait before each retry; None means full jitter, 0.1 s doubling up to 10 s. A mapping by FailureKind
            gives each kind its own; one that it does not have keeps the default. tenacity's `wait_*` and their `+`
            are taken, too, and plain callables that take its state.
        on: what counts as a failure here; None means the pipeline's failures. For awaited calls it may be an async
            predicate of exceptions, or an async `retry_if_*` of tenacity.
        stop: when to give up besides: a `stop_*` of tenacity, their `|` and `&`, or a callable that takes its state.
            Its times are those of the ambient clock.
        budget: who pays for retries; by default the pipeline's budget. None: nobody, there is no limit.
        max_retry_after: the longest hint of a server's, in seconds >= 0, that is waited for. A hint is a floor under
            the wait; with a longer one, the Retry gives up at once, since coming back early would be refused and
            sleeping on would be in vain. 0 ignores hints, also one that permits to repeat what is not idempotent.
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
    _repr_defaults: ClassVar[dict[str, Any]] = {"attempts": 3, "wait": DEFAULT_WAIT}
    settings: RetrySettings

    def __init__(
        self,
        attempts: int | None = None,
        *,
        wait: Wait | Mapping[FailureKind, Wait] | None = None,
        on: On | None = None,
        stop: Stop | None = None,
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
                on=on,
                stop=stop,
                budget=budget,
                max_retry_after=max_retry_after,
                nested=nested,
            ),
            name=name,
            mode=mode,
        )
        self._settings_changed()

    def on_success(self, site: PipelineInfo) -> Callable[[], object] | None:
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

    def _settings_changed(self) -> None:
        """Keep at hand what each decision needs."""
        settings = self.settings
        own: object = settings.on
        self._listed = own if isinstance(own, Allowlist) else None
        self._asks = own is not None and self._listed is None
        self._inherits = isinstance(settings.budget, Inherit)
        self._backoff = settings.only if isinstance(settings.only, Backoff) and settings.stop is None else None

    @property
    def failures(self) -> Allowlist | None:
        """This policy's own allowlist; None: that of the pipeline, or an async predicate."""
        return self._listed

    def delay(self, call: Call, ending: Ending, series: RetryState) -> Any:
        """Decide; an async predicate makes that something to be awaited."""
        if self._asks:
            return self._delay_later(call, ending, series)
        own = self._listed
        return self._decide(call, ending, series, ending.failure if own is None else ending.failure_by(own))

    async def _delay_later(self, call: Call, ending: Ending, series: RetryState) -> float | None:
        error = ending.error
        assert isinstance(error, Exception)
        listed = not isinstance(error, RejectedError) and await tenacity_adapter.ask_async(self.settings.on, error)
        return self._decide(call, ending, series, default_failure(error) if listed else None)

    def _decide(self, call: Call, ending: Ending, series: RetryState, failure: Failure | None) -> float | None:
        """Decide; the cheap and certain reasons come first, the budget last: what is not made costs nothing."""
        error: Any = ending.error  # an Exception: nothing else is asked about
        settings = self.settings
        budget = call.pipeline.budget if self._inherits else self._budget(call.pipeline)
        unsent = call.unsent
        if unsent is not None and failure is not None and failure.unprocessed is not unsent:
            failure = replace(failure, unprocessed=unsent)
        if failure is None and isinstance(error, TryAgain):
            failure = AGAIN
        if failure is None:
            kind = ending.kind_by(self._listed)
            if budget is not None and kind is EndingKind.OK:
                budget.deposit()
            elif kind is EndingKind.ERROR:
                unlisted(call.pipeline.name, error)
            return None
        if not settings.nested and retry_marks.marked_since(error, series.last_mark):
            if not series.shadow:
                self._tell(call, series, GiveUpReason.NESTED)
                retry_marks.mark(error)
                self._note_nested(call, error)
            return None
        if budget is not None and failure.counted:
            budget.failed()
        plain, stopped = self._backoff, False
        if plain is not None:
            wait = plain.seconds(series.attempt_number, series.last_wait)
            if failure.retry_after is not None or wait.__class__ is not float or not 0.0 <= wait < FOREVER:
                wait = self._floored(plain, wait, failure)
        else:
            wait, stopped = self._wait(call, error, failure, series)
        reason = self._reason(call, failure, series, wait, stopped=stopped)
        if reason is None and budget is not None:
            # A retry that is not made is not paid for.
            paid = budget.affordable if series.shadow else budget.withdraw()
            series.budget = budget if paid and not series.shadow else None
            reason = None if paid else GiveUpReason.BUDGET
        if reason is not None:
            if not series.shadow:
                self._give_up(call, error, series, reason)
            return None
        site = call.pipeline
        if wanting := site.bus.listeners_for(RetryScheduled):
            mode = Mode.SHADOW if series.shadow else Mode.ENFORCE
            number = series.attempt_number
            site.publish_to(wanting, RetryScheduled, self, call, attempt=number, wait=wait, failure=failure, mode=mode)
        series.last_wait = wait
        return wait

    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, series: RetryState) -> None:
        """Say on the last real failure why there was no other attempt, and take back what was paid for it."""
        if series.budget is not None:
            series.budget.refund()
            series.budget = None
        refusal = ending.error
        why: str = "draining" if refusal is None else "deadline"
        if isinstance(refusal, RejectedError):
            why = refusal.reason or type(refusal).__name__
        retry_marks.note(error, f"attempt {series.attempt_number + 1} not made: {retry_marks.REJECTIONS.get(why, why)}")

    def _budget(self, site: PipelineInfo) -> RetryBudget | None:
        budget = self.settings.budget
        return site.budget if isinstance(budget, Inherit) else budget

    def _wait(self, call: Call, error: Exception, failure: Failure, series: RetryState) -> tuple[float, bool]:
        """Return the wait, and whether the stop condition is met."""
        settings = self.settings
        strategy, stop = settings.waits[failure.kind], settings.stop
        state = series.strategy_state
        if state is None:
            state = series.strategy_state = CallState(series.started, call.function, call.args, call.kwargs)
        state.ended(series.attempt_number, error)
        try:
            wait = self._floored(strategy, strategy(state), failure)
            state.about_to_sleep(wait)
            stopped = stop is not None and bool(stop(state))
            state.idle_for += wait
            return wait, stopped
        finally:
            state.forget()

    def _floored(self, strategy: object, seconds: Any, failure: Failure) -> float:
        """Return the wait of a strategy, or the server's hint if that is longer."""
        wait: float = seconds
        if seconds.__class__ is not float or not 0.0 <= seconds < FOREVER:
            wait = validation.number(f"what {strategy!r} returns", seconds)
        if failure.retry_after is not None and self.settings.max_retry_after > 0:
            wait = max(wait, failure.retry_after)
        return wait

    def _reason(
        self, call: Call, failure: Failure, series: RetryState, wait: float, *, stopped: bool
    ) -> GiveUpReason | None:
        settings = self.settings
        if not failure.retryable:
            return GiveUpReason.NOT_RETRYABLE
        permitted = failure.unprocessed and (failure.retry_after is None or settings.max_retry_after > 0)
        if not permitted and call.idempotent is False:
            return GiveUpReason.NOT_IDEMPOTENT
        if not call.replayable:
            return GiveUpReason.BODY_NOT_REPLAYABLE
        if settings.attempts is not None and series.attempt_number >= settings.attempts:
            return GiveUpReason.ATTEMPTS
        if stopped:
            return GiveUpReason.STOP
        if failure.retry_after is not None and 0 < settings.max_retry_after < failure.retry_after:
            return GiveUpReason.RETRY_AFTER
        if (wait > 0 or call.deadline != FOREVER) and not series.fits(call, wait):
            return GiveUpReason.DEADLINE
        return None

    def _give_up(self, call: Call, error: Exception, series: RetryState, reason: GiveUpReason) -> None:
        elapsed = self._tell(call, series, reason)
        # A Retry of one attempt never meant to retry; another level may.
        if reason not in retry_marks.UNMARKED and self.settings.attempts != 1:
            retry_marks.mark(error)
        made = "1 attempt" if series.attempt_number == 1 else f"{series.attempt_number} attempts"
        retry_marks.note(
            error, f"{self._where(call)} gave up after {made} in {elapsed:.3g} s: {retry_marks.REASONS[reason]}"
        )

    def _tell(self, call: Call, series: RetryState, reason: GiveUpReason) -> float:
        elapsed = clock.monotonic() - series.started
        call.pipeline.publish(RetryGivenUp, self, call, attempts=series.attempt_number, elapsed=elapsed, reason=reason)
        return elapsed

    def _note_nested(self, call: Call, error: Exception) -> None:
        inner = retry_marks.noted(error).partition(retry_marks.NESTED_REASON)[0]
        first = inner or "a Retry further in had given up on the cause"
        retry_marks.note(
            error, f"{first}{retry_marks.NESTED_REASON}, so {self._where(call)} did not (nested=True would)"
        )

    def _where(self, call: Call) -> str:
        name = call.pipeline.name_of(self) or self.name
        return f"{name} of {call.pipeline.name}" if call.pipeline.name else name
