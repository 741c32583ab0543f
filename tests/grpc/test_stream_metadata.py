"""The initial metadata of a stream of responses: once the caller has it, no other attempt is made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import resilience.grpc
from resilience import Pipeline, Retry
from tests.grpc.helpers import SOON, Code

pytestmark = pytest.mark.slow

METHOD = "/shop.Shop/Watch"
PIPELINE = Pipeline(Retry(3, wait=SOON))


class Watched:
    """A server that sends the number of the attempt as metadata; the first attempt fails when `released` is set."""

    def __init__(self) -> None:
        self.attempts = 0
        self.released = threading.Event()
        handlers: dict[str, Any] = {"Watch": grpc.unary_stream_rpc_method_handler(self._watch)}
        self.server = grpc.server(ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def _watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.attempts += 1
        context.send_initial_metadata((("x-attempt", str(self.attempts)),))
        if self.attempts == 1:
            self.released.wait(10.0)
            context.abort(Code.UNAVAILABLE, "on purpose")
        yield request


def watch(channel: Any) -> Any:
    """Call the method, whatever the API of the channel is."""
    return channel.unary_stream(METHOD)(b"x")


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.released.set()
    watched.server.stop(0).wait()


def test_metadata_that_was_read_commits_the_attempt(watched: Watched) -> None:
    with resilience.grpc.insecure_channel(watched.target, PIPELINE, idempotent=True) as channel:
        call = watch(channel)
        assert dict(call.initial_metadata())["x-attempt"] == "1"
        watched.released.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(call)

    assert caught.value.code() is Code.UNAVAILABLE
    assert "cannot be sent again" in caught.value.__notes__[0]
    assert watched.attempts == 1


def test_so_it_does_on_grpc_aio(watched: Watched) -> None:
    async def main() -> None:
        async with resilience.grpc.aio.insecure_channel(watched.target, PIPELINE, idempotent=True) as channel:
            call = watch(channel)
            assert (await call.initial_metadata())["x-attempt"] == "1"
            watched.released.set()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
        assert caught.value.code() is Code.UNAVAILABLE

    asyncio.run(main())
    assert watched.attempts == 1


def test_metadata_that_was_not_read_does_not(watched: Watched) -> None:
    watched.released.set()
    with resilience.grpc.insecure_channel(watched.target, PIPELINE, idempotent=True) as channel:
        call = watch(channel)
        assert list(call) == [b"x"]
        assert dict(call.initial_metadata())["x-attempt"] == "2"

    assert watched.attempts == 2
