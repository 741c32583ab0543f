"""CircuitBreaker: reject calls to a dependency that fails, and probe whether it has recovered."""

from __future__ import annotations

from functools import partial
from typing import Any

from resilience._call.call import Call
from resilience._outcome.allowlist import Allowlist, Failures
from resilience._outcome.ending import OK, Ending
from resilience._policies.breaker.machine import StateMachine
from resilience._policies.breaker.publishing import log_if_unlisted, publish_change
from resilience._policies.breaker.settings import GOOD, BreakerSettings
from resilience._policies.breaker.state import (
    HALF_OPEN,
    ISOLATED,
    OPEN,
    Change,
    Generation,
    Probe,
    Rejection,
    TimedCall,
    Token,
    Trigger,
)
from resilience._policies.breaker.window import TimeWindow
from resilience._policies.shapes import Gate
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import put_off
from resilience._util.locks import inside_state
from resilience.events._types import BreakerState, Mode, ModeName


class CircuitBreaker(Gate[Token]):
    """Reject calls while the dependency is failing; then admit a few probes to see whether it has recovered.

    Args:
        failure_rate: the share of failures in the window from which on it opens, in (0, 1].
        min_calls: the number of calls in the window below which neither rate opens it, >= 1.
        window: the length of the window in seconds, >= 0.001. It moves in steps of a tenth.
        window_calls: if given, the window is the last `window_calls` calls, >= 1, and `window` is ignored.
        consecutive_failures: the number of consecutive failures that opens it, >= 1; half of it, rounded up, while the
            window holds fewer than `min_calls`, so that a client with little traffic opens it, too. None to ignore
            them.
        slow_after: the seconds, > 0, from which on a call is slow, for a stream up to its head; None: no call is.
        slow_call_rate: the share of slow calls in the window from which on it opens, in (0, 1].
        open_for: the seconds to stay open, > 0, multiplied by U(0.8, 1.2) so that clients do not all retry at once.
        open_growth: the factor on `open_for` for each consecutive half-open period that failed, >= 1.
        max_open_for: the longest time to stay open, in seconds, > 0.
        half_open_calls: the number of probes that must succeed before it closes, and that may run at once, >= 1.
        probe_timeout: the seconds after which the place of an unfinished probe is given to another, > 0. None: at the
            deadline of its call, or after 60 s without a deadline.
        on: what counts as a failure for this breaker; None for the failures of the pipeline.
        name: see `Policy`.
        mode: see `Policy`.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    A rejected call raises `CircuitOpenError`. A returned value or a known answer is a success. A listed failure that is
    `counted`, or a timeout by a Timeout of the pipeline, is a failure. All other endings are neutral: other exceptions,
    cancellation, rejections by inner policies. Only the ending of a failed or slow call can open the breaker. A call
    that was admitted before the last change of state has no effect when it ends.
    """

    kind = "breaker"
    settings: BreakerSettings

    def __init__(
        self,
        failure_rate: float = 0.7,
        min_calls: int = 20,
        *,
        window: float = 10.0,
        window_calls: int | None = None,
        consecutive_failures: int | None = 10,
        slow_after: float | None = None,
        slow_call_rate: float = 1.0,
        open_for: float = 0.5,
        open_growth: float = 1.25,
        max_open_for: float = 30.0,
        half_open_calls: int = 1,
        probe_timeout: float | None = None,
        on: Failures | None = None,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        super().__init__(
            BreakerSettings(
                failure_rate=failure_rate,
                min_calls=min_calls,
                window=window,
                window_calls=window_calls,
                consecutive_failures=consecutive_failures,
                slow_after=slow_after,
                slow_call_rate=slow_call_rate,
                open_for=open_for,
                open_growth=open_growth,
                max_open_for=max_open_for,
                half_open_calls=half_open_calls,
                probe_timeout=probe_timeout,
                on=None if on is None else Allowlist.of(on),
            ),
            name=name,
            mode=mode,
        )
        self._machine = StateMachine(self.settings)

    @property
    def _expected_seconds(self) -> float | None:
        """`slow_after`: the seconds from which on a call is slow."""
        return self.settings.slow_after

    @property
    def state(self) -> BreakerState:
        """The current state. An open breaker becomes half-open when its open time has passed, also without a call."""
        return self._current().state

    # Calls

    def permits_hedge(self, call: Call) -> bool:
        """Return whether it is closed: a dependency that fails, or is probed, gets no further attempts."""
        del call
        return self.state is BreakerState.CLOSED

    def admit(self, call: Call) -> Token:
        """Admit the call while closed, or as a probe while half-open.

        Raises:
            CircuitOpenError: it is open or isolated, or all places for probes are taken.
        """
        generation = self._machine.generation
        window = generation.window
        if window is not None:
            return window if self.settings.slow_after is None else TimedCall(window, clock.monotonic())
        now = clock.monotonic()
        if not now < generation.until <= now + generation.longest:  # not an open period that lasts
            return self._admit_probe(call, now)
        rejection = generation.rejection
        if rejection is None or rejection.pipeline is not call.pipeline:
            rejection = generation.rejection = Rejection(generation, call.pipeline, self, self.name)
        raise rejection.error(generation.until - now)

    def _admit_probe(self, call: Call, now: float) -> Token:
        """Admit the call as a probe, or as an ordinary call if the breaker has closed; else reject it."""
        generation = self._current(call)
        if generation.state is HALF_OPEN:
            probe = Probe(generation, now, call.deadline, self.settings.probe_timeout)
            if self._machine.take(probe, now):
                return probe
            generation = self._machine.generation
        if generation.window is not None:
            return self.admit(call)
        rejection = Rejection(generation, call.pipeline, self, self.name)
        raise rejection.error(generation.until - now if generation.state is OPEN else None)

    def on_response_head(self, token: Token) -> Token:
        """Record the time up to the head of a streamed result, which decides whether the call was slow."""
        if isinstance(token, TimedCall | Probe):
            token.elapsed = clock.monotonic() - token.start
        return token

    def settle(self, token: Any, ending: Ending) -> None:
        """Count the ending. A success takes no lock, except for the first one in each bucket of the window."""
        if ending is OK and token.__class__ is TimeWindow:
            now = clock.monotonic()
            if now >= token.bucket_end:
                self._machine.rotate(token, now)
            next(token.count)
        elif inside_state():  # a finalizer or a signal handler has interrupted a change of the state
            put_off(partial(self._score, token, ending))
        else:
            self._score(token, ending)

    def _score(self, token: Token, ending: Ending) -> None:
        # The verdict may call a predicate of the user, so it is made without the lock.
        settings = self.settings
        verdict = GOOD if ending is OK else settings.verdict(ending)
        if verdict.good is None and isinstance(ending.error, Exception):
            log_if_unlisted(self._pipelines(), settings, ending, ending.error)
        now = clock.monotonic()
        if isinstance(token, Probe):
            self._publish(self._machine.end_probe(token, verdict, now, slow=self._was_slow(token, now)))
            return
        if verdict.good is None:
            return
        slow = False
        if isinstance(token, TimedCall):
            slow = self._was_slow(token, now)
            token = token.window
        if verdict.good and not slow and isinstance(token, TimeWindow):
            self.settle(token, OK)
            return
        self._publish(self._machine.count(token, now, verdict, slow=slow))

    def _was_slow(self, token: TimedCall | Probe, now: float) -> bool:
        slow_after = self.settings.slow_after
        return slow_after is not None and (now - token.start if token.elapsed is None else token.elapsed) >= slow_after

    # States

    def isolate(self) -> None:
        """Reject all calls until `close` or `reset` is called."""
        self._force(Trigger.ISOLATE)

    def close(self) -> None:
        """Close the breaker, with an empty window and `open_for` without growth; the number of openings is kept."""
        self._force(Trigger.CLOSE)

    def reset(self) -> None:
        """Close the breaker, and set the number of openings to 0."""
        self._force(Trigger.RESET)

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, rates, state and times (in seconds) as data; unless closed, the counts that opened it."""
        self._current()
        return self._machine.snapshot()

    def _settings_changed(self) -> None:
        """Begin an empty window if its length has changed; other settings apply from the next decision on."""
        if inside_state():
            put_off(self._settings_changed)
        else:
            self._machine.use(self.settings)

    def _busy_until(self, now: float) -> float:
        generation = self._machine.generation
        if generation.state is ISOLATED:
            return FOREVER
        return generation.until if generation.state is OPEN and generation.lasts(now) else now

    def _forget_calls(self) -> None:
        self._machine.forget_calls()

    def _current(self, call: Call | None = None) -> Generation:
        """Return the current generation; an open one whose time has passed is made half-open first."""
        generation, change = self._machine.current()
        self._publish(change, call)
        return generation

    def _force(self, trigger: Trigger) -> None:
        if inside_state():
            put_off(partial(self._force, trigger))
            return
        self._current()
        self._publish(self._machine.force(trigger))

    def _publish(self, change: Change | None, call: Call | None = None) -> None:
        if change is not None:
            publish_change(self, self._pipelines(), change, call)
