"""RPCs of `grpc.aio` against a real server: what is retried, deadlines, rejections, and which call comes out."""

import asyncio
import pickle
import time
from collections.abc import Callable
from typing import Any

import anyio
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
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, run, until
from tests.grpc.servers import OPTIONS, Abort, Service, refused_by, stub_of, wait_until
from tests.support.policies import Instead
from tests.support.timing import at_most

pytestmark = pytest.mark.slow


def test_a_call_is_a_call(service: Service) -> None:
    async def body(get: Any) -> None:
        call = get(b"x")
        assert await call == b"x"
        assert await call == b"x"
        assert await call.code() is Code.OK
        assert await call.details() == ""
        assert list(await call.initial_metadata()) == []
        assert list(await call.trailing_metadata()) == []
        assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)

    run(service, Pipeline(Timeout(5), Retry(), Bulkhead(1), CircuitBreaker(), Timeout(2)), body)


def test_an_idempotent_method_is_retried_and_the_last_attempt_is_the_call(service: Service) -> None:
    service.script("Get", UNAVAILABLE, Abort(Code.ABORTED), b"yes")

    async def body(get: Any) -> None:
        call = get(b"x")
        assert await call.code() is Code.OK
        assert await call == b"yes"

    run(service, Pipeline(Retry(3, wait=SOON)), body)
    assert service.count("Get") == 3


def test_any_other_method_is_not(service: Service) -> None:
    service.script("Put", UNAVAILABLE, b"yes")

    async def body(put: Any) -> None:
        call = put(b"x")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        with pytest.raises(grpc.aio.AioRpcError) as again:
            await call
        assert again.value is caught.value
        assert "not idempotent" in caught.value.__notes__[0]
        assert await call.code() is caught.value.code() is Code.UNAVAILABLE
        assert await call.details() == "on purpose"
        assert list(await call.trailing_metadata()) == []
        assert call.done()

    run(service, Pipeline(Retry(3, wait=SOON)), body, "Put")
    assert service.count("Put") == 1


def test_a_response_that_is_listed_is_retried(service: Service) -> None:
    service.script("Get", b"busy", b"yes")

    async def body(get: Any) -> None:
        call = get(b"x")
        assert await call == b"yes"
        assert await call.code() is Code.OK

    failures = Allowlist.of_results(lambda response: response == b"busy")
    run(service, Pipeline(Retry(3, wait=SOON), failures=failures), body)
    assert service.count("Get") == 2


def test_the_call_is_that_of_the_last_attempt_also_where_all_return_the_same_object(service: Service) -> None:
    def numbered(number: str) -> Callable[[Any], bytes]:
        def answer(context: Any) -> bytes:
            context.set_trailing_metadata((("x-number", number),))
            return b"busy"

        return answer

    service.script("Get", numbered("1"), numbered("2"))
    pipeline = Pipeline(Retry(2, wait=SOON), failures=Allowlist.of_results(lambda response: response == ""))

    async def main() -> None:
        async with resilience.grpc.aio.insecure_channel(
            service.target, pipeline, idempotent=True, options=OPTIONS
        ) as channel:
            get: Any = channel.unary_unary("/shop.Shop/Get", response_deserializer=lambda response: "")
            call = get(b"x")
            assert await call == ""
            assert ("x-number", "2") in list(await call.trailing_metadata())

    asyncio.run(main())


def test_a_pushback_permits_and_is_waited_for_or_forbids(service: Service) -> None:
    service.script("Put", Abort(Code.RESOURCE_EXHAUSTED, pushback="60"), Abort(Code.UNKNOWN, pushback="0"), b"yes")

    async def body(put: Any) -> None:
        started = time.monotonic()
        assert await put(b"x") == b"yes"
        assert time.monotonic() - started >= 0.06
        service.script("Put", Abort(Code.UNAVAILABLE, pushback="-1"), b"yes")
        with pytest.raises(grpc.aio.AioRpcError):
            await put(b"x")

    run(service, Pipeline(Retry(3, wait=SOON)), body, "Put")
    assert service.count("Put") == 4


