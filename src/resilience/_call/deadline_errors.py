"""The errors, events and log messages for deadlines that passed."""

from __future__ import annotations

from typing import Any

from resilience._call.running_call import DeadlineSource, RunningCall
from resilience._util.clock import clock
from resilience._util.log_once import first_time, logger
from resilience.errors import DeadlineExceededError, LateResult
from resilience.events._types import Mode, TimedOut


def expired_error(call: RunningCall, where: str = "before the call was made") -> DeadlineExceededError:
    """Publish and return the error for a call whose deadline passed before the function was called.

    Args:
        call: the call.
        where: when the deadline passed, for the message.
    """
    source = call.deadline_source
    publish(call, source)
    return DeadlineExceededError(
        f"{_label(source)} passed {where}; nothing was called",
        unprocessed=True,
        policy=_policy(source),
        pipeline=_pipeline(call, source),
    )


def cut_error(call: RunningCall, started: float, source: DeadlineSource | None = None) -> DeadlineExceededError:
    """Publish and return the error for a call that was cut at its deadline.

    Args:
        call: the call.
        started: when the function was called, in seconds of the monotonic clock.
        source: the source of the deadline; None for that of the attempt.

    A cut at the caller's own deadline counts as a failure only if the dependency had at least half of the time that the
    pipeline grants: callers with short deadlines must not open the breaker for all others.
    """
    if call.queued:
        return expired_error(call, "while it waited for a free connection")
    source = source or call.deadline_source
    publish(call, source)
    return error_at(call, started, source)


def error_at(call: RunningCall, started: float, source: DeadlineSource) -> DeadlineExceededError:
    """Return the error for a call that was cut at the deadline of `source`, as `cut_error` does; publish nothing."""
    elapsed = clock.monotonic() - started
    return DeadlineExceededError(
        f"{_label(source)} passed while {call.operation} ran; it had {seconds(elapsed)}, and may have been processed",
        policy=_policy(source),
        pipeline=_pipeline(call, source),
        scored=_is_scored(call, source, elapsed),
    )


def seconds(elapsed: float) -> str:
    """Return a time in seconds for messages; it says so if it was virtual time."""
    return f"{elapsed:.3g} s" if clock.real else f"{elapsed:.3g} s of virtual time"


def late_result(call: RunningCall, started: float, result: Any) -> LateResult:
    """Publish and return the LateResult for a value that was returned after the deadline.

    The first one of each operation is logged, with advice on how to have such calls cut.
    """
    source = call.deadline_source
    publish(call, source, late=True)
    if first_time("late", call.operation):
        logger.warning(
            "%s returned after %s, and its late value is used; to have it cut, use Timeout(..., thread=True), or pass "
            "resilience.remaining() as a timeout to what it waits for (this is logged once)",
            call.operation,
            _label(source),
        )
    return LateResult(result, scored=_is_scored(call, source, clock.monotonic() - started))


def publish(call: RunningCall, source: DeadlineSource, *, late: bool = False, mode: Mode = Mode.ENFORCE) -> None:
    """Publish that a deadline passed: TimedOut."""
    info = source.pipeline or call.pipeline
    info.publish(TimedOut, source.policy, call, scope=source.scope, timeout=source.seconds, late=late, mode=mode)


def _is_scored(call: RunningCall, source: DeadlineSource, elapsed: float) -> bool:
    """Return whether a cut counts as a failure: at a Timeout, or after half of the pipeline's shortest Timeout."""
    shortest = call.options.pipeline.shortest_timeout
    return source.seconds is not None or (shortest is not None and elapsed >= shortest / 2)


def _label(source: DeadlineSource) -> str:
    """Return the name of the deadline for messages, such as "the deadline of timeout of quotes (2 s)"."""
    if source.pipeline is None:
        return "the caller's deadline"
    label = source.pipeline.label(source.policy, "")
    return f"the {source.bounds} of {label}" + ("" if source.seconds is None else f" ({source.seconds:g} s)")


def _policy(source: DeadlineSource) -> str:
    return "" if source.pipeline is None else source.pipeline.name_of(source.policy)


def _pipeline(call: RunningCall, source: DeadlineSource) -> str:
    return (source.pipeline or call.pipeline).name
