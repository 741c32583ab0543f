"""httpx and httpx2: whose a transport is, and our errors as errors of the module that the client is of."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import httpx
import httpx2
import pytest

from resilience import (
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    RejectedError,
    ResilienceError,
    Timeout,
    deadline_after,
)
from resilience.httpx import attach
from resilience.httpx._modules import is_own
from resilience.testing import virtual_time
from tests.httpx.helpers import Ask, Script


def test_rejections_are_errors_of_httpx(ask: Ask) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    script = Script(200)

    with pytest.raises(CircuitOpenError, match="isolated") as caught:
        ask(Pipeline(breaker, name=f"isolated-{ask.way}"), script)

    error = caught.value
    assert isinstance(error, httpx.TransportError)
    assert not isinstance(error, httpx.TimeoutException)
    assert isinstance(error, RejectedError)
    assert (error.unprocessed, error.policy, error.pipeline) == (True, "breaker", f"isolated-{ask.way}")
    assert str(error.request.url).endswith("key=secret")
    assert "secret" not in str(error)
    assert script.requests == []


def test_deadlines_are_errors_of_httpx(ask: Ask) -> None:
    with virtual_time(), deadline_after(0), pytest.raises(DeadlineExceededError) as caught:
        ask(Pipeline(Timeout(1)), Script(200))

    assert isinstance(caught.value, httpx.TimeoutException)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ResilienceError)
    assert caught.value.unprocessed


def test_the_errors_of_httpx2_for_its_client() -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200))

    with pytest.raises(httpx2.TransportError) as caught:
        attach(httpx2.Client(transport=transport), Pipeline(breaker)).get("http://quotes.test")

    assert isinstance(caught.value, CircuitOpenError)
    assert not isinstance(caught.value, httpx.TransportError)


def test_a_translated_error_keeps_everything(ask: Ask) -> None:
    class Own(CircuitOpenError):
        pass

    cause = ValueError("the cause")
    original = Own("no", policy="own", retry_after=3.0)
    original.__cause__ = cause
    original.add_note("a note")

    with pytest.raises(Own) as caught:
        ask(Pipeline(), Script(original))

    error = caught.value
    assert isinstance(error, httpx.TransportError)
    assert (error.retry_after, error.policy, error.__notes__, error.__cause__) == (3.0, "own", ["a note"], cause)
    assert error.__suppress_context__ is True
    assert "_answer" in {entry.name for entry in caught.traceback}


@pytest.mark.parametrize("make", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_translated_errors_pickle_and_copy(make: Any) -> None:
    for original in (BulkheadFullError("full", policy="b", retry_after=1.0), DeadlineExceededError("late", policy="b")):
        with pytest.raises(httpx.TransportError) as caught:
            Ask("sync")(Pipeline(), Script(original))
        twin: Any = make(caught.value)

        assert (str(twin), twin.policy) == (str(original), "b")
        assert type(twin) is type(caught.value)


class Renamed(httpx.HTTPTransport):
    """Only made in another way."""

    def __init__(self) -> None:
        super().__init__(verify=False)


class Failover(httpx.AsyncHTTPTransport):
    """May have sent to somebody else before it raises."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await super().handle_async_request(request)


def test_whose_transports_are_httpx_own() -> None:
    own = [
        httpx.HTTPTransport(verify=False),
        httpx.AsyncHTTPTransport(verify=False),
        httpx2.HTTPTransport(verify=False),
        httpx2.AsyncHTTPTransport(verify=False),
        Renamed(),
    ]
    others = [Failover(verify=False), httpx.MockTransport(lambda request: httpx.Response(200)), Script(200), None]

    assert [is_own(one) for one in own] == [True] * len(own)
    assert [is_own(one) for one in others] == [False] * len(others)


def test_a_transport_that_was_patched_is_still_one_of_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda self, request: None)

    assert is_own(httpx.HTTPTransport(verify=False))
