"""One call of a Race: its attempts, and what becomes of them. The drivers of both families make them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from resilience._call.call import PipelineInfo
from resilience._call.running_call import DeadlineSource, RunningCall
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import ABANDONED, Ending
from resilience._policies.base import Policy
from resilience._policies.shapes import OnSuccess, Race, RaceState
from resilience._util.clock import FOREVER, clock
from resilience._util.log_once import hook_failed
from resilience.errors import CarriedResult
from resilience.events._policy_types import HedgeEnded, HedgeResult, HedgeStarted
from resilience.events._types import Mode


class Attempt:
    """One attempt of a race.

    Attributes:
        number: its number, from 1.
        call: the call that it makes: a copy, or for the first attempt in a task the call itself.
        calls_before: how often the function had been called when the copy was made.
        ended: whether it has ended.
        result: what it returned.
        error: the exception that it raised; None if it returned.
    """

    __slots__ = ("call", "calls_before", "ended", "error", "number", "result")

    def __init__(self, number: int, call: RunningCall) -> None:
        self.number = number
        self.call = call
        self.calls_before = call.calls_made
        self.ended = False
        self.result: Any = None
        self.error: BaseException | None = None


class _Outside(NamedTuple):
    """The state of a call as it is outside of a Race."""

    pipeline: PipelineInfo
    attempt: int
    deadline: float
    deadline_source: DeadlineSource
    total_deadline: float
    total_deadline_source: DeadlineSource

    def apply_to(self, call: RunningCall) -> RunningCall:
        """Set the state of a copy of the call, and return that."""
        call.pipeline = self.pipeline
        call.attempt = self.attempt
        call.deadline = self.deadline
        call.deadline_source = self.deadline_source
        call.total_deadline = self.total_deadline
        call.total_deadline_source = self.total_deadline_source
        return call


class Contest:
    """One call of a Race.

    Args:
        race: the policy.
        state: its state for this call.
        call: the call.

    Attributes:
        attempts: the attempts that were started.
        fatal: the exception that ended the race whatever the policy says, such as a KeyboardInterrupt; else None.
    """

    __slots__ = ("_begun", "_call", "_outside", "_race", "_state", "attempts", "fatal")

    def __init__(self, race: Race, state: RaceState, call: RunningCall, begun: float) -> None:
        self._race = race
        self._state = state
        self._call = call
        self._begun = begun
        # The first attempt of a task uses the call itself, and the policies inside change these for as long as it runs.
        self._outside = _Outside(
            call.pipeline,
            call.attempt,
            call.deadline,
            call.deadline_source,
            call.total_deadline,
            call.total_deadline_source,
        )
        self.attempts: list[Attempt] = []
        self.fatal: BaseException | None = None

    @property
    def over(self) -> bool:
        """Whether the outcome of the call is known, or can only be that it was interrupted."""
        return self._state.winner is not None or self.fatal is not None

    def next_at(self) -> float:
        """Return when the next attempt is due, in seconds of the library's monotonic clock; FOREVER for none."""
        now = clock.monotonic()
        wait = None if self.over else self._state.wait(now)
        return FOREVER if wait is None else now + wait

    def start_next(self, *, copied: bool = True) -> Attempt | None:
        """Return the attempt to start now; None if none is due.

        Args:
            copied: whether the attempt gets a copy of the call; otherwise the call itself.
        """
        now = clock.monotonic()
        if self.fatal is not None or not self._should_start(now):
            return None
        number = len(self.attempts) + 1
        call = self._outside.apply_to(self._call.copy()) if copied else self._call
        attempt = Attempt(number, call)
        call.attempt = self._outside.attempt + number - 1
        self.attempts.append(attempt)
        if number > 1:
            self._publish(HedgeStarted, attempt=number, after=now - self._begun, mode=Mode.ENFORCE)
        return attempt

    def ended(self, attempt: Attempt) -> None:
        """Take note that an attempt has ended, by its `result` or `error`."""
        attempt.ended = True
        error = attempt.error
        if error is not None and not isinstance(error, Exception):
            self.fatal = error
            return
        ending = attempt.call.good if error is None else attempt.call.ending_of(error)
        try:
            self._state.settle(attempt.number, ending, clock.monotonic())
        except Exception as failure:
            hook_failed("settle of a policy", self._race, failure)
            self.fatal = error or failure

    def stand_in(self) -> Attempt:
        """Return an attempt where the policy has started none: the call is made all the same."""
        attempt = Attempt(1, self._outside.apply_to(self._call.copy()))
        self.attempts.append(attempt)
        return attempt

    def lost(self, attempt: Attempt) -> None:
        """Take note that an attempt was cancelled, or is left to itself, since another one has won."""
        self._state.cancelled(attempt.number, clock.monotonic())

    def cancelled(self, attempt: Attempt) -> None:
        """Take note that an attempt was cancelled from outside, or not made after all."""
        attempt.ended = True
        self._state.settle(attempt.number, ABANDONED, clock.monotonic())

    def losers(self) -> list[Attempt]:
        """Return the attempts that are not the outcome of the call."""
        return [one for one in self.attempts if one.number != self._state.winner]

    def finish(self) -> Any:
        """Return the result of the call, or raise its exception; to be called once no attempt of a task runs."""
        call = self._call
        winner = self.attempts[(self._state.winner or 1) - 1]
        for one in self.attempts:
            if one.call is not call:
                call.calls_made += one.call.calls_made - one.calls_before
                one.call.ending = None  # it refers to the exception, whose frames refer to the call
        call.attempt += len(self.attempts) - 1
        call.inside = winner.call.inside
        call.deferred = joined([winner, *self.losers()])
        if (result := self._state.result) is not None:
            self._publish(HedgeEnded, result=result, attempts=len(self.attempts), mode=Mode.ENFORCE)
        error, winner.error = self.fatal or winner.error, None
        for one in self.attempts:
            one.error = None
        if error is None:
            return winner.result
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    def _should_start(self, now: float) -> bool:
        try:
            return self._state.should_start(now)
        except Exception as error:
            hook_failed("should_start of a policy", self._race, error)
            return not self.attempts

    def _publish(self, kind: Any, **facts: Any) -> None:
        self._outside.pipeline.publish(kind, self._race, self._call, **facts)


