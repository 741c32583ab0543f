"""Generators whose steps run in the context of the call that has begun them, and not in that of the code around."""

from __future__ import annotations

from typing import Any

from opentelemetry import context
from opentelemetry.context import Context


def guard_items(items: Any, within: Context) -> Any:
    """Return an object with the methods of a generator, or an async generator, whose steps run in a context.

    Args:
        items: the generator, which has begun.
        within: the context that it has left by its first item; what a later step leaves is that of the one after it.
    """
    return (_AsyncItems if hasattr(items, "asend") else _Items)(items, within)


class _Items:
    """A plain generator."""

    def __init__(self, items: Any, within: Context) -> None:
        self._items = items
        self._within = within

    def send(self, value: Any) -> Any:
        """Take a step with a value."""
        return self._step(self._items.send, value)

    def throw(self, error: BaseException) -> Any:
        """Take a step with an exception."""
        return self._step(self._items.throw, error)

    def close(self) -> None:
        """Close the generator."""
        self._step(self._items.close)

    def _step(self, step: Any, *given: Any) -> Any:
        """Take a step in the context of the generator."""
        before = context.get_current()
        context.attach(self._within)
        try:
            return step(*given)
        finally:
            self._within = context.get_current()
            context.attach(before)


class _AsyncItems:
    """An async generator."""

    def __init__(self, items: Any, within: Context) -> None:
        self._items = items
        self._within = within

    async def asend(self, value: Any) -> Any:
        """Take a step with a value."""
        return await self._step(self._items.asend, value)

    async def athrow(self, error: BaseException) -> Any:
        """Take a step with an exception."""
        return await self._step(self._items.athrow, error)

    async def aclose(self) -> None:
        """Close the generator."""
        await self._step(self._items.aclose)

    async def _step(self, step: Any, *given: Any) -> Any:
        """Take a step in the context of the generator."""
        before = context.get_current()
        within = self._within
        context.attach(within)
        try:
            return await step(*given)
        except GeneratorExit:  # the step was dropped, possibly in another context: nothing is to be restored there
            if context.get_current() is not within:
                before = context.get_current()
            raise
        finally:
            self._within = context.get_current()
            context.attach(before)
