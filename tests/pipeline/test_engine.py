"""The modes of policies, pipelines and the process, and pipelines in forked children."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from resilience import Pipeline, RejectedError, Retry, set_mode
from resilience.events import Rejected
from resilience.events._types import ModeName
from resilience.testing import Recorder
from tests.support.functions import Flaky, down
from tests.support.interpreter import run_python
from tests.support.policies import Closed, Instead, retrying
from tests.support.turnstile import Turnstile

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
    child = os.fork()
    if child == 0:
        os._exit(0 if pipeline.drain(1) else 1)
    _, status = os.waitpid(child, 0)
    stop.set()
    thread.join(10)

    assert os.waitstatus_to_exitcode(status) == 0