def joined(attempts: Sequence[Attempt]) -> DeferredSettlement | None:
    """Return the settlement of the first attempt, which also waits for the work that the others have left running."""
    first, *others = attempts
    deferred = first.call.deferred
    for one in others:
        left = one.call.deferred
        if left is not None and not left.ended and left is not deferred:
            deferred = left.join(deferred)
    return deferred


def result_of(error: BaseException | None, result: Any) -> Any:
    """Return what an attempt returned, also if it travelled as an exception; None if it failed."""
    if isinstance(error, CarriedResult):
        return error.result
    return result if error is None else None


def call_on_success(race: Race, on_success: OnSuccess | None) -> None:
    """Call the function that wants to know of a success, if there is one. If it fails, log that once."""
    if on_success is not None:
        try:
            on_success()
        except Exception as error:
            hook_failed("on_success of a policy", race, error)


def begin(race: Race, call: RunningCall, inside: tuple[Policy[Any], ...]) -> tuple[RaceState | None, float]:
    """Return the state of a race for a call, or None for a call to be made once; and the time now."""
    now = clock.monotonic()
    try:
        return race.begin(call, now, partial(_permitted, inside, call)), now
    except Exception as error:
        hook_failed("begin of a policy", race, error)
        return None, now


def _permitted(inside: tuple[Policy[Any], ...], call: RunningCall) -> bool:
    return all(policy.permits_hedge(call) for policy in inside)


class ShadowContest:
    """One call of a Race in shadow mode: it takes note of when a further attempt was due.

    Args:
        race: the policy.
        state: its state for this call, of which the first attempt was started.
        call: the call.
        begun: when it began.
    """

    __slots__ = ("_begun", "_call", "_due", "_race", "_state")

    def __init__(self, race: Race, state: RaceState, call: RunningCall, begun: float) -> None:
        self._race = race
        self._state = state
        self._call = call
        self._begun = begun
        wait = state.wait(begun)
        self._due = FOREVER if wait is None else wait

    def ended(self, ending: Ending) -> None:
        """Settle the race, and report an attempt that would have been started, or that would have been refused."""
        state, now = self._state, clock.monotonic()
        after: float | None = None
        try:
            if now - self._begun >= self._due and state.should_start(now):
                after = self._due
                state.settle(2, ABANDONED, now)  # it is not made, and so not paid
                state.settle(1, ending, now)
            else:
                state.settle(1, ending, now)
                wait = state.wait(now)  # a failure makes the next attempt due
                if state.winner is None and wait is not None and state.should_start(now + wait):
                    after = now + wait - self._begun
                    state.settle(2, ABANDONED, now)
        except Exception as error:
            hook_failed("settle of a policy", self._race, error)
        publish, common = self._call.pipeline.publish, {"mode": Mode.SHADOW}
        if after is not None:
            publish(HedgeStarted, self._race, self._call, attempt=2, after=after, **common)
        elif state.result is HedgeResult.REFUSED:
            publish(HedgeEnded, self._race, self._call, result=HedgeResult.REFUSED, attempts=1, **common)


def begin_shadow(race: Race, decide: Race, call: RunningCall, inside: tuple[Policy[Any], ...]) -> ShadowContest | None:
    """Return a race in shadow mode, about which `decide` decides; None for a call that the policy does not race."""
    state, now = begin(decide, call, inside)
    try:
        if state is None or not state.should_start(now):
            return None
        return ShadowContest(race, state, call, now)
    except Exception as error:
        hook_failed("should_start of a policy", race, error)
        return None
