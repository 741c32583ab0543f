"""The deadline that the cancel scopes around a task set."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from resilience import Pipeline, Retry, backoff, current_deadline, deadline_after, remaining
from resilience._runtime import asyncio as on_loops
from tests.support.loops import Run, each_loop


@each_loop
def test_cancel_scopes_around_count_where_time_is_asked_for(run: Run) -> None:
    async def main() -> None:
        assert remaining() is None
        with anyio.fail_after(3):
            assert remaining() == pytest.approx(3)
            with deadline_after(2):
                assert remaining() == pytest.approx(2)
                with anyio.fail_after(1):
                    assert remaining() == pytest.approx(1)
                    await anyio.lowlevel.checkpoint()
        assert remaining() is None

    run(main)


@each_loop
def test_a_retry_does_not_wait_in_vain_for_a_scope_that_ends_first(run: Run) -> None:
    pipeline = Pipeline(Retry(3, wait=backoff.fixed(5)))

    async def down() -> None:
        raise ConnectionError("down")

    async def main() -> None:
        with anyio.fail_after(3), pytest.raises(ConnectionError) as caught:
            await pipeline.acall(down)
        assert "past the deadline" in caught.value.__notes__[0]

    run(main)


def test_outside_of_tasks_there_are_no_scopes() -> None:
    assert current_deadline() is None
    assert on_loops.effective_deadline() == float("inf")
