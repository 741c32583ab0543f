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

from resilience.errors import ResilienceWarning

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


def hook_failed(what: str, hook: object, error: BaseException) -> None:
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
