"""Tests of blocks that a gate guards: `with gate.calling():`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import anyio
import anyio.lowlevel
import pytest

from resilience import Bulkhead, BulkheadFullError, CircuitBreaker, Gate, RejectedError, UsageError
from resilience.testing import VirtualClock
from tests.support.loops import Run, each_loop


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_permit_comes_back_whatever_leaves_the_block(error: type[BaseException]) -> None:
    bulkhead = Bulkhead(1)

    with pytest.raises(error), bulkhead.calling():
        assert bulkhead.in_flight == 1
        raise error

    assert bulkhead.in_flight == 0


def test_a_block_that_is_refused_is_not_entered() -> None:
    bulkhead = Bulkhead(1)

    with bulkhead.calling(), pytest.raises(BulkheadFullError), bulkhead.calling():
        pytest.fail("it is full")

    assert bulkhead.in_flight == 0


def test_it_gives_the_gate() -> None:
    bulkhead = Bulkhead(1)

    with bulkhead.calling() as entered:
        assert entered is bulkhead


def test_a_breaker_scores_blocks() -> None:
    breaker = CircuitBreaker(consecutive_failures=4, on=OSError)

    for error in (OSError, ValueError, OSError):
        with pytest.raises(error), breaker.calling():
            raise error
    assert breaker.state == "open"
    with pytest.raises(RejectedError, match="open"), breaker.calling():
        pytest.fail("it is open")


def test_without_a_list_of_its_own_a_block_is_judged_by_network_errors() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)

    with pytest.raises(ValueError, match="mine"), breaker.calling():
        raise ValueError("mine")
    assert breaker.state == "closed"
    with pytest.raises(ConnectionError), breaker.calling():
        raise ConnectionError
    assert breaker.state == "open"


def test_overlapping_blocks_measure_their_own_time(virtual_clock: VirtualClock) -> None:
    """Such as `yield` dependencies of a web framework: the first that begins is the first that ends."""
    breaker = CircuitBreaker(slow_after=0.5)
    blocks: list[ExitStack] = []

    for _ in range(8):
        stack = ExitStack()
        stack.enter_context(breaker.calling())
        blocks.append(stack)
        virtual_clock.advance(0.1)
        if len(blocks) == 3:
            blocks.pop(0).close()
    for stack in blocks:
        stack.close()

    assert (breaker.snapshot()["calls"], breaker.snapshot()["slow"]) == (8, 0)


def test_a_block_of_an_earlier_period_changes_nothing_in_a_half_open_one(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, half_open_calls=1)
    old, probe = ExitStack(), ExitStack()
    old.enter_context(breaker.calling())
    with pytest.raises(ConnectionError), breaker.calling():
        raise ConnectionError
    virtual_clock.advance(60)
    probe.enter_context(breaker.calling())

    with pytest.raises(ConnectionError), old:
        raise ConnectionError

    assert breaker.state == "half_open"
    probe.close()
    assert breaker.state == "closed"


@each_loop
def test_blocks_of_different_tasks_are_kept_apart(run: Run) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)

    async def fails() -> None:
        with pytest.raises(ConnectionError):
            async with breaker.calling():
                await anyio.sleep(1)
                raise ConnectionError

    async def cancelled() -> None:
        with anyio.move_on_after(2):
            async with breaker.calling():
                await anyio.sleep(60)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            group.start_soon(cancelled)

    run(main)

    assert breaker.snapshot()["failures"] == 1


def test_a_generator_that_is_dropped_ends_its_block() -> None:
    bulkhead = Bulkhead(1)

    @contextmanager
    def session() -> Generator[None]:
        with bulkhead.calling():
            yield

    entered = session()
    entered.__enter__()
    assert bulkhead.in_flight == 1
    del entered

    assert bulkhead.in_flight == 0


def test_a_block_is_entered_once() -> None:
    block = Bulkhead(1).calling()
    with block:
        pass

    with pytest.raises(UsageError, match=r"call `calling\(\)` for each block"), block:
        pytest.fail("it was entered before")


def test_it_ends_once() -> None:
    bulkhead = Bulkhead(2)

    block = bulkhead.calling()
    with block:
        block.__exit__(None, None, None)
        assert bulkhead.in_flight == 0

    assert bulkhead.in_flight == 0


@pytest.mark.parametrize("gate", [CircuitBreaker(), Gate[None]()])
def test_a_gate_whose_tokens_differ_says_how_to_guard_a_block(gate: Gate[object]) -> None:
    with pytest.raises(TypeError, match=r"use `with \w+\.calling\(\):`"), gate:
        pytest.fail("it is not entered")


@each_loop
def test_so_it_does_in_a_task(run: Run) -> None:
    async def main() -> None:
        await anyio.lowlevel.checkpoint()
        with pytest.raises(TypeError, match=r"use `with breaker\.calling\(\):`"):
            async with CircuitBreaker():
                pytest.fail("it is not entered")

    run(main)
