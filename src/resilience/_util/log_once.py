"""Messages that are logged once: errors of hooks, predicates and listeners, which never reach the call."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import os
import warnings
from functools import partial
from operator import attrgetter

from resilience.errors import ResilienceWarning, UsageError

logger = logging.getLogger("resilience")
logger.addHandler(logging.NullHandler())

MAX_MESSAGES = 1000
"""The number of different messages that are logged in all; it bounds the memory for them."""

count = itertools.count()
"""The number of errors of hooks so far, logged or not."""
_logged: set[tuple[str, ...]] = set()


def first_time(*subject: str) -> bool:
    """Return whether a message about this subject has not been logged yet, and note it as logged."""
    if subject in _logged or len(_logged) >= MAX_MESSAGES:
        return False
    _logged.add(subject)
    return True


def hook_failed(what: str, hook: object, error: Exception) -> None:
    """Log that `hook` raised `error`, once for each hook (by its name) and type of error.

    Args:
        what: the purpose of the hook, such as "listener".
        hook: the callable, or the object that it is a method of.
        error: the exception that it raised.
    """
    next(count)
    while isinstance(hook, partial):
        hook = attrgetter("func")(hook)
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    if not first_time(what, name, type(error).__qualname__):
        return
    with contextlib.suppress(Exception):
        error.__suppress_context__ = True  # the exception that the hook was called for may contain confidential data
    logger.error(
        "%s %s raised %s; the guarded call is not affected, and this is logged once",
        what,
        name,
        type(error).__qualname__,
        exc_info=error,
    )


KNOWN = "_resilience_known"
"""The attribute of an exception that an integration knows not to be a failure of the dependency: it is not logged."""
_ADVICE = {
    "grpc.RpcError": "If its status code is that of a failure of the dependency, give "
    "failures=resilience.grpc.RPC_FAILURES to the pipeline, or resilience.grpc.rpc_failures(codes=...) with that code, "
    "or on= to the policy: the other codes are then known answers. Do not list the class, which all codes share",
}
"""The advice for exceptions that are not to be listed by their type, by qualified name, so that nothing is imported."""


def unlisted(pipeline: str, error: Exception) -> None:
    """Log, once for each type and pipeline, that an exception passed through because no allowlist lists it."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, UsageError) or kind.__module__ == "tenacity" or KNOWN in error.__dict__:
        return
    if first_time("unlisted", pipeline, name):
        logger.warning(
            "%s let %s through: no allowlist lists it, so it is neither retried nor counted. %s (this is logged once)",
            pipeline or "a pipeline",
            name,
            _advice(kind),
        )


def _advice(kind: type) -> str:
    """Return what to do about an unlisted type of exceptions."""
    for base in kind.__mro__:
        advice = _ADVICE.get(f"{base.__module__}.{base.__qualname__}")
        if advice is not None:
            return advice
    name = kind.__qualname__
    return (
        f"If it is a failure of the dependency, give failures=NETWORK_ERRORS | {name} to the pipeline, or on= to the "
        f"policy; if it is a known answer, answers=({name},)"
    )


def warn(message: str) -> None:
    """Issue a ResilienceWarning with the location of the innermost caller outside this package."""
    level = 1
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(message, ResilienceWarning, stacklevel=level)


_PACKAGE = __file__[: -len(os.sep.join(("_util", "log_once.py")))]


def forget() -> None:
    """Allow all messages to be logged again; for tests."""
    _logged.clear()
