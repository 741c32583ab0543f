"""Calling through a pipeline: call, acall and bind."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from resilience import Allowlist, Pipeline, Retry, Timeout, backoff
from resilience.events import CallEnded
from resilience.testing import Recorder, virtual_time
from tests.support.policies import retrying
from tests.support.ways import awaited

NOW = backoff.none()
# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestCalling:
    def test_call_and_acall(self) -> None:
        pipeline = retrying()
        assert pipeline.call(divmod, 7, 2) == (3, 1)
        assert pipeline.call(int, "11", base=2) == 3

        async def add(one: int, *, two: int) -> int:
            return one + two

        assert asyncio.run(pipeline.acall(add, 1, two=2)) == 3
        assert asyncio.run(pipeline.acall(divmod, 7, 2)) == (3, 1)

    def test_an_awaitable_from_a_plain_call_is_refused_and_closed(self) -> None:
        made: list[Any] = []

        async def work() -> int:
            return 1

        def make() -> Any:
            made.append(work())
            return made[-1]

        pipeline = retrying()
        calls: list[Callable[[], Any]] = [lambda: pipeline.call(make), pipeline(make)]
        for call in calls:
            with pytest.raises(TypeError, match="acall"):
                call()
            assert inspect.getcoroutinestate(made[-1]) == inspect.CORO_CLOSED
        assert len(made) == 2
        assert asyncio.run(pipeline.acall(make)) == 1

    def test_bind(self) -> None:
        pipeline = retrying(name="bound")
        first = pipeline.bind(operation="get", target="a.example")
        second = first.bind(target="b.example")
        with Recorder(pipeline, events=[CallEnded]) as recorder:
            first.call(int)
            second.call(int)
            second(int.bit_length)(5)
            pipeline.call(divmod, 1, 1)
        seen = [(event.operation, event.target) for event in recorder.of(CallEnded)]
        assert seen == [("get", "a.example"), ("get", "b.example"), ("get", "b.example"), ("divmod", None)]

    @pytest.mark.parametrize("wrong", [{"operation": 5}, {"target": 5}, {"idempotent": "no"}])
    def test_wrong_bind(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=next(iter(wrong))):
            retrying().bind(**wrong)


def test_late_and_bad_results_of_awaited_calls_are_values() -> None:
    bad = Allowlist.of_results(lambda value: value == "bad")

    with virtual_time():
        assert awaited(Pipeline(Retry(2, wait=NOW), Timeout(1), failures=bad), lambda: "bad") == "bad"
