"""Requests through a pipeline, without sockets: plain, on asyncio and on trio."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import io
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpcore
import httpx
import httpx2
import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Ending,
    Pipeline,
    RejectedError,
    ResilienceError,
    Retry,
    Substitute,
    Timeout,
    backoff,
    deadline_after,
)
from resilience._call.call import Call
from resilience.events import AttemptEnded, CallEnded, RetryGivenUp, RetryScheduled, TimedOut
from resilience.httpx import HTTP_FAILURES, AsyncResilientTransport, ResilientTransport, attach
from resilience.testing import Recorder, virtual_time
from tests.httpx.helpers import Ask, Pool, Script, Stream

NOW = backoff.none()
EVENTS = (RetryScheduled, RetryGivenUp)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return Ask(request.param)


def retrying(*more: Any, attempts: int = 3) -> Pipeline[Any]:
    return Pipeline(Retry(attempts, wait=NOW), *more)


def test_a_failure_is_retried(ask: Ask) -> None:
    script = Script(503, httpx.ReadError("hung up"), 200)

    assert ask(retrying(), script).status_code == 200

    assert len(script.requests) == 3


def test_an_answer_is_not(ask: Ask) -> None:
    script = Script(404, 200)

    assert ask(retrying(), script).status_code == 404


def test_the_last_response_comes_out(ask: Ask) -> None:
    script = Script(lambda: httpx.Response(503, text="closed today"))

    response = ask(retrying(), script)

    assert (response.status_code, response.text) == (503, "closed today")
    assert len(script.requests) == 3


def test_the_last_response_says_in_its_extensions_why_there_was_no_more(ask: Ask) -> None:
    response = ask(retrying(), Script(503))
    assert "retry gave up after 3 attempts" in response.extensions["resilience"]
    assert "no attempts are left" in response.extensions["resilience"]

    response = ask(retrying(CircuitBreaker(consecutive_failures=1)), Script(503))
    assert response.extensions["resilience"] == "attempt 2 not made: circuit open"

    assert "resilience" not in ask(retrying(), Script(200)).extensions


def test_the_last_exception_comes_out_with_a_note(ask: Ask) -> None:
    with pytest.raises(httpx.ReadError, match="hung up") as caught:
        ask(retrying(), Script(httpx.ReadError("hung up")))

    assert "3 attempts" in caught.value.__notes__[0]
    assert caught.value.request.url.host == "quotes.test"


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
    ({"content": io.BytesIO(b"bytes")}, False),
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


def test_a_hint_is_waited_for() -> None:
    script = Script(httpx.Response(503, headers={"retry-after": "7"}), 200)

    with virtual_time() as clock:
        assert Ask("sync")(retrying(), script).status_code == 200

    assert clock.elapsed == 7


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


def test_httpx2_works() -> None:
    answers = iter([503, 200, 503, 200])

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(next(answers), text="fine")

    assert attach(httpx2.Client(transport=httpx2.MockTransport(answer)), retrying()).get("http://q.test").text == "fine"

    async def main() -> str:
        client = attach(httpx2.AsyncClient(transport=httpx2.MockTransport(answer)), retrying())
        return (await client.get("http://q.test")).text

    assert asyncio.run(main()) == "fine"


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


class Stale(Substitute[Any]):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def replace(self, call: Call, ending: Ending) -> Any:
        return self.value


def test_a_response_that_a_fallback_replaces_is_closed(ask: Ask) -> None:
    body = Stream(b"x")
    script = Script(httpx.Response(503, stream=body))

    assert ask(Pipeline(Stale(httpx.Response(200, text="stale"))), script).text == "stale"

    assert body.closed == 1


def test_a_fallback_that_is_no_response_is_told_so(ask: Ask) -> None:
    with pytest.raises(TypeError, match="must be a Response, not <class 'str'>"):
        ask(Pipeline(Stale("stale")), Script(503))


def failed(body: Stream, length: int | None = None) -> httpx.Response:
    return httpx.Response(503, stream=body, headers={} if length is None else {"content-length": str(length)})


def test_a_discarded_response_that_is_small_is_read(ask: Ask) -> None:
    body = Stream(b"small", b"er")

    assert ask(retrying(), Script(failed(body, 7), 200)).status_code == 200

    assert (body.read, body.closed) == (2, 1)


def test_a_discarded_response_of_unknown_length_is_read(ask: Ask) -> None:
    body = Stream(b"small", b"er")

    assert ask(retrying(), Script(failed(body), 200)).status_code == 200

    assert (body.read, body.closed) == (2, 1)


@pytest.mark.parametrize("length", [70_000, 10**30])
def test_a_discarded_response_that_is_known_to_be_large_is_closed(ask: Ask, length: int) -> None:
    body = Stream(b"large")

    assert ask(retrying(), Script(failed(body, length), 200)).status_code == 200

    assert (body.read, body.closed) == (0, 1)


def test_a_body_longer_than_it_says_is_not_read_for_ever(ask: Ask) -> None:
    body = Stream(*[b"x" * 40_000] * 100)

    assert ask(retrying(), Script(failed(body, 5), 200)).status_code == 200

    assert (body.read, body.closed) == (2, 1)


def test_a_slow_body_is_not_waited_for(ask: Ask) -> None:
    with virtual_time() as clock:
        body = Stream(*[b"x"] * 100, before=lambda: clock.advance(0.05))
        script = Script(failed(body, 100), 200)
        assert ask(retrying(), script).status_code == 200

    assert body.read <= 6
    assert body.closed == 1


def test_a_failed_response_that_comes_out_is_whole(ask: Ask) -> None:
    script = Script(
        lambda: failed(Stream(b"large ", b"and ", b"slow")),
    )

    assert ask(retrying(), script).text == "large and slow"


def test_the_error_of_a_failed_response_is_met_by_who_reads_it(ask: Ask) -> None:
    script = Script(lambda: failed(Stream(b"ten", httpx.ReadError("cut")), 10))

    with pytest.raises(httpx.ReadError, match="cut"):
        ask(retrying(), script)

    assert len(script.requests) == 3


def test_when_a_retry_is_refused_further_in_the_last_response_is_whole(ask: Ask) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    body = Stream(b"the last ", b"word")
    pipeline = retrying(breaker)

    response = ask(pipeline, Script(failed(body), 200))

    assert (response.status_code, response.text) == (503, "the last word")
    assert body.closed == 1


def test_a_response_is_closed_when_something_raises_before_the_next_attempt() -> None:
    class Interrupting(Substitute[Any]):
        def should_handle(self, call: Call, ending: Ending) -> bool:
            raise KeyboardInterrupt

    body = Stream(b"x")

    with pytest.raises(KeyboardInterrupt):
        Ask("sync")(Pipeline(Interrupting()), Script(failed(body)))

    assert body.closed == 1


def test_cancelled_in_the_wait_of_a_retry() -> None:
    body = Stream(b"x")
    bulkhead = Bulkhead(1)

    async def main() -> None:
        client = attach(
            httpx.AsyncClient(transport=Script(failed(body))), Pipeline(Retry(wait=backoff.fixed(9)), bulkhead)
        )
        task = asyncio.create_task(client.get("http://quotes.test"))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert (body.closed, bulkhead.in_flight) == (1, 0)


def streaming(bulkhead: Bulkhead, body: Stream, **settings: Any) -> tuple[httpx.Client, Pipeline[Any]]:
    pipeline: Pipeline[Any] = Pipeline(bulkhead, **settings)
    script = Script(lambda: httpx.Response(200, stream=body))
    return attach(httpx.Client(transport=script), pipeline), pipeline


def test_permits_follow_the_body_until_it_is_read() -> None:
    bulkhead = Bulkhead(1)
    client, pipeline = streaming(bulkhead, Stream(b"a", b"b"))

    with client.stream("GET", "http://quotes.test") as response:
        assert (bulkhead.in_flight, pipeline.snapshot()["in_flight"]) == (1, 1)
        with pytest.raises(BulkheadFullError):
            client.get("http://quotes.test")
        assert response.read() == b"ab"
        assert bulkhead.in_flight == 0

    assert (bulkhead.in_flight, pipeline.snapshot()["in_flight"]) == (0, 0)


def test_permits_come_back_when_the_body_is_closed() -> None:
    bulkhead = Bulkhead(1)
    client, pipeline = streaming(bulkhead, Stream(b"a", b"b"))

    with Recorder(pipeline) as recorder, client.stream("GET", "http://quotes.test") as response:
        for _ in response.iter_raw():
            break
        assert bulkhead.in_flight == 1
    response.close()

    assert bulkhead.in_flight == 0
    assert [event.outcome for event in recorder.of(CallEnded)] == ["ok"]


def test_a_body_that_fails_is_a_failure() -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    script = Script(lambda: httpx.Response(200, stream=Stream(b"a", httpx.RemoteProtocolError("cut"))))
    client = attach(httpx.Client(transport=script), Pipeline(bulkhead, breaker))

    with pytest.raises(httpx.RemoteProtocolError, match="cut"):
        client.get("http://quotes.test")

    assert (bulkhead.in_flight, breaker.snapshot()["failures"]) == (0, 1)


def test_a_body_that_is_dropped_is_abandoned() -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    client = attach(
        httpx.Client(transport=Script(lambda: httpx.Response(200, stream=Stream(b"a")))), Pipeline(bulkhead, breaker)
    )

    response: Any = client.send(client.build_request("GET", "http://quotes.test"), stream=True)
    assert bulkhead.in_flight == 1
    del response
    gc.collect()

    assert (bulkhead.in_flight, breaker.snapshot()["calls"]) == (0, 0)


@pytest.mark.parametrize("end", ["read", "close", "fail", "cancel"])
def test_permits_follow_the_body_of_an_async_client(end: str) -> None:
    bulkhead = Bulkhead(1)
    fault = httpx.ReadError("cut") if end == "fail" else asyncio.CancelledError()
    body = Stream(b"a", *([fault] if end in ("fail", "cancel") else []))

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=Script(httpx.Response(200, stream=body))), Pipeline(bulkhead))
        async with client.stream("GET", "http://quotes.test") as response:
            assert bulkhead.in_flight == 1
            if end == "close":
                return
            await response.aread()
            assert bulkhead.in_flight == 0

    if end == "fail":
        with pytest.raises(httpx.ReadError):
            asyncio.run(main())
    elif end == "cancel":
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())
    else:
        asyncio.run(main())

    assert bulkhead.in_flight == 0


def test_timeouts_are_clipped_to_what_is_left(ask: Ask) -> None:
    script = Script(503, 200)
    given = httpx.Timeout(5.0, connect=0.3, pool=None)

    with virtual_time():
        ask(Pipeline(Timeout(2), Retry(2, wait=backoff.fixed(0.5)), Timeout(1)), script, timeout=given)

    assert len(script.timeouts) == 2
    for sent in script.timeouts:
        assert sent["connect"] == 0.3
        assert sent["write"] == sent["pool"] == pytest.approx(1, abs=0.01)


def test_without_a_deadline_timeouts_are_those_of_the_client(ask: Ask) -> None:
    script = Script(200)

    ask(Pipeline(), script, timeout=httpx.Timeout(5.0, pool=None))

    assert script.timeouts[-1] == {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": None}


def test_the_request_of_the_caller_is_not_changed() -> None:
    script = Script(200)
    client = attach(httpx.Client(transport=script), Pipeline(Timeout(0.5)))
    request = client.build_request("GET", "http://quotes.test", extensions={"own": 1})
    before = copy.deepcopy(request.extensions)

    client.send(request)

    assert request.extensions == before
    assert script.requests[0].extensions["own"] == 1
    assert script.requests[0] is not request


def test_a_bare_request_gets_timeouts_when_there_is_a_deadline() -> None:
    script = Script(200)

    with virtual_time():
        ResilientTransport(Pipeline(Timeout(2)), script).handle_request(httpx.Request("GET", "http://quotes.test"))

    assert set(script.timeouts[-1]) == {"connect", "read", "write", "pool"}
    assert max(seconds or 0.0 for seconds in script.timeouts[-1].values()) <= 2


def test_a_timeout_that_we_clipped_is_a_deadline() -> None:
    breaker = CircuitBreaker()
    pipeline = Pipeline(Timeout(1), breaker)

    with virtual_time() as clock, Recorder(pipeline, events=[TimedOut]) as recorder:

        def stall() -> httpx.Response:
            clock.advance(1)
            raise httpx.ReadTimeout("slow")

        with pytest.raises(DeadlineExceededError) as caught:
            Ask("sync")(pipeline, Script(stall))

    assert isinstance(caught.value, httpx.TimeoutException)
    assert isinstance(caught.value.__cause__, httpx.ReadTimeout)
    assert not caught.value.unprocessed
    assert (len(recorder.events), breaker.snapshot()["failures"]) == (1, 1)


def test_a_timeout_of_httpx_stays_one() -> None:
    with pytest.raises(httpx.ReadTimeout) as caught:
        Ask("sync")(Pipeline(Timeout(100)), Script(httpx.ReadTimeout("slow")))

    assert not isinstance(caught.value, ResilienceError)


def test_a_deadline_in_the_queue_of_the_pool_says_that_nothing_was_sent() -> None:
    breaker = CircuitBreaker()

    with virtual_time() as clock:

        class Full(Pool):
            def handle_request(self, request: httpcore.Request) -> httpcore.Response:
                clock.advance(1)
                return super().handle_request(request)

        pool = Full(httpcore.PoolTimeout("all busy"))
        with pytest.raises(DeadlineExceededError, match="nothing was called") as caught:
            Ask("sync")(Pipeline(Timeout(1), breaker), pool.below("sync"))

    assert caught.value.unprocessed
    assert breaker.snapshot()["calls"] == 0


def test_a_body_is_bounded_by_the_whole_call() -> None:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    pipeline = Pipeline(Timeout(2), Retry(), bulkhead, breaker, Timeout(1))

    with virtual_time() as clock, Recorder(pipeline, events=[TimedOut]) as recorder:
        body = Stream(*[b"x"] * 10, before=lambda: clock.advance(0.3))
        script = Script(lambda: httpx.Response(200, stream=body))
        with pytest.raises(DeadlineExceededError) as caught:
            Ask("sync")(pipeline, script)

    assert isinstance(caught.value, httpx.TimeoutException)
    assert str(caught.value) == "the deadline of timeout (2 s) passed while the body was read, 2.1 s after GET began"
    assert caught.value.policy == "timeout"
    assert body.closed >= 1
    assert 6 <= body.read <= 7
    assert (bulkhead.in_flight, breaker.snapshot()["failures"]) == (0, 1)
    assert [(event.scope, event.policy) for event in recorder.of(TimedOut)] == [("call", "timeout")]


def test_a_body_is_not_bounded_by_the_attempt() -> None:
    with virtual_time() as clock:
        body = Stream(*[b"x"] * 10, before=lambda: clock.advance(0.3))
        script = Script(lambda: httpx.Response(200, stream=body))
        assert Ask("sync")(Pipeline(Retry(), Timeout(1)), script).text == "x" * 10


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_a_stalling_body_is_cut(kind: str) -> None:
    import anyio
    import trio

    bulkhead = Bulkhead(1)

    class Stalling(Stream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"
            await anyio.sleep(1000)

    async def main() -> None:
        script = Script(lambda: httpx.Response(200, stream=Stalling()))
        client = attach(httpx.AsyncClient(transport=script), Pipeline(Timeout(2), bulkhead))
        await client.get("http://quotes.test")

    with virtual_time() as clock, pytest.raises(DeadlineExceededError):
        if kind == "asyncio":
            from resilience.testing import virtual_loop

            with asyncio.Runner(loop_factory=virtual_loop) as runner:
                runner.run(main())
        else:
            trio.run(main, clock=clock.trio())

    assert clock.elapsed == pytest.approx(2)
    assert bulkhead.in_flight == 0


def test_failures_of_ones_own_replace_those_of_http() -> None:
    pipeline = Pipeline(Retry(2, wait=NOW), failures=Allowlist.of_results(lambda response: response.status_code == 404))

    assert Ask("sync")(pipeline, Script(404, 200)).status_code == 200
    assert Ask("sync")(pipeline, Script(503, 200)).status_code == 503


def test_the_failures_of_http_on_a_decorated_function() -> None:
    script = Script(503, 200)
    client = httpx.Client(transport=script)

    @Pipeline(Retry(2, wait=NOW), failures=HTTP_FAILURES)
    def fetch() -> str:
        return client.get("http://quotes.test").raise_for_status().text

    assert fetch() == ""
    assert len(script.requests) == 2


def test_retries_do_not_multiply() -> None:
    script = Script(503)
    client = attach(httpx.Client(transport=script), retrying())

    @Pipeline(Retry(3, wait=NOW), failures=HTTP_FAILURES)
    def fetch() -> httpx.Response:
        return client.get("http://quotes.test").raise_for_status()

    with pytest.raises(httpx.HTTPStatusError):
        fetch()

    assert len(script.requests) == 3


def test_attach_wraps_every_transport() -> None:
    script, mounted = Script(200), Script(204)
    client = httpx.Client(transport=script, mounts={"all://proxied.test": mounted, "all://direct.test": None})
    breaker = CircuitBreaker()
    pipeline = Pipeline(breaker)

    assert attach(client, pipeline) is client
    for host, status in (("quotes", 200), ("proxied", 204), ("direct", 200)):
        assert client.get(f"http://{host}.test").status_code == status

    assert breaker.snapshot()["calls"] == 3
    client.close()
    assert (script.closed, mounted.closed) == (1, 1)


def test_attach_wraps_one_transport_once() -> None:
    shared = Script(200)
    client = attach(httpx.Client(transport=shared, mounts={"all://other.test": shared}), Pipeline())
    inside: Any = client

    assert {id(inside._transport)} == {id(one) for one in inside._mounts.values()}


@pytest.mark.parametrize("client", [None, httpx.Client, object(), httpx.MockTransport(lambda request: None)])  # type: ignore[arg-type]
def test_attach_takes_clients_only(client: Any) -> None:
    with pytest.raises(TypeError, match="client must be"):
        attach(client, Pipeline())


def test_a_pipeline_is_wanted() -> None:
    wrong: Any = "pipeline"
    with pytest.raises(TypeError, match="pipeline must be"):
        attach(httpx.Client(), wrong)
    with pytest.raises(TypeError, match="pipeline must be"):
        AsyncResilientTransport(wrong)


@pytest.mark.parametrize("wrong", [httpx.Client(), httpx.AsyncHTTPTransport(), "transport", 7])
def test_a_transport_for_plain_clients_is_wanted(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"transport must be one that has handle_request, not "):
        ResilientTransport(Pipeline(), wrong)


@pytest.mark.parametrize("wrong", [httpx.AsyncClient(), httpx.HTTPTransport(), "transport", 7])
def test_a_transport_for_async_clients_is_wanted(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"transport must be one that has handle_async_request, not "):
        AsyncResilientTransport(Pipeline(), wrong)


def test_transports_of_ones_own() -> None:
    script = Script(503, 200, 503, 200)

    with httpx.Client(transport=ResilientTransport(retrying(), script)) as client:
        assert client.get("http://quotes.test").status_code == 200

    async def main() -> int:
        async with httpx.AsyncClient(transport=AsyncResilientTransport(Retry(2, wait=NOW), script)) as client:
            return (await client.get("http://quotes.test")).status_code

    assert asyncio.run(main()) == 200
    assert script.closed == 2


def test_the_default_transports() -> None:
    plain: Any = ResilientTransport(Pipeline())
    awaited: Any = AsyncResilientTransport(Pipeline())

    assert isinstance(plain._transport, httpx.HTTPTransport)
    assert isinstance(awaited._transport, httpx.AsyncHTTPTransport)


def test_the_default_transports_of_a_client_of_httpx2() -> None:
    plain: Any = ResilientTransport(Pipeline(Retry(1)))
    awaited: Any = AsyncResilientTransport(Pipeline(Retry(1)))

    async def main() -> None:
        async with httpx2.AsyncClient(transport=awaited) as client:
            with pytest.raises(httpx2.ConnectError):
                await client.get("http://127.0.0.1:9")

    with httpx2.Client(transport=plain) as client, pytest.raises(httpx2.ConnectError):
        client.get("http://127.0.0.1:9")
    asyncio.run(main())

    assert isinstance(plain._transport, httpx2.HTTPTransport)
    assert isinstance(awaited._transport, httpx2.AsyncHTTPTransport)


def test_a_transport_of_the_other_module_is_refused() -> None:
    used: Any = ResilientTransport(Pipeline())
    with httpx.Client(transport=used) as client, pytest.raises(httpx.ConnectError):
        client.get("http://127.0.0.1:9")
    given: Any = ResilientTransport(Pipeline(), httpx.HTTPTransport(verify=False))

    for transport in (used, given):
        with pytest.raises(TypeError, match="sends by httpx, and the client is one of httpx2"):
            httpx2.Client(transport=transport).get("http://127.0.0.1:9")


def test_the_pool_of_httpcore_is_as_expected() -> None:
    """Where this fails, look whether httpcore still loses places, and where: see `resilience.httpx.pool`."""
    transport: Any = AsyncResilientTransport(Pipeline())

    assert transport._pool is not None
    assert transport._pool._connections == transport._pool._requests == []


def test_a_thread_that_was_left_behind_closes_its_response() -> None:
    import threading

    begun, answer = threading.Event(), threading.Event()
    body = Stream(b"x")

    def slow() -> httpx.Response:
        begun.set()
        answer.wait(5)
        return httpx.Response(200, stream=body)

    pipeline: Pipeline[Any] = Pipeline(Timeout(1, thread=True))
    with virtual_time():
        with pytest.raises(DeadlineExceededError):
            Ask("sync")(pipeline, Script(slow))
        answer.set()
        left = [thread for thread in threading.enumerate() if thread.name == "resilience-errand"]
        for thread in left:
            thread.join(5)

    assert (begun.is_set(), body.closed) == (True, 1)


def test_a_client_is_guarded_once() -> None:
    client = httpx.Client()
    attach(client, Retry())

    with pytest.raises(ValueError, match="guarded already"):
        attach(client, Retry())


def test_a_client_with_a_guarded_mount_is_guarded_already() -> None:
    client = httpx.Client(mounts={"http://": ResilientTransport(Retry())})

    with pytest.raises(ValueError, match="guarded already"):
        attach(client, Retry())


@pytest.mark.parametrize("leave", [False, True])
def test_a_client_that_was_closed_during_the_wait_of_a_retry_sends_no_more(leave: bool) -> None:
    script = Script(lambda: failed(Stream(b"busy")))
    client: httpx.Client

    def wait(state: object) -> float:
        client.__exit__() if leave else client.close()
        return 0.0

    client = attach(httpx.Client(transport=script), Pipeline(Retry(3, wait=wait)))
    with client if leave else contextlib.nullcontext():
        assert client.get("http://quotes.test").text == "busy"

    assert len(script.requests) == 1
    with ResilientTransport(Pipeline(), script) as again:  # a transport may be used by several clients
        assert again.handle_request(httpx.Request("GET", "http://quotes.test")).status_code == 503
        again.close()
        assert again.handle_request(httpx.Request("GET", "http://quotes.test")).status_code == 503


@pytest.mark.parametrize("leave", [False, True])
def test_an_async_client_that_was_closed_during_the_wait_of_a_retry_sends_no_more(leave: bool) -> None:
    script = Script(httpx.ReadError("hung up"))
    bulkhead = Bulkhead(1, queue=1)

    async def main() -> None:
        client = attach(httpx.AsyncClient(transport=script), Pipeline(Retry(3, wait=NOW), bulkhead))
        async with bulkhead:
            task = asyncio.create_task(client.get("http://quotes.test"))
            for _ in range(5):
                await asyncio.sleep(0)
            assert bulkhead.queued == 1
            await (client.__aexit__() if leave else client.aclose())
        with pytest.raises(RejectedError, match="client was closed"):
            await task

    asyncio.run(main())

    assert script.requests == []
