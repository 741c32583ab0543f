"""The settings of a circuit breaker, and the decisions that depend on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from resilience._outcome.allowlist import Allowlist
from resilience._outcome.ending import Ending, EndingKind
from resilience._policies.breaker.window import CallWindow, TimeWindow
from resilience._util import validation
from resilience._util.clock import clock
from resilience._util.values import Value

Window: TypeAlias = "TimeWindow | CallWindow"
# Looking up a member of an enumeration takes 50 ns each time in Python 3.11.
_OK, _TIMED_OUT = EndingKind.OK, EndingKind.TIMED_OUT
_NEUTRAL: Final = (EndingKind.ERROR, EndingKind.ABANDONED)


class Verdict(NamedTuple):
    """What an ending says about the dependency's health.

    Attributes:
        good: True for a success, False for a failure, None for a neutral ending.
        timed_out: whether a Timeout of the pipeline ended the call.
        retry_after: the server's hint in seconds; None without one.
    """

    good: bool | None
    timed_out: bool = False
    retry_after: float | None = None


GOOD: Final = Verdict(good=True)
BAD: Final = Verdict(good=False)
BAD_TIMEOUT: Final = Verdict(good=False, timed_out=True)
NEUTRAL: Final = Verdict(good=None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BreakerSettings(Value):
    """The settings of a CircuitBreaker; `CircuitBreaker` describes each."""

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
        """Validate the settings."""
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
        """Return an empty window that begins now."""
        return TimeWindow(self.window, now) if self.window_calls is None else CallWindow(self.window_calls)

    def verdict(self, ending: Ending) -> Verdict:
        """Classify an ending by `on`, or else by the pipeline's allowlist. A timeout counts whatever they list."""
        kind, failure = (ending.kind, ending.failure) if self.on is None else ending.by(self.on)
        if kind is _OK:
            return GOOD
        if kind in _NEUTRAL or (failure is not None and not failure.counted):
            return NEUTRAL
        if failure is not None and failure.retry_after is not None:
            return Verdict(good=False, timed_out=kind is _TIMED_OUT, retry_after=failure.retry_after)
        return BAD_TIMEOUT if kind is _TIMED_OUT else BAD

    def reason(self, totals: tuple[int, int, int], consecutive: int) -> str:
        """Return why a closed breaker opens, or an empty string if it stays closed.

        Args:
            totals: the calls, failures and slow calls in the window.
            consecutive: the number of consecutive failures.
        """
        calls, failures, slow = totals
        limit = self.consecutive_failures
        if calls >= self.min_calls:
            if failures / calls >= self.failure_rate:
                return f"{failures} of {calls} {self._calls} failed"
            if slow / calls >= self.slow_call_rate:
                return f"{slow} of {calls} {self._calls} were slow"
        elif limit is not None:
            limit = (limit + 1) // 2
        if limit is not None and consecutive >= limit:
            return "a call failed" if consecutive == 1 else f"{consecutive} calls in a row failed"
        return ""

    @property
    def _calls(self) -> str:
        """The window in words, for `reason`."""
        return f"calls in the last {self.window:g} s" if self.window_calls is None else "last calls"

    def open_time(self, failed: int, hint: float | None) -> float:
        """Return the seconds to stay open, with jitter.

        Args:
            failed: the number of consecutive half-open periods that failed.
            hint: the server's retry-after in seconds, a lower bound of the time; None for no hint.
        """
        try:
            grown = self.open_for * self.open_growth**failed
        except OverflowError:
            grown = self.max_open_for
        return min(max(grown * clock.random.uniform(0.8, 1.2), hint or 0.0), self.max_open_for)
