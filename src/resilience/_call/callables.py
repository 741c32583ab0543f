"""What is refused because it would guard nothing, with an error that says what to do instead."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Coroutine
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from resilience.errors import UsageError

PLAIN_TYPES: set[type] = {bool, bytes, dict, float, int, list, set, str, tuple, type(None)}
"""Types of returned values that are known to be just that; those that come up are added."""
MAX_PLAIN_TYPES = 1000


def is_awaitable(returned: object, function: Any) -> bool:
    """Return whether a returned value of a type that is not in PLAIN is to be awaited; refuse generators."""
    kind = type(returned)
    if hasattr(kind, "__await__"):
        return True
    if kind in (GeneratorType, AsyncGeneratorType):
        check_not_generator(function)
    elif len(PLAIN_TYPES) < MAX_PLAIN_TYPES:
        PLAIN_TYPES.add(kind)
    return False


def check_function(function: Any) -> None:
    """Refuse to decorate a generator function, a class, or what cannot be called."""
    inner = unwrapped(function)
    if isinstance(inner, type):
        raise TypeError(f"a pipeline decorates functions and other callables, not the class {inner.__qualname__}")
    if not callable(inner):
        raise TypeError(f"a pipeline decorates functions and other callables, not a {type(inner).__qualname__}")
    check_not_generator(function)


def check_not_generator(function: Any) -> None:
    """Raise if it is a generator function."""
    inner = unwrapped(function)
    for one in (inner, type(inner).__call__):
        if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
            raise UsageError(
                f"{name_of(function)} is a generator function, and when one returns nothing has been called yet, so "
                "nothing could be guarded. Decorate the function that fetches one item or page, or guard the call "
                "that opens the stream."
            )


def unawaited_delay(decision: Any, policy: str) -> UsageError:
    """Return the error for a policy that wants to await something in a plain call."""
    if isinstance(decision, Coroutine):
        decision.close()
    return UsageError(f"{policy} has an async predicate, which a plain call cannot await; use one that is plain")


def unawaited_replacement(value: object, policy: str) -> UsageError:
    """Return the error for a policy whose substitute is to be awaited, which a plain call cannot do; it is closed."""
    if isinstance(value, Coroutine):
        value.close()
    return UsageError(f"{policy} has an async `replace`, which a plain call cannot await; use one that is plain")


def unawaited(returned: object, function: Any) -> UsageError:
    """Return the error for an awaitable that came out of a plain function; the awaitable is closed."""
    for end in ("close", "cancel"):  # a coroutine, a future; nothing that the object merely pretends to have
        method = getattr(type(returned), end, None)
        if method is not None:
            method(returned)
            break
    return UsageError(
        f"{name_of(function)} returned an awaitable of type {type(returned).__name__} from a plain call, where nobody "
        "would await it. Use `await pipeline.acall(...)`, or decorate an `async def`."
    )


def unwrapped(function: Any) -> Any:
    """Return what a partial, or a partial of a partial, calls in the end."""
    while isinstance(function, functools.partial):
        function = operator.attrgetter("func")(function)
    return function


def name_of(function: Callable[..., Any]) -> str:
    """Return a short name: `Client.get` of a method, `fetch` of a function that is local to another."""
    inner = unwrapped(function)
    name: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    return name.rpartition("<locals>.")[2]
