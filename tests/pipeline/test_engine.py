"""When the chains of a pipeline are composed; the modes of policies, pipelines and the process; forked children."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from resilience import Loop, Pipeline, RejectedError, Retry, set_mode, subscribe
from resilience._call.call import PipelineInfo
from resilience.events import CallEnded, Event, Rejected
from resilience.events._types import ModeName
from resilience.testing import Recorder
from tests.support.fork import in_child
from tests.support.functions import Flaky, down
from tests.support.interpreter import run_python
from tests.support.policies import Closed, Instead, retrying
from tests.support.threads import together
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


class TestModes:
    @pytest.mark.parametrize("mode", ["off", "shadow"])
    def test_of_the_process(self, mode: ModeName) -> None:
        pipeline = retrying()
        flaky = Flaky()
        try:
            set_mode(mode)
            with pytest.raises(ConnectionError):
                pipeline.call(flaky)
            with pytest.raises(ConnectionError):
                retrying().call(down)
        finally:
            set_mode("enforce")
        assert flaky.calls == 1
        pipeline.call(Flaky())

    @pytest.mark.parametrize("mode", ["off", "shadow"])
    def test_of_a_policy(self, mode: ModeName) -> None:
        pipeline = Pipeline(Closed(), Instead("other"))
        pipeline["closed"].mode = mode
        with Recorder(pipeline, events=[Rejected]) as recorder:
            assert pipeline.call(int) == 0
            assert asyncio.run(pipeline.acall(int)) == 0
        assert [event.mode for event in recorder.of(Rejected)] == (["shadow"] * 2 if mode == "shadow" else [])
        pipeline["substitute"].update(mode=mode)
        with pytest.raises(ConnectionError):
            pipeline.call(down)
        pipeline["closed"].mode = "enforce"
        with pytest.raises(RejectedError):
            pipeline.call(int)

    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match="mode"):
            set_mode("loud")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="mode"):
            Retry().mode = "loud"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]


def test_the_switch_turns_everything_off() -> None:
    gate = Turnstile(room=0)
    gate.take()
    pipeline = Pipeline(gate)
    set_mode("off")
    try:
        assert pipeline.call(int) == 0
    finally:
        set_mode("enforce")
    with pytest.raises(RejectedError):
        pipeline.call(int)


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_the_mode_of_a_pipeline_is_that_of_all_in_it(mode: ModeName) -> None:
    alone: Pipeline[Any] = Pipeline(Closed(), mode=mode)
    nested: Pipeline[Any] = Pipeline(Pipeline(Closed(), mode=mode))
    around: Pipeline[Any] = Pipeline(Pipeline(Closed()), mode=mode)
    for pipeline in (alone, nested, around):
        assert pipeline.call(int) == 0
        assert asyncio.run(pipeline.acall(int)) == 0
    around.mode = "enforce"
    with pytest.raises(RejectedError):
        around.call(int)
    around.update(mode=mode)
    assert around.call(int) == 0


@pytest.mark.slow
def test_the_mode_comes_from_the_environment() -> None:
    code = "import resilience._pipeline.engine as e; print(e.process.mode)"

    assert run_python(code, RESILIENCE_MODE="shadow").strip() == "shadow"
    told = run_python(code, RESILIENCE_MODE="of")
    assert "RESILIENCE_MODE is ignored" in told
    assert "enforce" in told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_forked_child_does_not_count_the_calls_of_the_parents_threads() -> None:
    pipeline = Pipeline(Retry())
    running, stop = threading.Event(), threading.Event()

    def hang() -> None:
        running.set()
        stop.wait(10)

    thread = threading.Thread(target=pipeline.call, args=(hang,))
    thread.start()
    assert running.wait(10)
    drained = in_child(lambda: str(pipeline.drain(1)))
    stop.set()
    thread.join(10)

    assert drained == "True"


class Composed(Loop):
    """Counts how often it is composed into a chain, which asks it once what a success does."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def on_success(self, info: PipelineInfo) -> None:
        self.times += 1


