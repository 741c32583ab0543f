"""The channel of `grpc.aio` that the makers return."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import grpc

from resilience.grpc._guard import Guard
from resilience.grpc.aio._callables import UnaryUnary
from resilience.grpc.aio._unary import AioUnaryUnaryCall, RunningCalls


class AioGuardedChannel(grpc.aio.Channel):
    """A channel whose RPCs pass through a pipeline.

    They pass through our interceptors, but for RPCs with one request and one response where no other interceptor takes
    part: multi-callables of our own make these, which costs less. Others are given by the caller, or added by an SDK or
    by the instrumentation of OpenTelemetry.

    Args:
        channel: the channel of gRPC.
        guard: passes RPCs through the pipeline.
        interceptor: our interceptor of `channel` for RPCs with one request and one response.
    """

    def __init__(self, channel: grpc.aio.Channel, guard: Guard, interceptor: grpc.aio.ClientInterceptor) -> None:
        self._guarded = channel
        self._guard = guard
        self._interceptor = interceptor
        self._calls = RunningCalls()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the channel of gRPC: some SDKs add interceptors to its private lists."""
        if name == "_guarded":  # of a channel that is not initialized
            raise AttributeError(name)
        return getattr(self._guarded, name)

    async def __aenter__(self) -> AioGuardedChannel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        await self.close()
        return None

    async def close(self, grace: float | None = None) -> None:
        """Close the channel; see `grpc.aio.Channel`.

        No further attempts are made. RPCs have `grace` seconds to end; then they are cancelled, and so are their waits,
        in a queue or for another attempt.
        """
        calls = [*self._calls]
        if not grace:
            self._calls.closed = True
            _cancel(calls)
        if grace is None or grace <= 0 or not calls:
            await self._guarded.close(grace)
            self._calls.closed = True
        else:
            self._calls.closed = True
            await asyncio.gather(self._guarded.close(grace), _cancel_after(grace, calls))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection; see `grpc.aio.Channel`."""
        return self._guarded.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state of the connection is another one; see `grpc.aio.Channel`."""
        await self._guarded.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel is connected; see `grpc.aio.Channel`."""
        await self._guarded.channel_ready()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with one request and one response; see `grpc.aio.Channel`."""
        inner: Any = self._guarded.unary_unary(method, *args, **kwargs)
        # There is no public way. Where grpc does not have these attributes, its interceptors do the same.
        interceptors: Any = getattr(inner, "_interceptors", None)
        loop: Any = getattr(inner, "_loop", None)
        if loop is None or interceptors != [self._interceptor]:
            return inner
        inner._interceptors = []
        return UnaryUnary(self._guard, method, inner, loop, self._calls)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with one request and a stream of responses; see `grpc.aio.Channel`."""
        return self._guarded.unary_stream(method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with a stream of requests and one response; see `grpc.aio.Channel`."""
        return self._guarded.stream_unary(method, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return what makes RPCs with streams of requests and responses; see `grpc.aio.Channel`."""
        return self._guarded.stream_stream(method, *args, **kwargs)


async def _cancel_after(grace: float, calls: Iterable[AioUnaryUnaryCall]) -> None:
    """Wait for the end of calls, for so many seconds at most, and cancel those that go on."""
    waits = [asyncio.ensure_future(call.ended()) for call in calls]
    try:
        await asyncio.wait(waits, timeout=grace)
    finally:
        for wait in waits:
            wait.cancel()
    _cancel(calls)


def _cancel(calls: Iterable[AioUnaryUnaryCall]) -> None:
    for call in calls:
        call.cancel()
