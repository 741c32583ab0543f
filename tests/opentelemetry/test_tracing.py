"""The spans of calls."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from opentelemetry import context, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from resilience import (
    Allowlist,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    DeadlineExceededError,
    Ending,
    EndingKind,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    subscribe,
)
from resilience.events import CallEnded
from resilience.events._delivery import listener_errors
from resilience.opentelemetry import instrument, uninstrument
from resilience.testing import virtual_time
from tests.opentelemetry.telemetry import Telemetry, attributes, events, is_child
from tests.support.functions import AppError, Failing, down, fine, hang, raising
from tests.support.policies import Closed, Instead, Streaming, retrying
from tests.support.ways import Make, each_way

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")
NOW = backoff.none()


@each_way
def test_a_call_has_one_span_whatever_it_takes(telemetry: Telemetry, make: Make) -> None:
    pipeline = Pipeline[Any](Retry(3, wait=NOW), name="quotes")

    assert make(pipeline, Failing(2)) == "fine"

    (span,) = telemetry.spans()
    assert span.kind is SpanKind.INTERNAL
    assert span.name == attributes(span)["resilience.operation"]
    assert attributes(span)["resilience.pipeline"] == "quotes"
    assert attributes(span)["resilience.outcome"] == "ok"
    assert attributes(span)["resilience.attempts"] == 3
    assert "error.type" not in attributes(span)
    assert span.status.status_code is StatusCode.UNSET
    assert [name for name, _ in events(span)] == ["resilience.retry", "resilience.retry"]
    scope = span.instrumentation_scope
    assert scope is not None
    assert scope.name == "resilience"


def test_the_operation_is_that_of_bind(telemetry: Telemetry) -> None:
    Pipeline[Any](name="quotes").bind(operation="fetch quote").call(int)

    assert attributes(telemetry.span("fetch quote"))["resilience.operation"] == "fetch quote"


@pytest.mark.parametrize(
    ("error", "outcome", "error_type"),
    [
        (ValueError("secret"), "error", "ValueError"),
        (AppError("secret"), "error", "tests.support.functions.AppError"),
        (ConnectionError("secret"), "failed", "ConnectionError"),
        (DeadlineExceededError("secret"), "timed_out", "DeadlineExceededError"),
        (LookupError("secret"), "ok", None),
        (KeyboardInterrupt("secret"), "abandoned", None),
        (asyncio.CancelledError("secret"), "abandoned", None),
    ],
)
def test_the_outcome_of_what_is_raised(
    telemetry: Telemetry, error: BaseException, outcome: str, error_type: str | None
) -> None:
    pipeline = Pipeline[Any](failures=Allowlist(ConnectionError, answers=(LookupError,)))

    with pytest.raises(type(error)):
        pipeline.call(raising(error))
    with pytest.raises(type(error)):
        pipeline.acall(raising(error)).send(None)

    spans = telemetry.spans()
    assert len(spans) == 2
    for span in spans:
        assert attributes(span)["resilience.outcome"] == outcome
        assert attributes(span).get("error.type") == error_type
        assert span.status.status_code is (StatusCode.UNSET if error_type is None else StatusCode.ERROR)
        assert span.status.description is None
        assert events(span) == []


def test_the_outcome_of_rejections_replacements_and_bad_results(telemetry: Telemetry) -> None:
    with pytest.raises(Exception, match="closed"):
        Pipeline[Any](Closed()).call(int)
    assert Pipeline[Any](Instead("stale")).call(down) == "stale"
    bad = Pipeline[Any](failures=Allowlist.of_results(lambda result: result == 503))
    assert bad.bind(operation="bad").call(int, 503) == 503

    rejected, replaced, failed = map(attributes, telemetry.spans())
    assert (rejected["resilience.outcome"], rejected["error.type"]) == ("rejected", "RejectedError")
    assert rejected["resilience.attempts"] == 0
    assert (replaced["resilience.outcome"], replaced.get("error.type")) == ("fallback", None)
    assert (failed["resilience.outcome"], failed["error.type"]) == ("failed", "int")


def test_a_late_value_is_a_timeout(telemetry: Telemetry) -> None:
    with virtual_time() as clock:
        Pipeline[Any](Timeout(1)).call(clock.advance, 2)

    (span,) = telemetry.spans()
    assert attributes(span)["resilience.outcome"] == "timed_out"
    assert attributes(span)["error.type"] == "timeout"


@each_way
def test_the_span_is_current_in_each_attempt_and_not_afterwards(telemetry: Telemetry, make: Make) -> None:
    seen: list[Any] = []

    def work() -> None:
        seen.append(trace.get_current_span().get_span_context())
        if len(seen) < 3:
            raise ConnectionError

    make(retrying(), work)

    assert trace.get_current_span() is trace.INVALID_SPAN
    (span,) = telemetry.spans()
    assert seen == [span.get_span_context()] * 3


def test_the_span_of_the_caller_is_the_parent_and_current_again(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](name="quotes")

    async def main() -> None:
        assert trace.get_current_span() is around
        await pipeline.acall(fine)
        assert trace.get_current_span() is around

    with telemetry.tracer.start_as_current_span("caller") as around:
        pipeline.bind(operation="plain").call(int)
        assert trace.get_current_span() is around
        asyncio.run(main())
        trio.run(main)

    caller = telemetry.span("caller")
    assert is_child(telemetry.span("plain"), caller)
    assert [is_child(span, caller) for span in telemetry.spans("fine")] == [True, True]


def test_a_nested_pipeline_has_a_span_of_its_own_and_an_unnamed_policy_too(telemetry: Telemetry) -> None:
    inner = Pipeline[Any](Retry(1), name="inner")
    outer = Pipeline[Any](Retry(2, wait=NOW), inner, name="outer")

    with pytest.raises(ConnectionError):
        outer.call(down)
    with pytest.raises(ConnectionError):
        Retry(1).bind(operation="alone").call(down)

    first, second, whole, alone = telemetry.spans()
    assert [attributes(span)["resilience.pipeline"] for span in (first, second, whole, alone)] == [
        *("inner", "inner", "outer", "")
    ]
    assert [attributes(span)["resilience.attempts"] for span in (first, second, whole)] == [1, 1, 2]
    assert is_child(first, whole)
    assert is_child(second, whole)
    assert whole.parent is None
    assert [name for name, _ in events(whole)] == ["resilience.retry", "resilience.give_up"]
    assert [name for name, _ in events(first)] == ["resilience.give_up"]


def test_listeners_run_while_the_span_is_current(telemetry: Telemetry) -> None:
    seen: list[Any] = []

    with subscribe(lambda event: seen.append(trace.get_current_span().get_span_context()), events=(CallEnded,)):
        Pipeline[Any]().call(int)

    assert seen == [telemetry.span("int").get_span_context()]


def test_what_is_suppressed_has_no_span(telemetry: Telemetry) -> None:
    key: str = vars(context)["_SUPPRESS_INSTRUMENTATION_KEY"]
    token = context.attach(context.set_value(key, True))
    try:
        Pipeline[Any](Retry(2, wait=NOW)).call(Failing(1))
    finally:
        context.detach(token)

    assert telemetry.spans() == []


def test_a_trace_that_is_not_sampled_is_passed_on_to_what_is_inside(providers: Telemetry) -> None:
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    instrument(unsampled, providers.meter_provider)
    try:
        seen = Pipeline[Any](Retry(2, wait=NOW)).call(lambda: trace.get_current_span().get_span_context())
    finally:
        uninstrument()

    assert seen.is_valid
    assert not seen.trace_flags.sampled
    assert providers.spans() == []


class TestEndings:
    def test_a_stream_ends_its_span_and_is_not_current_meanwhile(self, telemetry: Telemetry) -> None:
        gate = Streaming()
        pipeline = Pipeline[Any](gate)

        assert pipeline.call(int) == 0
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert telemetry.spans() == []

        gate.left.pop().end(Ending(EndingKind.OK))
        assert attributes(telemetry.span("int"))["resilience.outcome"] == "ok"
        assert attributes(telemetry.span("int"))["resilience.attempts"] == 1

    def test_a_stream_that_is_dropped_ends_its_span_without_a_cyclic_collection(self, telemetry: Telemetry) -> None:
        gate = Streaming()
        pipeline = Pipeline[Any](gate, name="streams")
        gc.disable()
        try:
            pipeline.call(int)
            gate.left.clear()
            pipeline.bind(operation="next").call(int)  # a finalizer leaves the end to it
        finally:
            gc.enable()

        assert attributes(telemetry.span("int"))["resilience.outcome"] == "abandoned"

    def test_a_call_leaves_no_cycle_behind(self, telemetry: Telemetry) -> None:
        pipeline = Pipeline[Any](Retry(2, wait=NOW))

        class Argument:
            pass

        def work(argument: Argument) -> None:
            failing()

        failing = Failing(1)
        argument = Argument()
        alive = weakref.ref(argument)
        gc.disable()
        try:
            pipeline.call(work, argument)
            del argument
            assert alive() is None
        finally:
            gc.enable()

    def test_a_cancelled_call(self, telemetry: Telemetry) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(Pipeline[Any]().acall(hang))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with virtual_time():
            asyncio.run(main())

        assert attributes(telemetry.span("hang"))["resilience.outcome"] == "abandoned"

    def test_a_call_that_a_trio_scope_cancels(self, telemetry: Telemetry) -> None:
        async def main() -> None:
            with trio.move_on_after(0):
                await Pipeline[Any]().acall(hang)
            assert trace.get_current_span() is trace.INVALID_SPAN

        trio.run(main)

        assert attributes(telemetry.span("hang"))["resilience.outcome"] == "abandoned"

    def test_a_coroutine_that_is_closed_in_another_context(self, telemetry: Telemetry) -> None:
        coroutine = Pipeline[Any]().acall(hang)
        one = contextvars.copy_context()

        async def main() -> None:
            one.run(coroutine.send, None)
            with telemetry.tracer.start_as_current_span("other") as other:
                coroutine.close()
                assert trace.get_current_span() is other

        asyncio.run(main())
        Pipeline[Any]().call(int)

        assert attributes(telemetry.span("hang"))["resilience.outcome"] == "abandoned"

    def test_a_coroutine_that_is_closed_in_its_own_context(self, telemetry: Telemetry) -> None:
        async def main() -> None:
            coroutine = Pipeline[Any]().acall(hang)
            coroutine.send(None)
            coroutine.close()
            assert trace.get_current_span() is trace.INVALID_SPAN

        asyncio.run(main())
        Pipeline[Any]().call(int)

        assert attributes(telemetry.span("hang"))["resilience.outcome"] == "abandoned"

    def test_a_call_while_draining(self, telemetry: Telemetry) -> None:
        pipeline = Pipeline[Any](name="drained")
        pipeline.drain(0)

        with pytest.raises(Exception, match="drained"):
            pipeline.call(int)

        assert attributes(telemetry.span("int"))["resilience.outcome"] == "rejected"
        assert [name for name, _ in events(telemetry.span("int"))] == ["resilience.rejection"]


class TestConcurrency:
    def test_tasks_and_threads_do_not_mix_their_spans(self, telemetry: Telemetry) -> None:
        pipeline = Pipeline[Any](Retry(3, wait=NOW), budget=None)

        async def work(name: str) -> None:
            own = trace.get_current_span()
            for _ in range(3):
                await asyncio.sleep(0)
                assert trace.get_current_span() is own

        async def main() -> None:
            names = [f"call {number}" for number in range(20)]
            await asyncio.gather(*(pipeline.bind(operation=name).acall(work, name) for name in names))

        with virtual_time():
            asyncio.run(main())
        assert sorted(span.name for span in telemetry.spans()) == sorted(f"call {number}" for number in range(20))

    def test_a_background_task_of_a_call_adds_no_events_to_its_ended_span(self, telemetry: Telemetry) -> None:
        pipeline = Pipeline[Any](Retry(2, wait=NOW), name="quotes")
        tasks: list[Any] = []

        async def later() -> None:
            await asyncio.sleep(0)
            await pipeline.bind(operation="background").acall(Failing(1))

        async def start() -> None:
            tasks.append(asyncio.ensure_future(later()))

        async def main() -> None:
            await pipeline.acall(start)
            await tasks.pop()

        with virtual_time():
            asyncio.run(main())

        assert events(telemetry.span("start")) == []
        assert [name for name, _ in events(telemetry.span("background"))] == ["resilience.retry"]
        assert is_child(telemetry.span("background"), telemetry.span("start"))

    @pytest.mark.slow
    def test_a_timeout_with_a_thread(self, telemetry: Telemetry) -> None:
        pipeline = Pipeline[Any](Timeout(30, thread=True), Retry(2, wait=NOW))
        failing, seen = Failing(1), list[Any]()

        def work() -> str:
            seen.append((threading.current_thread(), trace.get_current_span().get_span_context()))
            return failing()

        async def main() -> str:
            result: str = await pipeline.acall(work)
            return result

        assert pipeline.call(work) == "fine"
        assert asyncio.run(main()) == "fine"

        first, second = telemetry.spans("work")
        own = [one for thread, one in seen if thread is not threading.main_thread()]
        assert own == [first.get_span_context()] * 2 + [second.get_span_context()]
        assert [name for name, _ in events(first)] == ["resilience.retry"]


class Broken(SpanProcessor):
    """Raises an exception in one of its methods."""

    def __init__(self, method: str) -> None:
        self.method = method

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self._fail("on_start")

    def on_end(self, span: Any) -> None:
        self._fail("on_end")

    def _fail(self, method: str) -> None:
        if method == self.method:
            raise AppError(method)


class TestFailures:
    @each_way
    @pytest.mark.parametrize("method", ["on_start", "on_end"])
    def test_a_processor_that_raises_changes_no_outcome_and_is_counted(
        self,
        telemetry: Telemetry,
        make: Make,
        method: str,
        nothing_logged_yet: None,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        telemetry.tracer_provider.add_span_processor(Broken(method))
        name = f"broken {method} {make.__name__}"
        before = listener_errors.totals().get(name, 0)

        assert make(Pipeline[Any](Retry(3, wait=NOW), name=name), Failing(2)) == "fine"

        assert listener_errors.totals()[name] == before + 1
        lines = [record.getMessage() for record in caplog.records if record.name == "resilience"]
        assert any(line.startswith("tracing") and "AppError" in line for line in lines)

    def test_a_shutdown_while_calls_run(self, telemetry: Telemetry) -> None:
        pipeline = Pipeline[Any](Retry(2, wait=NOW))
        failing = Failing(1)

        def work() -> str:
            telemetry.shutdown()
            return failing()

        assert pipeline.call(work) == "fine"
        assert pipeline.call(int) == 0

    @pytest.mark.parametrize("change", [uninstrument, lambda: None])
    def test_uninstrument_while_calls_run(self, telemetry: Telemetry, change: Callable[[], None]) -> None:
        pipeline = Pipeline[Any](Retry(2, wait=NOW))
        failing = Failing(1)

        def work() -> str:
            change()
            return failing()

        assert pipeline.call(work) == "fine"
        assert attributes(telemetry.span("work"))["resilience.attempts"] == 2
        assert trace.get_current_span() is trace.INVALID_SPAN


class TestWithoutAProvider:
    def test_nothing_happens_until_there_is_a_provider(
        self, providers: Telemetry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Any] = []

        instrument(meter_provider=providers.meter_provider)
        try:
            pipeline = Pipeline[Any](Retry(2, wait=NOW))
            pipeline.call(lambda: seen.append(trace.get_current_span()))
            monkeypatch.setattr(trace, "_TRACER_PROVIDER", providers.tracer_provider)
            pipeline.bind(operation="traced").call(Failing(1))
        finally:
            uninstrument()

        assert seen == [trace.INVALID_SPAN]
        (span,) = providers.spans()
        assert span.name == "traced"
        assert len(span.events) == 1

    def test_after_uninstrument_the_chain_is_what_it_was(self, providers: Telemetry) -> None:
        pipeline = Pipeline[Any](CircuitBreaker(), Bulkhead(1), name="restored")

        def depth() -> list[str]:
            pipeline.call(int)
            step: Any = pipeline.engine.chain
            found: list[str] = []
            while hasattr(step, "__closure__") and step.__closure__:
                cells = dict(zip(step.__code__.co_freevars, step.__closure__, strict=True))
                found.append(step.__qualname__)
                step = cells["inner"].cell_contents if "inner" in cells else None
            return found

        before = depth()
        instrument(trace.NoOpTracerProvider(), NoOpMeterProvider())
        try:
            assert depth() == before
        finally:
            uninstrument()
        instrument(providers.tracer_provider, providers.meter_provider)
        try:
            during = depth()
        finally:
            uninstrument()

        assert before == depth()
        assert len(during) == len(before) + 4


def test_a_rejection_is_told_by_the_span(telemetry: Telemetry) -> None:
    pipeline = Pipeline[Any](Bulkhead(1), name="one")

    with pipeline.get(Bulkhead), suppress(BulkheadFullError):
        pipeline.call(int)

    span = telemetry.span("int")
    assert attributes(span)["error.type"] == "BulkheadFullError"
    assert [name for name, _ in events(span)] == ["resilience.rejection"]
