"""The bounds of a Timeout on the first item of a guarded generator, and on its silences."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import anyio
import pytest

from resilience import Bulkhead, CircuitBreaker, DeadlineExceededError, Hedge, Pipeline, Retry, Timeout, backoff
from resilience._util.clock import clock
from resilience.events import TimedOut
from resilience.testing import Recorder, VirtualClock
from tests.support.loops import Run, each_loop

NOW = backoff.none()


async def seconds_until_cut(items: AsyncGenerator[int]) -> float:
    """Read items until that is cut; return the seconds that it took."""
    started = clock.monotonic()
    with pytest.raises(DeadlineExceededError):
        async for _ in items:
            pass
    return clock.monotonic() - started


pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


@each_loop
def test_the_first_item_has_its_own_bound_for_all_attempts(run: Run) -> None:
    calls = 0

    @Pipeline(Timeout(None, first=2.0), Retry(9, wait=backoff.fixed(0.5)), name="first")
    async def pages() -> AsyncGenerator[int]:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionError
        await anyio.sleep(60)
        yield 1

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            await anext(pages())

    run(main)
    assert calls == 3


@each_loop
def test_inside_a_retry_it_bounds_each_attempt(run: Run) -> None:
    calls = 0

    @Pipeline(Retry(3, wait=NOW), Timeout(None, first=1.0), name="each first")
    async def pages() -> AsyncGenerator[int]:
        nonlocal calls
        calls += 1
        await anyio.sleep(60 if calls == 1 else 0.5)
        yield 1
        await anyio.sleep(30)
        yield 2

    async def main() -> list[int]:
        return [item async for item in pages()]

    assert run(main) == [1, 2]
    assert calls == 2


@each_loop
@pytest.mark.parametrize("inside", [False, True])
def test_a_long_silence_is_cut_and_scored(run: Run, inside: bool) -> None:
    breaker, bulkhead = CircuitBreaker(), Bulkhead(1)
    timeout, retry = Timeout(None, idle=2.0), Retry(3, wait=NOW)
    first = [retry, timeout] if inside else [timeout, retry]
    ended: list[str] = []
    seen: list[int] = []

    @Pipeline(*first, bulkhead, breaker, name="idle")
    async def pages() -> AsyncGenerator[int]:
        try:
            yield 1
            await anyio.sleep(1.5)
            yield 2
            await anyio.sleep(60)
            yield 3
        finally:
            ended.append("closed")

    async def main() -> None:
        with pytest.raises(DeadlineExceededError):
            async for item in pages():
                seen.append(item)
                await anyio.sleep(10)  # the caller's own time is no silence
        assert breaker.snapshot()["failures"] == 1

    run(main)
    assert (seen, ended, bulkhead.in_flight) == ([1, 2], ["closed"], 0)


def test_of_a_plain_one_the_late_item_is_the_last(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker()

    @Pipeline(Timeout(None, idle=2.0), breaker, name="plain idle")
    def pages() -> Iterator[int]:
        yield 1
        virtual_clock.advance(1.5)
        yield 2
        virtual_clock.advance(5)
        yield 3
        yield 4

    seen: list[int] = []
    with pytest.raises(DeadlineExceededError):
        for item in pages():
            seen.append(item)
            virtual_clock.advance(10)

    assert seen == [1, 2, 3]
    assert breaker.snapshot()["failures"] == 1


@each_loop
def test_the_shortest_of_several_holds(run: Run) -> None:
    @Pipeline(Timeout(50.0, first=20.0, idle=9.0), Retry(3), Timeout(5.0, first=4.0, idle=3.0), name="several")
    async def pages() -> AsyncGenerator[int]:
        yield 1
        await anyio.sleep(60)

    assert run(lambda: seconds_until_cut(pages())) == pytest.approx(3.0)


@each_loop
def test_in_a_race_that_of_the_winner_holds(run: Run) -> None:
    @Pipeline(Hedge(0.0, budget=None), Timeout(None, idle=3.0), name="raced").bind(idempotent=True)
    async def pages() -> AsyncGenerator[int]:
        yield 1
        await anyio.sleep(60)

    assert run(lambda: seconds_until_cut(pages())) == pytest.approx(3.0)


def test_other_results_are_not_bounded_by_them(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Timeout(None, first=1.0, idle=1.0))

    assert pipeline.call(lambda: virtual_clock.advance(5)) is None


@pytest.mark.parametrize("settings", [{"first": 0}, {"idle": -1}, {"first": float("nan")}, {"idle": "1"}])
def test_bounds_are_validated(settings: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(settings))):
        Timeout(1.0, **settings)


def test_a_change_holds_for_later_calls(virtual_clock: VirtualClock) -> None:
    timeout = Timeout(100.0)
    pipeline = Pipeline(timeout)

    @pipeline
    def pages() -> Iterator[int]:
        for number in range(3):
            virtual_clock.advance(5)
            yield number

    assert list(pages()) == [0, 1, 2]
    timeout.update(idle=2.0)
    with pytest.raises(DeadlineExceededError):
        list(pages())


@each_loop
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"first": 2.0}, r"the limit on the first item of timeout of worded \(2 s\) passed while"),
        ({"idle": 3.0}, r"the limit on silences of timeout of worded \(3 s\) passed while"),
    ],
)
def test_the_error_says_which_limit_it_was(run: Run, settings: dict[str, Any], words: str) -> None:
    @Pipeline(Timeout(60.0, **settings), name="worded")
    async def pages() -> AsyncGenerator[int]:
        await anyio.sleep(10 if "first" in settings else 0)
        yield 1
        await anyio.sleep(10)

    async def main() -> None:
        with pytest.raises(DeadlineExceededError, match=words):
            async for _ in pages():
                pass

    run(main)


@each_loop
def test_in_shadow_mode_a_late_first_item_and_the_first_long_silence_are_reported(run: Run) -> None:
    pipeline = Pipeline(Timeout(None, first=1.0, idle=2.0, mode="shadow"), name="watched")

    @pipeline
    async def pages() -> AsyncGenerator[int]:
        for number, silence in enumerate([1.5, 1.0, 3.0, 3.0]):
            await anyio.sleep(silence)
            yield number

    async def main() -> list[int]:
        return [item async for item in pages()]

    with Recorder(pipeline) as recorder:
        assert run(main) == [0, 1, 2, 3]
    assert [(event.timeout, event.mode) for event in recorder.of(TimedOut)] == [(1.0, "shadow"), (2.0, "shadow")]


def test_in_shadow_mode_they_are_reported_of_plain_generators_too(virtual_clock: VirtualClock) -> None:
    pipeline = Pipeline(Timeout(None, first=1.0, idle=2.0, mode="shadow"), name="watched plain")

    @pipeline
    def pages(*silences: float) -> Iterator[int]:
        for number, silence in enumerate(silences):
            virtual_clock.advance(silence)
            yield number

    with Recorder(pipeline) as recorder:
        assert list(pages(1.5, 1.0, 3.0, 3.0)) == [0, 1, 2, 3]
        assert list(pages(0.5, 1.5)) == [0, 1]
    assert [(event.timeout, event.mode) for event in recorder.of(TimedOut)] == [(1.0, "shadow"), (2.0, "shadow")]
