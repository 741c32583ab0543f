"""Calls of OpenTelemetry that neither affect the guarded call nor interrupt what holds a lock of the SDK."""

from __future__ import annotations

import functools
from collections.abc import Callable

from resilience._util.finalizers import pending, run_later, run_pending
from resilience._util.locks import inside_state, is_owned, thread_state
from resilience._util.log_once import hook_failed
from resilience.events._delivery import listener_errors


def failed(what: str, hook: object, error: Exception, pipeline: str) -> None:
    """Count and log an exception that OpenTelemetry has raised, such as one of a sampler or a span processor.

    Args:
        what: what raised it, such as "tracing".
        hook: the function that has called it.
        error: the exception.
        pipeline: the name of the pipeline.
    """
    listener_errors.add(pipeline)
    hook_failed(what, hook, error)


def has_interrupted() -> bool:
    """Return whether what runs may have interrupted code of this thread that holds locks of OpenTelemetry."""
    return thread_state.finalizing or is_owned(thread_state.exporting) or inside_state()


def outside_finalizers(function: Callable[[], object]) -> None:
    """Call a function that writes to OpenTelemetry, whose SDK takes locks that are not ours, and not reentrant.

    A finalizer or a signal handler may have interrupted code of this thread that holds them. So inside a finalizer, and
    inside another such function, it is left to the next call or to the end of that function.
    """
    if has_interrupted():
        run_later(functools.partial(outside_finalizers, function))  # it may be too early then, too
        return
    with thread_state.exporting:
        function()
    if pending:
        run_pending()


def safely(what: str, hook: object, pipeline: str, function: Callable[[], object]) -> None:
    """Call a function; count and log what it raises, as `failed` does, of which these are the parameters."""
    try:
        function()
    except Exception as error:
        failed(what, hook, error, pipeline)
