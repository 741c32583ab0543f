"""Futures: they do not block, they can be cancelled anywhere, and they behave as those of grpc."""

import contextvars
import threading
import time
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, Call, CircuitBreaker, Gate, Pipeline, Retry, Timeout, backoff
from resilience.events import RetryScheduled
from resilience.grpc._future import RpcFuture
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, stub
from tests.grpc.servers import Abort, Service, stub_of, wait_until
from tests.support.timing import at_most

pytestmark = pytest.mark.slow


def test_a_future_does_not_block_and_is_done_in_the_end(service: Service) -> None:
    service.script("Get", UNAVAILABLE, b"warm", service.stall())
    get = stub(service, Pipeline(Timeout(5), Retry(wait=SOON)))
    get(b"warm")
    started = time.monotonic()
    future = get.future(b"x")

    assert time.monotonic() - started <= at_most(0.0)
    assert (future.running(), future.done(), future.cancelled(), future.is_active()) == (True, False, False, True)
    assert isinstance(future, grpc.Call)
    assert isinstance(future, grpc.Future)
    service.released.set()
    assert future.result(timeout=5) == b"late"
    assert (future.running(), future.done(), future.cancelled(), future.is_active()) == (False, True, False, False)
    assert future.code() is Code.OK
    assert future.details() == ""
    assert (list(future.initial_metadata()), list(future.trailing_metadata())) == ([], [])
    assert (future.exception(), future.traceback()) == (None, None)
    assert future.cancel() is False


def test_a_future_that_failed_has_the_error_of_grpc(service: Service) -> None:
    service.script("Get", Abort(Code.NOT_FOUND, "no such thing"))
    future = stub(service, Pipeline(Retry())).future(b"x")

    assert future.code() is Code.NOT_FOUND  # waits
    assert future.details() == "no such thing"
    error = future.exception()
    assert isinstance(error, grpc.RpcError)
    assert future.traceback() is not None
    with pytest.raises(grpc.RpcError) as caught:
        future.result()
    assert caught.value is error


def test_a_future_that_was_refused_has_a_traceback_at_once(service: Service) -> None:
    breaker = CircuitBreaker()
    breaker.isolate()
    future = stub(service, Pipeline(breaker)).future(b"x")

    assert future.traceback() is not None
    assert future.debug_error_string() == ""


def test_a_future_shows_its_state(service: Service) -> None:
    service.script("Get", service.stall(), Abort(Code.NOT_FOUND, "a name"))
    get = stub(service, Pipeline(Retry()))
    good = get.future(b"x")
    assert repr(good) == "<RpcFuture: in progress>"
    assert wait_until(lambda: service.count("Get") == 1)
    bad = get.future(b"x")
    assert bad.code() is Code.NOT_FOUND
    assert repr(bad) == "<RpcFuture: NOT_FOUND>"
    assert "a name" in bad.debug_error_string()
    assert good.cancel()
    assert repr(good) == "<RpcFuture: CANCELLED>"
    assert good.debug_error_string() == ""


def test_a_result_can_be_waited_for_with_a_timeout(service: Service) -> None:
    service.script("Get", service.stall())
    future = stub(service, Pipeline(Retry())).future(b"x")

    for wait in (future.result, future.exception, future.traceback):
        with pytest.raises(grpc.FutureTimeoutError):
            wait(timeout=0.02)
    assert future.running()
    service.released.set()
    assert future.result(5) == b"late"


def test_a_wait_that_ends_early_leaves_nothing_behind(service: Service) -> None:
    service.script("Get", service.stall())
    future = stub(service, Pipeline(Retry())).future(b"x")
    assert isinstance(future, RpcFuture)

    for _ in range(3):
        with pytest.raises(grpc.FutureTimeoutError):
            future.result(timeout=0.001)
    assert future._thread._wakes == []
    assert future.cancel()


