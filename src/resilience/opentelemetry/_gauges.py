"""The gauges, which are read from the live state of the pipelines when metrics are collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from resilience import AdaptiveLimit, BreakerState, Bulkhead, CircuitBreaker, Cooldown
from resilience._call.call import foreign_retries
from resilience._pipeline.engine import engines
from resilience._util.log_once import hook_failed
from resilience._util.named_counts import NamedCounts
from resilience.events._delivery import listener_errors
from resilience.opentelemetry._live_policies import attempt_timeout, live_budgets, live_policies
from resilience.opentelemetry._metrics import Metrics

Key = tuple[tuple[str, str], ...]
Value = tuple[Key, float]
"""The attributes of a gauge, and its value."""


class Gauges:
    """The gauges of all pipelines.

    Values with the same attributes, such as those of a Partition, are added up; of ratios and times it is the greatest.

    Args:
        meter: makes the instruments.
        metrics: knows the durations of attempts.
        version: the version of the library.

    Attributes:
        is_on: whether they have values. OpenTelemetry cannot remove a gauge.
    """

    def __init__(self, meter: Meter, metrics: Metrics, version: str) -> None:
        self.is_on = False
        self._metrics = metrics
        gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
        sums: tuple[tuple[str, str, Callable[[], Iterable[Value]]], ...] = (
            ("resilience_retry_budget_tokens", "{token}", lambda: self._budgets("tokens")),
            ("resilience_retry_budget_capacity", "{token}", lambda: self._budgets("capacity")),
            ("resilience_circuit_breaker_state", "{breaker}", self._breakers),
            ("resilience_bulkhead_in_flight", "{call}", lambda: self._states(_BULKHEADS, "in_flight")),
            ("resilience_bulkhead_limit", "{call}", lambda: self._states(_BULKHEADS, "limit")),
            ("resilience_bulkhead_queued", "{call}", lambda: self._states(_BULKHEADS, "queued")),
            ("resilience_cooldown_active", "{cooldown}", lambda: self._states(Cooldown, "active")),
        )
        maxima: tuple[tuple[str, str, Callable[[], Iterable[Value]]], ...] = (
            ("resilience_cooldown_seconds_left", "s", lambda: self._states(Cooldown, "seconds_left")),
            ("resilience_quota_exhausted_ratio", "1", lambda: self._states(Cooldown, "closed_share")),
            ("resilience_attempt_timeout_ratio", "1", self._timeout_ratios),
            ("resilience_build_info", "1", lambda: [((("version", version),), 1.0)]),
        )
        for several, combine in ((sums, sum), (maxima, max)):
            for name, unit, values in several:
                gauge(name, [self._callback(values, combine)], unit)
        counter("resilience_listener_errors", [self._callback(lambda: self._totals(listener_errors))], "{error}")
        counter("resilience_foreign_retries", [self._callback(lambda: self._totals(foreign_retries))], "{request}")

    def _callback(
        self, values: Callable[[], Iterable[Value]], combine: Callable[[Iterable[float]], float] = sum
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Return the callback of an instrument.

        Args:
            values: returns the present values.
            combine: makes one value of those with the same attributes.
        """

        def observe(options: CallbackOptions) -> Iterable[Observation]:
            del options
            found: defaultdict[Key, list[float]] = defaultdict(list)
            for key, value in values() if self.is_on else ():
                found[key].append(value)
            return [Observation(combine(several), dict(key)) for key, several in found.items()]

        return observe

    def _timeout_ratios(self) -> Iterator[Value]:
        """Yield the 99th percentile of attempts as a share of the timeout of attempts."""
        for engine in engines():
            name = self._metrics.pipeline(engine.info.name)
            slowest, timeout = self._metrics.slowest_attempts(name), attempt_timeout(engine.info)
            if name and slowest is not None and timeout is not None:
                yield (("pipeline", name),), slowest / timeout

    def _states(self, kind: type[Any] | tuple[type[Any], ...], key: str) -> Iterator[Value]:
        """Yield a number of the snapshots of all policies of a kind."""
        for place, snapshot in self._snapshots(kind):
            yield place, float(snapshot[key])

    def _breakers(self) -> Iterator[Value]:
        """Yield for each breaker and each state whether it is in that state."""
        for place, snapshot in self._snapshots(CircuitBreaker):
            for state in BreakerState:
                yield (*place, ("state", state.value)), float(state.value == snapshot["state"])

    def _budgets(self, key: str) -> Iterator[Value]:
        """Yield a number of the budgets that retries and hedges withdraw from."""
        for info, name, budget in live_budgets():
            yield self._place(info.name, name), float(budget.snapshot()[key])

    def _snapshots(self, kind: type[Any] | tuple[type[Any], ...]) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yield the snapshots of all policies of a kind, with the attributes that tell where they are."""
        for info, name, policy in live_policies():
            if isinstance(policy, kind):
                try:
                    snapshot = policy.snapshot()
                except Exception as error:  # a subclass of the user's may do what it likes
                    hook_failed("state of a policy", policy, error)
                else:
                    yield self._place(info.name, name), snapshot

    def _place(self, pipeline: str, policy: str) -> Key:
        return ("pipeline", self._metrics.pipeline(pipeline)), ("policy", self._metrics.policy(policy))

    def _totals(self, counts: NamedCounts) -> Iterator[Value]:
        """Yield what the library counts by the names of pipelines since the process began."""
        for name, number in counts.totals().items():
            if name:
                yield (("pipeline", self._metrics.pipeline(name)),), number


_BULKHEADS: Final = (Bulkhead, AdaptiveLimit)
