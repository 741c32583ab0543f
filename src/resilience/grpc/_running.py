"""An RPC whose pipeline runs on a thread of its own: what futures and response streams have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from resilience._util.clock import FOREVER, clock
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._failures import code_of
from resilience.grpc._outcomes import Future
from resilience.grpc._rpc_thread import RpcState, RpcThread


class RunningRpc(grpc.RpcError, grpc.Call, Future):
    """An RPC in progress: `grpc.Call`, `grpc.Future` and `grpc.RpcError` at once, as those that grpc returns are.

    `cancel` ends it in flight, in a queue, and in the wait before an attempt. It is cancelled when it is dropped, too.
    Callbacks run after every permit has been released. An exception that a callback raises is logged once. `cancel`
    does not interrupt callbacks.

    Args:
        thread: the thread of the pipeline.
    """

    def __init__(self, thread: RpcThread) -> None:
        self._thread = thread
        self._deadline = FOREVER

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it was not made
            self._thread.drop()

    def start(self, call: BaseRpcCall) -> None:
        """Start the RPC; called once, by the interceptor that created it."""
        self._deadline = call.deadline
        self._thread.start(call)

    def _final(self, timeout: float | None = None) -> Any:
        """Wait for the end of the RPC and return its outcome; that of a cancelled RPC has the code CANCELLED.

        Raises:
            grpc.FutureTimeoutError: it has not ended within `timeout` seconds.
        """
        return self._thread.wait(timeout)

    def _final_result(self, timeout: float | None) -> Any:
        """Wait for the end of the RPC and return its outcome, if it was not cancelled."""
        outcome = self._final(timeout)
        if self._thread.state is RpcState.CANCELLED:
            raise grpc.FutureCancelledError
        return outcome

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the response and return it, or raise the error of the RPC.

        Args:
            timeout: the seconds to wait; None for no limit. The RPC continues after it.

        Raises:
            grpc.FutureTimeoutError: the RPC was not done within `timeout` seconds.
            grpc.FutureCancelledError: the RPC was cancelled.
        """
        return self._final_result(timeout).result()

    def exception(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the error, or None if the RPC succeeded; `timeout` and Raises as in `result`."""
        return self._final_result(timeout).exception()

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Wait for the end and return the traceback of the error, or None if the RPC succeeded; see `result`."""
        traceback: TracebackType | None = self._final_result(timeout).traceback()
        return traceback

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have `fn` called with this RPC when it is done; it is called at once if it is done already."""
        if not self.add_callback(lambda: fn(self)):
            fn(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the RPC is done; return False, and do not call it, if it is done already."""
        return self._thread.callbacks.add(callback)

    def is_active(self) -> bool:
        """Return whether the RPC is neither done nor cancelled."""
        return self.running()

    def time_remaining(self) -> Any:
        """Return the seconds until the caller's `timeout=` or ambient deadline, for all attempts; None without one."""
        return None if self._deadline == FOREVER else max(0.0, self._deadline - clock.monotonic())

    def code(self) -> Any:
        """Wait for the end and return the status code."""
        return self._final().code()

    def details(self) -> Any:
        """Wait for the end and return the details of the status."""
        return self._final().details()

    def initial_metadata(self) -> Any:
        """Wait for the initial metadata of the attempt that gives the outcome, and return it."""
        return self._thread.wait().initial_metadata()

    def trailing_metadata(self) -> Any:
        """Wait for the end and return the trailing metadata of the attempt that gave the outcome."""
        return self._final().trailing_metadata()

    def debug_error_string(self) -> str:
        """Wait for the end and return grpc's debug string; an empty string if the outcome was not made by grpc."""
        method: Any = getattr(self._final(), "debug_error_string", None)
        text: str | None = None if method is None else method()
        return text or ""

    def __repr__(self) -> str:
        code = None if self.running() else code_of(self._final())
        return f"<{type(self).__name__}: {'in progress' if code is None else code.name}>"

    __str__ = __repr__
