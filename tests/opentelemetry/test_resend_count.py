"""How often a request has been sent before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from resilience import Hedge, Pipeline, Retry, backoff
from resilience.opentelemetry import ResendCountProcessor, uninstrument
from resilience.opentelemetry._resend_count import resends_in
from resilience.testing import virtual_time
from tests.opentelemetry.telemetry import Telemetry, attributes
from tests.support.functions import Failing
from tests.support.policies import retrying
from tests.support.ways import Make, each_way

pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")
NOW = backoff.none()


def sending(telemetry: Telemetry, then: Callable[[], Any], **given: Any) -> Callable[[], Any]:
    """Return a function that starts a span as a client does."""

    def send() -> Any:
        with telemetry.tracer.start_as_current_span("request", kind=SpanKind.CLIENT, attributes=given):
            return then()

    return send


def counts(telemetry: Telemetry, name: str = "request") -> list[Any]:
    """Return the counts of the spans of that name."""
    return [attributes(span).get("http.request.resend_count") for span in telemetry.spans(name)]


@each_way
def test_each_attempt_but_the_first_has_its_number(telemetry: Telemetry, make: Make) -> None:
    make(Pipeline[Any](Retry(4, wait=NOW)), sending(telemetry, Failing(3)))

    assert counts(telemetry) == [None, 1, 2, 3]


@pytest.mark.parametrize("key", ["rpc.system", "rpc.system.name", "db.system", "db.system.name", "messaging.system"])
def test_spans_of_other_protocols_have_none(telemetry: Telemetry, key: str) -> None:
    retrying().call(sending(telemetry, Failing(1), **{key: "x"}))

    assert counts(telemetry) == [None, None]


@pytest.mark.parametrize("kind", [kind for kind in SpanKind if kind is not SpanKind.CLIENT])
def test_spans_of_other_kinds_have_none(telemetry: Telemetry, kind: SpanKind) -> None:
    failing = Failing(1)

    def send() -> str:
        with telemetry.tracer.start_as_current_span("request", kind=kind):
            return failing()

    retrying().call(send)

    assert counts(telemetry) == [None, None]


def test_a_parent_that_is_given_counts_and_not_the_current_one(telemetry: Telemetry) -> None:
    failing = Failing(1)
    elsewhere = context.get_current()

    def send() -> str:
        telemetry.tracer.start_span("elsewhere", elsewhere, SpanKind.CLIENT).end()
        telemetry.tracer.start_span("request", context.get_current(), SpanKind.CLIENT).end()
        return failing()

    retrying().call(send)

    assert counts(telemetry) == [None, 1]
    assert counts(telemetry, "elsewhere") == [None, None]


def test_nothing_is_counted_outside(telemetry: Telemetry) -> None:
    retrying().call(Failing(1))
    sending(telemetry, lambda: None)()

    assert counts(telemetry) == [None]


def test_the_attempts_of_a_call_around_it_count_too(telemetry: Telemetry) -> None:
    inner = Pipeline[Any](Retry(2, wait=NOW, nested=True), name="inner")
    outer = Pipeline[Any](Retry(2, wait=NOW, nested=True), name="outer")

    outer.call(inner.call, sending(telemetry, Failing(3)))

    assert counts(telemetry) == [None, 1, 1, 2]


def test_a_call_without_retries_inside_of_one_with_them(telemetry: Telemetry) -> None:
    outer = Pipeline[Any](Retry(3, wait=NOW), name="outer")

    outer.call(Pipeline[Any](name="inner").call, sending(telemetry, Failing(2)))

    assert counts(telemetry) == [None, 1, 2]


def test_a_nested_pipeline_counts_once(telemetry: Telemetry) -> None:
    inner = Pipeline[Any](Retry(1), name="inner")

    Pipeline[Any](Retry(3, wait=NOW), inner, name="outer").call(sending(telemetry, Failing(2)))

    assert counts(telemetry) == [None, 1, 2]


def test_a_hedged_attempt(telemetry: Telemetry) -> None:
    numbers: list[int] = []

    async def work() -> None:
        numbers.append(1)
        with telemetry.tracer.start_as_current_span("request", kind=SpanKind.CLIENT):
            await asyncio.sleep(60 if len(numbers) == 1 else 0)

    with virtual_time():
        asyncio.run(Pipeline[Any](Hedge(after=1.0)).bind(idempotent=True).acall(work))

    assert sorted(counts(telemetry), key=str) == [1, None]


@pytest.mark.slow
def test_a_hedged_attempt_in_a_thread(telemetry: Telemetry) -> None:
    numbers: list[int] = []
    first = threading.Event()

    def work() -> None:
        numbers.append(1)
        with telemetry.tracer.start_as_current_span("request", kind=SpanKind.CLIENT):
            if len(numbers) == 1:
                first.wait(5)

    try:
        Pipeline[Any](Hedge(after=0.01)).bind(idempotent=True).call(work)
    finally:
        first.set()

    assert counts(telemetry)[0] == 1


def test_a_task_that_an_attempt_leaves_behind_sends_requests_of_its_own(telemetry: Telemetry) -> None:
    failing = Failing(1)
    tasks: list[Any] = []

    async def later() -> None:
        await asyncio.sleep(0)
        sending(telemetry, lambda: None)()

    async def work() -> str:
        tasks.append(asyncio.ensure_future(later()))
        return failing()

    async def main() -> None:
        await retrying().acall(work)
        await asyncio.gather(*tasks)

    with virtual_time():
        asyncio.run(main())

    assert counts(telemetry) == [None, None]


def test_it_needs_no_pipeline_and_does_nothing_else() -> None:
    processor = ResendCountProcessor()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)

    with provider.get_tracer("test").start_as_current_span("request", kind=SpanKind.CLIENT) as span:
        assert resends_in(context.get_current()) == 0
    processor.on_start(object())
    processor.on_end(span)
    processor.shutdown()

    assert processor.force_flush()
    assert provider.force_flush()


def test_nothing_is_counted_after_uninstrument(telemetry: Telemetry) -> None:
    uninstrument()

    retrying().call(sending(telemetry, Failing(1)))

    assert counts(telemetry) == [None, None]
    assert trace.get_current_span() is trace.INVALID_SPAN
