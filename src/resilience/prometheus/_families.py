"""The metrics: their names, types, labels and descriptions."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class Family(NamedTuple):
    """A metric.

    Attributes:
        name: its name; for a counter without the suffix `_total`, which `prometheus_client` adds.
        kind: its type.
        help: what it means.
        labels: its labels beside `pipeline`.
        by_key: whether a label `key` is added with `key_labels=True`.
        workers: for a gauge, how the values of several processes are put together in a multiprocess directory.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    by_key: bool = False
    workers: Literal["livesum", "livemax"] = "livesum"

    def all_labels(self, *, key_labels: bool) -> tuple[str, ...]:
        """Return the names of all its labels."""
        return ("pipeline", *self.labels, *(("key",) if self.by_key and key_labels else ()))


CALLS: Final = Family("resilience_calls", "counter", "Calls that have ended.", ("outcome",))
CALL_DURATION: Final = Family(
    "resilience_call_duration_seconds", "histogram", "Duration of calls, with all attempts and waits."
)
ATTEMPTS: Final = Family("resilience_attempts", "counter", "Attempts that have ended.", ("outcome",))
ATTEMPT_DURATION: Final = Family("resilience_attempt_duration_seconds", "histogram", "Duration of single attempts.")
CALL_RETRIES: Final = Family(
    "resilience_call_retries", "histogram", "Further attempts of the calls that needed any; hedges are among them."
)
RETRY_WAIT: Final = Family(
    "resilience_retry_wait_seconds", "counter", "Time that calls were to wait between two attempts."
)
RETRIES_REFUSED: Final = Family(
    "resilience_retries_refused", "counter", "Failures after which a Retry made no further attempt.", ("reason",)
)
BUDGET_TOKENS: Final = Family(
    "resilience_retry_budget_tokens", "gauge", "Retries that the budget allows now.", ("policy",), by_key=True
)
BUDGET_CAPACITY: Final = Family(
    "resilience_retry_budget_capacity", "gauge", "Tokens of a full budget.", ("policy",), by_key=True
)
BREAKER_STATE: Final = Family(
    "resilience_circuit_breaker_state", "gauge", "Circuit breakers in each state.", ("policy", "state"), by_key=True
)
BREAKER_TRANSITIONS: Final = Family(
    "resilience_circuit_breaker_transitions",
    "counter",
    "Changes of circuit breakers to a state.",
    ("policy", "to"),
    by_key=True,
)
REJECTIONS: Final = Family(
    "resilience_rejections",
    "counter",
    "Calls that a policy has rejected, or would have in shadow mode.",
    ("policy", "reason", "mode"),
    by_key=True,
)
BULKHEAD_IN_FLIGHT: Final = Family(
    "resilience_bulkhead_in_flight", "gauge", "Permits in use.", ("policy",), by_key=True
)
BULKHEAD_LIMIT: Final = Family(
    "resilience_bulkhead_limit", "gauge", "Permits that may be in use at once.", ("policy",), by_key=True
)
BULKHEAD_QUEUED: Final = Family(
    "resilience_bulkhead_queued", "gauge", "Calls that wait for a permit.", ("policy",), by_key=True
)
RATE_LIMIT_WAIT: Final = Family(
    "resilience_rate_limit_wait_seconds",
    "counter",
    "Time that calls have waited for a rate limit.",
    ("policy",),
    by_key=True,
)
HEDGES: Final = Family("resilience_hedges", "counter", "Calls for which a hedge was due.", ("result",))
FALLBACKS: Final = Family("resilience_fallbacks", "counter", "Outcomes that a Fallback or a StaleCache has replaced.")
DEADLINE_EXCEEDED: Final = Family(
    "resilience_deadline_exceeded", "counter", "Deadlines that have passed during a call.", ("scope",)
)
ATTEMPT_TIMEOUT_RATIO: Final = Family(
    "resilience_attempt_timeout_ratio",
    "gauge",
    "99th percentile of the attempts of the last minute, relative to the timeout of an attempt.",
    workers="livemax",
)
LISTENER_ERRORS: Final = Family("resilience_listener_errors", "counter", "Exceptions in listeners to events.")
COOLDOWN_ACTIVE: Final = Family(
    "resilience_cooldown_active", "gauge", "Cooldowns that hold calls back.", ("policy",), by_key=True
)
COOLDOWN_SECONDS_LEFT: Final = Family(
    "resilience_cooldown_seconds_left",
    "gauge",
    "Time until the pause ends that the server has asked for.",
    ("policy",),
    by_key=True,
    workers="livemax",
)
QUOTA_EXHAUSTED_RATIO: Final = Family(
    "resilience_quota_exhausted_ratio",
    "gauge",
    "Share of the last minute in which a Cooldown was in a pause.",
    ("policy",),
    by_key=True,
    workers="livemax",
)
FOREIGN_RETRIES: Final = Family(
    "resilience_foreign_retries", "counter", "Requests that an SDK around the pipeline has repeated by itself."
)
BUILD_INFO: Final = Family(
    "resilience_build_info", "gauge", "Version of the library; the value is 1.", ("version",), workers="livemax"
)
"""It has no label `pipeline`."""

FAMILIES: Final = (
    CALLS, CALL_DURATION, ATTEMPTS, ATTEMPT_DURATION, CALL_RETRIES, RETRY_WAIT, RETRIES_REFUSED, BUDGET_TOKENS,
    BUDGET_CAPACITY, BREAKER_STATE, BREAKER_TRANSITIONS, REJECTIONS, BULKHEAD_IN_FLIGHT, BULKHEAD_LIMIT,
    BULKHEAD_QUEUED, RATE_LIMIT_WAIT, HEDGES, FALLBACKS, DEADLINE_EXCEEDED, ATTEMPT_TIMEOUT_RATIO, LISTENER_ERRORS,
    COOLDOWN_ACTIVE, COOLDOWN_SECONDS_LEFT, QUOTA_EXHAUSTED_RATIO, FOREIGN_RETRIES, BUILD_INFO,
)  # fmt: skip
"""All metrics."""
GAUGES: Final = tuple(family for family in FAMILIES if family.kind == "gauge" and family is not BUILD_INFO)
"""The gauges of pipelines."""
COUNTED_BY_EVENTS: Final = (
    RETRY_WAIT, RETRIES_REFUSED, BREAKER_TRANSITIONS, REJECTIONS, RATE_LIMIT_WAIT, HEDGES, FALLBACKS, DEADLINE_EXCEEDED,
)  # fmt: skip
"""The counters that listeners to events count."""
COUNTED_BY_NAME: Final = (LISTENER_ERRORS, FOREIGN_RETRIES)
"""The counters that the library has, whether there are metrics or not."""
RETRY_BUCKETS: Final = (1.0, 2.0, 3.0, 4.0, 5.0)
"""The buckets of CALL_RETRIES, those of `grpc.client.call.retries` (gRFC A96)."""
