"""The ways to call a function through a pipeline: plainly or awaited, directly or decorated."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from resilience import Pipeline

Make: TypeAlias = "Callable[[Pipeline[Any], Callable[..., Any]], Any]"


def plainly(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    return pipeline.call(function)


def awaited(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    return asyncio.run(pipeline.acall(function))


def decorated(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    def plain() -> Any:
        return function()

    guarded: Any = pipeline(_named(plain))
    return guarded()


def decorated_async(pipeline: Pipeline[Any], function: Callable[..., Any]) -> Any:
    async def coroutine() -> Any:
        return function()

    guarded: Any = pipeline(_named(coroutine))
    return asyncio.run(guarded())


def _named(function: Any) -> Any:
    """Give a function a name of its own: an unnamed pipeline is called after it, and two of one name are warned of."""
    function.__name__ = function.__qualname__ = f"{function.__name__}_{next(_numbers)}"
    return function


_numbers = itertools.count(1)


each_way = pytest.mark.parametrize("make", [plainly, awaited, decorated, decorated_async])
