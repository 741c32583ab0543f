"""What a circuit breaker is made of: its states and how one follows another, its probes, what it goes by.

Nothing in here reads the clock, takes a lock or tells anybody; `breaker` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from resilience._call.call import PipelineInfo
from resilience._outcome.allowlist import Allowlist
from resilience._outcome.ending import Ending, EndingKind, judge
from resilience._policies.breaker.window import NONE, CallWindow, TimeWindow
from resilience._util import validation
from resilience._util.clock import FOREVER, clock
from resilience.events._types import BreakerState

Window: TypeAlias = "TimeWindow | CallWindow"
LEASE: Final = 60.0
"""Seconds after which a probe without a deadline is taken for lost."""
# To look up a member of an enumeration takes 50 ns each time, in Python 3.11.
CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState
_OK, _TIMED_OUT = EndingKind.OK, EndingKind.TIMED_OUT
_JUDGED: Final = (_OK, EndingKind.FAILED, EndingKind.ERROR)
_NEUTRAL: Final = (EndingKind.ERROR, EndingKind.ABANDONED)


class Trigger(StrEnum):
    """What makes a breaker change its state."""

    TRIPPED = "tripped"
    TIME = "time is up"
    GOOD = "all probes good"
    BAD = "a probe bad"
    ISOLATE = "isolate()"
    CLOSE = "close()"
    RESET = "reset()"


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
"""All that can happen. What is not here changes nothing."""


class Verdict(NamedTuple):
    """What an ending tells of the dependency's health; `good` is None where it tells nothing."""

    good: bool | None
    timed_out: bool = False
    retry_after: float | None = None


