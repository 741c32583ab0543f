"""The future of an RPC with a single response."""

from __future__ import annotations

from typing import Any

import grpc

from resilience._runtime import threads
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._rpc_thread import RpcState, RpcThread
from resilience.grpc._running import RunningRpc
from resilience.grpc._unary import UnaryAttempts


class FutureThread(RpcThread):
    """The thread of an RPC with a single response.

    Args:
        attempts: makes the attempts.
    """

    def __init__(self, attempts: UnaryAttempts) -> None:
        super().__init__(attempts)
        self._attempts = attempts

    def attempt(self, call: BaseRpcCall) -> Any:
        """Make an attempt and return its response; the function that the pipeline calls."""
        if self._stop.stopped:
            raise threads.Stopped
        outcome, disconnected = self._attempts.begin(call, call.current_deadline())
        try:
            with self._tracked(outcome):
                return self._attempts.finish(outcome, disconnected)
        except grpc.FutureCancelledError:
            if self._stop.stopped:
                raise threads.Stopped from None
            raise
        finally:
            del outcome  # it may be an error, whose traceback holds this frame

    def _outcome_of_result(self, result: Any) -> Any:
        return self._attempts.call_of(result)

    def _ended(self) -> None:
        self.callbacks.run()


class RpcFuture(RunningRpc):
    """The future of an RPC with a single response. Callbacks run on the thread of its pipeline.

    Args:
        thread: the thread of its pipeline.
    """

    def cancel(self) -> bool:
        """Cancel the RPC, so that no further attempt is made; return False if it is done or cancelled already."""
        return self._thread.cancel()

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        return self._thread.state is RpcState.CANCELLED

    def running(self) -> bool:
        """Return whether the RPC has no outcome yet, and was not cancelled."""
        return self._thread.is_running()

    def done(self) -> bool:
        """Return whether the RPC has a response or an error, or was cancelled."""
        return not self._thread.is_running()
