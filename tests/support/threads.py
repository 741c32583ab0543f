"""Threads that run together, and are switched often, so that they meet in every possible moment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator

import pytest

SECONDS = 1e-6


@pytest.fixture
def frequent_switches() -> Generator[None]:
    """Have the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def together(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run the jobs in threads at once; returns what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        start.wait(10)
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return raised
