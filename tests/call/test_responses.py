"""The warning about a function that returns bad responses through a pipeline that looks at exceptions only."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from resilience import (
    HTTP_FAILURES,
    NETWORK_ERRORS,
    Allowlist,
    Bulkhead,
    CircuitBreaker,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    status_failures,
)
from resilience._call import responses
from resilience._call.responses import NOT_RESPONSES
from resilience.httpx import attach

pytestmark = [
    pytest.mark.usefixtures("nothing_logged_yet"),
    # Pipelines of the same name may still be alive in the tracebacks of earlier tests.
    pytest.mark.filterwarnings("ignore:there are two pipelines"),
]


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "resilience")


def response(status: Any) -> Any:
    """A response of requests."""
    made: Any = importlib.import_module("requests").Response()
    made.status_code = status
    return made


def call_it(pipeline: Pipeline[Any], function: Callable[[], Any]) -> None:
    pipeline.call(function)


def decorate_it(pipeline: Pipeline[Any], function: Callable[[], Any]) -> None:
    guarded: Any = pipeline(function)
    guarded()


def await_it(pipeline: Pipeline[Any], function: Callable[[], Any]) -> None:
    async def fetch() -> Any:
        return function()

    asyncio.run(pipeline.acall(fetch))


def decorate_and_await_it(pipeline: Pipeline[Any], function: Callable[[], Any]) -> None:
    async def fetch() -> Any:
        return function()

    guarded: Any = pipeline(fetch)
    asyncio.run(guarded())


WAYS = [call_it, decorate_it, await_it, decorate_and_await_it]
each_way = pytest.mark.parametrize("way", WAYS)


def quotes(*policies: Any, **settings: Any) -> Pipeline[Any]:
    return Pipeline(*(policies or (Retry(wait=backoff.none()), CircuitBreaker())), **settings)


@each_way
def test_a_function_that_returns_a_503_was_unguarded_in_silence(
    way: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    name = f"quotes by {way.__name__}"
    pipeline = quotes(Timeout(2), Retry(3), Bulkhead(50), CircuitBreaker(), Timeout(0.5), name=name)

    def fetch() -> Any:
        return response(503)

    for _ in range(3):
        way(pipeline, fetch)

    (line,) = caplog.messages
    assert f"fetch of {name} returned a response with HTTP status 503" in line
    assert "failures=resilience.HTTP_FAILURES" in line


@each_way
@pytest.mark.parametrize("status", [200, 302, 400, 404, 499, None])
def test_a_good_response_is_not_worth_a_line(
    way: Callable[..., None], status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    way(quotes(), lambda: response(status))

    assert caplog.messages == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 599])
def test_also_after_good_ones(status: int, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = quotes()
    answers = iter([200, 404, status, status])

    def fetch() -> Any:
        return response(next(answers))

    for _ in range(4):
        pipeline.call(fetch)

    assert len(caplog.messages) == 1
    assert f"HTTP status {status}" in caplog.messages[0]


def test_each_function_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    def fetch_quote() -> Any:
        return response(503)

    def fetch_news() -> Any:
        return httpx.Response(500)

    pipeline = quotes()
    for function in (fetch_quote, fetch_news, fetch_quote, fetch_news):
        pipeline.call(function)
    pipeline.bind(operation="rates").call(fetch_quote)

    assert [line.partition(" of ")[0] for line in caplog.messages] == ["fetch_quote", "fetch_news", "rates"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: quotes(failures=HTTP_FAILURES),
        lambda: quotes(failures=NETWORK_ERRORS | status_failures([500])),
        lambda: quotes(failures=Allowlist.of_results(lambda result: False)),
        lambda: quotes(Retry(on=HTTP_FAILURES, wait=backoff.none())),
        lambda: quotes(Pipeline(Retry(wait=backoff.none()), failures=HTTP_FAILURES)),
        lambda: quotes(Timeout(2), Bulkhead(5)),
    ],
    ids=["HTTP_FAILURES", "statuses", "results", "on", "nested", "no-failures-matter"],
)
def test_a_pipeline_that_looks_at_results_or_does_not_act_on_failures(
    make: Callable[[], Pipeline[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    make().call(lambda: response(503))

    assert [line for line in caplog.messages if "returned a response" in line] == []


def test_a_nested_pipeline_that_acts_on_failures(caplog: pytest.LogCaptureFixture) -> None:
    inner = Pipeline(CircuitBreaker())
    quotes(Timeout(2), inner).call(lambda: response(503))

    assert len(caplog.messages) == 1


@pytest.mark.parametrize("failures", [None, NETWORK_ERRORS])
def test_a_client_looks_at_its_responses_by_itself(failures: Any, caplog: pytest.LogCaptureFixture) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(503))
    with attach(httpx.Client(transport=transport), quotes(CircuitBreaker(), failures=failures)) as client:
        client.get("http://quotes.test")

    assert [line for line in caplog.messages if "returned a response" in line] == []


def test_a_line_for_each_type_that_looks_like_a_response(caplog: pytest.LogCaptureFixture) -> None:
    class Job:
        status = 503

    class Answer:
        status = 503
        headers = ()

    def job() -> Any:
        return Job()

    def answer() -> Any:
        return Answer()

    def name_only() -> Any:
        return SimpleNamespace(name="x")

    def namespace() -> Any:
        return SimpleNamespace(status_code=503)

    for function in (job, answer, name_only, namespace):
        quotes().call(function)

    assert [line.partition(" of ")[0] for line in caplog.messages] == ["answer", "namespace"]
    assert Job in NOT_RESPONSES
    assert Answer not in NOT_RESPONSES


def test_an_odd_result_comes_out_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def nothing(self: object) -> Any:
        raise RuntimeError("no such thing")

    odd = type("Odd", (), {"status_code": 503, "__dict__": property(nothing)})()
    assert quotes().call(lambda: odd) is odd


def test_the_memory_for_types_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "MAX_TYPES", len(NOT_RESPONSES) + 1)
    kinds = [type(f"Kind{number}", (), {}) for number in range(3)]
    for kind in kinds:
        quotes().call(kind)

    assert sum(kind in NOT_RESPONSES for kind in kinds) == 1
