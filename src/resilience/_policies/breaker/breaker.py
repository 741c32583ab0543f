"""CircuitBreaker: stop asking a dependency that does not answer, and find out soon when it does again."""

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
from resilience._util.clock import clock
from resilience._util.locks import new_lock
from resilience._util.log_once import unlisted
from resilience.events._types import BreakerChanged, BreakerState, Mode, ModeName


class CircuitBreaker(BlockGate[Token]):
    """Let no call through while the dependency is down, then let a few through to see whether it is back.

    Args:
        failure_rate: the share of failures in the window that opens it, in (0, 1].
        min_calls: with fewer calls in the window, no share opens it; >= 1.
        window: the length of the window in seconds, >= 0.001. It moves on in tenths.
        window_calls: None, or count the last so many calls instead, >= 1; `window` is then ignored.
        consecutive_failures: so many failures in a row open it whatever the window holds, >= 1; None: never.
        slow_after: calls that take so many seconds or more are slow, > 0; None: none is. Of a streamed result the
            time up to its head is taken.
        slow_call_rate: the share of slow calls in the window that opens it, in (0, 1].
        open_for: seconds to stay open, > 0, times U(0.8, 1.2) so that many clients do not come back at once.
        open_growth: by how much longer after each half-open period that failed, >= 1.
        max_open_for: the longest it stays open, in seconds, > 0; what is longer is cut to it.
        half_open_calls: the probes that must all end well before it closes, and the most that run at once; >= 1.
        probe_timeout: seconds after which a probe that has not ended gives its place to another, > 0. None: at its
            call's deadline, or after 60 s where there is none.
        on: what counts as a failure here; None means the pipeline's failures.
        name: see `Policy`.
        mode: see `Policy`.

    Raises:
        TypeError, ValueError: a parameter of the wrong type or out of range.

    Calls that it refuses raise a CircuitOpenError. What counts as a success is a value or a known answer; what
    counts as a failure is a listed one that is `counted`, and our own Timeout's cut. All else is neutral: other
    exceptions, cancellation, refusals further in. Only the end of a failed or slow call can open it. A call that
    was let in before the last change of state changes nothing any more when it ends.
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
        """What it calls slow."""
        return self.settings.slow_after

    @property
    def state(self) -> BreakerState:
        """The state now. An open breaker is half-open once its time is up, also without any call."""
        return self._look(clock.monotonic()).state

    # Calls

    def admit(self, call: Call) -> Token:
        """Admit the call while closed, or as a probe; otherwise raise a CircuitOpenError."""
        generation = self._generation
        window = generation.window
        if window is not None:
            return window if self.settings.slow_after is None else TimedCall(window, clock.monotonic())
        now = clock.monotonic()
        if generation.state is not OPEN or not 0 < generation.until - now <= self.settings.max_open_for:
            return self._admit_probe(call, now)
        rejection = generation.rejection
        if rejection is None or rejection.pipeline is not call.pipeline:
            rejection = generation.rejection = Rejection(generation, call.pipeline, self, self.name)
        raise rejection.error(generation.until - now)

    def _admit_probe(self, call: Call, now: float) -> Token:
        generation = self._generation
        if generation.state is OPEN:
            generation = self._look(now, call)
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
        """Measure the time that decides whether the call was slow."""
        if isinstance(token, TimedCall | Probe):
            token.took = clock.monotonic() - token.start
        return token

    def settle(self, token: Any, ending: Ending) -> None:
        """Count the ending; a success takes no lock, except for the first one in each bucket of the window."""
        if ending is OK and token.__class__ is TimeWindow:
            now = clock.monotonic()
            if now >= token.bucket_end:
                with self._lock:
                    token.rotate(now)
            next(token.count)
        else:
            self._score(token, ending)

    def _score(self, token: Token, ending: Ending) -> None:
        # It may ask a predicate of the user's, so this is not done under the lock.
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
                    change = self._go(Trigger.TRIPPED, now, why, verdict.retry_after)
        if change is not None:
            self._publish(change)

    def _score_probe(self, probe: Probe, verdict: Verdict, now: float) -> None:
        slow = self._was_slow(probe, now)
        why = "a probe was slow" if verdict.good else "a probe failed"
        with self._lock:
            trigger = self._generation.ended(probe, verdict, now, slow=slow)
            change = None if trigger is None else self._go(trigger, now, why, verdict.retry_after)
        self._publish(change)

    def _was_slow(self, token: TimedCall | Probe, now: float) -> bool:
        limit = self.settings.slow_after
        return limit is not None and (now - token.start if token.took is None else token.took) >= limit

    def _log_if_unlisted(self, ending: Ending, error: Exception) -> None:
        if ending.by(self.settings.on)[0] is EndingKind.ERROR:
            unlisted(next((pipeline.info.name for pipeline in self._pipelines()), ""), error)

    # States

    def isolate(self) -> None:
        """Refuse all calls until `close` or `reset`."""
        self._force(Trigger.ISOLATE)

    def close(self) -> None:
        """Let calls through again, with an empty window, and forget how often probes have failed."""
        self._force(Trigger.CLOSE)

    def reset(self) -> None:
        """Close it, and forget everything."""
        self._force(Trigger.RESET)

    def _settings_changed(self) -> None:
        """Begin an empty window if it is to have another length; the rest holds from the next decision on."""
        now = clock.monotonic()
        with self._lock:
            window = self._generation.window
            if window is not None:
                fresh = self.settings.make_window(now)
                if (type(fresh), fresh.span) != (type(window), window.span):
                    self._generation.window = fresh

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, the state and its times in seconds as data; unless closed, the counts that opened it."""
        now = clock.monotonic()
        self._look(now)
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

    def _look(self, now: float, call: Call | None = None) -> Generation:
        """Return the generation of this moment."""
        generation = self._generation
        # A clock that is set back, as by the end of virtual time, must not keep it open.
        if now < generation.until and (
            generation.state is not OPEN or generation.until - now <= self.settings.max_open_for
        ):
            return generation
        change = None
        with self._lock:
            if generation is self._generation:
                change = self._go(Trigger.TIME, generation.until)
        self._publish(change, call)
        return self._generation

    def _force(self, trigger: Trigger) -> None:
        now = clock.monotonic()
        self._look(now)
        with self._lock:
            change = self._go(trigger, now)
        self._publish(change)

    def _go(self, trigger: Trigger, now: float, why: str = "", hint: float | None = None) -> Change | None:
        """Change the state, if the trigger does so in this one. Lock held."""
        old = self._generation
        new = old.after(trigger, self.settings, now, why, hint)
        if new is None:
            return None
        self._generation = new
        return Change(old.state, new.state, trigger in MANUAL, new.counts.rate, new.why)

    def _publish(self, change: Change | None, call: Call | None = None) -> None:
        """Tell every pipeline that it stands in; the lock is released, since listeners may call back."""
        if change is None or change.previous is change.state:
            return
        facts = {**change._asdict(), "mode": self.mode}
        if call is not None:
            call.pipeline.publish(BreakerChanged, self, call, **facts)
        for pipeline in self._pipelines():
            info = pipeline.info
            if call is None or info is not call.pipeline:
                name = info.name_of(self) or self.name
                info.bus.publish(BreakerChanged, pipeline=info.name, policy=name, operation="", target=None, **facts)
