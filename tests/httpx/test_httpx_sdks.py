"""Chats through real SDKs with a real server: what is repeated, after which waits, and what an open breaker does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from resilience import BreakerState, CircuitBreaker, CircuitOpenError, Pipeline, Retry, Timeout, backoff
from resilience.httpx import install, uninstall
from resilience.testing import virtual_time
from tests.httpx.helpers import NOW, retrying
from tests.httpx.model_server import ModelServer, refusal
from tests.httpx.sdks import POSTS, TEXT, Sdk, each_sdk, each_that_repeats
from tests.support.timing import at_most

pytestmark = [pytest.mark.slow, pytest.mark.sdk]

DATE = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
HINTS = {
    "retry-after": (20.0, {"retry_after": "20"}),
    "retry-after as a date": (
        25.0,
        {
            "date": format_datetime(DATE, usegmt=True),
            "retry_after": format_datetime(DATE + timedelta(seconds=25), True),
        },
    ),
    "retry-after-ms": (1.5, {"retry_after_ms": "1500", "retry_after": "2"}),
    "requests of openai": (
        30.0,
        {
            "x_ratelimit_remaining_requests": "0",
            "x_ratelimit_reset_requests": "30s",
            "x_ratelimit_remaining_tokens": "149984",
            "x_ratelimit_reset_tokens": "6m0s",
        },
    ),
    "tokens of openai": (
        0.12,
        {
            "x_ratelimit_remaining_requests": "59",
            "x_ratelimit_reset_requests": "1s",
            "x_ratelimit_remaining_tokens": "0",
            "x_ratelimit_reset_tokens": "120ms",
        },
    ),
    "tokens of anthropic": (
        40.0,
        {
            "date": format_datetime(DATE, usegmt=True),
            "anthropic_ratelimit_requests_remaining": "49",
            "anthropic_ratelimit_requests_reset": "2026-10-21T07:28:10Z",
            "anthropic_ratelimit_input_tokens_remaining": "0",
            "anthropic_ratelimit_input_tokens_reset": "2026-10-21T07:28:40Z",
        },
    ),
}
"""The seconds that a server asks for, and the headers of its answer by which it does."""
each_hint = pytest.mark.parametrize(("seconds", "headers"), HINTS.values(), ids=HINTS)


def repetitions_by_the_sdk(models: ModelServer) -> list[str]:
    """Return what each request says about how often the SDK has sent it before; those of ollama say nothing."""
    return [request.headers.get("x-stainless-retry-count", "0") for request in models.requests]


def status_of(error: BaseException) -> int:
    """Return the status in an error of an SDK."""
    status: int = vars(error)["status_code"]
    return status


def status_error(sdk: Sdk) -> Any:
    """Return the class of the errors of an SDK that have a status."""
    return sdk.error("APIStatusError" if sdk.maker.repeats else "ResponseError")


@each_sdk
@each_hint
def test_a_429_is_repeated_after_the_wait_that_its_headers_ask_for(
    models: ModelServer, sdk: Sdk, seconds: float, headers: dict[str, str]
) -> None:
    pipeline = Pipeline(Retry(3, wait=NOW))
    with sdk.open(models.url, pipeline) as chat, virtual_time() as clock:
        models.script(refusal(429, **headers), refusal(429, **headers), sdk.good())
        assert chat.ask() == TEXT

    assert len(clock.sleeps) == 2
    assert all(seconds * 0.999 <= slept <= seconds * 1.201 for slept in clock.sleeps)
    first, *others = models.requests
    assert [(request.method, request.path, request.body) for request in others] == [
        (first.method, first.path, first.body)
    ] * 2
    assert first.method == "POST"
    assert repetitions_by_the_sdk(models) == ["0", "0", "0"]
    assert pipeline.snapshot()["foreign_retries"] == 0


@each_sdk
def test_a_hint_is_obeyed_in_real_time(models: ModelServer, sdk: Sdk) -> None:
    with sdk.open(models.url, Pipeline(Timeout(10.0), retrying(), Timeout(5.0))) as chat:
        models.script(refusal(429, retry_after_ms="80"), sdk.good())
        started = time.monotonic()
        assert chat.ask() == TEXT
        taken = time.monotonic() - started

    assert 0.08 <= taken <= at_most(0.096)
    assert len(models.requests) == 2


@each_sdk
def test_after_the_last_attempt_the_sdk_hears_no(models: ModelServer, sdk: Sdk) -> None:
    pipeline = retrying(attempts=2, budget=None)
    with sdk.open(models.url, pipeline) as chat, virtual_time(), pytest.raises(status_error(sdk)) as caught:
        models.script(*[refusal(429, retry_after="1")] * 9)
        chat.ask()

    assert status_of(caught.value) == 429
    assert len(models.requests) == 2
    assert pipeline.snapshot()["foreign_retries"] == 0


@each_that_repeats
def test_a_wait_that_is_too_long_is_waited_for_by_nobody(models: ModelServer, sdk: Sdk) -> None:
    """Without the verdict anthropic would sleep for an hour."""
    with sdk.open(models.url, retrying()) as chat, pytest.raises(sdk.error("RateLimitError")) as caught:
        models.script(*[refusal(429, retry_after="3600")] * 9)
        chat.ask()

    assert caught.value.response.headers["retry-after"] == "3600"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(models.requests) == 1


@each_sdk
def test_so_is_a_529_which_turns_requests_away(models: ModelServer, sdk: Sdk) -> None:
    pipeline = retrying()
    with sdk.open(models.url, pipeline) as chat, virtual_time() as clock:
        models.script(refusal(529, retry_after="3"), refusal(529, retry_after_ms="1500"), sdk.good())
        assert chat.ask() == TEXT

    assert [3.0 <= clock.sleeps[0] <= 3.6, 1.5 <= clock.sleeps[1] <= 1.8] == [True, True]
    assert repetitions_by_the_sdk(models) == ["0", "0", "0"]
    assert pipeline.snapshot()["foreign_retries"] == 0


@each_sdk
def test_a_503_is_not_repeated_since_a_chat_is_a_post(models: ModelServer, sdk: Sdk) -> None:
    """It may have been processed; neither does the SDK repeat it, although it would without a pipeline."""
    pipeline = retrying()
    with sdk.open(models.url, pipeline) as chat, pytest.raises(status_error(sdk)) as caught:
        models.script(*[refusal(503, retry_after="1")] * 9)
        chat.ask()

    assert status_of(caught.value) == 503
    assert len(models.requests) == 1
    assert pipeline.snapshot()["foreign_retries"] == 0


@each_sdk
@pytest.mark.parametrize("status", [503, 529])
def test_it_is_where_the_client_says_so_after_the_wait_that_its_headers_ask_for(
    models: ModelServer, sdk: Sdk, status: int
) -> None:
    with sdk.open(models.url, retrying(), idempotent=POSTS) as chat, virtual_time() as clock:
        models.script(
            refusal(status, retry_after="20"), refusal(status, retry_after_ms="1500", retry_after="2"), sdk.good()
        )
        assert chat.ask() == TEXT

    assert 20.0 <= clock.sleeps[0] <= 24.0
    assert 1.5 <= clock.sleeps[1] <= 1.8
    assert repetitions_by_the_sdk(models) == ["0", "0", "0"]


@each_sdk
@pytest.mark.parametrize(("status", "obeyed"), [(503, True), (529, False)])
def test_a_quota_counts_for_a_503_and_not_for_a_529(models: ModelServer, sdk: Sdk, status: int, obeyed: bool) -> None:
    seconds, headers = HINTS["requests of openai" if sdk.maker.module != "anthropic" else "tokens of anthropic"]
    with sdk.open(models.url, retrying(), idempotent=POSTS) as chat, virtual_time() as clock:
        models.script(refusal(status, **headers), sdk.good())
        assert chat.ask() == TEXT

    assert (clock.elapsed >= seconds) is obeyed


@each_that_repeats
def test_without_a_pipeline_the_sdk_repeats_it(models: ModelServer, sdk: Sdk) -> None:
    with sdk.open(models.url, None) as chat:
        models.script(refusal(529, retry_after_ms="1"), sdk.good())
        assert chat.ask() == TEXT

    assert repetitions_by_the_sdk(models) == ["0", "1"]


@each_that_repeats
@pytest.mark.parametrize(("status", "retries"), [(503, ["0", "1", "2"]), (429, ["0"] * 2 + ["1"] * 2 + ["2"] * 2)])
def test_a_server_that_demands_a_repetition_is_obeyed_by_both(
    models: ModelServer, sdk: Sdk, status: int, retries: list[str]
) -> None:
    """The word of the server stays in the response on which the Retry has given up, so that the attempts multiply.

    That a server says so does not prove that a request was not processed: the Retry does not repeat a POST after a 503.
    """
    pipeline = retrying(attempts=2, budget=None)
    with sdk.open(models.url, pipeline) as chat, virtual_time(), pytest.raises(status_error(sdk)) as caught:
        models.script(*[refusal(status, x_should_retry="true", retry_after_ms="1")] * 9)
        chat.ask()

    assert caught.value.response.headers["x-should-retry"] == "true"
    assert repetitions_by_the_sdk(models) == retries
    assert pipeline.snapshot()["foreign_retries"] == 2


@each_that_repeats
def test_a_server_that_forbids_a_repetition_is_obeyed_by_both(models: ModelServer, sdk: Sdk) -> None:
    with sdk.open(models.url, retrying()) as chat, virtual_time(), pytest.raises(status_error(sdk)):
        models.script(*[refusal(429, x_should_retry="false")] * 9)
        chat.ask()

    assert len(models.requests) == 1


def trip(chat: Any, models: ModelServer, sdk: Sdk, breaker: CircuitBreaker) -> None:
    """Have the breaker open, as it does after half of its consecutive failures while there are few calls."""
    models.script(refusal(503), refusal(529))
    for status in (503, 529):
        with pytest.raises(status_error(sdk)) as caught:
            chat.ask()
        assert status_of(caught.value) == status
    assert breaker.state is BreakerState.OPEN
    models.script(sdk.good())


@each_sdk
def test_an_open_breaker_answers_at_once_and_recovers(models: ModelServer, sdk: Sdk) -> None:
    breaker = CircuitBreaker(consecutive_failures=4, open_for=20.0)
    pipeline = Pipeline(Retry(2, wait=NOW), breaker)
    with sdk.open(models.url, pipeline, reject_with="response") as chat, virtual_time() as clock:
        trip(chat, models, sdk, breaker)
        started = time.monotonic()
        with pytest.raises(status_error(sdk)) as caught:
            chat.ask()
        taken = time.monotonic() - started

        assert status_of(caught.value) == 503
        if sdk.maker.repeats:
            assert isinstance(caught.value.response.extensions["resilience_error"], CircuitOpenError)
        else:
            assert "breaker is open" in str(caught.value)
        assert taken <= at_most(0.0)
        assert models.requests == []
        clock.advance(40.0)
        assert chat.ask() == TEXT

    assert breaker.state is BreakerState.CLOSED
    assert len(models.requests) == 1
    assert pipeline.snapshot()["foreign_retries"] == 0


@each_sdk
def test_a_429_does_not_open_a_breaker(models: ModelServer, sdk: Sdk) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    with sdk.open(models.url, Pipeline(Retry(1), breaker)) as chat, pytest.raises(status_error(sdk)):
        models.script(refusal(429))
        chat.ask()

    assert breaker.state is BreakerState.CLOSED


@pytest.fixture
def installed(models: ModelServer) -> Iterator[Pipeline[Any]]:
    pipeline = Pipeline(Retry(2, wait=backoff.none()))
    install({models.url: pipeline})
    yield pipeline
    uninstall()


@each_sdk
def test_a_client_that_an_sdk_makes_later_is_guarded_by_its_route(
    models: ModelServer, installed: Pipeline[Any], sdk: Sdk
) -> None:
    with sdk.open(models.url, None) as chat:
        models.script(refusal(429), sdk.good())
        assert chat.ask() == TEXT

    assert repetitions_by_the_sdk(models) == ["0", "0"]


def test_what_is_not_in_the_script_is_answered_with_a_400(models: ModelServer) -> None:
    models.script()
    response = httpx.post(models.url, json={"one": 1})
    assert response.status_code == 400
    assert [(request.method, request.path, request.body) for request in models.requests] == [("POST", "/", {"one": 1})]
