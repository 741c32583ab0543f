"""The state machine of a circuit breaker: the current generation, and every change of it, under the state lock."""

from __future__ import annotations

from typing import Any

from resilience._policies.breaker.settings import BreakerSettings, Verdict, Window
from resilience._policies.breaker.state import MANUAL, OPEN, Change, Generation, Probe, Trigger
from resilience._policies.breaker.window import TimeWindow
from resilience._util.clock import clock
from resilience._util.finalizers import pending, run_pending
from resilience._util.locks import inside_state, state_lock


class StateMachine:
    """The current generation of a breaker and its changes. Nothing here publishes: the breaker does, without the lock.

    Methods that change the state return the change to publish, or None. They must not be called inside a region of the
    state lock, except where it is said what they do then.

    Args:
        settings: the settings of the breaker.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.lock = state_lock
        self.generation = Generation.closed(settings, clock.monotonic())

    def current(self) -> tuple[Generation, Change | None]:
        """Return the current generation; an open one whose time has passed is made half-open first.

        Inside a region of the state lock, nothing is changed.
        """
        generation = self.generation
        if generation.state is not OPEN or generation.lasts(clock.monotonic()) or inside_state():
            return generation, None
        change = None
        with self.lock:
            if generation is self.generation:
                change = self._transition(Trigger.TIME, generation.until)
        if pending:
            run_pending()
        return self.generation, change

    def take(self, probe: Probe, now: float) -> bool:
        """Give a probe a place; return whether one was free. Inside a region of the state lock, none is."""
        if inside_state():
            return False
        with self.lock:
            taken = probe.generation is self.generation and probe.generation.take(probe, now)
        if pending:
            run_pending()
        return taken

    def rotate(self, window: TimeWindow, now: float) -> None:
        """Begin the next bucket of a window. Inside a region of the state lock, a later call does it."""
        if inside_state():
            return
        with self.lock:
            window.rotate(now)
        if pending:
            run_pending()

    def count(self, window: Window, now: float, verdict: Verdict, *, slow: bool) -> Change | None:
        """Count a call that ended in a closed period, unless that is over; open the breaker if a limit is reached."""
        change = None
        failed = not verdict.good
        with self.lock:
            if window is self.generation.window:
                totals = window.add(now, failed, slow)
                why = self.settings.reason(totals, window.consecutive) if failed or slow else ""
                if why:
                    change = self._transition(Trigger.TRIPPED, now, why, verdict.retry_after)
        if pending:
            run_pending()
        return change

    def end_probe(self, probe: Probe, verdict: Verdict, now: float, *, slow: bool) -> Change | None:
        """Take the place of a probe that has ended, and close or open the breaker if that follows."""
        why = "a probe was slow" if verdict.good else "a probe failed"
        with self.lock:
            trigger = self.generation.ended(probe, verdict, now, slow=slow)
            change = None if trigger is None else self._transition(trigger, now, why, verdict.retry_after)
        if pending:
            run_pending()
        return change

    def force(self, trigger: Trigger) -> Change | None:
        """Change the state by hand."""
        with self.lock:
            change = self._transition(trigger, clock.monotonic())
        if pending:
            run_pending()
        return change

    def use(self, settings: BreakerSettings) -> None:
        """Use other settings from the next decision on. If the length of the window differs, begin an empty one."""
        now = clock.monotonic()
        with self.lock:
            self.settings = settings
            window = self.generation.window
            if window is not None:
                fresh = settings.make_window(now)
                if (type(fresh), fresh.span) != (type(window), window.span):
                    self.generation.window = fresh
        if pending:
            run_pending()

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, rates, state and times (in seconds) as data; unless closed, the counts that opened it."""
        with self.lock:
            state = self.generation.snapshot(clock.monotonic())
        if pending:
            run_pending()
        return state

    def forget_calls(self) -> None:
        """Replace the generation by an equal one: what calls of before have to say is ignored. For a forked child."""
        self.generation = self.generation.without_calls()

    def _transition(self, trigger: Trigger, now: float, why: str = "", hint: float | None = None) -> Change | None:
        """Change the state if the trigger has a transition in the current one; return the change. Lock held."""
        old = self.generation
        new = old.after(trigger, self.settings, now, why, hint)
        if new is None:
            return None
        self.generation = new
        return Change(old.state, new.state, trigger in MANUAL, new.counts.rate, new.why)
