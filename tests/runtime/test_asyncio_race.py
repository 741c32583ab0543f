"""The cancel scope of races in asyncio: its own cancellation is swallowed, one from outside is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resilience._runtime.asyncio_race import CancelScope


def test_it_cancels_the_code_inside_and_swallows_that() -> None:
    async def main() -> tuple[bool, int]:
        scope = CancelScope()
        asyncio.get_running_loop().call_soon(scope.cancel)
        reached = False
        with scope:
            await asyncio.Event().wait()
            reached = True
        task = asyncio.current_task()
        assert task is not None
        return reached, task.cancelling()

    assert asyncio.run(main()) == (False, 0)


def test_it_may_be_cancelled_before_it_is_entered() -> None:
    async def main() -> bool:
        scope = CancelScope()
        scope.cancel()
        with scope:
            await asyncio.sleep(0)
            return False
        return True

    assert asyncio.run(main())


@pytest.mark.parametrize("both", [False, True])
def test_a_cancellation_from_outside_passes(both: bool) -> None:
    scopes: list[CancelScope] = []

    async def wait() -> None:
        scopes.append(CancelScope())
        with scopes[0]:
            await asyncio.Event().wait()

    async def main() -> int:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        if both:
            scopes[0].cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelling()

    assert asyncio.run(main()) == 1


def test_code_that_ends_all_the_same_leaves_no_cancellation_behind() -> None:
    async def main() -> tuple[Any, int]:
        scope = CancelScope()
        value = "none"
        asyncio.get_running_loop().call_soon(scope.cancel)
        with scope:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                value = "late"
        task = asyncio.current_task()
        assert task is not None
        return value, task.cancelling()

    assert asyncio.run(main()) == ("late", 0)


def test_it_cancels_once() -> None:
    async def main() -> int:
        scope = CancelScope()
        with scope:
            scope.cancel()
            scope.cancel()
            await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0
