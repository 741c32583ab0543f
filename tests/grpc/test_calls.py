"""The synchronous API against a real server: plain calls, calls with their call, futures."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import (
    Allowlist,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceededError,
    Pipeline,
    Retry,
    Timeout,
    backoff,
    deadline_after,
    remaining,
)
from resilience._call.caller import Caller
from resilience._util import log_once
from resilience.events import RetryScheduled, TimedOut
from resilience.grpc._failures import code_of
from resilience.testing import Recorder
from tests.grpc.servers import OPTIONS, Abort, Service, refused_by, serving, stub_of, wait_until

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
SOON = backoff.fixed(0.001)
UNAVAILABLE = Abort(Code.UNAVAILABLE)
Rpc = Callable[..., Any]


def plain(stub: Any, *args: Any, **kwargs: Any) -> Any:
    return stub(*args, **kwargs)


def with_call(stub: Any, *args: Any, **kwargs: Any) -> Any:
    response, call = stub.with_call(*args, **kwargs)
    assert call.code() is Code.OK
    return response


def future(stub: Any, *args: Any, **kwargs: Any) -> Any:
    return stub.future(*args, **kwargs).result()


ways = pytest.mark.parametrize("way", [plain, with_call, future])


def stub(service: Service, pipeline: Caller[Any], method: str = "Get", **kwargs: Any) -> Any:
    kwargs = {"idempotent": "*/Get", "options": OPTIONS, **kwargs}
    return stub_of(resilience.grpc.insecure_channel(service.target, pipeline, **kwargs), method)


@ways
def test_a_call_passes_through(service: Service, way: Rpc) -> None:
    assert way(stub(service, Pipeline(Timeout(2), Retry(), Bulkhead(1), CircuitBreaker())), b"x") == b"x"


@ways
def test_an_idempotent_method_is_retried(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE, Abort(Code.ABORTED), b"yes")

    assert way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x") == b"yes"
    assert service.count("Get") == 3


@ways
def test_any_other_method_is_not(service: Service, way: Rpc) -> None:
    service.script("Put", UNAVAILABLE, b"yes")

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x")
    assert code_of(caught.value) is Code.UNAVAILABLE
    assert "not idempotent" in caught.value.__notes__[0]
    assert service.count("Put") == 1


@ways
@pytest.mark.parametrize(
    "answer", [Abort(Code.UNKNOWN), Abort(Code.RESOURCE_EXHAUSTED), Abort(Code.NOT_FOUND), Abort(Code.INTERNAL)]
)
def test_what_is_not_to_be_retried_comes_out_at_once(service: Service, way: Rpc, answer: Abort) -> None:
    service.script("Get", answer, b"yes")

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x")
    assert code_of(caught.value) is answer.code
    assert service.count("Get") == 1


@ways
def test_a_pushback_permits_a_retry_of_what_is_not_idempotent_and_is_waited_for(service: Service, way: Rpc) -> None:
    service.script("Put", Abort(Code.RESOURCE_EXHAUSTED, pushback="60"), Abort(Code.UNKNOWN, pushback="0"), b"yes")
    started = time.monotonic()

    assert way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x") == b"yes"
    assert time.monotonic() - started >= 0.06
    assert service.count("Put") == 3


@ways
def test_a_pushback_permits_nothing_where_hints_are_ignored(service: Service, way: Rpc) -> None:
    service.script("Put", Abort(Code.UNAVAILABLE, pushback="60"), b"yes")
    service.script("Get", Abort(Code.UNAVAILABLE, pushback="60000"), b"yes")
    pipeline = Pipeline(Retry(3, wait=SOON, max_retry_after=0))

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, pipeline, "Put"), b"x")
    assert "not idempotent" in caught.value.__notes__[0]
    assert service.count("Put") == 1
    assert way(stub(service, pipeline), b"x") == b"yes"


@ways
@pytest.mark.parametrize("pushback", ["-1", "soon"])
def test_a_pushback_forbids_a_retry_of_what_is_idempotent(service: Service, way: Rpc, pushback: str) -> None:
    service.script("Get", Abort(Code.UNAVAILABLE, pushback=pushback), b"yes")

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x")
    assert service.count("Get") == 1


@ways
def test_a_refused_connection_is_retried_whatever_the_method_does(service: Service, way: Rpc) -> None:
    service.stop()
    pipeline = Pipeline(Retry(3, wait=SOON))

    with Recorder(pipeline) as recorder, pytest.raises(grpc.RpcError) as caught:
        way(stub(service, pipeline, "Put"), b"x")
    assert "gave up after 3 attempts" in caught.value.__notes__[0]
    assert [event.failure.unprocessed for event in recorder.events if isinstance(event, RetryScheduled)] == [True, True]


@ways
def test_a_retry_gets_over_a_short_outage(service: Service, way: Rpc) -> None:
    retry = Retry(20, wait=backoff.fixed(0.05), budget=None)
    get = stub(service, Pipeline(retry), options=())  # those of ours, not those of the tests
    assert way(get, b"x") == b"x"
    service.stop()
    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(1)), options=()), b"x")
    again = threading.Timer(0.2, service.start)
    again.start()
    started = time.monotonic()

    assert way(get, b"x") == b"x"
    assert time.monotonic() - started <= 0.75  # gRPC's own first wait is at least 0.8 s
    again.join()


@ways
def test_a_refused_connection_that_a_server_tells_of_is_not(service: Service, way: Rpc) -> None:
    words = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50051: Connection refused"
    service.script("Put", Abort(Code.UNAVAILABLE, words), b"yes")

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x")
    assert service.count("Put") == 1


@ways
def test_the_words_of_a_refused_connection_are_not_believed_of_a_server_that_says_them(
    service: Service, way: Rpc
) -> None:
    service.script("Put", Abort(Code.UNAVAILABLE, refused_by(service.port)), b"yes")

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON)), "Put"), b"x")
    assert service.count("Put") == 1


@ways
def test_one_of_two_servers_that_cannot_reach_the_other_may_have_done_its_part(service: Service, way: Rpc) -> None:
    with serving() as peer:
        down = peer.port
    service.script("Put", Abort(Code.UNAVAILABLE, refused_by(down)), b"yes")
    target = f"ipv4:{service.target},127.0.0.1:{down}"
    channel = resilience.grpc.insecure_channel(target, Pipeline(Retry(3, wait=SOON)), options=OPTIONS)

    with pytest.raises(grpc.RpcError):
        way(stub_of(channel, "Put"), b"x")
    assert service.count("Put") == 1


@ways
def test_the_errors_of_the_server_come_out_as_they_are_with_our_note(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE)

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Retry(2, wait=SOON))), b"secret")
    assert type(caught.value).__module__ == "grpc._channel"
    assert caught.value.details() == "on purpose"
    assert len(caught.value.__notes__) == 1
    assert caught.value.__notes__[0].startswith("resilience: retry gave up after 2 attempts")


@ways
def test_the_timeout_of_the_caller_is_the_deadline_of_all_attempts(service: Service, way: Rpc) -> None:
    service.script("Get", Abort(Code.UNAVAILABLE, after=0.1))
    pipeline = Pipeline(Retry(50, wait=backoff.fixed(0.02), budget=None))
    started = time.monotonic()

    with pytest.raises(grpc.RpcError):
        way(stub(service, pipeline), b"x", timeout=0.5)
    assert time.monotonic() - started <= 0.75
    left = [seen.time_remaining for seen in service.seen]
    assert len(left) > 1
    assert left == sorted(left, reverse=True)
    assert left[0] <= 0.55
    assert left[1] <= 0.45


@ways
def test_an_attempt_that_is_cut_raises_our_error(service: Service, way: Rpc) -> None:
    service.script("Get", service.stall())
    pipeline = Pipeline(Timeout(5), Retry(2, wait=SOON), Timeout(0.1))

    with Recorder(pipeline) as recorder, pytest.raises(DeadlineExceededError) as caught:
        way(stub(service, pipeline), b"x")
    assert isinstance(caught.value, grpc.RpcError)
    assert code_of(caught.value) is Code.DEADLINE_EXCEEDED
    assert caught.value.details() == str(caught.value)
    assert "/shop.Shop/Get" in str(caught.value)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert not caught.value.unprocessed
    assert service.count("Get") == 2
    assert sum(isinstance(event, TimedOut) for event in recorder.events) == 2


@ways
def test_the_deadline_of_the_caller_raises_our_error_too(service: Service, way: Rpc) -> None:
    service.script("Get", service.stall())
    started = time.monotonic()

    with pytest.raises(DeadlineExceededError, match="the caller's deadline"):
        way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x", timeout=0.1)
    assert time.monotonic() - started <= 0.35
    assert service.count("Get") == 1


@ways
def test_the_ambient_deadline_counts(service: Service, way: Rpc) -> None:
    with deadline_after(1.0):
        way(stub(service, Pipeline(Timeout(30), Retry())), b"x", timeout=20)
    assert service.seen[0].time_remaining <= 1.1


@ways
@pytest.mark.parametrize("timeout", [0, -1.0])
def test_where_no_time_is_left_nothing_is_called(service: Service, way: Rpc, timeout: float) -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        way(stub(service, Pipeline(Retry())), b"x", timeout=timeout)
    assert caught.value.unprocessed
    assert isinstance(caught.value, grpc.RpcError)
    assert service.seen == []


@ways
def test_a_deadline_that_the_server_exceeded_is_not_ours(service: Service, way: Rpc) -> None:
    service.script("Get", Abort(Code.DEADLINE_EXCEEDED), b"yes")

    with pytest.raises(grpc.RpcError) as caught:
        way(stub(service, Pipeline(Timeout(5), Retry(3, wait=SOON))), b"x")
    assert not isinstance(caught.value, DeadlineExceededError)
    assert service.count("Get") == 1


@ways
def test_an_open_breaker_is_unavailable(service: Service, way: Rpc) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()

    with pytest.raises(CircuitOpenError) as caught:
        way(stub(service, Pipeline(Retry(), breaker)), b"x")
    assert isinstance(caught.value, grpc.RpcError)
    assert code_of(caught.value) is Code.UNAVAILABLE
    assert service.seen == []


@ways
def test_a_full_bulkhead_is_exhausted(service: Service, way: Rpc) -> None:
    service.script("Get", service.stall())
    bulkhead = Bulkhead(1)
    get = stub(service, Pipeline(bulkhead))
    held = get.future(b"x")
    assert wait_until(lambda: service.count("Get") == 1)

    with pytest.raises(BulkheadFullError) as caught:
        way(get, b"y")
    assert code_of(caught.value) is Code.RESOURCE_EXHAUSTED
    held.cancel()
    assert wait_until(lambda: bulkhead.in_flight == 0)


def method_failed(error: Exception) -> bool:
    return code_of(error) is Code.UNAVAILABLE


@ways
def test_the_failures_of_the_pipeline_replace_those_of_grpc(service: Service, way: Rpc) -> None:
    service.script("Get", Abort(Code.NOT_FOUND), b"yes")
    pipeline = Pipeline(Retry(3, wait=SOON), failures=resilience.grpc.rpc_failures([Code.NOT_FOUND]))

    assert way(stub(service, pipeline), b"x") == b"yes"


@ways
def test_a_response_that_is_listed_is_retried(service: Service, way: Rpc) -> None:
    service.script("Get", b"busy", b"yes")
    pipeline = Pipeline(Retry(3, wait=SOON), failures=Allowlist.of_results(lambda response: response == b"busy"))

    assert way(stub(service, pipeline), b"x") == b"yes"
    service.script("Get", b"busy")
    assert way(stub(service, pipeline), b"x") == b"busy"
    assert service.count("Get") == 5


def numbered(number: str) -> Callable[[Any], bytes]:
    def answer(context: Any) -> bytes:
        context.set_trailing_metadata((("x-number", number),))
        return b"busy"

    return answer


@pytest.mark.parametrize("as_future", [True, False])
def test_the_call_is_that_of_the_last_attempt_also_where_all_return_the_same_object(
    service: Service, as_future: bool
) -> None:
    service.script("Get", numbered("1"), numbered("2"))
    pipeline = Pipeline(Retry(2, wait=SOON), failures=Allowlist.of_results(lambda response: response == ""))
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True, options=OPTIONS)
    get: Any = channel.unary_unary("/shop.Shop/Get", response_deserializer=lambda response: "")

    call = get.future(b"x") if as_future else get.with_call(b"x")[1]
    assert ("x-number", "2") in [(key, value) for key, value in call.trailing_metadata()]


def test_a_plain_call_runs_in_the_thread_of_its_caller(service: Service) -> None:
    seen: list[int] = []

    class Note(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(threading.get_ident())
            return continuation(client_call_details, request)

    channel = grpc.insecure_channel(service.target)
    guarded = grpc.intercept_channel(channel, *resilience.grpc.client_interceptors(Pipeline(Retry())), Note())
    get = stub_of(guarded, "Get")
    get(b"x")
    get.with_call(b"x")
    get.future(b"x").result()

    assert seen[:2] == [threading.get_ident()] * 2
    assert seen[2] != threading.get_ident()


def test_interceptors_further_in_see_attempts_those_further_out_calls(service: Service) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")
    told: list[str] = []

    class Count(grpc.UnaryUnaryClientInterceptor):
        def __init__(self, name: str) -> None:
            self.name = name

        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            told.append(self.name)
            details = client_call_details._replace(
                metadata=(*(client_call_details.metadata or ()), ("x-by", self.name))
            )
            outcome = continuation(details, request)
            told.append(f"{self.name} {outcome.code().name}")
            return outcome

    ours = resilience.grpc.client_interceptors(Pipeline(Retry(3, wait=SOON)), idempotent=True)
    channel = grpc.insecure_channel(service.target, options=resilience.grpc.channel_options())
    get = stub_of(grpc.intercept_channel(channel, Count("out"), *ours, Count("in")), "Get")

    assert get(b"x") == b"yes"
    inner = ["in", "in UNAVAILABLE", "in", "in UNAVAILABLE", "in", "in OK"]
    assert told == ["out", *inner, "out OK"]
    assert service.seen[-1].metadata["x-by"] == "in"

    told.clear()
    service.script("Get", Abort(Code.NOT_FOUND))
    with pytest.raises(grpc.RpcError) as caught:
        get(b"x")
    assert told == ["out", "in", "in NOT_FOUND", "out NOT_FOUND"]
    assert code_of(caught.value) is Code.NOT_FOUND


@ways
def test_metadata_that_cannot_be_sent_says_nothing_about_the_server(service: Service, way: Rpc) -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    get = stub(service, Pipeline(Retry(3, wait=SOON), breaker))

    with pytest.raises((grpc.RpcError, ValueError)):  # which of them depends on the version of grpc
        way(get, b"x", metadata=[("authorization", "a line\n")])
    assert breaker.state == "closed"
    assert service.seen == []
    assert way(get, b"x") == b"x"


def test_credentials_that_cannot_be_had_say_nothing_about_the_server() -> None:
    class Issuer(grpc.AuthMetadataPlugin):
        asked = 0

        def __call__(self, context: Any, callback: Any) -> None:
            self.asked += 1
            raise ConnectionError

    issuer, breaker = Issuer(), CircuitBreaker(consecutive_failures=1)
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(), grpc.metadata_call_credentials(issuer)
    )
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    pipeline = Pipeline(Retry(3, wait=SOON), breaker)
    channel = resilience.grpc.secure_channel(f"127.0.0.1:{port}", credentials, pipeline, idempotent="*/Get")
    try:
        for method, asked in (("Put", 1), ("Get", 4)):
            with pytest.raises(grpc.RpcError):
                stub_of(channel, method)(b"x")
            assert issuer.asked == asked
    finally:
        server.stop(0).wait()
    assert breaker.state == "closed"


@ways
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_every_attempt_has_the_metadata_that_the_caller_gave(
    service: Service, way: Rpc, kind: Callable[[Any], Any]
) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")
    given = [("authorization", "token"), ("x-b", "1"), ("x-b", "2")]

    way(stub(service, Pipeline(Retry(3, wait=SOON))), b"x", metadata=kind(given))
    assert [[pair for pair in seen.pairs if pair in given] for seen in service.seen] == [given] * 3


@ways
def test_what_an_interceptor_adds_to_the_metadata_of_an_attempt_is_not_in_the_next(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")

    class Add(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            client_call_details.metadata.append(("x-a", "1"))
            return continuation(client_call_details, request)

    ours = resilience.grpc.client_interceptors(Pipeline(Retry(3, wait=SOON)), idempotent=True)
    channel = grpc.insecure_channel(service.target, options=resilience.grpc.channel_options())
    given = [("x-b", "2")]
    way(stub_of(grpc.intercept_channel(channel, *ours, Add()), "Get"), b"x", metadata=given)

    assert [seen.pairs.count(("x-a", "1")) for seen in service.seen] == [1, 1, 1]
    assert given == [("x-b", "2")]


def test_an_interceptor_further_out_gets_our_error_as_an_outcome(service: Service) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    codes: list[Any] = []

    class Look(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            outcome = continuation(client_call_details, request)
            outcome.add_done_callback(lambda done: codes.append(done.code()))
            return outcome

    channel = resilience.grpc.insecure_channel(service.target, Pipeline(breaker))
    get = stub_of(grpc.intercept_channel(channel, Look()), "Get")

    for way in (plain, with_call, future):
        with pytest.raises(CircuitOpenError):
            way(get, b"x")
    assert wait_until(lambda: len(codes) == 3)
    assert set(codes) == {Code.UNAVAILABLE}


@ways
def test_the_built_in_retry_is_off(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE)
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.02s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    options = [("grpc.service_config", config)]

    with pytest.raises(grpc.RpcError):
        way(stub(service, Pipeline(Retry(3, wait=SOON)), options=options), b"x")
    assert service.count("Get") == 3


@ways
def test_a_closed_channel_is_nobodys_failure(service: Service, way: Rpc) -> None:
    channel = resilience.grpc.insecure_channel(service.target, Pipeline(Retry(3, wait=SOON)), idempotent=True)
    get = stub_of(channel, "Get")
    channel.close()

    with pytest.raises(ValueError, match="closed"):
        way(get, b"x")


@ways
def test_a_channel_that_is_closed_between_two_attempts_leaves_the_last_failure(service: Service, way: Rpc) -> None:
    service.script("Get", UNAVAILABLE)
    pipeline = Pipeline(Bulkhead(1), Retry(3, wait=backoff.fixed(0.01)))
    channel = resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True, options=OPTIONS)

    def close(event: object) -> None:
        channel.close()

    with pipeline.subscribe(close, events=[RetryScheduled]), pytest.raises(grpc.RpcError) as caught:
        way(stub_of(channel, "Get"), b"x")
    assert code_of(caught.value) is Code.UNAVAILABLE
    assert caught.value.__notes__ == ["resilience: attempt 2 not made: ChannelClosed"]
    assert service.count("Get") == 1


@ways
def test_there_is_no_advice_about_a_closed_channel(
    service: Service, way: Rpc, caplog: pytest.LogCaptureFixture
) -> None:
    log_once.forget()
    channel = resilience.grpc.insecure_channel(service.target, Pipeline(Retry()), options=OPTIONS)
    get = stub_of(channel, "Get")
    channel.close()

    with pytest.raises(ValueError, match="closed"):
        way(get, b"x")
    assert caplog.text == ""


def test_a_channel_that_is_closed_under_a_probe_does_not_close_the_breaker(service: Service) -> None:
    service.script("Get", UNAVAILABLE, service.stall())
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.01, half_open_calls=1)
    channel = resilience.grpc.insecure_channel(service.target, Pipeline(breaker), options=OPTIONS)
    get = stub_of(channel, "Get")
    with pytest.raises(grpc.RpcError):
        get(b"x")
    assert wait_until(lambda: breaker.state == "half_open")
    probe = get.future(b"x")
    assert wait_until(lambda: service.count("Get") == 2)
    channel.close()

    assert probe.code() is Code.CANCELLED
    snapshot = breaker.snapshot()
    assert (snapshot["state"], snapshot["opens"]) == ("half_open", 1)


def test_a_thread_that_is_left_behind_leaves_its_attempt(service: Service) -> None:
    service.script("Get", service.stall(0.3))
    bulkhead = Bulkhead(1)

    with pytest.raises(DeadlineExceededError) as caught:
        stub(service, Pipeline(bulkhead, Timeout(0.1, thread=True)))(b"x")
    assert isinstance(caught.value, grpc.RpcError)
    assert wait_until(lambda: bulkhead.in_flight == 0)


@ways
def test_an_error_of_somebody_elses_making_comes_out(service: Service, way: Rpc) -> None:
    class Mine(grpc.RpcError):
        """It has neither a code nor anything else."""

    class Broken(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            raise Mine

    ours = resilience.grpc.client_interceptors(Pipeline(Retry()))
    channel = grpc.intercept_channel(grpc.insecure_channel(service.target), *ours, Broken())

    with pytest.raises(Mine):
        way(stub_of(channel, "Get"), b"x")


def test_without_a_pipeline_channels_to_one_target_share_one(service: Service) -> None:
    one, two = (resilience.grpc.insecure_channel(service.target) for _ in range(2))

    assert stub_of(one, "Get")(b"x") == stub_of(two, "Get")(b"x") == b"x"
    assert service.target in resilience.pipelines()
    assert remaining() is None


def test_a_secure_channel_is_guarded_too(service: Service) -> None:
    credentials = grpc.local_channel_credentials()
    server = grpc.server(ThreadPoolExecutor(2))
    handlers: Any = (service,)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    try:
        service.script("Get", UNAVAILABLE, b"yes")
        channel = resilience.grpc.secure_channel(
            f"127.0.0.1:{port}", credentials, Pipeline(Retry(wait=SOON)), idempotent=True
        )
        assert stub_of(channel, "Get")(b"x") == b"yes"
    finally:
        server.stop(0).wait()
