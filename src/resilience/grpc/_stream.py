"""Streams of responses of the synchronous API: the first response is the head of the call, the others its body."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from weakref import ref

import grpc

from resilience._runtime import threads
from resilience._runtime.thread_timer import Cut
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import settle_from_finalizer
from resilience.grpc._call import StreamedRpcCall, mark_cut
from resilience.grpc._callbacks import Callbacks
from resilience.grpc._head import EMPTY, Head, StreamSettlement
from resilience.grpc._iterated import IteratedCall, error_of_ended
from resilience.grpc._outcomes import outcome_of
from resilience.grpc._running import RpcState, RunningRpc, cancel_quietly
from resilience.grpc._unary import SyncAttempts


class StreamAttempts(SyncAttempts):
    """The attempts of one RPC with a stream of responses. An attempt ends with the first response."""

    def begin(self, call: StreamedRpcCall) -> tuple[Any, bool]:
        """Start an attempt, whose timeout is that of the whole stream.

        Returns:
            The stream, and whether the channel was disconnected; both are for `head`.
        """
        disconnected = self._begin()
        try:
            stream = self._start(call, call.current_total_deadline())
        except Exception as error:
            self._examine(error, disconnected)
            raise
        return (stream if hasattr(stream, "cancel") else IteratedCall(stream)), disconnected

    def head(self, stream: Any, disconnected: bool, call: StreamedRpcCall) -> Head:
        """Wait for the first response of an attempt and return the head of the stream, or raise its error."""
        started = clock.monotonic()
        cut = Cut(partial(_cancel, ref(stream)))
        try:
            if call.deadline < call.total_deadline:
                cut.arm(call.current_deadline())
            first = next(stream, EMPTY)
        except Exception as error:
            if cut.fired:
                mark_cut(error)
            self._examine(error, disconnected)
            raise
        finally:
            cut.close()
        return Head(stream, first, call, started)


class ResponseStream(RunningRpc, Iterator[Any]):
    """A stream of responses, as a client reads it: an iterator, `grpc.Call` and `grpc.Future`.

    Args:
        attempts: makes the attempts.
    """

    def __init__(self, attempts: StreamAttempts) -> None:
        super().__init__(attempts)
        self._attempts = attempts
        self._head: Head | None = None
        self._first: Any = EMPTY
        self._stream: Any = None
        self._cut: Cut | None = None

    def attempt(self, call: StreamedRpcCall) -> Head:
        """Make an attempt and return the head of its stream; the function that the pipeline calls."""
        if self._stop.stopped:
            raise threads.Stopped
        stream, disconnected = self._attempts.begin(call)
        try:
            with self._tracked(stream):
                return self._attempts.head(stream, disconnected, call)
        except grpc.RpcError:
            if self._stop.stopped:
                raise threads.Stopped from None
            raise
        finally:
            del stream  # it may be an error, whose traceback holds this frame

    def _outcome_of_result(self, result: Any) -> Any:
        if not isinstance(result, Head):
            return IteratedCall(iter(result))  # the replacement of a Fallback
        self._head = result
        self._first = result.first
        self._attempts.request_source.commit()
        result.release()
        if result.silences is not None:
            self._cut = Cut(partial(_cancel, ref(result.stream)))
        return result.stream

    def _ended(self) -> None:
        head = self._head
        if head is None:
            self._callbacks.run()
            return
        if self._state is RpcState.CANCELLED:
            cancel_quietly(head.stream)
        finish = partial(_finish, ref(head.stream), head.settlement, self._callbacks)
        if not head.stream.add_callback(finish):
            finish()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        stream = self._stream
        if stream is None:
            stream = self._wait_for_stream()
        if self._first is not EMPTY:
            first, self._first = self._first, EMPTY
            return first
        try:
            return next(stream) if self._cut is None else self._next_in_time(stream, self._cut)
        except StopIteration:
            if self._head is not None:
                self._head.end(None)
            raise
        except Exception as error:
            self._fail(error)
            raise

    def _wait_for_stream(self) -> Any:
        """Wait for the head of the stream and return it, or raise the error of the RPC."""
        outcome = self._wait()
        if not hasattr(outcome, "__next__"):
            raise outcome.exception()
        self._stream = outcome
        return outcome

    def _next_in_time(self, stream: Any, cut: Cut) -> Any:
        """Return the next response, and cancel the stream if it is silent for too long."""
        silences: Any = self._head and self._head.silences
        cut.arm(silences.begin())
        try:
            response = next(stream)
        finally:
            cut.disarm()
        silences.end()
        return response

    def _fail(self, error: Exception) -> None:
        """Settle the call of a stream that has failed. Raise another error if a deadline was the cause."""
        head = self._head
        if head is None:
            return
        late = head.late_error(error, was_cut=self._cut is not None and self._cut.fired)
        if late is not None:
            self._guard.translate(late)
            self._outcome, self._stream = outcome_of(late), None
        head.end(late or error)
        if late is not None:
            raise late from error

    def initial_metadata(self) -> Any:
        """Wait for the initial metadata of an attempt and return it. No other attempt is made after that."""
        seen = 0
        while self._is_running():
            self._park(FOREVER, seen)
            with self._mutex:
                attempt, seen = self._attempt, self._begun
            if attempt is not None:
                metadata = attempt.initial_metadata()
                if not attempt.done() or attempt.code() is grpc.StatusCode.OK:
                    self._attempts.request_source.commit()
                    return metadata
        return self._wait().initial_metadata()

    def cancel(self) -> bool:
        """Cancel the RPC; return False if it is done or cancelled already."""
        return self._cancel_pipeline() or (self._state is RpcState.DONE and bool(self._outcome.cancel()))

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        return self._state is RpcState.CANCELLED or (self._state is RpcState.DONE and self._outcome.cancelled())

    def done(self) -> bool:
        """Return whether the RPC has ended: the status of the server has arrived, or it failed or was cancelled."""
        return not self.running()

    def running(self) -> bool:
        """Return whether the RPC has not ended, and was not cancelled."""
        if self._state is RpcState.DONE:
            return not self._outcome.done()
        return self._is_running()


def _cancel(stream: Any) -> None:
    """Cancel the stream of a weak reference, if it is still there."""
    alive = stream()
    if alive is not None:
        cancel_quietly(alive)


def _finish(stream: Any, settlement: StreamSettlement | None, callbacks: Callbacks) -> None:
    """Settle the call of a stream that has ended, and run the callbacks.

    gRPC calls this, and it refers to the stream weakly: gRPC cancels a stream when it is dropped.
    """
    alive = stream()
    if settlement is not None:
        if alive is None:
            settle_from_finalizer(settlement.abandon)
        else:
            settlement.end(error_of_ended(alive))
    callbacks.run()
