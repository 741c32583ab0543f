"""The call of a generator function, and what it has returned when its first item is there."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from resilience._call.callables import name_of
from resilience._call.running_call import RunningCall, StreamedCall
from resilience._call.settlement import DeferredSettlement
from resilience._outcome.ending import ABANDONED, OK


class Head:
    """A generator whose first item has arrived.

    Args:
        items: the generator, which has yielded its first item.
        first: that item.
        call: the call that has begun it; in a race, or with a thread of its own, a copy of the call that was made.

    Attributes:
        failures: the allowlist of the innermost pipeline.
        phases: the bounds of the silences that follow.
        shadow_phases: those that are reported only.
        settlement: ends with the generator.
    """

    __slots__ = ("call", "failures", "first", "items", "phases", "settlement", "shadow_phases")

    def __init__(self, items: Any, first: Any, call: AnyGeneratorCall) -> None:
        self.items = items
        self.first = first
        self.call = call
        self.failures = call.failures
        self.phases = call.phases
        self.shadow_phases = call.shadow_phases
        self.settlement = call.deferred = DeferredSettlement()


class Exhausted:
    """The end of a generator that has yielded nothing.

    Args:
        value: what it has returned.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        self.value = value


class AnyGeneratorCall(StreamedCall):
    """The call of a generator function. An attempt calls it, and takes its first item.

    The call is itself the function that drivers call, since the generator belongs to the call that has made it.
    """

    __slots__ = ("_make",)

    _make: Callable[..., Any]

    @property
    def function(self) -> Callable[..., Any]:
        """This call."""
        return self

    @function.setter
    def function(self, make: Callable[..., Any]) -> None:
        self._make = make

    @property
    def operation(self) -> str:
        """The operation given by `bind`, otherwise the name of the generator function."""
        return self.options.operation or name_of(self._make)

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make an attempt: return the Head of the generator, or Exhausted if it has no item."""

    def copy(self) -> RunningCall:
        """Return a copy, for an attempt that continues independently of the call."""
        return self.copy_state_to(type(self).make(self.options, self._make, self.args, self.kwargs))


class GeneratorCall(AnyGeneratorCall):
    """The call of a plain generator function."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Head | Exhausted:
        items = self._make(*args, **kwargs)
        try:
            first = next(items)
        except StopIteration as stop:
            self.deferred = DeferredSettlement(OK)
            return Exhausted(stop.value)
        return Head(items, first, self)

    def dispose(self, result: Any) -> None:
        """Close the generator of an attempt whose result is not used."""
        if isinstance(result, Head):
            try:
                with contextlib.suppress(Exception):
                    result.items.close()
            finally:
                result.settlement.end(ABANDONED)


class AsyncGeneratorCall(AnyGeneratorCall):
    """The call of an async generator function."""

    __slots__ = ()

    async def __call__(self, *args: Any, **kwargs: Any) -> Head | Exhausted:
        items = self._make(*args, **kwargs)
        try:
            first = await anext(items)
        except StopAsyncIteration:
            self.deferred = DeferredSettlement(OK)
            return Exhausted()
        return Head(items, first, self)

    async def adispose(self, result: Any) -> None:
        """Close the generator of an attempt whose result is not used."""
        if isinstance(result, Head):
            try:
                with contextlib.suppress(Exception):
                    await result.items.aclose()
            finally:
                result.settlement.end(ABANDONED)
