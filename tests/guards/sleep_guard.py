"""A pytest plugin: a test sleeps in virtual time, or is marked slow.

The functions that sleep are replaced once, for the whole run, so that a module which does `from time import sleep` is
guarded too; the replacements do something only while a test runs that is not marked slow. Because a test, or a thread
that it has started, may swallow the error, what happened is written down as well, and fails the test at its end.
"""

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import Any

import pytest
import trio
import trio.testing

ADVICE = "mark the test slow, or use virtual time"

# Waiting for a child process with a timeout polls; the process is the condition that is waited for.
WAITS_FOR_A_CONDITION = {"subprocess"}


class RealSleepError(AssertionError):
    """A test slept in real time."""


@dataclass(frozen=True)
class Sleeper:
    """A function that sleeps."""

    places: tuple[str, ...]
    """Where it is found: "module:name" or "module:Class.name"."""
    virtual: Callable[[], bool]
    """Whether the time that it would sleep in, if called now, is virtual."""
    seconds: Callable[..., float]
    """How long it would sleep; takes the arguments of the function."""


def more_sleepers() -> list[Sleeper]:
    """ADD HERE the other functions that sleep in real time.

    Sleeper(("package.module:Class.method",), never, lambda self, seconds: seconds), for example. A reference that was
    taken before the replacement, a bound method for instance, goes past it: name what that calls instead.
    """
    return []


def never() -> bool:
    """For functions that know of no virtual time."""
    return False


def asyncio_is_virtual() -> bool:
    """Whether the running loop is one of resilience.testing."""
    try:
        return isinstance(asyncio.get_running_loop(), _testing_types("VirtualLoop"))
    except RuntimeError:
        return False


def trio_is_virtual() -> bool:
    """Whether the running trio has a clock that does not follow the wall."""
    from resilience.testing._trio import VirtualTrioClock

    try:
        clock = trio.lowlevel.current_clock()
    except RuntimeError:
        return False
    return isinstance(clock, (trio.testing.MockClock, VirtualTrioClock))


def anyio_is_virtual() -> bool:
    """Whether the running backend, whichever it is, has virtual time."""
    return trio_is_virtual() or asyncio_is_virtual()


def _testing_types(name: str) -> tuple[type, ...]:
    # Not imported here: if nobody has imported it, nothing is an instance of its classes.
    found = getattr(sys.modules.get("resilience.testing"), name, None)
    return (found,) if isinstance(found, type) else ()


def _until(deadline: float) -> float:
    return deadline - trio.current_time()


def sleepers() -> list[Sleeper]:
    """All functions that are guarded."""

    def delay(delay: float, result: object = None) -> float:
        return delay

    def seconds(seconds: float) -> float:
        return seconds

    return [
        Sleeper(("time:sleep",), never, seconds),
        Sleeper(("asyncio:sleep", "asyncio.tasks:sleep"), asyncio_is_virtual, delay),
        Sleeper(("trio:sleep", "trio._timeouts:sleep"), trio_is_virtual, seconds),
        Sleeper(("trio:sleep_until", "trio._timeouts:sleep_until"), trio_is_virtual, _until),
        Sleeper(("anyio:sleep", "anyio._core._eventloop:sleep"), anyio_is_virtual, delay),
        *more_sleepers(),
    ]


class Watch:
    """Knows whether sleeping is forbidden at the moment, and who did it all the same."""

    def __init__(self) -> None:
        self.forbidden = False
        self.seen: list[str] = []

    def check(self, name: str, sleeper: Sleeper, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Complain about a call that would sleep in real time."""
        if not self.forbidden or sleeper.virtual() or not sleeper.seconds(*args, **kwargs) > 0:
            return
        caller = _caller()
        if caller.f_globals.get("__name__") in WAITS_FOR_A_CONDITION:
            return
        complaint = f"{name} in real time at {caller.f_code.co_filename}:{caller.f_lineno}: {ADVICE}"
        self.seen.append(complaint)
        raise RealSleepError(complaint)

    @contextmanager
    def over(self, item: pytest.Item) -> Iterator[None]:
        """Watch one phase of a test."""
        if item.get_closest_marker("slow") is not None:
            yield
            return
        self.forbidden = True
        try:
            yield
            if self.seen:
                raise RealSleepError("swallowed by the test or its threads:\n" + "\n".join(self.seen))
        finally:
            self.forbidden = False
            self.seen.clear()


def _caller() -> FrameType:
    frame = sys._getframe(1)
    while frame.f_globals is globals() and frame.f_back is not None:
        frame = frame.f_back
    return frame


WATCH = Watch()
_REPLACEMENTS = set[Callable[..., Any]]()


def install() -> None:
    """Replace the functions that sleep, those that are not replaced yet."""
    for sleeper in sleepers():
        for place in sleeper.places:
            module, _, path = place.partition(":")
            *owners, name = path.split(".")
            owner = functools.reduce(getattr, owners, import_module(module))
            original = getattr(owner, name)
            if original not in _REPLACEMENTS:
                replacement = _guarded(place.replace(":", "."), original, sleeper)
                _REPLACEMENTS.add(replacement)
                setattr(owner, name, replacement)


def _guarded(name: str, original: Callable[..., Any], sleeper: Sleeper) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        WATCH.check(name, sleeper, args, kwargs)
        return original(*args, **kwargs)

    @functools.wraps(original)
    async def guarded_async(*args: Any, **kwargs: Any) -> Any:
        WATCH.check(name, sleeper, args, kwargs)
        return await original(*args, **kwargs)

    return guarded_async if inspect.iscoroutinefunction(original) else guarded


def pytest_configure() -> None:
    install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    with WATCH.over(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with WATCH.over(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    with WATCH.over(item):
        return (yield)
