"""The head of a stream of responses: its first one, and how the call ends when the stream does."""

from __future__ import annotations

from typing import Any, Final

import grpc

from resilience._call import deadline_errors
from resilience._call.running_call import UNPHASED, DeadlineSource
from resilience._call.settlement import DeferredSettlement
from resilience._call.silences import Silences
from resilience._outcome.allowlist import Allowlist
from resilience._outcome.ending import ABANDONED, OK, Ending
from resilience._util.clock import FOREVER, clock
from resilience.errors import ResilienceError
from resilience.grpc._call import StreamedRpcCall
from resilience.grpc._failures import CANCELLED, CLOSED, COLLECTED, code_of, details_of

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

    __slots__ = ("_call", "_started", "first", "settlement", "silences", "stream")

    def __init__(self, stream: Any, first: Any, call: StreamedRpcCall, started: float) -> None:
        self.stream = stream
        self.first = first
        self._call = call
        self._started = started
        is_phased = call.phases is not UNPHASED or call.shadow_phases is not UNPHASED
        self.silences = Silences(call, has_first=True) if is_phased else None
        """What bounds the silences; None if nothing does."""
        self.settlement: StreamSettlement | None = None
        """Settles the call at the end of the stream; None if it is settled already."""
        if first is not EMPTY and (call.total_deadline != FOREVER or call.phases.idle != FOREVER):
            deferred = call.deferred = DeferredSettlement()
            self.settlement = StreamSettlement(deferred, call.failures)

    def late_error(self, error: Exception, *, was_cut: bool) -> ResilienceError | None:
        """Publish and return the error of a stream whose silence or whole has taken too long; None if neither has.

        Args:
            error: the error of the stream.
            was_cut: whether the stream was cancelled for its silence.
        """
        call = self._call
        source: DeadlineSource | None = None
        if was_cut and self.silences is not None:
            source = self.silences.source
        elif code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
            deadline = call.current_total_deadline()
            source = call.total_deadline_source if clock.monotonic() >= deadline else None
        return None if source is None else deadline_errors.cut_error(call, self._started, source)

    def end(self, error: Exception | None) -> None:
        """Settle the call with the error of the stream; None if it has ended well. Only the first end counts."""
        if self.settlement is not None:
            self.settlement.end(error)

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
        failures: the allowlist of the pipeline in which the attempt was made.
    """

    __slots__ = ("_deferred", "_failures")

    def __init__(self, deferred: DeferredSettlement, failures: Allowlist) -> None:
        self._deferred = deferred
        self._failures = failures

    def end(self, error: Exception | None) -> None:
        """Settle the call with the error of the stream; None if it has ended well."""
        self._deferred.end(OK if error is None else self._ending(error))

    @property
    def ended(self) -> bool:
        """Whether the call is settled."""
        return self._deferred.ended

    def abandon(self) -> None:
        """Settle the call of a stream that was dropped."""
        self._deferred.end(ABANDONED)

    def _ending(self, error: Exception) -> Ending:
        """Return the ending for an error. To cancel a stream before its end is a success: it has served its purpose."""
        if code_of(error) is grpc.StatusCode.CANCELLED:
            details = details_of(error)
            if details == CANCELLED:
                return OK
            if details in (CLOSED, COLLECTED):
                return ABANDONED
        return Ending(None, error, self._failures)
