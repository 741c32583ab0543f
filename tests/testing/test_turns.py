"""Whose turn it is to advance the time: waits of several threads, and jobs that hold them up."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from resilience._util.clock import FOREVER
from resilience.testing import VirtualClock
from resilience.testing._turns import Job, JumpingClock
from tests.support.threads import PATIENCE


@pytest.fixture
def clock() -> JumpingClock:
    clock = JumpingClock()
    clock.patience = PATIENCE
    return clock


@contextmanager
def elsewhere(*steps: Callable[[], object]) -> Generator[None]:
    """Take the steps on another thread, which stays until the end of the block."""
    done, over = threading.Event(), threading.Event()

    def run() -> None:
        for step in steps:
            step()
        done.set()
        over.wait(PATIENCE)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert done.wait(PATIENCE)
        yield
    finally:
        over.set()
        thread.join()


class TestTurns:
    def test_a_wait_alone_advances_the_time_at_once(self, clock: JumpingClock) -> None:
        with clock.waiting(7.0) as end:
            assert clock.take_turn(end)

        assert clock.elapsed == 7.0

    def test_a_wait_that_time_does_not_end_never_has_its_turn(self, clock: JumpingClock) -> None:
        with clock.waiting(FOREVER) as end:
            assert not clock.take_turn(end)

        assert clock.elapsed == 0.0

    @pytest.mark.parametrize(("other", "turn"), [(6.0, False), (7.0, True), (8.0, True), (FOREVER, True)])
    def test_the_wait_that_ends_first_has_its_turn(self, clock: JumpingClock, other: float, turn: bool) -> None:
        with elsewhere(lambda: clock.enter(other)), clock.waiting(7.0) as end:
            assert clock.take_turn(end) is turn

        assert clock.elapsed == (7.0 if turn else 0.0)

    def test_a_wait_is_over_when_another_one_or_somebody_has_advanced_the_time(self, clock: JumpingClock) -> None:
        with elsewhere(lambda: clock.enter(1.0)), clock.waiting(7.0) as end:
            clock.advance(9.0)
            assert clock.take_turn(end)

        assert clock.elapsed == 9.0

    def test_a_wait_is_forgotten_at_its_end(self, clock: JumpingClock) -> None:
        def wait() -> None:
            with pytest.raises(KeyboardInterrupt), clock.waiting(1.0):
                raise KeyboardInterrupt
            clock.leave()

        with elsewhere(wait), clock.waiting(7.0) as end:
            assert clock.take_turn(end)


class TestJobs:
    def test_no_time_passes_while_one_runs_on_another_thread(self, clock: JumpingClock) -> None:
        job = clock.add(Job())
        with elsewhere(job.begin), clock.waiting(7.0) as end:
            assert not clock.take_turn(end)
            clock.finish(job)
            assert clock.take_turn(end)

    @pytest.mark.parametrize("state", [list, Job.deliver])
    def test_nor_before_its_thread_has_started_or_until_its_result_is_delivered(
        self, clock: JumpingClock, state: Callable[[Job], object]
    ) -> None:
        job = clock.add(Job())
        if state is Job.deliver:
            job.begin()
            job.deliver()

        with clock.waiting(7.0) as end:
            assert not clock.take_turn(end)
            clock.finish(job)
            assert clock.take_turn(end)

    def test_the_thread_of_a_job_may_wait_itself(self, clock: JumpingClock) -> None:
        clock.add(Job()).begin()

        with clock.waiting(7.0) as end:
            assert clock.take_turn(end)

    def test_one_that_waits_in_virtual_time_holds_nothing_up(self, clock: JumpingClock) -> None:
        job = clock.add(Job())
        with elsewhere(job.begin, lambda: clock.enter(9.0)), clock.waiting(7.0) as end:
            assert clock.take_turn(end)

    def test_one_that_goes_on_after_its_wait_does(self, clock: JumpingClock) -> None:
        job = clock.add(Job())
        with elsewhere(job.begin, lambda: clock.enter(9.0), clock.leave), clock.waiting(7.0) as end:
            assert not clock.take_turn(end)

    def test_one_that_nothing_refers_to_is_forgotten(self, clock: JumpingClock) -> None:
        clock.add(Job())
        gc.collect()

        with clock.waiting(7.0) as end:
            assert clock.take_turn(end)

    def test_one_that_was_given_up_before_its_thread_started_is_not_revived(self, clock: JumpingClock) -> None:
        job = clock.add(Job())
        work = job.wrap(lambda: None)
        clock.finish(job)
        with elsewhere(work), clock.waiting(7.0) as end:
            assert clock.take_turn(end)

    def test_a_wrapped_function_does_the_job(self) -> None:
        job, seen = Job(), list[object]()

        def add(one: int, other: int) -> int:
            seen.append(job.thread)
            return one + other

        work = job.wrap(add)

        assert work.__name__ == "add"
        assert work(1, other=2) == 3
        assert seen == [threading.get_ident()]
        assert (job.thread, job.over) == (None, False)


class TestPatience:
    def test_a_job_that_does_not_end_holds_a_wait_up_for_a_moment_only(
        self, clock: JumpingClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock.patience = 0.0
        job = clock.add(Job())
        with caplog.at_level(logging.WARNING, "resilience"), elsewhere(job.begin):
            for _ in range(2):
                with clock.waiting(7.0) as end:
                    assert not clock.take_turn(end)
                    while not clock.take_turn(end):
                        threading.Event().wait(0.001)

        assert clock.elapsed == 14.0
        (line,) = caplog.messages
        assert line.startswith("virtual time passes although a thread has been working for 0 real seconds")

    def test_a_wait_does_not_hope_for_threads_that_are_not_known_for_ever(self, clock: JumpingClock) -> None:
        clock.patience = 0.05
        with clock.waiting(7.0) as end:
            assert not clock.take_turn(end, grace=PATIENCE)
            while not clock.take_turn(end, grace=PATIENCE):
                threading.Event().wait(0.001)

        assert clock.elapsed == 7.0

    def test_nothing_is_logged_about_a_job_whose_thread_has_not_started(
        self, clock: JumpingClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        job = clock.add(Job())
        with caplog.at_level(logging.WARNING, "resilience"):
            clock.warn_of([job])

        assert caplog.messages == []


def test_the_waits_of_two_loops_on_two_threads_end_in_the_order_of_time(virtual_clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []
    start = threading.Barrier(2, timeout=PATIENCE)

    async def tick(name: str, seconds: float) -> None:
        start.wait()
        for _ in range(3):
            await asyncio.sleep(seconds)
            seen.append((name, virtual_clock.elapsed))

    threads = [
        threading.Thread(target=lambda name, seconds: asyncio.run(tick(name, seconds)), args=args)
        for args in [("slow", 10.0), ("quick", 4.0)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert seen == [("quick", 4), ("quick", 8), ("slow", 10), ("quick", 12), ("slow", 20), ("slow", 30)]
