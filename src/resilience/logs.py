"""Log lines about infrequent events, through the standard library's logger `resilience`; enabled by default.

    resilience.logs.configure(interval=60.0)

For each pipeline and kind of event, at most one line is logged in an interval, by default 10 s. It includes the number
of events of that kind that were held back since the last line. Retries, give-ups and pauses are one kind each;
rejections by each type of error, such as BulkheadFullError, and changes of a breaker to each state are kinds of their
own.

The details of an event are also in the `extra` of its record, with keys that begin with `resilience_`. Records never
contain arguments, results, messages of exceptions, bodies, headers, or the user info and query of URLs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from resilience._util import validation
from resilience._util.locks import members
from resilience._util.redaction import without_credentials
from resilience._util.throttle import Throttle
from resilience.events import (
    BreakerChanged,
    BreakerState,
    CooldownStarted,
    Event,
    Mode,
    Rejected,
    RetryGivenUp,
    RetryScheduled,
)
from resilience.events._bus import Topic, everywhere

__all__ = ["configure", "logger"]

logger = logging.getLogger("resilience")
"""The logger of the library. Set its level to choose what is logged."""

_STATE_LEVELS: Final[dict[object, int]] = {
    BreakerState.OPEN: logging.WARNING,
    BreakerState.ISOLATED: logging.WARNING,
    BreakerState.CLOSED: logging.INFO,
    BreakerState.HALF_OPEN: logging.DEBUG,
}


def configure(interval: float = 10.0) -> None:
    """Set how often log lines about the events of pipelines are written, in the whole process and from now on.

    Args:
        interval: the seconds in which at most one line is logged for each pipeline and kind of event, >= 0; 0 to log
            every event. The events that are held back are counted, and the next line of their kind includes their
            number. If no such line follows, the number is not logged.

    Raises:
        TypeError, ValueError: `interval` is not a finite number >= 0.
    """
    Throttle.interval = validation.number("interval", interval)
    for bus in members(everywhere.buses):
        for topic in members(bus.topics.values()):
            topic.interval_changed()


def _log_retry(level: int, held_back: int, event: RetryScheduled) -> None:
    """Log that an attempt failed, and another one is scheduled."""
    target = _target(event)
    _log(
        *(level, held_back, event, target),
        "%s failed in attempt %s with %s (%s)%s; the next attempt %s in %.3g s",
        event.operation,
        _n_of_m(event.attempt, event.max_attempts),
        event.error_type,
        event.failure.kind,
        _phrase(target),
        "follows" if event.mode is Mode.ENFORCE else "would follow",
        event.wait,
        attempt=event.attempt,
        max_attempts=event.max_attempts,
        wait=event.wait,
        kind=str(event.failure.kind),
        error_type=event.error_type,
        mode=str(event.mode),
    )


def _log_given_up(level: int, held_back: int, event: RetryGivenUp) -> None:
    """Log that a Retry gave up."""
    target = _target(event)
    _log(
        *(level, held_back, event, target),
        "%s failed in attempt %s with %s%s; given up after %.3g s: %s",
        event.operation,
        _n_of_m(event.attempts, event.max_attempts),
        event.error_type,
        _phrase(target),
        event.elapsed,
        event.reason,
        attempts=event.attempts,
        max_attempts=event.max_attempts,
        elapsed=event.elapsed,
        reason=str(event.reason),
        error_type=event.error_type,
    )


def _log_rejection(level: int, held_back: int, event: Rejected) -> None:
    """Log that a policy or a drain rejected a call."""
    target = _target(event)
    _log(
        *(level, held_back, event, target),
        "%s %s rejected with %s%s%s",
        event.operation,
        "was" if event.mode is Mode.ENFORCE else "would be",
        event.error_type,
        f" ({event.reason})" if event.reason else "",
        _phrase(target),
        reason=str(event.reason) if event.reason else None,
        retry_after=event.retry_after,
        error_type=event.error_type,
        mode=str(event.mode),
    )


def _log_breaker(level: int, held_back: int, event: BreakerChanged) -> None:
    """Log that the state of a circuit breaker changed."""
    target = _target(event)
    _log(
        *(level, held_back, event, target),
        "the circuit breaker %s %s%s%s",
        "is" if event.mode is Mode.ENFORCE else "would be",
        str(event.state).replace("_", "-"),
        " (manually)" if event.manual else f" since {event.why}" if event.why else "",
        _phrase(target),
        previous=str(event.previous),
        state=str(event.state),
        manual=event.manual,
        failure_rate=event.failure_rate,
        mode=str(event.mode),
    )


def _log_cooldown(level: int, held_back: int, event: CooldownStarted) -> None:
    """Log that calls are held back, since the server has asked for a pause."""
    _log(
        *(level, held_back, event, None),
        "calls %s held back for %.3g s%s: the server has asked for a pause",
        "are" if event.mode is Mode.ENFORCE else "would be",
        event.seconds,
        " from now" if event.extended else "",
        seconds=event.seconds,
        extended=event.extended,
        mode=str(event.mode),
    )


def _target(event: Event) -> str | None:
    return None if event.target is None else without_credentials(event.target)


def _phrase(target: str | None) -> str:
    return "" if target is None else f", target {target}"


def _n_of_m(attempt: int, max_attempts: int | None) -> str:
    return str(attempt) if max_attempts is None else f"{attempt} of {max_attempts}"


def _log(
    level: int, held_back: int, event: Event, target: str | None, message: str, *args: object, **details: object
) -> None:
    """Log a line: the pipeline and the policy, the message, and how many other events the line stands for.

    Args:
        level: the level.
        held_back: how many events were held back before this one.
        event: the event.
        target: its target, without credentials.
        message: the message, of which each kind of event has one.
        args: its arguments.
        details: what the `extra` has in addition to what is common to all events.
    """
    more = f" (and {held_back:,} more since the last line)" if held_back else ""
    logger.log(
        level,
        f"%s: {message}%s",
        "/".join(filter(None, (event.pipeline, event.policy))) or "a pipeline",
        *args,
        more,
        extra={
            "resilience_pipeline": event.pipeline,
            "resilience_policy": event.policy,
            "resilience_operation": event.operation,
            "resilience_target": target,
            "resilience_held_back": held_back,
            **{f"resilience_{key}": value for key, value in details.items()},
        },
    )


_KINDS: Final[dict[type[Event], tuple[int, Callable[[int, int, Any], None]]]] = {
    RetryScheduled: (logging.INFO, _log_retry),
    RetryGivenUp: (logging.WARNING, _log_given_up),
    Rejected: (logging.WARNING, _log_rejection),
    BreakerChanged: (logging.WARNING, _log_breaker),
    CooldownStarted: (logging.INFO, _log_cooldown),
}
"""The events that are logged: the level, and the function that logs one."""


def _make_topic(kind: type[Event], key: object) -> Topic:
    """Return a topic for events of one pipeline, with how they are logged. The key of a BreakerChanged is the state."""
    if kind not in _KINDS:
        return Topic(kind)
    level, write = _KINDS[kind]
    return Topic(kind, _STATE_LEVELS.get(key, level), logger.isEnabledFor, write)


everywhere.make_topic = _make_topic
