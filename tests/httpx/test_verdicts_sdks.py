"""SDKs that retry by themselves, around a guarded client: what they repeat all the same, and how they are told not to.

A response on which the pipeline has given up says that it should not be repeated. An exception cannot say that: openai,
anthropic and groq repeat every one of the transport, ours included, unless they are made with `max_retries=0`.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
)
from resilience.events import AttemptEnded, RetryGivenUp
from resilience.testing import FaultyServer, Recorder
from tests.httpx.helpers import NOW, retrying
from tests.httpx.model_server import CLOSE, RESET, SILENCE, Answer, ModelServer
from tests.httpx.sdks import TEXT, Chat, Sdk, each_sdk, each_that_repeats
from tests.support.timing import at_most

pytestmark = [pytest.mark.slow, pytest.mark.sdk]

SECONDS = 0.4
LONGEST_BACKOFF = 0.5
"""The longest wait of an SDK before it repeats something once, in seconds."""
ENDS = {"reset": RESET, "closed": CLOSE}
each_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
each_form = pytest.mark.parametrize("reject_with", ["error", "response"])


def failing(sdk: Sdk, chat: Chat, name: str) -> BaseException:
    """Ask, and return the error of the SDK, which is of the class of that name."""
    with pytest.raises(sdk.error(name)) as caught:
        chat.ask()
    error: BaseException = caught.value
    return error


def broken(sdk: Sdk, chat: Chat) -> BaseException:
    """Ask, and return the error of the transport, which some SDKs wrap."""
    try:
        chat.ask()
    except Exception as error:
        return sdk.cause(error)
    raise AssertionError("it was answered")


def guarded(*inside: Any) -> Pipeline[Any]:
    """A pipeline as a user has it: it would make three attempts."""
    return Pipeline(Retry(3, wait=NOW), *inside)


@each_sdk
@each_end
@each_form
def test_a_chat_whose_connection_breaks_is_delivered_once(
    models: ModelServer, sdk: Sdk, end: Answer, reject_with: Any
) -> None:
    """The request was read, and may have been processed."""
    pipeline = guarded()
    with (
        sdk.open(models.url, pipeline, max_retries=0, reject_with=reject_with) as chat,
        Recorder(pipeline) as recorder,
    ):
        models.script(end, sdk.good())
        error = broken(sdk, chat)

    assert len(models.requests) == 1
    assert [event.reason for event in recorder.of(RetryGivenUp)] == ["not_idempotent"]
    assert type(error).__name__ in ("ReadError", "RemoteProtocolError")
    assert "the call is not idempotent" in "".join(getattr(error, "__notes__", []))


@each_that_repeats
@each_form
def test_the_sdk_doubles_it_unless_its_own_retries_are_off(models: ModelServer, sdk: Sdk, reject_with: Any) -> None:
    """Nothing that a transport can raise keeps it from that, and only rejections and deadlines become responses."""
    pipeline = guarded()
    with sdk.open(models.url, pipeline, max_retries=1, reject_with=reject_with) as chat:
        models.script(RESET, sdk.good())
        assert chat.ask() == TEXT

    first, second = models.requests
    assert first.body == second.body
    assert [request.headers["x-stainless-retry-count"] for request in models.requests] == ["0", "1"]
    assert pipeline.snapshot()["foreign_retries"] == 1


@each_that_repeats
def test_so_it_does_after_a_refused_connection_which_the_pipeline_has_tried_three_times(sdk: Sdk) -> None:
    pipeline = Pipeline(Retry(3, wait=NOW, budget=None))
    with (
        FaultyServer() as server,
        sdk.open(server.refused_url, pipeline, max_retries=1) as chat,
        Recorder(pipeline) as recorder,
    ):
        failing(sdk, chat, "APIConnectionError")

    assert len(recorder.of(AttemptEnded)) == 6
    assert pipeline.snapshot()["foreign_retries"] == 1


@each_that_repeats
def test_a_total_deadline_holds_as_a_response(models: ModelServer, sdk: Sdk) -> None:
    pipeline = Pipeline(Timeout(SECONDS), Retry(3, wait=NOW))
    with sdk.open(models.url, pipeline, reject_with="response") as chat:
        models.script(SILENCE, sdk.good())
        started = time.monotonic()
        error: Any = failing(sdk, chat, "InternalServerError")
        taken = time.monotonic() - started

    assert error.status_code == 504
    assert isinstance(error.response.extensions["resilience_error"], DeadlineExceededError)
    assert taken <= at_most(SECONDS)
    assert len(models.requests) == 1
    assert pipeline.snapshot()["foreign_retries"] == 0


@each_that_repeats
def test_as_an_error_it_is_one_for_each_repetition_of_the_sdk(models: ModelServer, sdk: Sdk) -> None:
    pipeline = Pipeline(Timeout(SECONDS), Retry(3, wait=NOW))
    with sdk.open(models.url, pipeline, max_retries=1) as chat:
        models.script(SILENCE, SILENCE, sdk.good())
        started = time.monotonic()
        error = failing(sdk, chat, "APITimeoutError")
        taken = time.monotonic() - started

    assert isinstance(error.__cause__, DeadlineExceededError)
    assert 2 * SECONDS <= taken <= at_most(2 * SECONDS + LONGEST_BACKOFF)
    assert len(models.requests) == 2
    assert pipeline.snapshot()["foreign_retries"] == 1


@each_sdk
def test_a_deadline_of_an_attempt_does_not_repeat_a_chat(models: ModelServer, sdk: Sdk) -> None:
    pipeline = guarded(Timeout(SECONDS))
    with sdk.open(models.url, pipeline, reject_with="response") as chat:
        models.script(SILENCE, sdk.good())
        started = time.monotonic()
        error: Any = failing(sdk, chat, "InternalServerError" if sdk.maker.repeats else "ResponseError")
        taken = time.monotonic() - started

    assert error.status_code == 504
    assert taken <= at_most(SECONDS)
    assert len(models.requests) == 1


@pytest.fixture
def isolated() -> Pipeline[Any]:
    breaker = CircuitBreaker()
    breaker.isolate()
    return Pipeline(Retry(2, wait=NOW), breaker)


@each_sdk
def test_a_rejection_is_a_response_that_is_not_repeated(models: ModelServer, isolated: Pipeline[Any], sdk: Sdk) -> None:
    with sdk.open(models.url, isolated, reject_with="response") as chat:
        models.script(sdk.good())
        started = time.monotonic()
        error: Any = failing(sdk, chat, "InternalServerError" if sdk.maker.repeats else "ResponseError")
        taken = time.monotonic() - started

    assert error.status_code == 503
    assert taken <= at_most(0.0)
    assert models.requests == []
    assert isolated.snapshot()["foreign_retries"] == 0


@each_that_repeats
@pytest.mark.usefixtures("nothing_logged_yet")
def test_as_an_error_it_is_repeated_which_is_counted_and_logged(
    models: ModelServer, isolated: Pipeline[Any], sdk: Sdk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "resilience")
    with sdk.open(models.url, isolated, max_retries=1) as chat:
        models.script(sdk.good())
        error = failing(sdk, chat, "APIConnectionError")

    assert isinstance(error.__cause__, CircuitOpenError)
    assert models.requests == []
    assert isolated.snapshot()["foreign_retries"] == 1
    advice = [record.getMessage() for record in caplog.records if "max_retries=0" in record.getMessage()]
    assert len(advice) == 1


@each_sdk
def test_an_error_comes_out_at_once_where_the_sdk_does_not_repeat(
    models: ModelServer, isolated: Pipeline[Any], sdk: Sdk
) -> None:
    with sdk.open(models.url, isolated, max_retries=0) as chat:
        models.script(sdk.good())
        started = time.monotonic()
        error = broken(sdk, chat)
        taken = time.monotonic() - started

    assert isinstance(error, CircuitOpenError)
    assert taken <= at_most(0.0)
    assert models.requests == []


@each_sdk
def test_the_retries_of_a_good_pipeline_are_not_foreign(models: ModelServer, sdk: Sdk) -> None:
    pipeline = retrying()
    with sdk.open(models.url, pipeline) as chat:
        models.script(sdk.good("one"), sdk.good("two"))
        assert [chat.ask(), chat.ask()] == ["one", "two"]

    assert pipeline.snapshot()["foreign_retries"] == 0
