"""Gates whose permits are interchangeable around a block of code: `with bulkhead:`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from resilience import Bulkhead, BulkheadFullError
from resilience._pipeline.in_flight import Drain
from resilience._policies.base import forget_calls


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


def test_one_object_by_hand_and_in_a_pipeline_shares_its_state() -> None:
    bulkhead = Bulkhead(1)

    with bulkhead, pytest.raises(BulkheadFullError):
        bulkhead.call(print)

    assert bulkhead.call(functools.partial(int, "7")) == 7


def test_blocks_may_end_in_another_order_than_they_began() -> None:
    bulkhead = Bulkhead(2)
    first, second = ExitStack(), ExitStack()
    first.enter_context(bulkhead)
    second.enter_context(bulkhead)

    first.close()
    assert bulkhead.in_flight == 1
    second.close()
    assert bulkhead.in_flight == 0


def test_the_end_of_a_block_that_a_fork_has_forgotten_is_ignored() -> None:
    bulkhead = Bulkhead(1)

    with bulkhead:
        forget_calls(bulkhead)
        assert bulkhead.in_flight == 0

    assert bulkhead.in_flight == 0
