"""Calls of OpenTelemetry outside of finalizers, and what they raise."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from resilience import Pipeline
from resilience._util.locks import state_lock, thread_state
from resilience.events._delivery import listener_errors
from resilience.opentelemetry._safely import failed, outside_finalizers
from tests.opentelemetry.telemetry import Telemetry
from tests.support.policies import Streaming


def test_outside_of_a_finalizer_it_is_called_at_once() -> None:
    done: list[int] = []
    outside_finalizers(lambda: done.append(1))

    assert done == [1]


def test_inside_of_a_finalizer_it_is_left_to_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    with monkeypatch.context() as inside:
        inside.setattr(thread_state, "finalizing", True)
        outside_finalizers(lambda: done.append(1))
    with state_lock:
        outside_finalizers(lambda: done.append(2))

    assert done == []
    Pipeline[object]().call(int)
    assert done == [1, 2]


class Watching(SpanProcessor):
    """Notes for each span that ends whether a finalizer runs."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, bool]] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append((span.name, thread_state.finalizing))


def test_spans_and_numbers_of_what_was_dropped_come_outside_of_its_finalizer(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, gate, counted = Watching(), Streaming(), list[bool]()
    telemetry.tracer_provider.add_span_processor(watching)
    write = Counter.add

    def add(*args: Any, **more: Any) -> None:
        counted.append(thread_state.finalizing)
        write(*args, **more)

    monkeypatch.setattr(Counter, "add", add)
    Pipeline[Any](gate, name="streams").bind(operation="dropped").call(int)
    gate.left.clear()
    gc.collect()
    assert watching.ended == []
    dropped = time.time_ns()

    Pipeline[Any](name="next").call(str)

    assert watching.ended == [("dropped", False), ("str", False)]
    assert counted == [False] * 4
    (ending, *_) = [span.end_time for span in telemetry.spans()]
    assert ending is not None
    assert ending <= dropped  # although it is written later


def test_what_is_raised_is_counted_each_time_and_logged_once(
    nothing_logged_yet: None, caplog: pytest.LogCaptureFixture
) -> None:
    before = listener_errors.totals().get("fragile", 0)
    for _ in range(3):
        failed("tracing", failed, OSError("disk"), "fragile")

    assert listener_errors.totals()["fragile"] == before + 3
    assert [record.getMessage() for record in caplog.records] == [
        "tracing failed raised OSError; the guarded call is not affected, and this is logged once"
    ]
