"""Generator functions: what they do is inside of the span of the call, and the code around them is not."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, suppress
from typing import Any

import anyio.lowlevel
import pytest
from opentelemetry import trace

from resilience import Pipeline, Retry, Timeout, backoff
from tests.opentelemetry.telemetry import Telemetry, attributes, is_child

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def nothing_is_current() -> bool:
    return trace.get_current_span() is trace.INVALID_SPAN


@pytest.fixture
def pipeline() -> Pipeline[Any]:
    return Pipeline(Retry(2, wait=backoff.none()), Timeout(30))


def test_a_plain_generator(telemetry: Telemetry, pipeline: Pipeline[Any]) -> None:
    fails = [True, False]

    @pipeline
    def items() -> Generator[int]:
        with telemetry.tracer.start_as_current_span("body"):
            if fails.pop(0):
                raise ConnectionError
            for number in range(3):
                with telemetry.tracer.start_as_current_span("step"):
                    yield number

    found: list[int] = []
    for item in items():
        assert nothing_is_current()
        assert telemetry.spans("items") == []
        found.append(item)

    assert found == [0, 1, 2]
    whole = next(span for span in telemetry.spans() if "resilience.outcome" in attributes(span))
    bodies = telemetry.spans("body")
    assert [is_child(body, whole) for body in bodies] == [True, True]
    assert [is_child(step, bodies[-1]) for step in telemetry.spans("step")] == [True] * 3
    assert attributes(whole)["resilience.attempts"] == 2


def test_an_async_generator(telemetry: Telemetry, pipeline: Pipeline[Any]) -> None:
    @pipeline
    async def items() -> AsyncGenerator[int]:
        with telemetry.tracer.start_as_current_span("body"):
            for number in range(3):
                await asyncio.sleep(0)
                with telemetry.tracer.start_as_current_span("step"):
                    yield number

    async def main() -> None:
        with telemetry.tracer.start_as_current_span("around") as around:
            async for _ in items():
                assert trace.get_current_span() is around
            assert trace.get_current_span() is around

    asyncio.run(main())

    (whole,) = [span for span in telemetry.spans() if "resilience.outcome" in attributes(span)]
    assert is_child(whole, telemetry.span("around"))
    assert is_child(telemetry.span("body"), whole)
    assert [is_child(step, telemetry.span("body")) for step in telemetry.spans("step")] == [True] * 3


def test_a_generator_that_is_closed_or_thrown_into(telemetry: Telemetry, pipeline: Pipeline[Any]) -> None:
    @pipeline
    def items() -> Generator[int]:
        try:
            yield 1
        except KeyError:
            with telemetry.tracer.start_as_current_span("caught"):
                yield 2
        finally:
            with telemetry.tracer.start_as_current_span("closing"):
                pass

    generator = items()
    assert next(generator) == 1
    assert generator.throw(KeyError()) == 2
    generator.close()

    assert nothing_is_current()
    (whole,) = [span for span in telemetry.spans() if "resilience.outcome" in attributes(span)]
    assert is_child(telemetry.span("caught"), whole)
    assert attributes(whole)["resilience.outcome"] == "ok"
    assert len(telemetry.spans("closing")) == 1


def test_an_async_generator_that_is_closed_or_thrown_into(telemetry: Telemetry, pipeline: Pipeline[Any]) -> None:
    @pipeline
    async def items() -> AsyncGenerator[int]:
        try:
            yield 1
        except KeyError:
            with telemetry.tracer.start_as_current_span("caught"):
                pass
            yield 2

    async def main() -> None:
        async with aclosing(items()) as generator:
            assert await anext(generator) == 1
            assert await generator.athrow(KeyError()) == 2
            assert nothing_is_current()

    asyncio.run(main())

    (whole,) = [span for span in telemetry.spans() if "resilience.outcome" in attributes(span)]
    assert is_child(telemetry.span("caught"), whole)


def test_a_step_that_is_dropped_in_another_context(telemetry: Telemetry, pipeline: Pipeline[Any]) -> None:
    @pipeline
    async def items() -> AsyncGenerator[int]:
        yield 1
        await asyncio.Event().wait()
        yield 2

    async def main() -> None:
        generator = items()
        await anext(generator)
        step = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert nothing_is_current()

    asyncio.run(main())
    pipeline.call(int)

    (whole,) = [span for span in telemetry.spans() if "items" in span.name]
    assert attributes(whole)["resilience.outcome"] == "abandoned"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("ending", "outcome"), [("exhausted", "ok"), ("closed", "ok"), ("failed", "failed")])
def test_the_end_of_an_async_generator(
    telemetry: Telemetry, pipeline: Pipeline[Any], backend: str, ending: str, outcome: str
) -> None:
    @pipeline
    async def items() -> AsyncGenerator[int]:
        yield 1
        await anyio.lowlevel.checkpoint()
        if ending == "failed":
            raise ConnectionError
        yield 2

    async def main() -> None:
        async with aclosing(items()) as generator:
            with suppress(ConnectionError):
                async for _ in generator:
                    assert nothing_is_current()
                    assert telemetry.spans() == []
                    if ending == "closed":
                        break

    anyio.run(main, backend=backend)

    (whole,) = telemetry.spans()
    assert attributes(whole)["resilience.outcome"] == outcome
    assert telemetry.value("resilience_calls", pipeline=pipeline.name, outcome=outcome) == 1
    assert telemetry.value("resilience_attempts", pipeline=pipeline.name, outcome=outcome) == 1


def test_a_plain_generator_that_is_dropped(telemetry: Telemetry, pipeline: Pipeline[Any]) -> None:
    @pipeline
    def items() -> Generator[int]:
        yield 1
        yield 2

    generator = items()
    next(generator)
    del generator
    gc.collect()
    Pipeline[Any]().call(int)

    assert len(telemetry.spans()) == 2
    assert nothing_is_current()


def test_a_generator_without_items(telemetry: Telemetry, pipeline: Pipeline[Any]) -> None:
    @pipeline
    def nothing() -> Generator[int]:
        if telemetry.spans():
            yield 1

    assert list(nothing()) == []
    assert len(telemetry.spans()) == 1