def test_time_remaining_is_that_of_all_attempts(service: Service) -> None:
    service.script("Get", service.stall())
    get = stub(service, Pipeline(Retry()))
    without, within = get.future(b"x"), get.future(b"x", timeout=3.0)

    assert without.time_remaining() is None
    assert 2.0 < within.time_remaining() <= 3.0
    assert without.cancel()
    assert within.cancel()


def cancelled(future: Any) -> bool:
    told: list[Any] = []
    future.add_done_callback(told.append)
    assert future.cancel() is True
    assert future.cancel() is False
    assert (future.done(), future.cancelled(), future.running()) == (True, True, False)
    with pytest.raises(grpc.FutureCancelledError):
        future.result()
    with pytest.raises(grpc.FutureCancelledError):
        future.exception()
    assert future.code() is Code.CANCELLED
    assert future.details() == "Locally cancelled by application!"
    assert list(future.trailing_metadata()) == []
    return wait_until(lambda: told == [future])


def test_cancelled_in_flight(service: Service) -> None:
    service.script("Get", service.stall())
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    future = stub(service, Pipeline(Retry(), bulkhead, breaker)).future(b"x")
    assert wait_until(lambda: service.count("Get") == 1)

    assert cancelled(future)
    assert bulkhead.in_flight == 0
    assert wait_until(lambda: len(service.cancelled) == 1, 2.0)
    assert breaker.snapshot()["calls"] == 0


