"""The gauges, which are read from the live state of the pipelines when metrics are collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from resilience import AdaptiveLimit, BreakerState, Bulkhead, CircuitBreaker, Cooldown
from resilience._pipeline.engine import engines
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
            ("resilience_retry_budget_tokens", "{token}", lambda: _budgets("tokens")),
            ("resilience_retry_budget_capacity", "{token}", lambda: _budgets("capacity")),
            ("resilience_circuit_breaker_state", "{breaker}", _breakers),
            ("resilience_bulkhead_in_flight", "{call}", lambda: _states(_BULKHEADS, "in_flight")),
            ("resilience_bulkhead_limit", "{call}", lambda: _states(_BULKHEADS, "limit")),
            ("resilience_bulkhead_queued", "{call}", lambda: _states(_BULKHEADS, "queued")),
            ("resilience_cooldown_active", "{cooldown}", lambda: _states(Cooldown, "active")),
        )
        maxima: tuple[tuple[str, str, Callable[[], Iterable[Value]]], ...] = (
            ("resilience_cooldown_seconds_left", "s", lambda: _states(Cooldown, "seconds_left")),
            ("resilience_quota_exhausted_ratio", "1", lambda: _states(Cooldown, "closed_share")),
            ("resilience_attempt_timeout_ratio", "1", self._timeout_ratios),
            ("resilience_build_info", "1", lambda: [((("version", version),), 1.0)]),
        )
        for several, combine in ((sums, sum), (maxima, max)):
            for name, unit, values in several:
                gauge(name, [self._callback(values, combine)], unit)
        counter("resilience_listener_errors", [self._callback(_listener_errors)], "{error}")
        counter("resilience_foreign_retries", [self._callback(_foreign_retries)], "{request}")

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
            slowest, timeout = self._metrics.slowest_attempts(engine.info), attempt_timeout(engine.info)
            if engine.info.name and slowest is not None and timeout is not None:
                yield (("pipeline", engine.info.name),), slowest / timeout


_BULKHEADS: Final = (Bulkhead, AdaptiveLimit)


def _states(kind: type[Any] | tuple[type[Any], ...], key: str) -> Iterator[Value]:
    """Yield a number of the snapshots of all policies of a kind."""
    for info, name, policy in live_policies():
        if isinstance(policy, kind):
            yield (("pipeline", info.name), ("policy", name)), float(policy.snapshot()[key])


def _breakers() -> Iterator[Value]:
    """Yield for each breaker and each state whether it is in that state."""
    for info, name, breaker in live_policies():
        if isinstance(breaker, CircuitBreaker):
            present = breaker.snapshot()["state"]
            for state in BreakerState:
                key = ("pipeline", info.name), ("policy", name), ("state", state.value)
                yield key, float(state.value == present)


def _budgets(key: str) -> Iterator[Value]:
    """Yield a number of the budgets that retries and hedges withdraw from."""
    for info, name, budget in live_budgets():
        yield (("pipeline", info.name), ("policy", name)), float(budget.snapshot()[key])


def _listener_errors() -> Iterator[Value]:
    """Yield the errors of listeners by pipeline; those of pipelines without a name together, as that of none."""
    for pipeline, number in listener_errors.totals().items():
        yield (("pipeline", pipeline),), number


def _foreign_retries() -> Iterator[Value]:
    """Yield the requests that SDKs have repeated by themselves."""
    for engine in engines():
        if engine.info.name and engine.info.foreign_retries:
            yield (("pipeline", engine.info.name),), engine.info.foreign_retries
