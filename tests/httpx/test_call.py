"""The call of one request: its names, whether it may be repeated, and what becomes of a response that comes late."""

from __future__ import annotations

import copy
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from resilience import CircuitBreaker, DeadlineExceededError, Fallback, Pipeline, Retry, Timeout
from resilience.events import AttemptEnded, CallEnded, RetryGivenUp
from resilience.httpx import attach
from resilience.testing import Recorder, virtual_time
from tests.httpx.helpers import NOW, Ask, Script, Stream, retrying


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_idempotent_methods(method: str) -> None:
    script = Script(503, 200)

    assert Ask("sync")(retrying(), script, method).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "LOCK"])
def test_other_methods(method: str) -> None:
    script = Script(503, 200)
    pipeline = retrying()

    with Recorder(pipeline, events=[RetryGivenUp]) as recorder:
        assert Ask("sync")(pipeline, script, method).status_code == 503

    assert recorder.events[0].reason == "not_idempotent"  # type: ignore[attr-defined]


def test_a_post_with_an_idempotency_key(ask: Ask) -> None:
    script = Script(503, 200)

    assert ask(retrying(), script, "POST", headers={"Idempotency-Key": '"1"'}).status_code == 200


def test_what_the_binding_says_counts_more(ask: Ask) -> None:
    script = Script(503, 200)

    assert ask(retrying().bind(idempotent=True), script, "POST").status_code == 200
    assert ask(retrying().bind(idempotent=False), Script(503, 200)).status_code == 503


def generated() -> Iterator[bytes]:
    yield b"once"


async def generated_async() -> AsyncIterator[bytes]:
    yield b"once"


BODIES: list[tuple[dict[str, Any], bool]] = [
    ({"content": b"again"}, True),
    ({"json": {"a": 1}}, True),
    ({"data": {"a": "1"}}, True),
    ({"files": {"a": b"bytes"}}, True),
    ({"files": {"a": io.BytesIO(b"bytes")}}, True),
    ({"content": [b"a", b"b"]}, True),
    ({"content": generated()}, False),
    ({"content": iter([b"a", b"b"])}, False),
    ({"content": io.BytesIO(b"bytes")}, True),
]


@pytest.mark.parametrize(("arguments", "again"), BODIES)
def test_a_body_that_cannot_be_sent_again_is_sent_once(arguments: dict[str, Any], again: bool) -> None:
    script = Script(503, 200)
    pipeline = retrying()

    with Recorder(pipeline, events=[RetryGivenUp]) as recorder:
        response = Ask("sync")(pipeline, script, "PUT", **arguments)

    assert response.status_code == (200 if again else 503)
    assert len(script.bodies) == (2 if again else 1)
    assert len({body for body in script.bodies if b"boundary" not in body}) == 1
    assert [event.reason for event in recorder.of(RetryGivenUp)] == ([] if again else ["body_not_replayable"])


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_an_async_generator_is_sent_once(way: str) -> None:
    script = Script(503, 200)

    assert Ask(way)(retrying(), script, "PUT", content=generated_async()).status_code == 503


class Refusing(Script):
    """Refuses connections: it does not look at the body."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if len(self.answers) > 1:
            raise self.answers.pop(0)
        return super().handle_request(request)


def test_a_body_that_was_not_touched_can_be_sent() -> None:
    script = Refusing(httpx.ConnectError("refused"), 200)

    assert Ask("sync")(retrying(), script, "PUT", content=generated()).status_code == 200
    assert script.bodies == [b"once"]


def test_a_file_that_cannot_be_rewound() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert Ask("sync")(retrying(), Script(503, 200), "PUT", files={"a": Pipe(b"x")}).status_code == 503


def test_events_name_the_method_and_the_host_and_no_secret(ask: Ask) -> None:
    pipeline = Pipeline(Retry(2, wait=NOW), CircuitBreaker(), name="quotes-http")

    with Recorder(pipeline) as recorder:
        ask(pipeline, Script(503, 200))

    assert {(event.operation, event.target) for event in recorder.events} == {("GET", "quotes.test")}
    assert "secret" not in repr(recorder.events)
    assert [event.outcome for event in recorder.of(AttemptEnded)] == ["failed", "ok"]
    assert [(event.outcome, event.attempts) for event in recorder.of(CallEnded)] == [("ok", 2)]


def test_names_of_ones_own() -> None:
    pipeline = Pipeline(Retry(2, wait=NOW))

    with Recorder(pipeline) as recorder:
        Ask("sync")(pipeline.bind(operation="quote", target="quotes"), Script(200))

    assert {(event.operation, event.target) for event in recorder.events} == {("quote", "quotes")}


def test_the_request_of_the_caller_is_not_changed() -> None:
    script = Script(200)
    client = attach(httpx.Client(transport=script), Pipeline(Timeout(0.5)))
    request = client.build_request("GET", "http://quotes.test", extensions={"own": 1})
    before = copy.deepcopy(request.extensions)

    client.send(request)

    assert request.extensions == before
    assert script.requests[0].extensions["own"] == 1
    assert script.requests[0] is not request


def test_a_thread_that_was_left_behind_closes_its_response() -> None:
    import threading

    begun, answer = threading.Event(), threading.Event()
    body = Stream(b"x")

    def slow() -> httpx.Response:
        begun.set()
        clock.advance(1)
        answer.wait(5)
        return httpx.Response(200, stream=body)

    pipeline: Pipeline[Any] = Pipeline(Timeout(1, thread=True))
    with virtual_time() as clock:
        with pytest.raises(DeadlineExceededError):
            Ask("sync")(pipeline, Script(slow))
        answer.set()
        left = [thread for thread in threading.enumerate() if thread.name == "resilience-thread-call"]
        for thread in left:
            thread.join(5)

    assert (begun.is_set(), body.closed) == (True, 1)


def test_a_response_that_a_fallback_gives_to_all_is_copied() -> None:
    shared = httpx.Response(200, text="fallback")
    client = attach(httpx.Client(transport=Script(httpx.ReadTimeout("slow"))), Pipeline(Fallback(value=shared)))
    found = [client.get(f"http://{host}.test") for host in ("a", "b", "c")]

    assert [response.request.url.host for response in found] == ["a.test", "b.test", "c.test"]
    assert [response.text for response in found] == ["fallback"] * 3
    assert not any(response is shared for response in found)
    with pytest.raises(RuntimeError, match="has not been set"):
        _ = shared.request
