"""The ambient deadline: until when whoever called us wants an answer. It only shrinks on its way in."""

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
    """Return the point in time by which an answer is wanted, on the ambient monotonic clock; None: no deadline.

    Cancel scopes of anyio and trio around the running task count, too.
    """
    at = min(ambient_deadline.get(), _runtime.effective_deadline())
    return None if at == FOREVER else at


@overload
def remaining() -> float | None: ...
@overload
def remaining(default: T) -> float | T: ...
def remaining(default: object = None) -> object:
    """Return the seconds left until the deadline, never less than 0; `default` where there is no deadline."""
    at = current_deadline()
    return default if at is None else max(0.0, at - clock.monotonic())


@contextmanager
def deadline_after(seconds: float) -> Generator[float]:
    """Set the ambient deadline for what is called inside, unless an earlier one is in force; gives that deadline.

    Args:
        seconds: from now, >= 0.

    It cuts nothing by itself: guarded calls inside obey it, and whatever asks `remaining()`.
    """
    before = ambient_deadline.get()
    at = min(clock.monotonic() + validation.number("seconds", seconds), before)
    try:
        ambient_deadline.set(at)
        yield at
    finally:
        if ambient_deadline.get() == at:  # else it is left in another context, or out of turn, by a generator
            ambient_deadline.set(before)


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` with the deadline of this moment, to be run elsewhere, such as in a thread pool.

    Where it runs, a deadline that is in force there and earlier still counts.
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
