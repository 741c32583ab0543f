"""The bodies of responses: the gates of a call are settled when its body ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from resilience._call import deadline_errors
from resilience._call.running_call import UNPHASED, DeadlineSource
from resilience._call.settlement import DeferredSettlement
from resilience._call.silences import Silences
from resilience._outcome.ending import Ending
from resilience._util.clock import FOREVER, clock
from resilience._util.finalizers import pending, run_pending, settle_from_finalizer
from resilience._util.locks import run_in_thread
from resilience.httpx._call import HttpCall
from resilience.httpx._deadline import Timeouts
from resilience.httpx._modules import httpx_module_of
from resilience.httpx._network import attempt_timeouts

DRAIN_BYTES: Final = 65_536
"""The number of bytes up to which the body of a discarded response is read."""
DRAIN_SECONDS: Final = 0.2
"""The seconds for which the body of a discarded response is read. To keep a connection is not worth more."""


class GuardedBody:
    """The base class of the bodies of plain and of async clients.

    Args:
        stream: the body from the inner transport.
        call: the call.
        timeouts: the timeouts of the attempt.
        started: the time at which the attempt began.
        deferred: the settlement that ends with the body; None if the call is settled already.
    """

    def __init__(
        self, stream: Any, call: HttpCall, timeouts: Timeouts, started: float, deferred: DeferredSettlement | None
    ) -> None:
        self._stream = stream
        self._call = call
        self._failures = call.failures  # of the pipeline that the call is in now, which may be a nested one
        self._timeouts = timeouts
        self._started = started
        self._deferred = deferred
        self._good = call.good
        self._over = False
        bounded = call.phases is not UNPHASED or call.shadow_phases is not UNPHASED
        self._silences = Silences(call) if bounded else None

    def _begin_wait(self) -> float:
        """Return the time until which the next chunk must arrive."""
        deadline = self._call.current_total_deadline()
        return deadline if self._silences is None else min(deadline, self._silences.begin())

    def _cut_source(self) -> DeadlineSource:
        """Return the source of the deadline at which the wait for a chunk was cut."""
        silences, call = self._silences, self._call
        if silences is not None and silences.until < call.current_total_deadline():
            return silences.source
        return call.total_deadline_source

    def _late(self) -> DeadlineSource | None:
        """Return the source of the deadline that has passed; None if none has."""
        deadline = self._call.current_total_deadline()
        if deadline != FOREVER and clock.monotonic() >= deadline:
            return self._call.total_deadline_source
        return None if self._silences is None else self._silences.exceeded()

    def _end(self, ending: Ending) -> None:
        """Settle the call; only the first ending counts."""
        self._over = True
        if self._deferred is not None:
            self._deferred.end(ending)

    def _stop_reading(self) -> None:
        """End a body whose iterator was dropped, which may be the work of a finalizer: its caller needs no more."""
        self._over = True
        if self._deferred is not None:
            settle_from_finalizer(partial(self._deferred.end, self._good))

    def _release(self) -> None:
        """Have the stream closed, but not now: a collection may have interrupted the pool where it holds a lock."""

    def __del__(self) -> None:
        # A response that was never read: its permits come back when `_deferred` is collected.
        if not self._over:
            self._release()

    def _fail(self, error: BaseException) -> None:
        """End the body with an error."""
        self._end(Ending(None, error, self._failures))

    def _end_late(self, source: DeadlineSource, cause: Exception | None = None) -> Exception:
        """End the body since a deadline has passed, and return the error to raise."""
        call = self._call
        error = deadline_errors.cut_error(call, self._started, source)
        deadline = str(error).partition(" passed while ")[0]
        elapsed = deadline_errors.seconds(clock.monotonic() - self._started)
        error.args = (f"{deadline} passed while the body was read, {elapsed} after {call.operation} began",)
        error.__cause__ = cause
        self._fail(error)
        return httpx_module_of(call.request).translated(error, call.request)


class Body(GuardedBody):
    """A body for a plain client. It ends once: when it is exhausted, closed, fails, or is garbage-collected."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks. The iterator is not kept, so that dropping it closes the body, as without the library."""
        iterator, silences = iter(self._stream), self._silences
        bounded = silences is not None or self._call.total_deadline != FOREVER  # an inherited deadline only gets later
        try:
            while True:
                late = self._late() if bounded else None
                if late is not None:
                    self._stream.close()
                    raise self._end_late(late)
                if silences is not None:
                    self._timeouts.set_deadline(self._begin_wait())
                before = attempt_timeouts.get()
                attempt_timeouts.set(self._timeouts)
                try:
                    chunk: bytes = next(iterator)
                except StopIteration:
                    break
                finally:
                    attempt_timeouts.set(before)
                if silences is not None:
                    silences.end()
                yield chunk
        except GeneratorExit:
            self._stop_reading()
            raise
        except Exception as error:
            if not self._over:
                late = self._late()
                if late is not None and self._call.caused_by_deadline(error):
                    raise self._end_late(late, error) from error
                self._fail(error)
            raise
        except BaseException as error:
            self._fail(error)
            raise
        self._end(self._good)

    def drain(self, until: float) -> bytes | None:
        """Close the body of a failed response.

        Args:
            until: the time until which it is read; also the deadline of each read.

        Returns:
            What was read, if it is the whole body; None if the body was too large or too slow.
        """
        self._over = True
        before = attempt_timeouts.get()
        attempt_timeouts.set(self._timeouts)
        try:
            self._timeouts.set_deadline(until)
            read = bytearray()
            for chunk in self._stream:
                read += chunk
                if len(read) > DRAIN_BYTES or clock.monotonic() >= until:
                    return None
            return bytes(read)
        except Exception:
            return None
        finally:
            attempt_timeouts.set(before)
            with contextlib.suppress(Exception):
                self._stream.close()

    def close(self) -> None:
        """Close the body. To close it before its end is a success: the caller has read what it needs."""
        try:
            self._stream.close()
        finally:
            self._end(self._good)
            if pending:
                run_pending()  # the events of a body that was dropped before it was closed

    def _release(self) -> None:
        run_in_thread(partial(_close_quietly, self._stream))


def _close_quietly(stream: Any) -> None:
    """Close the stream of a response that was dropped, and ignore errors of its connection."""
    with contextlib.suppress(Exception):
        stream.close()
