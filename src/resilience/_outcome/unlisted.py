"""What is logged, once, about outcomes that no allowlist lists, with what to write."""

from __future__ import annotations

from typing import Final

from resilience._outcome.http_status import status_of
from resilience._util.log_once import first_time, logger
from resilience.errors import RejectedError, UsageError

KNOWN: Final = "_resilience_known"
"""The attribute of an exception that an integration knows not to be a failure of the dependency: it is not logged."""
_ADVICE: Final = {
    "grpc.RpcError": "If its status code is that of a failure of the dependency, give "
    "failures=resilience.grpc.RPC_FAILURES to the pipeline, or resilience.grpc.rpc_failures(codes=...) with that code, "
    "or on= to the policy: the other codes are then known answers. Do not list the class, which all codes share",
}
"""The advice for exceptions that are not to be listed by their type, by qualified name, so that nothing is imported."""
_BY_STATUS: Final = (
    "Give failures=resilience.HTTP_FAILURES to the pipeline, or add | resilience.status_failures() to the failures "
    "that it has: statuses such as 429 and 503 are then failures, and all others, such as 404, known answers"
)


def log_unlisted(pipeline: str, error: Exception) -> None:
    """Log, once for each type and pipeline, that an exception passed through because no allowlist lists it.

    An exception of a client that wraps a rejection, by a pipeline around the client's transport, is not logged.
    """
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, UsageError) or kind.__module__ == "tenacity" or KNOWN in error.__dict__:
        return
    if isinstance(error.__cause__, RejectedError):
        return
    if first_time("unlisted", pipeline, name):
        logger.warning(
            "%s let %s through: no allowlist lists it, so it is neither retried nor counted. %s (this is logged once)",
            pipeline or "a pipeline",
            name,
            _advice(error),
        )


def log_bad_response(pipeline: str, function: str, status: int) -> None:
    """Log, once for each function and pipeline, that a returned response with a bad status passes for a good result.

    Args:
        pipeline: the name of the pipeline, which does not classify returned values.
        function: the name of the function.
        status: the HTTP status code of the response.
    """
    if first_time("response", pipeline, function):
        logger.warning(
            "%s of %s returned a response with HTTP status %d: no allowlist lists returned values, so it is neither "
            "retried nor counted. %s (this is logged once)",
            function,
            pipeline or "a pipeline",
            status,
            _BY_STATUS,
        )


def _advice(error: Exception) -> str:
    """Return what to do about an unlisted exception."""
    kind = type(error)
    for base in kind.__mro__:
        advice = _ADVICE.get(f"{base.__module__}.{base.__qualname__}")
        if advice is not None:
            return advice
    status = status_of(error)
    if status is not None:
        return f"It has an HTTP status ({status}). {_BY_STATUS}. Do not list the class, which all statuses share"
    name = kind.__qualname__
    return (
        f"If it is a failure of the dependency, give failures=NETWORK_ERRORS | {name} to the pipeline, or on= to the "
        f"policy; if it is a known answer, answers=({name},)"
    )
