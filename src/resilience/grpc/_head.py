"""The head of a stream of responses: its first one, and how the call ends when the stream does."""

from __future__ import annotations

from typing import Any, Final

import grpc

from resilience._call import deadline_errors
from resilience._call.running_call import UNPHASED, DeadlineSource
from resilience._call.settlement import DeferredSettlement
from resilience._call.silences import Silences
from resilience._outcome.ending import ABANDONED, OK, Ending
from resilience._util.clock import FOREVER, clock
from resilience._util.locks import make_lock
from resilience.errors import ResilienceError
from resilience.grpc._call import StreamedRpcCall
from resilience.grpc._failures import CANCELLED, LOCAL_ENDS, code_of, details_of

EMPTY: Final = object()
"""In place of the first response of a stream that has ended well without any."""


class Head:
    """A stream of responses whose first one has arrived.

    A stream that no deadline bounds may last for ever, so that its call is settled at once. Otherwise it is settled
    when the stream ends.

    Args:
        stream: the stream, as gRPC returned it.
        first: the first response, or `EMPTY`.
        call: the call that has begun it; with a thread of its own, a copy of the call that was made.
        started: the time at which the attempt began.
    """

    __slots__ = ("_call", "first", "settlement", "silences", "stream")

    def __init__(self, stream: Any, first: Any, call: StreamedRpcCall, started: float) -> None:
        self.stream = stream
        self.first = first
        self._call = call
        is_phased = call.phases is not UNPHASED or call.shadow_phases is not UNPHASED
        self.silences = Silences(call, has_first=True) if is_phased else None
        """What bounds the silences; None if nothing does."""
        self.settlement: StreamSettlement | None = None
        """Settles the call at the end of the stream; None if it is settled already."""
        if first is not EMPTY and (call.total_deadline != FOREVER or call.phases.idle != FOREVER):
            call.deferred = DeferredSettlement()
            self.settlement = StreamSettlement(call.deferred, call, started, self.silences)

    def end(self, error: Exception | None) -> ResilienceError | None:
        """Settle the call at the end of the stream, and return the error to raise instead; see `StreamSettlement`."""
        return None if self.settlement is None else self.settlement.end(error)

    @property
    def late(self) -> ResilienceError | None:
        """What `end` has returned; None before the end."""
        return None if self.settlement is None else self.settlement.late

    def release(self) -> None:
        """Drop the references of the call to what makes attempts, since none follows."""
        self._call.end()

    def close(self) -> None:
        """Cancel the stream, which is not used."""
        self.stream.cancel()


class StreamSettlement:
    """Settles a call at the end of its stream. It does not refer to the stream, which gRPC ends when it is dropped.

    Args:
        deferred: the settlement.
        call: the call.
        started: the time at which the attempt began.
        silences: what bounds the silences; None if nothing does.

    Attributes:
        was_cut: whether the stream was cancelled for its silence.
        late: the error that the caller is to get, if a silence or the whole stream has taken too long; None otherwise.
    """

    __slots__ = ("_call", "_deferred", "_failures", "_is_over", "_mutex", "_silences", "_started", "late", "was_cut")

    def __init__(
        self, deferred: DeferredSettlement, call: StreamedRpcCall, started: float, silences: Silences | None
    ) -> None:
        self._deferred = deferred
        self._call = call
        self._failures = call.failures
        self._started = started
        self._silences = silences
        self._mutex = make_lock()
        self._is_over = False
        self.late: ResilienceError | None = None
        self.was_cut = False

    def end(self, error: Exception | None) -> ResilienceError | None:
        """Settle the call with the error of the stream; None if it has ended well. Only the first end counts.

        Return `late`.
        """
        source: DeadlineSource | None = None
        with self._mutex:  # callbacks of gRPC and the caller meet here
            is_first = not self._is_over
            self._is_over = True
            if is_first and error is not None:
                source = self._passed(error)
                if source is not None:
                    self.late = deadline_errors.error_at(self._call, self._started, source)
        if is_first:
            if source is not None:
                deadline_errors.publish(self._call, source)
            self._deferred.end(OK if error is None else self._ending(self.late or error))
        return self.late

    @property
    def ended(self) -> bool:
        """Whether the call is settled."""
        return self._deferred.ended

    def abandon(self) -> None:
        """Settle the call of a stream that was dropped."""
        with self._mutex:
            self._is_over = True
        self._deferred.end(ABANDONED)

    def _passed(self, error: Exception) -> DeadlineSource | None:
        """Return the source of the deadline that has caused an error; None if none has."""
        code = code_of(error)
        if self.was_cut and self._silences is not None and code in (None, grpc.StatusCode.CANCELLED):
            return self._silences.source
        is_late = code is grpc.StatusCode.DEADLINE_EXCEEDED and clock.monotonic() >= self._call.current_total_deadline()
        return self._call.total_deadline_source if is_late else None

    def _ending(self, error: Exception) -> Ending:
        """Return the ending for an error. To cancel a stream before its end is a success: it has served its purpose."""
        if code_of(error) is grpc.StatusCode.CANCELLED:
            details = details_of(error)
            if details in LOCAL_ENDS:
                return OK if details == CANCELLED else ABANDONED
        return Ending(None, error, self._failures)
