"""A circuit breaker that many threads or tasks use at once."""

import asyncio
import itertools
import threading
from typing import Any

import pytest

from resilience import CircuitOpenError
from resilience.events import BreakerChanged, BreakerState
from resilience.testing import Recorder, VirtualClock, virtual_time
from tests.policies.breaker.helpers import Rig
from tests.support.threads import PATIENCE, in_threads

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")

THREADS = 8


class TestConcurrency:
    @pytest.mark.usefixtures("frequent_switches")
    @pytest.mark.parametrize("settings", [{}, {"window_calls": 10**6}, {"slow_after": 3600.0}], ids=str)
    def test_counts_are_exact(self, settings: dict[str, Any]) -> None:
        rig = Rig(window=3600, min_calls=10**6, consecutive_failures=None, **settings)

        def work(index: int) -> None:
            for number in range(1500):
                rig.run("failed" if number % 3 == 0 else "error" if number % 3 == 1 else "ok")
                if number % 50 == index:
                    rig.breaker.snapshot()

        in_threads(THREADS, work)
        assert rig.counts == (THREADS * 1000, THREADS * 500, 0)

    @pytest.mark.usefixtures("frequent_switches")
    @pytest.mark.parametrize("missing", [0, 1])
    def test_the_last_failure_of_a_row_opens_it(self, missing: int) -> None:
        rig = Rig(window=3600, min_calls=10**9, in_a_row=THREADS * 1000 + missing, open_for=30)
        tokens = [[rig.admit() for _ in range(1000)] for _ in range(THREADS)]
        in_threads(THREADS, lambda index: ends(rig, tokens[index]))
        assert rig.seen("state", "failures", "opens") == (
            "closed" if missing else "open",
            THREADS * 1000,
            0 if missing else 1,
        )

    @pytest.mark.usefixtures("frequent_switches")
    def test_a_success_in_between_breaks_the_row(self) -> None:
        rig = Rig(window=3600, min_calls=10**9, in_a_row=THREADS + 1)
        # Between two failures of a thread it has a success, so that no row can be longer than there are threads.
        in_threads(THREADS, lambda _: rig.run(*["failed", "ok"] * 1000))
        assert rig.seen("state", "calls") == ("closed", THREADS * 2000)

    @pytest.mark.usefixtures("frequent_switches")
    def test_half_open_under_threads(self) -> None:
        with virtual_time() as clock:
            for _ in range(20):
                half_open_under_threads(clock)

    def test_half_open_with_calls_in_threads(self) -> None:
        with virtual_time() as clock:
            rig = Rig(in_a_row=1)
            rig.open()
            clock.advance(1.2)
            others_refused = threading.Event()
            refused = itertools.count(1)

            def ask(_: int) -> bool:
                try:
                    rig.pipeline.call(others_refused.wait, PATIENCE)
                except CircuitOpenError:
                    if next(refused) == 13:
                        others_refused.set()
                    return False
                return True

            assert sum(in_threads(16, ask)) == 3
            assert rig.state() is BreakerState.CLOSED

    def test_half_open_with_tasks(self) -> None:
        async def main(clock: VirtualClock) -> None:
            rig = Rig(in_a_row=1)
            rig.open()
            clock.advance(1.2)
            done = asyncio.Event()
            tasks = [asyncio.create_task(rig.pipeline.acall(done.wait)) for _ in range(50)]
            await asyncio.wait(tasks[3:])
            done.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results.count(True) == 3
            assert sum(isinstance(result, CircuitOpenError) for result in results) == 47
            assert rig.state() is BreakerState.CLOSED

        with virtual_time() as clock:
            asyncio.run(main(clock))

    def test_a_thread_that_comes_late_to_the_end_of_the_open_time(self, clock: VirtualClock) -> None:
        rig = Rig()
        rig.open()
        clock.advance(1.2)

        def others() -> None:
            assert rig.state() is BreakerState.HALF_OPEN
            rig.run("failed")

        rig.interfere(others)
        assert rig.state() is BreakerState.OPEN
        assert rig.seen("opens", "seconds_in_state") == (2, 0.0)

    @pytest.mark.parametrize("word", ["failed", "ok"])
    def test_a_thread_that_comes_late_to_a_half_open_period(self, clock: VirtualClock, word: str) -> None:
        rig = Rig(half_open_calls=1)
        rig.half_open(clock)
        rig.interfere(lambda: rig.run(word))
        if word == "failed":
            assert rig.refused().retry_after is not None
        else:
            rig.run("ok")
            assert rig.counts == (1, 0, 0)

    @pytest.mark.usefixtures("frequent_switches")
    def test_a_storm(self) -> None:
        """Any mixture, and in the end no probe place is lost."""
        with virtual_time() as clock:
            rig = Rig(in_a_row=5, open_for=0.5, max_open_for=0.5)
            words = ["ok", "failed", "error", "cancelled", "failed", "ok", "failed", "failed", "7"]

            def work(index: int) -> int:
                refused = 0
                for number in range(300):
                    try:
                        rig.run(words[(number * 7 + index) % len(words)])
                    except CircuitOpenError:
                        refused += 1
                        clock.advance(0.05)
                    if number % 100 == 99:
                        (rig.breaker.isolate, rig.breaker.close, rig.breaker.reset)[(index + number // 100) % 3]()
                return refused

            assert sum(in_threads(THREADS, work)) > 0
            rig.breaker.close()
            for _ in range(3):
                rig.half_open(clock)
                tokens = [rig.admit() for _ in range(3)]
                rig.refused()
                for token in tokens:
                    rig.end(token, "ok")
                assert rig.state() is BreakerState.CLOSED


def half_open_under_threads(clock: VirtualClock) -> None:
    rig = Rig(in_a_row=1)
    rig.open()
    clock.advance(1.2)
    with Recorder(rig.pipeline, events=[BreakerChanged]) as recorder:
        admitted = in_threads(16, lambda _: admits(rig))
    tokens = [token for token in admitted if token is not None]
    assert len(tokens) == len(set(tokens)) == 3
    assert [one.state for one in recorder.of(BreakerChanged)] == ["half_open"]
    in_threads(3, lambda index: rig.end(tokens[index], "ok"))
    assert rig.state() is BreakerState.CLOSED


def ends(rig: Rig, tokens: list[Any]) -> None:
    for token in tokens:
        rig.end(token, "failed")


def admits(rig: Rig) -> Any:
    try:
        return rig.admit()
    except CircuitOpenError:
        return None
