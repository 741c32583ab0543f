"""`poll`: ask for the state of a long-running job until it is done."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Generic, Never, TypeVar

from resilience import (
    Caller,
    DeadlineExceededError,
    Failure,
    RejectedError,
    RejectReason,
    Retry,
    UsageError,
    backoff,
    current_deadline,
    deadline_after,
)
from resilience._call.callables import name_of
from resilience._call.running_call import RunningCall
from resilience._outcome import http_status
from resilience._outcome.server_hints import hints_of
from resilience._runtime import cancellations, checkpoint, sleep, threads
from resilience._util import validation
from resilience._util.clock import clock
from resilience._util.log_once import hook_failed
from resilience.backoff import Backoff
from resilience.jobs._guard import caller_of

StateT = TypeVar("StateT")

_LONGEST_SHOWN = 100
_LONGEST_HINT = 1e9
_LONGEST_TIMEOUT = 1e8
_SHORTEST_HINT = 0.01
"""The least seconds that a hint other than 0 stands for: to ask again sooner would be a load test."""


class PollTimeoutError(DeadlineExceededError):
    """The deadline of a poll passed, or would pass while it waits, and the job was not done.

    Args:
        message: how long it has polled.
        last_state: the last state that the call returned; None if it has returned none.
        polls: how often the state was asked for, without calls that a policy has rejected.

    If the last call failed, its exception is the cause.
    """

    def __init__(
        self, message: str = "the job was not done in time", *, last_state: Any = None, polls: int = 0
    ) -> None:
        super().__init__(message)
        self.last_state = last_state
        self.polls = polls


def poll(
    call: Callable[[], StateT],
    *,
    until: Callable[[StateT], bool],
    timeout: float,
    pipeline: Caller[Never] | None = None,
    wait: Backoff | None = None,
    hint: Callable[[StateT], float | None] | None = None,
) -> StateT:
    """Call a function until its result says that a long-running job is done, and return that result.

    Args:
        call: asks for the state, such as by a GET; it is repeated, so it must be idempotent.
        until: called with the state; returns whether it is final, also if the job has failed.
        timeout: the time for the whole poll in seconds, from 0 to 1e8; an earlier deadline of the caller applies.
        pipeline: what each call is made through; None for no policies. Its failures decide which outcomes of `call` are
            failures.
        wait: the wait between two calls; None for 1 s at first, growing by half up to 30 s, with a quarter of jitter.
        hint: called with the state; returns the seconds to wait that the server asks for, or None for none. By default
            that is the Retry-After (RFC 9110 10.2.3) of an object that has `headers`, such as a response. 0 is none,
            and less than 0.01 s is 0.01 s.

    Returns:
        The first state for which `until` is true.

    Raises:
        PollTimeoutError: the deadline passed, or the next wait would end past it. It is a DeadlineExceededError.
        RejectedError: the pipeline is being drained.
        TypeError, ValueError: a parameter has the wrong type or is out of range.

    A failure of a call, or a rejection by a policy, does not end the poll: it waits, for at least its `retry_after`,
    and asks again. Any other exception of `call`, and all of `until` and `hint`, come out. A hint replaces the wait,
    and up to a fifth of it, at most 5 s, is added at random.
    """
    with deadline_after(_checked(timeout)):
        poller = _Poller(call, until, pipeline, wait, hint)
        with poller.in_flight():
            while True:
                try:
                    state = poller.guard.call(call)
                except Exception as error:
                    seconds = poller.failed(error)
                else:
                    if poller.is_done(state):
                        return state
                    seconds = poller.next_wait(state)
                threads.sleep(poller.waiter, clock.monotonic() + seconds)


async def apoll(
    call: Callable[[], Awaitable[StateT]],
    *,
    until: Callable[[StateT], bool],
    timeout: float,
    pipeline: Caller[Never] | None = None,
    wait: Backoff | None = None,
    hint: Callable[[StateT], float | None] | None = None,
) -> StateT:
    """Do what `poll` does, in a task of asyncio or trio, with an async `call`. Its deadline cancels the call."""
    with deadline_after(_checked(timeout)):
        poller = _Poller(call, until, pipeline, wait, hint)
        with poller.in_flight():
            while True:
                try:
                    state = await poller.guard.acall(call)
                except Exception as error:
                    seconds = poller.failed(error)
                else:
                    if poller.is_done(state):
                        return state
                    seconds = poller.next_wait(state)
                if seconds > 0:
                    await sleep(poller.waiter, clock.monotonic() + seconds)
                else:
                    await checkpoint()


class _Poller(Generic[StateT]):
    """One poll: how long to wait for the next call, and when to end. It neither calls nor waits.

    Attributes:
        guard: what calls are made through.
        waiter: what a wait is for: a drain of the pipeline ends it.
    """

    def __init__(
        self,
        call: Callable[[], Any],
        until: Callable[[StateT], bool],
        pipeline: Caller[Never] | None,
        wait: Backoff | None,
        hint: Callable[[StateT], float | None] | None,
    ) -> None:
        for name, function in (("call", call), ("until", until), ("hint", hint)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function, not {function!r}")
        caller = caller_of(pipeline)
        self._entry, self._options = caller.entry()
        operation = self._options.operation or name_of(call)
        self.guard = caller.bind(operation=operation)
        self.waiter = RunningCall.make(self._options, call, (), {})
        self._operation = operation
        self._until = until
        own = backoff.proportional(1.0, cap=30.0, factor=1.5) if wait is None else wait
        settings = Retry(wait=own, max_retry_after=_LONGEST_HINT).settings
        if settings.backoff is None:
            raise TypeError(f"wait must be a backoff, such as resilience.backoff.fixed(5.0), not {wait!r}")
        self._wait = settings.backoff
        self._with_hint = settings.with_hint
        self._hint = hint or _hint_of_response
        self._started = clock.monotonic()
        self._cancellations = cancellations()
        self._polls = 0
        self._rounds = 0  # polls, and those that a policy has rejected
        self._last_wait: float | None = None
        self._last_state: Any = None

    @contextmanager
    def in_flight(self) -> Generator[None]:
        """Count the poll as a call in flight of the pipeline, also while it waits, so that a drain ends it."""
        try:
            self._entry.in_flight.calls.add(self.waiter)
            yield
        finally:
            self._entry.in_flight.leave(self.waiter)

    def is_done(self, state: StateT) -> bool:
        """Return whether a state is final. What the pipeline lists as a failure is no state."""
        self._rounds += 1
        self._polls += 1
        if self._classified(state) is not None:
            return False
        self._last_state = state
        done: Any = self._until(state)
        if inspect.isawaitable(done):
            if inspect.iscoroutine(done):
                done.close()
            raise UsageError("until must be a plain function, not an async one")
        return bool(done)

    def next_wait(self, state: StateT) -> float:
        """Return the seconds to wait after a state that is not final."""
        failure = self._classified(state)
        hint = Failure(retry_after=self._hint(state) if failure is None else failure.retry_after).retry_after
        if not hint:  # one of 0 is none
            return self._seconds(self._backoff(), Failure())
        return self._seconds(0.0, Failure(retry_after=max(hint, _SHORTEST_HINT)))

    def failed(self, error: Exception) -> float:
        """Return the seconds to wait after an exception, or raise it if it ends the poll."""
        self._rounds += 1
        if not (isinstance(error, RejectedError) or (isinstance(error, DeadlineExceededError) and error.unprocessed)):
            self._polls += 1
        if cancellations() > self._cancellations:
            raise error
        if isinstance(error, RejectedError):
            if error.reason is RejectReason.DRAINING:
                raise error
            failure: Failure | None = Failure(retry_after=error.retry_after)
        elif isinstance(error, DeadlineExceededError):
            failure = Failure()
        else:
            failure = self._classified(error)
        if failure is None:
            raise error
        return self._seconds(self._backoff(), failure, error)

    def _classified(self, outcome: object) -> Failure | None:
        failures = self._options.pipeline.failures or self._options.failures
        try:
            return failures.classify(outcome)
        except Exception as error:
            hook_failed("predicate of an allowlist", failures, error)
            return None

    def _backoff(self) -> float:
        return self._wait.seconds(self._rounds, self._last_wait)

    def _seconds(self, own: float, failure: Failure, error: Exception | None = None) -> float:
        """Return the seconds to wait, or raise the error of a poll that must end."""
        if self.waiter.retries_stopped:
            pipeline = self._options.pipeline.name
            raise RejectedError(
                f"{pipeline or 'the pipeline'} is being drained", pipeline=pipeline, reason=RejectReason.DRAINING
            ) from error
        seconds = self._with_hint(self._wait, own, failure)
        at = current_deadline()
        now = clock.monotonic()
        if at is not None and now + seconds >= at:
            raise self._timeout(now, seconds, at) from error
        self._last_wait = seconds
        return seconds

    def _timeout(self, now: float, seconds: float, at: float) -> PollTimeoutError:
        """Return the error of a poll whose deadline has passed, or passes during the next wait."""
        times = "once" if self._polls == 1 else f"{self._polls} times"
        why = "the deadline passed" if now >= at else f"the next wait, of {seconds:.3g} s, would end past the deadline"
        error = PollTimeoutError(
            f"{self._operation} was called {times} in {now - self._started:.3g} s, and the job was not done; {why}",
            last_state=self._last_state,
            polls=self._polls,
        )
        error.add_note(f"resilience: the last state was {_shown(self._last_state)}")
        return error


def _checked(timeout: float) -> float:
    """Return the validated timeout: a poll without an end might wait for ever."""
    return validation.number("timeout", timeout, high=_LONGEST_TIMEOUT)


def _hint_of_response(state: object) -> float | None:
    """Return the Retry-After of a response; None for any other object."""
    headers = http_status.headers_of(state)
    return None if headers is None else hints_of(headers, http_status.status_of(state) or 202).retry_after


def _shown(state: object) -> str:
    """Return a short state as it is; of others, which may be confidential, the type or the status."""
    if state is None or isinstance(state, bool | int | float | Enum):
        return repr(state)
    if isinstance(state, str) and len(state) <= _LONGEST_SHOWN:
        return repr(state)
    status = http_status.status_of(state)
    return f"an object of type {type(state).__name__}" + ("" if status is None else f" with status {status}")
