"""Logging of infrequent events through the standard library's logger `resilience`; enabled by default.

The details of an event are also in the `extra` of its record, with keys that begin with `resilience_`. Records never
contain arguments, bodies, headers or URLs.
"""

from __future__ import annotations

import logging
from functools import partial

from resilience.events import (
    BreakerChanged,
    BreakerState,
    Event,
    Mode,
    RetryGivenUp,
    RetryScheduled,
    Subscription,
    subscribe,
)

__all__ = ["install", "logger"]

logger = logging.getLogger("resilience")
"""The logger of the library. Set its level to choose what is logged."""


def _label(event: Event) -> str:
    return f"{event.operation} ({event.pipeline}/{event.policy})"


def _extra(event: Event, **more: object) -> dict[str, object]:
    return {
        "resilience_pipeline": event.pipeline,
        "resilience_policy": event.policy,
        "resilience_operation": event.operation,
        "resilience_target": event.target,
        **{f"resilience_{key}": value for key, value in more.items()},
    }


def _log_retry(event: RetryScheduled) -> None:
    """Log that a retry was scheduled: the first retry of a call at INFO, the others at DEBUG."""
    logger.log(
        logging.INFO if event.attempt == 1 else logging.DEBUG,
        "%s failed in attempt %d (%s); the next one %s in %.3g s",
        _label(event),
        event.attempt,
        event.failure.kind,
        "follows" if event.mode is Mode.ENFORCE else "would follow",
        event.wait,
        extra=_extra(event, attempt=event.attempt, wait=event.wait, kind=str(event.failure.kind), mode=str(event.mode)),
    )


def _log_given_up(event: RetryGivenUp) -> None:
    """Log at WARNING that a Retry gave up."""
    logger.warning(
        "%s given up after %s in %.3g s: %s",
        _label(event),
        "1 attempt" if event.attempts == 1 else f"{event.attempts} attempts",
        event.elapsed,
        event.reason,
        extra=_extra(event, attempts=event.attempts, elapsed=event.elapsed, reason=str(event.reason)),
    )


def _log_breaker(event: BreakerChanged) -> None:
    """Log a state change of a circuit breaker: at WARNING open and isolated, at INFO closed, at DEBUG half-open."""
    level = {
        BreakerState.OPEN: logging.WARNING,
        BreakerState.ISOLATED: logging.WARNING,
        BreakerState.CLOSED: logging.INFO,
    }
    logger.log(
        level.get(event.state, logging.DEBUG),
        "circuit breaker %s/%s %s %s%s",
        event.pipeline,
        event.policy,
        "is" if event.mode is Mode.ENFORCE else "would be",
        str(event.state).replace("_", "-"),
        " (manually)" if event.manual else f" since {event.why}" if event.why else "",
        extra=_extra(
            event,
            previous=str(event.previous),
            state=str(event.state),
            manual=event.manual,
            failure_rate=event.failure_rate,
            mode=str(event.mode),
        ),
    )


def install() -> tuple[Subscription, ...]:
    """Subscribe the log functions to the events of all pipelines. `import resilience` calls it once.

    Returns:
        The subscriptions; call them to unsubscribe.
    """
    return (
        subscribe(_log_retry, events=(RetryScheduled,), when=partial(logger.isEnabledFor, logging.INFO)),
        subscribe(_log_breaker, events=(BreakerChanged,), when=partial(logger.isEnabledFor, logging.WARNING)),
        subscribe(_log_given_up, events=(RetryGivenUp,), when=partial(logger.isEnabledFor, logging.WARNING)),
    )
