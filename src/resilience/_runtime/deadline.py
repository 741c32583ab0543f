"""The ambient deadline: by when the caller needs an answer. An inner deadline can only shorten it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar, overload

from resilience import _runtime
from resilience._call.ambient import Ambient, Detached, ambient, ambient_deadline
from resilience._util import validation
from resilience._util.clock import FOREVER, clock

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def current_deadline() -> float | None:
    """Return the deadline in force, in seconds of the library's monotonic clock; None if there is none.

    It is the earliest of the ambient deadline and the deadlines of the cancel scopes of anyio or trio around the
    running task.
    """
    at = min(ambient_deadline(), _runtime.effective_deadline())
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
def deadline_after(seconds: float | None) -> Generator[float]:
    """Set the ambient deadline for the calls in the `with` block, unless an earlier one is in force.

    Args:
        seconds: the time from now, in seconds, >= 0. None, infinity, NaN and 1e9 or more, which is 31 years, mean none,
            since that is what others give for a call without a deadline, such as `time_remaining()` of gRPC.

    Yields:
        The deadline in force in the block, in seconds of the library's monotonic clock; infinity if there is none.

    Raises:
        TypeError, ValueError: `seconds` is not a number >= 0.

    It cancels nothing by itself. Guarded calls in the block obey it, and `remaining()` returns the time left. Tasks and
    threads that are started in the block obey it as long as the block runs.
    """
    around = ambient.get().innermost()
    at = min(clock.monotonic() + _seconds(seconds), around.holding().at)
    own = Ambient.make(at, around)
    try:
        ambient.set(own)
        yield at
    finally:
        own.at = FOREVER
        own.live = False
        own.release()


_ENDLESS: Final = 1e9
"""Seconds: a time from this on is no deadline. The synchronous API of grpc gives about 9e18 for none (grpc #26236)."""


def _seconds(seconds: float | None) -> float:
    """Return the validated seconds; infinity for what means none."""
    if seconds is None or seconds != seconds or seconds == FOREVER:
        return FOREVER
    validated = validation.number("seconds", seconds)
    return validated if validated < _ENDLESS else FOREVER


@contextmanager
def detached() -> Generator[None]:
    """Leave the ambient deadline behind, for what is started in the `with` block and must outlive the caller.

    Such as a background task that is created in a guarded call: it would obey the deadline of that call until the call
    has ended. The cancel scopes of anyio and trio stay as they are.
    """
    before = ambient.get()
    try:
        ambient.set(Detached.make(FOREVER, before.innermost()))
        yield
    finally:
        ambient.set(before)


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that calls `function` with the ambient deadline of this moment, such as in a thread pool.

    It also takes along which attempts of Retries the caller is inside of, so that retries at several levels do not
    multiply.

    If an earlier deadline is in force where it is called, that one applies. Once the call that has set the deadline has
    ended, it is void.
    """
    here = ambient.get().innermost()

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        before = ambient.get()
        at = before.holding().at
        own = Ambient.make(at if at < here.holding().at else FOREVER, here)
        try:
            ambient.set(own)
            return function(*args, **kwargs)
        finally:
            own.at = FOREVER
            own.live = False
            own.release()
            ambient.set(before)

    return carried
