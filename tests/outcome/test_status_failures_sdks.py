"""HTTP_FAILURES around functions that use real SDKs, whose own retries are off, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilience import (
    HTTP_FAILURES,
    BreakerState,
    CircuitBreaker,
    CircuitOpenError,
    FailureKind,
    Pipeline,
    Retry,
    backoff,
)
from resilience.events import RetryScheduled
from resilience.testing import Recorder
from tests.support.statuses import answering

pytestmark = pytest.mark.slow

Call = Callable[[], Any]
Client = Callable[[str], contextlib.AbstractContextManager[Call]]


def load(name: str) -> Any:
    """Import a package without its types, which would take long to check; google's warns of what it would like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # of a package that is optional
        warnings.simplefilter("ignore", FutureWarning)  # of an older gRPC, which it does not use here
        return importlib.import_module(name)


@contextlib.contextmanager
def openai(url: str) -> Iterator[Call]:
    with load("openai").OpenAI(api_key="key", base_url=url, max_retries=0) as client:
        yield client.models.list


@contextlib.contextmanager
def openai_async(url: str) -> Iterator[Call]:
    async def call() -> Any:
        async with load("openai").AsyncOpenAI(api_key="key", base_url=url, max_retries=0) as client:
            return await client.models.list()

    yield call


@contextlib.contextmanager
def anthropic(url: str) -> Iterator[Call]:
    messages = [{"role": "user", "content": "Hello"}]
    with load("anthropic").Anthropic(api_key="key", base_url=url, max_retries=0) as client:
        yield lambda: client.messages.create(model="m", max_tokens=1, messages=messages)


@contextlib.contextmanager
def ollama(url: str) -> Iterator[Call]:
    client = load("ollama").Client(url)
    try:
        yield client.list
    finally:
        client._client.close()


@contextlib.contextmanager
def stripe(url: str) -> Iterator[Call]:
    client = load("stripe").StripeClient("sk_test", base_addresses={"api": url}, max_network_retries=0)
    try:
        yield client.v1.customers.list
    finally:
        client._requestor._get_http_client().close()


@contextlib.contextmanager
def elasticsearch(url: str) -> Iterator[Call]:
    with load("elasticsearch").Elasticsearch(url, max_retries=0, retry_on_status=()) as client:
        yield client.info


@contextlib.contextmanager
def google(url: str) -> Iterator[Call]:
    """As the clients of Google's JSON APIs do it."""
    requests = load("requests")

    def call() -> Any:
        response = requests.get(url)
        if response.ok:
            return response.json()
        raise load("google.api_core.exceptions").from_http_response(response)

    yield call


@contextlib.contextmanager
def botocore(url: str) -> Iterator[Call]:
    config = load("botocore.config").Config(retries={"total_max_attempts": 1})
    session = load("botocore.session").Session()
    client = session.create_client(
        "sqs", "eu-west-1", endpoint_url=url, aws_access_key_id="id", aws_secret_access_key="key", config=config
    )
    try:
        yield client.list_queues
    finally:
        client.close()


CLIENTS: list[Client] = [openai, openai_async, anthropic, ollama, stripe, elasticsearch, google, botocore]
each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
HEADERS = {"X-Elastic-Product": "Elasticsearch"}
BODY = {"models": [], "error": {"message": "sorry"}}
"""What the client of one service or the other insists on."""


def run(pipeline: Pipeline[Any], call: Call) -> Exception | None:
    """Call a guarded function once; the exception that came out, if any."""
    try:
        if inspect.iscoroutinefunction(call):
            asyncio.run(pipeline.acall(call))
        else:
            pipeline.call(call)
    except Exception as error:
        return error
    return None


def guarded(breaker: CircuitBreaker | None = None) -> Pipeline[Any]:
    return Pipeline(Retry(3, wait=backoff.none(), budget=None), breaker or CircuitBreaker(), failures=HTTP_FAILURES)


@each_client
def test_a_503_is_retried_and_counted(client: Client) -> None:
    pipeline = guarded()
    with answering(503, 503, 200, headers=HEADERS, body=BODY) as server, client(server.url) as call:
        error = run(pipeline, call)

    assert server.requests == 3
    assert error is None
    assert pipeline.get(CircuitBreaker).snapshot()["failures"] == 2


@each_client
@pytest.mark.parametrize("status", [400, 404])
def test_an_answer_is_neither(client: Client, status: int) -> None:
    pipeline = guarded()
    with answering(status, headers=HEADERS, body=BODY) as server, client(server.url) as call:
        error = run(pipeline, call)

    assert error is not None
    assert server.requests == 1
    breaker = pipeline.get(CircuitBreaker).snapshot()
    assert (breaker["calls"], breaker["failures"]) == (1, 0)


@each_client
def test_the_breaker_opens_on_503s_only(client: Client) -> None:
    breaker = CircuitBreaker(consecutive_failures=6, min_calls=1000)
    pipeline = guarded(breaker)
    with answering(404, headers=HEADERS, body=BODY) as server, client(server.url) as call:
        for _ in range(8):
            assert not isinstance(run(pipeline, call), CircuitOpenError)
    assert breaker.snapshot()["opens"] == 0

    with answering(503, body=BODY) as server, client(server.url) as call:
        errors = [run(pipeline, call) for _ in range(4)]
    assert breaker.state is BreakerState.OPEN
    assert isinstance(errors[-1], CircuitOpenError)


@pytest.mark.parametrize("client", [one for one in CLIENTS if one is not ollama], ids=lambda client: client.__name__)
def test_a_hint_of_the_server_is_obeyed(client: Client) -> None:
    """Except for ollama, whose exceptions have a status, but no headers."""
    pipeline = guarded()
    headers = {"Retry-After": "0.05", **HEADERS}
    with (
        Recorder(pipeline) as recorder,
        answering(503, 200, headers=headers, body=BODY) as server,
        client(server.url) as call,
    ):
        assert run(pipeline, call) is None

    (scheduled,) = recorder.of(RetryScheduled)
    assert scheduled.failure.retry_after == 0.05


@pytest.mark.parametrize("client", [openai, openai_async, anthropic], ids=lambda client: client.__name__)
def test_a_verdict_of_the_server_is_obeyed(client: Client) -> None:
    with answering(503, headers={"x-should-retry": "false"}) as server, client(server.url) as call:
        run(guarded(), call)
    assert server.requests == 1

    with answering(409, 200, headers={"x-should-retry": "true"}) as server, client(server.url) as call:
        assert run(guarded(), call) is None
    assert server.requests == 2


def test_throttling_by_aws_is_an_overload_that_is_not_counted() -> None:
    pipeline = guarded()
    body = {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow down"}
    with Recorder(pipeline) as recorder, answering(400, 400, body=body) as server, botocore(server.url) as call:
        run(pipeline, call)

    assert server.requests == 3
    assert {event.failure.kind for event in recorder.of(RetryScheduled)} == {FailureKind.OVERLOAD}
    assert pipeline.get(CircuitBreaker).snapshot()["failures"] == 0
