"""Real servers with one of the library's server interceptors, on which each kind of handler does the same work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

import resilience.grpc

Code = grpc.StatusCode
PATIENCE = 5.0
PUSHBACK = "grpc-retry-pushback-ms"
ARITIES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
FLAVOURS = ("sync", "aio", "aio-write", "aio-sync")
"""Handlers of a synchronous server; coroutines and async generators; handlers that read() and write(); and synchronous
handlers of a server of grpc.aio."""

each_flavour = pytest.mark.parametrize("flavour", FLAVOURS)
each_arity = pytest.mark.parametrize("arity", ARITIES)
each_stream = pytest.mark.parametrize("arity", [arity for arity in ARITIES if arity.endswith("_stream")])

Step = Callable[[int, Any], Any]
"""What a handler does for its response of that number, given the context: it returns the response, or None at the end
of a stream."""


def _sync_handlers(step: Step) -> dict[str, Callable[..., Any]]:
    def unary(request: Any, context: Any) -> Any:
        _ = [request] if isinstance(request, bytes) else list(request)
        return step(0, context)

    def stream(request: Any, context: Any) -> Iterator[Any]:
        _ = [request] if isinstance(request, bytes) else list(request)
        number = 0
        while (response := step(number, context)) is not None:
            yield response
            number += 1

    return {arity: stream if arity.endswith("_stream") else unary for arity in ARITIES}


def _aio_handlers(step: Step) -> dict[str, Callable[..., Any]]:
    async def read(request: Any) -> None:
        if not isinstance(request, bytes):
            async for _ in request:
                pass
        await asyncio.sleep(0)

    async def unary(request: Any, context: Any) -> Any:
        await read(request)
        return step(0, context)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        await read(request)
        number = 0
        while (response := step(number, context)) is not None:
            yield response
            await asyncio.sleep(0)
            number += 1

    return {arity: stream if arity.endswith("_stream") else unary for arity in ARITIES}


def _writing_handlers(step: Step) -> dict[str, Callable[..., Any]]:
    async def read(request: Any, context: Any) -> None:
        while not isinstance(request, bytes) and await context.read() is not grpc.aio.EOF:
            pass

    async def unary(request: Any, context: Any) -> Any:
        await read(request, context)
        return step(0, context)

    async def stream(request: Any, context: Any) -> None:
        await read(request, context)
        number = 0
        while (response := step(number, context)) is not None:
            await context.write(response)
            number += 1

    return {arity: stream if arity.endswith("_stream") else unary for arity in ARITIES}


_HANDLERS = {"sync": _sync_handlers, "aio": _aio_handlers, "aio-write": _writing_handlers, "aio-sync": _sync_handlers}


def service_of(behaviors: Mapping[str, Callable[..., Any]]) -> Any:
    """A service called x.X that has a method for each behavior, of the kind that the method's name says."""
    methods = {name: _handler(name, behavior) for name, behavior in behaviors.items()}
    return grpc.method_handlers_generic_handler("x.X", methods)


def _handler(name: str, behavior: Callable[..., Any]) -> Any:
    return getattr(grpc, f"{name}_rpc_method_handler")(behavior)


@dataclass
class Result:
    """What a client got."""

    messages: list[Any]
    code: grpc.StatusCode
    details: str
    trailing: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])


@dataclass
class Served:
    """A server, and a channel to it."""

    channel: grpc.Channel
    target: str
    pool: ThreadPoolExecutor
    """Where synchronous handlers run."""

    def start(
        self,
        arity: str,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        name: str = "",
        request: bytes = b"1",
    ) -> Any:
        """Begin a call, of the method that is called as its kind is, or as `name` says."""
        requests: Any = iter([request, request]) if arity.startswith("stream") else request
        stub = getattr(self.channel, arity)(f"/x.X/{name or arity}")
        if arity.endswith("_stream"):
            return stub(requests, timeout=timeout, metadata=metadata)
        return stub.future(requests, timeout=timeout, metadata=metadata)

    def call(self, arity: str, **kwargs: Any) -> Result:
        """Make a call, with the arguments of `start`."""
        call = self.start(arity, **kwargs)
        messages: list[Any] = []
        try:
            if arity.endswith("_stream"):
                messages.extend(call)
            else:
                messages.append(call.result())
        except grpc.RpcError:
            pass
        return Result(messages, call.code(), call.details(), [tuple(pair) for pair in call.trailing_metadata() or ()])


def interceptor_of(flavour: str, **settings: Any) -> Any:
    """The interceptor for a server of that flavour."""
    if flavour == "sync":
        return resilience.grpc.server_interceptor(**settings)
    return resilience.grpc.aio_server_interceptor(**settings)


@contextmanager
def serving(
    flavour: str,
    step: Step | None = None,
    *,
    services: Sequence[Any] = (),
    interceptors: Sequence[Any] | None = None,
    workers: int = 4,
    **settings: Any,
) -> Iterator[Served]:
    """A server of that flavour for the length of a block.

    `step` is what each method does; `services` are further handlers. `interceptors` are all that the server has, by
    default the library's, made with `settings`.
    """
    all_services = [*services, *([] if step is None else [service_of(_HANDLERS[flavour](step))])]
    chain = [interceptor_of(flavour, **settings)] if interceptors is None else list(interceptors)
    with ThreadPoolExecutor(workers, "handlers") as pool:
        running = _sync_server if flavour == "sync" else _aio_server
        with running(pool, all_services, chain) as port:
            target = f"127.0.0.1:{port}"
            with grpc.insecure_channel(target) as channel:
                yield Served(channel, target, pool)


@contextmanager
def _sync_server(pool: ThreadPoolExecutor, services: list[Any], interceptors: list[Any]) -> Iterator[int]:
    server = grpc.server(pool, interceptors=interceptors)
    server.add_generic_rpc_handlers(services)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextmanager
def _aio_server(pool: ThreadPoolExecutor, services: list[Any], interceptors: list[Any]) -> Iterator[int]:
    ports: list[int] = []
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        server = grpc.aio.server(migration_thread_pool=pool, interceptors=interceptors)
        server.add_generic_rpc_handlers(services)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        started.set()
        await stopping.wait()
        await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield ports[0]
    finally:
        pool.shutdown()  # a generator in a thread ends after its call, and needs the loop to do so
        stop[0]()
        thread.join(PATIENCE)
