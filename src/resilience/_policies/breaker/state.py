"""The states of a circuit breaker and the transitions between them.

Nothing in this module reads the clock, takes a lock or publishes an event; `breaker` does.
"""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from resilience._call.call import PipelineInfo
from resilience._policies.breaker.settings import BreakerSettings, Verdict, Window
from resilience._policies.breaker.window import NONE
from resilience._util.clock import FOREVER
from resilience.errors import CircuitOpenError, RejectReason
from resilience.events._types import BreakerState

LEASE: Final = 60.0
"""Seconds after which the place of a probe without a deadline is given to another."""
# Looking up a member of an enumeration takes 50 ns each time in Python 3.11.
CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState


class Trigger(StrEnum):
    """The triggers of transitions."""

    TRIPPED = "tripped"
    """The failures or slow calls in the window, or the consecutive failures, have reached a limit."""
    TIME = "time is up"
    """The open time has passed."""
    GOOD = "all probes good"
    """All probes of a half-open period have succeeded."""
    BAD = "a probe bad"
    """A probe has failed, or was slow."""
    ISOLATE = "isolate()"
    """`isolate()` was called."""
    CLOSE = "close()"
    """`close()` was called."""
    RESET = "reset()"
    """`reset()` was called."""


MANUAL: Final = (Trigger.ISOLATE, Trigger.CLOSE, Trigger.RESET)
TRANSITIONS: Final[dict[tuple[BreakerState, Trigger], BreakerState]] = {
    (CLOSED, Trigger.TRIPPED): OPEN,
    (OPEN, Trigger.TIME): HALF_OPEN,
    (HALF_OPEN, Trigger.GOOD): CLOSED,
    (HALF_OPEN, Trigger.BAD): OPEN,
    **{(state, Trigger.ISOLATE): ISOLATED for state in BreakerState if state is not ISOLATED},
    **{(state, Trigger.CLOSE): CLOSED for state in BreakerState},
    **{(state, Trigger.RESET): CLOSED for state in BreakerState},
}
"""All transitions. A trigger without an entry for the current state has no effect."""


_NO_PROBES: Final[dict[Probe, None]] = {}  # never changed: only a half-open period has probes


