"""The channel of `grpc.aio` that the makers return: when it ends RPCs, and where grpc's own machinery makes them."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Bulkhead, Pipeline, Retry, backoff
from resilience.grpc.aio._callables import UnaryUnary
from resilience.grpc.aio._channel import AioGuardedChannel
from tests.grpc.aio.clean import run_clean, seen, was_cancelled
from tests.grpc.helpers import SOON, Code
from tests.grpc.streaming import Rpc, Shop, method_of, shop
from tests.support.timing import at_most

pytestmark = pytest.mark.slow

Make = Callable[[str], Any]


def answer(rpc: Rpc, request: bytes) -> bytes:
    if request == b"hang":
        rpc.wait()
    if request == b"slow":
        rpc.wait(0.2)
    if request == b"fail":
        rpc.fail()
    return request


@pytest.fixture
def server() -> Iterator[Shop]:
    with shop({"unary_unary": answer}) as server:
        yield server


def plain(target: str) -> Any:
    return grpc.aio.insecure_channel(target)


def guarded(target: str) -> Any:
    return resilience.grpc.aio.insecure_channel(target, Pipeline(Retry(wait=SOON)), idempotent=True)


both = pytest.mark.parametrize("make", [plain, guarded])
"""What holds for a guarded channel is what holds for one of grpc."""


def stub_of(channel: Any) -> Any:
    return method_of(channel, "unary_unary")


async def outcome(call: Any) -> Any:
    """Return the response of a call, or the class of its error."""
    try:
        return await call
    except asyncio.CancelledError:
        return asyncio.CancelledError
    except grpc.RpcError as error:
        return type(error)


class Inner(grpc.aio.UnaryUnaryClientInterceptor):
    """Does nothing but counting."""

    def __init__(self) -> None:
        self.calls = 0

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.calls += 1
        return await continuation(client_call_details, request)


# Its end


@both
@pytest.mark.parametrize("grace", [None, 0.1, 5.0])
def test_rpcs_have_the_grace_to_end(server: Shop, make: Make, grace: float | None) -> None:
    async def body(channel: Any) -> None:
        stub = stub_of(channel)
        using = asyncio.create_task(outcome(stub(b"slow" if grace == 5.0 else b"hang")))
        other = stub(b"slow" if grace == 5.0 else b"hang")
        await seen(server, 2)
        started = time.monotonic()
        await channel.close(grace)
        assert time.monotonic() - started <= at_most(0.2 if grace == 5.0 else grace or 0.0)
        if grace == 5.0:
            assert (await using, await other) == (b"slow", b"slow")
        else:
            assert await using is asyncio.CancelledError
            assert await other.code() is Code.CANCELLED
            assert await was_cancelled(server)
            assert await was_cancelled(server, 2)
        with pytest.raises(grpc.aio.UsageError):
            stub(b"x")
        await channel.close()

    run_clean(make, server, body)


@both
def test_an_rpc_that_has_just_been_made_is_cancelled(server: Shop, make: Make) -> None:
    async def body(channel: Any) -> None:
        calls = [stub_of(channel)(b"hang") for _ in range(2)]
        await channel.close()
        assert [await call.code() for call in calls] == [Code.CANCELLED] * 2
        assert await outcome(calls[0]) is asyncio.CancelledError

    run_clean(make, server, body)


@pytest.mark.parametrize("grace", [None, 0.1])
def test_it_ends_the_waits_of_rpcs(server: Shop, grace: float | None) -> None:
    async def body(channel: Any) -> None:
        stub = stub_of(channel)
        held = asyncio.create_task(outcome(stub(b"fail")))
        await seen(server)
        queued = asyncio.create_task(outcome(stub(b"x")))
        await asyncio.sleep(0.02)
        await channel.close(grace)
        assert [await held, await queued] == [asyncio.CancelledError] * 2

    bulkhead = Bulkhead(1, queue=1, max_wait=30.0)
    pipeline = Pipeline(bulkhead, Retry(wait=backoff.fixed(30.0)))
    run_clean(lambda target: resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True), server, body)
    assert bulkhead.in_flight == 0
    assert len(server.rpcs) == 1


def test_its_end_may_be_cancelled_and_begun_again(server: Shop) -> None:
    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"hang")
        await seen(server)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.close(20.0), 0.05)
        await channel.close()
        assert await call.code() is Code.CANCELLED

    run_clean(guarded, server, body)


def test_a_wrong_grace_is_reported_as_by_grpc(server: Shop) -> None:
    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"slow")
        await seen(server)
        try:
            await channel.close(-1.0)
        except ValueError:
            assert await call == b"slow"  # nothing is closed

    run_clean(guarded, server, body)


# Where grpc makes the RPCs


@pytest.mark.parametrize("where", ["given", "added inside", "added outside"])
def test_other_interceptors_take_part(server: Shop, where: str) -> None:
    """Some SDKs add theirs to the lists of a channel that they are given."""
    other = Inner()

    def make(target: str) -> Any:
        given = [other] if where == "given" else []
        pipeline = Pipeline(Retry(3, wait=SOON))
        return resilience.grpc.aio.insecure_channel(target, pipeline, idempotent=True, interceptors=given)

    async def body(channel: Any) -> None:
        interceptors = channel._unary_unary_interceptors
        if where != "given":
            interceptors.insert(0 if where == "added outside" else len(interceptors), other)
        stub = stub_of(channel)
        assert not isinstance(stub, UnaryUnary)
        assert await outcome(stub(b"fail")) is grpc.aio.AioRpcError

    run_clean(make, server, body)
    assert len(server.rpcs) == 3
    assert other.calls == (1 if where == "added outside" else 3)


def test_a_channel_of_another_make_is_used_through_interceptors(server: Shop) -> None:
    class Stripped:
        """A channel whose multi-callables do not tell their interceptors."""

        def unary_unary(self, method: str) -> Any:
            return method

    channel: Any = Stripped()
    guarded: Any = AioGuardedChannel(channel, channel, Inner())
    assert guarded.unary_unary("/a/b") == "/a/b"
    with pytest.raises(AttributeError):
        copy.copy(guarded)._nothing  # noqa: B018


def test_health_checks_bypass_the_pipeline(server: Shop) -> None:
    bulkhead = Bulkhead(1)

    def make(target: str) -> Any:
        return resilience.grpc.aio.insecure_channel(target, Pipeline(bulkhead), unguarded="*/unary_unary")

    async def body(channel: Any) -> None:
        call = stub_of(channel)(b"hang", timeout=5.0)
        await seen(server)
        assert bulkhead.in_flight == 0
        assert call.cancel()
        assert await call.code() is Code.CANCELLED

    run_clean(make, server, body)


def test_its_connection_is_that_of_the_channel_of_grpc(server: Shop) -> None:
    async def body(channel: Any) -> None:
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
        await asyncio.wait_for(channel.channel_ready(), 10.0)
        assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
        waiting = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
        await channel.close()
        await asyncio.gather(waiting, return_exceptions=True)

    run_clean(guarded, server, body)
