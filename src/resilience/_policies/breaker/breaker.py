"""CircuitBreaker: reject calls to a dependency that fails, and probe whether it has recovered."""

from __future__ import annotations

from typing import Any

from resilience._call.call import Call
from resilience._outcome.allowlist import Allowlist, Failures
from resilience._outcome.ending import OK, Ending, EndingKind
from resilience._policies.blocks import BlockGate
from resilience._policies.breaker.settings import GOOD, BreakerSettings, Verdict
from resilience._policies.breaker.state import (
    HALF_OPEN,
    MANUAL,
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
from resilience._util.clock import FOREVER, clock
from resilience._util.locks import new_lock
from resilience._util.log_once import unlisted
from resilience.events._types import BreakerChanged, BreakerState, Mode, ModeName


class CircuitBreaker(BlockGate[Token]):
    """Reject calls while the dependency is failing; then admit a few probes to see whether it has recovered.

    Args:
        failure_rate: the share of failures in the window from which on it opens, in (0, 1].
        min_calls: the number of calls in the window below which neither rate opens it, >= 1.
        window: the length of the window in seconds, >= 0.001. It moves in steps of a tenth.
        window_calls: if given, the window is the last `window_calls` calls, >= 1, and `window` is ignored.
        consecutive_failures: the number of consecutive failures that opens it, >= 1; None to ignore them.
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
        open_for: float = 1.0,
        open_growth: float = 1.25,
        max_open_for: float = 30.0,
        half_open_calls: int = 3,
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
        self._lock = new_lock()
        self._generation = Generation.closed(self.settings, clock.monotonic())

    @property
    def _expected_seconds(self) -> float | None:
        """`slow_after`: the seconds from which on a call is slow."""
        return self.settings.slow_after

    @property
    def state(self) -> BreakerState:
        """The current state. An open breaker becomes half-open when its open time has passed, also without a call."""
        return self._current(clock.monotonic()).state

    # Calls

    def admit(self, call: Call) -> Token:
        """Admit the call while closed, or as a probe while half-open.

        Raises:
            CircuitOpenError: it is open or isolated, or all places for probes are taken.
        """
        generation = self._generation
        window = generation.window
        if window is not None:
            return window if self.settings.slow_after is None else TimedCall(window, clock.monotonic())
        now = clock.monotonic()
        if generation.state is not OPEN or not now < generation.until <= now + self.settings.max_open_for:
            return self._admit_probe(call, now)
        rejection = generation.rejection
        if rejection is None or rejection.pipeline is not call.pipeline:
            rejection = generation.rejection = Rejection(generation, call.pipeline, self, self.name)
        raise rejection.error(generation.until - now)

    def _admit_probe(self, call: Call, now: float) -> Token:
        """Admit the call as a probe, or as an ordinary call if the breaker has closed; else reject it."""
        generation = self._generation
        if generation.state is OPEN:
            generation = self._current(now, call)
        if generation.state is HALF_OPEN:
            probe = Probe(generation, now, call.deadline, self.settings.probe_timeout)
            with self._lock:
                if generation is self._generation and generation.take(probe, now):
                    return probe
            generation = self._generation
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
                with self._lock:
                    token.rotate(now)
            next(token.count)
        else:
            self._score(token, ending)

    def _score(self, token: Token, ending: Ending) -> None:
        # The verdict may call a predicate of the user, so it is made without the lock.
        verdict = GOOD if ending is OK else self.settings.verdict(ending)
        good = verdict.good
        if good is None and isinstance(ending.error, Exception):
            self._log_if_unlisted(ending, ending.error)
        now = clock.monotonic()
        if isinstance(token, Probe):
            self._score_probe(token, verdict, now)
            return
        slow = False
        if isinstance(token, TimedCall):
            slow = self._was_slow(token, now)
            window = token.window
        else:
            window = token
        if good is None:
            return
        if good and not slow and isinstance(window, TimeWindow):
            self.settle(window, OK)
            return
        change = None
        with self._lock:
            if window is self._generation.window:
                totals = window.add(now, not good, slow)
                why = "" if good and not slow else self.settings.reason(totals, window.consecutive)
                if why:
                    change = self._transition(Trigger.TRIPPED, now, why, verdict.retry_after)
        if change is not None:
            self._publish(change)

    def _score_probe(self, probe: Probe, verdict: Verdict, now: float) -> None:
        slow = self._was_slow(probe, now)
        why = "a probe was slow" if verdict.good else "a probe failed"
        with self._lock:
            trigger = self._generation.ended(probe, verdict, now, slow=slow)
            change = None if trigger is None else self._transition(trigger, now, why, verdict.retry_after)
        self._publish(change)

    def _was_slow(self, token: TimedCall | Probe, now: float) -> bool:
        slow_after = self.settings.slow_after
        return slow_after is not None and (now - token.start if token.elapsed is None else token.elapsed) >= slow_after

    def _log_if_unlisted(self, ending: Ending, error: Exception) -> None:
        if ending.by(self.settings.on)[0] is EndingKind.ERROR:
            unlisted(next((pipeline.info.name for pipeline in self._pipelines()), ""), error)

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

    def _settings_changed(self) -> None:
        """Begin an empty window if its length has changed; other settings apply from the next decision on."""
        now = clock.monotonic()
        with self._lock:
            window = self._generation.window
            if window is not None:
                fresh = self.settings.make_window(now)
                if (type(fresh), fresh.span) != (type(window), window.span):
                    self._generation.window = fresh

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, rates, state and times (in seconds) as data; unless closed, the counts that opened it."""
        now = clock.monotonic()
        self._current(now)
        with self._lock:
            generation = self._generation
            counts = generation.counts if generation.window is None else generation.window.counts(now)
        return {
            "calls": counts.calls,
            "failures": counts.failures,
            "slow": counts.slow,
            "rate": counts.rate,
            "slow_rate": counts.slow_rate,
            "state": generation.state.value,
            "opens": generation.opens,
            "seconds_in_state": max(0.0, now - generation.since),
            "retry_after": max(0.0, generation.until - now) if generation.state is OPEN else None,
        }

    def _current(self, now: float, call: Call | None = None) -> Generation:
        """Return the current generation; an open one whose time has passed is made half-open first."""
        generation = self._generation
        # If the clock is set back, as at the end of virtual time, the breaker must not stay open. Not compared by
        # `until - now`, which rounding may make longer than the open time.
        latest = FOREVER if generation.state is not OPEN else now + self.settings.max_open_for
        if now < generation.until <= latest:
            return generation
        change = None
        with self._lock:
            if generation is self._generation:
                change = self._transition(Trigger.TIME, generation.until)
        self._publish(change, call)
        return self._generation

    def _force(self, trigger: Trigger) -> None:
        now = clock.monotonic()
        self._current(now)
        with self._lock:
            change = self._transition(trigger, now)
        self._publish(change)

    def _transition(self, trigger: Trigger, now: float, why: str = "", hint: float | None = None) -> Change | None:
        """Change the state if the trigger has a transition in the current one; return the change. Lock held."""
        old = self._generation
        new = old.after(trigger, self.settings, now, why, hint)
        if new is None:
            return None
        self._generation = new
        return Change(old.state, new.state, trigger in MANUAL, new.counts.rate, new.why)

    def _publish(self, change: Change | None, call: Call | None = None) -> None:
        """Publish a change in every pipeline that contains the breaker. Lock not held: listeners may use it."""
        if change is None or change.previous is change.state:
            return
        facts = {**change._asdict(), "mode": self.mode, "key": change.state}  # the log distinguishes the states
        if call is not None:
            call.pipeline.publish(BreakerChanged, self, call, **facts)
        for pipeline in self._pipelines():
            info = pipeline.info
            if call is None or info is not call.pipeline:
                name = info.name_of(self) or self.name
                info.bus.publish(BreakerChanged, pipeline=info.name, policy=name, operation="", target=None, **facts)
