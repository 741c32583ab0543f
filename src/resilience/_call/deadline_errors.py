"""The errors, events and log lines for calls whose time has run out."""

from __future__ import annotations

from typing import Any

from resilience._call.running_call import DeadlineSource, RunningCall
from resilience._util.clock import clock
from resilience._util.log_once import first_time, logger
from resilience.errors import DeadlineExceededError, LateResult
from resilience.events._types import Mode, TimedOut


def expired_error(call: RunningCall, where: str = "before the call was made") -> DeadlineExceededError:
    """Return the error for a call whose deadline passed before the function was called."""
    source = call.deadline_source
    publish(call, source)
    return DeadlineExceededError(
        f"{_label(source)} passed {where}; nothing was called",
        unprocessed=True,
        policy=_policy(source),
        pipeline=_pipeline(call, source),
    )


def cut_error(call: RunningCall, started: float, source: DeadlineSource | None = None) -> DeadlineExceededError:
    """Return the error for a call that was cut at its deadline.

    Args:
        call: the call.
        started: when the function was called, in seconds of the monotonic clock.
        source: where the deadline comes from; None: that of the attempt.

    A cut by a deadline that the caller had set counts as a failure only if the dependency had at least half of the
    time that the pipeline itself would have given it: callers in a hurry must not open the breaker of all others.
    """
    if call.queued:
        return expired_error(call, "while it waited for a free connection")
    source = source or call.deadline_source
    publish(call, source)
    elapsed = clock.monotonic() - started
    return DeadlineExceededError(
        f"{_label(source)} passed while {call.operation} ran; it had {elapsed:.3g} s, and may have been processed",
        policy=_policy(source),
        pipeline=_pipeline(call, source),
        scored=_is_scored(call, source, elapsed),
    )


def late_result(call: RunningCall, started: float, result: Any) -> LateResult:
    """Return the carrier of a value that came after the deadline; the first time, log how to have it cut."""
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
    """Publish that time ran out, or would have."""
    info = source.pipeline or call.pipeline
    info.publish(TimedOut, source.policy, call, scope=source.scope, timeout=source.seconds, late=late, mode=mode)


def _is_scored(call: RunningCall, source: DeadlineSource, elapsed: float) -> bool:
    """Return whether the dependency had at least half of the time that the pipeline gives it."""
    shortest = call.options.pipeline.shortest_timeout
    return source.seconds is not None or (shortest is not None and elapsed >= shortest / 2)


def _label(source: DeadlineSource) -> str:
    if source.pipeline is None:
        return "the caller's deadline"
    label = source.pipeline.label(source.policy, "")
    return f"the deadline of {label}" + ("" if source.seconds is None else f" ({source.seconds:g} s)")


def _policy(source: DeadlineSource) -> str:
    return "" if source.pipeline is None else source.pipeline.name_of(source.policy)


def _pipeline(call: RunningCall, source: DeadlineSource) -> str:
    return (source.pipeline or call.pipeline).name
