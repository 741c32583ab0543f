"""RPCs of `grpc.aio` that are cancelled, and those whose channel is closed."""

import asyncio
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, Pipeline, Retry, backoff
from resilience.events import RetryScheduled
from resilience.testing import Recorder
from tests.grpc.helpers import UNAVAILABLE, Code, run, until
from tests.grpc.servers import Service, stub_of

pytestmark = pytest.mark.slow


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
    pipeline = Pipeline(bulkhead, Retry(wait=backoff.fixed(30.0)))

    async def body(get: Any) -> None:
        with Recorder(pipeline, events=[RetryScheduled]) as recorder:
            call = get(b"x")
            assert await until(lambda: len(recorder.of(RetryScheduled)) == 1)
            assert call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    run(service, pipeline, body)
    assert bulkhead.in_flight == 0
    assert service.count("Get") == 1


def test_closing_the_channel_ends_a_wait(service: Service) -> None:
    service.script("Get", UNAVAILABLE)

    async def main() -> None:
        pipeline = Pipeline(Retry(wait=backoff.fixed(30.0)))
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
        pipeline = Pipeline(Bulkhead(1), Retry(wait=backoff.fixed(0.5)))
        channel = resilience.grpc.aio.insecure_channel(service.target, pipeline, idempotent=True)
        call = stub_of(channel, "Get")(b"x")
        assert await until(lambda: service.count("Get") == 1)
        await channel.close(grace=5.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is Code.UNAVAILABLE
        assert caught.value.__notes__ == ["resilience: attempt 2 not made: ChannelClosed"]

    asyncio.run(main())
    assert service.count("Get") == 1