class TestComposing:
    """A chain is composed by the first call that needs it, and again by the first one after a change."""

    def test_nothing_is_composed_before_the_first_call(self) -> None:
        loop = Composed()
        pipeline = Pipeline(loop, name="composed-late")
        pipeline.bind(operation="x")
        pipeline(down)
        pipeline.describe()
        pipeline.snapshot()

        assert loop.times == 0

    @each_way
    def test_the_first_call_composes_it(self, make: Make) -> None:
        loop = Composed()
        pipeline = Pipeline(loop)

        for _ in range(3):
            assert make(pipeline, lambda: "fine") == "fine"

        assert loop.times == 1

    def test_plain_and_awaited_calls_have_chains_of_their_own(self) -> None:
        loop = Composed()
        pipeline = Pipeline(loop)

        pipeline.call(int)
        assert loop.times == 1
        asyncio.run(pipeline.acall(int))
        assert loop.times == 2
        pipeline.call(int)
        asyncio.run(pipeline.acall(int))
        assert loop.times == 2

    @each_way
    def test_a_listener_that_comes_later_is_heard_of_by_the_next_call(self, make: Make) -> None:
        loop = Composed()
        pipeline = Pipeline(loop)
        heard: list[Event] = []
        make(pipeline, int)

        subscription = pipeline.subscribe(heard.append, events=[CallEnded])
        assert loop.times == 1
        make(pipeline, int)
        assert (loop.times, len(heard)) == (2, 1)
        subscription()
        assert loop.times == 2
        make(pipeline, int)

        assert (loop.times, len(heard)) == (3, 1)

    @each_way
    def test_a_listener_to_all_pipelines_is_heard_of_as_well(self, make: Make) -> None:
        pipeline = Pipeline(Composed())
        heard: list[Event] = []
        make(pipeline, int)

        with subscribe(heard.append, events=[CallEnded]):
            make(pipeline, int)
        make(pipeline, int)

        assert len(heard) == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda pipeline: pipeline["loop"].update(mode="shadow"),
            lambda pipeline: setattr(pipeline, "mode", "shadow"),
            lambda pipeline: set_mode("enforce"),
            lambda pipeline: pipeline.resume(),
            lambda pipeline: pipeline.reset(),
        ],
        ids=["policy", "pipeline", "process", "resume", "reset"],
    )
    def test_after_a_change_the_next_call_composes_it_anew(self, change: Callable[[Pipeline[Any]], object]) -> None:
        loop = Composed()
        pipeline = Pipeline(loop)
        pipeline.call(int)

        change(pipeline)
        change(pipeline)
        assert loop.times == 1
        pipeline.call(int)
        pipeline.call(int)

        assert loop.times == 2

    def test_a_change_further_in_reaches_the_pipelines_around(self) -> None:
        loop = Composed()
        outer = Pipeline(Pipeline(loop))
        outer.call(int)

        loop.mode = "shadow"
        outer.call(int)

        assert loop.times == 2

    def test_a_call_in_flight_finishes_in_the_chain_that_it_began_in(self) -> None:
        pipeline: Pipeline[Any] = Pipeline(Closed(mode="off"))
        heard: list[Event] = []

        def change() -> str:
            pipeline.subscribe(heard.append, events=[CallEnded])
            pipeline["closed"].mode = "enforce"
            return "fine"

        assert pipeline.call(change) == "fine"
        assert heard == []
        with pytest.raises(RejectedError):
            pipeline.call(int)
        assert len(heard) == 1

    def test_a_call_within_a_call_finds_the_chain(self) -> None:
        loop = Composed()
        pipeline: Pipeline[Any] = Pipeline(loop)

        assert pipeline.call(pipeline.call, lambda: "fine") == "fine"
        assert loop.times == 1

    @pytest.mark.usefixtures("frequent_switches")
    def test_first_calls_of_many_threads_all_pass_and_keep_one_chain(self) -> None:
        for _ in range(20):
            loop = Composed()
            pipeline: Pipeline[Any] = Pipeline(loop)

            assert together(*[partial(pipeline.call, lambda: "fine")] * 4) == []

            times, chain = loop.times, pipeline.engine.chain
            assert 1 <= times <= 4
            assert pipeline.call(int) == 0
            assert (loop.times, pipeline.engine.chain) == (times, chain)
