"""What happens while a chain is composed: hooks, collections and signal handlers may change pipelines meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Bulkhead,
    Call,
    CircuitBreaker,
    Ending,
    Loop,
    Pipeline,
    RejectedError,
    RetryState,
    Timeout,
    deadline_after,
)
from resilience._call.call import PipelineInfo
from resilience.testing import VirtualClock


class Hooked(Loop):
    """A Loop whose hook does something while a chain is composed."""

    def __init__(self, hook: Callable[[], object]) -> None:
        super().__init__()
        self.hook = hook

    def on_success(self, info: PipelineInfo) -> None:
        self.hook()

    def delay(self, call: Call, ending: Ending, state: RetryState) -> None: ...


def test_a_hook_may_make_the_first_call_of_another_pipeline() -> None:
    other = Pipeline(Timeout(1))

    assert Pipeline(Hooked(lambda: other.call(int)), Timeout(1)).call(lambda: "fine") == "fine"


def test_a_hook_may_make_pipelines_and_subscribe() -> None:
    pipelines: list[Pipeline[Any]] = []

    def hook() -> None:
        made: Pipeline[Any] = Pipeline(Bulkhead(1))
        made.subscribe(lambda event: None)()
        pipelines.append(made)

    assert Pipeline(Hooked(hook)).call(lambda: "fine") == "fine"
    assert pipelines[0].call(int) == 0


def test_a_signal_handler_may_drain_another_pipeline() -> None:
    other: Pipeline[Any] = Pipeline(Bulkhead(1))
    before = signal.signal(signal.SIGUSR1, lambda *_: other.drain(0))
    try:
        assert Pipeline(Hooked(lambda: signal.raise_signal(signal.SIGUSR1))).call(lambda: "fine") == "fine"
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(RejectedError, match="drained"):
        other.call(int)


def test_a_hook_may_change_its_own_pipeline_and_the_chain_is_then_composed_again() -> None:
    changes: list[int] = []

    def change() -> None:
        if not changes:
            changes.append(1)
            pipeline["bulkhead"].mode = "off"

    pipeline: Pipeline[Any] = Pipeline(Hooked(change), Bulkhead(1))
    pipeline.call(int)
    pipeline.call(int)

    bulkhead = pipeline.get(Bulkhead)
    assert bulkhead.snapshot()["peak"] <= 1
    peak = bulkhead.peak
    pipeline.call(int)
    assert bulkhead.peak == peak, "the chain that was composed of the old modes is not used any more"


def test_a_hook_that_raises_is_logged_and_the_calls_pass(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    assert Pipeline(Hooked(broken)).call(lambda: "fine") == "fine"
    assert "on_success of a policy" in caplog.text


def test_what_a_policy_alone_allows_follows_its_settings(virtual_clock: VirtualClock) -> None:
    breaker = CircuitBreaker(slow_after=10, min_calls=1, failure_rate=0.5)
    breaker.call(int)
    breaker.update(slow_after=0.2)

    def slow() -> None:
        virtual_clock.advance(0.3)

    with deadline_after(0.25):
        breaker.call(slow)

    assert (breaker.state, breaker.snapshot()["failures"]) == ("open", 1)


def test_a_listener_that_comes_while_a_pipeline_is_made_finds_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from resilience import set_mode
    from resilience._pipeline.engine import Engine

    opened = Engine.open

    def then_switch(engine: Any) -> None:
        opened(engine)
        set_mode("enforce")

    monkeypatch.setattr(Engine, "open", then_switch)

    assert Pipeline(Timeout(1)).call(int) == 0
