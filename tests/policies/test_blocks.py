"""Gates that guard a block of code: permits, scores, generators, and blocks within blocks."""

from __future__ import annotations

import functools
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilience import Bulkhead, BulkheadFullError, CircuitBreaker, RejectedError
from resilience._call.entry import BlockEntry
from resilience._call.running_call import RunningCall
from resilience._pipeline.in_flight import Drain
from resilience._policies.blocks import Blocks
from tests.support.loops import Run, each_loop


def test_a_block_holds_a_permit() -> None:
    bulkhead = Bulkhead(2)

    with bulkhead:
        assert bulkhead.in_flight == 1
        with bulkhead:
            assert bulkhead.in_flight == 2
            with pytest.raises(BulkheadFullError, match="full"), bulkhead:
                pytest.fail("nobody gets in here")
        assert bulkhead.in_flight == 1

    assert bulkhead.in_flight == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_permit_comes_back_whatever_leaves_the_block(error: type[BaseException]) -> None:
    bulkhead = Bulkhead(1)

    with pytest.raises(error), bulkhead:
        raise error

    assert bulkhead.in_flight == 0


class Overtaken(dict[Any, Any]):
    """Another thread takes away each key once, in the moment before it is popped."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Any] = []

    def pop(self, key: Any, default: Any = None) -> Any:
        if not self.taken:
            self.taken.append(super().pop(key))
        return super().pop(key, default)


def test_two_that_end_blocks_of_others_at_once_end_one_each() -> None:
    passages = Blocks()
    running = passages._running = Overtaken()
    call = RunningCall.make(Bulkhead(1).entry()[1], print, (), {})
    blocks = [BlockEntry(call, owner, True, owner) for owner in ("a", "b")]
    for block in blocks:
        passages.begin(block)

    mine = passages.end("somebody else")

    assert {mine.token, running.taken[0].token} == {"a", "b"}
    assert running == {}


@pytest.mark.usefixtures("frequent_switches")
def test_blocks_that_begin_in_one_thread_and_end_in_another_give_their_permits_back() -> None:
    bulkhead = Bulkhead(64)

    def guarded() -> Generator[None, None, None]:
        with bulkhead:
            yield

    def begin() -> Generator[None, None, None]:
        generator = guarded()
        next(generator)
        return generator

    def request(_: int) -> None:
        generator = workers.submit(begin).result()
        assert workers.submit(next, generator, "over").result() == "over"

    with ThreadPoolExecutor(8) as workers, ThreadPoolExecutor(8) as clients:
        list(clients.map(request, range(500)))

    assert bulkhead.in_flight == 0


def test_a_drain_hears_that_a_block_has_ended() -> None:
    bulkhead = Bulkhead(1)
    engine: Any = bulkhead.entry()[0]
    told: list[str] = []

    with bulkhead:
        drain = Drain(engine.in_flight)
        assert drain.add_waker(lambda: told.append("somebody has left"))
        assert told == []

    assert told == ["somebody has left"]
    assert not drain.unfinished()


def test_a_breaker_scores_blocks() -> None:
    breaker = CircuitBreaker(consecutive_failures=2, on=OSError)

    for error in (OSError, ValueError, OSError):
        with pytest.raises(error), breaker:
            raise error
    assert breaker.state == "open"
    with pytest.raises(RejectedError, match="open"), breaker:
        pytest.fail("nobody gets in here")


def test_without_a_list_of_its_own_a_block_is_judged_by_network_errors() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)

    with pytest.raises(ValueError, match="mine"), breaker:
        raise ValueError("mine")
    assert breaker.state == "closed"
    with pytest.raises(ConnectionError), breaker:
        raise ConnectionError
    assert breaker.state == "open"


def test_a_generator_is_guarded_by_hand() -> None:
    bulkhead = Bulkhead(2)

    def pages() -> Generator[int]:
        with bulkhead:
            yield 1
            yield 2

    first, second = pages(), pages()
    assert (next(first), next(second), bulkhead.in_flight) == (1, 1, 2)
    assert list(first) == [2]
    assert bulkhead.in_flight == 1
    second.close()

    assert bulkhead.in_flight == 0


def test_a_generator_may_be_closed_by_another_thread() -> None:
    bulkhead = Bulkhead(1)

    def pages() -> Generator[int]:
        with bulkhead:
            yield 1

    generator = pages()
    next(generator)
    thread = threading.Thread(target=generator.close)
    thread.start()
    thread.join()

    assert bulkhead.in_flight == 0


@each_loop
def test_blocks_of_different_tasks_are_kept_apart(run: Run) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)

    async def fails() -> None:
        with pytest.raises(ConnectionError):
            async with breaker:
                await anyio.sleep(1)
                raise ConnectionError

    async def cancelled() -> None:
        with anyio.move_on_after(2):
            async with breaker:
                await anyio.sleep(60)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            group.start_soon(cancelled)

    run(main)

    assert breaker.snapshot()["failures"] == 1


def test_one_object_by_hand_and_in_a_pipeline_shares_its_state() -> None:
    bulkhead = Bulkhead(1)

    with bulkhead, pytest.raises(BulkheadFullError):
        bulkhead.call(print)

    assert bulkhead.call(functools.partial(int, "7")) == 7
