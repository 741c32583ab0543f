"""What is said when time runs out: errors, events, the log."""

from __future__ import annotations

from typing import Any

from resilience._call.call import Call, Limit
from resilience._util.clock import ambient
from resilience._util.log_once import first_time, logger
from resilience.errors import DeadlineExceededError, LateResult
from resilience.events._types import Mode, TimedOut


def expired(call: Call, where: str = "before the call was made") -> DeadlineExceededError:
    """Return the error for a call whose time ran out before anything was called."""
    limit = call.limit
    publish(call, limit)
    return DeadlineExceededError(
        f"{_whose(limit)} passed {where}; nothing was called",
        unprocessed=True,
        policy=_policy(limit),
        pipeline=_pipeline(call),
    )


def cut(call: Call, started: float) -> DeadlineExceededError:
    """Return the error for a call that was cut at its deadline, `started` being when the function was called.

    A cut by a deadline that the caller had set counts as a failure only if the dependency had half the time that
    the pipeline itself would have given it: a caller with 5 ms left must not open everybody's breaker.
    """
    if call.queued:
        return expired(call, "while it waited for a free connection")
    limit = call.limit
    publish(call, limit)
    ran = ambient.monotonic() - started
    return DeadlineExceededError(
        f"{_whose(limit)} passed while {call.operation} ran; it had {ran:.3g} s, and may have been processed",
        policy=_policy(limit),
        pipeline=_pipeline(call),
        scored=not call.queued and _fair(call, ran),
    )


def late(call: Call, started: float, result: Any) -> LateResult:
    """Return the carrier of a value that came after the deadline; the first time, say how to have it cut."""
    publish(call, call.limit, late=True)
    if first_time("late", call.operation):
        logger.warning(
            "%s came back after %s, and its late value is used; to have it cut, use Timeout(..., thread=True), or "
            "give resilience.remaining() as a timeout to what it waits for (this is said once)",
            call.operation,
            _whose(call.limit),
        )
    return LateResult(result, scored=_fair(call, ambient.monotonic() - started))


def _fair(call: Call, ran: float) -> bool:
    """Return whether the dependency had the time that the pipeline gives it, or half of that."""
    patience = call.binding.site.patience
    return call.limit.seconds is not None or (patience is not None and ran >= patience / 2)


def publish(call: Call, limit: Limit, *, late: bool = False, mode: Mode = Mode.ENFORCE) -> None:
    """Tell the listeners that time ran out, or would have."""
    site = limit.site or call.site
    site.publish(TimedOut, limit.scope, call, scope=limit.word, timeout=limit.seconds, late=late, mode=mode)


def _whose(limit: Limit) -> str:
    if limit.site is None:
        return "the caller's deadline"
    name = _policy(limit)
    where = f"{name} of {limit.site.name}" if limit.site.name else name
    return f"the deadline of {where}" + ("" if limit.seconds is None else f" ({limit.seconds:g} s)")


def _policy(limit: Limit) -> str:
    return "" if limit.site is None else limit.site.name_of(limit.scope)


def _pipeline(call: Call) -> str:
    return (call.limit.site or call.site).name
