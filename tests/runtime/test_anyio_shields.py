"""Shielded cancel scopes of anyio, seen from outside of their task, and the cuts that wait for their end."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from resilience import DeadlineExceededError, Pipeline, Timeout
from resilience._call.caller import options_of
from resilience._call.entry import aexecute
from resilience._call.running_call import RunningCall
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._runtime.anyio_shields import in_shield, innermost_scope
from resilience.testing import virtual_time


class Client(RunningCall):
    """A call of a client that cleans up in shielded scopes."""

    respects_shields = True


async def guarded(function: Any) -> Any:
    """Call a coroutine function as such a client, with a Timeout of one second."""
    pipeline: Pipeline[Any] = Pipeline(Timeout(1.0))
    call = Client.make(options_of(pipeline, NETWORK_ERRORS), function, (), {})
    return await aexecute(pipeline.engine, call)


def test_the_scopes_of_a_task_are_known() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert innermost_scope(task) is None
        with anyio.CancelScope(shield=True) as outer:
            assert innermost_scope(task) is outer
            assert in_shield(task, None)
            assert not in_shield(task, outer)
            await asyncio.sleep(0)
            with anyio.CancelScope() as inner:
                await asyncio.sleep(0)
                assert innermost_scope(task) is inner
                assert not in_shield(task, outer)
                with anyio.CancelScope(shield=True), anyio.CancelScope():
                    await asyncio.sleep(0)
                    assert in_shield(task, outer)
                    assert in_shield(task, inner)
        assert not in_shield(task, None)

    asyncio.run(main())


def test_a_cut_waits_for_the_end_of_a_shield() -> None:
    steps: list[str] = []

    async def client() -> None:
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(5.0)
                steps.append("cleaned up")
            await asyncio.sleep(5.0)
            steps.append("went on")
        finally:
            steps.append("left")

    async def main() -> float:
        started = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceededError):
            await guarded(client)
        return asyncio.get_running_loop().time() - started

    with virtual_time():
        assert asyncio.run(main()) == pytest.approx(5.0, abs=0.01)
    assert steps == ["cleaned up", "left"]


def test_a_shield_around_the_call_does_not_delay_the_cut() -> None:
    async def main() -> float:
        started = asyncio.get_running_loop().time()
        with anyio.CancelScope(shield=True), pytest.raises(DeadlineExceededError):
            await guarded(anyio.sleep_forever)
        return asyncio.get_running_loop().time() - started

    with virtual_time():
        assert asyncio.run(main()) == pytest.approx(1.0, abs=0.01)


def test_a_call_that_ends_in_its_shield_is_late_and_its_task_goes_on() -> None:
    async def client() -> str:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(5.0)
        return "late"

    async def main() -> None:
        assert await guarded(client) == "late"
        await asyncio.sleep(5.0)  # nothing cancels it any more
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    with virtual_time():
        asyncio.run(main())


def test_an_error_from_a_shield_comes_out_and_the_task_goes_on() -> None:
    class Gone(Exception):
        pass

    async def client() -> None:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(5.0)
            raise Gone

    async def main() -> None:
        with pytest.raises(Gone):
            await guarded(client)
        await asyncio.sleep(5.0)

    with virtual_time():
        asyncio.run(main())
