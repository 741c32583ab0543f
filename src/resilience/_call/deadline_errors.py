"""What is said when time runs out: errors, events, the log."""

from __future__ import annotations

from typing import Any

from resilience._call.call import Call, DeadlineSource
from resilience._util.clock import clock
from resilience._util.log_once import first_time, logger
from resilience.errors import DeadlineExceededError, LateResult
from resilience.events._types import Mode, TimedOut


def expired_error(call: Call, where: str = "before the call was made") -> DeadlineExceededError:
    """Return the error for a call whose time ran out before anything was called."""
    limit = call.deadline_source
    publish(call, limit)
    return DeadlineExceededError(
        f"{_whose(limit)} passed {where}; nothing was called",
        unprocessed=True,
        policy=_policy(limit),
        pipeline=_pipeline(call),
    )


def cut_error(call: Call, started: float) -> DeadlineExceededError:
    """Return the error for a call that was cut at its deadline, `started` being when the function was called.

    A cut by a deadline that the caller had set counts as a failure only if the dependency had half the time that
    the pipeline itself would have given it: a caller with 5 ms left must not open everybody's breaker.
    """
    if call.queued:
        return expired_error(call, "while it waited for a free connection")
    limit = call.deadline_source
    publish(call, limit)
    ran = clock.monotonic() - started
    return DeadlineExceededError(
        f"{_whose(limit)} passed while {call.operation} ran; it had {ran:.3g} s, and may have been processed",
        policy=_policy(limit),
        pipeline=_pipeline(call),
        scored=not call.queued and _fair(call, ran),
    )


def late_result(call: Call, started: float, result: Any) -> LateResult:
    """Return the carrier of a value that came after the deadline; the first time, say how to have it cut."""
    publish(call, call.deadline_source, late=True)
    if first_time("late", call.operation):
        logger.warning(
            "%s came back after %s, and its late value is used; to have it cut, use Timeout(..., thread=True), or "
            "give resilience.remaining() as a timeout to what it waits for (this is said once)",
            call.operation,
            _whose(call.deadline_source),
        )
    return LateResult(result, scored=_fair(call, clock.monotonic() - started))


def _fair(call: Call, ran: float) -> bool:
    """Return whether the dependency had the time that the pipeline gives it, or half of that."""
    patience = call.options.pipeline.shortest_timeout
    return call.deadline_source.seconds is not None or (patience is not None and ran >= patience / 2)


def publish(call: Call, limit: DeadlineSource, *, late: bool = False, mode: Mode = Mode.ENFORCE) -> None:
    """Tell the listeners that time ran out, or would have."""
    site = limit.pipeline or call.pipeline
    site.publish(TimedOut, limit.policy, call, scope=limit.scope, timeout=limit.seconds, late=late, mode=mode)


def _whose(limit: DeadlineSource) -> str:
    if limit.pipeline is None:
        return "the caller's deadline"
    name = _policy(limit)
    where = f"{name} of {limit.pipeline.name}" if limit.pipeline.name else name
    return f"the deadline of {where}" + ("" if limit.seconds is None else f" ({limit.seconds:g} s)")


def _policy(limit: DeadlineSource) -> str:
    return "" if limit.pipeline is None else limit.pipeline.name_of(limit.policy)


def _pipeline(call: Call) -> str:
    return (call.deadline_source.pipeline or call.pipeline).name