class Generation:
    """One period in one state; each change of state begins a new generation. Guarded by the breaker's lock.

    Attributes:
        state: the state.
        since: when it began, in seconds of the library's monotonic clock.
        until: when an open period ends; infinity in other states.
        longest: the `max_open_for` with which an open period began, in seconds.
        window: the window of a closed period; None in other states.
        counts: the counts of the window at the last opening or isolation.
        why: why the breaker opened; empty in other states.
        failed: the number of consecutive half-open periods that failed.
        opens: how often the breaker has opened.
        places: how many probes a half-open period needs.
        good: how many of its probes have succeeded.
        probes: its probes that are running.
        rejection: the cached rejection of an open period.
    """

    __slots__ = (
        "counts", "failed", "good", "longest", "opens", "places", "probes", "rejection", "since", "state", "until",
        "why", "window",
    )  # fmt: skip

    def __init__(self, state: BreakerState, since: float) -> None:
        self.state = state
        self.since = since
        self.until = FOREVER
        self.longest = 0.0
        self.window: Window | None = None
        self.counts = NONE
        self.why = ""
        self.failed = 0
        self.opens = 0
        self.places = 0
        self.good = 0
        self.probes = _NO_PROBES
        self.rejection: Rejection | None = None

    @classmethod
    def closed(cls, settings: BreakerSettings, now: float) -> Generation:
        """Return a closed generation with an empty window."""
        generation = cls(CLOSED, now)
        generation.window = settings.make_window(now)
        return generation

    def after(
        self, trigger: Trigger, settings: BreakerSettings, now: float, why: str = "", hint: float | None = None
    ) -> Generation | None:
        """Return the next generation; None if the trigger has no effect in this state. Lock held.

        Args:
            trigger: what happened.
            settings: the settings of the next generation.
            now: when the next generation begins.
            why: why the breaker opens, for messages and events.
            hint: the server's retry-after in seconds; None for no hint.
        """
        state = TRANSITIONS.get((self.state, trigger))
        if state is None:
            return None
        if state is CLOSED:
            new = Generation.closed(settings, now)
            new.opens = 0 if trigger is Trigger.RESET else self.opens
            return new
        new = Generation(state, now)
        new.opens = self.opens
        new.counts = self.counts if self.window is None else self.window.counts(now)
        new.failed = self.failed
        if state is OPEN:
            new.opens += 1
            new.failed += trigger is Trigger.BAD
            new.why = why
            new.until = now + settings.open_time(new.failed, hint)
            new.longest = settings.max_open_for
        elif state is HALF_OPEN:
            new.places = settings.half_open_calls
            new.probes = {}
        return new

    def lasts(self, now: float) -> bool:
        """Return whether an open period lasts. It is over if the clock was set back far, as by virtual time."""
        # Not compared by `until - now`, which rounding may make longer than the open time.
        return now < self.until <= now + self.longest

    def without_calls(self) -> Generation:
        """Return an equal generation without running calls, whose endings and probes belong to this one."""
        new = copy.copy(self)
        if self.window is not None:
            new.window = self.window.copy()
        if self.state is HALF_OPEN:
            new.probes = {}
        return new

    def take(self, probe: Probe, now: float) -> bool:
        """Give the probe a place; return whether one was free. Probes with an expired lease lose theirs. Lock held."""
        for late in [one for one in self.probes if one.lease <= now]:
            del self.probes[late]
        if self.good + len(self.probes) >= self.places:
            return False
        self.probes[probe] = None
        return True

    def ended(self, probe: Probe, verdict: Verdict, now: float, *, slow: bool) -> Trigger | None:
        """Remove a probe that has ended; return the trigger that follows from its ending, or None. Lock held."""
        if probe.generation is not self:
            return None
        within_lease = probe in self.probes and now < probe.lease
        self.probes.pop(probe, None)
        if verdict.good is None:
            return None
        if slow or not verdict.good:
            # A timeout at the call's deadline comes exactly at the end of the lease. It counts: it is how a hang ends.
            return Trigger.BAD if within_lease or (probe.due and verdict.timed_out) else None
        self.good += within_lease
        return Trigger.GOOD if self.good >= self.places else None

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return the counts, rates, state and times (in seconds) as data. Lock held."""
        counts = self.counts if self.window is None else self.window.counts(now)
        return {
            "calls": counts.calls,
            "failures": counts.failures,
            "slow": counts.slow,
            "rate": counts.rate,
            "slow_rate": counts.slow_rate,
            "state": self.state.value,
            "opens": self.opens,
            "seconds_in_state": max(0.0, now - self.since),
            "retry_after": max(0.0, self.until - now) if self.state is OPEN else None,
        }

    def message(self, label: str) -> str:
        """Return the message of a rejection: what happened, why, and what to do."""
        if self.state is OPEN:
            seconds = self.until - self.since
            return (
                f"{label} is open for {seconds:.3g} s, since {self.why}: the dependency was not called; "
                "wait for `retry_after` seconds, or do without it"
            )
        if self.state is HALF_OPEN:
            return (
                f"{label} is half-open, and all its probes are running: the dependency was not called; "
                "try again when they have ended"
            )
        return (
            f"{label} is isolated: the dependency was not called, and will not be called until close() or reset() is "
            "called on the breaker"
        )


class Rejection:
    """The common part of all rejections by one generation in one pipeline.

    Args:
        generation: the generation that rejects.
        pipeline: the pipeline that the calls are in.
        breaker: the breaker.
        default: the name of the breaker if it has none in the pipeline.
    """

    __slots__ = ("_facts", "_message", "pipeline")

    def __init__(self, generation: Generation, pipeline: PipelineInfo, breaker: object, default: str) -> None:
        self.pipeline = pipeline
        self._message = generation.message(pipeline.label(breaker, default))
        self._facts = {
            "policy": pipeline.name_of(breaker) or default,
            "pipeline": pipeline.name,
            "reason": RejectReason.ISOLATED if generation.state is ISOLATED else RejectReason.OPEN,
        }

    def error(self, retry_after: float | None) -> CircuitOpenError:
        """Return a new error, in half the time of its constructor, since an open breaker rejects many calls.

        Args:
            retry_after: the seconds until the breaker becomes half-open; None if unknown.
        """
        error = CircuitOpenError.__new__(CircuitOpenError, self._message)
        error.__dict__.update(self._facts)
        error.retry_after = retry_after
        return error


class Change(NamedTuple):
    """A change of state, to be published once the lock is released."""

    previous: BreakerState
    state: BreakerState
    manual: bool
    failure_rate: float
    why: str


class TimedCall:
    """A call admitted while closed whose duration is measured.

    `elapsed` is the time in seconds up to the head of a streamed result; None until the head has arrived.
    """

    __slots__ = ("elapsed", "start", "window")

    def __init__(self, window: Window, start: float) -> None:
        self.window = window
        self.start = start
        self.elapsed: float | None = None


class Probe:
    """A call admitted while half-open.

    Its place can be given to another probe from the time `lease` on. `due` is whether that is the call's own deadline.
    `elapsed` is the time in seconds up to the head of a streamed result; None until the head has arrived.
    """

    __slots__ = ("due", "elapsed", "generation", "lease", "start")

    def __init__(self, generation: Generation, start: float, deadline: float, timeout: float | None) -> None:
        self.generation = generation
        self.start = start
        self.due = timeout is None and deadline < FOREVER
        self.lease = deadline if self.due else start + (LEASE if timeout is None else timeout)
        self.elapsed: float | None = None


Token: TypeAlias = "Window | TimedCall | Probe"
"""The token of an admitted call: while closed the window, or a TimedCall with `slow_after`; else a Probe."""
