"""Checks of functions and returned values that a pipeline cannot guard; the errors say what to do instead."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from resilience.errors import UsageError

PLAIN_TYPES: set[type] = {bool, bytes, dict, float, int, list, set, str, tuple, type(None)}
"""Types of returned values that are neither awaitables nor generators; a cache that `is_awaitable` fills."""
MAX_PLAIN_TYPES = 1000
"""The most types in that cache: a program may create types without limit."""


def is_awaitable(returned: object, function: Any) -> bool:
    """Return whether a returned value is an awaitable; raise UsageError for a generator or a context manager."""
    kind = type(returned)
    if hasattr(kind, "__await__"):
        return True
    if kind in _REFUSED:
        raise UsageError(_REFUSED[kind].format(name_of(function)))
    if len(PLAIN_TYPES) < MAX_PLAIN_TYPES:
        PLAIN_TYPES.add(kind)
    return False


@contextlib.contextmanager
def _block() -> Generator[None]:
    yield


@contextlib.asynccontextmanager
async def _async_block() -> AsyncGenerator[None]:
    yield


_GENERATOR: Final = (
    "{} returned a generator, whose body has not run yet, so that nothing would be guarded. Decorate the generator "
    "function itself, or the function that fetches one item or page."
)
_CONTEXT_MANAGER: Final = (
    "{} returned a context manager, whose body has not run yet, so that nothing would be guarded, and its failures "
    "would count as successes. Decorate the function that its body calls, or guard the block with `gate.calling()`."
)
_REFUSED: Final[dict[type, str]] = {
    GeneratorType: _GENERATOR,
    AsyncGeneratorType: _GENERATOR,
    type(_block()): _CONTEXT_MANAGER,
    type(_async_block()): _CONTEXT_MANAGER,
}
"""Types of returned values that are refused, and why."""


def check_function(function: Any) -> None:
    """Raise TypeError for an object that cannot be decorated: a class, or one that is not callable."""
    inner = unwrapped(function)
    if isinstance(inner, type):
        raise TypeError(f"a pipeline decorates functions and other callables, not the class {inner.__qualname__}")
    if not callable(inner):
        raise TypeError(f"a pipeline decorates functions and other callables, not a {type(inner).__qualname__}")


def is_generator_function(function: Any) -> bool:
    """Return whether `function` is a generator function, plain or async, or an object with such a `__call__`."""
    called = type(unwrapped(function)).__call__
    plain = inspect.isgeneratorfunction(unwrapped(function)) or inspect.isgeneratorfunction(called)
    return plain or is_async_generator_function(function)


def is_async_generator_function(function: Any) -> bool:
    """Return whether `function` is an async generator function, or an object with such a `__call__`."""
    inner = unwrapped(function)
    return inspect.isasyncgenfunction(inner) or inspect.isasyncgenfunction(type(inner).__call__)


def unawaited_delay(decision: Any, policy: str) -> UsageError:
    """Close the awaitable that an async predicate returned in a plain call, and return the error to raise."""
    if isinstance(decision, Coroutine):
        decision.close()
    return UsageError(f"{policy} has an async predicate, which a plain call cannot await; use a plain function")


def unawaited_replacement(value: object, policy: str) -> UsageError:
    """Close the awaitable that an async `replace` returned in a plain call, and return the error to raise."""
    if isinstance(value, Coroutine):
        value.close()
    return UsageError(f"{policy} has an async `replace`, which a plain call cannot await; use a plain function")


def unawaited(returned: object, function: Any) -> UsageError:
    """Close or cancel an awaitable that a function returned in a plain call, and return the error to raise."""
    for name in ("close", "cancel"):  # of a coroutine or a future; by the type, since a proxy has every attribute
        method = getattr(type(returned), name, None)
        if method is not None:
            method(returned)
            break
    return UsageError(
        f"{name_of(function)} returned an awaitable of type {type(returned).__name__} in a plain call, which cannot "
        "await it. Use `await pipeline.acall(...)`, or decorate an `async def`."
    )


def unwrapped(function: Any) -> Any:
    """Return the function inside a `functools.partial`, which may be nested; any other object is returned unchanged."""
    while isinstance(function, functools.partial):
        function = operator.attrgetter("func")(function)
    return function


def is_retried_by_tenacity(function: Any) -> bool:
    """Return whether `function` was decorated with tenacity's `retry`, also below other decorators."""
    tenacity = sys.modules.get("tenacity")
    if tenacity is None:
        return False
    inner = unwrapped(function)
    while inner is not None:
        if isinstance(getattr(inner, "retry", None), tenacity.BaseRetrying):
            return True
        inner = getattr(inner, "__wrapped__", None)
    return False


def name_of(function: Callable[..., Any]) -> str:
    """Return the qualified name of a function, such as `Client.get`, without the functions that it is local to."""
    inner = unwrapped(function)
    name: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    return name.rpartition("<locals>.")[2]
