"""Threads that run together, and are switched often, so that they meet in every possible moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

SECONDS = 1e-6
PATIENCE = 120.0
T = TypeVar("T")


@pytest.fixture
def frequent_switches() -> Generator[None]:
    """Have the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def wait_until(condition: Callable[[], bool]) -> None:
    """Let other threads run until something is true; it has to be so before long."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "nothing has happened for too long"
        os.sched_yield()


def interrupt_while(condition: Callable[[], bool]) -> None:
    """Send this process SIGINT when something is true, and again while it stays so.

    Python can lose one that arrives between its last look at signals and the start of a wait: the wait goes on.
    """
    wait_until(condition)
    acted_upon = threading.Event()
    while condition():
        os.kill(os.getpid(), signal.SIGINT)
        acted_upon.wait(0.1)


def in_threads(number: int, work: Callable[[int], T]) -> list[T]:
    """Return what `work` returns in so many threads that start together; it is given the number of the thread."""
    start = threading.Barrier(number, timeout=PATIENCE)

    def run(index: int) -> T:
        start.wait()
        return work(index)

    with ThreadPoolExecutor(number) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, index) for index in range(number)]]


def together(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run the jobs in threads at once; returns what they raised."""

    def run(index: int) -> BaseException | None:
        try:
            jobs[index]()
        except BaseException as error:
            return error
        return None

    return [error for error in in_threads(len(jobs), run) if error is not None]
