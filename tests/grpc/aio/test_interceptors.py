"""Interceptors of `grpc.aio` on both sides of ours, and the metadata that every attempt has."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Pipeline, Retry
from tests.grpc.helpers import SOON, UNAVAILABLE, Code, run
from tests.grpc.servers import Abort, Service, stub_of

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("guarded", [False, True])
def test_an_outer_interceptor_gets_the_call_of_an_rpc_that_has_failed(service: Service, guarded: bool) -> None:
    """As from grpc itself: those that record the status end their record in a callback of the call."""
    service.script("Get", Abort(Code.NOT_FOUND, "no such thing", pushback="5"))
    seen: list[Any] = []

    class Record(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            call = await continuation(client_call_details, request)
            seen.extend([await call.code(), await call.details()])
            call.add_done_callback(lambda given: seen.append((given is call, given.done(), given.cancelled())))
            return call

    async def main() -> None:
        ours = resilience.grpc.aio_client_interceptors(Pipeline(Retry(wait=SOON))) if guarded else []
        async with grpc.aio.insecure_channel(service.target, interceptors=[Record(), *ours]) as channel:
            call = stub_of(channel, "Get")(b"x")
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            assert (await call.code(), await call.details()) == (Code.NOT_FOUND, "no such thing")
            assert ("grpc-retry-pushback-ms", "5") in [*await call.trailing_metadata()]
            assert list(await call.initial_metadata()) == []
            assert await call.debug_error_string() != ""
            assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
            with pytest.raises(grpc.aio.AioRpcError):
                await call

    asyncio.run(main())
    assert seen == [Code.NOT_FOUND, "no such thing", (True, True, False)]
