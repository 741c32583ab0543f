"""Say once that a hook, predicate or listener of the user's failed. Its error never reaches the call."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import os
import warnings
from functools import partial
from operator import attrgetter
from pathlib import Path

from resilience.errors import ResilienceWarning, UsageError

logger = logging.getLogger("resilience")
logger.addHandler(logging.NullHandler())

MOST_KINDS = 1000
"""After so many different complaints there is a pattern; more lines would not help."""

count = itertools.count()
_said: set[tuple[str, ...]] = set()


def first_time(*subject: str) -> bool:
    """Return whether something is to be said for the first time."""
    if subject in _said or len(_said) >= MOST_KINDS:
        return False
    _said.add(subject)
    return True


def hook_failed(what: str, hook: object, error: Exception) -> None:
    """Log that `hook` raised `error`, once for each kind of hook and of error.

    Args:
        what: what the hook was for, such as "listener".
        hook: the callable or object at fault.
        error: what it raised.
    """
    next(count)
    while isinstance(hook, partial):
        hook = attrgetter("func")(hook)
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    if not first_time(what, name, type(error).__qualname__):
        return
    with contextlib.suppress(Exception):
        error.__suppress_context__ = True  # what it was asked about may hold what no log should show
    logger.error(
        "%s %s raised %s; the guarded call is not affected, and this is said once",
        what,
        name,
        type(error).__qualname__,
        exc_info=error,
    )


KNOWN = "_resilience_known"
"""The attribute that an integration gives to an exception which it knows to be nobody's failure: of that, nothing is
said."""
_ADVICE = {
    "grpc.RpcError": "If its status code is that of a failure of the dependency, give "
    "failures=resilience.grpc.RPC_FAILURES to the pipeline, or resilience.grpc.rpc_failures(codes=...) with that code, "
    "or on= to the policy: the other codes are then known answers. Do not list the class, which all codes share",
}
"""What to do about exceptions that are not to be listed by their type: by qualified name, so nothing is imported."""


def unlisted(pipeline: str, error: Exception) -> None:
    """Log, once for each type and pipeline, that an exception was let through because no allowlist lists it."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, UsageError) or kind.__module__ == "tenacity" or KNOWN in error.__dict__:
        return
    if first_time("unlisted", pipeline, name):
        logger.warning(
            "%s let %s through: no allowlist lists it, so it is neither retried nor counted. %s (this is said once)",
            pipeline or "a pipeline",
            name,
            _advice(kind),
        )


def _advice(kind: type) -> str:
    for one in kind.__mro__:
        advice = _ADVICE.get(f"{one.__module__}.{one.__qualname__}")
        if advice is not None:
            return advice
    name = kind.__qualname__
    return (
        f"If it is a failure of the dependency, give failures=NETWORK_ERRORS | {name} to the pipeline, or on= to the "
        f"policy; if it is a known answer, answers=({name},)"
    )


def warn(message: str) -> None:
    """Issue a ResilienceWarning at the first line outside this package."""
    level = 1
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(message, ResilienceWarning, stacklevel=level)


_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def forget() -> None:
    """Say everything anew; for tests."""
    _said.clear()
