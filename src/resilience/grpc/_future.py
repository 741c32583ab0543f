"""The future of an RPC with a single response."""

from __future__ import annotations

from typing import Any

import grpc

from resilience._runtime import threads
from resilience.grpc._call import BaseRpcCall
from resilience.grpc._running import RpcState, RunningRpc
from resilience.grpc._unary import UnaryAttempts


class RpcFuture(RunningRpc):
    """The future of an RPC with a single response. Callbacks run on the thread of its pipeline.

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
        self._callbacks.run()

    def cancel(self) -> bool:
        """Cancel the RPC, so that no further attempt is made; return False if it is done or cancelled already."""
        return self._cancel_pipeline()

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        return self._state is RpcState.CANCELLED

    def running(self) -> bool:
        """Return whether the RPC has no outcome yet, and was not cancelled."""
        return self._state is RpcState.RUNNING

    def done(self) -> bool:
        """Return whether the RPC has a response or an error, or was cancelled."""
        return self._state is not RpcState.RUNNING
