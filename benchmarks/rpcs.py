"""The sections of gRPC: what a guarded channel adds to a unary RPC, and to a message of a response stream.

This module is not called `grpc`, since its folder is where Python looks first when the benchmarks are run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc

import resilience.grpc
from benchmarks.peers import ASYNCIO, SYNC
from benchmarks.rounds import ANSWER, Contender, Found, OnAsyncio, OnThread, Plan, Subject, measure
from resilience import Bulkhead, CircuitBreaker, Cooldown, Pipeline, Retry, Timeout

BARE, PASSING, OURS = "grpc", "grpc, pass-through interceptor", "resilience pipeline"
RUNNERS: dict[str, type[OnThread | OnAsyncio]] = {SYNC: OnThread, ASYNCIO: OnAsyncio}
MESSAGES = 200
"""In each response stream."""
REQUEST = b"price"


class PassThrough(grpc.UnaryUnaryClientInterceptor):
    """Does nothing."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details, request)


class AioPassThrough(grpc.aio.UnaryUnaryClientInterceptor):
    """Does nothing, on `grpc.aio`."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


def pipeline() -> Pipeline[Any]:
    """Return a pipeline with a breaker, a bulkhead, a budget, a cooldown and two Timeouts."""
    return Pipeline(Timeout(30.0), Retry(3), Cooldown(), Bulkhead(100), CircuitBreaker(), Timeout(10.0))


def channel(name: str, runtime: str, target: str) -> Any:
    """Return a channel of one contender."""
    module: Any = grpc if runtime == SYNC else grpc.aio
    ours: Any = resilience.grpc if runtime == SYNC else resilience.grpc.aio
    if name == OURS:
        return ours.insecure_channel(target, pipeline(), idempotent=True)
    if name == BARE:
        return module.insecure_channel(target)
    if runtime == SYNC:
        return grpc.intercept_channel(grpc.insecure_channel(target), PassThrough())
    return grpc.aio.insecure_channel(target, interceptors=[AioPassThrough()])


class Channels:
    """The channels of the contenders of one section, made when they are first used: those of aio need the loop."""

    def __init__(self, runtime: str, target: str) -> None:
        self._runtime = runtime
        self._target = target
        self._made: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        """Return the channel of a contender."""
        if name not in self._made:
            self._made[name] = channel(name, self._runtime, self._target)
        return self._made[name]

    def close(self, runner: OnThread | OnAsyncio) -> None:
        """Close all channels."""
        for made in self._made.values():
            runner.results(Subject(made.close), 1)


def unary(channels: Channels, name: str, runtime: str) -> Subject:
    """Return a subject that makes one RPC again and again."""
    stubs: list[Any] = []

    def stub() -> Any:
        if not stubs:
            stubs.append(channels.of(name).unary_unary("/bench.Quotes/Get"))
        return stubs[0]

    def send() -> int:
        return len(stub()(REQUEST))

    async def asend() -> int:
        return len(await stub()(REQUEST))

    return Subject(send if runtime == SYNC else asend)


def stream(channels: Channels, name: str, runtime: str) -> Subject:
    """Return a subject that reads a response stream to its end, again and again."""
    stubs: list[Any] = []

    def stub() -> Any:
        if not stubs:
            stubs.append(channels.of(name).unary_stream("/bench.Quotes/Watch"))
        return stubs[0]

    def read() -> int:
        number = 0
        for message in stub()(REQUEST):
            number += len(message)
        return ANSWER if number == MESSAGES else 0

    async def aread() -> int:
        number = 0
        async for message in stub()(REQUEST):
            number += len(message)
        return ANSWER if number == MESSAGES else 0

    return Subject(read if runtime == SYNC else aread)


def calls(runtime: str, plan: Plan, settled: Callable[[Found], bool]) -> Found:
    """Measure the CPU time of unary RPCs whose server is another process."""
    return _measured(unary, (BARE, PASSING, OURS), runtime, plan, settled)


def streams(runtime: str, plan: Plan, settled: Callable[[Found], bool]) -> Found:
    """Measure the CPU time of response streams, per message, whose server is another process."""
    found = _measured(stream, (BARE, OURS), runtime, plan, settled)
    for name, values in found.series.items():
        found.series[name] = [value / MESSAGES for value in values]
    return found


def _measured(
    subject: Callable[[Channels, str, str], Subject],
    names: tuple[str, ...],
    runtime: str,
    plan: Plan,
    settled: Callable[[Found], bool],
) -> Found:
    runner = RUNNERS[runtime]()
    with server() as target, runner:
        channels = Channels(runtime, target)
        contenders = [Contender(name, partial(subject, channels, name, runtime)) for name in names]
        try:
            return measure(contenders, runner, plan, settled, least_calls=1)
        finally:
            channels.close(runner)


@contextmanager
def server() -> Generator[str]:
    """Run a gRPC server in a process of its own, and yield its target."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(MESSAGES)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


SERVER = """
import asyncio
import sys

import grpc

MESSAGES = int(sys.argv[1])

async def get(request, context):
    return b"1"

async def watch(request, context):
    for _ in range(MESSAGES):
        yield b"1"

async def main():
    server = grpc.aio.server()
    handlers = {
        "Get": grpc.unary_unary_rpc_method_handler(get),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Quotes", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""
