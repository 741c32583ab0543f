"""The counters and histograms: calls and attempts as they end, and the events of policies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.metrics import Counter, Histogram, Meter

from resilience._call.call import PipelineInfo
from resilience._pipeline.observers import MeterGate, Meters
from resilience._util.label_values import Bounded
from resilience._util.quantile import QuantileEstimator
from resilience.events import (
    BreakerChanged,
    Event,
    FallbackUsed,
    HedgeEnded,
    Mode,
    Outcome,
    Rejected,
    RetryGivenUp,
    RetryScheduled,
    TimedOut,
    Waited,
)
from resilience.opentelemetry._live_policies import rate_limits
from resilience.opentelemetry._providers import Awaited
from resilience.opentelemetry._safely import failed, outside_finalizers, safely

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The bounds of the histograms of durations, in seconds. A view of the SDK replaces them."""
RETRIES: Final = (1, 2, 3, 4, 5)
"""The bounds of the histogram of retries, as in gRFC A96."""
P99: Final = 0.99
LEAST_ATTEMPTS: Final = 100
"""The number of attempts before there is such a quantile."""
MOST_NAMES: Final = 1000
"""The number of names of pipelines, and of policies, that become attributes; all others are `_overflow`."""
NO_REASON: Final = "other"
"""The reason of rejections by policies that give none."""


class Metrics:
    """The counters and histograms of all pipelines.

    Args:
        meter: makes the instruments.
        provider: tells whether the provider of the meter is there.

    Attributes:
        provider: tells whether the provider of the meter is there.
    """

    def __init__(self, meter: Meter, provider: Awaited) -> None:
        self.provider = provider
        self._pipelines = Bounded(MOST_NAMES)
        self._policies = Bounded(MOST_NAMES)
        self._rate_limits: set[tuple[str, str]] = set()
        count, durations = (
            meter.create_counter,
            functools.partial(meter.create_histogram, unit="s", explicit_bucket_boundaries_advisory=BUCKETS),
        )
        self.calls = count("resilience_calls", "{call}", "Calls that have ended, with all their attempts")
        self.call_seconds = durations("resilience_call_duration_seconds", description="The durations of calls")
        self.attempts = count("resilience_attempts", "{attempt}", "Attempts that have ended")
        self.attempt_seconds = durations("resilience_attempt_duration_seconds", description="The durations of attempts")
        self.call_retries = meter.create_histogram(
            "resilience_call_retries",
            "{retry}",
            "The retries of calls; calls without any are not recorded",
            explicit_bucket_boundaries_advisory=RETRIES,
        )
        self._retry_wait = count("resilience_retry_wait_seconds", "s", "The time that retries were told to wait")
        self._refused = count("resilience_retries_refused", "{call}", "Calls that a Retry gave up, by the reason")
        self._transitions = count("resilience_circuit_breaker_transitions", "{transition}", "Changes of breakers")
        self._rejections = count("resilience_rejections", "{call}", "Calls that a policy rejected, or would have")
        self._rate_wait = count("resilience_rate_limit_wait_seconds", "s", "The time that calls waited for rate limits")
        self._hedges = count("resilience_hedges", "{call}", "Calls that were hedged, by what came of it")
        self._fallbacks = count("resilience_fallbacks", "{call}", "Calls whose outcome was replaced")
        self._deadlines = count("resilience_deadline_exceeded", "{deadline}", "Deadlines that have passed")
        self._meters: dict[str, Meters] = {}
        self._by_event: dict[type[Event], Callable[[Any], None]] = {
            RetryScheduled: self._retry,
            RetryGivenUp: self._give_up,
            BreakerChanged: self._transition,
            Rejected: self._rejection,
            Waited: self._wait,
            HedgeEnded: self._hedge,
            FallbackUsed: self._fallback,
            TimedOut: self._timeout,
        }

    @property
    def events(self) -> tuple[type[Event], ...]:
        """The events that are counted."""
        return tuple(self._by_event)

    def is_active(self) -> bool:
        """Return whether anything becomes of what is counted."""
        return self.provider.look()

    def pipeline(self, name: str) -> str:
        """Return the attribute for a pipeline with a name."""
        return self._pipelines.of(name)

    def policy(self, name: str) -> str:
        """Return the attribute for a policy with a name."""
        return self._policies.of(name)

    def meters_of(self, info: PipelineInfo) -> Meters | None:
        """Return what counts the calls and attempts of the pipelines of a name; None for one without a name.

        It does not refer to a pipeline, so that it keeps none alive.
        """
        if not info.name or self.provider.never:
            return None
        pipeline = self.pipeline(info.name)
        self._rate_limits.update((pipeline, self.policy(name)) for name in rate_limits(info))
        return self._meters.get(pipeline) or self._meters.setdefault(
            pipeline, Meters(CallMeter(self, pipeline), AttemptMeter(self, pipeline), self.provider)
        )

    def slowest_attempts(self, pipeline: str) -> float | None:
        """Return the 99th percentile of the durations of attempts, in seconds; None if too little is known.

        Args:
            pipeline: the attribute for the pipeline.
        """
        meters = self._meters.get(pipeline)
        return meters.attempts.slowest() if meters is not None and isinstance(meters.attempts, AttemptMeter) else None

    def listen(self, event: Event) -> None:
        """Count an event of a pipeline that has a name.

        Of a policy in shadow mode, what it would have done is not counted, but for rejections, which have the mode.
        """
        happens = isinstance(event, Rejected | BreakerChanged) or getattr(event, "mode", Mode.ENFORCE) is Mode.ENFORCE
        if happens and event.pipeline:
            function = functools.partial(self._by_event[type(event)], event)
            outside_finalizers(functools.partial(safely, "metrics", self.listen, event.pipeline, function))

    def _place(self, event: Event) -> dict[str, str]:
        """Return the attributes that tell where an event has happened."""
        return {"pipeline": self.pipeline(event.pipeline), "policy": self.policy(event.policy)}

    def _retry(self, event: RetryScheduled) -> None:
        self._retry_wait.add(event.wait, {"pipeline": self.pipeline(event.pipeline)})

    def _give_up(self, event: RetryGivenUp) -> None:
        self._refused.add(1, {"pipeline": self.pipeline(event.pipeline), "reason": str(event.reason)})

    def _transition(self, event: BreakerChanged) -> None:
        self._transitions.add(1, {**self._place(event), "to": str(event.state)})

    def _rejection(self, event: Rejected) -> None:
        reason = NO_REASON if event.reason is None else str(event.reason)
        self._rejections.add(1, {**self._place(event), "reason": reason, "mode": str(event.mode)})

    def _wait(self, event: Waited) -> None:
        place = self._place(event)
        if (place["pipeline"], place["policy"]) in self._rate_limits:
            self._rate_wait.add(event.seconds, place)

    def _hedge(self, event: HedgeEnded) -> None:
        self._hedges.add(1, {"pipeline": self.pipeline(event.pipeline), "result": str(event.result)})

    def _fallback(self, event: FallbackUsed) -> None:
        self._fallbacks.add(1, {"pipeline": self.pipeline(event.pipeline)})

    def _timeout(self, event: TimedOut) -> None:
        self._deadlines.add(1, {"pipeline": self.pipeline(event.pipeline), "scope": str(event.scope)})


