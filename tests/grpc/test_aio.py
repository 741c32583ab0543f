"""grpc.aio against a real server."""

import asyncio
import pickle
import time
from collections.abc import Callable
from types import SimpleNamespace
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
    Substitute,
    Timeout,
    backoff,
    deadline_after,
    remaining,
)
from resilience._call.caller import Caller
from tests.grpc.servers import OPTIONS, Abort, Service, refused_by, stub_of, wait_until

pytestmark = pytest.mark.slow

Code = grpc.StatusCode
SOON = backoff.fixed(0.001)
UNAVAILABLE = Abort(Code.UNAVAILABLE)


def run(
    service: Service,
    pipeline: Caller[Any] | None,
    body: Callable[[Any], Any],
    method: str = "Get",
    **kwargs: Any,
) -> Any:
    kwargs = {"idempotent": "*/Get", "options": OPTIONS, **kwargs}

    async def main() -> Any:
        async with resilience.grpc.aio.insecure_channel(service.target, pipeline, **kwargs) as channel:
            return await body(stub_of(channel, method))

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(wait_until, condition)


class Instead(Substitute[Any]):
    def replace(self, call: Any, ending: Any) -> Any:
        return b"instead"


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
        assert time.monotonic() - started <= 0.75

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


@pytest.mark.parametrize("how", ["call", "task", "wait_for"])
def test_a_cancellation_reaches_the_server_and_gives_the_permit_back(service: Service, how: str) -> None:
    service.script("Get", service.stall())
    bulkhead = Bulkhead(1)

    async def body(get: Any) -> None:
        call = get(b"x")

        async def wait() -> Any:
            return await call

        task = asyncio.create_task(wait())
        assert await until(lambda: service.count("Get") == 1)
        if how == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0.01)
        else:
            assert (call if how == "call" else task).cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert call.cancelled()
        assert call.done()
        assert await call.code() is Code.CANCELLED
        assert bulkhead.in_flight == 0
        assert await until(lambda: len(service.cancelled) == 1)

    run(service, Pipeline(Retry(), bulkhead), body)


def test_a_cancellation_reaches_interceptors_further_in(service: Service) -> None:
    bulkhead = Bulkhead(1)
    reached: list[str] = []

    class Slow(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            reached.append("in")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                reached.append("out")

    async def body(get: Any) -> None:
        call = get(b"x")
        assert await until(lambda: reached == ["in"])
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(service, Pipeline(Retry(), bulkhead), body, interceptors=[Slow()])
    assert reached == ["in", "out"]
    assert bulkhead.in_flight == 0
    assert service.seen == []


def test_a_cancellation_between_two_attempts_ends_it(service: Service) -> None:
    service.script("Get", UNAVAILABLE)
    bulkhead = Bulkhead(1)

    async def body(get: Any) -> None:
        call = get(b"x")
        assert await until(lambda: service.count("Get") == 1)
        await asyncio.sleep(0.05)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(service, Pipeline(bulkhead, Retry(wait=backoff.fixed(30.0))), body)
    assert bulkhead.in_flight == 0
    assert service.count("Get") == 1


class Count(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.told.append(self.name)
        assert client_call_details.metadata is None or isinstance(client_call_details.metadata, grpc.aio.Metadata)
        call = await continuation(client_call_details, request)
        self.told.append(f"{self.name} {(await call.code()).name}")
        return call


def test_interceptors_further_in_see_attempts_those_further_out_calls(service: Service) -> None:
    told: list[str] = []

    class Plain(grpc.aio.UnaryUnaryClientInterceptor):
        """Passes on details of its own making, with metadata as a list, as some do."""

        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            given = client_call_details
            metadata = [("x-a", "1"), ("x-b", "2"), ("x-b", "3")]
            details = SimpleNamespace(
                method=given.method,
                timeout=given.timeout,
                metadata=metadata,
                credentials=given.credentials,
                wait_for_ready=given.wait_for_ready,
            )
            return await continuation(details, request)

    async def main() -> None:
        ours = resilience.grpc.aio_client_interceptors(Pipeline(Retry(3, wait=SOON)), idempotent=True)
        interceptors = [Count("out", told), Plain(), *ours, Count("in", told)]
        options = resilience.grpc.channel_options()
        async with grpc.aio.insecure_channel(service.target, options=options, interceptors=interceptors) as channel:
            get = stub_of(channel, "Get")
            service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")
            assert await get(b"x") == b"yes"
            assert told == ["out", *["in", "in UNAVAILABLE"] * 2, "in", "in OK", "out OK"]
            told.clear()
            service.script("Get", Abort(Code.NOT_FOUND))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await get(b"x")
            assert caught.value.code() is Code.NOT_FOUND

    asyncio.run(main())
    assert service.seen[-1].metadata["x-b"] == "3"


@pytest.mark.parametrize("kind", [tuple, lambda pairs: grpc.aio.Metadata(*pairs)])
def test_what_an_interceptor_adds_to_the_metadata_of_an_attempt_is_not_in_the_next(
    service: Service, kind: Callable[[Any], Any]
) -> None:
    service.script("Get", UNAVAILABLE, UNAVAILABLE, b"yes")
    pairs = [("x-b", "2"), ("x-b", "3")]
    given = kind(pairs)

    class Add(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            client_call_details.metadata.add("x-a", "1")
            return await continuation(client_call_details, request)

    async def body(get: Any) -> None:
        assert await get(b"x", metadata=given) == b"yes"

    run(service, Pipeline(Retry(3, wait=SOON)), body, interceptors=[Add()])
    sent = [[pair for pair in seen.pairs if pair[0].startswith("x-")] for seen in service.seen]
    assert sent == [[*pairs, ("x-a", "1")]] * 3
    assert list(given) == pairs


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
        answer = await call._interceptors_task
        assert answer.time_remaining() is None

    run(service, Pipeline(Instead(), Retry(2, wait=SOON)), body)


def test_closing_the_channel_ends_a_wait(service: Service) -> None:
    service.script("Get", UNAVAILABLE)

    async def main() -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(0.05)))
        channel = resilience.grpc.aio.insecure_channel(service.target, pipeline, idempotent=True)
        call = stub_of(channel, "Get")(b"x")
        assert await until(lambda: service.count("Get") == 1)
        await channel.close()
        with pytest.raises((asyncio.CancelledError, grpc.aio.UsageError)):
            await call

    asyncio.run(main())
    assert service.count("Get") == 1


def test_a_channel_that_is_closed_between_two_attempts_leaves_the_last_failure(service: Service) -> None:
    service.script("Get", UNAVAILABLE)

    async def main() -> None:
        pipeline = Pipeline(Bulkhead(1), Retry(wait=backoff.fixed(0.05)))
        channel = resilience.grpc.aio.insecure_channel(service.target, pipeline, idempotent=True)
        call = stub_of(channel, "Get")(b"x")
        assert await until(lambda: service.count("Get") == 1)
        await channel.close(grace=1.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is Code.UNAVAILABLE
        assert caught.value.__notes__ == ["resilience: attempt 2 not made: ChannelClosed"]

    asyncio.run(main())
    assert service.count("Get") == 1


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
