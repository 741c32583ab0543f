"""Calls of OpenTelemetry that neither affect the guarded call nor interrupt what holds a lock of the SDK."""

from __future__ import annotations

from collections.abc import Callable

from resilience._util.finalizers import run_later
from resilience._util.locks import inside_state, thread_state
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


def outside_finalizers(function: Callable[[], object]) -> None:
    """Call a function; inside a finalizer leave that to the next call, since the SDK takes locks that are not ours.

    The finalizer may have interrupted code of this thread that holds them.
    """
    if thread_state.finalizing or inside_state():
        run_later(function)
    else:
        function()