class _Meter(MeterGate):
    """Writes the endings of calls or of attempts through to instruments.

    Args:
        counter: counts them.
        seconds: gets their durations.
        metrics: the metrics that they are of.
        pipeline: the attribute for the pipelines.
        is_of_calls: whether it is about calls.
    """

    def __init__(
        self, counter: Counter, seconds: Histogram, metrics: Metrics, pipeline: str, *, is_of_calls: bool
    ) -> None:
        super().__init__(is_of_calls=is_of_calls)
        self._counter = counter
        self._seconds = seconds
        self._pipeline = {"pipeline": pipeline}
        self._labels = {one: {"pipeline": pipeline, "outcome": one.value} for one in Outcome}

    def ok(self, seconds: float) -> None:
        """Write a good ending."""
        outside_finalizers(functools.partial(self._write, Outcome.OK, seconds, 1))

    def ended(self, outcome: Outcome, seconds: float, attempts: int) -> None:
        """Write an ending."""
        outside_finalizers(functools.partial(self._write, outcome, seconds, attempts))

    def _write(self, outcome: Outcome, seconds: float, attempts: int) -> None:
        """Write an ending to the instruments."""
        try:
            self._counter.add(1, self._labels[outcome])
            self._record(seconds, attempts, self._pipeline)
        except Exception as error:
            failed("metrics", self.ended, error, self._pipeline["pipeline"])

    def _record(self, seconds: float, attempts: int, labels: dict[str, str]) -> None:
        """Record a duration."""
        del attempts
        self._seconds.record(seconds, labels)


class CallMeter(_Meter):
    """Writes the endings of the calls of the pipelines of a name."""

    def __init__(self, metrics: Metrics, pipeline: str) -> None:
        super().__init__(metrics.calls, metrics.call_seconds, metrics, pipeline, is_of_calls=True)
        self._retries = metrics.call_retries

    def _record(self, seconds: float, attempts: int, labels: dict[str, str]) -> None:
        """Record the duration, and the retries if there were any."""
        self._seconds.record(seconds, labels)
        if attempts > 1:
            self._retries.record(attempts - 1, labels)


class AttemptMeter(_Meter):
    """Writes the endings of the attempts of the pipelines of a name."""

    def __init__(self, metrics: Metrics, pipeline: str) -> None:
        super().__init__(metrics.attempts, metrics.attempt_seconds, metrics, pipeline, is_of_calls=False)
        self._durations = QuantileEstimator(P99)

    def slowest(self) -> float | None:
        """Return the 99th percentile of the durations, in seconds; None if there were too few lately."""
        return self._durations.estimate(LEAST_ATTEMPTS)

    def _record(self, seconds: float, attempts: int, labels: dict[str, str]) -> None:
        """Record the duration."""
        self._durations.add(seconds)
        self._seconds.record(seconds, labels)