class Hold(Gate[None]):
    """Stops each call until it is let on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def admit(self, call: Call) -> None:
        self.reached.set()
        self.go_on.wait(5)


def test_cancelled_before_its_first_attempt(service: Service) -> None:
    hold, bulkhead = Hold(), Bulkhead(1)
    future = stub(service, Pipeline(bulkhead, hold)).future(b"x")
    assert hold.reached.wait(5)
    assert future.cancel()
    hold.go_on.set()

    assert wait_until(lambda: bulkhead.in_flight == 0)
    assert service.seen == []


def test_cancelled_between_two_attempts(service: Service) -> None:
    service.script("Get", UNAVAILABLE)
    bulkhead, waiting = Bulkhead(1), threading.Event()
    pipeline = Pipeline(bulkhead, Retry(wait=backoff.fixed(30.0)))
    with pipeline.subscribe(lambda event: waiting.set(), events=[RetryScheduled]):
        future = stub(service, pipeline).future(b"x")
        assert waiting.wait(5)

    assert cancelled(future)
    assert bulkhead.in_flight == 0
    assert service.count("Get") == 1


def test_cancelled_in_a_queue(service: Service) -> None:
    service.script("Get", service.stall())
    bulkhead = Bulkhead(1, queue=5, max_wait=30.0)
    get = stub(service, Pipeline(bulkhead))
    first = get.future(b"x")
    assert wait_until(lambda: service.count("Get") == 1)
    second, third = get.future(b"y"), get.future(b"z")
    assert wait_until(lambda: bulkhead.queued == 2)

    assert cancelled(second)
    assert bulkhead.queued == 1
    assert cancelled(first)
    assert wait_until(lambda: service.count("Get") == 2)  # the third got the permit
    assert cancelled(third)
    assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


def test_cancelled_while_a_thread_of_its_own_makes_the_attempt(service: Service) -> None:
    service.script("Get", UNAVAILABLE)
    bulkhead, waiting = Bulkhead(1), threading.Event()
    pipeline = Pipeline(bulkhead, Timeout(30, thread=True), Retry(wait=backoff.fixed(20.0)))
    with pipeline.subscribe(lambda event: waiting.set(), events=[RetryScheduled]):
        future = stub(service, pipeline).future(b"x")
        assert waiting.wait(5)

    assert cancelled(future)
    assert bulkhead.in_flight == 0


def test_a_future_cancelled_further_in_is_not_retried(service: Service) -> None:
    service.script("Get", service.stall())
    inner: list[Any] = []

    class Keep(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            inner.append(continuation(client_call_details, request))
            return inner[-1]

    ours = resilience.grpc.client_interceptors(Pipeline(Retry()), idempotent=True)
    channel = grpc.intercept_channel(grpc.insecure_channel(service.target), *ours, Keep())
    future = stub_of(channel, "Get").future(b"x")
    assert wait_until(lambda: service.count("Get") == len(inner) == 1)
    inner[0].cancel()

    with pytest.raises(grpc.FutureCancelledError):
        future.result(5)
    assert service.count("Get") == 1


def test_callbacks_run_when_every_permit_is_back_and_none_stops_the_others(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.script("Get", service.stall())
    bulkhead = Bulkhead(1)
    future = stub(service, Pipeline(bulkhead)).future(b"x")
    told: list[Any] = []
    rang = threading.Event()
    future.add_done_callback(lambda done: 1 / 0)
    future.add_done_callback(lambda done: told.append((done, bulkhead.in_flight)))
    assert future.add_callback(rang.set) is True
    service.released.set()

    assert future.result(5) == b"late"
    assert rang.wait(5)
    assert told == [(future, 0)]
    assert "callback of an RPC" in caplog.text
    future.add_done_callback(told.append)
    assert told[-1] is future
    assert future.add_callback(rang.set) is False


def test_what_the_callbacks_of_a_cancelled_future_do_is_not_cancelled(service: Service) -> None:
    service.script("Get", service.stall())
    service.script("Audit", UNAVAILABLE, b"noted")
    get = stub(service, Pipeline(Retry(), Bulkhead(1)))
    pipeline = Pipeline(Retry(wait=backoff.fixed(0.01)))
    audit = stub_of(resilience.grpc.insecure_channel(service.target, pipeline, idempotent=True), "Audit")
    told: list[Any] = []
    rang = threading.Event()
    future = get.future(b"x")
    future.add_done_callback(lambda done: told.append(audit(b"y")))  # sleeps before its second attempt
    future.add_done_callback(lambda done: told.append(audit.future(b"z").result(5)))
    future.add_callback(rang.set)
    assert wait_until(lambda: service.count("Get") == 1)
    assert future.cancel()

    assert rang.wait(5)
    assert told == [b"noted", b"noted"]


def test_no_callback_silences_the_others(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    class Out(BaseException):
        pass

    def out(done: Any) -> None:
        raise Out

    ended: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_type))
    service.script("Get", service.stall())
    rang = [threading.Event(), threading.Event()]
    future = stub(service, Pipeline(Retry())).future(b"x")
    future.add_done_callback(out)
    future.add_callback(rang[0].set)
    future.add_done_callback(out)
    future.add_callback(rang[1].set)
    service.released.set()

    assert all(bell.wait(5) for bell in rang)
    assert future.result(5) == b"late"
    assert wait_until(lambda: ended == [Out])


def test_who_has_woken_already_does_not_silence_callbacks(service: Service) -> None:
    service.script("Get", service.stall())
    future = stub(service, Pipeline(Retry())).future(b"x")
    rang, lock = threading.Event(), threading.Lock()
    # A lock that a stop has released: to release it once more is a RuntimeError.
    assert future._thread.add_waker(lock.release, 9)
    future.add_callback(rang.set)
    service.released.set()

    assert rang.wait(5)
    assert future.result(5) == b"late"


def test_the_pipeline_runs_in_the_context_of_the_caller(service: Service) -> None:
    variable = contextvars.ContextVar("variable", default="")
    seen: list[str] = []

    class Look(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(variable.get())
            return continuation(client_call_details, request)

    ours = resilience.grpc.client_interceptors(Pipeline(Retry()))
    channel = grpc.intercept_channel(grpc.insecure_channel(service.target), *ours, Look())
    variable.set("here")
    stub_of(channel, "Get").future(b"x").result(5)

    assert seen == ["here"]
