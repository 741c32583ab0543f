"""Responses of the synchronous API that come from a plain iterator, and the end of streams of responses."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc

from resilience._runtime import threads
from resilience._util.locks import make_lock
from resilience.grpc._call import mark_cut
from resilience.grpc._failures import CANCELLED, code_of, details_of
from resilience.grpc._head import EMPTY
from resilience.grpc._outcomes import Finished, LocalRpcError


class IteratedCall(Finished):
    """The call of responses that come from a plain iterator: of a Fallback, or of another interceptor.

    It is iterated over in a context of its own, since different threads may take its responses: a generator may have
    set context variables, and has to find them again.

    Args:
        responses: the iterator.
    """

    def __init__(self, responses: Iterator[Any]) -> None:
        self._responses = responses
        self._context = contextvars.copy_context()
        self._error: Exception | None = None
        self._ended = False
        self._callbacks: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._context.run(next, self._responses)
        except StopIteration:
            self._end()
            raise
        except Exception as error:
            self._error = error
            self._end()
            raise

    def first(self, until: float) -> Any:
        """Take the first response on a thread of its own, which is left behind at a deadline.

        Nothing else can end that wait: an iterator cannot be closed while it runs. OpenTelemetry's interceptor makes a
        generator of the stream, and so are those of others.

        Args:
            until: the deadline, in seconds of the monotonic clock.

        Returns:
            The response, or `EMPTY`.

        Raises:
            LocalRpcError: the deadline has passed.
        """
        return _First(self).take(until)

    def _end(self) -> None:
        self._ended = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the iterator ends; return False, and do not call it, if it has ended."""
        if not self._ended:
            self._callbacks.append(callback)
        return not self._ended

    def code(self) -> grpc.StatusCode:
        """Return the status code of the error that the iterator has raised; OK if it has raised none so far."""
        return grpc.StatusCode.OK if self._error is None else code_of(self._error) or grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        """Return the details of the error that the iterator has raised; empty if it has raised none so far."""
        return "" if self._error is None else details_of(self._error)

    def result(self, timeout: float | None = None) -> Any:
        """Raise the error of the iterator, if it has raised one."""
        del timeout
        if self._error is not None:
            raise self._error

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return the error of the iterator; None if it has raised none so far."""
        del timeout
        return self._error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Return the traceback of the error of the iterator."""
        del timeout
        return None if self._error is None else self._error.__traceback__

    def done(self) -> bool:
        """Return whether the iterator has ended."""
        return self._ended

    def running(self) -> bool:
        """Return whether the iterator has not ended."""
        return not self._ended

    def cancel(self) -> bool:
        """Close the iterator, if it can be closed at this moment; return whether it was."""
        close: Any = getattr(self._responses, "close", None)
        if close is None or self._ended:
            return False
        with contextlib.suppress(ValueError, RuntimeError):  # another thread waits for its next response
            self._context.run(close)
            self._end()
        return self._ended


class _First:
    """The first response of an iterator, while a thread waits for it."""

    def __init__(self, stream: IteratedCall) -> None:
        self._stream = stream
        self._mutex = make_lock()
        self._wake: Callable[[], object] | None = None
        self._is_done = False
        self._is_abandoned = False
        self._response: Any = None
        self._error: Exception | None = None

    def take(self, until: float) -> Any:
        """Return the response, or raise the error of the iterator, or one that says that it was left behind."""
        threads.start(self._run, threads.StopToken())
        try:
            threads.park(self, until)
        finally:
            with self._mutex:
                self._is_abandoned = not self._is_done
        if self._is_abandoned:
            late = LocalRpcError(grpc.StatusCode.CANCELLED, CANCELLED)
            mark_cut(late)
            raise late
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._response

    def add_waker(self, wake: Callable[[], object]) -> bool:
        """Have `wake` called when the response is there; return False if it is already."""
        with self._mutex:
            self._wake = wake
            return not self._is_done

    def _run(self) -> None:
        """Wait for the response; the function of the thread."""
        try:
            self._response = next(self._stream, EMPTY)
        except Exception as error:
            self._error = error
        with self._mutex:
            self._is_done = True
            wake = self._wake
        if self._is_abandoned:
            self._stream.cancel()
        elif wake is not None:
            wake()


def error_of_ended(stream: Any) -> Exception | None:
    """Return the error of a stream that has ended, or None if it has ended well."""
    code = stream.code()
    if code is grpc.StatusCode.OK:
        return None
    return stream if isinstance(stream, Exception) else LocalRpcError(code, stream.details() or "")
