"""The multi-callable of a guarded channel of `grpc.aio` for RPCs with one request and one response.

It does what the interceptor does. But gRPC makes a task and several calls for each intercepted RPC, which costs more
than the pipeline.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from resilience.grpc._call import RpcCall
from resilience.grpc._guard import Guard
from resilience.grpc.aio._attempts import ANY_MESSAGE, UnaryAttempts
from resilience.grpc.aio._unary import AioUnaryUnaryCall, RunningCalls

if TYPE_CHECKING:  # generic in the stubs only
    UnaryUnaryBase: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
else:
    UnaryUnaryBase = grpc.aio.UnaryUnaryMultiCallable


class UnaryUnary(UnaryUnaryBase):
    """Makes RPCs with one request and one response.

    Args:
        guard: the guard of the channel.
        method: the name of the method.
        inner: the multi-callable of the channel of gRPC.
        loop: the event loop of the channel.
        calls: the calls of the channel that have not ended.
    """

    def __init__(
        self, guard: Guard, method: str, inner: Any, loop: asyncio.AbstractEventLoop, calls: RunningCalls
    ) -> None:
        self._guard = guard
        self._method = method
        self._inner = inner
        self._loop = loop
        self._calls = calls

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start an RPC and return its call; the arguments are those of gRPC's own multi-callables."""
        guard = self._guard
        options = guard.options(self._method)
        if options.bypasses or self._calls.closed:
            return self._inner(
                request,
                timeout=timeout,
                metadata=metadata,
                credentials=credentials,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )
        more = credentials, wait_for_ready, compression
        attempts = UnaryAttempts(guard, self._inner, request, metadata, more)
        call = guard.call(RpcCall, options, timeout, attempts.attempt, ANY_MESSAGE)
        return AioUnaryUnaryCall(guard, attempts, call, self._loop, self._calls)
