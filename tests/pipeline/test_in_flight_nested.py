"""Pipelines in pipelines: how calls from outside are counted, and refused while the inner one is drained."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resilience import Call, Ending, Gate, Pipeline, RejectedError, Retry, Ticket
from resilience.events import CallEnded, Outcome, Rejected
from resilience.events._types import ModeName
from resilience.testing import Recorder
from tests.support.functions import down


def test_a_nested_pipeline_that_drains_refuses() -> None:
    inner: Pipeline[Any] = Pipeline(name="draining-inner")
    outer = Pipeline(inner)
    assert inner.drain(0)
    with pytest.raises(RejectedError, match="drained"):
        outer.call(int)
    with pytest.raises(RejectedError, match="drained"):
        asyncio.run(outer.acall(int))
    inner.resume()

    assert outer.call(int) == 0


def test_a_drained_inner_pipeline_refuses_in_its_own_name() -> None:
    inner = Pipeline(Retry(), name="inner-drained")
    outer = Pipeline(inner, name="outer-of-drained")
    inner.drain(0)

    with Recorder(inner) as within, Recorder(outer) as without, pytest.raises(RejectedError) as caught:
        outer.call(down)

    assert caught.value.pipeline == "inner-drained"
    assert [event.pipeline for event in within.of(Rejected)] == ["inner-drained"]
    assert without.of(Rejected) == []
    assert [event.outcome for event in without.of(CallEnded)] == [Outcome.REJECTED]
    assert outer.snapshot()["in_flight"] == 0


@pytest.mark.parametrize("mode", ["enforce", "shadow", "off"])
def test_an_inner_pipeline_is_drained_in_every_mode(mode: ModeName) -> None:
    inner = Pipeline(Retry(), mode=mode)
    outer = Pipeline(inner)
    inner.drain(0)

    with pytest.raises(RejectedError, match="drained"):
        outer.call(down)


def test_a_pipeline_that_stands_twice_in_another_counts_each_place() -> None:
    inner = Pipeline(Retry(1), name="stands-twice")
    seen: list[int] = []

    class Looks(Gate[None]):
        def admit(self, call: Call) -> None:
            seen.append(inner.snapshot()["in_flight"])

        def settle(self, token: Ticket | None, ending: Ending) -> None:
            seen.append(inner.snapshot()["in_flight"])

    outer = Pipeline(inner, Looks(), inner)
    outer.call(lambda: seen.append(inner.snapshot()["in_flight"]))

    assert seen == [1, 2, 1]
    assert inner.snapshot()["in_flight"] == 0