def test_a_refused_connection_is_retried_unless_somebody_further_in_may_have_sent(service: Service) -> None:
    service.stop()

    class Inner(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return await continuation(client_call_details, request)

    async def body(put: Any) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await put(b"x")
        return caught.value.__notes__[0]

    assert "after 3 attempts" in run(service, Pipeline(Retry(3, wait=SOON)), body, "Put")
    assert "after 1 attempt " in run(service, Pipeline(Retry(3, wait=SOON)), body, "Put", interceptors=[Inner()])


def test_the_words_of_a_refused_connection_are_not_believed_of_a_server_that_says_them(service: Service) -> None:
    service.script("Put", Abort(Code.UNAVAILABLE, refused_by(service.port)), b"yes")

    async def body(put: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await put(b"x")

    run(service, Pipeline(Retry(3, wait=SOON)), body, "Put")
    assert service.count("Put") == 1


def test_an_attempt_that_is_cut_raises_our_error(service: Service) -> None:
    service.script("Get", service.stall())

    async def body(get: Any) -> None:
        call = get(b"x")
        with pytest.raises(DeadlineExceededError) as caught:
            await call
        assert isinstance(caught.value, grpc.aio.AioRpcError)
        assert caught.value.code() is await call.code() is Code.DEADLINE_EXCEEDED
        assert caught.value.details() == await call.details() == str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    run(service, Pipeline(Timeout(5), Retry(2, wait=SOON), Timeout(0.1)), body)
    assert service.count("Get") == 2
    assert wait_until(lambda: len(service.cancelled) == 2)


def test_the_timeout_of_the_caller_is_the_deadline_of_all_attempts(service: Service) -> None:
    service.script("Get", Abort(Code.UNAVAILABLE, after=0.1))

    async def body(get: Any) -> None:
        started = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError):
            await get(b"x", timeout=0.5)
        assert time.monotonic() - started <= at_most(0.5)

    run(service, Pipeline(Retry(50, wait=backoff.fixed(0.02), budget=None)), body)
    left = [seen.time_remaining for seen in service.seen]
    assert len(left) > 1
    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_where_no_time_is_left_nothing_is_called(service: Service, timeout: float) -> None:
    async def body(get: Any) -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            await get(b"x", timeout=timeout)
        assert caught.value.unprocessed
        assert isinstance(caught.value, grpc.RpcError)

    run(service, Pipeline(Retry()), body)
    assert service.seen == []


def test_a_deadline_that_the_server_exceeded_is_not_ours(service: Service) -> None:
    service.script("Get", Abort(Code.DEADLINE_EXCEEDED), b"yes")

    async def body(get: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(b"x")
        assert not isinstance(caught.value, DeadlineExceededError)

    run(service, Pipeline(Timeout(5), Retry(3, wait=SOON)), body)
    assert service.count("Get") == 1


def test_the_ambient_deadline_counts_and_that_of_a_scope_of_anyio_when_it_is_given(service: Service) -> None:
    async def body(get: Any) -> None:
        with deadline_after(1.0):
            await get(b"x")
        with anyio.fail_after(1.0):
            await get(b"x", timeout=remaining())

    run(service, Pipeline(Retry()), body)
    assert all(seen.time_remaining <= 1.1 for seen in service.seen)
    assert service.count("Get") == 2


def test_our_rejections_are_errors_of_grpc(service: Service) -> None:
    service.script("Get", service.stall())
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()

    async def body(get: Any) -> None:
        held = get(b"x")
        assert await until(lambda: service.count("Get") == 1)
        call = get(b"y")
        with pytest.raises(BulkheadFullError) as full:
            await call
        assert isinstance(full.value, grpc.aio.AioRpcError)
        assert full.value.code() is await call.code() is Code.RESOURCE_EXHAUSTED
        assert list(await call.initial_metadata()) == list(await call.trailing_metadata()) == []
        assert held.cancel()
        breaker.isolate()
        assert await until(lambda: bulkhead.in_flight == 0)
        with pytest.raises(CircuitOpenError) as refused:
            await get(b"z")
        assert isinstance(refused.value, grpc.aio.AioRpcError)
        assert refused.value.code() is Code.UNAVAILABLE

    run(service, Pipeline(bulkhead, breaker), body)
    assert service.count("Get") == 1


def test_a_substitute_comes_out_as_an_answer(service: Service) -> None:
    service.script("Get", UNAVAILABLE)

    async def body(get: Any) -> None:
        told: list[Any] = []
        call = get(b"x")
        call.add_done_callback(told.append)
        assert await call == b"instead"
        assert await call.code() is Code.OK
        assert await call.details() == await call.debug_error_string() == ""
        assert list(await call.initial_metadata()) == list(await call.trailing_metadata()) == []
        assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
        await call.wait_for_connection()
        assert told == [call]
        assert call.time_remaining() is None

    run(service, Pipeline(Instead(b"instead"), Retry(2, wait=SOON)), body)


def test_without_a_pipeline_there_is_one(service: Service) -> None:
    async def body(get: Any) -> Any:
        return await get(b"x")

    assert run(service, None, body) == b"x"


def test_a_secure_channel_is_guarded_too(service: Service) -> None:
    class Refuse(CircuitBreaker):
        pass

    breaker = Refuse()
    breaker.isolate()

    async def main() -> None:
        credentials = grpc.local_channel_credentials()
        async with resilience.grpc.aio.secure_channel(service.target, credentials, Pipeline(breaker)) as channel:
            with pytest.raises(CircuitOpenError):
                await stub_of(channel, "Get")(b"x")

    asyncio.run(main())
