"""A real gRPC server on loopback whose methods are functions of a test, of any arity. Messages are plain bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.grpc.servers import wait_until

ARITIES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
PATH = "/shop.Shop/"


@dataclass
class Rpc:
    """One RPC as the server sees it.

    Attributes:
        number: its number among those of its method, from 1.
        context: its context.
        requests: the requests that the handler has read.
        ended: set when the RPC has ended.
        cancelled: whether it ended before the handler had.
    """

    number: int
    context: Any
    metadata: list[tuple[str, Any]]
    remaining: float | None
    requests: list[bytes] = field(default_factory=list[bytes])
    ended: threading.Event = field(default_factory=threading.Event)
    returned: bool = False
    cancelled: bool = False

    def wait(self, seconds: float = 20.0) -> None:
        """Wait until the RPC has ended, such as by a cancellation."""
        self.ended.wait(seconds)

    def fail(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, pushback: str | None = None) -> Any:
        """End the RPC with a status."""
        if pushback is not None:
            self.context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
        self.context.abort(code, "on purpose")

    def read(self, requests: Any) -> Iterator[bytes]:
        """Read the requests, and remember them."""
        for request in requests:
            self.requests.append(request)
            yield request


Handler = Callable[[Rpc, Any], Any]
"""What handles an RPC: it takes the RPC and the request or the iterator of requests, and returns a response, or yields
responses."""


class Shop(grpc.GenericRpcHandler):
    """What handles all methods of a server; the name of a method is that of its arity."""

    def __init__(self) -> None:
        self.rpcs: list[Rpc] = []
        self.handlers: dict[str, Handler] = {}
        self.port = 0

    @property
    def target(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    def service(self, handler_call_details: Any) -> Any:
        """Return what handles a call; grpc calls it."""
        arity = handler_call_details.method.removeprefix(PATH)
        make: Any = getattr(grpc, f"{arity}_rpc_method_handler")
        handle = self._stream if arity.endswith("stream") else self._single
        return make(lambda request, context: handle(arity, request, context))

    def _begin(self, context: Any) -> Rpc:
        remaining = context.time_remaining()
        metadata = [(key, value) for key, value in context.invocation_metadata()]
        rpc = Rpc(len(self.rpcs) + 1, context, metadata, None if remaining is None or remaining > 1e9 else remaining)
        self.rpcs.append(rpc)

        def end() -> None:
            rpc.cancelled = not rpc.returned
            rpc.ended.set()

        if not context.add_callback(end):
            end()
        return rpc

    def _single(self, arity: str, request: Any, context: Any) -> Any:
        rpc = self._begin(context)
        try:
            return self.handlers[arity](rpc, request)
        finally:
            rpc.returned = context.is_active()

    def _stream(self, arity: str, request: Any, context: Any) -> Iterator[Any]:
        rpc = self._begin(context)
        try:
            yield from self.handlers[arity](rpc, request)
        finally:
            rpc.returned = context.is_active()

    def seen(self, number: int = 1) -> Rpc:
        """Wait until the server has seen that many RPCs, and return the last of them."""
        assert wait_until(lambda: len(self.rpcs) >= number)
        return self.rpcs[number - 1]

    def was_cancelled(self, number: int = 1) -> bool:
        """Wait for the end of an RPC, and return whether it was cancelled."""
        rpc = self.seen(number)
        return rpc.ended.wait(5.0) and rpc.cancelled


@contextmanager
def shop(handlers: Mapping[str, Handler], options: Any = (), credentials: Any = None) -> Iterator[Shop]:
    """A server for the length of a block."""
    one = Shop()
    one.handlers.update(handlers)
    generic: Any = (one,)
    server = grpc.server(ThreadPoolExecutor(32), handlers=generic, options=[("grpc.so_reuseport", 0), *options])
    if credentials is None:
        one.port = server.add_insecure_port("127.0.0.1:0")
    else:
        one.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield one
    finally:
        server.stop(0).wait()


def method_of(channel: Any, arity: str) -> Any:
    """Return what calls a method of the server."""
    return getattr(channel, arity)(PATH + arity)
