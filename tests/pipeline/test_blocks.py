"""How `with gate:` and `async with gate:` pass a gate: waiting, rejection, modes, and what is counted."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import Bulkhead, BulkheadFullError, Gate, RejectedError, RejectReason, deadline_after
from resilience._pipeline.engine import Engine
from resilience.events import Rejected
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.support.cancellation import RUNNERS, Report, Scenario, waiting_scenario
from tests.support.loops import Run, each_loop
from tests.support.threads import wait_until


def engine_of(gate: Gate[Any]) -> Engine[Any]:
    engine = gate.entry()[0]
    assert isinstance(engine, Engine)
    return engine


def pass_plainly(gate: Bulkhead, inside: Callable[[], object]) -> None:
    with gate:
        inside()


def pass_awaited(gate: Bulkhead, inside: Callable[[], object]) -> None:
    async def main() -> None:
        async with gate:
            inside()

    anyio.run(main)


each_block = pytest.mark.parametrize("enter", [pass_plainly, pass_awaited])


@each_block
@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_a_block_is_counted_while_it_runs(
    enter: Callable[[Bulkhead, Callable[[], object]], None], error: type[BaseException] | None
) -> None:
    bulkhead = Bulkhead(1)
    in_flight = engine_of(bulkhead).in_flight
    counted: list[int] = []

    def inside() -> None:
        counted.append(len(in_flight))
        if error is not None:
            raise error

    with nullcontext() if error is None else pytest.raises(error):
        enter(bulkhead, inside)

    assert counted == [1]
    assert len(in_flight) == 0


@each_block
def test_a_block_that_is_rejected_is_reported_and_counted_out(
    enter: Callable[[Bulkhead, Callable[[], object]], None],
) -> None:
    bulkhead = Bulkhead(1)
    in_flight = engine_of(bulkhead).in_flight

    with bulkhead, Recorder(events=[Rejected]) as recorder, pytest.raises(BulkheadFullError):
        enter(bulkhead, pytest.fail)

    assert [(event.policy, event.reason, event.mode) for event in recorder.of(Rejected)] == [
        ("bulkhead", "full", "enforce")
    ]
    assert (len(in_flight), bulkhead.in_flight) == (0, 0)


@each_block
def test_a_block_during_a_drain_is_rejected(enter: Callable[[Bulkhead, Callable[[], object]], None]) -> None:
    bulkhead = Bulkhead(1)
    in_flight = engine_of(bulkhead).in_flight
    assert in_flight.drain(0)

    with Recorder(events=[Rejected]) as recorder, pytest.raises(RejectedError) as caught:
        enter(bulkhead, pytest.fail)

    assert caught.value.reason is RejectReason.DRAINING
    assert [event.reason for event in recorder.of(Rejected)] == ["draining"]
    assert (len(in_flight), bulkhead.in_flight) == (0, 0)
    in_flight.set_draining(False)
    enter(bulkhead, lambda: None)


def test_a_thread_waits_for_its_permit() -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=10)
    inside = threading.Event()

    def wait() -> None:
        with bulkhead:
            inside.set()

    thread = threading.Thread(target=wait)
    with bulkhead:
        thread.start()
        wait_until(lambda: bulkhead.queued == 1)
        assert not inside.is_set()
    thread.join(10)

    assert inside.is_set()
    assert bulkhead.in_flight == 0


def test_a_wait_in_vain_is_refused(virtual_clock: VirtualClock) -> None:
    bulkhead = Bulkhead(1, queue=1, max_wait=0.5)

    with bulkhead, pytest.raises(BulkheadFullError, match="longest wait"), bulkhead:
        pytest.fail("nobody gets in here")
    with bulkhead, deadline_after(0.1), pytest.raises(TimeoutError), bulkhead:
        pytest.fail("nobody gets in here")

    assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


@each_loop
def test_a_task_waits_for_its_permit(run: Run) -> None:
    bulkhead = Bulkhead(1, queue=5, max_wait=10)
    order: list[int] = []

    async def one(number: int) -> None:
        async with bulkhead:
            order.append(number)
            await anyio.sleep(1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(one, number)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()

    run(main)

    assert sorted(order) == [0, 1, 2, 3]
    assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


@each_loop
def test_a_plain_block_does_not_block_a_loop(run: Run) -> None:
    bulkhead = Bulkhead(1, queue=1)

    async def main() -> None:
        with bulkhead:
            with pytest.raises(TypeError, match="use `async with`"), bulkhead:
                pytest.fail("nobody gets in here")
            assert bulkhead.queued == 0

    run(main)

    assert bulkhead.in_flight == 0


@pytest.mark.parametrize("run", RUNNERS)
def test_cancellation_at_every_suspension(run: Callable[[Callable[[], Scenario]], Report]) -> None:
    def make() -> Scenario:
        bulkhead = Bulkhead(1, queue=10, max_wait=10)

        async def block(function: Callable[[], Awaitable[Any]]) -> None:
            async with bulkhead:
                await function()

        def check() -> str | None:
            left = (bulkhead.in_flight, bulkhead.queued)
            return None if left == (0, 0) else f"in flight and queued: {left}"

        return waiting_scenario(block, check, holding=block, first_attempt=None)

    with virtual_time():
        report = run(make)

    report.must_hold()


def test_modes(virtual_clock: VirtualClock) -> None:
    bulkhead = Bulkhead(1, mode="off")
    with bulkhead:
        assert bulkhead.in_flight == 0

    bulkhead.mode = "shadow"
    with Recorder(events=[Rejected]) as recorder, bulkhead, bulkhead:
        assert bulkhead.in_flight == 1
    assert [event.mode for event in recorder.of(Rejected)] == ["shadow"]
    assert bulkhead.in_flight == 0
