"""The ambient deadline: by when the caller needs an answer. An inner deadline can only shorten it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar, overload

from resilience import _runtime
from resilience._util import validation
from resilience._util.clock import FOREVER, ambient_deadline, clock

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def current_deadline() -> float | None:
    """Return the deadline in force, in seconds of the library's monotonic clock; None if there is none.

    It is the earliest of the ambient deadline and the deadlines of the cancel scopes of anyio or trio around the
    running task.
    """
    at = min(ambient_deadline.get(), _runtime.effective_deadline())
    return None if at == FOREVER else at


@overload
def remaining() -> float | None: ...
@overload
def remaining(default: T) -> float | T: ...
def remaining(default: object = None) -> object:
    """Return the seconds left until `current_deadline()`, >= 0.

    Args:
        default: the value to return if no deadline is in force.
    """
    at = current_deadline()
    return default if at is None else max(0.0, at - clock.monotonic())


@contextmanager
def deadline_after(seconds: float) -> Generator[float]:
    """Set the ambient deadline for the calls in the `with` block, unless an earlier one is in force.

    Args:
        seconds: the time from now, in seconds, >= 0.

    Yields:
        The deadline in force in the block, in seconds of the library's monotonic clock.

    Raises:
        TypeError, ValueError: `seconds` is not a finite number >= 0.

    It cancels nothing by itself. Guarded calls in the block obey it, and `remaining()` returns the time left.
    """
    before = ambient_deadline.get()
    at = min(clock.monotonic() + validation.number("seconds", seconds), before)
    try:
        ambient_deadline.set(at)
        yield at
    finally:
        if ambient_deadline.get() == at:  # not if a generator leaves it in another context, or in another order
            ambient_deadline.set(before)


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that calls `function` with the ambient deadline of this moment, such as in a thread pool.

    If an earlier deadline is in force where it is called, that one applies.
    """
    at = ambient_deadline.get()

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        before = ambient_deadline.get()
        try:
            ambient_deadline.set(min(at, before))
            return function(*args, **kwargs)
        finally:
            ambient_deadline.set(before)

    return carried