GOOD: Final = Verdict(good=True)
BAD: Final = Verdict(good=False)
CUT: Final = Verdict(good=False, timed_out=True)
NEUTRAL: Final = Verdict(good=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """What a CircuitBreaker goes by; see there."""

    failure_rate: float
    min_calls: int
    window: float
    window_calls: int | None
    consecutive_failures: int | None
    slow_after: float | None
    slow_call_rate: float
    open_for: float
    open_growth: float
    max_open_for: float
    half_open_calls: int
    probe_timeout: float | None
    on: Allowlist | None

    def __post_init__(self) -> None:
        """Check everything."""
        validation.number("failure_rate", self.failure_rate, above=True, high=1.0)
        validation.integer("min_calls", self.min_calls, low=1)
        validation.number("window", self.window, low=0.001)
        if self.window_calls is not None:
            validation.integer("window_calls", self.window_calls, low=1)
        if self.consecutive_failures is not None:
            validation.integer("consecutive_failures", self.consecutive_failures, low=1)
        if self.slow_after is not None:
            validation.number("slow_after", self.slow_after, above=True)
        validation.number("slow_call_rate", self.slow_call_rate, above=True, high=1.0)
        validation.number("open_for", self.open_for, above=True)
        validation.number("open_growth", self.open_growth, low=1.0)
        validation.number("max_open_for", self.max_open_for, above=True)
        validation.integer("half_open_calls", self.half_open_calls, low=1)
        if self.probe_timeout is not None:
            validation.number("probe_timeout", self.probe_timeout, above=True)
        if self.on is not None:
            object.__setattr__(self, "on", Allowlist.of(self.on))

    def make_window(self, now: float) -> Window:
        """Return an empty window."""
        return TimeWindow(self.window, now) if self.window_calls is None else CallWindow(self.window_calls)

    def verdict(self, ending: Ending) -> Verdict:
        """Judge an ending by the own allowlist, or else by the pipeline's. Our own cut counts whatever they list."""
        kind, failure = ending.kind, ending.failure
        if self.on is not None and ending.error is not None and kind in _JUDGED:
            kind, failure = judge(ending.error, self.on)
        if kind is _OK:
            return GOOD
        if kind in _NEUTRAL or (failure is not None and not failure.counted):
            return NEUTRAL
        if failure is not None and failure.retry_after is not None:
            return Verdict(good=False, timed_out=kind is _TIMED_OUT, retry_after=failure.retry_after)
        return CUT if kind is _TIMED_OUT else BAD

    def reason(self, totals: tuple[int, int, int], consecutive: int) -> str:
        """Return why what a window holds, and the failures in a row, open a closed breaker; empty if they do not."""
        calls, failures, slow = totals
        if calls >= self.min_calls:
            if failures / calls >= self.failure_rate:
                return f"{failures} of {calls} {self._calls} failed"
            if slow / calls >= self.slow_call_rate:
                return f"{slow} of {calls} {self._calls} were slow"
        if self.consecutive_failures is not None and consecutive >= self.consecutive_failures:
            return f"{consecutive} calls in a row failed"
        return ""

    @property
    def _calls(self) -> str:
        return f"calls in the last {self.window:g} s" if self.window_calls is None else "last calls"

    def open_time(self, failed: int, hint: float | None) -> float:
        """Return the seconds to stay open after so many failed half-open periods; a server's hint only lengthens."""
        try:
            grown = self.open_for * self.open_growth**failed
        except OverflowError:
            grown = self.max_open_for
        return min(max(grown * clock.random.uniform(0.8, 1.2), hint or 0.0), self.max_open_for)


class Generation:
    """A breaker in one state, from entering it to leaving it: a generation.

    All that goes with the state is in here and is replaced as a whole, so that it is true also for those who look
    without the lock. `window` counts while the breaker is closed. `counts` are those of the window that made it
    open, `why` says what in them did. `failed` is the number of half-open periods that have failed in a row, `opens`
    how often it has opened in all. A half-open period has `places` for probes, and `good` of them have ended well.
    `told` is what the last refused call heard: the pipeline, the breaker's name there, the message.
    """

    __slots__ = (
        "counts",
        "failed",
        "good",
        "opens",
        "places",
        "probes",
        "rejection",
        "since",
        "state",
        "until",
        "why",
        "window",
    )  # fmt: skip

    def __init__(self, state: BreakerState, since: float) -> None:
        self.state = state
        self.since = since
        self.until = FOREVER
        self.window: Window | None = None
        self.counts = NONE
        self.why = ""
        self.failed = 0
        self.opens = 0
        self.places = 0
        self.good = 0
        self.probes: set[Probe] = set()
        self.rejection: tuple[PipelineInfo, str, str] | None = None

    @classmethod
    def closed(cls, settings: BreakerSettings, now: float) -> Generation:
        """Return a closed one, with an empty window."""
        generation = cls(CLOSED, now)
        generation.window = settings.make_window(now)
        return generation

    def after(
        self, trigger: Trigger, settings: BreakerSettings, now: float, why: str = "", hint: float | None = None
    ) -> Generation | None:
        """Return what comes after this one; None: the trigger changes nothing in this state. Lock held.

        Args:
            trigger: what happened.
            settings: what the next one goes by.
            now: the time at which it begins.
            why: in words, what opens the breaker.
            hint: the seconds that the server asks to be left alone.
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
        elif state is HALF_OPEN:
            new.places = settings.half_open_calls
        return new

    def take(self, probe: Probe, now: float) -> bool:
        """Give a probe a place, if there is one; probes whose lease is over have theirs no more. Lock held."""
        for late in [one for one in self.probes if one.lease <= now]:
            self.probes.discard(late)
        if self.good + len(self.probes) >= self.places:
            return False
        self.probes.add(probe)
        return True

    def ended(self, probe: Probe, verdict: Verdict, now: float, *, slow: bool) -> Trigger | None:
        """Take a probe's place back, and return what its ending sets off. Lock held."""
        if probe.generation is not self:
            return None
        in_time = probe in self.probes and now < probe.lease
        self.probes.discard(probe)
        if verdict.good is None:
            return None
        if slow or not verdict.good:
            # What our own Timeout cuts at the call's deadline is not late: this is how a hang ends.
            return Trigger.BAD if in_time or (probe.due and verdict.timed_out) else None
        self.good += in_time
        return Trigger.GOOD if self.good >= self.places else None

    def message(self, where: str) -> str:
        """Return what a refused call is told: what happened, why, and what to do."""
        if self.state is OPEN:
            seconds = self.until - self.since
            return (
                f"{where} is open for {seconds:.3g} s, since {self.why}: the dependency was not called; "
                "wait for `retry_after` seconds, or do without it"
            )
        if self.state is HALF_OPEN:
            return (
                f"{where} is half-open, and all its probes are under way: the dependency was not called; "
                "try again when they have ended"
            )
        return (
            f"{where} is isolated: the dependency was not called, and will not be before somebody calls close() or "
            "reset() on the breaker"
        )


class Change(NamedTuple):
    """A change of state, to be published once the lock is released."""

    previous: BreakerState
    state: BreakerState
    manual: bool
    failure_rate: float
    why: str


class Timed:
    """A call of closed days whose slowness counts. `took` is None until its head has come."""

    __slots__ = ("start", "took", "window")

    def __init__(self, window: Window, start: float) -> None:
        self.window = window
        self.start = start
        self.took: float | None = None


class Probe:
    """A call of a half-open period. Its place is free again at `lease`; `due`: that is the call's own deadline."""

    __slots__ = ("due", "generation", "lease", "start", "took")

    def __init__(self, generation: Generation, start: float, deadline: float, timeout: float | None) -> None:
        self.generation = generation
        self.start = start
        self.due = timeout is None and deadline < FOREVER
        self.lease = deadline if self.due else start + (LEASE if timeout is None else timeout)
        self.took: float | None = None


Token: TypeAlias = "Window | Timed | Probe"
