"""What SDKs around a client are told, and what is found out about their retries."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RateLimit,
    RejectedError,
    RejectReason,
    Retry,
    deadline_after,
)
from resilience.httpx import HTTP_FAILURES, attach
from resilience.testing import VirtualClock
from tests.httpx.helpers import NOW, Ask, Script, retrying


def answer(status: int, **headers: str) -> Any:
    """Return what makes a response with these headers."""
    return lambda: httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_response_on_which_a_retry_has_given_up_says_that_it_should_not_be_repeated(ask: Ask) -> None:
    script = Script(503)
    response = ask(retrying(), script)

    assert (response.status_code, response.headers["x-should-retry"]) == (503, "false")
    assert len(script.requests) == 3


def test_so_does_one_that_is_not_safe_to_repeat_and_a_retry_outside_decides_for_itself(ask: Ask) -> None:
    script = Script(503)
    outer = Pipeline(Retry(2, wait=NOW), failures=HTTP_FAILURES, budget=None)
    inner = retrying()
    response = outer.call(lambda: ask(inner, script, "POST"))

    assert response.headers["x-should-retry"] == "false"
    assert len(script.requests) == 2


def test_a_response_that_is_given_again_is_not_taken_for_the_word_of_the_server(ask: Ask) -> None:
    script = Script(httpx.Response(503))
    for number in (3, 6, 9):
        assert ask(retrying(), script).headers["x-should-retry"] == "false"
        assert len(script.requests) == number


@pytest.mark.parametrize("said", ["true", "false"])
def test_what_the_server_has_said_stays(ask: Ask, said: str) -> None:
    assert ask(retrying(), Script(answer(503, x_should_retry=said))).headers["x-should-retry"] == said


def test_other_responses_stay_as_they_are(ask: Ask) -> None:
    assert "x-should-retry" not in ask(retrying(), Script(200)).headers
    assert "x-should-retry" not in ask(retrying(), Script(404)).headers
    assert "x-should-retry" not in ask(Pipeline(CircuitBreaker()), Script(503)).headers


def guarded(way: str, pipeline: Any, script: Script, **settings: Any) -> httpx.Response:
    """Make a request through a client with these settings."""

    class Attached(Ask):
        def __call__(self, guard: Any, script: Any, method: str = "GET", **arguments: Any) -> httpx.Response:
            if self.way == "sync":
                return attach(httpx.Client(transport=script), guard, **settings).get("http://a.test")

            async def main() -> httpx.Response:
                return await attach(httpx.AsyncClient(transport=script), guard, **settings).get("http://a.test")

            response: httpx.Response = run(self.way, main)
            return response

    return Attached(way)(pipeline, script)


def run(way: str, main: Any) -> Any:
    """Run a coroutine function in the loop of that way."""
    if way == "asyncio":
        import asyncio

        return asyncio.run(main())
    import trio

    return trio.run(main)


def test_a_rejection_may_be_a_response(ask: Ask) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    response = guarded(ask.way, breaker, Script(200), reject_with="response")

    assert (response.status_code, response.headers["x-should-retry"]) == (503, "false")
    assert "retry-after" not in response.headers
    assert isinstance(response.extensions["resilience_error"], CircuitOpenError)
    assert "isolated" in response.text


def test_it_says_when_to_come_back(ask: Ask, virtual_clock: VirtualClock) -> None:
    limit = RateLimit(1, per=90.0, max_wait=0.0)
    limit.call(int)
    response = guarded(ask.way, limit, Script(200), reject_with="response")

    assert (response.status_code, response.headers["retry-after"]) == (503, "90")


@pytest.mark.parametrize(
    ("retry_after", "header"), [(float("inf"), None), (float("nan"), None), (1.7e308, None), (-5.0, "0"), (1.2, "2")]
)
def test_any_time_of_a_rejection_gives_a_response(ask: Ask, retry_after: float, header: str | None) -> None:
    error = RejectedError("no", reason=RejectReason.RATE, retry_after=retry_after)
    response = guarded(ask.way, Pipeline(), Script(error), reject_with="response")

    assert (response.status_code, response.headers.get("retry-after")) == (503, header)


def test_a_passed_deadline_may_be_a_response(ask: Ask) -> None:
    with deadline_after(0.0):
        response = guarded(ask.way, Pipeline(), Script(200), reject_with="response")

    assert (response.status_code, response.headers["x-should-retry"]) == (504, "false")
    assert isinstance(response.extensions["resilience_error"], DeadlineExceededError)


def test_an_error_of_the_network_stays_an_error(ask: Ask) -> None:
    with pytest.raises(httpx.ConnectError):
        guarded(ask.way, retrying(), Script(httpx.ConnectError("down")), reject_with="response")


def test_by_default_it_is_raised(ask: Ask) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    with pytest.raises(RejectedError) as caught:
        guarded(ask.way, breaker, Script(200))
    assert isinstance(caught.value, httpx.TransportError)


def test_repetitions_of_an_sdk_are_counted_and_warned_of_once(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline(Retry(2, wait=NOW), name=f"llm by {ask.way}")
    script = Script(200)
    with caplog.at_level(logging.WARNING, "resilience"):
        for count in ("0", "000", "1", "2", "many", "-1", "9" * 5000):
            ask(pipeline, script, headers={"x-stainless-retry-count": count})

    assert pipeline.snapshot()["foreign_retries"] == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"llm by {ask.way}: the SDK around this client repeats requests, too, so that its attempts and those of the "
        "pipeline multiply; create its client with max_retries=0"
    ]
