"""Streams of responses of the synchronous API: the first response is the head of the call, the others its body."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any
from weakref import ref

import grpc

from resilience._runtime import threads
from resilience._runtime.thread_timer import Cut
from resilience._util.clock import clock
from resilience._util.finalizers import settle_from_finalizer
from resilience.grpc._call import StreamedRpcCall, mark_cut
from resilience.grpc._callbacks import Callbacks
from resilience.grpc._failures import CANCELLED
from resilience.grpc._head import EMPTY, Head, StreamSettlement
from resilience.grpc._iterated import IteratedCall, error_of_ended
from resilience.grpc._outcomes import LocalRpcError
from resilience.grpc._rpc_thread import RpcState, RpcThread, cancel_quietly
from resilience.grpc._running import RunningRpc
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
            is_bounded = call.deadline < call.total_deadline
            if is_bounded and isinstance(stream, IteratedCall):
                return Head(stream, stream.first(call.current_deadline()), call, started)
            if is_bounded:
                cut.arm(call.current_deadline())
            first = next(stream, EMPTY)
            cut.close()
            if cut.fired:
                raise LocalRpcError(grpc.StatusCode.CANCELLED, CANCELLED)
        except Exception as error:
            if cut.fired:
                mark_cut(error)
            self._examine(error, disconnected)
            raise
        finally:
            cut.close()
        return Head(stream, first, call, started)


class StreamThread(RpcThread):
    """The thread of an RPC with a stream of responses. It ends with the first one.

    Args:
        attempts: makes the attempts.

    Attributes:
        head: the head of the stream, once it has arrived.
        first: the first response, until it is taken.
        cut: cancels the stream for its silence; None if nothing bounds that.
    """

    def __init__(self, attempts: StreamAttempts) -> None:
        super().__init__(attempts)
        self._attempts = attempts
        self.head: Head | None = None
        self.first: deque[Any] = deque()
        self.cut: Cut | None = None

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

    def commit(self) -> None:
        """Make no further attempt, and keep no requests for one."""
        self._attempts.request_source.commit()

    def _outcome_of_result(self, result: Any) -> Any:
        if not isinstance(result, Head):
            return IteratedCall(iter(result))  # the replacement of a Fallback
        self.head = result
        if result.first is not EMPTY:
            self.first.append(result.first)
            result.first = EMPTY
        self.commit()
        result.release()
        if result.silences is not None:
            self.cut = Cut(partial(_cut, ref(result.stream), result.settlement))
        return result.stream

    def _ended(self) -> None:
        head = self.head
        if head is None:
            self.callbacks.run()
            return
        if self.state is RpcState.CANCELLED:
            cancel_quietly(head.stream)
        finish = partial(_finish, ref(head.stream), head.settlement, self.cut, self.callbacks)
        if not head.stream.add_callback(finish):
            finish()


class ResponseStream(RunningRpc, Iterator[Any]):
    """A stream of responses, as a client reads it: an iterator, `grpc.Call` and `grpc.Future`.

    Args:
        thread: the thread of its pipeline.
    """

    _thread: StreamThread

    def __init__(self, thread: StreamThread) -> None:
        super().__init__(thread)
        self._first = thread.first
        self._stream: Any = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        stream = self._stream
        if stream is None:
            stream = self._wait_for_stream()
        if self._first:
            return self._first.popleft()
        cut = self._thread.cut
        try:
            return next(stream) if cut is None else self._next_in_time(stream, cut)
        except StopIteration:
            if self._thread.head is not None:
                self._thread.head.end(None)
            raise
        except Exception as error:
            late = self._late(error)
            if late is not None:
                raise late from error
            raise

    def _wait_for_stream(self) -> Any:
        """Wait for the head of the stream and return it, or raise the error of the RPC."""
        outcome = self._thread.wait()
        if not hasattr(outcome, "__next__"):
            raise outcome.exception()
        self._stream = outcome
        return outcome

    def _next_in_time(self, stream: Any, cut: Cut) -> Any:
        """Return the next response, and cancel the stream if it is silent for too long."""
        silences: Any = self._thread.head and self._thread.head.silences
        cut.arm(silences.begin())
        try:
            response = next(stream)
        except BaseException:
            cut.close()
            raise
        cut.disarm()
        silences.end()
        return response

    def _late(self, error: Exception | None) -> Any:
        """Settle the call of a stream that has ended; return the error in place of its own if it has taken too long."""
        head = self._thread.head
        late = None if head is None else head.end(error)
        if late is not None:
            self._thread.guard.translate(late)
        return late

    def _final(self, timeout: float | None = None) -> Any:
        until = None if timeout is None else clock.monotonic() + timeout
        outcome = self._thread.wait(timeout)
        if self._thread.head is None:
            return outcome
        if until is None:
            outcome.code()
        else:
            with contextlib.suppress(grpc.FutureCancelledError):
                outcome.exception(max(0.0, until - clock.monotonic()))
        return self._late(error_of_ended(outcome)) or outcome

    def initial_metadata(self) -> Any:
        """Wait for the initial metadata of an attempt and return it. No other attempt is made after that."""
        seen = 0
        while self._thread.is_running():
            attempt, seen = self._thread.wait_for_attempt(seen)
            if attempt is not None:
                metadata = attempt.initial_metadata()
                if not attempt.done() or attempt.code() is grpc.StatusCode.OK:
                    self._thread.commit()
                    return metadata
        return super().initial_metadata()

    def cancel(self) -> bool:
        """Cancel the RPC; return False if it is done or cancelled already."""
        thread = self._thread
        return thread.cancel() or (thread.state is RpcState.DONE and bool(thread.outcome.cancel()))

    def cancelled(self) -> bool:
        """Return whether the RPC was cancelled."""
        if self._thread.state is not RpcState.DONE:
            return self._thread.state is RpcState.CANCELLED
        return bool(self._thread.outcome.cancelled()) and bool(self._final().cancelled())

    def done(self) -> bool:
        """Return whether the RPC has ended: the status of the server has arrived, or it failed or was cancelled."""
        return not self.running()

    def running(self) -> bool:
        """Return whether the RPC has not ended, and was not cancelled."""
        if self._thread.state is RpcState.DONE:
            return not self._thread.outcome.done()
        return self._thread.is_running()


def _cancel(stream: Any) -> None:
    """Cancel the stream of a weak reference, if it is still there."""
    alive = stream()
    if alive is not None:
        cancel_quietly(alive)


def _cut(stream: Any, settlement: StreamSettlement | None) -> None:
    """Cancel the stream of a weak reference for its silence."""
    if settlement is not None:
        settlement.was_cut = True
    _cancel(stream)


def _finish(stream: Any, settlement: StreamSettlement | None, cut: Cut | None, callbacks: Callbacks) -> None:
    """Settle the call of a stream that has ended, and run the callbacks.

    gRPC calls this, and it refers to the stream weakly: gRPC cancels a stream when it is dropped.
    """
    alive = stream()
    if cut is not None:
        cut.close()
    if settlement is not None:
        if alive is None:
            settle_from_finalizer(settlement.abandon)
        else:
            settlement.end(error_of_ended(alive))
    callbacks.run()
