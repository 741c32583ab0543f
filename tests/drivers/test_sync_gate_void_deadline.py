"""Waits of gates in a task that was started inside of a block with a deadline, and goes on after that has ended.

The deadline that such a task has inherited is void then, so that it does not end its waits any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, DeadlineExceededError, Partition, Pipeline, deadline_after
from resilience._policies.base import Policy
from tests.support.loops import Run, each_loop

GATES: dict[str, Callable[[], Policy]] = {
    "bulkhead": lambda: Bulkhead(1, queue=5, max_wait=60.0),
    "partition": lambda: Partition(lambda: Bulkhead(1, queue=5, max_wait=60.0), by=lambda call: "all"),
}


@each_loop
@pytest.mark.parametrize("gate", GATES)
def test_a_wait_goes_on_after_the_deadline_has_become_void(run: Run, gate: str) -> None:
    assert run(lambda: waited(GATES[gate](), ends_after=0.5)) == "good"


@each_loop
@pytest.mark.parametrize("gate", GATES)
def test_a_wait_ends_at_a_deadline_that_holds(run: Run, gate: str) -> None:
    assert isinstance(run(lambda: waited(GATES[gate](), ends_after=2.0)), DeadlineExceededError)


async def waited(gate: Policy, *, ends_after: float) -> Any:
    """Return the outcome of a call that has to wait for 5 s, made inside of a block with a deadline in 1 s."""
    pipeline = Pipeline(gate)
    outcome: list[Any] = []

    async def background() -> None:
        try:
            outcome.append(await pipeline.acall(lambda: "good"))
        except DeadlineExceededError as error:
            outcome.append(error)

    async def busy() -> None:
        await pipeline.acall(anyio.sleep, 5)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(busy)
        await anyio.sleep(0.1)
        with deadline_after(1.0):
            tasks.start_soon(background)
            await anyio.sleep(ends_after)
    return outcome[0]
