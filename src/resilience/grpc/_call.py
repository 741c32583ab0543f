"""An RPC as a call of the pipeline."""

from __future__ import annotations

from typing import Any, Final, NoReturn, Protocol

import grpc

from resilience._call.running_call import RunningCall, StreamedCall
from resilience.grpc._failures import code_of
from resilience.grpc._methods import MethodOptions

CUT: Final = "_resilience_cut"
"""The attribute of an error of an attempt that was cancelled at its deadline, by `mark_cut`."""


class SendsRequest(Protocol):
    """What the attempts of an RPC tell about its request."""

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent again."""
        ...

    @property
    def is_streamed(self) -> bool:
        """Whether the request is a stream of messages."""
        ...


class BaseRpcCall(RunningCall):
    """What `RpcCall` and `StreamedRpcCall` have in common.

    The function of the call, which makes an attempt, is called with the call itself, which knows the number of the
    attempt; in a race each attempt has a call of its own.
    """

    __slots__ = ()

    single_attempt = True
    request: SendsRequest
    options: MethodOptions

    @property
    def hedgeable(self) -> bool:
        """Whether the method is explicitly idempotent or free of side effects, and its request is a single message."""
        return self.options.hedgeable and not self.request.is_streamed

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent again."""
        return self.request.replayable

    def caused_by_deadline(self, error: Exception) -> bool:
        """Return whether an error that came at the deadline or later was caused by the deadline.

        A DEADLINE_EXCEEDED was: the timers of gRPC fire late, never early, and the deadline that gRPC sends to the
        server is rounded up, so one that comes earlier was sent by the server.
        """
        return (
            super().caused_by_deadline(error)
            or code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED
            or CUT in error.__dict__
        )

    def copy(self) -> RunningCall:
        """Return a copy, for an attempt that continues independently of the call."""
        other: Any = type(self)()
        other.begin(self.options, self.function, (other,), self.kwargs)
        other.request = self.request
        copied: RunningCall = self.copy_state_to(other)
        return copied

    def end(self) -> None:
        """Drop the references to what makes attempts, since none follows."""
        self.args = ()
        self.function = _ended


class RpcCall(BaseRpcCall):
    """An RPC with a single response."""

    __slots__ = ("request",)


class StreamedRpcCall(BaseRpcCall, StreamedCall):
    """An RPC with a stream of responses. An attempt ends with the first one."""

    __slots__ = ("request",)


def mark_cut(error: Exception) -> None:
    """Mark the error of an attempt that was cancelled at its deadline."""
    error.__dict__[CUT] = True


def _ended(call: BaseRpcCall) -> NoReturn:
    """The function of a call that has ended."""
    raise RuntimeError(f"{call.operation} has ended")
